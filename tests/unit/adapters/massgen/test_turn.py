"""Events become MassGen's chunks, in MassGen's order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vllmchat.adapters.massgen.turn import Chunk, Turn
from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import decode_chunk
from vllmchat.chat.events import EventBuilder


def turn_of(
    *deltas: dict[str, Any],
    finish: str | None = "stop",
    tokens: int = 7,
    context_size: int | None = None,
    **options: bool,
) -> tuple[Turn, list[Chunk]]:
    """A turn's chunks for a stream of these deltas."""
    turn, maker, accumulator = Turn(**options), EventBuilder(), Accumulator(expected=1)
    turn.context_size = context_size
    pieces: list[dict[str, Any]] = [{"delta": delta} for delta in deltas]
    if finish is not None:
        pieces.append({"delta": {}, "finish_reason": finish})
    bodies: list[dict[str, Any]] = [{"choices": [{"index": 0, **piece}]} for piece in pieces]
    bodies.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})
    chunks: list[Chunk] = []
    for body in bodies:
        chunk = decode_chunk(json.dumps({"id": "x", "object": "chat.completion.chunk", **body}).encode())
        accumulator.add(chunk)
        for event in maker.feed(chunk):
            chunks.extend(turn.feed(event))
    for event in maker.finish(accumulator.reply()):
        chunks.extend(turn.feed(event))
    return turn, chunks


def call(name: str, arguments: str, *, index: int = 0, call_id: str | None = "c1") -> dict[str, Any]:
    """A delta with a whole tool call."""
    opened = {"index": index, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [opened if call_id is None else {**opened, "id": call_id}]}


def kinds(chunks: list[Chunk]) -> list[str]:
    return [chunk.type for chunk in chunks]


def test_text_arrives_in_chunks() -> None:
    turn, chunks = turn_of({"content": "Six times "}, {"content": "seven is 42."})
    assert chunks == [Chunk("content", "Six times "), Chunk("content", "seven is 42.")]
    assert turn.end() == []
    message = {"role": "assistant", "content": "Six times seven is 42."}
    assert turn.handed_over() == [Chunk("complete_message", complete_message=message), Chunk("done")]


def test_reasoning_ends_before_the_text_begins() -> None:
    turn, chunks = turn_of({"reasoning": "Six "}, {"reasoning": "sevens."}, {"content": "42"})
    assert kinds(chunks + turn.end() + turn.handed_over()) == [
        "reasoning",
        "reasoning",
        "reasoning_done",
        "content",
        "complete_message",
        "done",
    ]
    assert (chunks[0].content, chunks[0].reasoning_delta) == ("Six ", "Six ")
    assert chunks[2].content == ""


def test_reasoning_ends_before_the_tool_calls() -> None:
    turn, chunks = turn_of(
        {"reasoning": "I vote."}, call("vote", '{"agent_id": "agent1"}'), finish="tool_calls"
    )
    assert kinds(chunks + turn.end() + turn.handed_over()) == [
        "reasoning",
        "reasoning_done",
        "tool_calls",
        "complete_message",
        "done",
    ]


def test_a_reply_of_reasoning_alone_ends_it() -> None:
    turn, chunks = turn_of({"reasoning": "Hm."})
    assert kinds(chunks + turn.end() + turn.handed_over()) == ["reasoning", "reasoning_done", "done"]


@pytest.mark.parametrize(
    "names", [("reasoning",), ("reasoning_content",), ("reasoning", "reasoning_content")]
)
def test_reasoning_is_reported_once_whatever_the_server_calls_it(names: tuple[str, ...]) -> None:
    turn, chunks = turn_of(dict.fromkeys(names, "Hm."), {"content": "42"})
    assert kinds(chunks) == ["reasoning", "reasoning_done", "content"]
    assert turn.reasoning == "Hm."


def test_reasoning_can_begin_again() -> None:
    turn, chunks = turn_of({"reasoning": "a"}, {"content": "b"}, {"reasoning": "c"}, {"content": "d"})
    assert kinds(chunks) == ["reasoning", "reasoning_done", "content"] * 2
    assert (turn.reasoning, turn.text) == ("ac", "bd")


