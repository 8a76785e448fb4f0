"""Connection pools in which taking and returning a connection costs the same, however many there are.

The idle connections to the provider's one server are kept on a stack. The newest is reused first, so that after a
burst the surplus ages at the bottom and is dropped from there. Nothing ever scans all of them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.lowlevel
import httpcore

from vllmchat.http.clock import monotonic
from vllmchat.http.transport.connection import (
    AsyncConnection,
    PlainAsyncConnection,
    PlainSyncConnection,
    Route,
    SyncConnection,
)
from vllmchat.http.transport.decompress import decompressor
from vllmchat.http.transport.event_loop import EventLoopHandle, exhaust
from vllmchat.http.transport.httpcore_connection import HttpcoreAsyncConnection, HttpcoreSyncConnection

if TYPE_CHECKING:
    from vllmchat.http.clock import Clock
    from vllmchat.http.exchange import AsyncOpenResponse, SyncOpenResponse
    from vllmchat.http.flow import Send

KEEP_ALIVE_SECONDS = 4.0
"""How long an idle connection is reused. vLLM's server closes it after 5 s, and being late would lose a request."""


ConnectionT = TypeVar("ConnectionT", SyncConnection, AsyncConnection)


class IdleStack(Generic[ConnectionT]):
    """The stack of idle connections."""

    __slots__ = ("_connections",)

    def __init__(self) -> None:
        self._connections: deque[ConnectionT] = deque()

    def __len__(self) -> int:
        return len(self._connections)

    def push(self, connection: ConnectionT) -> None:
        """Puts a connection that has just become idle on top, and drops the expired ones at the bottom."""
        now = monotonic()
        connection.expires = now + KEEP_ALIVE_SECONDS
        connection.used = True
        connection.backend.clock = None
        self._connections.append(connection)
        while self._connections[0].expires <= now:
            self._connections.popleft().backend.abort()

    def pop(self) -> ConnectionT | None:
        """The newest idle connection that is still open, or None."""
        now = monotonic()
        while self._connections:
            connection = self._connections.pop()
            if connection.expires > now and connection.is_open():
                return connection
            connection.backend.abort()
        return None

    def clear(self) -> None:
        """Closes all of them."""
        while self._connections:
            self._connections.pop().backend.abort()


class SyncPool:
    """The sync connections to one server. Thread-safe within one process."""

    def __init__(self, route: Route, max_connections: int | None = None) -> None:
        self._route = route
        self._max = max_connections
        self._pid = os.getpid()
        # Reentrant: a response that is garbage-collected unread returns its connection wherever that happens.
        self._lock = threading.RLock()
        self._idle: IdleStack[SyncConnection] = IdleStack()
        self._closed = False
        self._in_use = 0
        self._waiting: deque[threading.Lock] = deque()

    def send(self, step: Send, clock: Clock) -> SyncOpenResponse:
        """Sends a request and waits for the head of its response.

        Raises:
            httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: It failed.
        """
        connection = self._take(clock)
        try:
            connection.send(step, clock)
            return _SyncOpenResponse(self, connection)
        except BaseException:
            self.release(connection, broken=True)
            raise

    def release(self, connection: SyncConnection, *, broken: bool = False) -> None:
        """Takes a connection back."""
        if self._pid != os.getpid():
            # A forked child must not close what its parent uses. The thread that held the lock does not exist here.
            connection.backend.abort()
            return
        with self._lock:
            if not broken and not self._closed and connection.is_idle():
                self._idle.push(connection)
            else:
                connection.backend.abort()
            self._leave()

    def close(self) -> None:
        """Closes the idle connections, and those in use when they are returned. The next request opens new ones."""
        if self._pid != os.getpid():
            self._idle.clear()
            return
        with self._lock:
            self._closed = True
            self._idle.clear()

    def _take(self, clock: Clock) -> SyncConnection:
        self._admit(clock)
        try:
            with self._lock:
                self._closed = False
                connection = None if clock.force_new or is_mocked() else self._idle.pop()
            if connection is None:
                connection = sync_connection(self._route)
        except BaseException:
            with self._lock:
                self._leave()
            raise
        connection.backend.clock = clock
        clock.reused = connection.used
        clock.start_attempt()
        return connection

    def _admit(self, clock: Clock) -> None:
        with self._lock:
            if self._max is None or self._in_use < self._max:
                self._in_use += 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
            if self._in_use < self._max:
                # In the meantime, the garbage collector has found an abandoned response.
                self._waiting.remove(turn)
                self._in_use += 1
                return
        try:
            turn.acquire(timeout=min(clock.total_seconds(), threading.TIMEOUT_MAX))
        except BaseException:
            with self._lock:
                if not self._left_queue(turn):
                    self._leave()
            raise
        with self._lock:
            if self._left_queue(turn):
                raise httpcore.PoolTimeout("timed out")

    def _left_queue(self, turn: threading.Lock) -> bool:
        """Leaves the queue; False if it is too late, because the turn has come."""
        if turn in self._waiting:
            self._waiting.remove(turn)
            return True
        return False

    def _leave(self) -> None:
        if self._waiting:
            # The permission passes on to whoever has waited longest.
            self._waiting.popleft().release()
        else:
            self._in_use -= 1


