"""What the events of a stream mean: one reader for each kind of stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, cast

from vllmchat.errors import ResponseError, StreamInterruptedError
from vllmchat.http.sse import EventTooLargeError, ServerSentEvent, SSEDecoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.errors import Partial, VLLMChatError
    from vllmchat.http.call import ResponseHead
    from vllmchat.http.transport_errors import TransportFailure


T = TypeVar("T")
R = TypeVar("R", bound="Partial")


class EventReader(ABC, Generic[T]):
    """Turns events into items, knows when the end is proven, and keeps what has arrived.

    Subclasses say what an event means; the rules for ends and errors are the same for all streams.

    Attributes:
        done: Whether the last item has arrived.
        failure: What went wrong, to be raised after the items before it.
        kept_in: The attribute of the stream that holds what has arrived.
        whole: Whether the response is not streamed: then its one event is complete when the bytes end.
    """

    result_attribute: ClassVar[str] = "completion"

    def __init__(self) -> None:
        self.done = False
        self.whole = False
        self.failure: VLLMChatError | None = None
        self.head: ResponseHead | None = None
        self._decoder = SSEDecoder()

    @abstractmethod
    def read_event(self, event: ServerSentEvent) -> T | None:
        """Turns an event into an item; None if it has none. Sets `done` at the last event.

        Raises:
            ResponseError: The event does not belong in this stream.
            ErrorEvent: The event reports an error.
        """

    @abstractmethod
    def accept(self, item: T) -> None:
        """Notes that the item is handed out: from now on it is part of what has arrived."""

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether what has been handed out is the complete response although no last event arrived."""

    @abstractmethod
    def attach_partial(self, error: VLLMChatError) -> None:
        """Attaches what has arrived to an error, as its `partial`."""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Takes bytes as they arrive; returns the events that they complete."""
        try:
            return self._decoder.feed(data)
        except EventTooLargeError as error:
            self.failure = ResponseError(f"{error}: this is not the expected stream")
            return error.before

    def flush(self) -> list[ServerSentEvent]:
        """The bytes have ended properly: returns an event without its closing blank line, if there is one."""
        try:
            return self._decoder.flush()
        except EventTooLargeError as error:
            return error.before

    def interrupted(self, failure: TransportFailure | None, url: str) -> VLLMChatError:
        """The error for bytes that ended too early."""
        request_id = self.head.request_id if self.head is not None else ""
        if failure is not None and failure.limit is not None:
            error: VLLMChatError = failure.error(url, request_id)
        else:
            cause = f": {' '.join(str(failure.cause).split())}" if failure is not None else ""
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


class ReplyReader(EventReader[T], Generic[T, R]):
    """Reads events that add up to a reply."""

    def __init__(self) -> None:
        super().__init__()
        self._started = False

    @abstractmethod
    def add(self, item: T) -> None:
        """Adds an item to the reply."""

    @abstractmethod
    def reply(self) -> R:
        """The reply so far; it may be empty."""

    def accept(self, item: T) -> None:
        """Adds the item to the reply."""
        self._started = True
        self.add(item)

    def attach_partial(self, error: VLLMChatError) -> None:
        """Attaches the reply so far to an error, if anything arrived."""
        if self._started:
            error.partial = self.reply()


class ChunkReader(ReplyReader[T, R]):
    """Reads events that are chunks of a reply, up to `[DONE]`."""

    @abstractmethod
    def decode(self, data: bytes) -> T | dict[str, object]:
        """Decodes an event's data: a chunk, or the body of the error that it reports.

        Raises:
            ResponseError: The data is neither.
        """

    def read_event(self, event: ServerSentEvent) -> T | None:
        """Turns an event into a chunk."""
        data = event.data
        if data.startswith(b"[DONE]"):
            self.done = True
            return None
        if not data.strip():
            # Some proxies keep a connection alive with empty events.
            return None
        chunk = self.decode(data)
        if isinstance(chunk, dict):
            raise ErrorEvent(cast("dict[str, object]", chunk))
        return chunk


class ErrorEvent(Exception):  # noqa: N818 - it never leaves this package
    """An event that reports an error instead of an item.

    Attributes:
        body: The event's payload.
    """

    def __init__(self, body: Mapping[str, object]) -> None:
        super().__init__()
        self.body = body
