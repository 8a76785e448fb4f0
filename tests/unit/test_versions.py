"""Differences between vLLM versions: when the version is looked up, and what is sent to which."""

from __future__ import annotations

import json
import linecache
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.chats import answer_any, completion
from support.scripted import Gate, reply
from vllmchat import (
    APIStatusError,
    InvalidRequestError,
    OpenAIProvider,
    ResponseError,
    VLLMProvider,
    versions,
)
from vllmchat.versions import (
    COMPLETIONS,
    EMBEDDINGS,
    NEWEST,
    RESPONSES,
    fit,
    must_ask,
    read_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.runners import Runner
    from support.scripted import Answer, Answerer, Request, ScriptedServer
    from vllmchat.versions import Version

Object = dict[str, Any]

SOUND = b"RIFF"
SIGHT: Object = {"type": "function", "function": {"name": "look"}}
SCHEMA: Object = {"type": "object", "properties": {"a": {"type": "integer"}}}


def vllm(version: object, status: int = 200) -> Callable[[Request], Answer]:
    """A server that reports a given version."""

    def answer(request: Request) -> Answer:
        if request.path != "/version":
            return answer_any(request)
        return reply({"version": version} if isinstance(version, str) else version, status)

    return answer


def responding(version: str) -> Callable[[Request], Answer]:
    """The same, with responses."""

    def answer(request: Request) -> Answer:
        return reply({"version": version} if request.path == "/version" else {"id": "resp_1", "output": []})

    return answer


def asked(server: ScriptedServer) -> int:
    return sum(request.path == "/version" for request in server.requests)


def sent(server: ScriptedServer) -> Object:
    """The fields of the last chat, without those that all have."""
    body = server.requests[-1].json()
    return {
        name: value
        for name, value in body.items()
        if name not in ("model", "messages", "stream", "stream_options")
    }


@pytest.fixture
def llm(scripted: ScriptedServer) -> VLLMProvider:
    return VLLMProvider("m", base_url=scripted.base_url, max_retries=0)


# Versions


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.8.5", (0, 8, 5)),
        ("0.8.5.post1", (0, 8, 5)),
        ("0.10.2", (0, 10, 2)),
        ("0.11.0rc2.dev27+g1a2b3c4", (0, 11, 0)),
        ("v0.32.0", (0, 32, 0)),
        ("1.0", (1, 0, 0)),
        ("0.1.dev1+g1a2b3c4", NEWEST),
        ("dev", NEWEST),
        ("", NEWEST),
    ],
)
def test_reading_a_version(text: str, version: tuple[int, int, int]) -> None:
    assert read_version(text) == version


# Constraints

OLD = ["0.8.5", "0.10.2"]
NEW = ["0.11.0", "0.32.0", "0.33.1rc1", "dev"]

FORMS: list[tuple[Object, Object]] = [
    ({"regex": "[a-z]+"}, {"guided_regex": "[a-z]+"}),
    ({"choice": ["a", "b"]}, {"guided_choice": ["a", "b"]}),
    ({"grammar": 'root ::= "a"'}, {"guided_grammar": 'root ::= "a"'}),
    ({"json": SCHEMA}, {"guided_json": SCHEMA}),
    (
        {"json": SCHEMA, "whitespace_pattern": " ?", "disable_any_whitespace": False, "regex": None},
        {"guided_json": SCHEMA, "guided_whitespace_pattern": " ?"},
    ),
    ({"json_object": True}, {"response_format": {"type": "json_object"}}),
]


