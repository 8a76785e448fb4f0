"""The stream of a chat: chunks, events, and the completion that they add up to."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import ChatCompletionChunk, decode_event
from vllmchat.chat.events import EventMaker
from vllmchat.http.stream import AsyncEventStream, ErrorEvent, EventReader, EventStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.events import Event
    from vllmchat.errors import VLLMChatError
    from vllmchat.http.client import AsyncExchange, SyncExchange
    from vllmchat.http.sse import ServerSentEvent


class ChatReader(EventReader[ChatCompletionChunk]):
    """Reads the events of `/v1/chat/completions`."""

    def __init__(self, choices: int = 1) -> None:
        super().__init__()
        self.accumulator = Accumulator(expected=choices)
        self._started = False

    def read_event(self, event: ServerSentEvent) -> ChatCompletionChunk | None:
        """Makes a chunk of an event."""
        data = event.data
        if data.startswith(b"[DONE]"):
            self.done = True
            return None
        if not data.strip():
            # Some proxies keep a connection alive with empty events.
            return None
        chunk = decode_event(data)
        if isinstance(chunk, dict):
            raise ErrorEvent(chunk)
        return chunk

    def accept(self, item: ChatCompletionChunk) -> None:
        """Adds the chunk to the completion."""
        self._started = True
        self.accumulator.add(item)

    def end_is_proven(self) -> bool:
        """Whether every choice has its finish reason."""
        return self.accumulator.finished

    def keep(self, error: VLLMChatError) -> None:
        """Gives the completion so far to an error, if anything came."""
        if self._started:
            error.partial = self.completion()

    def completion(self) -> ChatCompletion:
        """The completion so far, also an empty one."""
        if self.head is not None:
            self.accumulator.request_id = self.head.request_id
        return self.accumulator.completion()


class ChatStream(EventStream[ChatCompletionChunk]):
    """The chunks of one reply as they come, blocking.

    Iterate over it, once; or over `events()`, for text and tool calls sorted out. Used as a context manager it is
    closed in the end, also when you leave early, and the server stops generating:

        with llm.stream("Tell me a story.") as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.completion.usage)

    Nothing is sent before it is iterated over or entered. It belongs to one thread.

    Raises:
        APIStatusError: The server answered with an error, at first or inside the stream.
        APIConnectionError: No answer came, or a limit of `Timeout` passed.
        StreamInterruptedError: The bytes stopped before the end was proven, by `[DONE]` or by a finish reason for
            every choice.
        ResponseError: Something else than chunks came.

    All of them carry what had arrived as `partial`.
    """

    def __init__(self, reader: ChatReader, open_exchange: Callable[[], SyncExchange]) -> None:
        super().__init__(reader, open_exchange)
        self._reader = reader

    @property
    def completion(self) -> ChatCompletion:
        """The whole reply as far as it has been handed out; at the end what it would be without streaming."""
        return self._reader.completion()

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer, else the one that was sent; None before the stream is open."""
        head = self._reader.head
        return head.request_id if head is not None else None

    def until_done(self) -> ChatCompletion:
        """Reads the rest and gives the whole reply."""
        for _ in self:
            pass
        return self.completion

    def events(self) -> Iterator[Event]:
        """The stream as events: text, reasoning and tool calls in order, and `Finished` at the end."""
        maker = EventMaker()
        try:
            for chunk in self:
                yield from maker.feed(chunk)
            if self._reader.done:
                yield from maker.finish(self.completion)
        finally:
            # Also when whoever asked for events has left.
            self.close()


class AsyncChatStream(AsyncEventStream[ChatCompletionChunk]):
    """The chunks of one reply as they come, awaiting.

    Iterate over it, once; or over `events()`, for text and tool calls sorted out. Used as a context manager it is
    closed in the end, also when you leave early, and the server stops generating:

        async with llm.astream("Tell me a story.") as stream:
            async for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.completion.usage)

    Nothing is sent before it is iterated over or entered.

    Raises:
        APIStatusError: The server answered with an error, at first or inside the stream.
        APIConnectionError: No answer came, or a limit of `Timeout` passed.
        StreamInterruptedError: The bytes stopped before the end was proven, by `[DONE]` or by a finish reason for
            every choice.
        ResponseError: Something else than chunks came.

    All of them carry what had arrived as `partial`.
    """

    def __init__(self, reader: ChatReader, open_exchange: Callable[[], Awaitable[AsyncExchange]]) -> None:
        super().__init__(reader, open_exchange)
        self._reader = reader

    @property
    def completion(self) -> ChatCompletion:
        """The whole reply as far as it has been handed out; at the end what it would be without streaming."""
        return self._reader.completion()

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer, else the one that was sent; None before the stream is open."""
        head = self._reader.head
        return head.request_id if head is not None else None

    async def until_done(self) -> ChatCompletion:
        """Reads the rest and gives the whole reply."""
        async for _ in self:
            pass
        return self.completion

    def events(self) -> AsyncChatEvents:
        """The stream as events: text, reasoning and tool calls in order, and `Finished` at the end."""
        return AsyncChatEvents(self, self._reader)


class AsyncChatEvents(AsyncIterator["Event"]):
    """The events of an `AsyncChatStream`."""

    # A class and not an asynchronous generator: one that is left early lives on until the event loop ends it.

    def __init__(self, stream: AsyncChatStream, reader: ChatReader) -> None:
        self._stream = aiter(stream)
        self._reader = reader
        self._maker = EventMaker()
        self._events: deque[Event] = deque()
        self._finished = False

    def __aiter__(self) -> AsyncChatEvents:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._finished:
                raise StopAsyncIteration
            try:
                chunk = await anext(self._stream)
            except StopAsyncIteration:
                self._finished = True
                if self._reader.done:
                    self._events.extend(self._maker.finish(self._stream.completion))
            else:
                self._events.extend(self._maker.feed(chunk))
        return self._events.popleft()

    async def aclose(self) -> None:
        """Closes the stream."""
        await self._stream.aclose()
