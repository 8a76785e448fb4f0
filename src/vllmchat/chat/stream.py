"""Streams of chats: chunks, events, and the completion that they add up to."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import decode_chunk
from vllmchat.chat.events import EventBuilder
from vllmchat.http.reader import ChunkReader
from vllmchat.http.stream import AsyncEventStream, EventStream
from vllmchat.http.wrong_use import AwaitedOnly
from vllmchat.wire.decode import ChunkDecoder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from vllmchat.chat.chunk import ChatCompletionChunk
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.events import Event
    from vllmchat.chat.limits import CallLimits
    from vllmchat.http.clock import Clock
    from vllmchat.http.exchange import AsyncExchange, SyncExchange
    from vllmchat.http.reader import EventReader


def chat_reader(limits: CallLimits | None = None) -> ChunkReader[ChatCompletionChunk, ChatCompletion]:
    """Returns a reader of the events of `/v1/chat/completions`."""
    expected = limits.choices if limits is not None else 1
    return ChunkReader(ChunkDecoder(decode_chunk), Accumulator(expected=expected, limits=limits))


class ChatStream(EventStream["ChatCompletionChunk", "ChatCompletion"]):
    """Streams the chunks of a reply (sync).

    Iterate over it once; or over `events()`, for text, reasoning and tool calls as separate events. As a context
    manager it always closes, even if you leave early, and the server stops generating:

        with llm.stream("Tell me a story.") as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.completion.usage)

    Nothing is sent until you iterate over it or enter it. Use it from one thread only.

    Raises:
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before `[DONE]` or a finish reason for every choice arrived.
        ResponseError: The stream contained something other than chunks.

    Each carries what has arrived so far as `partial`.
    """

    def __init__(
        self, limits: CallLimits, open_exchange: Callable[[Callable[[Clock], None]], SyncExchange]
    ) -> None:
        super().__init__(chat_reader(limits), open_exchange)
        self._limits = limits

    @property
    def completion(self) -> ChatCompletion:
        """The reply so far, from the chunks already yielded; at the end, the same as without streaming."""
        return self._reader.reply()

    def events(self) -> Iterator[Event]:
        """Yields the stream as events: text, reasoning and tool calls in order, and `Finished` at the end."""
        maker = EventBuilder(self._limits)
        try:
            for chunk in self:
                yield from maker.feed(chunk)
            if self._reader.done:
                yield from maker.finish(self.completion)
        finally:
            # Also if the caller stops iterating.
            self.close()


class AsyncChatStream(AsyncEventStream["ChatCompletionChunk", "ChatCompletion"]):
    """Streams the chunks of a reply (async).

    Iterate over it once; or over `events()`, for text, reasoning and tool calls as separate events. As a context
    manager it always closes, even if you leave early, and the server stops generating:

        async with llm.astream("Tell me a story.") as stream:
            async for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.completion.usage)

    Nothing is sent until you iterate over it or enter it.

    Raises:
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before `[DONE]` or a finish reason for every choice arrived.
        ResponseError: The stream contained something other than chunks.

    Each carries what has arrived so far as `partial`.
    """

    def __init__(self, limits: CallLimits, open_exchange: Callable[[], Awaitable[AsyncExchange]]) -> None:
        super().__init__(chat_reader(limits), open_exchange)
        self._limits = limits

    @property
    def completion(self) -> ChatCompletion:
        """The reply so far, from the chunks already yielded; at the end, the same as without streaming."""
        return self._reader.reply()

    def events(self) -> AsyncChatEvents:
        """Yields the stream as events: text, reasoning and tool calls in order, and `Finished` at the end."""
        return AsyncChatEvents(self, self._reader, self._limits)


class AsyncChatEvents(AwaitedOnly, AsyncIterator["Event"]):
    """The events of an `AsyncChatStream`."""

    # A class rather than an async generator, which would stay open after an early exit until the event loop closes it.

    def __init__(
        self,
        stream: AsyncChatStream,
        reader: EventReader[ChatCompletionChunk, ChatCompletion],
        limits: CallLimits | None,
    ) -> None:
        self._stream = aiter(stream)
        self._reader = reader
        self._maker = EventBuilder(limits)
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