class AsyncPool:
    """The async connections to one server on one event loop."""

    def __init__(self, route: Route, max_connections: int | None = None) -> None:
        self.event_loop = EventLoopHandle()
        self._route = route
        self._max = max_connections
        self._idle: IdleStack[AsyncConnection] = IdleStack()
        self._busy: set[AsyncConnection] = set()
        self._closed = False
        self._in_use = 0
        self._waiting: deque[anyio.Event] = deque()

    async def send(self, step: Send, clock: Clock) -> AsyncOpenResponse:
        """Sends a request and waits for the head of its response.

        Raises:
            httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: It failed.
        """
        connection = await self._take(clock)
        try:
            await connection.send(step, clock)
            return _AsyncOpenResponse(self, connection)
        except BaseException:
            self.release(connection, broken=True)
            raise

    def release(self, connection: AsyncConnection, *, broken: bool = False) -> None:
        """Takes a connection back."""
        self._busy.discard(connection)
        if not broken and not self._closed and connection.is_idle():
            self._idle.push(connection)
        else:
            connection.backend.abort()
        self._leave()

    def close(self) -> None:
        """Closes the idle connections, and those in use when they are returned. The next request opens new ones.

        May be called from any thread.
        """
        self.event_loop.run(self._close)

    def end(self) -> None:
        """Closes all connections, including those in use: their event loop is ending."""
        self._close()
        for connection in list(self._busy):
            connection.backend.abort()

    def _close(self) -> None:
        self._closed = True
        self._idle.clear()

    async def _take(self, clock: Clock) -> AsyncConnection:
        if self._max is None or self._in_use < self._max:
            self._in_use += 1
        else:
            await self._wait_for_turn(clock)
        try:
            self._closed = False
            connection = None if clock.force_new or is_mocked() else self._idle.pop()
            if connection is None:
                connection = async_connection(self._route)
        except BaseException:
            self._leave()
            raise
        self._busy.add(connection)
        connection.backend.clock = clock
        clock.reused = connection.used
        clock.start_attempt()
        return connection

    async def _wait_for_turn(self, clock: Clock) -> None:
        turn = anyio.Event()
        self._waiting.append(turn)
        if self._max is not None and self._in_use < self._max:
            # In the meantime, the garbage collector has found an abandoned response.
            self._waiting.remove(turn)
            self._in_use += 1
            return
        try:
            with anyio.move_on_after(clock.total_seconds()):
                await turn.wait()
        except BaseException:
            # Cancelled. If the turn came at the same moment, it passes on to the next in the queue.
            if turn.is_set():
                self._leave()
            else:
                self._waiting.remove(turn)
            raise
        if not turn.is_set():
            self._waiting.remove(turn)
            raise httpcore.PoolTimeout("timed out")

    def _leave(self) -> None:
        if self._waiting:
            # The permission passes on to whoever has waited longest.
            self._waiting.popleft().set()
        else:
            self._in_use -= 1


class _SyncOpenResponse:
    __slots__ = ("_connection", "_inflate", "_open", "_pool", "headers", "status")

    follows_clock = True

    def __init__(self, pool: SyncPool, connection: SyncConnection) -> None:
        self.status = connection.status
        self.headers = connection.headers
        self._pool = pool
        self._connection = connection
        self._inflate = decompressor(connection.headers)
        self._open = True

    def read(self) -> bytes:
        if not self._open:
            return b""
        try:
            read = self._connection.read
            data = read() if self._inflate is None else self._inflate.next_piece(read)
            if data:
                return data
        except BaseException:
            self._finish(broken=True)
            raise
        self._finish()
        return b""

    def close(self) -> None:
        self._finish(broken=True)

    def _finish(self, *, broken: bool = False) -> None:
        if self._open:
            self._open = False
            self._pool.release(self._connection, broken=broken)

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()


class _AsyncOpenResponse:
    __slots__ = ("_connection", "_inflate", "_open", "_pool", "headers", "status")

    def __init__(self, pool: AsyncPool, connection: AsyncConnection) -> None:
        self.status = connection.status
        self.headers = connection.headers
        self._pool = pool
        self._connection = connection
        self._inflate = decompressor(connection.headers)
        self._open = True

    async def read(self) -> bytes:
        if not self._open:
            return b""
        try:
            read = self._connection.read
            data = await (read() if self._inflate is None else self._inflate.next_piece_async(read))
            if data:
                return data
        except BaseException:
            await self._break_off()
            raise
        self._finish()
        return b""

    async def aclose(self) -> None:
        if self._open:
            await self._break_off()

    async def _break_off(self) -> None:
        self._finish(broken=True)
        pieces = self._connection.pending_body()
        with anyio.CancelScope(shield=True):
            if pieces is not None:
                await exhaust(pieces)
            # The event loop closes the socket in its next iteration: after this, the server can notice.
            await anyio.lowlevel.checkpoint()

    def abort(self) -> None:
        self._pool.event_loop.run(self._abort)

    def _abort(self) -> None:
        if self._open:
            self._finish(broken=True)
            pieces = self._connection.pending_body()
            if pieces is not None:
                self._pool.event_loop.start(exhaust, pieces)

    def _finish(self, *, broken: bool = False) -> None:
        if self._open:
            self._open = False
            self._pool.release(self._connection, broken=broken)

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.abort()


def sync_connection(route: Route) -> SyncConnection:
    """A new connection, which opens with its first request."""
    return (
        PlainSyncConnection(route)
        if route.proxy is None and not is_mocked()
        else HttpcoreSyncConnection(route)
    )


def async_connection(route: Route) -> AsyncConnection:
    """A new connection, which opens with its first request."""
    return (
        PlainAsyncConnection(route)
        if route.proxy is None and not is_mocked()
        else HttpcoreAsyncConnection(route)
    )


def is_mocked() -> bool:
    """Whether httpcore's way to send requests is patched: mocks do that, and expect to see all requests."""
    return not (
        _is_own(httpcore.HTTPConnection.handle_request)
        and _is_own(httpcore.AsyncHTTPConnection.handle_async_request)
    )


def _is_own(function: object) -> bool:
    # Not compared with what it was at import: a mock may have been active then.
    return str(getattr(function, "__globals__", {}).get("__name__")).startswith("httpcore.")
