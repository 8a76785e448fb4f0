"""Connection pools in which taking and returning a connection costs the same, however many there are.

The idle connections to the provider's one server are kept on a stack. The newest is reused first, so that after a
burst the surplus ages at the bottom and is dropped from there. Nothing ever scans all of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vllmchat.http.clock import monotonic
from vllmchat.http.transport.connection import AsyncConnection, Route, SyncConnection
from vllmchat.http.transport.decompress import decompressor
from vllmchat.http.transport.mock import is_mocked, mocked_async_client, mocked_sync_client
from vllmchat.http.transport.network_errors import PoolTimeout, ReadError
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Callable

    import anyio
    from anyio import lowlevel

    from vllmchat.http import event_loop, logs
    from vllmchat.http.clock import Clock
    from vllmchat.http.exchange import AsyncOpenResponse, SyncOpenResponse
    from vllmchat.http.flow import Send
    from vllmchat.http.transport import pace
    from vllmchat.http.transport.decompress import Decompressor
else:
    # Sync programs do not need these, and few need the log.
    anyio = LazyModule("anyio")
    lowlevel = LazyModule("anyio.lowlevel")
    event_loop = LazyModule("vllmchat.http.event_loop")
    logs = LazyModule("vllmchat.http.logs")
    pace = LazyModule("vllmchat.http.transport.pace")

KEEP_ALIVE_SECONDS = 4.0
"""How long an idle connection is reused at first. vLLM's server closes it after 5 s, and being late costs a request."""

LONGEST_KEEP_ALIVE = 60.0
"""How long it is reused at most, unless the server names a time of its own. Networks forget silent connections."""

_LONGEST_NAMED = 300.0
_NAMED = re.compile(r"\btimeout\s*=\s*(\d{1,6})\b", re.IGNORECASE)

_KEPT = 1
"""So many idle connections may stay until the next call, even if their server has closed them."""

ConnectionT = TypeVar("ConnectionT", SyncConnection, AsyncConnection)


class IdleStack(Generic[ConnectionT]):
    """The stack of idle connections.

    It learns how long the server keeps them: from its `Keep-Alive` header, else from a connection that is still open
    when its time is over. Then the time is doubled, until the server closes one before. Routers and gateways keep
    connections for minutes, and a new one costs round trips.
    """

    __slots__ = ("_connections", "_most", "_seconds")

    def __init__(self) -> None:
        self._connections: deque[ConnectionT] = deque()
        self._seconds = KEEP_ALIVE_SECONDS
        self._most = LONGEST_KEEP_ALIVE

    def __len__(self) -> int:
        return len(self._connections)

    def push(self, connection: ConnectionT) -> None:
        """Puts a connection that has just become idle on top, and drops the expired ones at the bottom."""
        now = monotonic()
        connection.idle_since = now
        connection.used = True
        connection.backend.clock = None
        if "keep-alive" in connection.headers:
            self._read_header(connection.headers["keep-alive"])
        self._connections.append(connection)
        self.prune(now)

    def prune(self, now: float) -> float | None:
        """Drops the expired ones at the bottom. Returns in how many seconds the next one expires; None without any."""
        connections = self._connections
        while connections:
            left = connections[0].idle_since + self._seconds - now
            if left > 0:
                return left
            reason = self._why_unusable(connections[0], now)
            if reason is not None:
                _close(connections.popleft(), reason)
        return None

    def pop(self) -> ConnectionT | None:
        """The newest idle connection that is still open, or None."""
        now = monotonic()
        while self._connections:
            connection = self._connections.pop()
            reason = self._why_unusable(connection, now)
            if reason is None:
                return connection
            _close(connection, reason)
        return None

    def _why_unusable(self, connection: ConnectionT, now: float) -> str | None:
        """Why a connection cannot be used; None if it can. Learns from it how long the server keeps them."""
        idle = now - connection.idle_since
        if not connection.is_open():
            shorter = self._seconds / 2
            # One that was closed earlier than others says nothing: the server was restarted, for example.
            if shorter >= KEEP_ALIVE_SECONDS and shorter < idle <= self._seconds:
                self._seconds = self._most = shorter
            return "the server closed it while it was idle"
        while self._seconds <= idle and self._seconds < self._most:
            self._seconds = min(self._seconds * 2, self._most)
        return None if idle < self._seconds else "it was idle for too long"

    def _read_header(self, value: str) -> None:
        named = _NAMED.search(value)
        if named is not None:
            seconds = float(named[1])
            # A second earlier than the server, to be sure.
            self._seconds = self._most = min(max(seconds - 1, seconds / 2), _LONGEST_NAMED)

    def limit(self, most: int) -> None:
        """Closes the oldest until at most so many are left."""
        while self._connections and len(self._connections) > most:
            _close(self._connections.popleft(), "max_connections leaves no room for it and a new one")

    def clear(self) -> None:
        """Closes all of them."""
        while self._connections:
            _close(self._connections.pop(), "the provider was closed")


