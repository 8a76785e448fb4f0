"""Tool runs on any provider: sync, async and streaming drivers of `vllmchat.chat.run_tools`."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, cast

import anyio
import anyio.to_thread

from vllmchat.chat.run_tools import (
    MAX_TURNS,
    Ask,
    Execute,
    Outcome,
    RunEvent,
    Tell,
    Toolbox,
    check_run,
    first,
    history_of,
    later,
    run_flow,
)
from vllmchat.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from vllmchat.chat.completion import ChatMessage
    from vllmchat.chat.events import Event
    from vllmchat.chat.messages import Message, Messages
    from vllmchat.chat.params import CommonChatParams
    from vllmchat.chat.protocols import AsyncChunks, AsyncProvider, SyncChunks, SyncProvider
    from vllmchat.chat.run_tools import Action, Answer, OnToolError, RunFlow, Step, ToolRun


def run_tools(
    provider: SyncProvider,
    messages: Messages,
    *,
    model: str | None = None,
    max_turns: int = MAX_TURNS,
    on_tool_error: OnToolError | None = None,
    **params: Unpack[CommonChatParams],
) -> ToolRun:
    """Sends a conversation and calls the functions that the model requests, until it replies without a call.

    Errors in calls are sent to the model, which usually tries again: a function that raises, invalid arguments, an
    unknown tool, a truncated call. A truncated call is never executed. A `tool_choice` other than `"none"` applies
    only to the first reply.

    Args:
        provider: Any provider.
        messages: The conversation so far; a string is one user message. If it ends with tool calls, they are executed
            first.
        model: The model for all replies.
        max_turns: Maximum number of replies.
        on_tool_error: Called with the call and the exception if a function raises. Text that it returns is sent to the
            model instead of the error; an exception that it raises ends the run.
        **params: Those of `chat`, for each reply. `tools` are the functions; see `Tool`.

    Raises:
        InvalidRequestError: A tool is not a function, a function is async, or a parameter is invalid.
        MaxTurnsError: After `max_turns` replies, the model still calls tools. The error has the history.
        VLLMChatError: A reply failed; see `VLLMProvider.chat`.
    """
    run = _Run(messages, max_turns, on_tool_error, params)
    run.tools.check_blocking(on_tool_error)
    step = run.begin()
    while step is not None:
        if isinstance(step, Ask):
            step = run.go_on(provider.chat(step.messages, model=model, **run.params(step)))
        else:
            step = run.go_on(_call_all(step.actions) if isinstance(step, Execute) else None)
    return run.result


async def arun_tools(
    provider: AsyncProvider,
    messages: Messages,
    *,
    model: str | None = None,
    max_turns: int = MAX_TURNS,
    on_tool_error: OnToolError | None = None,
    **params: Unpack[CommonChatParams],
) -> ToolRun:
    """Async version of `run_tools`.

    The calls of one reply run concurrently: async functions on the event loop, sync functions in worker threads.
    Cancelling the run cancels async functions and waits for functions in threads.
    """
    run = _Run(messages, max_turns, on_tool_error, params)
    step = run.begin()
    while step is not None:
        if isinstance(step, Ask):
            step = run.go_on(await provider.achat(step.messages, model=model, **run.params(step)))
        else:
            step = run.go_on(await _acall_all(step.actions) if isinstance(step, Execute) else None)
    return run.result


def stream_run_tools(
    provider: SyncProvider,
    messages: Messages,
    *,
    model: str | None = None,
    max_turns: int = MAX_TURNS,
    on_tool_error: OnToolError | None = None,
    **params: Unpack[CommonChatParams],
) -> ToolRunStream:
    """Like `run_tools`, but streams the events of the replies and the results of the tools.

    Nothing is sent until you iterate over the stream.

    Raises:
        InvalidRequestError: A tool is not a function, or a function is async. Other errors are raised by the stream.
    """
    run = _Run(messages, max_turns, on_tool_error, params)
    run.tools.check_blocking(on_tool_error)
    return ToolRunStream(run, provider, model)


def astream_run_tools(
    provider: AsyncProvider,
    messages: Messages,
    *,
    model: str | None = None,
    max_turns: int = MAX_TURNS,
    on_tool_error: OnToolError | None = None,
    **params: Unpack[CommonChatParams],
) -> AsyncToolRunStream:
    """Async version of `stream_run_tools`. See `arun_tools` for how functions are called."""
    return AsyncToolRunStream(_Run(messages, max_turns, on_tool_error, params), provider, model)


class _Run:
    """Drives a flow.

    Attributes:
        history: The conversation so far.
        tools: The functions.
    """

    def __init__(
        self,
        messages: Messages,
        max_turns: int,
        on_tool_error: OnToolError | None,
        params: CommonChatParams,
    ) -> None:
        check_run(max_turns, params)
        self.tools = Toolbox(params.get("tools"))
        self.history: list[Message | ChatMessage] = history_of(messages)
        sent = {**params, "tools": self.tools.definitions}
        self._first = cast("CommonChatParams", first(sent))
        self._later = cast("CommonChatParams", later(sent))
        self._flow: RunFlow = run_flow(
            self.history, self.tools, max_turns=max_turns, on_tool_error=on_tool_error
        )
        self._result: ToolRun | None = None

    def begin(self) -> Step | None:
        """Starts the flow and returns the first step."""
        return next(self._flow)

    def go_on(self, answer: Answer) -> Step | None:
        """Sends the result of the last step and returns the next step, or None at the end."""
        try:
            return self._flow.send(answer)
        except StopIteration as stop:
            self._result = stop.value
            return None

    def params(self, step: Ask) -> CommonChatParams:
        """Returns the parameters of a request."""
        return self._first if step.first else self._later

    def close(self) -> None:
        """Ends the flow."""
        self._flow.close()

    @property
    def result(self) -> ToolRun:
        """The result of the run.

        Raises:
            StreamError: The run has not ended with a reply.
        """
        if self._result is None:
            raise StreamError("this run was closed or failed before it was complete")
        return self._result


class ToolRunStream(Iterator[RunEvent]):
    """Streams a tool run (sync).

    Iterate over it once. It yields the events of each reply, which end with `Finished`, and a `ToolResult` for each
    tool call. As a context manager it always closes, even if you leave early, and the server stops generating:

        with llm.stream_run_tools("What is the weather in Paris?", tools=[get_weather]) as run:
            for event in run:
                if isinstance(event, TextDelta):
                    print(event.text, end="")
        print(run.until_done().usage)

    Raises:
        MaxTurnsError: After `max_turns` replies, the model still calls tools.
        VLLMChatError: A reply failed; see `ChatStream`.
    """

    def __init__(self, run: _Run, provider: SyncProvider, model: str | None) -> None:
        self._run = run
        self._provider = provider
        self._model = model
        self._step: Step | None = None
        self._begun = self._closed = False
        self._stream: SyncChunks | None = None
        self._events: Iterator[Event] | None = None
        self._results: deque[RunEvent] = deque()

    @property
    def messages(self) -> list[Message | ChatMessage]:
        """The history so far."""
        return list(self._run.history)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RunEvent:
        try:
            return self._next()
        except BaseException:
            self.close()
            raise

    def _next(self) -> RunEvent:
        while not self._closed:
            if self._results:
                return self._results.popleft()
            if self._events is not None:
                event = next(self._events, None)
                if event is not None:
                    return event
            self._go_on()
        raise StopIteration

    def _go_on(self) -> None:
        """Starts the next step."""
        if not self._begun:
            self._begun = True
            self._step = self._run.begin()
        else:
            self._step = self._run.go_on(self._came())
        step = self._step
        if isinstance(step, Ask):
            self._stream = self._provider.stream(step.messages, model=self._model, **self._run.params(step))
            self._events = self._stream.events()
        elif isinstance(step, Tell):
            self._results.extend(step.results)
        elif step is None:
            self._closed = True

    def _came(self) -> Answer:
        """Completes the last step and returns its result."""
        if isinstance(self._step, Execute):
            return _call_all(self._step.actions)
        stream, self._stream, self._events = self._stream, None, None
        if stream is None:
            return None
        stream.close()
        return stream.completion

    def until_done(self) -> ToolRun:
        """Reads the rest of the stream and returns the result of the run.

        Raises:
            StreamError: The run was closed before it was complete.
        """
        for _ in self:
            pass
        return self._run.result

    def close(self) -> None:
        """Ends the run. The server stops generating, and no more tools are called."""
        self._closed = True
        self._results.clear()
        self._run.close()
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncToolRunStream(AsyncIterator[RunEvent]):
    """Streams a tool run (async).

    Iterate over it once. It yields the events of each reply, which end with `Finished`, and a `ToolResult` for each
    tool call. As a context manager it always closes, even if you leave early, and the server stops generating:

        async with llm.astream_run_tools("What is the weather in Paris?", tools=[get_weather]) as run:
            async for event in run:
                if isinstance(event, TextDelta):
                    print(event.text, end="")
        print((await run.until_done()).usage)

    Raises:
        MaxTurnsError: After `max_turns` replies, the model still calls tools.
        VLLMChatError: A reply failed; see `ChatStream`.
    """

    def __init__(self, run: _Run, provider: AsyncProvider, model: str | None) -> None:
        self._run = run
        self._provider = provider
        self._model = model
        self._step: Step | None = None
        self._begun = self._closed = False
        self._stream: AsyncChunks | None = None
        self._events: AsyncIterator[Event] | None = None
        self._results: deque[RunEvent] = deque()

    @property
    def messages(self) -> list[Message | ChatMessage]:
        """The history so far."""
        return list(self._run.history)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        try:
            return await self._next()
        except BaseException:
            await self.aclose()
            raise

    async def _next(self) -> RunEvent:
        while not self._closed:
            if self._results:
                return self._results.popleft()
            if self._events is not None:
                event = await anext(self._events, None)
                if event is not None:
                    return event
            await self._go_on()
        raise StopAsyncIteration

    async def _go_on(self) -> None:
        """Starts the next step."""
        if not self._begun:
            self._begun = True
            self._step = self._run.begin()
        else:
            self._step = self._run.go_on(await self._came())
        step = self._step
        if isinstance(step, Ask):
            self._stream = self._provider.astream(step.messages, model=self._model, **self._run.params(step))
            self._events = self._stream.events()
        elif isinstance(step, Tell):
            self._results.extend(step.results)
        elif step is None:
            self._closed = True

    async def _came(self) -> Answer:
        """Completes the last step and returns its result."""
        if isinstance(self._step, Execute):
            return await _acall_all(self._step.actions)
        stream, self._stream, self._events = self._stream, None, None
        if stream is None:
            return None
        await stream.aclose()
        return stream.completion

    async def until_done(self) -> ToolRun:
        """Reads the rest of the stream and returns the result of the run.

        Raises:
            StreamError: The run was closed before it was complete.
        """
        async for _ in self:
            pass
        return self._run.result

    async def aclose(self) -> None:
        """Ends the run. The server stops generating, and no more tools are called."""
        self._closed = True
        self._results.clear()
        self._run.close()
        leave = getattr(self._events, "aclose", None)
        if leave is not None:  # async generators would otherwise stay open
            await leave()
        if self._stream is not None:
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


# Calling functions


def _call_all(actions: Sequence[Action]) -> list[Outcome]:
    return [_call(action) for action in actions]


def _call(action: Action) -> Outcome:
    try:
        value = action.run()
    except Exception as error:  # any error is sent to the model
        return Outcome(error=error)
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError(
            "a tool or on_tool_error returned an awaitable, which a sync run cannot await; call arun_tools"
        )
    return Outcome(value)


async def _acall_all(actions: Sequence[Action]) -> list[Outcome]:
    if len(actions) == 1:
        return [await _acall(actions[0])]
    outcomes: dict[int, Outcome] = {}

    async def call(place: int, action: Action) -> None:
        outcomes[place] = await _acall(action)

    async with anyio.create_task_group() as group:
        for place, action in enumerate(actions):
            group.start_soon(call, place, action)
    return [outcomes[place] for place in range(len(actions))]


async def _acall(action: Action) -> Outcome:
    try:
        if action.is_async:
            value = action.run()
        else:
            # A sync function may block, so it must not run on the event loop. Its result is wrapped in a tuple,
            # because trio raises if a thread returns a coroutine.
            (value,) = await anyio.to_thread.run_sync(lambda: (action.run(),))
        return Outcome(await cast("Awaitable[object]", value) if inspect.isawaitable(value) else value)
    except Exception as error:  # any error is sent to the model
        return Outcome(error=error)
