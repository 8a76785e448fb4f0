"""Bytes to server-sent events, without IO.

The rules are those of the HTML standard's event-stream format. Lines end with LF, CR or CRLF and with nothing else:
a vLLM server sends U+2028, U+2029 and U+0085 unescaped inside its JSON, so `str.splitlines` would tear events apart.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT_BYTES = 64 * 1024 * 1024
"""The largest event that is accepted. One chunk with the logprobs of a whole vocabulary has about 20 MB."""


class EventTooLargeError(ValueError):
    """One event is larger than the bound."""


class ServerSentEvent(NamedTuple):
    """One event.

    Attributes:
        data: The payload, lines joined with LF.
        event: The type, empty when the stream gives none.
        id: The last id the stream gave, empty when none.
    """

    data: bytes
    event: str = ""
    id: str = ""


class SSEDecoder:
    """Takes the bytes of an event stream as they come and gives the events that they complete.

    Attributes:
        retry: The reconnection time the stream asked for, in milliseconds, or None.
    """

    __slots__ = (
        "_data",
        "_event",
        "_first",
        "_held",
        "_id",
        "_limit",
        "_pieces",
        "_skip_lf",
        "retry",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.retry: int | None = None
        self._limit = max_event_bytes
        self._first = True
        self._skip_lf = False
        # Of a line that has not ended, the pieces: joining them only once keeps long lines linear.
        self._pieces: list[bytes] = []
        self._held = 0
        self._data: list[bytes] = []
        self._event = ""
        self._id = ""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Takes some bytes.

        Raises:
            EventTooLargeError: An event grew beyond the bound. Nothing more can be read.
        """
        if self._first and data:
            data = self._without_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 10:
                data = data[1:]
        if b"\r" in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            self._hold(data)
            return []
        if self._pieces:
            self._pieces.append(data)
            data = b"".join(self._pieces)
            self._pieces.clear()
        lines = data.split(b"\n")
        rest = lines.pop()
        events: list[ServerSentEvent] = []
        payload = self._data
        for line in lines:
            if line[:6] == b"data: ":
                self._held += len(line)
                payload.append(line[6:])
            elif not line:
                if payload:
                    whole = payload[0] if len(payload) == 1 else b"\n".join(payload)
                    if len(whole) > self._limit:
                        raise self._too_large()
                    events.append(ServerSentEvent(whole, self._event, self._id))
                    payload.clear()
                self._event = ""
                self._held = 0
            else:
                self._field(line)
        self._held = sum(map(len, payload)) if payload else 0
        if rest or payload:
            self._hold(rest)
        return events

    def flush(self) -> list[ServerSentEvent]:
        """The bytes have ended: gives the event whose closing blank line never came, if any.

        The standard drops it; servers and proxies that end a stream without the last blank line are common, and
        what the data is worth shows when it is parsed.
        """
        return self.feed(b"\n\n") if self._pieces or self._data else []

    def _without_bom(self, data: bytes) -> bytes:
        data = b"".join((*self._pieces, data))
        if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
            self._pieces = [data]
            return b""
        self._pieces.clear()
        self._held = 0
        self._first = False
        return data.removeprefix(b"\xef\xbb\xbf")

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._held += len(piece)
        if self._held > self._limit:
            raise self._too_large()

    def _too_large(self) -> EventTooLargeError:
        return EventTooLargeError(f"one server-sent event has more than {self._limit:,} bytes")

    def _field(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if not name:
            return  # A comment; servers and proxies send them to keep the connection alive.
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._held += len(line)
            self._data.append(value if colon else b"")
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry = int(value)
