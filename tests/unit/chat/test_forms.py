"""Other forms of replies: what servers other than vLLM send, streamed and whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat import (
    ChatMessage,
    Finished,
    ResponseError,
    StreamInterruptedError,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStart,
    VLLMProvider,
)
from vllmchat.wire.usage import calls_tools, is_unknown, truncates

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

Object = dict[str, Any]

CALL: Object = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"n":1}'}}
OLD_CALL: Object = {"name": "f", "arguments": '{"n":1}'}
THINKING: Object = {
    "type": "thinking",
    "thinking": [{"type": "text", "text": "Hm"}, {"type": "text", "text": "m."}],
}
HI: Object = {"type": "text", "text": "Hi"}


@pytest.fixture
def llm(scripted: ScriptedServer) -> VLLMProvider:
    return VLLMProvider("m", base_url=scripted.base_url, max_retries=0)


def whole(message: object, reason: object = "stop") -> Object:
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
    }


def chunks(*deltas: object, reason: object = "stop") -> list[Object]:
    head = {"object": "chat.completion.chunk"}
    return [
        *({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas),
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
    ]


# Finish reasons


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("eos", "stop"),
        ("eos_token", "stop"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("LENGTH", "length"),
        ("MAX_TOKENS", "length"),
        ("max_tokens", "length"),
        ("content-filter", "content_filter"),
        ("tool_use", "tool_calls"),
        ("network_error", "network_error"),
        (1, "1"),
        (False, "false"),
        ({"type": "stop"}, '{"type": "stop"}'),
    ],
)
def test_finish_reasons_by_other_names(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, sent: object, kept: str
) -> None:
    message: Object = {"content": "Hi", "tool_calls": [CALL]}
    events = chunks({"content": "Hi", "tool_calls": [{"index": 0, **CALL}]}, reason=sent)
    scripted.reply(whole(message, sent))
    scripted.stream(events)
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        assert (reply.text, reply.finish_reason) == ("Hi", kept)
        assert reply.tool_calls[0].complete is not truncates(kept)
        assert json.loads(reply.model_dump_json())["choices"][0]["finish_reason"] == kept


@pytest.mark.parametrize("sent", [None, "", "null", "NULL"])
def test_finish_reasons_of_what_goes_on(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, sent: object
) -> None:
    scripted.reply(whole({"content": "Hi"}, sent))
    scripted.stream(chunks({"content": "Hi"}, reason=sent))
    with pytest.raises(ResponseError, match="choice 0 has no finish reason"):
        runner.chat(llm)
    with pytest.raises(StreamInterruptedError, match="choice 0 has no finish reason"):
        runner.stream(llm).until_done()


def test_completions_have_the_same_finish_reasons(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    choice = {"index": 0, "text": "Hi", "finish_reason": "MAX_TOKENS"}
    scripted.reply({"object": "text_completion", "choices": [choice]})
    scripted.stream([{"object": "text_completion", "choices": [choice]}])
    assert runner.do(llm, "complete", "x").finish_reason == "length"
    assert runner.open(llm, "stream_complete", "x").until_done().finish_reason == "length"


def test_what_finish_reasons_mean() -> None:
    reasons = ["stop", "tool_calls", "function_call", "length", "error", None]
    assert [truncates(each) for each in reasons] == [False, False, False, True, True, False]
    assert [is_unknown(each) for each in reasons] == [False, False, False, False, True, False]
    assert [calls_tools(each) for each in reasons] == [False, True, True, False, False, False]


# Calls that do not come


@pytest.mark.parametrize("reason", ["tool_calls", "function_call", "tool_use"])
@pytest.mark.parametrize("message", [{"content": "Let me see."}, {"tool_calls": []}, {"function_call": {}}])
def test_a_reply_that_ends_with_calls_has_some(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, reason: str, message: Object
) -> None:
    match = r"choice 0 has the finish reason '\w+', but no tool call"
    scripted.reply(whole(message, reason))
    with pytest.raises(ResponseError, match=match) as caught:
        runner.chat(llm)
    assert caught.value.partial is not None
    assert caught.value.partial.text == message.get("content", "")
    scripted.stream(chunks(message, reason=reason))
    with pytest.raises(StreamInterruptedError, match=match) as interrupted:
        runner.stream(llm).until_done()
    assert interrupted.value.partial is not None
    assert interrupted.value.partial.text == message.get("content", "")


def test_a_run_is_not_done_without_the_call(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    def f(n: int) -> int:
        return n

    scripted.reply(whole({"content": "Let me see."}, "tool_calls"))
    with pytest.raises(ResponseError, match="but no tool call") as caught:
        llm.run_tools("Hi", tools=[f])
    assert caught.value.messages == [{"role": "user", "content": "Hi"}]


# The old form of calls

OLD_STREAMS: list[list[Object]] = [
    [{"function_call": OLD_CALL}],
    [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": '{"n"'}},
        {"function_call": {"name": None, "arguments": ":1}"}},
    ],
    [
        {"function_call": {"name": "f"}},
        {"function_call": {"name": "", "arguments": '{"n":1}'}},
        {"function_call": {}},
    ],
    [{"function_call": OLD_CALL, "tool_calls": None}, {"function_call": None}],
]


@pytest.mark.parametrize("deltas", OLD_STREAMS)
@pytest.mark.parametrize("reason", ["function_call", "stop", "tool_calls"])
def test_a_function_call_is_a_tool_call(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, deltas: list[Object], reason: str
) -> None:
    scripted.reply(whole({"content": None, "function_call": OLD_CALL}, reason))
    scripted.stream(chunks(*deltas, reason=reason))
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        [call] = reply.tool_calls
        assert (call.id, call.name, call.parse(), call.complete) == ("", "f", {"n": 1}, True)
        # It goes back as it came: servers that call functions know nothing else.
        assert reply.message.to_request() == {"role": "assistant", "content": None, "function_call": OLD_CALL}


@pytest.mark.parametrize("deltas", OLD_STREAMS)
def test_events_of_a_function_call(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, deltas: list[Object]
) -> None:
    scripted.stream(chunks(*deltas, reason="function_call"))
    start, *pieces, done, finished = runner.stream(llm).events()
    assert start == ToolCallStart(0, "", "f")
    assert "".join(each.arguments for each in pieces if isinstance(each, ToolCallDelta)) == '{"n":1}'
    assert isinstance(finished, Finished)
    assert done == ToolCallDone(0, finished.completion.tool_calls[0])


@pytest.mark.parametrize("streams", [False, True])
def test_a_run_executes_function_calls(scripted: ScriptedServer, llm: VLLMProvider, streams: bool) -> None:
    def f(n: int) -> int:
        return n + 1

    if streams:
        scripted.stream(chunks(*OLD_STREAMS[1], reason="function_call"))
        scripted.stream(chunks({"content": "2"}))
        run = llm.stream_run_tools("Hi", tools=[f]).until_done()
    else:
        scripted.reply(whole({"function_call": OLD_CALL}, "function_call"))
        scripted.reply(whole({"content": "2"}))
        run = llm.run_tools("Hi", tools=[f])
    assert [result.value for result in run.results] == [2]
    body: Object = scripted.requests[-1].json()
    _, called, result = body["messages"]
    assert "function_call" not in called
    assert [each["id"] for each in called["tool_calls"]] == [result["tool_call_id"]]
    assert result["content"] == "2"


def test_a_run_executes_a_stored_function_call(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    def f(n: int) -> int:
        return n + 1

    stored = ChatMessage.model_validate({"function_call": OLD_CALL}).to_request()
    scripted.reply(whole({"content": "2"}))
    run = llm.run_tools([{"role": "user", "content": "Hi"}, stored], tools=[f])  # type: ignore[list-item] # pyright: ignore
    assert [result.value for result in run.results] == [2]


def test_a_truncated_function_call_is_not_complete(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(whole({"function_call": OLD_CALL}, "length"))
    scripted.stream(chunks({"function_call": OLD_CALL}, reason="length"))
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        assert [call.complete for call in reply.tool_calls] == [False]


def test_both_forms_are_one_call(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(whole({"function_call": OLD_CALL, "tool_calls": [CALL]}, "tool_calls"))
    scripted.stream(
        chunks({"function_call": OLD_CALL, "tool_calls": [{"index": 0, **CALL}]}, reason="tool_calls")
    )
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        assert reply.message.to_request() == {"role": "assistant", "content": None, "tool_calls": [CALL]}


# Other shapes


@pytest.mark.parametrize(
    ("message", "text", "reasoning", "calls"),
    [
        ({"content": "Hi", "tool_calls": [None]}, "Hi", None, 0),
        ({"tool_calls": [None, CALL]}, "", None, 1),
        ({"tool_calls": CALL}, "", None, 1),
        ({"tool_calls": {"0": CALL}}, "", None, 1),
        ({"content": "Hi", "tool_calls": {}}, "Hi", None, 0),
        ({"content": HI}, "Hi", None, 0),
        ({"content": {"parts": []}}, "", None, 0),
        ({"content": {"type": "text", "text": {"value": "Hi"}}}, "Hi", None, 0),
        ({"content": [THINKING, HI]}, "Hi", "Hmm.", 0),
        ({"content": THINKING}, "", "Hmm.", 0),
        ({"content": [{"type": "thinking", "thinking": "Hmm."}, "Hi"]}, "Hi", "Hmm.", 0),
        ({"content": [THINKING, HI], "reasoning": "Hmm."}, "Hi", "Hmm.", 0),
    ],
)
def test_a_message_in_another_shape(
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
    message: Object,
    text: str,
    reasoning: str | None,
    calls: int,
) -> None:
    scripted.reply(whole(message))
    scripted.stream(chunks(message))
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        assert (reply.text, reply.reasoning, len(reply.tool_calls)) == (text, reasoning, calls)


@pytest.mark.parametrize("empty", [None, [], {}])
def test_an_empty_delta_in_another_shape(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, empty: object
) -> None:
    scripted.stream(chunks(empty, {"content": "Hi"}, empty))
    assert runner.stream(llm).until_done().text == "Hi"


def test_the_usage_by_itself(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    scripted.stream([{"usage": usage}, *chunks({"content": "Hi"}), {"usage": usage}])
    reply = runner.stream(llm).until_done()
    assert (reply.text, reply.usage and reply.usage.total_tokens) == ("Hi", 3)


def test_a_stream_with_too_many_calls(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    pieces = [{"index": number, "id": f"c{number}", "function": {"name": "f"}} for number in range(4_096)]
    pieces.append({"index": 4_096, "id": "d", "function": {"name": "f"}})
    few = [{"tool_calls": pieces[start : start + 256]} for start in range(0, len(pieces), 256)]
    scripted.stream(chunks({"content": "Hi"}, *few))
    with pytest.raises(ResponseError, match="more than 4,096 tool calls") as caught:
        runner.stream(llm).until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hi"


@pytest.mark.parametrize("usage", [{}, None])
def test_an_empty_usage_is_none(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, usage: object
) -> None:
    scripted.reply({**whole({"content": "Hi"}), "usage": usage})
    *others, last = chunks({"content": "Hi"})
    scripted.stream([*others, {**last, "usage": usage}, {"choices": [], "usage": usage}])
    for reply in (runner.chat(llm), runner.stream(llm).until_done()):
        assert (reply.text, reply.usage) == ("Hi", None)
