"""Connections on asyncio: a protocol that carries the bytes, those of plain connections through one buffer for all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from vllmchat.http.clock import monotonic
from vllmchat.http.transport.backend import (
    TCP_OPTIONS,
    NetworkBackend,
    is_address,
    readable_check,
    reason,
)
from vllmchat.http.transport.network_errors import (
    ConnectError,
    ConnectTimeout,
    ReadError,
    ReadTimeout,
    WriteTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable


_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024
_A_DAY = 24 * 60 * 60.0
_BUFFER = 64 * 1024
_SPARE: list[memoryview] = []
"""Free receive buffers. Usually one serves all connections of a thread: it is taken and returned within one iteration
of the loop. Without it, each read of the socket would allocate and free 256 kB."""

_MOST_SPARE = 4

_HEAD_START = 0.25
"""Seconds before the next address of a host is tried in parallel."""


async def connect_asyncio(backend: NetworkBackend, host: str, port: int) -> AsyncioStream:
    """Opens a connection, to whichever address of the host answers first."""
    loop = asyncio.get_running_loop()

    async def connect(address: str) -> AsyncioStream:
        _, stream = await loop.create_connection(lambda: AsyncioStream(backend, loop), address, port)
        stream.set_options(TCP_OPTIONS)
        return stream

    try:
        async with asyncio.timeout(backend.opening_seconds()):
            addresses = await _addresses(loop, host, port)
            return await (connect(host) if len(addresses) < 2 else _first(connect, addresses))
    except TimeoutError as error:
        raise ConnectTimeout("timed out") from error
    except OSError as error:
        raise ConnectError(str(error)) from error


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    if is_address(host):
        return [host]
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


async def _first(
    connect: Callable[[str], Coroutine[Any, Any, AsyncioStream]], addresses: list[str]
) -> AsyncioStream:
    """Connects to the first address that responds; the next is tried when one fails or is slow ("happy eyeballs").

    asyncio can do this, uvloop cannot; and asyncio leaks a socket that connects at the moment of a cancellation.
    """
    waiting = deque(addresses)
    tasks: list[asyncio.Task[AsyncioStream]] = []
    running: set[asyncio.Task[AsyncioStream]] = set()
    failure: BaseException | None = None
    chosen: asyncio.Task[AsyncioStream] | None = None
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


def _discard(task: asyncio.Task[AsyncioStream]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


class AsyncioStream(asyncio.BufferedProtocol):
    """One connection on an asyncio loop, and its transport's protocol."""

    def __init__(self, backend: NetworkBackend, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._buffer: memoryview | None = None
        self._received: deque[bytes] = deque()
        self._buffered = 0
        self._reading = True
        self._writing = True
        self._ended = False
        self._readable: Callable[[int], object] | None = None
        self._error: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._deadline = math.inf

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        if self._buffer is None:
            try:
                self._buffer = _SPARE.pop()
            except IndexError:
                self._buffer = memoryview(bytearray(_BUFFER))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        assert self._buffer is not None
        self.take(bytes(self._buffer[:nbytes]))
        self._give_back()

    def take(self, data: bytes) -> None:
        """Bytes have come: notes it and keeps them."""
        self._received.append(data)
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()
        self._wake(self._reader)
        if self._writer is not None:
            # A server may respond before it has read everything. What is written is sent on meanwhile.
            self._wake(self._writer)

    def eof_received(self) -> None:
        """The server sends no more."""
        self._ended = True
        self._give_back()
        self._wake(self._reader)
        self._wake(self._writer)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended."""
        self._ended = True
        self._error = self._error or exc
        self._give_back()
        self._stop_timer()
        self._wake(self._reader)
        self._wake(self._writer)

    def pause_writing(self) -> None:
        """The transport holds enough."""
        self._writing = False

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._writing = True
        self._wake(self._writer)

    # Called by the connection.

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        deadline = self._backend.deadline()
        if deadline != math.inf and deadline <= monotonic():
            # Not left to the timer: bytes that arrive endlessly would always forestall it.
            raise self._backend.timed_out(ReadTimeout)
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
                    raise ReadError(reason(self._error)) from self._error
                return b""
        data = self._received.popleft()
        self._buffered -= len(data)
        if not self._reading and self._buffered < _LOW_WATER and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        return self._backend.note_received(data)

    async def write(self, data: memoryview, early: Callable[[bytes], bool] | None = None) -> None:
        """Sends bytes. If the server stops reading, it may have responded already, and its response says why."""
        if self._transport is None or self._ended or self._transport.is_closing():
            return
        self._transport.write(data)
        if not self._writing and not self._received:
            self._writer = self._loop.create_future()
            self._arm(self._backend.deadline())
            try:
                await self._writer
            finally:
                self._writer = None

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Goes on under TLS."""
        assert self._transport is not None
        try:
            async with asyncio.timeout(self._backend.opening_seconds()):
                transport = await self._loop.start_tls(
                    self._transport,
                    _Decrypted(self),
                    context,
                    server_hostname=host,
                    # Only the timeout above counts; otherwise the loop uses one of its own.
                    ssl_handshake_timeout=_A_DAY,
                )
        except TimeoutError as error:
            self.abort()
            raise ConnectTimeout("timed out") from error
        except (OSError, ssl.SSLError) as error:
            self.abort()
            raise ConnectError(reason(error)) from error
        except BaseException:
            self.abort()
            raise
        if transport is None:
            raise ConnectError("the server closed the connection during the TLS handshake")
        self._transport = transport

    @property
    def sock(self) -> socket.socket | None:
        """The socket; None before the connection stands."""
        return None if self._transport is None else self._transport.get_extra_info("socket")

    def is_readable(self) -> bool:
        """Whether bytes, or the end of the connection, have arrived."""
        if self._ended or self._received or self._transport is None:
            return True
        if self._readable is None:
            self._readable = readable_check(self._transport.get_extra_info("socket"))
        # Not only what the loop has read: the end may still lie in the kernel.
        return bool(self._readable(0))

    def is_flushed(self) -> bool:
        """Whether all that was written has been sent."""
        return self._transport is not None and not self._transport.get_write_buffer_size()

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
        sock = self.sock
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
        error = ReadTimeout if waiter is self._reader else WriteTimeout
        waiter.set_exception(self._backend.timed_out(error))

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

    def __init__(self, stream: AsyncioStream) -> None:
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
