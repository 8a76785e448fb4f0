"""Tool calls that a limit truncated although the server reports them as complete, as vLLM 0.10 to 0.32 do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from vllmchat import FunctionTool, OpenAIProvider, ResponseError, Tool, ToolCallDone, ToolRun, VLLMProvider
from vllmchat.chat.chunk import decode_chunk
from vllmchat.chat.limits import CallLimits
from vllmchat.chat.stream import chat_reader

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer
    from vllmchat import ChatCompletion, ChatCompletionChunk
    from vllmchat.http.reader import ChunkReader

Object = dict[str, Any]

HEAD: Object = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def tool(name: str, parameters: Object | None = None) -> FunctionTool:
    function: Object = {"name": name}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}  # type: ignore[typeddict-item]


WEATHER = tool("weather", {"type": "object", "properties": {"city": {"type": "string"}}})
"""Its argument is optional."""

REQUIRED = tool("weather", {"type": "object", "properties": {"city": {}}, "required": ["city"]})
CLOCK = tool("clock", {"type": "object", "properties": {}})


def usage(tokens: int) -> Object:
    return {"prompt_tokens": 41, "completion_tokens": tokens, "total_tokens": 41 + tokens}


def piece(
    *calls: tuple[int, str | None, str | None], finish: str | None = None, index: int = 0, **more: Any
) -> Object:
    """Returns a chunk with pieces of calls: index, name, arguments."""
    pieces = [
        {"index": number, **({"id": f"c{number}", "type": "function"} if name else {}), "function": function}
        for number, name, text in calls
        if (function := {"name": name, "arguments": text} if text is not None else {"name": name})
    ]
    delta = {"tool_calls": pieces} if pieces else {}
    return {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}


def chunks(name: str, arguments: str | None, tokens: int | None, finish: str = "tool_calls") -> list[Object]:
    made = [piece((0, name, None))]
    if arguments is not None:
        made.append(piece((0, None, arguments)))
    made.append(piece(finish=finish))
    return made if tokens is None else [*made, {**HEAD, "choices": [], "usage": usage(tokens)}]


def whole(name: str, arguments: str, tokens: int | None, finish: str = "tool_calls") -> Object:
    call = {"id": "c0", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body: Object = {**HEAD, "object": "chat.completion"}
    body["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    return body if tokens is None else {**body, "usage": usage(tokens)}


CASES = [
    # arguments, tools, limit, tokens, whether the call is complete
    pytest.param(None, WEATHER, 12, 12, False, id="nothing came before the limit"),
    pytest.param("{}", WEATHER, 10, 10, False, id="the server closed it: {}"),
    pytest.param('{"city": ""}', WEATHER, 17, 17, False, id="the server closed it: an empty city"),
    pytest.param('{"city": "Paris"}', WEATHER, 30, 22, True, id="below the limit"),
    pytest.param('{"city": "Paris"}', WEATHER, None, 22, True, id="without a limit"),
    pytest.param('{"city": "Paris"}', WEATHER, 30, None, True, id="without a usage"),
    pytest.param(None, WEATHER, None, 22, False, id="nothing came, and the limit is not known"),
    pytest.param(None, WEATHER, 30, None, False, id="nothing came, and the usage is not known"),
    pytest.param(None, WEATHER, 30, 12, True, id="nothing came below the limit: no optional argument"),
    pytest.param(None, REQUIRED, 30, 12, False, id="nothing came, and an argument is required"),
    pytest.param(None, CLOCK, None, None, True, id="a function without parameters"),
    pytest.param(None, tool("weather"), None, None, True, id="a function without a schema"),
    pytest.param("{}", CLOCK, 12, 12, False, id="a function without parameters at the limit"),
]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("arguments", "given", "limit", "tokens", "complete"), CASES)
def test_a_call_truncated_by_a_limit(
    scripted: ScriptedServer,
    runner: Runner,
    arguments: str | None,
    given: FunctionTool,
    limit: int | None,
    tokens: int | None,
    complete: bool,
    streams: bool,
) -> None:
    name = given["function"]["name"]
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        if streams:
            scripted.stream(chunks(name, arguments, tokens))
            stream = runner.stream(llm, "Hi", tools=[given], max_tokens=limit)
            [done] = [event for event in stream.events() if isinstance(event, ToolCallDone)]
            assert done.tool_call.complete is complete
            reply = stream.completion
        else:
            scripted.reply(whole(name, arguments or "", tokens))
            reply = runner.chat(llm, "Hi", tools=[given], max_tokens=limit)
    check(reply, complete)


def check(reply: ChatCompletion, complete: bool) -> None:
    [call] = reply.tool_calls
    assert call.complete is complete
    if complete:
        assert call.parse() == json.loads(call.arguments or "{}")
    else:
        with pytest.raises(ResponseError, match="was truncated"):
            call.parse()


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("in_extra_body", [False, True], ids=["parameter", "extra_body"])
def test_both_names_of_the_limit(scripted: ScriptedServer, name: str, in_extra_body: bool) -> None:
    params: Any = {"extra_body": {name: 12}} if in_extra_body else {name: 12}
    for kind in (VLLMProvider, OpenAIProvider):
        scripted.stream(chunks("weather", "{}", 12))
        with (
            kind("m", base_url=scripted.base_url) as llm,
            llm.stream("Hi", tools=[WEATHER], **params) as stream,
        ):
            check(stream.until_done(), False)


def test_max_completion_tokens_takes_precedence(scripted: ScriptedServer) -> None:
    scripted.reply(whole("weather", '{"city": "Oslo"}', 30))
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        check(llm.chat("Hi", tools=[WEATHER], max_tokens=30, max_completion_tokens=40), True)


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_other_finish_reasons_are_trusted(scripted: ScriptedServer, reason: str) -> None:
    scripted.stream(chunks("weather", '{"city": "Oslo"}', 12, reason))
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        reply = llm.stream("Hi", tools=[WEATHER], max_tokens=12).until_done()
    check(reply, reason == "stop")


def test_only_the_last_call_can_be_truncated(scripted: ScriptedServer) -> None:
    first, last = piece((0, "weather", None)), piece((1, "weather", "{}"), finish="tool_calls")
    scripted.stream([first, last, {**HEAD, "choices": [], "usage": usage(40)}])
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        events = list(llm.stream("Hi", tools=[WEATHER], max_tokens=40).events())
    done = [event.tool_call.complete for event in events if isinstance(event, ToolCallDone)]
    assert done == [True, False]


def feed(limits: CallLimits, *parts: Object) -> ChunkReader[ChatCompletionChunk, ChatCompletion]:
    reader = chat_reader(limits)
    for part in parts:
        reader.accept(decode_chunk(json.dumps(part).encode()))
    return reader


def test_the_last_call_is_not_complete_before_the_usage() -> None:
    reader = feed(CallLimits(max_tokens=30, tools=[WEATHER]), *chunks("weather", '{"city": "Oslo"}', None))
    assert [call.complete for call in reader.reply().tool_calls] == [False]
    reader.accept(decode_chunk(json.dumps({**HEAD, "choices": [], "usage": usage(20)}).encode()))
    assert [call.complete for call in reader.reply().tool_calls] == [True]


def test_a_missing_usage_at_the_end_is_ignored() -> None:
    reader = feed(CallLimits(max_tokens=30, tools=[WEATHER]), *chunks("weather", '{"city": "Oslo"}', None))
    reader.done = True
    assert [call.complete for call in reader.reply().tool_calls] == [True]


@pytest.mark.parametrize(
    ("total", "complete"),
    [
        pytest.param(24, [False, False], id="all of them reached it"),
        pytest.param(12, [True, True], id="none can have reached it"),
        pytest.param(20, [True, True], id="not known which: what came is believed"),
    ],
)
def test_the_usage_of_several_choices(total: int, complete: list[bool]) -> None:
    limits = CallLimits(max_tokens=12, choices=2, tools=[WEATHER])
    parts = [piece((0, "weather", "{}"), finish="tool_calls", index=index) for index in (0, 1)]
    reader = feed(limits, *parts, {**HEAD, "choices": [], "usage": usage(total)})
    reader.done = True
    assert [choice.message.tool_calls[0].complete for choice in reader.reply().choices] == complete


def test_the_usage_of_each_of_several_choices() -> None:
    limits = CallLimits(max_tokens=12, choices=2, tools=[WEATHER])
    parts = [
        piece((0, "weather", "{}"), finish="tool_calls", index=index, usage=usage(tokens))
        for index, tokens in enumerate((12, 8))
    ]
    reader = feed(limits, *parts, {**HEAD, "choices": [], "usage": usage(20)})
    reader.done = True
    assert [choice.message.tool_calls[0].complete for choice in reader.reply().choices] == [False, True]


ran: list[str] = []


def weather(city: str = "EVERYWHERE") -> str:
    """The weather."""
    ran.append(city)
    return city


SUNNY: Object = {**HEAD, "choices": [{"delta": {"content": "Sunny."}, "finish_reason": "stop"}]}
SUNNY_WHOLE: Object = {**HEAD, "choices": [{"message": {"content": "Sunny."}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", [VLLMProvider, OpenAIProvider])
def test_a_run_does_not_execute_the_call(
    scripted: ScriptedServer,
    runner: Runner,
    streams: bool,
    kind: type[VLLMProvider | OpenAIProvider],
) -> None:
    ran.clear()
    if streams:
        scripted.stream(chunks("weather", None, 12))
        scripted.stream([SUNNY])
    else:
        scripted.reply(whole("weather", "{}", 12))
        scripted.reply(SUNNY_WHOLE)
    llm = kind("m", base_url=scripted.base_url)
    done = run(runner, llm, streams)
    llm.close()
    assert (done.text, ran) == ("Sunny.", [])
    assert done.results[0].content.startswith("Not executed: the call of tool 'weather' was truncated")
    # The arguments sent back are valid for any server.
    sent = cast("Object", scripted.requests[1].json())
    assert sent["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


def run(runner: Runner, llm: VLLMProvider | OpenAIProvider, streams: bool) -> ToolRun:
    tools = [Tool(weather)]

    async def go() -> ToolRun:
        async with llm:
            if streams:
                return await llm.astream_run_tools("Hi", tools=tools, max_tokens=12).until_done()
            return await llm.arun_tools("Hi", tools=tools, max_tokens=12)

    if runner.portal is not None:
        return runner.portal.call(go)
    if streams:
        return llm.stream_run_tools("Hi", tools=tools, max_tokens=12).until_done()
    return llm.run_tools("Hi", tools=tools, max_tokens=12)


def test_a_run_does_not_execute_the_call_at_the_end_of_the_history(scripted: ScriptedServer) -> None:
    ran.clear()
    scripted.stream(chunks("weather", "{}", 12))
    scripted.reply(SUNNY_WHOLE)
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        reply = llm.stream("Weather?", tools=[weather], max_tokens=12).until_done()
        llm.run_tools([{"role": "user", "content": "Weather?"}, reply.message], tools=[weather])
    assert ran == []