def test_the_joined_content_of_all_chunks_has_no_reasoning() -> None:
    _, chunks = turn_of({"reasoning": "Hm."}, {"content": "42"}, reasoning_in_content=False)
    assert "".join(chunk.content or "" for chunk in chunks) == "42"
    assert chunks[0].reasoning_delta == "Hm."


@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_tool_calls_come_in_one_chunk_whatever_the_finish_reason(finish: str) -> None:
    first = call("new_answer", '{"content": "42"}')
    second = call("vote", '{"agent_id": "agent1"}', index=1, call_id="c2")
    turn, chunks = turn_of(first, second, finish=finish)
    assert chunks == []
    (handed,) = turn.end()
    assert handed.tool_calls == [
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "new_answer", "arguments": '{"content": "42"}'},
        },
        {"id": "c2", "type": "function", "function": {"name": "vote", "arguments": '{"agent_id": "agent1"}'}},
    ]
    message, done = turn.handed_over()
    assert message.complete_message == {"role": "assistant", "content": "", "tool_calls": handed.tool_calls}
    assert done == Chunk("done")


def test_a_call_without_arguments_has_empty_ones() -> None:
    turn, _ = turn_of(call("stop", ""))
    assert turn.calls[0]["function"]["arguments"] == "{}"


def test_calls_without_ids_get_different_ones() -> None:
    turn, _ = turn_of(call("a", "{}", call_id=None), call("b", "{}", index=1, call_id=None))
    ids = [each["id"] for each in turn.calls]
    assert all(ids)
    assert len(set(ids)) == 2


def test_a_cut_call_is_reported_and_not_handed_over() -> None:
    turn, _ = turn_of({"content": "So: "}, call("new_answer", '{"content": "4'), finish="length", tokens=64)
    (error,) = turn.end()
    assert error.type == "error"
    assert error.status is None
    assert error.error is not None
    for part in (
        "new_answer",
        "truncated",
        "not executed",
        "after 64 tokens",
        "max_tokens",
        "--max-model-len",
    ):
        assert part in error.error
    assert turn.calls == []
    message, _ = turn.handed_over()
    assert message.complete_message == {"role": "assistant", "content": "So:"}


def test_a_call_that_ended_in_repetitions_is_reported_as_such() -> None:
    turn, _ = turn_of(call("new_answer", '{"content": "la la la'), finish="repetition")
    assert turn.refusal is not None
    assert "repetition_detection" in turn.refusal
    assert "max_tokens" not in turn.refusal


def test_a_call_that_looks_complete_is_cut_if_the_reply_was() -> None:
    turn, _ = turn_of(call("new_answer", "{}"), finish="length")
    assert turn.calls == []
    assert turn.refusal is not None


def test_a_complete_call_before_a_cut_one_is_not_handed_over_either() -> None:
    turn, _ = turn_of(
        call("vote", '{"agent_id": "agent1"}'), call("new_answer", '{"con', index=1), finish="length"
    )
    assert kinds(turn.end()) == ["error"]
    assert turn.calls == []


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "function_call"])
@pytest.mark.parametrize(
    "arguments",
    ["{'content': 42}", '{"content": "42"}}', '{"content": "42"', '{"content": "4', '"42"', "4 2"],
)
def test_broken_arguments_that_no_limit_cut_are_left_to_massgen(arguments: str, finish: str) -> None:
    turn, _ = turn_of(call("new_answer", arguments), finish=finish)
    assert turn.refusal is None
    (handed,) = turn.calls
    assert handed["function"] == {"name": "new_answer", "arguments": arguments}


@pytest.mark.parametrize("arguments", ["{'content': 42}", '{"content": "42"', "{}"])
@pytest.mark.parametrize("finish", ["length", "repetition", "abort", "content_filter", "network_error"])
def test_after_any_other_end_no_call_is_handed_over(arguments: str, finish: str) -> None:
    turn, _ = turn_of(call("new_answer", arguments), finish=finish)
    assert turn.calls == []
    assert [chunk.type for chunk in turn.end()] == ["error"]


