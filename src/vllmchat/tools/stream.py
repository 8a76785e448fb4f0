"""Conversations with tools, as a stream of what happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from vllmchat.checking.secrets import hide_secrets
from vllmchat.http.wrong_use import AwaitedOnly, SyncOnly
from vllmchat.tools.flow import MAX_TURNS, Execute, Request, RunEvent
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
    from vllmchat.tools.flow import Answer, OnToolError, ToolRun


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
    params = hide_secrets(params)
    return ToolRunStream(Run(messages, model, max_turns, on_tool_error, params), provider)


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
    params = hide_secrets(params)
    return AsyncToolRunStream(Run(messages, model, max_turns, on_tool_error, params), provider)


class ToolRunStream(SyncOnly, Iterator[RunEvent]):
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

    def __init__(self, run: Run, provider: SyncProvider) -> None:
        run.check_sync()
        self._run = run
        self._provider = provider
        self._closed = False
        self._stream: SyncChunks | None = None
        self._events: Iterator[Event] | None = None

    @property
    def messages(self) -> list[Message | ChatMessage]:
        """The history so far."""
        return list(self._run.history)

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the replies and results so far, and the state."""
        growing = self._stream.completion if self._stream is not None else None
        return self._run.markdown(type(self).__name__, growing, closed=self._closed)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RunEvent:
        try:
            with self._run.keep_history():
                return self._next()
        except BaseException:
            self.close()
            raise

    def _next(self) -> RunEvent:
        while not self._closed:
            if self._run.reported:
                return self._run.reported.popleft()
            if self._events is not None:
                event = next(self._events, None)
                if event is not None:
                    return event
            self._advance()
        raise StopIteration

    def _advance(self) -> None:
        """Completes the last step and starts the next one."""
        step = self._run.advance(self._complete_step())
        if isinstance(step, Request):
            self._stream = self._provider.stream(
                step.messages, model=self._run.model, **self._run.params(step)
            )
            self._events = self._stream.events()
        self._closed = step is None

    def _complete_step(self) -> Answer:
        """Returns the result of the last step."""
        if isinstance(self._run.step, Execute):
            return call_all(self._run.step.actions)
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
        self._run.close()
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncToolRunStream(AwaitedOnly, AsyncIterator[RunEvent]):
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

    def __init__(self, run: Run, provider: AsyncProvider) -> None:
        self._run = run
        self._provider = provider
        self._closed = False
        self._stream: AsyncChunks | None = None
        self._events: AsyncIterator[Event] | None = None

    @property
    def messages(self) -> list[Message | ChatMessage]:
        """The history so far."""
        return list(self._run.history)

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the replies and results so far, and the state."""
        growing = self._stream.completion if self._stream is not None else None
        return self._run.markdown(type(self).__name__, growing, closed=self._closed)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        try:
            with self._run.keep_history():
                return await self._next()
        except BaseException:
            await self.aclose()
            raise

    async def _next(self) -> RunEvent:
        while not self._closed:
            if self._run.reported:
                return self._run.reported.popleft()
            if self._events is not None:
                event = await anext(self._events, None)
                if event is not None:
                    return event
            await self._advance()
        raise StopAsyncIteration

    async def _advance(self) -> None:
        """Completes the last step and starts the next one."""
        step = self._run.advance(await self._complete_step())
        if isinstance(step, Request):
            self._stream = self._provider.astream(
                step.messages, model=self._run.model, **self._run.params(step)
            )
            self._events = self._stream.events()
        self._closed = step is None

    async def _complete_step(self) -> Answer:
        """Returns the result of the last step."""
        if isinstance(self._run.step, Execute):
            return await acall_all(self._run.step.actions)
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
