"""Blocking sockets."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpcore

from vllmchat.http.transport.backend import (
    READ_BYTES,
    TCP_OPTIONS,
    NetworkBackend,
    is_address,
    readable_check,
    reason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


T = TypeVar("T")

_PIECE = 256 * 1024


class SyncNetworkBackend(NetworkBackend):
    """The network of one sync connection."""

    def __init__(self) -> None:
        super().__init__()
        self._stream: SyncStream | None = None

    def connect(self, host: str, port: int) -> SyncStream:
        """Connects to the addresses of the host, one after another.

        The time is shared among them: an address that does not respond leaves some for the next.
        """
        try:
            found = _resolve(host, port, self.opening_seconds())
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = [str(info[4][0]) for info in found] if len(found) > 1 else [host]
        failure: Exception | None = None
        for place, address in enumerate(addresses):
            left = self.opening_seconds()
            share = None if left is None else max(left / (len(addresses) - place), 0.001)
            try:
                stream = httpcore.SyncBackend().connect_tcp(
                    address, port, share, None, cast("Iterable[SocketOption]", TCP_OPTIONS)
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                self._stream = SyncStream(self, stream)
                return self._stream
        assert failure is not None
        raise failure

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._stream is not None:
            self._stream.close()

    def interrupt(self) -> None:
        """Ends the connection for a thread that waits on it. May be called from any thread."""
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.sock.shutdown(socket.SHUT_RDWR)


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


class SyncStream:
    """One blocking socket.

    Attributes:
        sock: The socket.
    """

    def __init__(self, backend: SyncNetworkBackend, stream: httpcore.NetworkStream) -> None:
        self._backend = backend
        self._stream = stream
        self._tls_layers = 0
        self._readable: Callable[[int], object] | None = None
        self.sock: socket.socket = stream.get_extra_info("socket")

    def read(self) -> bytes:
        """The next bytes; empty at the end."""
        backend = self._backend
        # A socket would take 0 for "do not wait" and fail with another error.
        limit = backend.seconds()
        if limit == 0.0:
            raise backend.timed_out(httpcore.ReadTimeout)
        try:
            if self._tls_layers > 1:
                data = self._stream.read(READ_BYTES, limit)
            else:
                # Not through httpcore's stream: its way to convert exceptions costs as much as the read itself.
                self.sock.settimeout(limit)
                data = self.sock.recv(READ_BYTES)
        except (TimeoutError, httpcore.ReadTimeout) as error:
            raise backend.timed_out(httpcore.ReadTimeout) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        return backend.note_received(data)

    def write(self, data: memoryview, early: Callable[[bytes], bool] | None = None) -> None:
        """Sends bytes. If the server stops reading, it may have responded already, and its response says why."""
        try:
            if self._tls_layers > 1:
                # The socket alone does not know what arrived. In pieces: each may take the whole time.
                for start in range(0, len(data), _PIECE):
                    piece = cast("bytes", data[start : start + _PIECE])
                    self._stream.write(piece, self._write_seconds())
            elif early is not None:
                self._write_and_read(data, early)
            else:
                self.sock.settimeout(self._write_seconds())
                self.sock.sendall(data)
        except (TimeoutError, httpcore.WriteTimeout) as error:
            raise self._backend.timed_out(httpcore.WriteTimeout) from error
        except (OSError, httpcore.WriteError):
            return

    def _write_and_read(self, data: memoryview, early: Callable[[bytes], bool]) -> None:
        sock = self.sock
        sock.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while data:
                selector.select(self._write_seconds())
                arrived = _unblocked(partial(sock.recv, READ_BYTES), httpcore.ReadError)
                if arrived is not None and early(self._backend.note_received(arrived)):
                    return
                data = data[_unblocked(partial(sock.send, data[:_PIECE]), httpcore.WriteError) or 0 :]

    def _write_seconds(self) -> float | None:
        limit = self._backend.seconds()
        if limit == 0.0:
            raise self._backend.timed_out(httpcore.WriteTimeout)
        return limit

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Goes on under TLS."""
        left = self._backend.opening_seconds()
        if left == 0.0:
            raise httpcore.ConnectTimeout("timed out")
        self._stream = self._stream.start_tls(context, host, left)
        self._tls_layers += 1
        self.sock = self._stream.get_extra_info("socket")

    def is_readable(self) -> bool:
        """Whether bytes, or the end of the connection, have arrived."""
        if self._readable is None:
            self._readable = readable_check(self.sock)
        return bool(self._readable(0)) or (self._tls_layers > 1 and self._holds_bytes())

    def _holds_bytes(self) -> bool:
        """Whether the inner of two TLS layers has received something that is not in the socket any more."""
        try:
            return bool(self._stream.read(1, 0))
        except (httpcore.ReadError, httpcore.ReadTimeout):
            return False

    def close(self) -> None:
        """Closes it at once."""
        with contextlib.suppress(OSError):
            self._stream.close()

    __del__ = close


def _unblocked(call: Callable[[], T], error: type[httpcore.NetworkError]) -> T | None:
    """What a call on a socket that does not wait returns; None if it would have to wait."""
    try:
        return call()
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
    except OSError as cause:
        raise error(reason(cause)) from cause