@pytest.mark.parametrize(("body", "guided"), FORMS)
@pytest.mark.parametrize("version", OLD)
def test_an_old_server_gets_its_own_form(
    version: str, body: Object, guided: Object, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.always(vllm(version))
    runner.do(llm, "chat", "Hi", structured_outputs=body, temperature=0)
    assert sent(scripted) == {"temperature": 0, **guided}


@pytest.mark.parametrize(("body", "guided"), FORMS)
@pytest.mark.parametrize("version", NEW)
def test_a_new_server_gets_structured_outputs(
    version: str, body: Object, guided: Object, scripted: ScriptedServer, llm: VLLMProvider
) -> None:
    scripted.always(vllm(version))
    llm.chat("Hi", structured_outputs=body)  # type: ignore[arg-type] # pyright: ignore # one of many
    assert sent(scripted) == {"structured_outputs": body}


def test_streams_ask_too(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.always(vllm("0.10.2"))
    stream = runner.open(llm, "stream", "Hi", structured_outputs={"regex": "H.*"})
    assert "".join(stream.texts()) == "Hi"
    assert sent(scripted) == {"guided_regex": "H.*"}


@pytest.mark.parametrize(
    "name", ["structural_tag", "disable_any_whitespace", "disable_additional_properties"]
)
def test_what_an_old_server_lacks_is_rejected(name: str, scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.always(vllm("0.10.2"))
    body: Object = {"structural_tag": "{}"} if name == "structural_tag" else {"json": SCHEMA, name: True}
    with pytest.raises(InvalidRequestError) as caught:
        llm.chat("Hi", structured_outputs=body)  # type: ignore[arg-type] # pyright: ignore # one of many
    [problem] = caught.value.problems
    assert problem.parameter == f"structured_outputs.{name}"
    assert problem.rule == "needs vLLM 0.11 or newer; this server is 0.10.2."
    assert all(request.path == "/version" for request in scripted.requests)


# On completions

FORMAT: Object = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ((0, 8, 5), {"guided_json": SCHEMA}),
        ((0, 11, 0), {"structured_outputs": {"json": SCHEMA}}),
        ((0, 11, 1), {"response_format": FORMAT}),
        (NEWEST, {"response_format": FORMAT}),
    ],
)
def test_a_schema_for_completions(version: tuple[int, int, int], fields: Object) -> None:
    body: Object = {"response_format": FORMAT, "n": 1}
    assert must_ask(body, COMPLETIONS)
    assert fit(body, version, COMPLETIONS) == {**fields, "n": 1}
    assert body == {"response_format": FORMAT, "n": 1}


@pytest.mark.parametrize("body", [{}, {"n": 1}, {"response_format": {"type": "json_object"}}])
def test_completions_that_need_no_version(body: Object) -> None:
    assert not must_ask(body, COMPLETIONS)
    assert fit(body, (0, 8, 5), COMPLETIONS) == body


TAGS: list[Object] = [
    {"type": "structural_tag", "format": {"type": "any_text"}},
    {"type": "structural_tag", "structures": [{"begin": "<a>", "end": "</a>"}], "triggers": ["<a>"]},
]


@pytest.mark.parametrize("tag", TAGS)
def test_structural_tags_for_completions(tag: Object, scripted: ScriptedServer, llm: VLLMProvider) -> None:
    assert fit({"response_format": tag}, (0, 11, 1), COMPLETIONS) == {"response_format": tag}
    scripted.always(vllm("0.11.0"))
    with pytest.raises(InvalidRequestError) as caught:
        llm.complete("Hi", response_format=tag)  # type: ignore[arg-type] # pyright: ignore # one of many
    [problem] = caught.value.problems
    assert str(problem) == "response_format: needs vLLM 0.11.1 or newer; this server is 0.11.0."


@pytest.mark.parametrize("tag", TAGS)
def test_structural_tags_for_chats_are_the_same_for_all(tag: Object) -> None:
    assert not must_ask({"response_format": tag})


def test_a_completion_asks(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    text = {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": "a"}]}

    def answer(request: Request) -> Answer:
        return reply({"version": "0.10.2"} if request.path == "/version" else text)

    scripted.always(answer)
    runner.do(llm, "complete", "Hi", response_format=FORMAT)
    body = scripted.requests[-1].json()
    assert body["guided_json"] == SCHEMA
    assert "response_format" not in body


# On responses

OBJECT: Object = {"type": "object"}


def as_text(schema: Object) -> Object:
    return {"text": {"format": {"type": "json_schema", "name": "reply", "schema": schema}}}


@pytest.mark.parametrize(
    ("body", "schema"),
    [
        ({"json": SCHEMA}, SCHEMA),
        ({"json": SCHEMA, "disable_any_whitespace": False, "regex": None}, SCHEMA),
        ({"json": json.dumps(SCHEMA)}, SCHEMA),
        ({"json_object": True}, OBJECT),
    ],
)
@pytest.mark.parametrize("version", ["0.10.0", "0.11.1", "0.16.0"])
def test_a_schema_for_old_responses(
    version: str, body: Object, schema: Object, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.always(responding(version))
    runner.do(llm, "respond", "Hi", structured_outputs=body, top_p=0.5)
    assert asked(scripted) == 1
    body = scripted.requests[-1].json()
    assert body == {"model": "m", "input": "Hi", "top_p": 0.5, **as_text(schema)}


@pytest.mark.parametrize("body", [each for each, _ in FORMS])
@pytest.mark.parametrize("version", [(0, 17, 0), (0, 32, 0), NEWEST])
def test_newer_responses_have_structured_outputs(version: Version, body: Object) -> None:
    fields = {"structured_outputs": body}
    assert must_ask(fields, RESPONSES)
    assert fit(fields, version, RESPONSES) == fields


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"regex": "a"}, ["regex"]),
        ({"choice": ["a"]}, ["choice"]),
        ({"grammar": 'root ::= "a"'}, ["grammar"]),
        ({"structural_tag": "{}"}, ["structural_tag"]),
        (
            {"json": SCHEMA, "whitespace_pattern": " ", "disable_any_whitespace": True},
            ["whitespace_pattern", "disable_any_whitespace"],
        ),
    ],
)
@pytest.mark.parametrize("version", ["0.10.2", "0.16.0"])
def test_what_old_responses_lack_is_rejected(
    version: str, body: Object, names: list[str], scripted: ScriptedServer, llm: VLLMProvider
) -> None:
    scripted.always(responding(version))
    with pytest.raises(InvalidRequestError) as caught:
        llm.respond("Hi", structured_outputs=body)  # type: ignore[arg-type] # pyright: ignore # one of many
    assert [problem.parameter for problem in caught.value.problems] == [
        f"structured_outputs.{name}" for name in names
    ]
    assert {problem.rule for problem in caught.value.problems} == {
        f"needs vLLM 0.17 or newer; this server is {version}."
    }
    assert all(request.path == "/version" for request in scripted.requests)


