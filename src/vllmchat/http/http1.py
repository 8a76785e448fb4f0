"""HTTP/1.1 from the client's side, without IO: a request to bytes, bytes to an answer.

Only what a client of one server needs. It decodes all chunks that one read of the socket brought in one go, which is
what makes streams cheap: a vLLM server sends each event as a chunk of its own. Where a mistake could make one answer
look like another it is strict; where servers are known to be sloppy it is lenient.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import httpcore

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEAD_BYTES = 100 * 1024
"""The largest head of an answer that is accepted; the same bound holds for what may follow the last chunk."""

_MAX_LINE = 16 * 1024
"""The longest line between or after chunks; some servers write remarks beside the size of one."""

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_TARGET = re.compile(r"[\x21-\x7e]+")
_STATUS = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;.{0,512})?[ \t]*\r?", re.DOTALL)
_CONTROL = re.compile(r"[\0\r\n\v\f]")
_FOLD = re.compile(r"\n[ \t]+")
_LENGTH = re.compile(r"[0-9]{1,18}")


def encode_request(
    method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes | None
) -> bytes:
    """The head of a request.

    Args:
        method: HTTP method.
        target: Path and query.
        host: The `Host` to send, unless the headers hold one.
        headers: Names in lower case, with their values.
        body: The body that follows, or None.

    Raises:
        httpcore.LocalProtocolError: Something in it would not be one request.
    """
    if not _TARGET.fullmatch(target):
        raise httpcore.LocalProtocolError(f"the path {target!r} cannot be requested")
    lines: list[str] = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    for name, value in headers:
        # Neither does a value end its line, nor a name hold what separates it from its value.
        if _CONTROL.search(value):
            raise httpcore.LocalProtocolError(f"the value of the header {name!r} contains control characters")
        if name == "host":
            lines[1] = f"host: {value}"
        else:
            lines.append(f"{_lower_name(name, httpcore.LocalProtocolError)}: {value}")
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join((*lines, "\r\n")).encode("latin-1")


@lru_cache(maxsize=512)
def _lower_name(name: str, error: type[httpcore.ProtocolError]) -> str:
    """The name of a header in lower case. Few different ones come, and the same with each answer."""
    if not _NAME.fullmatch(name):
        raise error(f"{name[:80]!r} is not a header name")
    return name.lower()


@lru_cache(maxsize=1024)
def _chunk_size(line: bytes) -> int:
    """What a line says about the size of its chunk.

    Raises:
        ValueError: It says none. (What raises is not kept in the cache, so nothing large is.)
    """
    match = _SIZE.fullmatch(line)
    if match is None:
        raise ValueError(line)
    return int(match[1], 16)


# What an answer consists of from here on: its head, so many bytes more, all until the end of the connection, chunks.
_HEAD, _SIZED, _ALL, _CHUNKS = range(4)

# What comes next among chunks, in place of the bytes that are left of one.
_SIZE_LINE, _CHUNK_END, _TRAILER = -1, -2, -3


class AnswerReader:
    """Reads one answer from the bytes of a connection.

    Attributes:
        status: HTTP status; 0 until the head has come.
        headers: Names in lower case, of repeated ones the last.
        ended: Whether the whole answer has come.
        reusable: Whether the connection can take another request; known at the end.
        failure: What is wrong with the answer after all content that was given so far. Nothing more can be read.
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
        self.failure: httpcore.RemoteProtocolError | None = None
        self._keeps = True
        self._form = _HEAD
        # A head, or the beginning of a line between chunks. Content is never held.
        self._held = bytearray()
        self._left = 0
        self._length = 0

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they come, empty when the connection has ended; gives the content that they bring.

        Raises:
            httpcore.RemoteProtocolError: This is no answer, or only a part of one.
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
            raise httpcore.RemoteProtocolError("the server closed the connection without an answer")
        elif not self.ended:
            told = (
                f": {self._length - self._left} of {self._length} bytes came" if self._form == _SIZED else ""
            )
            raise httpcore.RemoteProtocolError(
                f"the server closed the connection in the middle of its answer{told}"
            )
        self.reusable = False
        return b""

    def _end(self, *, clean: bool) -> None:
        """The answer is whole; `clean` if no byte came after it."""
        self.ended = True
        # An answer that nobody asked for: the next one on this connection could not be told from it.
        self.reusable = clean and self._keeps
        self._form, self._left = _SIZED, 0

    def _head(self, data: bytes) -> bytes:
        """Takes bytes of the head; gives what comes after it."""
        held = self._held
        begin = max(len(held) - 2, 0)
        held += data
        while True:
            found = _BLANK_LINE.search(held, begin)
            if (found.end() if found else len(held)) > MAX_HEAD_BYTES:
                raise httpcore.RemoteProtocolError("the head of the answer is too large")
            if found is None:
                return b""
            head = held[: found.start()].decode("latin-1")
            del held[: found.end()]
            begin = 0
            self._read_head(head.replace("\r\n", "\n").removesuffix("\r"))
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
            raise httpcore.RemoteProtocolError(f"the answer is not HTTP/1.1; it begins with {first[:80]!r}")
        headers: dict[str, str] = {}
        lengths: set[str] = set()
        coding: str | None = None
        keeps = status[1] != "0"
        if "\n " in rest or "\n\t" in rest:
            # A value on several lines, as was allowed once.
            rest = _FOLD.sub(" ", rest)
        for line in rest.split("\n") if rest else ():
            name, colon, value = line.partition(":")
            if not colon:
                raise httpcore.RemoteProtocolError(f"{line[:80]!r} is not a header")
            name = _lower_name(name, httpcore.RemoteProtocolError)
            value = value.strip(" \t")
            headers[name] = value
            if name == "content-length":
                lengths.update(each.strip() for each in value.split(","))
            elif name == "transfer-encoding":
                coding = value.lower() if coding is None else f"{coding}, {value.lower()}"
            elif name == "connection" and "close" in value.lower():
                keeps = False
        if coding not in (None, "chunked"):
            raise httpcore.RemoteProtocolError(f"the transfer-encoding {coding!r:.80} is unknown")
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            raise httpcore.RemoteProtocolError("the content-length is not a number")
        code = int(status[2])
        if code == 101:
            raise httpcore.RemoteProtocolError(
                "the server switches to another protocol, which was not asked for"
            )
        if code < 200:
            return  # a remark before the answer
        self.status, self.headers = code, headers
        # With a length beside chunks, somebody in between may have been misled: the connection is not used again.
        self._keeps = keeps and not (lengths and coding)
        if code in (204, 304):
            self._form = _SIZED
        elif coding is not None:
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
                    self._fail(f"the size of a chunk is {data[at:end][:40]!r}")
                    break
                at = end + 1
                left = left or _TRAILER
            elif left > 0:
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
                # What a trailer says is of no interest here.
                self._length += end - at
                if self._length > MAX_HEAD_BYTES:
                    self._fail("too much follows the last chunk")
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
        self.failure = httpcore.RemoteProtocolError(f"the answer is broken: {reason}")
