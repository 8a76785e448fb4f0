"""Event streams that a caller iterates over, sync and async.

The reader knows what the bytes mean, the exchange knows the connection. The two stream classes below only connect
them, and they are identical except for `await`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from vllmchat.errors import ResponseError, StreamError
from vllmchat.http.api_errors import error_from_event
from vllmchat.http.flow import without_secrets
from vllmchat.http.reader import ErrorEvent
from vllmchat.http.transport_errors import TransportFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from vllmchat.errors import Partial, VLLMChatError
    from vllmchat.http.clock import Clock
    from vllmchat.http.exchange import AsyncExchange, SyncExchange
    from vllmchat.http.flow import Send
    from vllmchat.http.reader import EventReader
    from vllmchat.http.sse import ServerSentEvent

T = TypeVar("T")
R = TypeVar("R", bound="Partial")


class _Core(Generic[T, R]):
    """The state and the decisions that sync and async streams share.

    Attributes:
        reader: What the bytes mean.
        events: What has arrived and was not handed out yet. An item is made when it is requested: items that nobody
            keeps are then freed at once, and the garbage collector has nothing to scan.
        sent: The request.
        clock: The call's, until the first item shows that the response has begun.
        flushed: Whether what has arrived includes an unfinished event.
        closed: Whether the stream has ended, in whatever way.
        error: The error that it ended with, if any.
    """

    __slots__ = ("clock", "closed", "error", "events", "flushed", "reader", "sent")

    def __init__(self, reader: EventReader[T, R]) -> None:
        self.reader = reader
        self.events: deque[ServerSentEvent] = deque()
        self.sent: Send | None = None
        self.clock: Clock | None = None
        self.flushed = False
        self.closed = False
        self.error: VLLMChatError | None = None

    def opened(self, exchange: SyncExchange | AsyncExchange) -> None:
        """Notes that the response has begun."""
        if exchange.head is not None:
            self.reader.begin(exchange.head)
        self.sent = exchange.sent
        self.clock = exchange.clock

    def check_unused(self) -> None:
        if self.closed:
            error = StreamError(
                "this stream has already been read or closed: it can be read only once. Its result is in "
                f".{self.reader.result_attribute}; to stream again, make another call",
                request_id=self.reader.head.request_id if self.reader.head is not None else None,
            )
            self.reader.attach_partial(error)
            raise error

    @property
    def complete(self) -> bool:
        """Whether all of it has been handed out."""
        return self.closed and self.reader.done and self.error is None

    def check_error(self) -> None:
        if self.error is not None:
            raise self.error

    def take(self) -> T | None:
        """The next item of what has arrived, or None."""
        reader, events = self.reader, self.events
        while events:
            event = events.popleft()
            try:
                item = reader.read_event(event)
            except (ErrorEvent, ResponseError) as error:
                failure = error
            else:
                if reader.done:
                    # Whatever comes after the end does not count.
                    events.clear()
                    reader.failure = None
                if item is None:
                    continue
                if self.clock is not None:
                    self.clock.begin_idle()
                    self.clock = None
                reader.accept(item)
                return item
            events.clear()
            self._fail(event, failure)
        return None

    def _fail(self, event: ServerSentEvent, error: ErrorEvent | ResponseError) -> None:
        reader, sent, head = self.reader, self.sent, self.reader.head
        if sent is not None and head is not None:
            reader.head, data = without_secrets(sent, head, event.data)
            if data != event.data:
                # Read again with the secrets masked, for the error message.
                try:
                    reader.read_event(event._replace(data=data))
                except (ErrorEvent, ResponseError) as masked:
                    error = masked
        if isinstance(error, ErrorEvent):
            assert reader.head is not None
            reader.failure = error_from_event(reader.head, error.body)
        elif reader.whole or not self.flushed:
            # The last event is unfinished: its error would only mean that it was cut.
            reader.failure = error

    def close(self) -> None:
        self.closed = True
        self.events.clear()

    def failed(self) -> bool:
        """Whether an error must be raised after all items."""
        failure = self.reader.failure
        if failure is not None and self.error is None:
            self.error = self.reader.complete_error(failure)
        return failure is not None

    def bytes_came(self, data: bytes) -> None:
        """Takes bytes."""
        self.events.extend(self.reader.feed(data))

    def bytes_ended(self, failure: TransportFailure | None, url: str) -> None:
        """No more bytes will come; once all items have been taken, decides whether that is the end."""
        reader = self.reader
        if failure is None and not self.flushed:
            self.flushed = True
            self.events.extend(reader.flush())
            if self.events:
                return
        if reader.is_complete():
            reader.done, reader.failure = True, None
        else:
            reader.failure = reader.interrupted(failure, url)


class EventStream(Iterator[T], Generic[T, R]):
    """A sync stream of items that add up to a reply; can be iterated over once.

    It opens its connection when it is first iterated over or entered. Leaving it early, through the context manager
    or `close`, closes the connection at once, and the server stops generating.
    """

    def __init__(self, reader: EventReader[T, R], open_exchange: Callable[[], SyncExchange]) -> None:
        self._core = _Core(reader)
        self._reader = reader
        self._open_exchange = open_exchange
        self._exchange: SyncExchange | None = None

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the response, else the one that was sent; None before the stream is open."""
        head = self._reader.head
        return head.request_id if head is not None else None

    def until_done(self) -> R:
        """Reads the rest and returns the whole reply; works after the last item too."""
        if not self._core.complete:
            for _ in self:
                pass
        return self._reader.reply()

    def __iter__(self) -> Self:
        self._core.check_unused()
        return self

    def __next__(self) -> T:
        core = self._core
        try:
            while (item := core.take()) is None:
                if core.closed:
                    core.check_error()
                    raise StopIteration
                if core.failed():
                    self.close()
                elif core.reader.done:
                    exchange = self._open()
                    core.close()
                    exchange.drain()
                else:
                    self._pull()
        except BaseException:
            self.close()
            raise
        return item

    def _pull(self) -> None:
        core = self._core
        exchange = self._exchange or self._open()
        try:
            data = exchange.read()
        except TransportFailure as failure:
            core.bytes_ended(failure, exchange.url)
        else:
            if data:
                core.bytes_came(data)
            else:
                core.bytes_ended(None, exchange.url)

    def _open(self) -> SyncExchange:
        if self._exchange is None:
            try:
                exchange = self._exchange = self._open_exchange()
            except BaseException:
                self._core.close()
                raise
            self._core.opened(exchange)
        return self._exchange

    def close(self) -> None:
        """Ends the stream. If it was not complete, this closes the connection, and the server stops generating."""
        self._core.close()
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