@pytest.mark.parametrize("text", ["no JSON", "true", "[]"])
def test_a_schema_for_old_responses_must_be_an_object(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="a JSON object as a string"):
        fit({"structured_outputs": {"json": text}}, (0, 16, 0), RESPONSES)


def test_any_object_in_responses_is_a_schema_for_those_that_ignore_it() -> None:
    body: Object = {"text": {"format": {"type": "json_object"}}}
    assert must_ask(body, RESPONSES)
    assert fit(body, (0, 31, 0), RESPONSES) == as_text(OBJECT)
    assert fit(body, (0, 32, 0), RESPONSES) == body


@pytest.mark.parametrize(
    "body", [{}, {"text": {}}, {"text": None}, {"text": {"format": {"type": "text"}}}, as_text(SCHEMA)]
)
def test_responses_that_need_no_version(body: Object) -> None:
    assert not must_ask(body, RESPONSES)


# Numbers


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("embed", {"endianness": "big", "encoding_format": "base64"}, "endianness"),
        ("embed", {"embed_dtype": "float16", "encoding_format": "base64"}, "embed_dtype"),
        ("pool", {"embed_dtype": "float16", "encoding_format": "base64"}, "embed_dtype"),
        ("pool", {"endianness": "big", "encoding_format": "base64"}, "endianness"),
        ("pool", {"use_activation": False}, "use_activation"),
        ("classify", {"use_activation": False}, "use_activation"),
    ],
)
def test_numbers_that_an_old_server_would_send_differently(
    method: str, params: Object, name: str, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.always(vllm("0.11.0"))
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, method, "x", **params)
    [problem] = caught.value.problems
    assert str(problem) == f"{name}: needs vLLM 0.11.1 or newer; this server is 0.11.0."
    assert all(request.path == "/version" for request in scripted.requests)


