"""Bodies that a server, or a proxy before it, has compressed."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from vllmchat.http.transport.network_errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


_GZIP = b"\x1f\x8b"


class Decompressor:
    """Decompresses a body that should not be compressed, in steps, so that a small body cannot explode in memory."""

    _STEP = 1024 * 1024

    def __init__(self) -> None:
        # 32 + 15: gzip or zlib, detected from the data.
        self._inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)
        self._begun = False
        self._ended = False
        self._after = 0

    def next_piece(self, read: Callable[[], bytes]) -> bytes:
        """The next bytes; empty at the end."""
        while True:
            source = self._pending() or read()
            data = self._step(source)
            if data or not source:
                return data

    async def next_piece_async(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """The next bytes; empty at the end."""
        while True:
            source = self._pending() or await read()
            data = self._step(source)
            if data or not source:
                return data

    def _pending(self) -> bytes:
        """What has been read but not decompressed."""
        return b"" if self._ended else self._inflate.unconsumed_tail or self._inflate.unused_data

    def _step(self, source: bytes) -> bytes:
        self._begun = self._begun or bool(source)
        if self._inflate.eof:
            # Another part, which gzip allows, or padding. That may be endless, and none of it would count.
            if self._ended or not source.startswith(_GZIP):
                self._ended = True
                self._after += len(source)
                if self._after > self._STEP:
                    raise RemoteProtocolError("the compressed body goes on after its end")
                return b""
            self._inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)
        try:
            data = self._inflate.decompress(source, self._STEP)
        except zlib.error as error:
            raise RemoteProtocolError(f"the compressed body is corrupt: {error}") from error
        if not source and not data and self._begun and not self._inflate.eof:
            raise RemoteProtocolError("the compressed body ends too early")
        return data


def decompressor(headers: dict[str, str]) -> Decompressor | None:
    """What undoes the compression of a body, if it has one."""
    coding = headers.get("content-encoding")
    if coding is None:
        return None
    coding = coding.strip().lower()
    # Not codings, but servers send them.
    if coding in ("identity", "", "none", "utf-8"):
        return None
    if coding in ("gzip", "x-gzip", "deflate"):
        return Decompressor()
    raise RemoteProtocolError(f"the server sent content-encoding {coding!r}, which was not requested")