def _close(connection: SyncConnection | AsyncConnection, reason: str) -> None:
    if _is_logged() and connection.is_connected:
        logs.closed(connection.host, reason)
    connection.backend.abort()


def _is_logged() -> bool:
    # Nothing can be imported when the interpreter ends.
    has_log = "logging" in sys.modules and not sys.is_finalizing()
    return has_log and logs.CONNECTIONS.isEnabledFor(logs.DEBUG)


class _Lease(Generic[ConnectionT]):
    """The permission to have a connection, then the connection, then the response on it.

    Whatever interrupts its owner, at whatever line, all of it is given back at the latest when this object is freed.

    Attributes:
        ref: A weak reference to it.
        granted: Whether it is this one's turn.
        connection: The connection; None before and after.
        status: HTTP status of the response.
        headers: Headers of the response.
    """

    __slots__ = ("__weakref__", "_inflate", "connection", "granted", "headers", "ref", "status")

    follows_clock = True

    def __init__(self, gone: Callable[[Any], None]) -> None:
        self.ref: weakref.ref[_Lease[ConnectionT]] = weakref.ref(self, gone)
        hash(self.ref)  # computed while it lives
        self.granted = False
        self.connection: ConnectionT | None = None
        self._inflate: Decompressor | None = None
        self.status = 0
        self.headers: dict[str, str] = {}

    def grant(self) -> None:
        """It is this one's turn."""
        self.granted = True

    def note_head(self, connection: ConnectionT) -> None:
        """The head of the response has arrived."""
        self.status, self.headers = connection.status, connection.headers
        self._inflate = decompressor(connection.headers)


class _Pool(Generic[ConnectionT]):
    """What sync and async pools share."""

    def __init__(self, route: Route, max_connections: int | None) -> None:
        self._route = route
        self._max = max_connections
        self._idle: IdleStack[ConnectionT] = IdleStack()
        self._closed = False
        # Whether a thread or a task drops what expires.
        self._pruned = False
        self._held: set[weakref.ref[_Lease[ConnectionT]]] = set()
        # Called when a lease was freed; it is still held only after an interrupt at the wrong line.
        self.gone = self._held.discard
        self._waiting: deque[weakref.ref[_Lease[ConnectionT]]] = deque()

    def _join(self, lease: _Lease[ConnectionT]) -> None:
        """Joins the queue; `granted` tells whether it has to wait."""
        if self._max is None:
            self._held.add(lease.ref)
            lease.granted = True
        else:
            self._waiting.append(lease.ref)
            self._grant()

    def _grant(self) -> None:
        while self._waiting and (self._max is None or len(self._held) < self._max):
            ref = self._waiting.popleft()
            lease = ref()
            if lease is not None:
                self._held.add(ref)
                lease.grant()

    def _begin(
        self, lease: _Lease[ConnectionT], make: Callable[[Route], ConnectionT], clock: Clock
    ) -> ConnectionT:
        """Takes a connection for a lease."""
        self._closed = False
        connection = None if clock.force_new else self._idle.pop()
        if connection is None and self._max is not None:
            # A new one in place of idle ones, which may all be stale.
            self._idle.limit(self._max - len(self._held))
        connection = lease.connection = connection or make(self._route)
        connection.backend.clock = clock
        clock.reused = connection.used
        clock.start_attempt()
        return connection

    def _leave(self, lease: _Lease[ConnectionT], *, broken: bool) -> None:
        """Takes the connection and the permission back; the latter passes on to whoever has waited longest."""
        connection, lease.connection = lease.connection, None
        if connection is not None:
            if broken:
                _close(connection, "the call ended before its response")
            elif self._closed or not connection.is_idle():
                reason = "the provider was closed" if self._closed else "the server does not keep it open"
                _close(connection, reason)
            else:
                self._idle.push(connection)
        lease.granted = False
        self._held.discard(lease.ref)
        if self._waiting:
            if lease.ref in self._waiting:
                self._waiting.remove(lease.ref)
            self._grant()

    def prune(self) -> float | None:
        """Drops expired connections; returns in how many seconds the next one expires."""
        seconds = self._idle.prune(monotonic())
        self._pruned = seconds is not None
        return seconds

    def _close(self) -> None:
        self._closed = True
        self._idle.clear()