def test_an_unknown_end_is_named() -> None:
    turn, _ = turn_of(
        call("vote", '{"agent_id": "agent1"}'), call("stop", "{}", index=1), finish="network_error"
    )
    assert turn.refusal is not None
    for part in ("network_error", "not executed"):
        assert part in turn.refusal


@pytest.mark.parametrize(("size", "is_cut"), [(9, True), (10, True), (11, False), (None, False)])
def test_a_reply_that_fills_the_context_was_cut_whatever_the_server_says(
    size: int | None, is_cut: bool
) -> None:
    # vLLM 0.10 to 0.32 report `tool_calls` for it. Here the prompt has 3 tokens.
    turn, _ = turn_of(call("new_answer", '{"content": "4'), finish="tool_calls", tokens=7, context_size=size)
    assert (turn.refusal is not None) is is_cut
    if is_cut:
        assert "--max-model-len" in (turn.refusal or "")


def test_a_reply_can_be_refused_later() -> None:
    turn, _ = turn_of({"content": "So: "}, call("new_answer", "42"), finish="tool_calls")
    turn.refuse("It is broken.")
    assert turn.end() == [Chunk("error", error="It is broken.")]
    assert turn.handed_over()[0].complete_message == {"role": "assistant", "content": "So:"}


def test_a_reply_that_was_all_reasoning_is_reported() -> None:
    turn, _ = turn_of({"reasoning": "So many thoughts"}, finish="length", tokens=512)
    assert turn.refusal is not None
    for part in ("no answer", "still reasoning", "512 tokens", "max_tokens"):
        assert part in turn.refusal


def test_a_text_that_reached_the_limit_is_an_answer() -> None:
    turn, _ = turn_of({"content": "Once upon a"}, finish="length")
    assert turn.refusal is None
    assert kinds(turn.handed_over()) == ["complete_message", "done"]


def test_an_aborted_reply_is_reported_and_its_text_kept() -> None:
    turn, _ = turn_of({"content": "Once upon"}, finish="abort")
    assert turn.refusal is not None
    assert "abort" in turn.refusal
    assert turn.handed_over()[0].complete_message == {"role": "assistant", "content": "Once upon"}


def test_only_the_first_choice_counts() -> None:
    turn, maker = Turn(), EventBuilder()
    for index, text in ((1, "no"), (0, "yes"), (1, "no")):
        body = {"object": "chat.completion.chunk", "choices": [{"index": index, "delta": {"content": text}}]}
        for event in maker.feed(decode_chunk(json.dumps(body).encode())):
            turn.feed(event)
    assert turn.text == "yes"


@pytest.mark.parametrize(("fatal", "status"), [(True, "fatal"), (False, None)])
def test_a_broken_reply_keeps_its_text_and_drops_its_calls(fatal: bool, status: str | None) -> None:
    turn, _ = turn_of({"reasoning": "Hm."})
    turn.text = "Once "
    turn.calls = [{"id": "c1"}]
    done, error = turn.broken("It broke.", fatal=fatal)
    assert done == Chunk("reasoning_done", "")
    assert error == Chunk("error", error="It broke.", status=status)
    message, _ = turn.handed_over()
    assert message.complete_message == {"role": "assistant", "content": "Once"}


def test_a_broken_reply_without_text_leaves_no_message() -> None:
    turn = Turn()
    assert kinds(turn.broken("It broke.") + turn.handed_over()) == ["error", "done"]


def test_the_next_request_gets_text_reasoning_and_calls() -> None:
    turn, _ = turn_of({"reasoning": "Look."}, {"content": "I look."}, call("look", "{}"), finish="tool_calls")
    assert turn.assistant_message() == {
        "role": "assistant",
        "content": "I look.",
        "reasoning": "Look.",
        "tool_calls": turn.calls,
    }


def test_the_next_request_has_no_empty_keys() -> None:
    turn, _ = turn_of(call("look", "{}"), finish="tool_calls")
    assert turn.assistant_message() == {"role": "assistant", "content": None, "tool_calls": turn.calls}
