"""Client-side HTTP/1.1 without I/O: a request to bytes, bytes to a response.

It has only what a client of one server needs. It decodes all chunks that arrive in one read of the socket in one go,
which makes streams cheap: a vLLM server sends each event as a chunk of its own. It is strict where a mistake could
make one response look like another, and lenient where servers are known to be sloppy.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from vllmchat.http.transport.network_errors import LocalProtocolError, ProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEAD_BYTES = 100 * 1024
"""Size limit of a response's head, and of the trailers after the last chunk."""

_MAX_LINE = 16 * 1024
"""Length limit of a line between or after chunks; some servers add extensions to the chunk size."""

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_TARGET = re.compile(r"[\x21-\x7e]+")
_STATUS = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;.{0,512})?[ \t]*\r?", re.DOTALL)
_CONTROL = re.compile(r"[\0\r\n\v\f]")
_FOLD = re.compile(r"\n[ \t]+")
_LENGTH = re.compile(r"[0-9]{1,18}")


def encode_request(
    method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    """Encodes the head of a request.

    Args:
        method: HTTP method.
        target: Path and query.
        host: The `Host` to send, unless it is among the headers.
        headers: Names in lower case, and their values.
        body: The body that follows, or None.

    Raises:
        LocalProtocolError: The result would not be exactly one request.
    """
    if not _TARGET.fullmatch(target):
        raise LocalProtocolError(f"the path {target!r} contains characters that are not allowed")
    # A value must not end its line, nor a name contain the separator.
    if _CONTROL.search("".join(headers.values())):
        wrong = next(name for name, value in headers.items() if _CONTROL.search(value))
        # Frames are shown by some tools, with what their variables hold.
        del headers
        raise LocalProtocolError(f"the value of the header {wrong!r} contains control characters")
    host = headers.get("host", host)
    lines = [f"{_usual_name(name)}: {value}\r\n" for name, value in headers.items() if name != "host"]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}\r\n")
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{''.join(lines)}\r\n".encode("latin-1")


@lru_cache(maxsize=512)
def _usual_name(name: str) -> str:
    """The name of a header as it is usually written. Case has no meaning, but some proxies and firewalls disagree."""
    return "-".join(part.capitalize() for part in _lower_name(name, LocalProtocolError).split("-"))


@lru_cache(maxsize=512)
def _lower_name(name: str, error: type[ProtocolError]) -> str:
    """The name of a header in lower case. Few different names occur, and the same ones in each response."""
    if not _NAME.fullmatch(name):
        raise error(f"{name[:80]!r} is not a header name")
    return name.lower()


@lru_cache(maxsize=1024)
def _chunk_size(line: bytes) -> int:
    """The size in a chunk's size line.

    Raises:
        ValueError: The line is not valid. (Lines that raise are not cached, so nothing large is.)
    """
    match = _SIZE.fullmatch(line)
    if match is None:
        raise ValueError(line)
    return int(match[1], 16)


# The framing of the rest of a response: its head, a known number of bytes, everything until the connection ends,
# chunks.
_HEAD, _SIZED, _ALL, _CHUNKS = range(4)

# What comes next between chunks; used in place of the number of bytes left in one.
_SIZE_LINE, _CHUNK_END, _TRAILER = -1, -2, -3


