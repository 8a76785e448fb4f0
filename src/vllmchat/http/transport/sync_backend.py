"""Blocking sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, cast

import httpcore

from vllmchat.http.transport.backend import TCP_OPTIONS, NetworkBackend, is_address

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


_PIECE = 256 * 1024


class SyncNetworkBackend(NetworkBackend, httpcore.NetworkBackend):
    """The network of one sync connection."""

    def __init__(self, tunnel_to: str | None = None) -> None:
        super().__init__(tunnel_to)
        self._stream: httpcore.NetworkStream | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        """Connects to the addresses of the host, one after another.

        The time is shared among them: an address that does not respond leaves some for the next.
        """
        self.begin_opening(timeout)
        try:
            found = _resolve(host, port, timeout)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = [str(info[4][0]) for info in found] if len(found) > 1 else [host]
        failure: Exception | None = None
        for place, address in enumerate(addresses):
            left = self.opening_seconds()
            share = None if left is None else max(left / (len(addresses) - place), 0.001)
            try:
                stream = httpcore.SyncBackend().connect_tcp(
                    address, port, share, local_address, cast("Iterable[SocketOption]", TCP_OPTIONS)
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return self.replace(stream)
        assert failure is not None
        raise failure

    def replace(self, stream: httpcore.NetworkStream) -> httpcore.NetworkStream:
        """Switches to this stream, as after a TLS handshake."""
        self._stream = stream
        return _SyncStream(self, stream)

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()


_Resolved = list[tuple[Any, Any, int, str, Any]]


def _resolve(host: str, port: int, timeout: float | None) -> _Resolved:
    """The addresses of a host. The system's resolver has no timeout, so it is abandoned when the time is up."""
    if timeout is None or is_address(host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    outcome: list[_Resolved | OSError] = []

    def ask() -> None:
        try:
            outcome.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            outcome.append(error)

    resolver = threading.Thread(target=ask, name="vllmchat-resolver", daemon=True)
    resolver.start()
    resolver.join(timeout)
    if not outcome:
        raise httpcore.ConnectTimeout("timed out")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


class _SyncStream(httpcore.NetworkStream):
    def __init__(self, backend: SyncNetworkBackend, stream: httpcore.NetworkStream) -> None:
        self._backend = backend
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # A socket would take 0 for "do not wait" and fail with another error.
        limit = self._backend.seconds()
        if limit == 0.0:
            raise self._backend.timed_out(httpcore.ReadTimeout)
        try:
            return self._backend.note_received(self._stream.read(max_bytes, limit))
        except httpcore.ReadTimeout as error:
            raise self._backend.timed_out(httpcore.ReadTimeout) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In pieces: the stream below grants each of its partial writes the full time again.
        for start in range(0, len(buffer), _PIECE):
            limit = self._backend.seconds()
            if limit == 0.0:
                raise self._backend.timed_out(httpcore.WriteTimeout)
            try:
                self._stream.write(buffer[start : start + _PIECE], limit)
            except httpcore.WriteTimeout as error:
                raise self._backend.timed_out(httpcore.WriteTimeout) from error

    def close(self) -> None:
        self._backend.abort()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._backend.opening_seconds()
        if left == 0.0:
            raise httpcore.ConnectTimeout("timed out")
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        self._backend.end_opening(server_hostname)
        return self._backend.replace(stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
