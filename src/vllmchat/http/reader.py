"""What the events of a stream mean, and what they add up to."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from vllmchat.errors import ResponseError, StreamInterruptedError
from vllmchat.http.density import DENSE_FROM, check_density
from vllmchat.http.excerpt import excerpt, start_of
from vllmchat.http.sse import EventTooLargeError, ServerSentEvent, SSEDecoder, WholeBody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sized

    from vllmchat.errors import Partial, VLLMChatError
    from vllmchat.http.call import ResponseHead
    from vllmchat.http.flow import Opened
    from vllmchat.http.transport_errors import TransportFailure


_END = re.compile(rb"""(?:[\s"']*\[done\][\s"']*)+""", re.IGNORECASE)

T = TypeVar("T")
R = TypeVar("R", bound="Partial")
T_contra = TypeVar("T_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True, bound="Partial")


class ReplyAccumulator(Protocol[T_contra, R_co]):
    """Adds up the items of a stream."""

    def add(self, item: T_contra, /) -> None:
        """Adds the next item."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the items so far are a complete reply."""
        ...

    def shortfall(self) -> str | None:
        """What the items so far lack, although the server has marked the end; None if they are a complete reply."""
        ...

    def reply(self, *, head: ResponseHead | None, ended: bool) -> R_co:
        """Returns the reply so far, even if it is empty. Later items do not change it.

        Args:
            head: The head of the response; None before the stream is open.
            ended: Whether the last item has arrived.
        """
        ...


def marks_end(data: bytes) -> bool:
    """Whether the data of an event is `[DONE]`, in any spelling: with spaces, in quotes, or in lower case."""
    return data[:1] != b"{" and _END.fullmatch(data) is not None


def runs_together(data: bytes) -> bool:
    """Whether the data of an event is that of several: each line of it is an object by itself, or the end."""
    lines = data.split(b"\n")
    return len(lines) > 1 and all(
        (line[:1] == b"{" and line.rstrip()[-1:] == b"}") or marks_end(line) for line in lines
    )


def _never(data: bytes) -> None:
    return None


class EventReader(ABC, Generic[T, R]):
    """Turns events into items, knows when the end is proven, and keeps what has arrived.

    Subclasses say what an event means; the rules for ends and errors are the same for all streams.

    Args:
        accumulator: Adds up the items.
        result_attribute: The attribute of the stream that holds what has arrived.

    Attributes:
        done: Whether the last item has arrived.
        failure: What went wrong, to be raised after the items before it.
        whole: Whether the response is not streamed: then its one event is complete when the bytes end.
        head: The head of the response; None before it has arrived.
        repeat: Turns the data of an event into an item that differs from those before in its text only, and accepts it;
            None for any other event. Common events cost little this way; `read_event` reads them too.
    """

    def __init__(self, accumulator: ReplyAccumulator[T, R], result_attribute: str = "completion") -> None:
        self.result_attribute = result_attribute
        self.done = False
        self.whole = False
        self.failure: VLLMChatError | None = None
        self.head: ResponseHead | None = None
        self.repeat: Callable[[bytes], T | None] = _never
        self._events: SSEDecoder | WholeBody = SSEDecoder()
        self._accumulator = accumulator
        self._started = False
        self._is_empty = True

    @abstractmethod
    def read_event(self, event: ServerSentEvent) -> T | None:
        """Turns an event into an item; None if it has none. Sets `done` at the last event.

        Raises:
            ResponseError: The event does not belong in this stream.
            ErrorEvent: The event reports an error.
        """

    def begin(self, opened: Opened) -> None:
        """Notes the head of the response."""
        self.head = opened.head
        if opened.whole:
            self.whole = True
            self._events = WholeBody()

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the response, else the one that was sent; None before the stream is open."""
        return self.head.request_id if self.head is not None else None

    def accept(self, item: T) -> None:
        """Notes that the item is handed out: from now on it is part of what has arrived."""
        self._started = True
        self._accumulator.add(item)

    def is_complete(self) -> bool:
        """Whether what has been handed out is the complete response although no last event arrived."""
        return self._accumulator.finished

    def reply(self) -> R:
        """The reply so far; it may be empty."""
        return self._accumulator.reply(head=self.head, ended=self.done)

    def attach_partial(self, error: VLLMChatError) -> None:
        """Attaches the reply so far to an error as its `partial`, if anything arrived."""
        if self._started:
            error.partial = self.reply()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Takes bytes as they arrive; returns the events that they complete."""
        self._is_empty = self._is_empty and not data
        try:
            return self._events.feed(data)
        except EventTooLargeError as error:
            self.failure = ResponseError(str(error))
            return error.before

    def flush(self) -> list[ServerSentEvent]:
        """The bytes have ended properly: returns an event without its closing blank line, if there is one."""
        try:
            return self._events.flush()
        except EventTooLargeError as error:
            return error.before

    def stray_lines(self) -> list[bytes]:
        """The lines so far that are not part of an event."""
        return self._events.stray_lines()

    def interrupted(self, failure: TransportFailure | None, url: str, stray: bytes = b"") -> VLLMChatError:
        """The error for bytes that ended too early.

        Args:
            failure: How they ended; None for a proper end.
            url: Where they came from.
            stray: The lines that are not part of an event.
        """
        request_id = self.head.request_id if self.head is not None else ""
        if failure is not None and failure.limit is not None:
            error: VLLMChatError = failure.error(url, request_id)
        elif failure is None and (self._is_empty or (stray and not self._started)):
            text = start_of(stray)
            what = f"starts with: {excerpt(text)}" if text else "is empty"
            error = ResponseError(
                f"expected a stream, but the response {what}. Check base_url, and that the server supports streaming",
                body=text,
            )
        else:
            cause = f": {' '.join(str(failure.cause).split())}" if failure is not None else ""
            if stray:
                cause += f", after a line that is not an event: {excerpt(start_of(stray.splitlines()[-1]))}"
            error = StreamInterruptedError(
                f"the stream from {url} ended too early{cause}. What arrived is in .partial; the server's "
                "log, or the log of a proxy in front of it, says why",
                request_id=request_id,
            )
        error.__cause__ = failure.cause if failure is not None else None
        return error

    def complete_error(self, error: VLLMChatError) -> VLLMChatError:
        """Adds to an error what only the stream knows."""
        self.attach_partial(error)
        if isinstance(error, ResponseError) and self.head is not None:
            error.request_id = self.head.request_id
            error.status_code = self.head.status
        return error


class EventDecoder(Protocol[T_co]):
    """Decodes the data of events."""

    def decode(self, data: bytes, kind: str = "", /) -> T_co | dict[str, object] | None:
        """Decodes the data and type of an event.

        A chunk, the body of the error that it reports, or None for an event without meaning.

        Raises:
            ResponseError: The data is something else.
        """
        ...

    @property
    def repeat(self) -> Callable[[bytes], T_co | None]:
        """Decodes data that differs from those before in its text only; returns None for any other."""
        ...

    @property
    def texts(self) -> Sized:
        """The texts of all that `repeat` has returned since the last call of `repeated`."""
        ...

    @property
    def repeated(self) -> Callable[[], T_co | None]:
        """Returns one chunk that adds up to the same as all that `repeat` has returned since its last call.

        None without any. To be called before `decode`.
        """
        ...


_MOST_REPEATED = 256


class ChunkReader(EventReader[T, R]):
    """Reads events that are chunks of a reply, up to `[DONE]`.

    Args:
        decoder: Decodes the events.
        accumulator: Adds up the chunks.
        result_attribute: See `EventReader`.
    """

    def __init__(
        self,
        decoder: EventDecoder[T],
        accumulator: ReplyAccumulator[T, R],
        result_attribute: str = "completion",
    ) -> None:
        super().__init__(accumulator, result_attribute)
        self._decoder = decoder
        self._repeated = decoder.texts
        self.repeat = decoder.repeat

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Takes bytes as they arrive; returns the events that they complete."""
        if len(self._repeated) >= _MOST_REPEATED:
            self._add_repeated()
        return super().feed(data)

    def is_complete(self) -> bool:
        """Whether what has been handed out is the complete response although no last event arrived."""
        self._add_repeated()
        return super().is_complete()

    def reply(self) -> R:
        """The reply so far; it may be empty."""
        self._add_repeated()
        return super().reply()

    def _add_repeated(self) -> None:
        chunk = self._decoder.repeated()
        if chunk is not None:
            self._accumulator.add(chunk)

    def read_event(self, event: ServerSentEvent) -> T | None:
        """Turns an event into a chunk."""
        if self._repeated:
            self._add_repeated()
        data = event.data
        if data[:1] != b"{":  # what follows is not needed for chunks
            if marks_end(data):
                shortfall = self._accumulator.shortfall()
                if shortfall is None:
                    self.done = True
                else:
                    self.failure = self._unfinished(shortfall)
                return None
            if not data.strip():
                # Some proxies keep a connection alive with empty events.
                return None
        if len(data) >= DENSE_FROM:
            check_density(data)
        chunk = self._decoder.decode(data, event.event)
        if isinstance(chunk, dict):
            raise ErrorEvent(cast("dict[str, object]", chunk))
        return chunk

    def _unfinished(self, shortfall: str) -> VLLMChatError:
        """The error for a reply that is not complete although the server has marked its end."""
        if not self._started:
            return ResponseError(
                f"the server ended the stream without a reply: {shortfall}. Its log may say why"
            )
        return StreamInterruptedError(
            f"the server ended the stream before the reply was complete: {shortfall}. What arrived is in .partial; "
            "the server's log may say why",
            request_id=self.head.request_id if self.head is not None else None,
        )


class ErrorEvent(Exception):  # noqa: N818 - it never leaves this package
    """An event that reports an error instead of an item.

    Attributes:
        body: The event's payload.
    """

    def __init__(self, body: Mapping[str, object]) -> None:
        super().__init__()
        self.body = body
