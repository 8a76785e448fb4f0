"""Bytes to server-sent events, without I/O.

The rules are those of the HTML standard's event-stream format. Lines end with LF, CR or CRLF and with nothing else:
a vLLM server sends U+2028, U+2029 and U+0085 unescaped inside its JSON, so `str.splitlines` would tear events apart.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT_BYTES = 64 * 1024 * 1024
"""Size limit of an event. A chunk with the logprobs of a whole vocabulary takes about 20 MB."""

MAX_STRAY_BYTES = 16 * 1024
"""How much is kept of lines that are no part of any event."""

_LF, _CR = b"\n"[0], b"\r"[0]
_BOM = b"\xef\xbb\xbf"
_FIELDS = frozenset(
    name[:end] for name in (b"data", b"event", b"id", b"retry") for end in range(len(name) + 1)
)
"""The names of fields, and what is left of one that was cut."""


class ServerSentEvent(NamedTuple):
    """One event.

    Attributes:
        data: The payload, its lines joined with LF.
        event: The type, empty if the stream gives none.
    """

    data: bytes
    event: str = ""


class EventTooLargeError(ValueError):
    """An event, or a whole body, is larger than the limit.

    Attributes:
        before: The events that the same bytes completed before it.
    """

    def __init__(self, message: str, before: list[ServerSentEvent]) -> None:
        super().__init__(message)
        self.before = before


class SSEDecoder:
    """Takes the bytes of an event stream as they arrive and returns the events that they complete.

    A stream is never resumed, so the fields `id` and `retry` are ignored.
    """

    __slots__ = ("_at_start", "_data", "_event", "_limit", "_line", "_size", "_skip_lf", "_stray")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._at_start = True
        self._skip_lf = False
        # The pieces of an unfinished line: joining them only once keeps long lines linear.
        self._line: list[bytes] = []
        # The data lines of an unfinished event.
        self._data: list[bytes] = []
        # The size of both as received, with the field names and an LF per line.
        self._size = 0
        self._event = ""
        self._stray: list[bytes] = []

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Takes some bytes.

        Raises:
            EventTooLargeError: An event exceeds the limit. Nothing more can be read.
        """
        if data[:6] == b"data: " and data[-2:] == b"\n\n" and self._is_between(data):
            # Exactly one event, most of the time: servers flush each event when it is ready.
            value = data[6:-2]
            if not (_LF in value or _CR in value):
                return [ServerSentEvent(value)]
        if self._at_start:
            data = self._without_bom(data)
        if self._skip_lf and data:
            # The previous bytes ended with the CR of this line.
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        if _CR in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[ServerSentEvent] = []
        if _LF not in data:
            self._hold(data, events)
            return events
        if self._line:
            self._size -= sum(map(len, self._line))
            self._line.append(data)
            data = b"".join(self._line)
            self._line.clear()
        if not (self._data or self._event) and len(data) < self._limit:
            whole, _, rest = data.rpartition(b"\n\n")
            values = whole.split(b"\n\ndata: ")
            if whole[:6] == b"data: " and whole.count(b"\n") == 2 * len(values) - 2:
                # Each event is one line, as usual.
                values[0] = values[0][6:]
                events = [ServerSentEvent(value) for value in values]
                self._hold(rest, events)
                return events
        lines = data.split(b"\n")
        rest = lines.pop()
        payload = self._data
        for line in lines:
            if line:
                size = self._size + len(line) + 1
                if size > self._limit:
                    raise self._too_large(events)
                if line[:6] == b"data: ":
                    payload.append(line[6:])
                    self._size = size
                elif self._field(line):
                    self._size = size
            else:
                if payload:
                    whole = payload[0] if len(payload) == 1 else b"\n".join(payload)
                    events.append(ServerSentEvent(whole, self._event))
                    payload.clear()
                    self._size = 0
                self._event = ""
        self._hold(rest, events)
        return events

    def flush(self) -> list[ServerSentEvent]:
        """The bytes have ended: returns the event whose closing blank line is missing, if any.

        The standard drops it; but servers and proxies that end a stream without the last blank line are common, and
        parsing will show what the data is worth.
        """
        return self.feed(b"\n\n") if self._line or self._data else []

    def stray_lines(self) -> list[bytes]:
        """The lines so far that are not part of an event: at least the first and the last of them.

        The standard ignores them. A failing server writes its error there.
        """
        return list(self._stray)

    def _is_between(self, data: bytes) -> bool:
        """Whether bytes come after whole events, and none of theirs can be too large."""
        return not (
            self._line
            or self._data
            or self._event
            or self._at_start
            or self._skip_lf
            or len(data) > self._limit
        )

    def _without_bom(self, data: bytes) -> bytes:
        data = b"".join((*self._line, data))
        self._line.clear()
        self._size = 0
        if len(data) < len(_BOM) and _BOM.startswith(data):
            return data
        self._at_start = False
        return data.removeprefix(_BOM)

    def _field(self, line: bytes) -> bool:
        """Parses a field; returns whether it belongs to the data."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        # A line without a name is a comment; servers and proxies send them to keep the connection alive.
        if name == b"data":
            self._data.append(value)
            return True
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name not in _FIELDS:
            self._stray.append(line[:MAX_STRAY_BYTES])
            if sum(map(len, self._stray)) > MAX_STRAY_BYTES:
                # The first says what the response is, the last why it ended.
                del self._stray[1:-1]
        return False

    def _hold(self, piece: bytes, before: list[ServerSentEvent]) -> None:
        if piece:
            self._line.append(piece)
            self._size += len(piece)
            if self._size > self._limit:
                raise self._too_large(before)

    def _too_large(self, before: list[ServerSentEvent]) -> EventTooLargeError:
        limit = f"{self._limit:,}"
        return EventTooLargeError(
            f"a server-sent event has more than {limit} bytes: this is not the expected stream", before
        )


class WholeBody:
    """Takes the bytes of a response that is not streamed, and returns it as one event when they have ended."""

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_bytes
        self._body = bytearray()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Takes some bytes.

        Raises:
            EventTooLargeError: The body exceeds the limit.
        """
        self._body += data
        if len(self._body) > self._limit:
            raise EventTooLargeError(f"the response is larger than {self._limit:,} bytes", [])
        return []

    def flush(self) -> list[ServerSentEvent]:
        """The bytes have ended: returns the event."""
        return [ServerSentEvent(bytes(self._body))]

    def stray_lines(self) -> list[bytes]:
        """None: all of it is the event."""
        return []