class SyncPool(_Pool[SyncConnection]):
    """The sync connections to one server. Thread-safe within one process.

    While connections are idle, a thread drops those that have expired: their server has closed them, and after a burst
    they may be many.
    """

    def __init__(self, route: Route, max_connections: int | None = None) -> None:
        super().__init__(route, max_connections)
        self._pid = os.getpid()
        # Reentrant: a response that is garbage-collected unread returns its connection wherever that happens.
        self._lock = threading.RLock()

    def send(self, step: Send, clock: Clock) -> SyncOpenResponse:
        """Sends a request and waits for the head of its response.

        Raises:
            NetworkError, TimeoutException, ProtocolError: It failed.
        """
        if is_mocked():
            return mocked_sync_client(self._route).send(step, clock)
        lease = _SyncLease(self)
        try:
            with self._lock:
                self._join(lease)
                connection = self._begin(lease, SyncConnection, clock) if lease.granted else None
            if connection is None:
                self._wait_for_turn(lease, clock)
                with self._lock:
                    connection = self._begin(lease, SyncConnection, clock)
            clock.waiting = connection.backend.interrupt
            connection.send(step, clock)
            clock.waiting = None
            lease.note_head(connection)
            return lease
        except BaseException:
            clock.waiting = None
            self.release(lease, broken=True)
            raise

    def release(self, lease: _SyncLease, *, broken: bool = False) -> None:
        """Takes a connection back."""
        if self._pid != os.getpid():
            # A forked child must not close what its parent uses. The thread that held the lock does not exist here.
            if lease.connection is not None:
                lease.connection.backend.abort()
            return
        with self._lock:
            self._leave(lease, broken=broken)
            if len(self._idle) > _KEPT and not self._pruned:
                self._pruned = True
                threading.Thread(
                    target=_prune, args=(weakref.ref(self),), name="vllmchat-idle", daemon=True
                ).start()

    def prune(self) -> float | None:
        """Drops expired connections; returns in how many seconds the next one expires."""
        with self._lock:
            return super().prune()

    def close(self) -> None:
        """Closes the idle connections, and those in use when they are returned. The next request opens new ones."""
        if self._pid != os.getpid():
            self._idle.clear()
            return
        with self._lock:
            self._close()

    def _wait_for_turn(self, lease: _SyncLease, clock: Clock) -> None:
        with self._lock:
            turn = threading.Lock()
            turn.acquire()
            lease.turn = turn
        clock.waiting = lease.wake
        # Without the lock. In the meantime, the garbage collector may have found an abandoned response.
        if not lease.granted and not clock.interrupted:
            turn.acquire(timeout=min(clock.total_seconds(), threading.TIMEOUT_MAX))
        if not lease.granted:
            raise (ReadError("interrupted") if clock.interrupted else PoolTimeout("timed out"))


def _prune(pool: weakref.ref[SyncPool]) -> None:
    seconds: float | None = KEEP_ALIVE_SECONDS
    while seconds is not None:
        time.sleep(seconds)
        alive = pool()
        seconds = alive.prune() if alive is not None else None
        del alive


