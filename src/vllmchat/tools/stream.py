"""Conversations with tools, as a stream of what happens."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from vllmchat.tools.flow import MAX_TURNS, Execute, Report, Request, RunEvent
from vllmchat.tools.run import Run, acall_all, call_all

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from vllmchat.chat.completion import ChatMessage
    from vllmchat.chat.events import Event
    from vllmchat.chat.messages import Message, Messages
    from vllmchat.chat.params import CommonChatParams
    from vllmchat.chat.protocols import AsyncChunks, AsyncProvider, SyncChunks, SyncProvider
    from vllmchat.tools.flow import Answer, OnToolError, Step, ToolRun


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
    run = Run(messages, max_turns, on_tool_error, params)
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
    return AsyncToolRunStream(Run(messages, max_turns, on_tool_error, params), provider, model)


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

    def __init__(self, run: Run, provider: SyncProvider, model: str | None) -> None:
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
        if isinstance(step, Request):
            self._stream = self._provider.stream(step.messages, model=self._model, **self._run.params(step))
            self._events = self._stream.events()
        elif isinstance(step, Report):
            self._results.extend(step.results)
        elif step is None:
            self._closed = True

    def _came(self) -> Answer:
        """Completes the last step and returns its result."""
        if isinstance(self._step, Execute):
            return call_all(self._step.actions)
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

    def __init__(self, run: Run, provider: AsyncProvider, model: str | None) -> None:
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
        if isinstance(step, Request):
            self._stream = self._provider.astream(step.messages, model=self._model, **self._run.params(step))
            self._events = self._stream.events()
        elif isinstance(step, Report):
            self._results.extend(step.results)
        elif step is None:
            self._closed = True

    async def _came(self) -> Answer:
        """Completes the last step and returns its result."""
        if isinstance(self._step, Execute):
            return await acall_all(self._step.actions)
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
