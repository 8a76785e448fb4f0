"""Sockets under httpcore: each wait asks the call's clock how long it may take, and closing never waits.

httpcore fixes one read timeout when a response begins. Here the limit changes while the response runs (first token,
then idle, and never beyond the total), so the streams below take it from the `Clock` before each wait. On asyncio a
plain protocol carries the bytes: it costs no cancel scope, no timer and no poll a read.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, cast

import httpcore

from vllmchat.http.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from vllmchat.http.clock import Clock

    SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024


def _keep_alive_options() -> list[tuple[int, int, int]]:
    """TCP keep-alive: a server is silent for minutes while it computes, and routers forget silent connections."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 5)):
        option = getattr(socket, name, None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


TCP_OPTIONS = _keep_alive_options()


class SyncWire(httpcore.NetworkBackend):
    """The network of one blocking connection.

    Attributes:
        clock: The clock of the call that the connection serves now.
        stream: What was opened, so that it can be closed from outside httpcore.
    """

    def __init__(self) -> None:
        self.clock: Clock | None = None
        self.stream: httpcore.NetworkStream | None = None
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        """Opens a connection."""
        options = cast("Iterable[SocketOption]", TCP_OPTIONS)
        self.stream = self._backend.connect_tcp(host, port, timeout, local_address, options)
        return _SyncStream(self, self.stream)

    def abort(self) -> None:
        """Closes the connection at once."""
        if self.stream is not None:
            with contextlib.suppress(OSError):
                self.stream.close()


class _SyncStream(httpcore.NetworkStream):
    def __init__(self, wire: SyncWire, stream: httpcore.NetworkStream) -> None:
        self._wire = wire
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._wire.clock is not None:
            timeout = self._wire.clock.seconds()
            if timeout == 0.0:
                # The socket would take 0 as "do not wait" and fail with another error.
                raise httpcore.ReadTimeout("timed out")
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._wire.clock is not None:
            timeout = self._wire.clock.seconds()
            if timeout == 0.0:
                raise httpcore.WriteTimeout("timed out")
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._wire.abort()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, timeout)
        self._wire.stream = stream
        return _SyncStream(self._wire, stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class AsyncWire(httpcore.AsyncNetworkBackend):
    """The network of one asynchronous connection, on asyncio or trio.

    Attributes:
        clock: The clock of the call that the connection serves now.
    """

    def __init__(self) -> None:
        self.clock: Clock | None = None
        self._asyncio: _AsyncioStream | None = None
        self._trio: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Opens a connection."""
        if _on_asyncio():
            self._asyncio = await _connect_asyncio(self, host, port, timeout, local_address)
            return self._asyncio
        options = cast("Iterable[SocketOption]", TCP_OPTIONS)
        self._trio = await httpcore.TrioBackend().connect_tcp(host, port, timeout, local_address, options)
        return _TrioStream(self, self._trio)

    def abort(self) -> None:
        """Closes the connection at once; works without awaiting, also when its event loop has ended."""
        if self._asyncio is not None:
            self._asyncio.abort()
        elif self._trio is not None:
            sock = self._trio.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()

    def replace(self, stream: httpcore.AsyncNetworkStream) -> None:
        """The connection goes on over another stream, as after a TLS handshake."""
        self._trio = stream


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def loop_poster() -> Callable[[Callable[[], object]], object]:
    """What runs a function on the running event loop when it is called from another thread."""
    if _on_asyncio():
        return asyncio.get_running_loop().call_soon_threadsafe
    import trio

    return trio.lowlevel.current_trio_token().run_sync_soon


class _TrioStream(httpcore.AsyncNetworkStream):
    def __init__(self, wire: AsyncWire, stream: httpcore.AsyncNetworkStream) -> None:
        self._wire = wire
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, self._limit(timeout))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, self._limit(timeout))

    def _limit(self, timeout: float | None) -> float | None:
        return timeout if self._wire.clock is None else self._wire.clock.seconds()

    async def aclose(self) -> None:
        # Not the stream's own aclose: a TLS stream would say goodbye and wait.
        self._wire.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        self._wire.replace(stream)
        return _TrioStream(self._wire, stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


async def _connect_asyncio(
    wire: AsyncWire, host: str, port: int, timeout: float | None, local_address: str | None
) -> _AsyncioStream:
    loop = asyncio.get_running_loop()
    stream = _AsyncioStream(wire, loop)
    try:
        async with asyncio.timeout(timeout):
            await loop.create_connection(
                lambda: stream,
                host,
                port,
                local_addr=None if local_address is None else (local_address, 0),
                happy_eyeballs_delay=0.25,
            )
    except TimeoutError as error:
        raise httpcore.ConnectTimeout("timed out") from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
    stream.set_options(TCP_OPTIONS)
    return stream


class _AsyncioStream(httpcore.AsyncNetworkStream, asyncio.Protocol):
    """One connection on an asyncio loop, as the protocol of its transport and as httpcore's stream."""

    def __init__(self, wire: AsyncWire, loop: asyncio.AbstractEventLoop) -> None:
        self._wire = wire
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._received: deque[bytes] = deque()
        self._buffered = 0
        self._reading = True
        self._writing = True
        self._ended = False
        self._error: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._deadline = math.inf

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()
        self._wake(self._reader)

    def eof_received(self) -> None:
        self._ended = True
        self._wake(self._reader)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended = True
        self._error = self._error or exc
        self._stop_timer()
        self._wake(self._reader)
        self._wake(self._writer)

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        self._wake(self._writer)

    # What httpcore calls.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._received:
            if not self._ended:
                self._reader = self._loop.create_future()
                self._arm()
                try:
                    await self._reader
                finally:
                    self._reader = None
            if not self._received:
                if self._error is not None:
                    raise httpcore.ReadError(_reason(self._error)) from self._error
                return b""
        data = self._received.popleft()
        if len(data) > max_bytes:
            self._received.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._buffered -= len(data)
        if not self._reading and self._buffered < _LOW_WATER and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._transport is None or self._ended or self._transport.is_closing():
            raise httpcore.WriteError(_reason(self._error)) from self._error
        self._transport.write(buffer)
        if not self._writing:
            self._writer = self._loop.create_future()
            self._arm()
            try:
                await self._writer
            finally:
                self._writer = None
            if self._ended:
                raise httpcore.WriteError(_reason(self._error)) from self._error

    async def aclose(self) -> None:
        self.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        assert self._transport is not None
        try:
            async with asyncio.timeout(timeout):
                transport = await self._loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            self.abort()
            raise httpcore.ConnectTimeout("timed out") from error
        except (OSError, ssl.SSLError) as error:
            self.abort()
            raise httpcore.ConnectError(_reason(error)) from error
        except BaseException:
            self.abort()
            raise
        if transport is None:
            raise httpcore.ConnectError("the server closed the connection during the TLS handshake")
        self._transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._ended or bool(self._received)
        if self._transport is None:
            return None
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))

    # Ours.

    def abort(self) -> None:
        """Closes the connection at once. Who waits on it gets an error."""
        self._stop_timer()
        if self._error is None and not self._ended:
            self._error = ConnectionAbortedError(errno.ECONNABORTED, "the connection was closed here")
        self._ended = True
        self._received.clear()
        if self._transport is None or self._loop.is_closed():
            return
        if _on_loop(self._loop):
            self._transport.abort()
            self._wake(self._reader)
            self._wake(self._writer)
        else:
            # From a finaliser that ran in another thread.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._transport.abort)

    def set_options(self, options: Iterable[tuple[int, int, int]]) -> None:
        """Sets socket options; one that the platform refuses is left."""
        sock = cast("socket.socket | None", self.get_extra_info("socket"))
        if sock is not None:
            for option in options:
                with contextlib.suppress(OSError):
                    sock.setsockopt(*option)

    def _arm(self) -> None:
        """Sees to it that the wait which begins now ends at its deadline.

        One timer serves many waits: deadlines move later as bytes come, and a timer that fires too early is set
        anew then. So a stream costs a timer in minutes, not one a chunk.
        """
        clock = self._wire.clock
        self._deadline = math.inf if clock is None else clock.deadline()
        if self._timer is not None:
            if self._timer_at <= self._deadline:
                return
            self._stop_timer()
        if self._deadline != math.inf:
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer_at = self._deadline
        self._timer = self._loop.call_later(max(self._deadline - monotonic(), 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        waiter = self._reader or self._writer
        if waiter is None or waiter.done() or self._deadline == math.inf:
            return
        if self._deadline > monotonic():
            self._set_timer()
            return
        error = httpcore.ReadTimeout if waiter is self._reader else httpcore.WriteTimeout
        waiter.set_exception(error("timed out"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _on_loop(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _reason(error: BaseException | None) -> str:
    return str(error) if error is not None and str(error) else "the connection is closed"
