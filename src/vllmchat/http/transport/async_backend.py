"""Asynchronous sockets, on asyncio or trio."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import httpcore

from vllmchat.http.transport.asyncio_stream import AsyncioStream, connect_asyncio
from vllmchat.http.transport.backend import TCP_OPTIONS, NetworkBackend, reason
from vllmchat.http.transport.event_loop import on_trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class AsyncNetworkBackend(NetworkBackend, httpcore.AsyncNetworkBackend):
    """The network of one async connection, on asyncio or trio."""

    def __init__(self, tunnel_to: str | None = None) -> None:
        super().__init__(tunnel_to)
        self._asyncio: AsyncioStream | None = None
        self._trio: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connects to the first address of the host that responds."""
        self.begin_opening(timeout)
        if not on_trio():
            self._asyncio = await connect_asyncio(self, host, port, timeout)
            return self._asyncio
        # Without trio, httpcore has a class of that name that does nothing.
        backend = cast("httpcore.AsyncNetworkBackend", httpcore.TrioBackend())
        options = cast("Iterable[SocketOption]", TCP_OPTIONS)
        return self.replace(await backend.connect_tcp(host, port, timeout, local_address, options))

    def replace(self, stream: httpcore.AsyncNetworkStream) -> httpcore.AsyncNetworkStream:
        """Switches to this trio stream, as after a TLS handshake."""
        self._trio = stream
        return _TrioStream(self, stream)

    def abort(self) -> None:
        """Closes the connection at once, without waiting; on its event loop, or after that has ended."""
        if self._asyncio is not None:
            self._asyncio.abort()
        elif self._trio is not None:
            sock = self._trio.get_extra_info("socket")
            # RuntimeError: the loop has ended, and has closed the socket.
            with contextlib.suppress(OSError, RuntimeError):
                sock.close()


class _TrioStream(httpcore.AsyncNetworkStream):
    def __init__(self, backend: AsyncNetworkBackend, stream: httpcore.AsyncNetworkStream) -> None:
        self._backend = backend
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._backend.note_received(await self._stream.read(max_bytes, self._backend.seconds()))
        except httpcore.ReadTimeout as error:
            raise self._backend.timed_out(httpcore.ReadTimeout) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.write(buffer, self._backend.seconds())
        except httpcore.WriteTimeout as error:
            raise self._backend.timed_out(httpcore.WriteTimeout) from error

    async def aclose(self) -> None:
        # Not the stream's own aclose: a TLS stream would send close_notify and wait.
        self._backend.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            stream = await self._stream.start_tls(
                ssl_context, server_hostname, self._backend.opening_seconds()
            )
        except httpcore.ConnectError as error:
            # trio's own exception in between has no text.
            cause = error.__cause__ and error.__cause__.__cause__
            raise httpcore.ConnectError(str(error) or reason(cause)) from error
        self._backend.end_opening(server_hostname)
        return self._backend.replace(stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
