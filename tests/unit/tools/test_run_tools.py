"""Tool runs: with any provider, sync and async, with and without streaming."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from vllmchat import (
    APIStatusError,
    ChatCompletion,
    ChatMessage,
    Finished,
    InternalServerError,
    InvalidRequestError,
    MaxTurnsError,
    Message,
    OpenAIProvider,
    ResponseError,
    StreamError,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDone,
    ToolCallStart,
    ToolResult,
    ToolRun,
    VLLMProvider,
    arun_tools,
    astream_run_tools,
    run_tools,
    stream_run_tools,
)
from vllmchat.chat.chunk import ChatCompletionChunk
from vllmchat.chat.events import EventBuilder
from vllmchat.testing import FakeServer, ScriptedProvider, error, stall, tool_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from support.runners import Runner
    from support.scripted import ScriptedServer
    from vllmchat import CommonChatParams, Event, Messages, RunEvent
    from vllmchat.chat.messages import ToolMessage

Object = dict[str, Any]

ANSWER = "It is 21 C in Paris."


def call(name: str, arguments: object = None, call_id: str = "c1") -> Object:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def said(text: str = "", *calls: Object, finish: str | None = None, usage: bool = True) -> Object:
    """Returns the body of a reply."""
    message: Object = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = list(calls)
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": finish or ("tool_calls" if calls else "stop"),
    }
    body: Object = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    if usage:
        body["usage"] = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    return body


def streamed(body: Object) -> list[Object]:
    """Returns the chunks of a reply."""
    [choice] = body["choices"]
    message = choice["message"]
    deltas: list[Object] = [{"role": "assistant", "content": message["content"] or ""}]
    deltas += [
        {"tool_calls": [{"index": place, **each}]} for place, each in enumerate(message.get("tool_calls", []))
    ]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks: list[Object] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks[-1]["choices"][0]["finish_reason"] = choice["finish_reason"]
    return [*chunks, {**head, "choices": [], "usage": body.get("usage")}]


class Chunks:
    """The stream of a foreign provider."""

    def __init__(self, body: Object) -> None:
        self.completion = ChatCompletion.model_validate(body)
        self.closed = False
        self._chunks = [ChatCompletionChunk.model_validate(each) for each in streamed(body)]

    def _events(self) -> list[Event]:
        maker = EventBuilder()
        events = [event for chunk in self._chunks for event in maker.feed(chunk)]
        return [*events, *maker.finish(self.completion)]

    def until_done(self) -> ChatCompletion:
        return self.completion

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        return iter(self._chunks)

    def __next__(self) -> ChatCompletionChunk:
        raise NotImplementedError

    def events(self) -> Iterator[Event]:
        yield from self._events()

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class AsyncChunks:
    def __init__(self, body: Object) -> None:
        self.inner = Chunks(body)
        self.completion = self.inner.completion

    async def until_done(self) -> ChatCompletion:
        return self.completion

    async def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        raise NotImplementedError
        yield

    async def __anext__(self) -> ChatCompletionChunk:
        raise NotImplementedError

    async def events(self) -> AsyncIterator[Event]:
        for event in self.inner.events():
            await anyio.lowlevel.checkpoint()
            yield event

    async def aclose(self) -> None:
        self.inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class Script:
    """A foreign provider with scripted replies."""

    name = "script"

    def __init__(self, *bodies: Object) -> None:
        self.bodies = list(bodies)
        self.asked: list[Object] = []
        self.streams: list[Chunks] = []

    def _next(self, messages: Messages, model: str | None, params: CommonChatParams) -> Object:
        self.asked.append({"messages": wire(cast("Any", messages)), "model": model, **params})
        return self.bodies.pop(0)

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion:
        return ChatCompletion.model_validate(self._next(messages, model, params))

    async def achat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion:
        return self.chat(messages, model=model, **params)

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> Chunks:
        made = Chunks(self._next(messages, model, params))
        self.streams.append(made)
        return made

    def astream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> AsyncChunks:
        made = AsyncChunks(self._next(messages, model, params))
        self.streams.append(made.inner)
        return made

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


def wire(messages: Sequence[Message | ChatMessage]) -> list[Object]:
    """Returns messages as they are sent."""
    return [cast("Any", each.to_request() if isinstance(each, ChatMessage) else each) for each in messages]


def run(
    runner: Runner, llm: Script, messages: Messages = "Weather?", *, streams: bool, **params: Any
) -> ToolRun:
    """Runs a conversation with the module-level functions."""
    if streams:
        if runner.portal is None:
            return stream_run_tools(llm, messages, **params).until_done()

        async def read() -> ToolRun:
            return await astream_run_tools(llm, messages, **params).until_done()

        return runner.portal.call(read)
    if runner.portal is None:
        return run_tools(llm, messages, **params)
    return runner.portal.call(lambda: arun_tools(llm, messages, **params))


def get_weather(city: str) -> str:
    """Current weather.

    Args:
        city: The city.
    """
    return {"Paris": "21 C", "Oslo": "4 C"}[city]


DEFINITION = Tool(get_weather).definition
PARIS = call("get_weather", {"city": "Paris"})


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streams(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# The loop


def test_a_run(runner: Runner, streams: bool) -> None:
    llm = Script(said("", PARIS), said(ANSWER))
    messages: list[Message] = [{"role": "user", "content": "Weather?"}]
    done = run(runner, llm, messages, streams=streams, tools=[get_weather], model="m", temperature=0)
    assert messages == [{"role": "user", "content": "Weather?"}]
    assert done.text == done.completion.text == ANSWER
    assert wire(done.messages) == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [PARIS]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 C"},
        {"role": "assistant", "content": ANSWER},
    ]
    assert [asked["messages"] for asked in llm.asked] == [wire(done.messages)[:1], wire(done.messages)[:3]]
    for asked in llm.asked:
        assert {**asked, "messages": None} == {
            "messages": None,
            "model": "m",
            "temperature": 0,
            "tools": [DEFINITION],
        }
    first, last = done.turns
    [result] = first.results
    assert (result.call.name, result.content, result.value, result.error) == (
        "get_weather",
        "21 C",
        "21 C",
        None,
    )
    assert result.message == {"role": "tool", "tool_call_id": "c1", "content": "21 C"}
    assert last.results == ()
    assert done.results == first.results
    assert [turn.usage.total_tokens for turn in done.turns if turn.usage] == [12, 12]
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (20, 4, 24)


def test_a_reply_without_calls(runner: Runner, streams: bool) -> None:
    done = run(runner, Script(said("Hello!", usage=False)), streams=streams, tools=[get_weather])
    assert (done.text, len(done.turns), done.results, done.usage) == ("Hello!", 1, (), None)


def test_results_are_sent_in_the_order_of_the_calls(runner: Runner, streams: bool) -> None:
    oslo = call("get_weather", {"city": "Oslo"}, "c2")
    llm = Script(said("", PARIS, oslo), said("Done."))
    done = run(runner, llm, streams=streams, tools=[get_weather])
    assert [result.content for result in done.results] == ["21 C", "4 C"]
    assert [each["tool_call_id"] for each in wire(done.messages)[2:4]] == ["c1", "c2"]


def test_constraints_do_not_apply_to_a_forced_call(runner: Runner, streams: bool) -> None:
    wanted: Any = {"type": "json_object"}
    for choice, first in (("required", None), ("auto", wanted), (None, wanted)):
        llm = Script(said("", PARIS), said("{}"))
        run(runner, llm, streams=streams, tools=[get_weather], tool_choice=choice, response_format=wanted)
        assert [asked.get("response_format") for asked in llm.asked] == [first, wanted]


@pytest.mark.parametrize(
    ("choice", "second"),
    [
        ("required", None),
        ({"type": "function", "function": {"name": "get_weather"}}, None),
        ("auto", None),
        ("none", "none"),
    ],
)
def test_tool_choice_applies_to_the_first_reply(
    choice: object, second: object, runner: Runner, streams: bool
) -> None:
    llm = Script(said("", PARIS), said(ANSWER))
    run(runner, llm, streams=streams, tools=[get_weather], tool_choice=choice)
    assert [asked.get("tool_choice") for asked in llm.asked] == [choice, second]


# Errors


def fail() -> str:
    raise RuntimeError("no network")


class Circle:
    """An object that cannot be serialized."""

    def __init__(self) -> None:
        self.inner = {"self": self}

    def __str__(self) -> str:
        raise ValueError("no text")


def give_circle() -> Circle:
    return Circle()


@pytest.mark.parametrize(
    ("made", "content", "error"),
    [
        (call("fail"), "The tool failed: RuntimeError: no network", RuntimeError),
        (call("give_circle"), "The tool failed: ", ValueError),
        (
            call("get_weather", {"town": "Paris"}),
            """Not executed: the arguments of get_weather are invalid.