class AsyncPool(_Pool[AsyncConnection]):
    """The async connections to one server on one event loop."""

    def __init__(self, route: Route, max_connections: int | None = None) -> None:
        super().__init__(route, max_connections)
        self.event_loop = event_loop.EventLoopHandle()
        self._pace = pace.Pace(self.event_loop)

    async def send(self, step: Send, clock: Clock) -> AsyncOpenResponse:
        """Sends a request and waits for the head of its response.

        Raises:
            NetworkError, TimeoutException, ProtocolError: It failed.
        """
        if is_mocked():
            return await mocked_async_client(self._route).send(step, clock)
        lease = _AsyncLease(self)
        try:
            self._join(lease)
            if not lease.granted:
                await self._wait_for_turn(lease, clock)
            connection = self._begin(lease, AsyncConnection, clock)
            if not connection.is_connected:
                await self._pace.turn()
            await connection.send(step, clock)
            lease.note_head(connection)
            return lease
        except BaseException:
            self.release(lease, broken=True)
            raise

    def release(self, lease: _AsyncLease, *, broken: bool = False) -> None:
        """Takes a connection back."""
        self._leave(lease, broken=broken)
        if len(self._idle) > _KEPT and not self._pruned and self.event_loop.is_trio:
            # asyncio notices by itself that a server closes a connection.
            self._pruned = True
            self.event_loop.start(_aprune, weakref.ref(self))

    def close(self) -> None:
        """Closes the idle connections, and those in use when they are returned. The next request opens new ones.

        May be called from any thread.
        """
        self.event_loop.run(self._close)

    def end(self) -> None:
        """Closes all connections, including those in use: their event loop is ending."""
        self._close()
        for ref in list(self._held):
            lease = ref()
            if lease is not None and lease.connection is not None:
                lease.connection.backend.abort()

    async def _wait_for_turn(self, lease: _AsyncLease, clock: Clock) -> None:
        lease.turn = anyio.Event()
        # In the meantime, the garbage collector may have found an abandoned response.
        if not lease.granted:
            with anyio.move_on_after(clock.total_seconds()):
                await lease.turn.wait()
        if not lease.granted:
            raise PoolTimeout("timed out")


async def _aprune(pool: weakref.ref[AsyncPool]) -> None:
    seconds: float | None = KEEP_ALIVE_SECONDS
    while seconds is not None:
        await anyio.sleep(seconds)
        alive = pool()
        seconds = alive.prune() if alive is not None else None
        del alive


class _SyncLease(_Lease[SyncConnection]):
    __slots__ = ("_pool", "turn")

    def __init__(self, pool: SyncPool) -> None:
        super().__init__(pool.gone)
        self._pool = pool
        self.turn: threading.Lock | None = None

    def grant(self) -> None:
        super().grant()
        self.wake()

    def wake(self) -> None:
        """Ends the wait for its turn, if there is one."""
        if self.turn is not None:
            # RuntimeError: it has been woken already.
            with contextlib.suppress(RuntimeError):
                self.turn.release()

    def read(self) -> bytes:
        connection = self.connection
        if connection is None:
            return b""
        try:
            read = connection.read
            data = read() if self._inflate is None else self._inflate.next_piece(read)
            if data:
                return data
        except BaseException:
            self.close()
            raise
        self._pool.release(self)
        return b""

    def close(self) -> None:
        if self.connection is not None:
            self._pool.release(self, broken=True)

    def interrupt(self) -> None:
        connection = self.connection
        if connection is not None:
            connection.backend.interrupt()

    def __del__(self) -> None:
        if self.granted:
            self._pool.release(self, broken=True)


class _AsyncLease(_Lease[AsyncConnection]):
    __slots__ = ("_pool", "turn")

    def __init__(self, pool: AsyncPool) -> None:
        super().__init__(pool.gone)
        self._pool = pool
        self.turn: anyio.Event | None = None

    def grant(self) -> None:
        super().grant()
        if self.turn is not None:
            self.turn.set()

    async def read(self) -> bytes:
        connection = self.connection
        if connection is None:
            return b""
        try:
            read = connection.read
            data = await (read() if self._inflate is None else self._inflate.next_piece_async(read))
            if data:
                return data
        except BaseException:
            self._break_off()
            raise
        self._pool.release(self)
        return b""

    async def aclose(self) -> None:
        if self.connection is not None:
            self._break_off()
            with anyio.CancelScope(shield=True):
                # The event loop closes the socket in its next iteration: after this, the server can notice.
                await lowlevel.checkpoint()

    def abort(self) -> None:
        self._pool.event_loop.run(self._break_off)

    def _break_off(self) -> None:
        if self.granted:
            self._pool.release(self, broken=True)

    def __del__(self) -> None:
        if self.granted:
            self.abort()
