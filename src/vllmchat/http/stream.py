"""Streams of events that a caller iterates over, blocking and awaiting.

What the bytes mean is the reader's business; what a connection does is the exchange's. The two classes below only
bring them together, and they are the same but for their colour.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from vllmchat.errors import (
    APIConnectionError,
    APIStatusError,
    ResponseError,
    StreamError,
    StreamInterruptedError,
)
from vllmchat.http.failure import TransportFailure
from vllmchat.http.sse import EventTooLargeError, ServerSentEvent, SSEDecoder
from vllmchat.http.status import error_from_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType
    from typing import Self

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.errors import VLLMChatError
    from vllmchat.http.call import Head
    from vllmchat.http.client import AsyncExchange, SyncExchange

T = TypeVar("T")


class EventReader(ABC, Generic[T]):
    """Makes items of events, knows when the end is proven, and keeps what had arrived.

    Subclasses say what an event means; the rules for ends and errors are the same for all streams.

    Attributes:
        done: Whether the last item has come.
        failure: What went wrong, to be raised after the items before it.
    """

    def __init__(self) -> None:
        self.done = False
        self.failure: VLLMChatError | None = None
        self.head: Head | None = None
        self._decoder = SSEDecoder()

    @abstractmethod
    def read_event(self, event: ServerSentEvent) -> T | None:
        """Makes an item of an event; None when it has none. Sets `done` at the last event.

        Raises:
            ResponseError: The event is not what this stream consists of.
            ErrorEvent: The event reports an error.
        """

    @abstractmethod
    def accept(self, item: T) -> None:
        """The item is being handed out: it belongs to what has arrived."""

    @abstractmethod
    def end_is_proven(self) -> bool:
        """Whether what has been handed out is the whole answer, although no last event came."""

    @abstractmethod
    def partial(self) -> ChatCompletion | None:
        """What has arrived."""

    def feed(self, data: bytes) -> list[T]:
        """Takes bytes as they come."""
        try:
            return self._items(self._decoder.feed(data))
        except EventTooLargeError as error:
            self.failure = ResponseError(str(error))
            return []

    def flush(self) -> list[T]:
        """The bytes have ended properly: takes an event without its closing blank line."""
        try:
            return self._items(self._decoder.flush())
        except EventTooLargeError as error:
            self.failure = ResponseError(str(error))
            return []

    def _items(self, events: list[ServerSentEvent]) -> list[T]:
        items: list[T] = []
        for event in events:
            try:
                item = self.read_event(event)
            except ErrorEvent as error:
                assert self.head is not None
                self.failure = error_from_event(self.head, error.body)
                break
            except ResponseError as error:
                self.failure = error
                break
            if item is not None:
                items.append(item)
            if self.done:
                break
        return items

    def interrupted(self, failure: TransportFailure | None, url: str) -> VLLMChatError:
        """The error for bytes that ended too early."""
        request_id = self.head.request_id if self.head else None
        if failure is not None and failure.limit is not None:
            return failure.error(url, request_id or "")
        cause = (
            f": {' '.join(str(failure.cause).split())}" if failure is not None and str(failure.cause) else ""
        )
        return StreamInterruptedError(
            f"the stream from {url} stopped before its end{cause}. What had arrived is in .partial; the server's log, "
            "or that of a proxy in front of it, says why",
            request_id=request_id,
        )

    def complete_error(self, error: VLLMChatError) -> VLLMChatError:
        """Adds to an error what only the stream knows."""
        if error.partial is None:
            error.partial = self.partial()
        head = self.head
        if head is not None and isinstance(
            error, ResponseError | StreamError | APIStatusError | APIConnectionError
        ):
            error.request_id = error.request_id or head.request_id
        if isinstance(error, ResponseError) and head is not None:
            error.status_code = head.status
        return error


class ErrorEvent(Exception):  # noqa: N818 - it never leaves this package
    """An event that reports an error instead of an item.

    Attributes:
        body: The event's payload.
    """

    def __init__(self, body: Mapping[str, object]) -> None:
        super().__init__()
        self.body = body


class _Core(Generic[T]):
    """What both colours keep and decide."""

    __slots__ = ("closed", "items", "opened", "reader")

    def __init__(self, reader: EventReader[T]) -> None:
        self.reader = reader
        self.items: deque[T] = deque()
        self.opened = False
        self.closed = False

    def check_unused(self) -> None:
        if self.closed:
            raise StreamError(
                "this stream has been read or closed: a stream can be iterated over once. What it brought is in "
                ".completion; for another one, make the call again",
                partial=self.reader.partial(),
            )

    def take(self) -> T:
        item = self.items.popleft()
        self.reader.accept(item)
        return item

    def at_end(self) -> VLLMChatError | None:
        """After all items have been taken: the error to raise, None for a good end or when more may come."""
        failure = self.reader.failure
        return None if failure is None else self.reader.complete_error(failure)

    def bytes_ended(self, failure: TransportFailure | None, url: str) -> None:
        """No more bytes come; decides, when all items have been taken, whether that is the end."""
        reader = self.reader
        if failure is None:
            self.items.extend(reader.flush())
            if self.items or reader.done or isinstance(reader.failure, APIStatusError):
                return
        if reader.end_is_proven():
            reader.done = True
        else:
            # Also when the last event cannot be read: it was cut off in its middle.
            reader.failure = reader.interrupted(failure, url)


class EventStream(Iterator[T]):
    """A stream that is iterated over once, blocking.

    It opens its connection when it is first iterated over or entered. Leaving it early, through the context manager
    or `close`, closes the connection at once, and the server stops working on it.
    """

    def __init__(self, reader: EventReader[T], open_exchange: Callable[[], SyncExchange]) -> None:
        self._core = _Core(reader)
        self._open_exchange = open_exchange
        self._exchange: SyncExchange | None = None

    def __iter__(self) -> Self:
        self._core.check_unused()
        return self

    def __next__(self) -> T:
        core = self._core
        while True:
            if core.items:
                return core.take()
            error = core.at_end()
            if error is not None:
                self.close()
                raise error
            if core.reader.done or core.closed:
                self._finish()
                raise StopIteration
            self._pull()

    def _pull(self) -> None:
        core = self._core
        exchange = self._open()
        try:
            data = exchange.read()
        except TransportFailure as failure:
            core.bytes_ended(failure, exchange.url)
            if core.reader.failure is not None:
                raise self._closing(core.reader.complete_error(core.reader.failure)) from failure.cause
            return
        except BaseException:
            self.close()
            raise
        if data:
            items = core.reader.feed(data)
            if items:
                exchange.clock.begin_idle()
                core.items.extend(items)
        else:
            core.bytes_ended(None, exchange.url)

    def _open(self) -> SyncExchange:
        if self._exchange is None:
            try:
                exchange = self._exchange = self._open_exchange()
            except BaseException:
                self._core.closed = True
                raise
            self._core.reader.head = exchange.head
        return self._exchange

    def _closing(self, error: VLLMChatError) -> VLLMChatError:
        self.close()
        return error

    def _finish(self) -> None:
        if not self._core.closed:
            self._core.closed = True
            if self._exchange is not None:
                self._exchange.drain()

    def close(self) -> None:
        """Ends the stream. If it had not come to its end, the connection is closed and the server stops."""
        self._core.closed = True
        if self._exchange is not None:
            self._exchange.close()

    def __enter__(self) -> Self:
        self._core.check_unused()
        self._open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_exchange", None) is not None:
            self.close()


class AsyncEventStream(AsyncIterator[T]):
    """A stream that is iterated over once, awaiting.

    It opens its connection when it is first iterated over or entered. Leaving it early, through the context manager
    or `aclose`, closes the connection at once, and the server stops working on it.
    """

    def __init__(self, reader: EventReader[T], open_exchange: Callable[[], Awaitable[AsyncExchange]]) -> None:
        self._core = _Core(reader)
        self._open_exchange = open_exchange
        self._exchange: AsyncExchange | None = None

    def __aiter__(self) -> Self:
        self._core.check_unused()
        return self

    async def __anext__(self) -> T:
        core = self._core
        while True:
            if core.items:
                return core.take()
            error = core.at_end()
            if error is not None:
                await self.aclose()
                raise error
            if core.reader.done or core.closed:
                await self._finish()
                raise StopAsyncIteration
            await self._pull()

    async def _pull(self) -> None:
        core = self._core
        exchange = await self._open()
        try:
            data = await exchange.read()
        except TransportFailure as failure:
            core.bytes_ended(failure, exchange.url)
            if core.reader.failure is not None:
                raise await self._closing(core.reader.complete_error(core.reader.failure)) from failure.cause
            return
        except BaseException:
            await self.aclose()
            raise
        if data:
            items = core.reader.feed(data)
            if items:
                exchange.clock.begin_idle()
                core.items.extend(items)
        else:
            core.bytes_ended(None, exchange.url)

    async def _open(self) -> AsyncExchange:
        if self._exchange is None:
            try:
                exchange = self._exchange = await self._open_exchange()
            except BaseException:
                self._core.closed = True
                raise
            self._core.reader.head = exchange.head
        return self._exchange

    async def _closing(self, error: VLLMChatError) -> VLLMChatError:
        await self.aclose()
        return error

    async def _finish(self) -> None:
        if not self._core.closed:
            self._core.closed = True
            if self._exchange is not None:
                await self._exchange.drain()

    async def aclose(self) -> None:
        """Ends the stream. If it had not come to its end, the connection is closed and the server stops."""
        self._core.closed = True
        if self._exchange is not None:
            await self._exchange.aclose()

    async def __aenter__(self) -> Self:
        self._core.check_unused()
        await self._open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)
        if exchange is not None:
            exchange.abort()