class AsyncEventStream(AsyncIterator[T], Generic[T, R]):
    """An async stream of items that add up to a reply; can be iterated over once.

    It opens its connection when it is first iterated over or entered. Leaving it early, through the context manager
    or `aclose`, closes the connection at once, and the server stops generating.
    """

    def __init__(
        self, reader: EventReader[T, R], open_exchange: Callable[[], Awaitable[AsyncExchange]]
    ) -> None:
        self._core = _Core(reader)
        self._reader = reader
        self._open_exchange = open_exchange
        self._exchange: AsyncExchange | None = None

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the response, else the one that was sent; None before the stream is open."""
        head = self._reader.head
        return head.request_id if head is not None else None

    async def until_done(self) -> R:
        """Reads the rest and returns the whole reply; works after the last item too."""
        if not self._core.complete:
            async for _ in self:
                pass
        return self._reader.reply()

    def __aiter__(self) -> Self:
        self._core.check_unused()
        return self

    async def __anext__(self) -> T:
        core = self._core
        try:
            while (item := core.take()) is None:
                if core.closed:
                    core.check_error()
                    raise StopAsyncIteration
                if core.failed():
                    await self.aclose()
                elif core.reader.done:
                    exchange = await self._open()
                    core.close()
                    await exchange.drain()
                else:
                    await self._pull()
        except BaseException:
            await self.aclose()
            raise
        return item

    async def _pull(self) -> None:
        core = self._core
        exchange = self._exchange or await self._open()
        try:
            data = await exchange.read()
        except TransportFailure as failure:
            core.bytes_ended(failure, exchange.url)
        else:
            if data:
                core.bytes_came(data)
            else:
                core.bytes_ended(None, exchange.url)

    async def _open(self) -> AsyncExchange:
        if self._exchange is None:
            try:
                exchange = self._exchange = await self._open_exchange()
            except BaseException:
                self._core.close()
                raise
            self._core.opened(exchange)
        return self._exchange

    async def aclose(self) -> None:
        """Ends the stream. If it was not complete, this closes the connection, and the server stops generating."""
        self._core.close()
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
