"""Event streams that a caller iterates over, sync and async.

The reader knows what the bytes mean, the exchange knows the connection. The two stream classes below only connect
them, and they are identical except for `await`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from vllmchat.errors import ResponseError, StreamError, StreamInterruptedError, VLLMChatError
from vllmchat.http.api_errors import error_from_event, error_in_stream, no_stream, unreadable
from vllmchat.http.clock import monotonic
from vllmchat.http.excerpt import beginning, start_of
from vllmchat.http.flow import is_event_stream, masked_head
from vllmchat.http.reader import ErrorEvent, runs_together
from vllmchat.http.sse import MAX_STRAY_BYTES
from vllmchat.http.transport_errors import TransportFailure
from vllmchat.http.wrong_use import AwaitedOnly, SyncOnly
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType
    from typing import Self

    import anyio

    from vllmchat.errors import Partial
    from vllmchat.http.clock import Clock
    from vllmchat.http.exchange import AsyncExchange, SyncExchange
    from vllmchat.http.flow import Send
    from vllmchat.http.reader import EventReader
    from vllmchat.http.record import Timings
    from vllmchat.http.sse import ServerSentEvent
else:
    anyio = LazyModule("anyio")  # sync programs do not need it

T = TypeVar("T")
R = TypeVar("R", bound="Partial")


MAX_STREAM_BYTES = 256 * 1024 * 1024
"""Size limit of a whole stream, as received. Far more than any model's context, even with logprobs."""


class _Core(Generic[T, R]):
    """The state and the decisions that sync and async streams share.

    Attributes:
        reader: What the bytes mean.
        events: What has arrived and was not handed out yet. An item is made when it is requested: items that nobody
            keeps are then freed at once, and the garbage collector has nothing to scan.
        sent: The request.
        clock: The call's.
        begun: Whether an item has arrived.
        size: How many bytes have arrived.
        flushed: Whether what has arrived includes an unfinished event.
        busy: Whether it is being opened or read.
        closed: Whether the stream has ended, in whatever way.
        error: The error that it ended with, if any.
    """

    __slots__ = ("begun", "busy", "clock", "closed", "error", "events", "flushed", "reader", "sent", "size")

    def __init__(self, reader: EventReader[T, R]) -> None:
        self.reader = reader
        self.events: deque[ServerSentEvent] = deque()
        self.sent: Send | None = None
        self.clock: Clock | None = None
        self.begun = False
        self.size = 0
        self.flushed = False
        self.busy = False
        self.closed = False
        self.error: VLLMChatError | None = None

    def state(self, *, opened: bool) -> str:
        """Where the stream is, in a word or two."""
        if self.complete:
            return "complete"
        if self.closed:
            return "closed before its end"
        return "open" if opened else "not started"

    def markdown(self, name: str, *, opened: bool) -> str:
        """What has arrived, and the state, as Markdown."""
        reply = self.reader.reply()
        shown = reply._repr_markdown_()  # pyright: ignore[reportPrivateUsage] - the name is that of notebooks
        state = f"*{name}: {self.state(opened=opened)}*"
        return f"{shown}\n\n{state}" if shown else state

    def opened(self, exchange: SyncExchange | AsyncExchange) -> None:
        """Notes that the response has begun."""
        self.sent = exchange.sent
        self.clock = exchange.clock
        if exchange.opened is not None:
            self.reader.begin(exchange.opened)
            self.bytes_came(exchange.opened.early)

    def check_unused(self) -> None:
        if self.closed:
            raise self._misused(
                "this stream has already been read or closed: it can be read only once. Its result is in "
                f".{self.reader.result_attribute}; to stream again, make another call"
            )

    def begin_reading(self) -> None:
        if self.busy:
            raise self._misused(
                "this stream is being read by another task or thread: only one can read it. Let that one pass on what "
                "it reads"
            )
        self.busy = True

    def _misused(self, message: str) -> StreamError:
        error = StreamError(message, request_id=self.reader.request_id)
        self.reader.attach_partial(error)
        return error

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
                item = reader.repeat(event.data)
                if item is not None:
                    if self.clock is not None:
                        self.clock.idle_end = None
                    return item
                item = reader.read_event(event)
                if item is not None:
                    reader.accept(item)
            except Exception as error:
                failure = error
            except BaseException as error:
                # A signal: the event is lost.
                self.interrupted(error)
                self.close()
                raise
            else:
                if reader.done:
                    # Whatever comes after the end does not count.
                    events.clear()
                    reader.failure = None
                if item is None:
                    if reader.failure is not None:
                        events.clear()
                        reader.failure = self._reported(self._stray()) or reader.failure
                    continue
                clock = self.clock
                if clock is not None:
                    if not self.begun:
                        self.begun = True
                        clock.begin_idle()
                        if clock.record is not None:
                            clock.record.first = monotonic()
                    # A chunk without a choice may only keep the connection alive.
                    if clock.idle_end is not None and getattr(item, "choices", True):
                        clock.idle_end = None
                return item
            events.clear()
            self._fail(event, failure)
        return None

    def _fail(self, event: ServerSentEvent, error: Exception) -> None:
        reader, sent, head = self.reader, self.sent, self.reader.head
        if sent is not None and head is not None:
            reader.head = masked_head(sent, head)
            data = sent.mask.data(event.data)
            if data != event.data:
                # Read again with the secrets masked: an error quotes the event, and an excerpt could cut a secret.
                try:
                    reader.read_event(event._replace(data=data))
                except Exception as masked:
                    error = masked
        if runs_together(event.data) and isinstance(error, ResponseError):
            reader.failure = ResponseError(
                "the events of the stream run together: the server must end each with an empty line, and sends only a "
                f"line feed; {beginning(start_of(event.data))}",
                body=start_of(event.data),
            )
        elif isinstance(error, ErrorEvent):
            assert reader.head is not None
            reader.failure = error_from_event(reader.head, error.body)
        elif reader.whole or not self.flushed:
            # The last event is unfinished: its error would only mean that it was cut.
            reader.failure = error if isinstance(error, VLLMChatError) else unreadable(error, reader.head)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.events.clear()
        if self.clock is not None:
            self.note_end(self.clock)

    def note_end(self, clock: Clock) -> None:
        """Notes that the call has ended, for those who observe it."""
        record = clock.record
        if record is not None:
            record.note_end()
            if record.observed is not None:
                complete = self.error is None and self.reader.done
                record.observed.end(self.error, self.reader.reply(), complete=complete)

    def failed(self) -> bool:
        """Whether an error must be raised after all items."""
        failure = self.reader.failure
        if failure is not None and self.error is None:
            self.error = self.reader.complete_error(failure)
        return failure is not None

    def interrupted(self, error: BaseException) -> None:
        """A read ended otherwise than by the server: what has arrived must not look like the whole reply later."""
        if self.closed or self.error is not None:
            return
        if isinstance(error, VLLMChatError):
            self.error = error
            return
        self.error = StreamInterruptedError(
            f"the stream was interrupted by {type(error).__name__} from outside, and is closed. To limit a wait, use "
            "timeout=Timeout(idle=...), or asyncio.wait() with a task that goes on",
            request_id=self.reader.request_id,
        )
        self.reader.attach_partial(self.error)

    def bytes_came(self, data: bytes) -> None:
        """Takes bytes."""
        self.size += len(data)
        if self.size > MAX_STREAM_BYTES:
            self.reader.failure = ResponseError(f"the stream has more than {MAX_STREAM_BYTES:,} bytes")
            return
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
        elif failure is None and not self.size and (head := reader.head) and not is_event_stream(head):
            reader.failure = no_stream(head, b"")
        else:
            cut = [event.data for event in reader.flush()]
            stray = self._stray()
            reported = (
                None if failure is not None and failure.limit is not None else self._reported(stray + cut)
            )
            reader.failure = reported or reader.interrupted(failure, url, b"\n".join(stray))

    def _stray(self) -> list[bytes]:
        """The lines that are not part of an event, without secrets."""
        stray, sent = self.reader.stray_lines(), self.sent
        if sent is None:
            return stray
        return [sent.mask.data(line, cut=len(line) >= MAX_STRAY_BYTES) for line in stray]

    def _reported(self, lines: list[bytes]) -> VLLMChatError | None:
        """The error that the server reports outside the events, if any: then it is why the stream ended."""
        head, sent = self.reader.head, self.sent
        if not lines or head is None or sent is None:
            return None
        head = masked_head(sent, head)
        texts = (b"\n".join(lines), *reversed(lines))
        errors = (error_in_stream(head, sent.mask.data(text)) for text in texts)
        return next((error for error in errors if error is not None), None)