@pytest.mark.parametrize("method", ["embed", "pool"])
def test_big_endian_numbers_use_a_format_that_old_servers_reject(
    method: str, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.always(reply({"error": {"message": "encoding_format", "code": 400}}, 400))
    with pytest.raises(APIStatusError):
        runner.do(llm, method, "x", endianness="big")
    [request] = scripted.requests
    assert (request.json()["encoding_format"], request.json()["endianness"]) == ("bytes", "big")


@pytest.mark.parametrize("route", [EMBEDDINGS, "/pooling"])
def test_numbers_that_a_newer_server_sends_as_requested(route: str) -> None:
    body = {"encoding_format": "base64", "embed_dtype": "float16", "endianness": "big"}
    assert fit(body, (0, 11, 1), route) == body


@pytest.mark.parametrize(
    "body",
    [
        {"encoding_format": "base64", "endianness": "little"},
        {"encoding_format": "base64", "endianness": "native", "embed_dtype": "float32"},
        {"encoding_format": "bytes", "endianness": "big", "embed_dtype": "float16"},
        {"encoding_format": "float"},
    ],
)
def test_numbers_that_need_no_version(body: Object) -> None:
    assert not must_ask(body, EMBEDDINGS)
    assert not must_ask(body, "/pooling")


@pytest.mark.parametrize(
    ("version", "sent"),
    [
        ((0, 10, 1), {"normalize": False}),
        ((0, 15, 1), {"normalize": False}),
        ((0, 16, 0), {"use_activation": False}),
        (NEWEST, {"use_activation": False}),
    ],
)
def test_the_name_of_normalizing(version: Version, sent: Object) -> None:
    assert fit({"use_activation": False}, version, EMBEDDINGS) == sent


def test_some_servers_are_too_old_for_use_activation() -> None:
    with pytest.raises(InvalidRequestError, match=r"needs vLLM 0\.10\.1 or newer; this server is 0\.10\.0"):
        fit({"use_activation": True}, (0, 10, 0), EMBEDDINGS)


# When the version is looked up, and how often


def test_the_version_is_looked_up_once(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.always(vllm("0.10.2"))
    for provider in (llm, llm.with_options(max_retries=1), llm):
        runner.do(provider, "chat", "Hi", structured_outputs={"regex": "a"})
    assert asked(scripted) == 1
    assert scripted.requests[0].path == "/version"
    assert scripted.requests[0].headers["authorization"] == "Bearer EMPTY"


def test_concurrent_calls_look_it_up_once(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    gate = Gate()

    def answer(request: Request) -> Answer:
        if request.path == "/version":
            held = reply({"version": "0.10.2"})
            return type(held)((gate, *held.steps))
        return answer_any(request)

    scripted.always(answer)

    def ask(text: str) -> str:
        return llm.chat(text, structured_outputs={"regex": "a"}).text

    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(ask, str(number)) for number in range(8)]
        gate.wait_reached()
        gate.release()
        assert [each.result() for each in coming] == [str(number) for number in range(8)]
    assert asked(scripted) == 1


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"response_format": FORMAT},
        {"response_format": {"type": "json_object"}},
        {"top_k": 0},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"request_id": "mine", "priority": 3, "user": "u", "cache_salt": None},
        {"include_reasoning": True, "return_token_ids": False, "bad_words": [], "watermarking": False},
        {"extra_body": {"guided_regex": "a", "bad_words": ["x"]}},
    ],
)
def test_what_is_the_same_for_all_needs_no_version(
    params: Object, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.always(vllm("0.8.5"))
    runner.do(llm, "chat", "Hi", **params)
    assert asked(scripted) == 0


# Newer parameters

TOO_NEW: list[tuple[str, tuple[object, ...], Object, str, str]] = [
    # the method, its arguments, the parameter, a version that lacks it, a version that has it
    ("chat", ("Hi",), {"allowed_token_ids": [1]}, "0.8.5", "0.9.1"),
    ("chat", ("Hi",), {"bad_words": ["x"]}, "0.8.5", "0.9.2"),
    ("chat", ("Hi",), {"cache_salt": "secret"}, "0.8.5", "0.9"),
    ("chat", ("Hi",), {"reasoning_effort": "low"}, "0.9.2", "0.10.1"),
    ("chat", ("Hi",), {"include_reasoning": False}, "0.9.2", "0.10.1"),
    ("chat", ("Hi",), {"thinking_token_budget": 5}, "0.17.1", "0.19"),
    ("chat", ("Hi",), {"return_prompt_text": True}, "0.19.1", "0.21"),
    ("chat", ("Hi",), {"watermarking": True}, "0.25.1", "0.30"),
    ("complete", ("Hi",), {"thinking_token_budget": 5}, "0.19.1", "0.22"),
    ("complete", ("Hi",), {"bad_words": ["x"]}, "0.25.1", "0.26"),
    ("respond", ("Hi",), {"enable_thinking": False}, "0.19.1", "0.22"),
    ("respond", ("Hi",), {"top_k": 1}, "0.12.0", "0.13"),
    ("generate", ([1],), {"output_mode": "text"}, "0.30.0", "0.32"),
    ("generate", ([1],), {"logprob_token_ids": [1]}, "0.19.1", "0.20"),
    ("render", ("Hi",), {"truncation_side": "left"}, "0.19.1", "0.22"),
    ("render_completion", ("Hi",), {"bad_words": ["x"]}, "0.25.1", "0.26"),
    ("chat_batch", (["Hi"],), {"truncation_side": "left"}, "0.19.1", "0.22"),
    ("tokenize", ("Hi",), {"return_token_strs": True}, "0.8.5", "0.9.1"),
    ("count_tokens", ("Hi",), {"tools": [SIGHT]}, "0.8.5", "0.9"),
    ("count_tokens", ("Hi",), {"reasoning_effort": "none"}, "0.9.2", "0.10.1"),
    ("embed", ("Hi",), {"cache_salt": "a"}, "0.14.1", "0.16"),
    ("embed", ("Hi",), {"mm_processor_kwargs": {"a": 1}}, "0.14.1", "0.16"),
    ("pool", ("Hi",), {"task": "embed"}, "0.10.2", "0.11.1"),
    ("classify", ("Hi",), {"add_special_tokens": False}, "0.10.2", "0.11.1"),
    ("score", ("a", "b"), {"instruction": "i"}, "0.19.1", "0.22"),
    ("score", ("a", "b"), {"mm_processor_kwargs": {"a": 1}}, "0.9.2", "0.10"),
    ("rerank", ("a", ["b"]), {"max_tokens_per_doc": 3}, "0.19.1", "0.20"),
    ("transcribe", (SOUND,), {"hotwords": "vLLM"}, "0.19.1", "0.20"),
    ("translate", (SOUND,), {"top_k": 3}, "0.25.1", "0.27"),
]


@pytest.mark.parametrize(("method", "args", "params", "version", "since"), TOO_NEW)
def test_a_server_that_is_too_old_for_a_parameter(
    method: str,
    args: tuple[object, ...],
    params: Object,
    version: str,
    since: str,
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
) -> None:
    scripted.version = version
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, method, *args, **params)
    # The value of a salt is secret.
    assert [str(problem) for problem in caught.value.problems] == [
        f"{next(iter(params))}: needs vLLM {since} or newer; this server is {version}."
    ]
    assert scripted.requests == []


