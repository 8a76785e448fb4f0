"""Asynchronous sockets, on asyncio or trio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vllmchat.http.event_loop import on_trio
from vllmchat.http.transport.asyncio_stream import connect_asyncio
from vllmchat.http.transport.backend import NetworkBackend
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from vllmchat.http.transport import trio_stream
else:
    trio_stream = LazyModule("vllmchat.http.transport.trio_stream")


class AsyncStream(Protocol):
    """One open connection on an event loop."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        ...

    async def write(self, data: memoryview, early: Callable[[bytes], bool] | None = None) -> None:
        """Sends bytes. If the server stops reading, it may have responded already, and its response says why."""
        ...

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Goes on under TLS."""
        ...

    def is_readable(self) -> bool:
        """Whether bytes, or the end of the connection, have arrived."""
        ...

    def is_flushed(self) -> bool:
        """Whether all that was written has been sent."""
        ...

    def abort(self) -> None:
        """Closes the connection at once, without waiting; on its event loop, or after that has ended."""
        ...


class AsyncNetworkBackend(NetworkBackend):
    """The network of one async connection, on asyncio or trio."""

    def __init__(self) -> None:
        super().__init__()
        self._stream: AsyncStream | None = None

    async def connect(self, host: str, port: int) -> AsyncStream:
        """Connects to the first address of the host that responds."""
        if on_trio():
            self._stream = await trio_stream.connect_trio(self, host, port)
        else:
            self._stream = await connect_asyncio(self, host, port)
        return self._stream

    def abort(self) -> None:
        """Closes the connection at once, without waiting; on its event loop, or after that has ended."""
        if self._stream is not None:
            self._stream.abort()
