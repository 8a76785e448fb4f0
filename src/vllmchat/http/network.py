"""Sockets for httpcore: each wait asks the call's clock how long it may take, and closing never waits.

httpcore fixes one read timeout when a response begins. Here the timeout changes while the response runs (first token,
then idle, and never beyond the total), so the streams below take it from the `Clock` before each wait. On asyncio a
protocol receives the bytes, those of plain connections through one shared buffer: per read it needs no cancel scope, no
timer and no poll, and no more memory than the bytes themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import math
import socket
import ssl
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import httpcore

from vllmchat.http.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
    from types import ModuleType

    from vllmchat.http.clock import Clock

    SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024
_PIECE = 256 * 1024
_A_DAY = 24 * 60 * 60.0
_BUFFER = 64 * 1024
_SPARE: list[memoryview] = []
"""Free receive buffers. Usually one serves all connections of a thread: it is taken and returned within one iteration
of the loop. Without it, each read of the socket would allocate and free 256 kB."""

_MOST_SPARE = 4

_HEAD_START = 0.25
"""Seconds before the next address of a host is tried in parallel."""


def _keep_alive_options() -> list[tuple[int, int, int]]:
    """TCP keep-alive: a server is silent for minutes while it computes, and routers drop silent connections."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 5)):
        option = getattr(socket, name, None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


TCP_OPTIONS = _keep_alive_options()


class _Wire:
    """How long a wait on one connection may take: as the call's clock says, or while it opens, as `connect` allows.

    Attributes:
        clock: The clock of the call that the connection is serving.
    """

    def __init__(self, tunnel_to: str | None = None) -> None:
        """Opens nothing yet.

        Args:
            tunnel_to: The host behind the proxy, if the connection needs a request to the proxy and a TLS handshake
                with that host first.
        """
        self.clock: Clock | None = None
        self._tunnel_to = tunnel_to
        self._opening = False
        self._open_until = math.inf

    def begin_opening(self, timeout: float | None) -> None:
        """Opening begins, and may take so many seconds."""
        self._open_until = math.inf if timeout is None else monotonic() + timeout
        self._opening = self._tunnel_to is not None

    def end_opening(self, server_hostname: str | None) -> None:
        """A TLS handshake is done; one with a proxy is not the last."""
        self._opening = self._opening and server_hostname != self._tunnel_to

    def opening_seconds(self) -> float | None:
        """The time left for opening, at least 0."""
        return None if self._open_until == math.inf else max(self._open_until - monotonic(), 0.0)

    def deadline(self) -> float:
        """When a wait for bytes that starts now must end; may be infinite."""
        if self._opening:
            return self._open_until
        return math.inf if self.clock is None else self.clock.deadline()

    def seconds(self) -> float | None:
        """How long a wait for bytes that starts now may take, at least 0."""
        deadline = self.deadline()
        return None if deadline == math.inf else max(deadline - monotonic(), 0.0)

    def came(self, data: bytes) -> bytes:
        """Notes that bytes of a response have arrived, if any have."""
        if data and self.clock is not None:
            self.clock.heard = True
        return data

    def timed_out(self, error: type[httpcore.TimeoutException]) -> httpcore.TimeoutException:
        """The exception for a wait that took too long."""
        return httpcore.ConnectTimeout("timed out") if self._opening else error("timed out")


class SyncWire(_Wire, httpcore.NetworkBackend):
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
    if timeout is None or _is_address(host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    came: list[_Resolved | OSError] = []

    def ask() -> None:
        try:
            came.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            came.append(error)

    asking = threading.Thread(target=ask, name="vllmchat-resolver", daemon=True)
    asking.start()
    asking.join(timeout)
    if not came:
        raise httpcore.ConnectTimeout("timed out")
    if isinstance(came[0], OSError):
        raise came[0]
    return came[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _SyncStream(httpcore.NetworkStream):
    def __init__(self, wire: SyncWire, stream: httpcore.NetworkStream) -> None:
        self._wire = wire
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # A socket would take 0 for "do not wait" and fail with another error.
        limit = self._wire.seconds()
        if limit == 0.0:
            raise self._wire.timed_out(httpcore.ReadTimeout)
        try:
            return self._wire.came(self._stream.read(max_bytes, limit))
        except httpcore.ReadTimeout as error:
            raise self._wire.timed_out(httpcore.ReadTimeout) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In pieces: the stream below grants each of its partial writes the full time again.
        for start in range(0, len(buffer), _PIECE):
            limit = self._wire.seconds()
            if limit == 0.0:
                raise self._wire.timed_out(httpcore.WriteTimeout)
            try:
                self._stream.write(buffer[start : start + _PIECE], limit)
            except httpcore.WriteTimeout as error:
                raise self._wire.timed_out(httpcore.WriteTimeout) from error

    def close(self) -> None:
        self._wire.abort()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._wire.opening_seconds()
        if left == 0.0:
            raise httpcore.ConnectTimeout("timed out")
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        self._wire.end_opening(server_hostname)
        return self._wire.replace(stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class AsyncWire(_Wire, httpcore.AsyncNetworkBackend):
    """The network of one async connection, on asyncio or trio."""

    def __init__(self, tunnel_to: str | None = None) -> None:
        super().__init__(tunnel_to)
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
        """Connects to the first address of the host that responds."""
        self.begin_opening(timeout)
        if not on_trio():
            self._asyncio = await _connect_asyncio(self, host, port, timeout)
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


def on_trio() -> bool:
    """Whether the running event loop is trio's; otherwise it is asyncio's."""
    if "trio" not in sys.modules:
        return False
    # sniffio comes with trio. Looking for a running asyncio loop would not do: trio may run as its guest.
    import sniffio

    return sniffio.current_async_library() == "trio"


class Home:
    """The event loop that something belongs to."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        # Held here, since a finalizer that runs at interpreter exit cannot import anything.
        self._trio: ModuleType | None = None
        if on_trio():
            import trio

            self._trio = trio.lowlevel
            token = trio.lowlevel.current_trio_token()
            self._loop: object = token
            self._post: Callable[[Callable[[], object]], object] = token.run_sync_soon
        else:
            loop = asyncio.get_running_loop()
            self._loop = loop
            self._post = loop.call_soon_threadsafe

    def run(self, job: Callable[[], object]) -> None:
        """Runs a job on the loop: at once if called there, otherwise soon; never if the loop has ended."""
        if self._is_here():
            job()
        else:
            with contextlib.suppress(RuntimeError):
                self._post(job)

    def start(self, job: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Starts a task on the loop; must be called there."""
        if self._trio is not None:
            # RuntimeError: the loop is about to end.
            with contextlib.suppress(RuntimeError):
                self._trio.spawn_system_task(job, *args)
            return
        task = asyncio.ensure_future(job(*args))
        # The loop keeps only weak references to its tasks.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_here(self) -> bool:
        if self._trio is not None:
            return bool(self._trio.in_trio_run()) and self._trio.current_trio_token() is self._loop
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False


async def run_out(pieces: AsyncIterator[bytes]) -> None:
    """Exhausts what a closed connection left over, so that the generators over it end, the inner ones too."""
    with contextlib.suppress(Exception):
        async for _ in pieces:
            pass


class _TrioStream(httpcore.AsyncNetworkStream):
    def __init__(self, wire: AsyncWire, stream: httpcore.AsyncNetworkStream) -> None:
        self._wire = wire
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._wire.came(await self._stream.read(max_bytes, self._wire.seconds()))
        except httpcore.ReadTimeout as error:
            raise self._wire.timed_out(httpcore.ReadTimeout) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.write(buffer, self._wire.seconds())
        except httpcore.WriteTimeout as error:
            raise self._wire.timed_out(httpcore.WriteTimeout) from error

    async def aclose(self) -> None:
        # Not the stream's own aclose: a TLS stream would send close_notify and wait.
        self._wire.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, self._wire.opening_seconds())
        except httpcore.ConnectError as error:
            # trio's own exception in between has no text.
            cause = error.__cause__ and error.__cause__.__cause__
            raise httpcore.ConnectError(str(error) or _reason(cause)) from error
        self._wire.end_opening(server_hostname)
        return self._wire.replace(stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


async def _connect_asyncio(wire: AsyncWire, host: str, port: int, timeout: float | None) -> _AsyncioStream:
    loop = asyncio.get_running_loop()

    async def connect(address: str) -> _AsyncioStream:
        _, stream = await loop.create_connection(lambda: _AsyncioStream(wire, loop), address, port)
        stream.set_options(TCP_OPTIONS)
        return stream

    try:
        async with asyncio.timeout(timeout):
            addresses = await _addresses(loop, host, port)
            return await (connect(host) if len(addresses) < 2 else _first(connect, addresses))
    except TimeoutError as error:
        raise httpcore.ConnectTimeout("timed out") from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    if _is_address(host):
        return [host]
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


async def _first(
    connect: Callable[[str], Coroutine[Any, Any, _AsyncioStream]], addresses: list[str]
) -> _AsyncioStream:
    """Connects to the first address that responds; the next is tried when one fails or is slow ("happy eyeballs").

    asyncio can do this, uvloop cannot; and asyncio leaks a socket that connects at the moment of a cancellation.
    """
    waiting = deque(addresses)
    tasks: list[asyncio.Task[_AsyncioStream]] = []
    running: set[asyncio.Task[_AsyncioStream]] = set()
    failure: BaseException | None = None
    chosen: asyncio.Task[_AsyncioStream] | None = None
    try:
        while waiting or running:
            if waiting:
                tasks.append(asyncio.ensure_future(connect(waiting.popleft())))
                running.add(tasks[-1])
            done, running = await asyncio.wait(
                running, timeout=_HEAD_START if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                failure = task.exception()
                if failure is None:
                    chosen = task
                    return task.result()
        assert failure is not None
        raise failure
    finally:
        for task in tasks:
            if task is not chosen:
                task.cancel()
                task.add_done_callback(_discard)


def _discard(task: asyncio.Task[_AsyncioStream]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


class _AsyncioStream(httpcore.AsyncNetworkStream, asyncio.BufferedProtocol):
    """One connection on an asyncio loop: both its transport's protocol and httpcore's stream."""

    def __init__(self, wire: AsyncWire, loop: asyncio.AbstractEventLoop) -> None:
        self._wire = wire
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._buffer: memoryview | None = None
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

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._buffer is None:
            try:
                self._buffer = _SPARE.pop()
            except IndexError:
                self._buffer = memoryview(bytearray(_BUFFER))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert self._buffer is not None
        self.take(bytes(self._buffer[:nbytes]))
        self._give_back()

    def take(self, data: bytes) -> None:
        self._received.append(data)
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()
        self._wake(self._reader)

    def eof_received(self) -> None:
        self._ended = True
        self._give_back()
        self._wake(self._reader)
        # A server that has stopped reading may have responded already, and its response says why.
        self._wake(self._writer)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended = True
        self._error = self._error or exc
        self._give_back()
        self._stop_timer()
        self._wake(self._reader)
        self._wake(self._writer)

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        self._wake(self._writer)

    # Called by httpcore.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = self._wire.deadline()
        if deadline != math.inf and deadline <= monotonic():
            # Not left to the timer: bytes that arrive endlessly would always forestall it.
            raise self._wire.timed_out(httpcore.ReadTimeout)
        if not self._received:
            if not self._ended:
                self._reader = self._loop.create_future()
                self._arm(deadline)
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
        return self._wire.came(data)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._transport is None or self._ended or self._transport.is_closing():
            raise httpcore.WriteError(_reason(self._error)) from self._error
        self._transport.write(buffer)
        if not self._writing:
            self._writer = self._loop.create_future()
            self._arm(self._wire.deadline())
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
            async with asyncio.timeout(self._wire.opening_seconds()):
                transport = await self._loop.start_tls(
                    self._transport,
                    _Decrypted(self),
                    ssl_context,
                    server_hostname=server_hostname,
                    # Only the timeout above counts; otherwise the loop uses one of its own.
                    ssl_handshake_timeout=_A_DAY,
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
        self._wire.end_opening(server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._ended or bool(self._received)
        if self._transport is None:
            return None
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))

    # Our own.

    def abort(self) -> None:
        """Closes the connection at once. Whoever waits on it gets an error."""
        self._stop_timer()
        if self._error is None and not self._ended:
            self._error = ConnectionAbortedError(errno.ECONNABORTED, "the connection was closed here")
        self._ended = True
        self._received.clear()
        self._buffered = 0
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()
            self._wake(self._reader)
            self._wake(self._writer)

    def set_options(self, options: Iterable[tuple[int, int, int]]) -> None:
        """Sets socket options; those that the platform rejects are skipped."""
        sock = cast("socket.socket | None", self.get_extra_info("socket"))
        if sock is not None:
            for option in options:
                with contextlib.suppress(OSError):
                    sock.setsockopt(*option)

    def _give_back(self) -> None:
        if self._buffer is not None:
            if len(_SPARE) < _MOST_SPARE:
                _SPARE.append(self._buffer)
            self._buffer = None

    def _arm(self, deadline: float) -> None:
        """Makes sure that the wait that starts now ends at its deadline.

        One timer serves many waits: deadlines move later as bytes arrive, and a timer that fires too early is set
        again then. So a stream costs one timer every few minutes, not one per chunk.
        """
        self._deadline = deadline
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._stop_timer()
        if deadline != math.inf:
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
        waiter.set_exception(self._wire.timed_out(error))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Decrypted(asyncio.Protocol):
    """Receives what TLS has decrypted, for a stream.

    Not into a buffer: when the server closes the connection without close_notify, asyncio would deliver one bufferful
    of the last data and drop the rest.
    """

    def __init__(self, stream: _AsyncioStream) -> None:
        self._stream = stream

    def data_received(self, data: bytes) -> None:
        self._stream.take(data)

    def eof_received(self) -> None:
        self._stream.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stream.connection_lost(exc)

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()


def _reason(error: BaseException | None) -> str:
    return str(error) if error is not None and str(error) else "the connection is closed"