@pytest.mark.parametrize(("method", "args", "params", "version", "since"), TOO_NEW)
def test_a_server_that_is_new_enough_for_a_parameter(
    method: str,
    args: tuple[object, ...],
    params: Object,
    version: str,
    since: str,
    scripted: ScriptedServer,
    llm: VLLMProvider,
) -> None:
    scripted.version = since
    scripted.reply({"detail": "gone"}, 418)
    with pytest.raises(APIStatusError):
        getattr(llm, method)(*args, **params)
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("method", ["stream", "stream_complete", "stream_respond", "stream_transcribe"])
def test_a_stream_is_rejected_when_it_begins(
    method: str, scripted: ScriptedServer, llm: VLLMProvider
) -> None:
    scripted.version = "0.12.0"
    params: Object = {"hotwords": "a"} if "transcribe" in method else {"cache_salt": "a", "top_k": 1}
    params = {"thinking_token_budget": 3} if method in ("stream", "stream_complete") else params
    stream = getattr(llm, method)(SOUND if "transcribe" in method else "Hi", **params)
    with pytest.raises(InvalidRequestError, match="needs vLLM"):
        next(iter(stream))
    assert scripted.requests == []


def test_everything_that_is_too_new_is_reported_at_once(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.version = "0.9.0"
    with pytest.raises(InvalidRequestError) as caught:
        llm.chat("Hi", bad_words=["x"], include_reasoning=False, structured_outputs={"structural_tag": "{}"})
    assert [problem.parameter for problem in caught.value.problems] == [
        "bad_words",
        "include_reasoning",
        "structured_outputs.structural_tag",
    ]


@pytest.mark.parametrize("name", ["data_parallel_rank", "session_id", "stream_interval"])
def test_what_an_old_server_may_ignore_is_a_warning(
    name: str, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    value: object = {"data_parallel_rank": 1, "session_id": "a", "stream_interval": 2}[name]
    scripted.version = version = "0.11.1" if name == "data_parallel_rank" else "0.19.1"
    scripted.always(answer_any)
    message = rf"^the server ignores {name}: needs vLLM 0\.(12|27|28) or newer; this server is {re.escape(version)}\.$"
    with pytest.warns(UserWarning, match=message):
        runner.do(llm, "chat", "Hi", **{name: value})
    assert sent(scripted) == ({} if name == "data_parallel_rank" else {name: value})


@pytest.mark.parametrize(
    ("params", "headers"),
    [
        ({}, (None, None)),
        ({"session_id": "conversation 1"}, ("conversation 1", None)),
        ({"session_id": ""}, (None, None)),
        ({"session_id": "a\u00e9\nb"}, (None, None)),
        ({"data_parallel_rank": 0}, (None, "0")),
        ({"session_id": "a", "data_parallel_rank": 3}, ("a", "3")),
        ({"session_id": "a", "extra_body": {"session_id": "b"}}, ("b", None)),
        ({"session_id": "a", "extra_headers": {"X-Session-ID": "b"}}, ("b", None)),
    ],
)
@pytest.mark.parametrize("method", ["chat", "complete", "respond"])
def test_routers_read_headers(
    method: str,
    params: Object,
    headers: tuple[str | None, str | None],
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
) -> None:
    scripted.version = "0.33.0"
    text = {"index": 0, "text": "a", "finish_reason": "stop"}
    answers: Object = {
        "chat": completion("a"),
        "complete": {"choices": [text]},
        "respond": {"object": "response", "status": "completed", "output": []},
    }
    scripted.reply(answers[method])
    runner.do(llm, method, "Hi", **params)
    request = scripted.requests[-1]
    assert (request.headers.get("x-session-id"), request.headers.get("x-data-parallel-rank")) == headers
    body = request.json()
    assert "data_parallel_rank" not in body
    expected = {**params, **params.get("extra_body", {})}.get("session_id")
    assert body.get("session_id") == expected


def test_a_header_of_the_call_takes_precedence_in_any_case(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.version = "0.33.0"
    scripted.reply(completion("a"))
    team = llm.with_options(headers={"X-Team": "all", "User-Agent": "all"})
    headers = {"X-TEAM": "mine", "USER-AGENT": "mine", "X-Session-Id": "mine", "Accept": "mine"}
    runner.do(team, "chat", "Hi", extra_headers=headers, session_id="theirs")
    sent = scripted.requests[-1].headers
    assert {name.lower(): sent[name.lower()] for name in headers} == dict.fromkeys(
        map(str.lower, headers), "mine"
    )


def line_of(caught: pytest.WarningsRecorder) -> str:
    """The line of code that a warning points at."""
    [warning] = caught
    return linecache.getline(warning.filename, warning.lineno).strip()


def echo(text: str) -> str:
    return text


def test_the_warning_points_at_the_callers_line(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.version = "0.19.1"
    scripted.always(answer_any)
    with pytest.warns(UserWarning, match="the server ignores session_id") as caught:
        llm.chat("Hi", session_id="chat")
    assert line_of(caught) == 'llm.chat("Hi", session_id="chat")'
    with pytest.warns(UserWarning, match="the server ignores session_id") as caught:
        llm.run_tools("Hi", tools=[echo], session_id="run_tools")
    assert line_of(caught) == 'llm.run_tools("Hi", tools=[echo], session_id="run_tools")'
    stream = llm.stream("Hi", session_id="stream")
    with pytest.warns(UserWarning, match="the server ignores session_id") as caught:
        stream.until_done()
    assert line_of(caught) == "stream.until_done()"


@pytest.mark.anyio
async def test_the_warning_points_at_the_line_that_awaits(
    scripted: ScriptedServer, llm: VLLMProvider
) -> None:
    scripted.version = "0.19.1"
    scripted.always(answer_any)
    with pytest.warns(UserWarning, match="the server ignores session_id") as caught:
        await llm.achat("Hi", session_id="achat")
    assert line_of(caught) == 'await llm.achat("Hi", session_id="achat")'
    with pytest.warns(UserWarning, match="the server ignores session_id") as caught:
        await llm.arun_tools("Hi", tools=[echo], session_id="arun_tools")
    assert line_of(caught) == 'await llm.arun_tools("Hi", tools=[echo], session_id="arun_tools")'
    stream = llm.astream("Hi", session_id="astream")
    with pytest.warns(UserWarning, match="the server ignores session_id") as caught:
        await stream.until_done()
    assert line_of(caught) == "await stream.until_done()"


def test_the_version_is_asked_for_once(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.always(vllm("0.30.0"))
    for _ in range(3):
        runner.do(llm, "chat", "Hi", bad_words=["x"])
        runner.do(llm, "chat", "Hi", return_token_ids=True)
    assert asked(scripted) == 1


@pytest.mark.parametrize("answer", [reply({"detail": "Not Found"}, 404), reply({"version": "dev"})])
def test_a_server_without_a_version_is_new_enough(
    answer: Answer, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.add(answer)
    scripted.always(answer_any)
    runner.do(llm, "chat", "Hi", return_token_ids=True, session_id="a")
    assert sent(scripted) == {"return_token_ids": True, "session_id": "a"}


@pytest.mark.parametrize(
    ("version", "params", "variables"),
    [
        ("0.12.0", {}, {}),
        ("0.19.1", {}, {"reasoning_effort": "none"}),
        ("0.22.0", {}, {"reasoning_effort": "none", "enable_thinking": False}),
        ("0.12.0", {"enable_thinking": True}, {"enable_thinking": True}),
        ("0.19.1", {"enable_thinking": True}, {"reasoning_effort": "none", "enable_thinking": True}),
        (
            "0.12.0",
            {"chat_template_kwargs": {"x": 1}, "documents": [{"a": "b"}]},
            {"x": 1, "documents": [{"a": "b"}]},
        ),
    ],
)
def test_an_effort_is_counted_as_in_the_chats_of_that_version(
    version: str,
    params: Object,
    variables: Object,
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
) -> None:
    scripted.version = version
    scripted.reply({"count": 3, "max_model_len": 8, "tokens": [1, 2, 3]})
    assert runner.do(llm, "count_tokens", "Hi", reasoning_effort="none", **params) == 3
    body: Any = scripted.requests[0].json()
    assert body["chat_template_kwargs"] == variables


def test_other_servers_than_vllm_are_not_asked(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(vllm("0.8.5"))
    runner.do(OpenAIProvider("m", base_url=scripted.base_url), "chat", "Hi", response_format=FORMAT)
    assert asked(scripted) == 0


def test_off_is_sent_in_a_form_that_all_versions_understand(
    scripted: ScriptedServer, llm: VLLMProvider
) -> None:
    scripted.always(answer_any)
    llm.chat("Hi", top_k=0)
    assert sent(scripted) == {"top_k": -1}
    llm.chat("Hi", top_k=5)
    assert sent(scripted) == {"top_k": 5}
    llm.chat("Hi", extra_body={"top_k": 0})
    assert sent(scripted) == {"top_k": 0}


# Servers that do not report a version


@pytest.mark.parametrize(
    ("served", "status"),
    [
        ({"detail": "Not Found"}, 404),
        ({"detail": "Method Not Allowed"}, 405),
        ({"error": "Unauthorized"}, 401),
        ("<html>", 200),
        ({"build": 1}, 200),
        ({"version": "llama.cpp"}, 200),
    ],
)
def test_a_server_that_reports_no_version_counts_as_the_newest(
    served: object, status: int, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    def answer(request: Request) -> Answer:
        return reply(served, status) if request.path == "/version" else answer_any(request)

    scripted.always(answer)
    for _ in range(2):
        runner.do(llm, "chat", "Hi", structured_outputs={"regex": "a"})
        assert sent(scripted) == {"structured_outputs": {"regex": "a"}}
    assert asked(scripted) == 1


def test_an_unhealthy_server_is_asked_again(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    answers: list[Answerer] = [reply({"error": "ill"}, 500), reply({"version": "0.10.2"}), answer_any]
    for answer in answers:
        scripted.add(answer)
    with pytest.raises(APIStatusError):
        runner.do(llm, "chat", "Hi", structured_outputs={"regex": "a"})
    runner.do(llm, "chat", "Hi", structured_outputs={"regex": "a"})
    assert sent(scripted) == {"guided_regex": "a"}


def test_a_reply_that_is_not_one_is_reported_as_usual(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.reply({"version": "0.32.0"})
    scripted.reply({"version": "0.32.0"})
    with pytest.raises(ResponseError):
        llm.chat("Hi", structured_outputs={"regex": "a"})


# All constraints above on the four servers, through the methods that need them


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ("0.8.5", {"guided_choice": ["a", "b"]}),
        ("0.10.2", {"guided_choice": ["a", "b"]}),
        ("0.11.0", {"structured_outputs": {"choice": ["a", "b"]}}),
        ("0.32.0", {"structured_outputs": {"choice": ["a", "b"]}}),
    ],
)
def test_choose_on_all_servers(
    version: str, field: Object, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.always(vllm(version))
    assert runner.do(llm, "choose", "a", ["a", "b"]) == "a"
    assert sent(scripted) == field


@pytest.mark.parametrize("version", [*OLD, *NEW])
def test_parse_is_the_same_on_all_servers(
    version: str, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.always(vllm(version))
    assert runner.do(llm, "parse", "[1]", list[int]).value == [1]
    assert asked(scripted) == 0


# The page


def _differences() -> list[list[str]]:
    """The rows of the page's table, as cells."""
    page = (Path(__file__).parents[2] / "docs/versions.md").read_text(encoding="utf-8")
    table = page.partition("## Differences")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert rows[:2] == ["| since vLLM | what | change | vllmchat |", "|---|---|---|---|"]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_rows_of_the_page_are_complete_and_named_once() -> None:
    rows = _differences()
    assert [row for row in rows if len(row) != 4 or not all(row)] == []
    subjects = [(since, what) for since, what, *_ in rows]
    assert len(subjects) == len(set(subjects))


def test_the_rows_of_the_page_are_in_the_order_of_versions() -> None:
    since = [[read_version(each) for each in cell.split(", ")] for cell, *_ in _differences()]
    assert since == sorted(since)
    assert all(each == sorted(each) for each in since)
    assert NEWEST not in {version for each in since for version in each}  # what cannot be parsed


def test_the_page_has_each_version_that_changes_what_is_sent() -> None:
    changes: set[object] = {value for value in vars(versions).values() if isinstance(value, tuple)}
    changes -= {(0, 8, 0), NEWEST}
    assert len(changes) > 5
    numbers = re.findall(r"0\.\d+(?:\.\d+)?", str(_differences()))
    assert changes <= {read_version(each) for each in numbers}


BEAMS: dict[str, object] = {"use_beam_search": True, "n": 2, "allowed_token_ids": [5, 6]}


@pytest.mark.parametrize("route", ["/chat/completions", COMPLETIONS])
def test_older_servers_ignore_the_allowed_tokens_of_a_beam_search(route: str) -> None:
    assert must_ask(BEAMS, route)
    assert fit(BEAMS, (0, 33, 0), route) == BEAMS
    with pytest.raises(InvalidRequestError) as caught:
        fit(BEAMS, (0, 32, 0), route)
    assert str(caught.value) == (
        "allowed_token_ids: with use_beam_search=True needs vLLM 0.33 or newer; this server is 0.32.0."
    )
    for other in ("use_beam_search", "allowed_token_ids"):
        assert not must_ask({name: value for name, value in BEAMS.items() if name != other}, route)
