"""Responses: requests, validation, responses and streams of events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from support.null_or_absent import null_and_absent
from support.scripted import ScriptedServer, reply, stream
from vllmchat import (
    BadRequestError,
    InternalServerError,
    InvalidRequestError,
    ModelResponse,
    NotFoundError,
    ResponseArgumentsDelta,
    ResponseError,
    ResponseEvent,
    ResponseItemEvent,
    ResponsePartEvent,
    ResponseReasoningDelta,
    ResponseStateEvent,
    ResponseTextDelta,
    StreamInterruptedError,
    VLLMProvider,
)
from vllmchat.checking.rules import fields_of
from vllmchat.http.call import ResponseHead
from vllmchat.http.sse import ServerSentEvent, SSEDecoder
from vllmchat.http.timeout import DEFAULT_TIMEOUT
from vllmchat.responses.check import check_respond
from vllmchat.responses.events import decode_event
from vllmchat.responses.params import ResponseParams
from vllmchat.responses.request import encode_input, respond_request
from vllmchat.responses.response import ResponseItem, decode_response
from vllmchat.responses.stream import ResponseReader

if TYPE_CHECKING:
    from support.runners import Runner

Object = dict[str, Any]

RECORDED = Path(__file__).parents[2] / "recorded"
SERVER: dict[str, Any] = json.loads((RECORDED / "vllm-0.32.0-fields.json").read_text("utf-8"))["requests"]

NOTHING: list[Object] = []
EMPTY: Object = {}
SEARCH: Object = {"type": "function", "name": "search", "parameters": {"type": "object"}}


def get_weather(city: str) -> str:
    """Gets the weather.

    Args:
        city: Where.
    """
    return city


def checked(**params: Any) -> Object:
    fields = dict(check_respond(params, stream=False).fields)
    return json.loads(json.dumps(fields)) if fields else {}


def named(event: Object) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def events() -> list[bytes]:
    """Returns the recorded stream, event by event."""
    return [piece + b"\n\n" for piece in recordings.load("responses_stream").body.split(b"\n\n") if piece]


def decoded(pieces: list[bytes]) -> list[ServerSentEvent]:
    return SSEDecoder().feed(b"".join(pieces))


def read(target: ResponseReader, *made: Object) -> ModelResponse:
    for event in made:
        item = target.read_event(ServerSentEvent(json.dumps(event).encode(), event["type"]))
        assert item is not None
        target.accept(item)
    return target.reply()


# Parameters


def test_parameters_are_the_servers_fields() -> None:
    not_fields = {
        "data_parallel_rank",
        "extra_body",
        "extra_headers",
        "max_retry_seconds",
        "timeout",
        "enable_thinking",
    }
    ours = set(fields_of(ResponseParams)) - not_fields
    of_the_method = {"model", "input", "stream"}
    not_implemented = {"background", "prompt", "service_tier"}
    for_rendering = {"mm_payload", "return_mm_kwargs"}
    newer = {
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "spaces_between_special_tokens",
    }
    assert ours - newer == set(SERVER["ResponsesRequest"]) - of_the_method - not_implemented - for_rendering
    assert checked(spaces_between_special_tokens=False) == {"spaces_between_special_tokens": False}


def test_every_parameter_is_nullable() -> None:
    assert [
        name for name, field in fields_of(ResponseParams).items() if not field.nullable or field.required
    ] == []


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"stream": True}, "Call .stream_respond(...) to stream, .respond(...)"),
        ({"messages": NOTHING}, "Write respond(input)."),
        ({"max_tokens": 5}, "Write `max_output_tokens=5`."),
        ({"reasoning_effort": "low"}, "Write reasoning={\"effort\": 'low'}."),
        ({"response_format": {}}, 'Write text={"format": ...}.'),
        ({"logprobs": True}, 'Write include=["message.output_text.logprobs"].'),
        ({"stream_options": {}}, "the last event always has the usage"),
        ({"background": True}, "no method fetches the rest"),
        ({"prompt": {}}, "vLLM rejects it."),
        ({"service_tier": "auto"}, "vLLM ignores it. Leave it out."),
        ({"prompt_cache_retention": "1h"}, 'must be "in_memory" or "24h".'),
        ({"prompt_cache_options": {"ttl": "5m"}}, "prompt_cache_options.ttl='5m': must be \"30m\"."),
        ({"prompt_cache_options": {"mod": "x"}}, "Did you mean `mode`?"),
        ({"safety_identifier": 5}, "must be a string, not an int."),
        ({"safety_identifer": "x"}, "Did you mean `safety_identifier`?"),
        ({"mm_payload": "none"}, "responses cannot be rendered. Leave it out"),
        ({"return_mm_kwargs": False}, "responses cannot be rendered. Leave it out"),
        ({"n": 2}, "is a parameter of chats; in responses, vLLM silently ignores it."),
        ({"temprature": 0}, "Did you mean `temperature`?"),
        ({"whatever": 0}, 'write extra_body={"whatever": 0}.'),
        ({"max_output_tokens": 0}, "must be at least 1."),
        ({"top_logprobs": 2}, 'needs include=["message.output_text.logprobs"].'),
        ({"tool_choice": "required"}, "needs `tools`."),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": [SEARCH]}, "The tools are: search."),
        (
            {"tool_choice": {"type": "function", "name": "x"}, "tools": [{"type": "web_search"}]},
            "must name one of the `tools`.",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "text": {"format": {"type": "text"}}},
            'cannot be combined with text={"format": ...}',
        ),
        (
            {"previous_input_messages": [EMPTY], "previous_response_id": "r"},
            "cannot be combined with `previous_response_id`.",
        ),
        ({"cache_salt": "a/b"}, "cache_salt: must not contain"),
        ({"chat_template_kwargs": {"enable_thinking": True}, "enable_thinking": False}, "contradicts"),
        ({"tools": "x"}, "tools='x': must be a list"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema: is required."),
    ],
)
def test_invalid_parameters(params: Object, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_respond(params, stream=False)
    (problem,) = caught.value.problems
    assert said in str(problem)


def test_tools_in_the_form_of_chats_get_a_hint() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_respond({"tools": [{"type": "function", "function": {"name": "x"}}]}, stream=False)
    assert 'Write {"type": "function", "name": ..., "parameters": ...}' in str(caught.value)


def test_an_invalid_value_triggers_no_rule() -> None:
    for params in ({"top_logprobs": 2, "include": "x"}, {"tool_choice": "required", "tools": "x"}):
        with pytest.raises(InvalidRequestError) as caught:
            check_respond(params, stream=False)
        assert len(caught.value.problems) == 1


def test_parameters_as_they_are_sent() -> None:
    assert checked(enable_thinking=False, logit_bias={5: 1}, temperature=None) == {
        "chat_template_kwargs": {"enable_thinking": False},
        "logit_bias": {"5": 1},
    }
    assert checked(
        tools=[SEARCH], tool_choice={"type": "function", "name": "search"}, structured_outputs={"regex": "a"}
    )
    assert checked(
        top_logprobs=2, include=["message.output_text.logprobs"], text={"format": {"type": "text"}}
    )
    assert checked(tools=[SEARCH], tool_choice="required")["tool_choice"] == "required"
    assert checked(tool_choice="auto", previous_input_messages=[EMPTY], top_logprobs=0)


def test_functions_are_sent_as_tools() -> None:
    tools = checked(tools=[SEARCH, get_weather])["tools"]
    assert tools[0] == SEARCH
    assert tools[1]["type"] == "function"
    assert (tools[1]["name"], tools[1]["description"]) == ("get_weather", "Gets the weather.")
    assert tools[1]["parameters"]["properties"]["city"]["description"] == "Where."
    nameless: Any = eval("lambda x: x")
    with pytest.raises(InvalidRequestError, match=r"tools\[0\]"):
        check_respond({"tools": [nameless]}, stream=False)


# Input


def test_input_is_sent_unchanged() -> None:
    assert encode_input("Hello") == "Hello"
    message = {"role": "user", "content": "Hi"}
    answer = {"type": "function_call_output", "call_id": "c", "output": "x"}
    assert encode_input([message, answer]) == [message, answer]


def test_output_can_be_sent_back() -> None:
    response = decode_response(recordings.load("responses").body)
    sent = encode_input([{"role": "user", "content": "Hello"}, *response.output])
    reasoning, message = json.loads(json.dumps(sent[1:]))
    assert reasoning["content"] == [{"text": "\nA greeting. I greet back.\n", "type": "reasoning_text"}]
    assert (message["role"], message["type"], message["status"]) == ("assistant", "message", "completed")
    assert message["content"][0]["annotations"] == []
    assert "phase" not in message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "input: must be a string or a list of items, not an int."),
        ({"role": "user"}, "not a dict. Wrap it in [...]."),
        (NOTHING, "input=[]: must not be empty."),
        ([EMPTY], 'input[0]={}: needs a "role" or a "type".'),
        (
            [{"role": "usr", "content": "x"}],
            (
                'input[0].role=\'usr\': must be "user", "assistant", "system", "tool", "developer" or "function". '
                'Did you mean "user"?'
            ),
        ),
        (
            [{"role": "user", "contnet": "x"}],
            'input[0].content: is required. Write {"role": "user", "content": ...}.',
        ),
        ([None], "input[0]=None: must be a mapping or an item of a response, not None."),
        ([ModelResponse()], "must be an item, not a response. Add its .output to the list."),
    ],
)
def test_invalid_input(given: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode_input(given)
    assert said in str(caught.value)


def test_the_request() -> None:
    request = respond_request("Hello", {"request_id": "resp_1"}, stream=True)
    call = request.call("m", DEFAULT_TIMEOUT)
    assert json.loads(call.body or b"") == {
        "model": "m",
        "input": "Hello",
        "request_id": "resp_1",
        "stream": True,
    }
    assert (call.path, call.request_id, call.accept) == ("/responses", "resp_1", "text/event-stream")


# Whole responses


def test_a_recorded_response_keeps_every_field() -> None:
    body = recordings.load("responses").body
    response = decode_response(body, head=ResponseHead(200, {}, "r"))
    sent = json.loads(body)
    for name, value in sent.items():
        if name in (
            "text",
            "reasoning",
        ):  # request parameters; the response model has its own properties of these names
            assert (response.model_extra or {})[name] == value
        elif name not in ("output", "usage"):
            assert getattr(response, name) == value
    assert response.text == "Hello! How can I help you today?"
    assert response.reasoning == "A greeting. I greet back."
    # The line breaks of the chat template
    assert [item.text for item in response.output] == [
        "\nA greeting. I greet back.\n",
        "\n\nHello! How can I help you today?",
    ]
    assert (response.status, response.tool_calls, response.request_id) == ("completed", [], "r")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (
        24,
        25,
        49,
    )
    assert response.usage.output_tokens_details is not None
    assert response.usage.output_tokens_details.reasoning_tokens == 9


def test_null_and_absent_are_the_same() -> None:
    for null, absent in null_and_absent(json.loads(recordings.load("responses").body)):
        if "output" not in absent:
            continue
        one, other = (decode_response(json.dumps(each).encode()) for each in (null, absent))
        assert (one.text, one.reasoning, one.status) == (other.text, other.reasoning, other.status)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"null", b"<html>", b'{"output": 5}'])
def test_invalid_responses(data: bytes) -> None:
    with pytest.raises(ResponseError):
        decode_response(data)


def call_item(arguments: str, status: str = "completed") -> Object:
    return {"type": "function_call", "name": "f", "arguments": arguments, "call_id": "c", "status": status}


def test_tool_calls_have_the_form_of_chats() -> None:
    response = ModelResponse.model_validate({"status": "completed", "output": [call_item('{"a": 1}')]})
    (call,) = response.tool_calls
    assert (call.id, call.name, call.parse(), call.complete) == ("c", "f", {"a": 1}, True)


@pytest.mark.parametrize(("status", "item"), [("incomplete", "completed"), ("completed", "in_progress")])
def test_a_truncated_call_is_not_complete(status: str, item: str) -> None:
    output = [call_item("{}"), call_item("{}", item)]
    response = ModelResponse.model_validate({"status": status, "output": output})
    assert [call.complete for call in response.tool_calls] == [True, False]


@pytest.mark.parametrize(("most", "tokens", "whole"), [(12, 12, False), (13, 12, True), (None, 12, True)])
def test_a_call_is_truncated_if_the_response_has_all_its_tokens(
    most: int | None, tokens: int, whole: bool
) -> None:
    fields = {"max_output_tokens": most, "usage": {"output_tokens": tokens}}
    output = [call_item("{}"), call_item("{}")]
    response = ModelResponse.model_validate({"status": "completed", "output": output, **fields})
    assert [call.complete for call in response.tool_calls] == [True, whole]


# Events


def test_a_recorded_stream_adds_up_to_the_servers_response() -> None:
    target = ResponseReader()
    text = reasoning = ""
    kinds: set[type] = set()
    *early, last = decoded(events())
    for event in early:
        item = target.read_event(event)
        assert item is not None
        target.accept(item)
        text += item.text_delta
        reasoning += item.reasoning_delta
        kinds.add(type(item))
    before = target.reply()
    assert not target.done
    assert not target.is_complete()
    assert before.status == "in_progress"
    end = target.read_event(last)
    assert isinstance(end, ResponseStateEvent)
    target.accept(end)
    after = target.reply()
    assert target.done
    assert target.is_complete()
    assert after == end.response
    assert before.output == after.output
    assert (text.strip("\n"), reasoning.strip("\n")) == (after.text, after.reasoning)
    assert kinds == {
        ResponseEvent,
        ResponseItemEvent,
        ResponsePartEvent,
        ResponseReasoningDelta,
        ResponseStateEvent,
        ResponseTextDelta,
    }


def test_the_response_so_far_is_always_valid() -> None:
    target = ResponseReader()
    text, thought = "", ""
    for event in decoded(events())[:-1]:
        item = target.read_event(event)
        assert item is not None
        target.accept(item)
        text += item.text_delta
        thought += item.reasoning_delta
        so_far = target.reply()
        assert (so_far.text, so_far.reasoning or "") == (text.strip("\n"), thought.strip("\n"))


def test_a_call_is_accumulated() -> None:
    added = {"type": "response.output_item.added", "output_index": 0, "item": call_item("", "in_progress")}
    delta = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a"'}
    target = ResponseReader()
    (call,) = read(target, added, delta, {**delta, "delta": ": 1}"}).tool_calls
    assert (call.arguments, call.complete) == ('{"a": 1}', False)
    done = {"type": "response.output_item.done", "output_index": 0, "item": call_item('{"a": 1}')}
    (call,) = read(target, done).tool_calls
    assert call.parse() == {"a": 1}


def test_pieces_without_announcing_events_are_accumulated() -> None:
    target = ResponseReader()
    response = read(
        target,
        {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hm"},
        {"type": "response.output_text.delta", "output_index": 1, "delta": "a"},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 1, "delta": "b"},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"},
        {"type": "response.web_search_call.in_progress", "output_index": 3},
    )
    assert (response.reasoning, response.text) == ("hm", "ab")
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.output[0].to_request()["content"] == [{"type": "reasoning_text", "text": "hm"}]


COMPLETED: Object = {"type": "response.completed", "response": {"status": "completed", "output": []}}


@pytest.mark.parametrize(
    "pieces",
    [
        [{"type": "response.output_text.done", "text": "ab"}],
        [{"type": "response.content_part.done", "part": {"type": "output_text", "text": "ab"}}],
        [
            {"type": "response.output_text.done", "text": "ab"},
            {"type": "response.content_part.done", "part": {"type": "output_text", "text": "ab"}},
        ],
        [
            {"type": "response.content_part.added", "part": {"type": "output_text", "text": "a"}},
            {"type": "response.output_text.delta", "delta": "b"},
        ],
        [
            {"type": "response.output_text.delta", "delta": "a"},
            {"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}},
            {"type": "response.output_text.delta", "delta": "b"},
        ],
        [
            {"type": "response.output_text.delta", "delta": "a", "content_index": 1},
            {"type": "response.output_text.delta", "delta": "b", "content_index": 2},
            {"type": "response.output_text.done", "text": "ab", "content_index": 3},
            {
                "type": "response.content_part.done",
                "part": {"type": "output_text", "text": "ab"},
                "content_index": 4,
            },
        ],
    ],
)
def test_a_text_is_neither_lost_nor_repeated(pieces: list[Object]) -> None:
    assert read(ResponseReader(), *pieces, COMPLETED).text == "ab"


def test_arguments_and_reasoning_that_come_as_a_whole() -> None:
    response = read(
        ResponseReader(),
        {"type": "response.reasoning_text.done", "output_index": 0, "text": "hm"},
        {"type": "response.function_call_arguments.done", "output_index": 1, "arguments": "{}"},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"},
        {"type": "response.function_call_arguments.done", "output_index": 2, "arguments": "{}"},
        {"type": "response.output_text.done", "output_index": 3, "text": None},
        COMPLETED,
    )
    assert response.reasoning == "hm"
    assert [item.arguments for item in response.output[1:3]] == ["{}", "{}"]


def test_an_old_server_whose_last_event_has_no_output() -> None:
    # vLLM 0.10: the final response is empty, the message is announced under the index of the reasoning, and each piece
    # has its own index.
    thought = {
        "type": "reasoning",
        "content": [{"type": "reasoning_text", "text": "hm"}],
        "status": "completed",
    }
    said = {"type": "message", "content": [{"type": "output_text", "text": "ab"}], "status": "completed"}
    opened: Object = {"type": "message", "content": [], "status": "in_progress"}
    target = ResponseReader()
    early = read(
        target,
        {"type": "response.created", "response": {"status": "in_progress", "output": []}},
        {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hm"},
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 1, "delta": "a"},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 2, "delta": "b"},
    )
    assert (early.reasoning, early.text) == ("hm", "ab")
    usage = {"input_tokens": 3, "output_tokens": 2}
    response = read(
        target,
        {"type": "response.output_item.done", "output_index": 1, "item": said},
        {"type": "response.completed", "response": {"status": "completed", "output": [], "usage": usage}},
    )
    assert (response.reasoning, response.text, response.status) == ("hm", "ab", "completed")
    assert response.usage is not None
    assert [item.status for item in response.output] == ["completed", "completed"]
    assert target.is_complete()


def test_a_response_without_output_has_none() -> None:
    response = read(ResponseReader(), {"type": "response.completed", "response": {"output": []}})
    assert response.output == []


def test_later_events_do_not_change_a_snapshot() -> None:
    target = ResponseReader()
    delta: Object = {"type": "response.output_text.delta", "output_index": 0, "delta": "a"}
    before = read(target, delta)
    kept = before.model_copy(deep=True)
    assert read(target, delta).text == "aa"
    assert before == kept


def test_events_support_pattern_matching() -> None:
    event = decode_event(b'{"type":"response.function_call_arguments.delta","delta":"{"}', "")
    match event:
        case ResponseArgumentsDelta(delta=piece):
            assert piece == "{"
        case _:
            raise AssertionError
    assert (event.text_delta, event.reasoning_delta) == ("", "")


@pytest.mark.parametrize("data", [b"{}", b"[]", b"<html>", b'{"type": "message_start"}', b'{"choices": []}'])
def test_invalid_events(data: bytes) -> None:
    with pytest.raises(ResponseError):
        decode_event(data, "")
    if data == b"{}":
        assert ResponseReader().read_event(ServerSentEvent(data)) is None
        return
    with pytest.raises(ResponseError):
        ResponseReader().read_event(ServerSentEvent(data))


def test_an_event_of_another_shape_is_invalid() -> None:
    with pytest.raises(ResponseError, match="item"):
        decode_event(b'{"item": 5}', "response.output_item.added")
    assert decode_event(b'{"delta": "a"}', "response.output_text.delta").type == "response.output_text.delta"


# The methods, sync and async


def ask(runner: Runner, server: ScriptedServer, *pieces: bytes | Object, done: bool = False) -> Any:
    server.add(stream(pieces, done=done))
    return runner.open(VLLMProvider("m", base_url=server.base_url), "stream_respond", "Hello")


def test_respond(runner: Runner, scripted: ScriptedServer) -> None:
    recorded = recordings.load("responses")
    scripted.add(reply(json.loads(recorded.body)))
    llm = VLLMProvider("tiny-qwen3", base_url=scripted.base_url)
    response: ModelResponse = runner.do(llm, "respond", "Hello", temperature=0)
    assert response.text.strip() == "Hello! How can I help you today?"
    assert response.request_id
    assert scripted.requests[0].path == "/v1/responses"
    assert scripted.requests[0].json() == recorded.request


@pytest.mark.parametrize("done", [False, True])
def test_a_stream(runner: Runner, scripted: ScriptedServer, done: bool) -> None:
    got = ask(runner, scripted, *events(), done=done)
    assert "".join(event.text_delta for event in got).strip() == "Hello! How can I help you today?"
    assert got.inner.response.usage.total_tokens == 49
    assert got.inner.response.request_id == got.inner.request_id
    assert scripted.requests[0].json() == {"model": "m", "input": "Hello", "stream": True}
    with pytest.raises(Exception, match=r"Its result is in \.response"):
        list(got)


def test_empty_events_are_skipped(runner: Runner, scripted: ScriptedServer) -> None:
    got = ask(runner, scripted, b"data: \n\n", *events())
    assert got.until_done().status == "completed"


def test_events_of_a_gateway_are_skipped(runner: Runner, scripted: ScriptedServer) -> None:
    first, *rest = events()
    got = ask(runner, scripted, first, {"type": "rate_limits.updated", "rate_limits": []}, *rest)
    assert got.until_done().status == "completed"


@pytest.mark.parametrize("end", [b"data:  [DONE]\n\n", b'data: "[done]"\n\n'])
def test_other_spellings_of_done_are_skipped(runner: Runner, scripted: ScriptedServer, end: bytes) -> None:
    assert ask(runner, scripted, *events(), end).until_done().status == "completed"
    with pytest.raises(StreamInterruptedError):
        ask(runner, scripted, *events()[:-1], end).until_done()


@pytest.mark.parametrize("done", [False, True])
def test_a_stream_without_its_last_event_is_interrupted(
    runner: Runner, scripted: ScriptedServer, done: bool
) -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        ask(runner, scripted, *events()[:-1], done=done).until_done()
    assert isinstance(caught.value.partial, ModelResponse)
    assert caught.value.partial.text.strip() == "Hello! How can I help you today?"
    assert caught.value.partial.status == "in_progress"


@pytest.mark.parametrize("kind", ["response.incomplete", "response.cancelled"])
def test_other_last_events(runner: Runner, scripted: ScriptedServer, kind: str) -> None:
    body: Object = {"type": kind, "response": {"status": kind.removeprefix("response."), "output": []}}
    assert ask(runner, scripted, named(body)).until_done().status == kind.removeprefix("response.")


@pytest.mark.parametrize(
    ("piece", "kind", "said"),
    [
        (named({"type": "error", "message": "bad", "code": 400}), BadRequestError, "bad"),
        ({"type": "error", "message": "bad", "code": "server_error"}, InternalServerError, "bad"),
        ({"error": {"message": "bad", "type": "x", "code": 400}}, BadRequestError, "bad"),
        (
            named(
                {
                    "type": "response.failed",
                    "response": {"output": [], "error": {"message": "bad", "code": "x"}},
                }
            ),
            InternalServerError,
            "bad",
        ),
        (
            named({"type": "response.failed", "response": {"output": []}}),
            InternalServerError,
            "the response failed",
        ),
    ],
)
def test_errors_inside_the_stream_are_raised(
    runner: Runner, scripted: ScriptedServer, piece: bytes | Object, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        ask(runner, scripted, *events()[:5], piece).until_done()


def test_an_old_server_has_no_such_route(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.add(reply({"detail": "Not Found"}, 404))
    with pytest.raises(NotFoundError, match=r"Responses need vLLM 0\.10 or newer"):
        runner.do(VLLMProvider("m", base_url=scripted.base_url), "respond", "Hello")


def test_an_item_without_content_has_no_text() -> None:
    assert ResponseItem(type="message").text == ""


# Truncated responses: recorded answers of vLLM 0.33.0


def truncated(name: str) -> tuple[ModelResponse, list[Any]]:
    """The response at the end of a recorded stream, and its events."""
    recorded = recordings.load(name, "0.33.0")
    reader = ResponseReader()
    found = [
        reader.read_event(ServerSentEvent(data=block.partition(b"\ndata: ")[2], event=""))
        for block in recorded.body.split(b"\n\n")
        if block.strip()
    ]
    for event in found:
        assert event is not None
        reader.accept(event)
    assert reader.is_complete()
    return reader.reply(), found


def test_a_truncated_response_has_its_reason() -> None:
    response, found = truncated("responses_cut_stream")
    assert found[-1].type == "response.incomplete"
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.text == "The"
    assert [item.status for item in response.output] == ["completed", "incomplete"]
    whole = decode_response(recordings.load("responses_cut", "0.33.0").body)
    assert (whole.text, whole.status) == (response.text, response.status)


@pytest.mark.parametrize("tokens", [26, 30])
def test_the_call_of_a_truncated_response_is_not_complete(tokens: int) -> None:
    response, found = truncated(f"responses_cut_call_{tokens}_stream")
    assert found[-1].type == "response.incomplete"
    whole = decode_response(recordings.load(f"responses_cut_call_{tokens}", "0.33.0").body)
    for each in (response, whole):
        assert each.status == "incomplete"
        assert not any(call.complete for call in each.tool_calls)


@pytest.mark.parametrize("kind", ["incomplete", "cancelled"])
@pytest.mark.parametrize("status", [None, "completed", "in_progress"])
def test_an_event_that_says_less_is_believed(kind: str, status: str | None) -> None:
    call = {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}", "status": "completed"}
    response = read(
        ResponseReader(),
        {"type": "response.output_item.done", "output_index": 0, "item": call},
        {"type": f"response.{kind}", "response": {"status": status}},
    )
    assert response.status == kind
    [made] = response.tool_calls
    assert not made.complete


def test_an_event_without_its_response_has_a_status() -> None:
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "a"}
    for kind in ("completed", "incomplete"):
        response = read(ResponseReader(), delta, {"type": f"response.{kind}"})
        assert (response.status, response.text) == (kind, "a")


@pytest.mark.parametrize("event", [{}, {"response": None}, {"response": {}}])
def test_a_last_event_without_its_response_keeps_what_arrived(event: Object) -> None:
    created = {"type": "response.created", "response": {"id": "r1", "model": "m", "status": "in_progress"}}
    text = {"type": "response.output_text.delta", "delta": "Hi"}
    done = read(ResponseReader(), created, text, {"type": "response.completed", **event})
    assert (done.id, done.model, done.status, done.text) == ("r1", "m", "completed", "Hi")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_item.added", "output_index": 0, "item": None},
        {"type": "response.output_item.done", "output_index": 0, "item": None},
        {"type": "response.content_part.added", "output_index": 0, "part": None},
        {"type": "response.content_part.done", "output_index": 0, "part": None},
    ],
)
def test_an_event_without_its_item_or_part_changes_nothing(event: Object) -> None:
    text = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"}
    call = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"}
    for piece in (text, call):
        alone = read(ResponseReader(), piece, {"type": "response.completed"})
        assert read(ResponseReader(), piece, event, {"type": "response.completed"}) == alone
        assert read(ResponseReader(), event, piece, {"type": "response.completed"}) == alone


def test_an_empty_usage_of_a_response_is_none() -> None:
    assert decode_response(b'{"output":[],"usage":{}}').usage is None
    last: Object = {"type": "response.completed", "response": {"output": [], "usage": {}}}
    assert read(ResponseReader(), last).usage is None


def test_what_vllm_only_returns() -> None:
    recorded = recordings.load("responses_echoed", "0.33.0")
    response = decode_response(recorded.body)
    asked = recorded.fields
    assert response.safety_identifier == asked["safety_identifier"] == "customer-1"
    assert response.prompt_cache_key == asked["prompt_cache_key"] == "group"
    assert response.prompt_cache_retention == asked["prompt_cache_retention"] == "24h"
    del asked["prompt_cache_options"]["prewarm"]
    assert response.prompt_cache_options == asked["prompt_cache_options"]


def test_an_old_server_ignores_what_is_only_returned(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.version = "0.32.0"
    scripted.add(reply(json.loads(recordings.load("responses").body)))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with pytest.warns(UserWarning, match=r"the server ignores .*safety_identifier"):
        runner.do(llm, "respond", "Hello", safety_identifier="customer-1")
    runner.close(llm)
