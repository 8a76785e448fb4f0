"""A reply is whole, or an error with what arrived: nothing between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.chats import chunk, completion
from vllmchat import (
    BadRequestError,
    ChatCompletion,
    RateLimitError,
    ResponseError,
    StreamInterruptedError,
    StructuredOutputError,
    VLLMChatError,
    VLLMProvider,
)
from vllmchat.chat.accumulate import Accumulator

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

Object = dict[str, Any]

ERROR = {"message": "upstream is busy", "code": 429}
USAGE = {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}


@pytest.fixture
def llm(scripted: ScriptedServer) -> VLLMProvider:
    return VLLMProvider("m", base_url=scripted.base_url, max_retries=0)


def choice(reason: object = "stop", index: int = 0, **message: Any) -> Object:
    return {"index": index, "message": {"content": "Hi", **message}, "finish_reason": reason}


def called(reason: object, *arguments: str) -> Object:
    calls = [
        {"id": f"c{n}", "function": {"name": "f", "arguments": each}} for n, each in enumerate(arguments)
    ]
    return choice(reason, content=None, tool_calls=calls)


def text_of(error: VLLMChatError) -> str | None:
    return error.partial.text if error.partial is not None else None


# Streams


@pytest.mark.parametrize("reason", [None, ""])
def test_a_stream_without_a_finish_reason_is_interrupted(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, reason: str | None
) -> None:
    scripted.stream([chunk("Half an"), chunk(" answer", reason)])
    with pytest.raises(StreamInterruptedError, match="choice 0 has no finish reason") as caught:
        runner.stream(llm).until_done()
    assert text_of(caught.value) == "Half an answer"


@pytest.mark.parametrize("method", ["chat", "complete", "generate"])
def test_a_stream_of_nothing_is_an_error(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, method: str
) -> None:
    kinds: list[list[Any]] = [[], [{"choices": [], "usage": USAGE}], [b"data: null\n\n"]]
    for events in kinds:
        scripted.stream(events)
        asked = [1] if method == "generate" else "Hi"
        stream = runner.open(llm, {"chat": "stream"}.get(method, f"stream_{method}"), asked)
        with pytest.raises(VLLMChatError, match="it has no choices") as caught:
            stream.until_done()
        assert (caught.value.partial is None) is (events != [{"choices": [], "usage": USAGE}])


def test_a_stream_with_fewer_choices_than_requested(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.stream([chunk("one", "stop")])
    with pytest.raises(StreamInterruptedError, match="1 of 2 choices") as caught:
        runner.stream(llm, n=2).until_done()
    assert text_of(caught.value) == "one"


def test_events_end_in_the_same_error(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.stream([chunk("Half")])
    with pytest.raises(StreamInterruptedError):
        list(runner.stream(llm).events())


def test_whole_calls_before_the_end_need_no_finish_reason(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.stream([calls_chunk(0, '{"a":'), calls_chunk(0, "1}"), calls_chunk(1, "{}")])
    reply = runner.stream(llm).until_done()
    assert [(call.arguments, call.complete) for call in reply.tool_calls] == [('{"a":1}', True), ("{}", True)]
    assert reply.finish_reason is None


@pytest.mark.parametrize("arguments", ['{"a":', "", "null", "[1]", '{"a":1}{'])
def test_other_calls_before_the_end_do(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, arguments: str
) -> None:
    scripted.stream([calls_chunk(0, '{"a":1}'), calls_chunk(1, arguments)])
    with pytest.raises(StreamInterruptedError) as caught:
        runner.stream(llm).until_done()
    partial = caught.value.partial
    assert isinstance(partial, ChatCompletion)
    assert [call.complete for call in partial.tool_calls] == [True, False]


def calls_chunk(index: int, arguments: str) -> Object:
    function = {"name": "f" if not arguments.startswith("1") else None, "arguments": arguments}
    made = chunk()
    made["choices"][0]["delta"] = {"tool_calls": [{"index": index, "function": function}]}
    return made


def test_a_choice_that_reports_an_error(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    broken = chunk("lf", "error")
    broken["choices"][0]["error"] = ERROR
    scripted.stream([chunk("Ha"), broken])
    with pytest.raises(RateLimitError, match="upstream is busy") as caught:
        runner.stream(llm).until_done()
    assert text_of(caught.value) == "Ha"


@pytest.mark.parametrize(
    "event",
    [
        {"object": "chat.completion.chunk", "choices": [choice()]},
        completion("Hi"),
        {"object": "chat.completion.chunk", "choices": [{"text": "Hi", "finish_reason": "stop"}]},
        {"choices": [{"delta": {"content": "Hi"}, "message": {"content": "all"}, "finish_reason": "stop"}]},
    ],
)
def test_a_message_in_place_of_a_delta_is_read(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, event: Object
) -> None:
    scripted.stream([event])
    assert runner.stream(llm).until_done().text == "Hi"


def test_a_whole_reply_with_calls_as_an_event(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.stream([{"choices": [called("tool_calls", '{"a":1}', '{"a":2}')]}])
    reply = runner.stream(llm).until_done()
    assert [(call.id, call.arguments) for call in reply.tool_calls] == [("c0", '{"a":1}'), ("c1", '{"a":2}')]


@pytest.mark.parametrize("where", ["delta", "message"])
def test_a_completion_in_the_form_of_a_chat(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, where: str
) -> None:
    body = {"choices": [{"index": 0, where: {"content": "Hi"}, "finish_reason": "stop"}]}
    scripted.stream([body])
    scripted.reply(body)
    assert runner.open(llm, "stream_complete", "x").until_done().text == "Hi"
    assert runner.do(llm, "complete", "x").text == "Hi"


# Whole replies


@pytest.mark.parametrize("body", [{"choices": None}, {"choices": []}, completion("Hi"), {}])
@pytest.mark.parametrize("method", ["chat", "complete"])
def test_an_error_next_to_choices_is_raised(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, body: Object, method: str
) -> None:
    scripted.reply({**body, "error": ERROR})
    with pytest.raises(RateLimitError, match="upstream is busy"):
        runner.do(llm, method, "x")


@pytest.mark.parametrize("method", ["chat", "complete"])
@pytest.mark.parametrize("reason", [None, ""])
def test_a_whole_reply_that_has_not_ended(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, method: str, reason: str | None
) -> None:
    scripted.reply({"choices": [{**choice(reason), "text": "Hi"}]})
    with pytest.raises(ResponseError, match="choice 0 has no finish reason") as caught:
        runner.do(llm, method, "x")
    assert text_of(caught.value) == "Hi"


def test_a_server_that_reports_no_finish_reasons(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply({"choices": [{"message": {"content": "Hi"}}]})
    assert runner.chat(llm).text == "Hi"


def test_whole_calls_without_a_finish_reason(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply({"choices": [called(None, '{"a":1}', "{}")]})
    assert [call.complete for call in runner.chat(llm).tool_calls] == [True, True]
    scripted.reply({"choices": [called("", '{"a":1}', '{"a"')]})
    with pytest.raises(ResponseError):
        runner.chat(llm)


def test_fewer_choices_than_requested(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    for method, asked in (("chat", "x"), ("complete", "x"), ("generate", [1])):
        scripted.reply({"choices": [{**choice(), "text": "Hi", "token_ids": [1]}]})
        with pytest.raises(ResponseError, match="it has 1 of 2 choices") as caught:
            runner.do(llm, method, asked, n=2)
        assert text_of(caught.value) == "Hi"
    scripted.reply({"choices": [{**choice(), "text": "Hi"}]})
    with pytest.raises(ResponseError, match="it has 1 of 3 choices"):
        runner.do(llm, "complete", ["a", "b", "c"])


def test_choices_are_sorted(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    for method, asked in (("chat", "x"), ("complete", "x"), ("generate", [1])):
        choices = [{**choice(content=str(n)), "index": n, "text": str(n)} for n in (2, 0, 1)]
        scripted.reply({"choices": choices})
        assert [each.index for each in runner.do(llm, method, asked, n=3).choices] == [0, 1, 2]


def test_an_empty_reply_is_not_one(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(b"")
    with pytest.raises(ResponseError, match="it is empty"):
        runner.chat(llm)


@pytest.mark.parametrize("shape", [{"delta": {"content": "Hi"}}, {"text": "Hi"}])
def test_a_chunk_in_place_of_a_whole_reply(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, shape: Object
) -> None:
    scripted.reply({"choices": [{"index": 0, "finish_reason": "stop", **shape}]})
    assert runner.chat(llm).text == "Hi"


def test_a_failed_response(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply({"object": "response", "status": "failed", "output": [], "error": ERROR})
    with pytest.raises(RateLimitError, match="busy"):
        runner.do(llm, "respond", "x")
    for status in ("failed", "in_progress", "queued"):
        scripted.reply({"object": "response", "status": status, "output": []})
        with pytest.raises(ResponseError, match=f"its status is '{status}'") as caught:
            runner.do(llm, "respond", "x")
        assert caught.value.partial is not None


@pytest.mark.parametrize(
    ("item", "response", "complete"),
    [
        ("completed", "completed", True),
        (None, "completed", True),
        ("completed", None, True),
        ("incomplete", "completed", False),
        ("in_progress", "completed", False),
        ("broken", "completed", False),
        ("completed", "incomplete", False),
        ("completed", "broken", False),
    ],
)
def test_calls_of_responses(
    scripted: ScriptedServer,
    runner: Runner,
    llm: VLLMProvider,
    item: str | None,
    response: str | None,
    complete: bool,
) -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c", "status": item}
    scripted.reply({"object": "response", "status": response, "output": [call]})
    assert [each.complete for each in runner.do(llm, "respond", "x").tool_calls] == [complete]


def test_an_error_event(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    for data in (b'{"code": 400, "details": "bad"}', b'{"message": "bad", "code": 400}'):
        scripted.stream([chunk("Ha"), b"event: error\ndata: " + data + b"\n\n"])
        with pytest.raises(BadRequestError) as caught:
            runner.stream(llm).until_done()
        assert text_of(caught.value) == "Ha"


# Finish reasons

UNKNOWN = ["error", "network_error", "insufficient_system_resource", "STOP!", "eos?"]


@pytest.mark.parametrize("reason", UNKNOWN)
def test_an_unknown_finish_reason_is_not_a_stop(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, reason: str
) -> None:
    body = {"choices": [called(reason, '{"a":1}', "{}")]}
    scripted.reply(body)
    whole = runner.chat(llm)
    scripted.stream([body])
    streamed = runner.stream(llm).until_done()
    for reply in (whole, streamed):
        assert reply.finish_reason == reason
        assert [call.complete for call in reply.tool_calls] == [True, False]
    scripted.reply({"choices": [choice(reason, content="5")]})
    with pytest.raises(StructuredOutputError) as caught:
        runner.do(llm, "parse", "x", int)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("reason", UNKNOWN)
def test_no_call_of_such_a_reply_is_executed(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider, reason: str
) -> None:
    ran: list[str] = []

    def f(a: str = "default") -> None:
        """Does it."""
        ran.append(a)

    scripted.reply({"choices": [called(reason, '{"a":"1"}', '{"a":"2"}')]})
    scripted.reply(completion("ok"))
    run = runner.do(llm, "run_tools", "x", tools=[f])
    assert ran == []
    assert run.text == "ok"
    assert [type(result.error) for result in run.results] == [ResponseError] * 2


def test_a_reply_in_progress_is_never_whole() -> None:
    assert Accumulator().shortfall() == "it has no choices"
