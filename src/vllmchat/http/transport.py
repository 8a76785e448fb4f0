"""Connection pools in which taking and returning a connection costs the same, however many there are.

The idle connections to the provider's one server are kept on a stack. The newest is reused first, so that after a
burst the surplus ages at the bottom and is dropped from there. Nothing ever scans all of them.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import anyio
import anyio.lowlevel
import httpcore

from vllmchat.http.clock import monotonic
from vllmchat.http.line import AsyncLine, Route, SyncLine, async_line, is_mocked, sync_line
from vllmchat.http.network import Home, run_out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Send

KEEP_ALIVE_SECONDS = 4.0
"""How long an idle connection is reused. vLLM's server closes it after 5 s, and being late would lose a request."""


class SyncAnswer(Protocol):
    """A response whose head has arrived."""

    status: int
    headers: dict[str, str]
    follows_clock: bool
    """Whether each read waits as long as the clock says then; otherwise as long as it said when the body began."""

    def read(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at the end, when the connection is free again."""
        ...

    def close(self) -> None:
        """Ends the exchange. If the body was not read to its end, the connection is closed."""
        ...


class AsyncAnswer(Protocol):
    """A response whose head has arrived."""

    status: int
    headers: dict[str, str]

    async def read(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at the end, when the connection is free again."""
        ...

    async def aclose(self) -> None:
        """Ends the exchange. If the body was not read to its end, the connection is closed."""
        ...

    def abort(self) -> None:
        """The same without waiting, as far as possible; for finalizers."""
        ...


LineT = TypeVar("LineT", SyncLine, AsyncLine)


class IdleLines(Generic[LineT]):
    """The stack of idle connections."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: deque[LineT] = deque()

    def __len__(self) -> int:
        return len(self._lines)

    def push(self, line: LineT) -> None:
        """Puts a connection that has just become idle on top, and drops the expired ones at the bottom."""
        now = monotonic()
        line.expires = now + KEEP_ALIVE_SECONDS
        line.used = True
        line.wire.clock = None
        self._lines.append(line)
        while self._lines[0].expires <= now:
            self._lines.popleft().wire.abort()

    def pop(self) -> LineT | None:
        """The newest idle connection that is still open, or None."""
        now = monotonic()
        while self._lines:
            line = self._lines.pop()
            if line.expires > now and line.is_open():
                return line
            line.wire.abort()
        return None

    def clear(self) -> None:
        """Closes all of them."""
        while self._lines:
            self._lines.pop().wire.abort()


class SyncPool:
    """The sync connections to one server. Thread-safe within one process."""

    def __init__(self, route: Route, max_connections: int | None = None) -> None:
        self._route = route
        self._max = max_connections
        self._pid = os.getpid()
        # Reentrant: a response that is garbage-collected unread returns its connection wherever that happens.
        self._lock = threading.RLock()
        self._idle: IdleLines[SyncLine] = IdleLines()
        self._closed = False
        self._in_use = 0
        self._waiting: deque[threading.Lock] = deque()

    def send(self, step: Send, clock: Clock) -> SyncAnswer:
        """Sends a request and waits for the head of its response.

        Raises:
            httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: It failed.
        """
        line = self._take(clock)
        try:
            line.send(step, clock)
            return _SyncAnswer(self, line)
        except BaseException:
            self.release(line, broken=True)
            raise

    def release(self, line: SyncLine, *, broken: bool = False) -> None:
        """Takes a connection back."""
        if self._pid != os.getpid():
            # A forked child must not close what its parent uses. The thread that held the lock does not exist here.
            line.wire.abort()
            return
        with self._lock:
            if not broken and not self._closed and line.is_idle():
                self._idle.push(line)
            else:
                line.wire.abort()
            self._leave()

    def close(self) -> None:
        """Closes the idle connections, and those in use when they are returned. The next request opens new ones."""
        if self._pid != os.getpid():
            self._idle.clear()
            return
        with self._lock:
            self._closed = True
            self._idle.clear()

    def _take(self, clock: Clock) -> SyncLine:
        self._admit(clock)
        try:
            with self._lock:
                self._closed = False
                line = None if clock.fresh or is_mocked() else self._idle.pop()
            if line is None:
                line = sync_line(self._route)
        except BaseException:
            with self._lock:
                self._leave()
            raise
        line.wire.clock = clock
        clock.reused = line.used
        clock.start_attempt()
        return line

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
        self.home = Home()
        self._route = route
        self._max = max_connections
        self._idle: IdleLines[AsyncLine] = IdleLines()
        self._busy: set[AsyncLine] = set()
        self._closed = False
        self._in_use = 0
        self._waiting: deque[anyio.Event] = deque()

    async def send(self, step: Send, clock: Clock) -> AsyncAnswer:
        """Sends a request and waits for the head of its response.

        Raises:
            httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: It failed.
        """
        line = await self._take(clock)
        try:
            await line.send(step, clock)
            return _AsyncAnswer(self, line)
        except BaseException:
            self.release(line, broken=True)
            raise

    def release(self, line: AsyncLine, *, broken: bool = False) -> None:
        """Takes a connection back."""
        self._busy.discard(line)
        if not broken and not self._closed and line.is_idle():
            self._idle.push(line)
        else:
            line.wire.abort()
        self._leave()

    def close(self) -> None:
        """Closes the idle connections, and those in use when they are returned. The next request opens new ones.

        May be called from any thread.
        """
        self.home.run(self._close)

    def end(self) -> None:
        """Closes all connections, including those in use: their event loop is ending."""
        self._close()
        for line in list(self._busy):
            line.wire.abort()

    def _close(self) -> None:
        self._closed = True
        self._idle.clear()

    async def _take(self, clock: Clock) -> AsyncLine:
        if self._max is None or self._in_use < self._max:
            self._in_use += 1
        else:
            await self._wait_for_turn(clock)
        try:
            self._closed = False
            line = None if clock.fresh or is_mocked() else self._idle.pop()
            if line is None:
                line = async_line(self._route)
        except BaseException:
            self._leave()
            raise
        self._busy.add(line)
        line.wire.clock = clock
        clock.reused = line.used
        clock.start_attempt()
        return line

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


class _SyncAnswer:
    __slots__ = ("_inflate", "_line", "_open", "_pool", "headers", "status")

    follows_clock = True

    def __init__(self, pool: SyncPool, line: SyncLine) -> None:
        self.status = line.status
        self.headers = line.headers
        self._pool = pool
        self._line = line
        self._inflate = _inflater(line.headers)
        self._open = True

    def read(self) -> bytes:
        if not self._open:
            return b""
        try:
            read = self._line.read
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
            self._pool.release(self._line, broken=broken)

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()


class _AsyncAnswer:
    __slots__ = ("_inflate", "_line", "_open", "_pool", "headers", "status")

    def __init__(self, pool: AsyncPool, line: AsyncLine) -> None:
        self.status = line.status
        self.headers = line.headers
        self._pool = pool
        self._line = line
        self._inflate = _inflater(line.headers)
        self._open = True

    async def read(self) -> bytes:
        if not self._open:
            return b""
        try:
            read = self._line.read
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
        pieces = self._line.left_over()
        with anyio.CancelScope(shield=True):
            if pieces is not None:
                await run_out(pieces)
            # The event loop closes the socket in its next iteration: after this, the server can notice.
            await anyio.lowlevel.checkpoint()

    def abort(self) -> None:
        self._pool.home.run(self._abort)

    def _abort(self) -> None:
        if self._open:
            self._finish(broken=True)
            pieces = self._line.left_over()
            if pieces is not None:
                self._pool.home.start(run_out, pieces)

    def _finish(self, *, broken: bool = False) -> None:
        if self._open:
            self._open = False
            self._pool.release(self._line, broken=broken)

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.abort()


class _Inflater:
    """Decompresses a body that should not be compressed, in steps, so that a small body cannot explode in memory."""

    _STEP = 1024 * 1024

    def __init__(self) -> None:
        # 32 + 15: gzip or zlib, detected from the data.
        self._inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)
        self._begun = False

    def next_piece(self, read: Callable[[], bytes]) -> bytes:
        while True:
            source = self._inflate.unconsumed_tail or read()
            data = self._step(source)
            if data or not source:
                return data

    async def next_piece_async(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        while True:
            source = self._inflate.unconsumed_tail or await read()
            data = self._step(source)
            if data or not source:
                return data

    def _step(self, source: bytes) -> bytes:
        self._begun = self._begun or bool(source)
        if self._inflate.eof and (source or self._inflate.unused_data):
            # It may be endless, and none of it would count.
            raise httpcore.RemoteProtocolError("the compressed body goes on after its end")
        try:
            data = self._inflate.decompress(source, self._STEP)
        except zlib.error as error:
            raise httpcore.RemoteProtocolError(f"the compressed body is corrupt: {error}") from error
        if not source and not data and self._begun and not self._inflate.eof:
            raise httpcore.RemoteProtocolError("the compressed body ends too early")
        return data


def _inflater(headers: dict[str, str]) -> _Inflater | None:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return None
    if coding in ("gzip", "x-gzip", "deflate"):
        return _Inflater()
    raise httpcore.RemoteProtocolError(
        f"the server sent content-encoding {coding!r}, which was not requested"
    )
