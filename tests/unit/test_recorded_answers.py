"""What real servers of many versions answered, read by every method that the answers belong to."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from support import outcome_table, recordings
from support.causes import OUTCOMES, STREAMS, USUAL, Cause, cause_of
from support.replay import ENDPOINTS, NO_METHOD, NOT_RECORDED, SAME, Replay, route_of
from support.routes import ASKED
from support.runners import runner_of
from support.scripted import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.outcomes import Facts
    from support.recordings import Recording
    from support.runners import Runner

SERVERS = recordings.servers()


@pytest.mark.parametrize("server", SERVERS)
def test_each_answer_comes_to_its_outcome(server: str, scripted: ScriptedServer, runner: Runner) -> None:
    replay = Replay(server, scripted, runner)
    found = outcome_table.replayed(replay)
    runner.close(replay.llm)
    assert found == outcome_table.read()[server]


def test_the_table_is_as_it_would_be_written() -> None:
    assert outcome_table.FILE.read_text("utf-8") == outcome_table.written(outcome_table.read())


@pytest.mark.parametrize("server", SERVERS)
def test_every_recording_is_replayed(server: str) -> None:
    table = outcome_table.read()[server]
    for name in recordings.names(server=server):
        route = route_of(recordings.load(name, server))
        assert (name in table) is (route is not None), name


def test_every_method_is_replayed_or_explained() -> None:
    replayed = {
        method
        for by_name in outcome_table.read().values()
        for methods in by_name.values()
        for method in methods
    }
    methods = {asked.method for asked in ASKED}
    assert replayed | NOT_RECORDED.keys() == methods
    assert not replayed & NOT_RECORDED.keys()


def test_every_route_of_the_tables_was_recorded() -> None:
    routes = {recording.route for recording in every_recording()}
    assert routes == (ENDPOINTS.keys() | SAME.keys() | NO_METHOD.keys()) & routes
    assert ENDPOINTS.keys() | SAME.keys() | NO_METHOD.keys() == routes


# Exceptions and their causes


def comparable(outcome: Facts) -> str:
    """An outcome without what differs between versions and means the same: the text of errors, and whether the usage
    counts the tokens of the reasoning."""
    compared = {name: value for name, value in outcome.items() if name != "message"}
    return re.sub(r" \(\d+ reasoning\)", "", json.dumps(compared))


def check_causes(causes: tuple[Cause, ...], differing: set[tuple[str, str]]) -> None:
    """Each difference has a cause, and each cause a difference."""
    found = {(server, name): cause_of(causes, server, name) for server, name in differing}
    unexplained = sorted(key for key, cause in found.items() if cause is None)
    assert not unexplained
    assert [cause.why for cause in causes if cause not in found.values()] == []


def test_an_unusual_outcome_has_a_cause() -> None:
    table = outcome_table.read()
    differing = {
        (server, name)
        for server, by_name in table.items()
        for name, methods in by_name.items()
        for method, usual in table[USUAL].get(name, {}).items()
        if comparable(methods.get(method, {})) != comparable(usual)
    }
    check_causes(OUTCOMES, differing)


def test_a_stream_adds_up_to_the_reply_that_was_not_streamed() -> None:
    differing: set[tuple[str, str]] = set()
    compared = 0
    for server, by_name in outcome_table.read().items():
        whole = {
            key: name
            for name in by_name
            if (key := asked(recordings.load(name, server), stream=False)) is not None
        }
        for name, methods in by_name.items():
            key = asked(recordings.load(name, server), stream=True)
            if key not in whole:
                continue
            compared += 1
            for method, streamed in methods.items():
                same = {"stream": "chat"}.get(method, method.removeprefix("stream_"))
                reply = dict(by_name[whole[key]].get(same, {}))
                if "usage" not in streamed:
                    reply.pop("usage", None)
                if comparable(streamed) != comparable(reply):
                    differing.add((server, name))
    assert compared > 120
    check_causes(STREAMS, differing)


def asked(recording: Recording, *, stream: bool) -> str | None:
    """What a recording asked for, streamed or not; None where it is the other, or no request of this kind."""
    body = recording.fields
    if not body or (body.get("stream") is True) is not stream:
        return None
    fields = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    return json.dumps([recording.path, fields], sort_keys=True)


def test_the_pieces_of_a_stream_add_up() -> None:
    for server, by_name in outcome_table.read().items():
        for name, methods in by_name.items():
            for outcome in methods.values():
                assert "pieces" not in outcome, (server, name)


# What is not read, and what must not be there

PATHS = re.compile(r'(?<![\w.:/])/(?:root|home|work|tmp|Users|opt|mnt|srv)(?:/[^\s"\'\\]*)?')
"""Paths of machines that people work on."""

NEUTRAL = ("/home/vllm/", "/tmp")
"""Those that the server itself has by default."""


def every_recording() -> Iterator[Recording]:
    for server in SERVERS:
        for name in recordings.names(server=server):
            yield recordings.load(name, server)


def test_no_machine_shows_in_an_answer() -> None:
    for recording in every_recording():
        text = recording.body.decode()
        found = [path for path in PATHS.findall(text) if not path.startswith(NEUTRAL)]
        assert not found, f"{recording.server} {recording.name}"


_ECHOED = "the request, given back"
_OPENAI = "of OpenAI's own server: null from vLLM"
_TURNS = "of Harmony models, turn by turn"

UNREAD: dict[str, dict[str, str]] = {
    "models": {"data.permission": "the same for every model"},
    "render": {"assistant_tokens_mask": "0.25 to 0.30, for a parameter that the client does not have"},
    "render_completion": {"assistant_tokens_mask": "as for `render`"},
    "respond": {
        **dict.fromkeys(
            (
                *("background", "frequency_penalty", "max_tool_calls", "parallel_tool_calls"),
                *("presence_penalty", "prompt", "reasoning", "service_tier", "text", "tool_choice", "tools"),
                *("top_logprobs", "truncation", "user"),
            ),
            _ECHOED,
        ),
        **dict.fromkeys(
            ("output.async", "output.caller", "output.encrypted_content", "output.namespace", "output.phase"),
            _OPENAI,
        ),
        "usage.input_tokens_details.cached_tokens_per_turn": _TURNS,
        "usage.input_tokens_details.input_tokens_per_turn": _TURNS,
        "usage.output_tokens_details.output_tokens_per_turn": _TURNS,
        "usage.output_tokens_details.tool_output_tokens_per_turn": _TURNS,
    },
}
"""By method, what answers have that no model names, each with the reason."""


def test_every_field_of_an_answer_is_named_or_explained() -> None:
    found: dict[str, set[str]] = {}
    with runner_of("sync") as runner:
        for server in SERVERS:
            with ScriptedServer() as scripted:
                replay = Replay(server, scripted, runner)
                assert list(replay.outcomes())
                runner.close(replay.llm)
            for method, fields in replay.unread.items():
                found.setdefault(method, set()).update(fields)
    assert {method: fields for method, fields in found.items() if fields} == {
        method: set(fields) for method, fields in UNREAD.items()
    }
