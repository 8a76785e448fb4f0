"""Blocking sockets."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from vllmchat.http.transport.backend import (
    READ_BYTES,
    TCP_OPTIONS,
    NetworkBackend,
    is_address,
    readable_check,
    reason,
)
from vllmchat.http.transport.network_errors import (
    ConnectError,
    ConnectTimeout,
    NetworkError,
    ReadError,
    ReadTimeout,
    WriteError,
    WriteTimeout,
)
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from vllmchat.http.transport import tls_in_tls
    from vllmchat.http.transport.tls_in_tls import TLSInTLS
else:
    ssl = LazyModule("ssl")
    tls_in_tls = LazyModule("vllmchat.http.transport.tls_in_tls")


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
            raise ConnectError(str(error)) from error
        failure: Exception | None = None
        for place, (family, address) in enumerate(found):
            left = self.opening_seconds()
            share = None if left is None else max(left / (len(found) - place), 0.001)
            try:
                sock = _connect(family, address, share)
            except (ConnectError, ConnectTimeout) as error:
                failure = error
            else:
                self._stream = SyncStream(self, sock)
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


def _connect(family: int, address: tuple[Any, ...], timeout: float | None) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
    except TimeoutError as error:
        raise ConnectTimeout(str(error)) from error
    except OSError as error:
        raise ConnectError(str(error)) from error
    for option in TCP_OPTIONS:
        with contextlib.suppress(OSError):
            sock.setsockopt(*option)
    return sock


_Resolved = list[tuple[int, tuple[Any, ...]]]
"""Families and addresses of sockets."""


def _resolve(host: str, port: int, timeout: float | None) -> _Resolved:
    """The addresses of a host. The system's resolver has no timeout, so it is abandoned when the time is up."""
    if is_address(host) and "%" not in host:
        # Without the resolver, which imports Unicode tables.
        return [(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))]
    if timeout is None or is_address(host):
        return _look_up(host, port)
    outcome: list[_Resolved | OSError] = []

    def ask() -> None:
        try:
            outcome.append(_look_up(host, port))
        except OSError as error:
            outcome.append(error)

    resolver = threading.Thread(target=ask, name="vllmchat-resolver", daemon=True)
    resolver.start()
    resolver.join(timeout)
    if not outcome:
        raise ConnectTimeout("timed out")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def _look_up(host: str, port: int) -> _Resolved:
    return [(info[0], info[4]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class SyncStream:
    """One blocking socket.

    Attributes:
        sock: The socket.
    """

    def __init__(self, backend: SyncNetworkBackend, sock: socket.socket) -> None:
        self._backend = backend
        # The inner of two TLS layers, if there are two; the socket alone does not know what has arrived then.
        self._inner: TLSInTLS | None = None
        self._readable: Callable[[int], object] | None = None
        self.sock = sock

    def read(self) -> bytes:
        """The next bytes; empty at the end."""
        backend = self._backend
        # A socket would take 0 for "do not wait" and fail with another error.
        limit = backend.seconds()
        if limit == 0.0:
            raise backend.timed_out(ReadTimeout)
        try:
            self.sock.settimeout(limit)
            data = (self._inner or self.sock).recv(READ_BYTES)
        except TimeoutError as error:
            raise backend.timed_out(ReadTimeout) from error
        except OSError as error:
            raise ReadError(str(error)) from error
        return backend.note_received(data)

    def write(self, data: memoryview, early: Callable[[bytes], bool] | None = None) -> None:
        """Sends bytes. If the server stops reading, it may have responded already, and its response says why."""
        try:
            if self._inner is not None:
                # In pieces: each may take the whole time.
                for start in range(0, len(data), _PIECE):
                    self.sock.settimeout(self._write_seconds())
                    self._inner.sendall(data[start : start + _PIECE])
            elif early is not None:
                self._write_and_read(data, early)
            else:
                self.sock.settimeout(self._write_seconds())
                self.sock.sendall(data)
        except TimeoutError as error:
            raise self._backend.timed_out(WriteTimeout) from error
        except (OSError, WriteError):
            return

    def _write_and_read(self, data: memoryview, early: Callable[[bytes], bool]) -> None:
        sock = self.sock
        sock.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while data:
                selector.select(self._write_seconds())
                arrived = _unblocked(partial(sock.recv, READ_BYTES), ReadError)
                if arrived is not None and early(self._backend.note_received(arrived)):
                    return
                data = data[_unblocked(partial(sock.send, data[:_PIECE]), WriteError) or 0 :]

    def _write_seconds(self) -> float | None:
        limit = self._backend.seconds()
        if limit == 0.0:
            raise self._backend.timed_out(WriteTimeout)
        return limit

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Goes on under TLS."""
        left = self._backend.opening_seconds()
        if left == 0.0:
            raise ConnectTimeout("timed out")
        self.sock.settimeout(left)
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                self._inner = tls_in_tls.TLSInTLS(self.sock, context, host)
            else:
                self.sock = context.wrap_socket(self.sock, server_hostname=host)
        except TimeoutError as error:
            raise ConnectTimeout(str(error)) from error
        except OSError as error:
            raise ConnectError(str(error)) from error

    def is_readable(self) -> bool:
        """Whether bytes, or the end of the connection, have arrived."""
        if self._readable is None:
            self._readable = readable_check(self.sock)
        return bool(self._readable(0)) or (self._inner is not None and _holds_bytes(self.sock, self._inner))

    def close(self) -> None:
        """Closes it at once."""
        with contextlib.suppress(OSError):
            self.sock.close()

    __del__ = close


def _holds_bytes(sock: socket.socket, inner: TLSInTLS) -> bool:
    """Whether the inner of two TLS layers has received something that is not in the socket any more."""
    sock.setblocking(False)
    try:
        return bool(inner.recv(1))
    except OSError:
        return False


def _unblocked(call: Callable[[], T], error: type[NetworkError]) -> T | None:
    """What a call on a socket that does not wait returns; None if it would have to wait."""
    try:
        return call()
    except BlockingIOError:
        return None
    except OSError as cause:
        if isinstance(cause, ssl.SSLWantReadError | ssl.SSLWantWriteError):
            return None
        raise error(reason(cause)) from cause