class ResponseParser:
    """Reads one response from the bytes of a connection.

    Attributes:
        status: HTTP status; 0 until the head has arrived.
        headers: Names in lower case, the last of repeated ones.
        ended: Whether the response is complete.
        reusable: Whether the connection can be reused; known at the end.
        failure: What is wrong with the response after the content returned so far. Nothing more can be read.
    """

    __slots__ = (
        "_form",
        "_held",
        "_keeps",
        "_left",
        "_length",
        "ended",
        "failure",
        "headers",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self.reusable = False
        self.failure: RemoteProtocolError | None = None
        self._keeps = True
        self._form = _HEAD
        # A head, or the start of a line between chunks. Content is never buffered.
        self._held = bytearray()
        self._left = 0
        self._length = 0

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they arrive, empty at the end of the connection, and returns the content in them.

        Raises:
            RemoteProtocolError: This is not a response, or only part of one.
        """
        if self.failure is not None:
            raise self.failure
        if not data:
            return self._connection_ended()
        form = self._form
        if form == _CHUNKS:
            return self._chunks(data)
        if form == _ALL:
            return data
        if form == _HEAD:
            rest = self._head(data)
            return self.feed(rest) if rest else b""
        left = self._left
        self._left -= len(data)
        if self._left <= 0:
            self._end(clean=self._left == 0)
            return data[:left]
        return data

    def _connection_ended(self) -> bytes:
        if self._form == _ALL:
            self._end(clean=False)
        elif self._form == _HEAD:
            raise RemoteProtocolError("the server closed the connection without responding")
        elif not self.ended:
            detail = (
                f": {self._length - self._left} of {self._length} bytes arrived"
                if self._form == _SIZED
                else ""
            )
            raise RemoteProtocolError(
                f"the server closed the connection in the middle of its response{detail}"
            )
        self.reusable = False
        return b""

    def _end(self, *, clean: bool) -> None:
        """The response is complete; `clean` if no byte came after it."""
        self.ended = True
        # Those bytes would be a response to no request, and could be taken for the next one.
        self.reusable = clean and self._keeps
        self._form, self._left = _SIZED, 0

    def _head(self, data: bytes) -> bytes:
        """Takes bytes of the head; returns what comes after it."""
        held = self._held
        begin = max(len(held) - 2, 0)
        held += data
        while True:
            found = _BLANK_LINE.search(held, begin)
            if (found.end() if found else len(held)) > MAX_HEAD_BYTES:
                raise RemoteProtocolError("the response headers are too large")
            if found is None:
                return b""
            head = held[: found.start()].decode("latin-1")
            del held[: found.end()]
            begin = 0
            # Some servers send a blank line first.
            self._read_head(head.replace("\r\n", "\n").removesuffix("\r").removeprefix("\n"))
            if self.status:
                break
        rest = bytes(held)
        held.clear()
        if self._form == _SIZED and not self._left:
            self._end(clean=not rest)
            return b""
        return rest

    def _read_head(self, head: str) -> None:
        first, _, rest = head.partition("\n")
        status = _STATUS.fullmatch(first)
        if status is None or _CONTROL.search(head.replace("\n", "")):
            raise RemoteProtocolError(f"the response is not HTTP/1.1; it starts with {first[:80]!r}")
        headers: dict[str, str] = {}
        lengths: set[str] = set()
        codings: list[str] = []
        keeps = status[1] != "0"
        if "\n " in rest or "\n\t" in rest:
            # A header folded over several lines, which was once allowed.
            rest = _FOLD.sub(" ", rest)
        for line in rest.split("\n") if rest else ():
            name, colon, value = line.partition(":")
            if not colon:
                raise RemoteProtocolError(f"{line[:80]!r} is not a header line")
            name = _lower_name(name, RemoteProtocolError)
            value = value.strip(" \t")
            headers[name] = value
            if name == "content-length":
                lengths.update(each.strip() for each in value.split(","))
            elif name == "transfer-encoding":
                codings += [each.strip().lower() for each in value.split(",")]
            elif name == "connection" and "close" in value.lower():
                keeps = False
        # Some proxies name it twice, and encode once.
        if set(codings) - {"chunked"}:
            raise RemoteProtocolError(f"the transfer-encoding {', '.join(codings)!r:.80} is not supported")
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            raise RemoteProtocolError("the content-length is invalid")
        code = int(status[2])
        if code == 101:
            raise RemoteProtocolError("the server switched to another protocol, which was not requested")
        if code < 200:
            return  # an interim response
        self.status, self.headers = code, headers
        # A length together with chunks may be request smuggling, so the connection is not reused.
        self._keeps = keeps and not (lengths and codings) and len(codings) < 2
        if code in (204, 304):
            self._form = _SIZED
        elif codings:
            self._form, self._left = _CHUNKS, _SIZE_LINE
        elif lengths:
            self._form, self._length = _SIZED, int(lengths.pop())
            self._left = self._length
        else:
            self._form = _ALL

    def _chunks(self, data: bytes) -> bytes:
        if self._held:
            data = bytes(self._held) + data
            self._held.clear()
        pieces: list[bytes] = []
        left, at, size = self._left, 0, len(data)
        while at < size:
            if left == _SIZE_LINE:
                end = data.find(b"\n", at)
                if end < 0:
                    self._hold(data[at:])
                    break
                try:
                    left = _chunk_size(data[at:end])
                except ValueError:
                    self._fail(f"the chunk size is {data[at:end][:40]!r}")
                    break
                at = end + 1
                if not left:
                    left = _TRAILER
                    continue
            if left > 0:
                end = at + left
                pieces.append(data[at:end])
                if data[end : end + 2] == b"\r\n":
                    left, at = _SIZE_LINE, end + 2
                elif end > size:
                    left, at = end - size, size
                else:
                    left, at = _CHUNK_END, end
            elif left == _CHUNK_END:
                if data[at : at + 2] == b"\r\n":
                    left, at = _SIZE_LINE, at + 2
                elif data[at:] == b"\r":
                    self._hold(b"\r")
                    break
                else:
                    self._fail("a chunk is longer than its size")
                    break
            else:
                end = data.find(b"\n", at)
                if end < 0:
                    self._hold(data[at:])
                    break
                if data[at:end] in (b"", b"\r"):
                    self._end(clean=end + 1 == size)
                    left = 0
                    break
                # Trailers are ignored.
                self._length += end - at
                if self._length > MAX_HEAD_BYTES:
                    self._fail("the trailers after the last chunk are too large")
                    break
                at = end + 1
        self._left = left
        if len(pieces) == 1:
            return pieces[0]
        content = b"".join(pieces)
        if not content and self.failure is not None:
            raise self.failure
        return content

    def _hold(self, line: bytes) -> None:
        self._held += line
        if len(line) > _MAX_LINE:
            self._fail("a line between chunks is too long")

    def _fail(self, reason: str) -> None:
        self.failure = RemoteProtocolError(f"the response is malformed: {reason}")