- city: Field required
- town: Extra inputs are not permitted (given: 'Paris')""",
            ValueError,
        ),
        (call("by_hand", "[1]"), "Not executed: the call of tool 'by_hand' has arguments that are not", None),
        (call("by_hand", '"\\ud800"'), "Not executed: the call of tool 'by_hand' has arguments that are not", None),
        (call("get_wether"),
         "Unknown tool 'get_wether'. The available tools are: get_weather, fail, give_circle, by_hand.", LookupError),
        (call("get_weather", "{city"), "Not executed: the call of tool 'get_weather' has arguments that are not", None),
        (call("get_weather", '{"city": "Par'), "Not executed: the call of tool 'get_weather' has arguments that were",
         None),
    ],
)  # fmt: skip
def test_errors_are_sent_to_the_model(
    made: Object, content: str, error: type[Exception] | None, runner: Runner, streams: bool
) -> None:
    llm = Script(said("", made), said("Sorry."))
    tools = [get_weather, fail, give_circle, Tool(get_weather, name="by_hand", parameters={"type": "object"})]
    seen: list[tuple[str, Exception]] = []

    def hook(failed: ToolCall, why: Exception) -> None:
        seen.append((failed.name, why))

    done = run(runner, llm, streams=streams, tools=tools, on_tool_error=hook)
    [result] = done.results
    assert result.content.startswith(content)
    assert result.value is None
    assert isinstance(result.error, error or Exception)
    assert llm.asked[1]["messages"][-1] == {"role": "tool", "tool_call_id": "c1", "content": result.content}
    executed = made["function"]["name"] in ("fail", "give_circle")
    assert seen == ([(result.call.name, result.error)] if executed else [])
    # The arguments sent back are always an object.
    [sent] = llm.asked[1]["messages"][-2]["tool_calls"]
    assert isinstance(json.loads(sent["function"]["arguments"]), dict)


def test_the_hooks_text_is_sent_instead(runner: Runner, streams: bool) -> None:
    def hook(failed: ToolCall, error: Exception) -> str:
        return f"{failed.name}: try later"

    done = run(
        runner,
        Script(said("", call("fail")), said("Sorry.")),
        streams=streams,
        tools=[fail],
        on_tool_error=hook,
    )
    assert done.results[0].content == "fail: try later"


def test_an_exception_from_the_hook_ends_the_run(runner: Runner, streams: bool) -> None:
    def hook(failed: ToolCall, error: Exception) -> None:
        raise error

    ran: list[str] = []

    def note(text: str) -> str:
        ran.append(text)
        return text

    calls = [call("note", {"text": "a"}, "c0"), call("fail"), call("note", {"text": "b"}, "c2")]
    llm = Script(said("", *calls), said("Done."))
    with pytest.raises(RuntimeError, match="no network") as caught:
        run(runner, llm, streams=streams, tools=[note, fail], on_tool_error=hook)
    # The tools have run, so the history has all results, and the run goes on without calling them again.
    history: list[Message | ChatMessage] = vars(caught.value)["messages"]
    results = [(each["tool_call_id"], each["content"]) for each in wire(history)[2:]]
    assert results == [("c0", "a"), ("c1", "The tool failed: RuntimeError: no network"), ("c2", "b")]
    assert run(runner, llm, history, streams=streams, tools=[note, fail]).text == "Done."
    assert sorted(ran) == ["a", "b"]


def test_messages_of_the_callers_own_errors_are_kept(runner: Runner, streams: bool) -> None:
    class OwnError(Exception):
        def __init__(self) -> None:
            self.messages = ["own"]

    def hook(failed: ToolCall, error: Exception) -> None:
        raise OwnError

    with pytest.raises(OwnError) as caught:
        run(runner, Script(said("", call("fail"))), streams=streams, tools=[fail], on_tool_error=hook)
    assert caught.value.messages == ["own"]


def test_a_foreign_reply_without_its_call_is_not_the_end(runner: Runner, streams: bool) -> None:
    llm = Script(said("Let me see.", finish="tool_calls"))
    with pytest.raises(ResponseError, match="finish reason 'tool_calls', but no tool call") as caught:
        run(runner, llm, streams=streams, tools=[fail])
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Let me see."


def test_the_hook_may_be_async_in_an_async_run(runner: Runner, streams: bool) -> None:
    async def hook(failed: ToolCall, error: Exception) -> str | None:
        await anyio.lowlevel.checkpoint()
        if str(error) == "no network":
            return f"{failed.name}: try later"
        raise error

    llm = Script(said("", call("fail"), call("fail", call_id="c2")), said("Sorry."))
    if runner.portal is None:
        with pytest.raises(InvalidRequestError, match="on_tool_error: is async, which a sync run cannot"):
            run(runner, llm, streams=streams, tools=[fail], on_tool_error=hook)
        assert llm.asked == []
        return
    done = run(runner, llm, streams=streams, tools=[fail], on_tool_error=hook)
    assert [result.content for result in done.results] == ["fail: try later"] * 2


def test_an_exception_from_an_async_hook_ends_the_run(runner: Runner, streams: bool) -> None:
    async def hook(failed: ToolCall, error: Exception) -> None:
        raise error

    if runner.portal is not None:
        with pytest.raises(RuntimeError, match="no network"):
            run(runner, Script(said("", call("fail"))), streams=streams, tools=[fail], on_tool_error=hook)


def test_a_hook_that_returns_something_else_ends_the_run(runner: Runner, streams: bool) -> None:
    def hook(failed: ToolCall, error: Exception) -> Any:
        return {"failed": True}

    with pytest.raises(TypeError, match="on_tool_error must return a str or None, not dict"):
        run(runner, Script(said("", call("fail"))), streams=streams, tools=[fail], on_tool_error=hook)


@pytest.mark.parametrize("arguments", ['{"city": "Par', '{"city": "Paris"}'])
def test_a_truncated_call_is_never_executed(arguments: str, runner: Runner, streams: bool) -> None:
    cities: list[str] = []

    def look(city: str) -> str:
        cities.append(city)
        return city

    calls = [call("look", {"city": "Oslo"}), call("look", arguments, "c2")]
    llm = Script(said("", *calls, finish="length"), said("Done."))
    done = run(runner, llm, streams=streams, tools=[look])
    assert cities == ["Oslo"]
    assert [result.error is None for result in done.results] == [True, False]
    assert done.results[1].content.startswith("Not executed: the call of tool 'look' was truncated: {")
    history = llm.asked[1]["messages"]
    assert [each["function"]["arguments"] for each in history[1]["tool_calls"]] == ['{"city": "Oslo"}', "{}"]
    # The reply itself is unchanged.
    assert done.turns[0].completion.tool_calls[1].arguments == arguments


def test_calls_without_ids_get_ids(runner: Runner, streams: bool) -> None:
    for ids in (["", ""], ["same", "same"], ["a", ""]):
        calls = [
            call("get_weather", {"city": city}, each)
            for city, each in zip(("Paris", "Oslo"), ids, strict=True)
        ]
        llm = Script(said("", *calls), said("Done."))
        done = run(runner, llm, streams=streams, tools=[get_weather])
        _, reply_, *results, _ = wire(done.messages)
        sent = [each["id"] for each in reply_["tool_calls"]]
        assert len(set(sent)) == 2
        assert all(sent)
        assert [each["tool_call_id"] for each in results] == sent


# Too many turns


def test_too_many_turns(runner: Runner, streams: bool) -> None:
    cities: list[str] = []

    def look(city: str) -> str:
        cities.append(city)
        return city

    llm = Script(*(said("", call("look", {"city": str(turn)}, f"c{turn}")) for turn in range(3)))
    with pytest.raises(MaxTurnsError) as caught:
        run(runner, llm, streams=streams, tools=[look], max_turns=3)
    error = caught.value
    assert str(error) == (
        "the model still calls tools (look) after 3 turns. Raise max_turns, or continue from .messages."
    )
    assert error.max_turns == 3
    assert len(error.completions) == 3
    assert error.partial is error.completions[-1]
    assert len(error.messages) == 6
    assert cities == ["0", "1"]
    copied = pickle.loads(pickle.dumps(error))
    assert wire(copied.messages) == wire(error.messages)
    # A run continues from the history.
    done = run(runner, Script(said("Done.")), copied.messages, streams=streams, tools=[look])
    assert cities == ["0", "1", "2"]
    assert done.text == "Done."
    assert [result.content for result in done.results] == ["2"]
    assert len(done.messages) == 8
    assert len(error.messages) == 6


def test_too_many_turns_with_truncated_calls(runner: Runner, streams: bool) -> None:
    cut = said("", call("get_weather", '{"city'), finish="length")
    with pytest.raises(MaxTurnsError, match="2 of its calls were truncated") as caught:
        run(runner, Script(cut, copy.deepcopy(cut)), streams=streams, tools=[get_weather], max_turns=2)
    # A continued run does not execute it either.
    llm = Script(said("Done."))
    done = run(runner, llm, caught.value.messages, streams=streams, tools=[get_weather])
    assert done.results[0].error is not None


def test_a_history_may_end_with_tool_calls(runner: Runner, streams: bool) -> None:
    asked: Message = {"role": "user", "content": "Weather?"}
    calling = cast("Message", {"role": "assistant", "content": None, "tool_calls": [PARIS]})
    done = run(runner, Script(said(ANSWER)), [asked, calling], streams=streams, tools=[get_weather])
    assert [result.content for result in done.results] == ["21 C"]
    # Messages that cannot be parsed are left to the server.
    strange = cast("Message", {"role": "assistant", "content": None, "tool_calls": ["none"]})
    for last in (strange, asked, ChatMessage(content="Hello")):
        done = run(runner, Script(said(ANSWER)), [asked, last], streams=streams, tools=[get_weather])
        assert done.results == ()
    assert run(runner, Script(said(ANSWER)), [], streams=streams, tools=[get_weather]).text == ANSWER


# Validation before anything is sent


async def aget_weather(city: str) -> str:
    await anyio.lowlevel.checkpoint()
    return get_weather(city)


@pytest.mark.parametrize(
    ("params", "problems"),
    [
        ({}, ["tools: is required. Write tools=[function, ...]."]),
        ({"tools": []}, ["tools: is required. Write tools=[function, ...]."]),
        ({"tools": get_weather}, ["tools: must be a list of functions. Write tools=[function, ...]."]),
        (
            {"tools": [DEFINITION, 5, lambda: None, get_weather, get_weather]},
            [
                "tools[0]: must be a function, not a mapping. Write Tool(function, name=..., parameters=...).",
                "tools[1]: must be a function, not an int. Write Tool(function, name=..., parameters=...).",
                'tools[2]=<<lambda>>: has no name. Write Tool(..., name="...").',
                'tools[4]: has the same name as another tool: get_weather. Write Tool(function, name="...").',
            ],
        ),
        ({"tools": [get_weather], "max_turns": 0, "n": 2},
         ["max_turns=0: must be at least 1.", "n=2: must be 1: the conversation continues with one reply."]),
        ({"tools": [get_weather], "max_turns": True}, ["max_turns=True: must be at least 1."]),
    ],
)  # fmt: skip
def test_invalid_arguments_of_a_run(
    params: Object, problems: list[str], runner: Runner, streams: bool
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(runner, Script(), streams=streams, **params)
    assert [str(problem) for problem in caught.value.problems] == problems


def test_invalid_messages_are_rejected(runner: Runner, streams: bool) -> None:
    with pytest.raises(InvalidRequestError, match="must be a str or a list of messages"):
        run(runner, Script(), cast("Any", 5), streams=streams, tools=[get_weather])


@pytest.mark.parametrize("method", [run_tools, stream_run_tools])
def test_a_sync_run_rejects_async_functions(method: Callable[..., object]) -> None:
    with pytest.raises(InvalidRequestError, match=r"async functions.*: aget_weather\. Call arun_tools"):
        method(Script(), "Weather?", tools=[get_weather, aget_weather])


class Future:
    def __await__(self) -> Iterator[None]:
        raise NotImplementedError
        yield


@pytest.mark.parametrize("made", [lambda: aget_weather("Paris"), Future])
def test_a_sync_run_cannot_await_a_result(made: Callable[[], object]) -> None:
    def look() -> object:
        return made()

    with pytest.raises(TypeError, match="call arun_tools"):
        run_tools(Script(said("", call("look"))), "Weather?", tools=[look])


# Async


@pytest.mark.anyio
async def test_calls_run_concurrently() -> None:
    met = 0
    all_met = anyio.Event()
    barrier = threading.Barrier(2, timeout=5)

    async def meet(number: int) -> int:
        nonlocal met
        met += 1
        if met == 2:
            all_met.set()
        with anyio.fail_after(5):
            await all_met.wait()
        return number

    def meet_in_threads() -> bool:
        barrier.wait()
        return threading.current_thread() is not threading.main_thread()

    calls = [
        call("meet", {"number": 1}, "c1"),
        call("meet_in_threads", {}, "c2"),
        call("meet", {"number": 2}, "c3"),
        call("meet_in_threads", {}, "c4"),
    ]
    done = await arun_tools(Script(said("", *calls), said("Done.")), "Meet.", tools=[meet, meet_in_threads])
    assert [result.value for result in done.results] == [1, True, 2, True]


@pytest.mark.anyio
async def test_a_sync_function_may_return_an_awaitable() -> None:
    def look(city: str) -> object:
        return aget_weather(city)

    done = await arun_tools(
        Script(said("", call("look", {"city": "Oslo"})), said("Done.")), "?", tools=[look]
    )
    assert done.results[0].value == "4 C"


@pytest.mark.anyio
async def test_cancelling_a_run_cancels_its_functions() -> None:
    ended: list[str] = []
    begun = anyio.Event()

    async def wait(name: str) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(name)

    for calls in ([call("wait", {"name": "a"})], [call("wait", {"name": each}, each) for each in ("b", "c")]):
        for streamed_too in (False, True):
            ended.clear()
            begun = anyio.Event()
            llm = Script(said("", *calls), said("Done."))
            stream_ = astream_run_tools(llm, "Wait.", tools=[wait])
            async with anyio.create_task_group() as group:
                if streamed_too:
                    group.start_soon(stream_.until_done)
                else:
                    group.start_soon(lambda llm=llm: arun_tools(llm, "Wait.", tools=[wait]))  # type: ignore[misc]
                with anyio.fail_after(5):
                    await begun.wait()
                group.cancel_scope.cancel()
            assert sorted(ended) == sorted(
                json.loads(each["function"]["arguments"])["name"] for each in calls
            )
            assert len(llm.asked) == 1
            if streamed_too:
                with pytest.raises(StreamError, match="was closed or failed"):
                    await stream_.until_done()


# Streams


def kinds(events: Sequence[RunEvent]) -> list[type]:
    return [type(event) for event in events]


def read(runner: Runner, source: Any) -> list[RunEvent]:
    if runner.portal is None:
        return list(source)

    async def all_of() -> list[RunEvent]:
        return [event async for event in source]

    return runner.portal.call(all_of)


def open_stream(runner: Runner, llm: Script, **params: Any) -> Any:
    method: Any = stream_run_tools if runner.portal is None else astream_run_tools
    return method(llm, "Weather?", tools=[get_weather], **params)


def test_a_stream_yields_all_events(runner: Runner) -> None:
    oslo = call("get_weather", {"city": "Oslo"}, "c2")
    llm = Script(said("Let me look.", PARIS, oslo), said(ANSWER))
    source = open_stream(runner, llm)
    assert llm.asked == []
    events = read(runner, source)
    told = [event for event in events if not isinstance(event, ToolCallStart | ToolCallDone)]
    assert [kind.__name__ for kind in kinds(told)] == [
        "TextDelta", "ToolCallDelta", "ToolCallDelta", "Finished", "ToolResult", "ToolResult", "TextDelta", "Finished",
    ]  # fmt: skip
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Let me look." + ANSWER
    assert [event.content for event in events if isinstance(event, ToolResult)] == ["21 C", "4 C"]
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.completion.text == ANSWER
    assert len(source.messages) == 5
    done: ToolRun = source.until_done() if runner.portal is None else runner.portal.call(source.until_done)
    assert done.text == ANSWER
    assert wire(source.messages) == wire(done.messages)
    assert all(each.closed for each in llm.streams)
    assert read(runner, source) == []


def test_a_stream_can_be_left_early(runner: Runner) -> None:
    llm = Script(said("Let me look.", PARIS), said(ANSWER))
    source = open_stream(runner, llm)
    if runner.portal is None:
        with source:
            assert isinstance(next(source), TextDelta)
        with pytest.raises(StreamError, match="was closed"):
            source.until_done()
    else:

        async def leave() -> None:
            async with source:
                assert isinstance(await anext(source), TextDelta)
            with pytest.raises(StreamError, match="was closed"):
                await source.until_done()

        runner.portal.call(leave)
    assert [each.closed for each in llm.streams] == [True]
    assert len(llm.asked) == 1
    assert len(source.messages) == 1


def test_a_stream_can_be_left_before_it_starts(runner: Runner) -> None:
    source = open_stream(runner, Script())
    if runner.portal is None:
        source.close()
    else:
        runner.portal.call(source.aclose)
    assert read(runner, source) == []


# The library's providers


@pytest.mark.parametrize("provider", [VLLMProvider, OpenAIProvider])
def test_methods_of_the_providers(
    provider: type[VLLMProvider | OpenAIProvider], scripted: ScriptedServer, runner: Runner
) -> None:
    llm = provider("m", base_url=scripted.base_url)
    scripted.reply(said("", PARIS))
    scripted.reply(said(ANSWER))
    done: ToolRun = runner.do(
        llm,
        "run_tools",
        "Weather?",
        tools=[get_weather],
        tool_choice="required",
        temperature=0,
        model="other",
    )
    assert done.text == ANSWER
    first, second = (request.json() for request in scripted.requests)
    assert first["tools"] == second["tools"] == [DEFINITION]
    assert first["model"] == second["model"] == "other"
    assert first["temperature"] == second["temperature"] == 0
    assert (first.get("tool_choice"), second.get("tool_choice")) == ("required", None)
    assert second["messages"] == wire(done.messages)[:3]


@pytest.mark.parametrize("provider", [VLLMProvider, OpenAIProvider])
def test_streams_of_the_providers(
    provider: type[VLLMProvider | OpenAIProvider], scripted: ScriptedServer, runner: Runner
) -> None:
    llm = provider("m", base_url=scripted.base_url)
    scripted.stream(streamed(said("", PARIS)))
    scripted.stream(streamed(said(ANSWER)))
    method: Any = llm.stream_run_tools if runner.portal is None else llm.astream_run_tools
    source = method("Weather?", tools=[get_weather])
    events = read(runner, source)
    assert [event.content for event in events if isinstance(event, ToolResult)] == ["21 C"]
    assert source.messages[-1].content == ANSWER
    assert len({request.connection for request in scripted.requests}) == 1


def test_leaving_a_stream_closes_the_reply(fake_vllm: FakeServer, runner: Runner) -> None:
    llm = VLLMProvider("m")
    fake_vllm.answer(stall("Let me", after=2))
    method: Any = llm.stream_run_tools if runner.portal is None else llm.astream_run_tools
    source = method("Weather?", tools=[get_weather])
    if runner.portal is None:
        with source:
            next(source)
    else:

        async def leave() -> None:
            async with source:
                await anext(source)

        runner.portal.call(leave)
    fake_vllm.wait_abandoned()


@pytest.mark.parametrize("method", ["run_tools", "stream_run_tools"])
def test_a_failed_reply_raises_as_usual(
    scripted_provider: ScriptedProvider, runner: Runner, method: str
) -> None:
    scripted_provider.answer(tool_call("get_weather", {"city": "Paris"}), error(500, "ill"))
    with pytest.raises(InternalServerError, match="ill"):
        _run_method(runner, scripted_provider, method)


@pytest.mark.parametrize("method", ["run_tools", "stream_run_tools"])
def test_an_error_has_the_history(scripted_provider: ScriptedProvider, runner: Runner, method: str) -> None:
    llm = scripted_provider
    llm.answer(tool_call("get_weather", {"city": "Paris"}), error(503, "busy"), ANSWER)
    with pytest.raises(APIStatusError) as caught:
        _run_method(runner, llm, method)
    question, asked, result = caught.value.messages
    assert question == {"role": "user", "content": "Weather?"}
    assert isinstance(asked, ChatMessage)
    assert not isinstance(result, ChatMessage)
    assert (result["role"], result.get("content")) == ("tool", "21 C")
    assert len(pickle.loads(pickle.dumps(caught.value)).messages) == 3
    # The run goes on from there, without calling the tool again.
    assert runner.do(llm, "run_tools", caught.value.messages, tools=[get_weather]).text == ANSWER


def _run_method(runner: Runner, llm: VLLMProvider, method: str) -> None:
    if method == "run_tools":
        runner.do(llm, method, "Weather?", tools=[get_weather])
    else:
        runner.open(llm, method, "Weather?", tools=[get_weather]).until_done()


def wipe(path: str = "/") -> str:
    """Wipes a folder."""
    raise AssertionError(path)


@pytest.mark.parametrize("arguments", ["", "{}", '{"path": "/home"}', '{"path": "/ho'])
@pytest.mark.parametrize("reason", ["length", "error"])
def test_a_truncated_call_is_not_executed_from_a_stored_history(
    arguments: str, reason: str, runner: Runner, streams: bool
) -> None:
    made = ChatCompletion.model_validate(said("", call("wipe", arguments), finish=reason)).message
    plain = json.loads(json.dumps(made.model_dump(exclude_none=True)))
    stored: list[Any] = [
        made,
        made.to_request(),
        json.loads(json.dumps(made.to_request())),
        plain,
        ChatMessage.model_validate_json(made.model_dump_json()),
        pickle.loads(pickle.dumps(made)),
        copy.deepcopy(made),
    ]
    for message in stored:
        llm = Script(said("ok"))
        done = run(runner, llm, [{"role": "user", "content": "Go"}, message], streams=streams, tools=[wipe])
        [result] = done.results
        assert result.content.startswith("Not executed: ")


def test_the_mark_of_a_truncated_call_is_not_sent(runner: Runner) -> None:
    made = ChatCompletion.model_validate(said("", call("wipe", "{}"), finish="length")).message
    llm = ScriptedProvider("ok")
    for message in (made, made.to_request(), made.model_dump(exclude_none=True)):
        runner.do(llm, "chat", [{"role": "user", "content": "Go"}, message])
        [sent] = cast("Any", llm.calls[-1].messages[1])["tool_calls"]
        assert sent == call("wipe", "{}")


def test_a_stored_call_without_arguments_may_have_been_truncated(runner: Runner, streams: bool) -> None:
    for tool, executed in ((wipe, False), (give_nothing, True)):
        history: list[Any] = [{"role": "assistant", "tool_calls": [call(tool.__name__, "")]}]
        done = run(runner, Script(said("ok")), history, streams=streams, tools=[tool])
        assert (done.results[0].error is None) is executed


def give_nothing() -> str:
    """Takes nothing."""
    return "nothing"


def halves() -> str:
    """Half an emoji."""
    return "caf\udce9"


def raise_halves() -> str:
    """Half an emoji, and no message."""
    raise OSError("cannot open b\udc80")


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def raise_unspeakable() -> str:
    """Fails."""
    raise UnspeakableError


@pytest.mark.parametrize(
    ("tool", "content"),
    [
        (halves, "caf\ufffd"),
        (raise_halves, "The tool failed: OSError: cannot open b\ufffd"),
        (raise_unspeakable, "The tool failed: UnspeakableError: (its message cannot be shown)"),
    ],
)
def test_any_text_of_a_tool_can_be_sent(
    scripted_provider: ScriptedProvider, runner: Runner, tool: Callable[[], str], content: str
) -> None:
    scripted_provider.answer(tool_call(tool.__name__), "ok")
    assert runner.do(scripted_provider, "run_tools", "x", tools=[tool]).text == "ok"
    assert scripted_provider.calls[-1].messages[-1].get("content") == content


@pytest.mark.parametrize(
    ("arguments", "city"),
    [('{"city": "x\\ud83d"}', "x"), ('{"city": "\\ud83d\\ude00\\ude00"}', "\U0001f600\ufffd")],
)
def test_half_an_emoji_in_arguments(arguments: str, city: str, runner: Runner, streams: bool) -> None:
    llm = Script(said("", call("look", arguments)), said("ok"))
    done = run(runner, llm, streams=streams, tools=[look])
    assert done.results[0].content == f"You see {city}"


def look(city: str) -> str:
    """Looks at a city."""
    return f"You see {city}"


def test_invalid_parameters_are_rejected(runner: Runner) -> None:
    llm = VLLMProvider("m", base_url="http://127.0.0.1:9")
    with pytest.raises(InvalidRequestError, match="top_k"):
        runner.do(llm, "run_tools", "Weather?", tools=[get_weather], top_k="5")


def test_a_results_message_is_the_one_that_was_sent() -> None:
    result = ToolResult(ToolCall(id="c9"), "said")
    expected: ToolMessage = {"role": "tool", "tool_call_id": "c9", "content": "said"}
    assert result.message == expected