class EventStream(SyncOnly, Iterator[T], Generic[T, R]):
    """A sync stream of items that add up to a reply; can be iterated over once.

    It opens its connection when it is first iterated over or entered. Leaving it early, through the context manager
    or `close`, closes the connection at once, and the server stops generating.
    """

    def __init__(
        self, reader: EventReader[T, R], open_exchange: Callable[[Callable[[Clock], None]], SyncExchange]
    ) -> None:
        self._core = _Core(reader)
        self._reader = reader
        self._open_exchange = open_exchange
        self._exchange: SyncExchange | None = None
        self._opening: Clock | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._core.state(opened=self._exchange is not None)}>"

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the reply so far, and the state."""
        return self._core.markdown(type(self).__name__, opened=self._exchange is not None)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the response, else the one that was sent; None before the stream is open."""
        return self._reader.request_id

    @property
    def timings(self) -> Timings:
        """How long the call has taken so far; `total` is known at the end."""
        return self._reader.reply().timings

    @property
    def attempts(self) -> int:
        """How many requests were sent; more than 1 after retries, and 0 before the stream is open."""
        return self._reader.reply().attempts

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response, names in lower case; empty before the stream is open."""
        return self._reader.reply().headers

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
        item = core.take()
        while item is None:
            if core.closed:
                core.check_error()
                raise StopIteration
            core.begin_reading()
            try:
                exchange = self._exchange or self._open()
                if exchange is None:
                    pass  # closed meanwhile
                elif core.failed():
                    self._end()
                elif core.reader.done:
                    core.close()
                    exchange.drain()
                elif not core.events:
                    self._pull(exchange)
                item = core.take()
            except BaseException as error:
                core.interrupted(error)
                self._end()
                raise
            finally:
                core.busy = False
        return item

    def _pull(self, exchange: SyncExchange) -> None:
        core = self._core
        failure: TransportFailure | None = None
        data = b""
        try:
            data = exchange.read()
        except TransportFailure as error:
            failure = error
        if core.closed:
            # By another thread.
            self._end()
        elif data:
            core.bytes_came(data)
        else:
            core.bytes_ended(failure, exchange.url)

    def _open(self) -> SyncExchange | None:
        """Opens the stream; None if another thread closed it meanwhile."""
        try:
            exchange = self._exchange = self._open_exchange(self._begin_opening)
        except Exception:
            if self._core.closed:
                return None
            raise
        finally:
            self._opening = None
        if self._core.closed:
            exchange.close()
            self._core.note_end(exchange.clock)
            return None
        self._core.opened(exchange)
        return exchange

    def _begin_opening(self, clock: Clock) -> None:
        self._opening = clock
        if self._core.closed:
            clock.interrupt()

    def close(self) -> None:
        """Ends the stream. If it was not complete, this closes the connection, and the server stops generating.

        May be called while another thread or task reads it; that read then ends at once.
        """
        self._core.close()
        opening = self._opening
        if opening is not None:
            opening.interrupt()
        elif self._core.busy and self._exchange is not None:
            self._exchange.interrupt()
        else:
            self._end()

    def _end(self) -> None:
        self._core.close()
        if self._exchange is not None:
            self._exchange.close()

    def __enter__(self) -> Self:
        self._core.check_unused()
        if self._exchange is None:
            self._core.begin_reading()
            try:
                self._open()
            except BaseException:
                self._core.close()
                raise
            finally:
                self._core.busy = False
            self._core.check_unused()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_exchange", None) is not None:
            self.close()


class AsyncEventStream(AwaitedOnly, AsyncIterator[T], Generic[T, R]):
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
        self._opening: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._core.state(opened=self._exchange is not None)}>"

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the reply so far, and the state."""
        return self._core.markdown(type(self).__name__, opened=self._exchange is not None)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the response, else the one that was sent; None before the stream is open."""
        return self._reader.request_id

    @property
    def timings(self) -> Timings:
        """How long the call has taken so far; `total` is known at the end."""
        return self._reader.reply().timings

    @property
    def attempts(self) -> int:
        """How many requests were sent; more than 1 after retries, and 0 before the stream is open."""
        return self._reader.reply().attempts

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response, names in lower case; empty before the stream is open."""
        return self._reader.reply().headers

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
        item = core.take()
        while item is None:
            if core.closed:
                core.check_error()
                raise StopAsyncIteration
            core.begin_reading()
            try:
                exchange = self._exchange or await self._open()
                if exchange is None:
                    pass  # closed meanwhile
                elif core.failed():
                    await self._end()
                elif core.reader.done:
                    core.close()
                    await exchange.drain()
                elif not core.events:
                    await self._pull(exchange)
                item = core.take()
            except BaseException as error:
                core.interrupted(error)
                await self._end(error)
                raise
            finally:
                core.busy = False
        return item

    async def _pull(self, exchange: AsyncExchange) -> None:
        core = self._core
        failure: TransportFailure | None = None
        data = b""
        try:
            data = await exchange.read()
        except TransportFailure as error:
            failure = error
        if core.closed:
            # By another task.
            await self._end()
        elif data:
            core.bytes_came(data)
        else:
            core.bytes_ended(failure, exchange.url)

    async def _open(self) -> AsyncExchange | None:
        """Opens the stream; None if another task closed it meanwhile."""
        with anyio.CancelScope() as scope:
            self._opening = scope
            try:
                exchange = self._exchange = await self._open_exchange()
                if not self._core.closed:
                    self._core.opened(exchange)
                    return exchange
                # The response began at the same time, so that nothing was left to cancel.
                await exchange.aclose()
                self._core.note_end(exchange.clock)
            finally:
                self._opening = None
        return None

    async def aclose(self) -> None:
        """Ends the stream. If it was not complete, this closes the connection, and the server stops generating.

        May be called while another thread or task reads it; that read then ends at once.
        """
        if self._opening is not None:
            self._opening.cancel()
        await self._end()

    async def _end(self, error: BaseException | None = None) -> None:
        self._core.close()
        if self._exchange is None:
            return
        if isinstance(error, GeneratorExit):
            # The coroutine is being closed: it cannot wait for anything any more.
            self._exchange.abort()
        else:
            await self._exchange.aclose()

    async def __aenter__(self) -> Self:
        self._core.check_unused()
        if self._exchange is None:
            self._core.begin_reading()
            try:
                await self._open()
            except BaseException:
                self._core.close()
                raise
            finally:
                self._core.busy = False
            self._core.check_unused()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)
        if exchange is not None:
            self._core.close()
            exchange.abort()
