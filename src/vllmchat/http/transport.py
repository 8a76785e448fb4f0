"""Connection pools in which taking and returning a connection costs the same however many there are.

The idle connections of the one server that a provider talks to lie on a stack. The newest is taken first, so that
after a burst the surplus grows old at the bottom and is dropped from there. Nothing ever looks through all of them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import anyio
import anyio.lowlevel
import httpcore

from vllmchat.http.clock import monotonic
from vllmchat.http.network import AsyncWire, SyncWire, loop_poster

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Send
    from vllmchat.http.url import BaseURL

KEEP_ALIVE_SECONDS = 4.0
"""How long an idle connection is used again. vLLM's server closes it after 5 s; to be late is to lose a request."""


class SyncAnswer(Protocol):
    """An answer whose head has come."""

    status: int
    headers: dict[str, str]
    follows_clock: bool
    """Whether each read waits as long as the clock says then; else as long as it said when the body began."""

    def read(self) -> bytes:
        """The next bytes of the body, as they come; empty at the end, when the connection is free again."""
        ...

    def close(self) -> None:
        """Ends the exchange; a body that was not read to its end costs the connection."""
        ...


class AsyncAnswer(Protocol):
    """An answer whose head has come."""

    status: int
    headers: dict[str, str]

    async def read(self) -> bytes:
        """The next bytes of the body, as they come; empty at the end, when the connection is free again."""
        ...

    async def aclose(self) -> None:
        """Ends the exchange; a body that was not read to its end costs the connection."""
        ...

    def abort(self) -> None:
        """The same without awaiting, as far as that is possible; for finalisers."""
        ...


class SyncLine:
    """One blocking connection."""

    __slots__ = ("connection", "expires", "used", "wire")

    def __init__(self, base: BaseURL, ssl_context: Callable[[], ssl.SSLContext]) -> None:
        self.wire = SyncWire()
        self.connection = httpcore.HTTPConnection(
            _origin(base),
            ssl_context=ssl_context() if base.scheme == "https" else None,
            network_backend=self.wire,
        )
        self.expires = 0.0
        self.used = False


class AsyncLine:
    """One asynchronous connection."""

    __slots__ = ("connection", "expires", "used", "wire")

    def __init__(self, base: BaseURL, ssl_context: Callable[[], ssl.SSLContext]) -> None:
        self.wire = AsyncWire()
        self.connection = httpcore.AsyncHTTPConnection(
            _origin(base),
            ssl_context=ssl_context() if base.scheme == "https" else None,
            network_backend=self.wire,
        )
        self.expires = 0.0
        self.used = False


LineT = TypeVar("LineT", SyncLine, AsyncLine)


class IdleLines(Generic[LineT]):
    """The stack of idle connections."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: deque[LineT] = deque()

    def __len__(self) -> int:
        return len(self._lines)

    def push(self, line: LineT) -> None:
        """Puts a connection that has just become idle on top, and drops what has grown old at the bottom."""
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
            if line.expires > now and not line.connection.has_expired():
                return line
            line.wire.abort()
        return None

    def clear(self) -> None:
        """Closes all."""
        while self._lines:
            self._lines.pop().wire.abort()


class SyncPool:
    """The blocking connections to one server; safe to use from many threads."""

    def __init__(
        self, base: BaseURL, ssl_context: Callable[[], ssl.SSLContext], max_connections: int | None = None
    ) -> None:
        self._base = base
        self._ssl_context = ssl_context
        self._max = max_connections
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        # Reentrant, since an answer that is collected unread returns its connection from wherever that happens.
        self._lock = threading.RLock()
        self._idle: IdleLines[SyncLine] = IdleLines()
        self._closed = False
        self._in_use = 0
        self._waiting: deque[threading.Lock] = deque()

    def send(self, step: Send, clock: Clock) -> SyncAnswer:
        """Sends a request and waits for the head of its answer.

        Raises:
            httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: It failed.
        """
        line = self._take(clock)
        try:
            response = line.connection.handle_request(_request(self._base, step, clock))
            return _SyncAnswer(self, line, response)
        except BaseException:
            self.release(line, broken=True)
            raise

    def release(self, line: SyncLine, *, broken: bool = False) -> None:
        """Takes a connection back."""
        with self._lock:
            if not broken and not self._closed and line.connection.is_idle():
                self._idle.push(line)
            else:
                line.wire.abort()
            if self._waiting:
                # The right to a connection passes on to who has waited longest.
                self._waiting.popleft().release()
            else:
                self._in_use -= 1

    def close(self) -> None:
        """Closes the idle connections; those in use follow when they come back. The next request opens new ones."""
        with self._lock:
            self._closed = True
            self._idle.clear()

    def _take(self, clock: Clock) -> SyncLine:
        if self._pid != os.getpid():
            # After a fork the connections belong to the parent process.
            self._idle.clear()
            self._reset()
        self._admit(clock)
        try:
            with self._lock:
                self._closed = False
                line = None if clock.fresh else self._idle.pop()
            if line is None:
                line = SyncLine(self._base, self._ssl_context)
        except BaseException:
            self._leave()
            raise
        line.wire.clock = clock
        clock.reused = line.used
        clock.start_attempt()
        return line

    def _admit(self, clock: Clock) -> None:
        with self._lock:
            if self._max is None or (self._in_use < self._max and not self._waiting):
                self._in_use += 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire(timeout=min(clock.total_seconds(), threading.TIMEOUT_MAX))
        except BaseException:
            if not self._left_queue(turn):
                self._leave()
            raise
        if self._left_queue(turn):
            raise httpcore.PoolTimeout("timed out")

    def _left_queue(self, turn: threading.Lock) -> bool:
        """Leaves the queue; False when there is nothing to leave, because the turn has come."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return True
        return False

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._in_use -= 1


class AsyncPool:
    """The connections to one server on one event loop."""

    def __init__(
        self, base: BaseURL, ssl_context: Callable[[], ssl.SSLContext], max_connections: int | None = None
    ) -> None:
        self._base = base
        self._ssl_context = ssl_context
        self._max = max_connections
        self._idle: IdleLines[AsyncLine] = IdleLines()
        self._closed = False
        self._in_use = 0
        self._waiting: deque[anyio.Event] = deque()
        self._thread = threading.get_ident()
        self._post = loop_poster()

    async def send(self, step: Send, clock: Clock) -> AsyncAnswer:
        """Sends a request and waits for the head of its answer.

        Raises:
            httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: It failed.
        """
        line = await self._take(clock)
        try:
            response = await line.connection.handle_async_request(_request(self._base, step, clock))
            return _AsyncAnswer(self, line, response)
        except BaseException:
            self.release(line, broken=True)
            raise

    def release(self, line: AsyncLine, *, broken: bool = False) -> None:
        """Takes a connection back."""
        if not broken and not self._closed and line.connection.is_idle():
            self._idle.push(line)
        else:
            line.wire.abort()
        self._leave()

    async def aclose(self) -> None:
        """Closes the idle connections; those in use follow when they come back. The next request opens new ones."""
        self.abort()
        # The event loop lets go of the sockets in its next round; one that ended before that would complain.
        await anyio.lowlevel.checkpoint()

    def abort(self) -> None:
        """The same without awaiting."""
        self._closed = True
        self._idle.clear()

    def post(self, job: Callable[[], None]) -> None:
        """Runs a job on the pool's event loop, from any thread; nowhere when that loop has ended."""
        if threading.get_ident() == self._thread:
            job()
        else:
            with contextlib.suppress(RuntimeError):
                self._post(job)

    async def _take(self, clock: Clock) -> AsyncLine:
        if self._max is None or (self._in_use < self._max and not self._waiting):
            self._in_use += 1
        else:
            await self._wait_for_turn(clock)
        try:
            self._closed = False
            line = None if clock.fresh else self._idle.pop()
            if line is None:
                line = AsyncLine(self._base, self._ssl_context)
        except BaseException:
            self._leave()
            raise
        line.wire.clock = clock
        clock.reused = line.used
        clock.start_attempt()
        return line

    async def _wait_for_turn(self, clock: Clock) -> None:
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            with anyio.move_on_after(clock.total_seconds()):
                await turn.wait()
        except BaseException:
            # Cancelled. A turn that had come in the same moment goes on to the next in the queue.
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
            # The right to a connection passes on to who has waited longest.
            self._waiting.popleft().set()
        else:
            self._in_use -= 1


class _SyncAnswer:
    __slots__ = ("_inflate", "_line", "_open", "_pieces", "_pool", "_response", "headers", "status")

    follows_clock = True

    def __init__(self, pool: SyncPool, line: SyncLine, response: httpcore.Response) -> None:
        self.status = response.status
        self.headers = _headers(response)
        self._pool = pool
        self._line = line
        self._response = response
        self._inflate = _inflater(self.headers)
        self._pieces: Iterator[bytes] = iter(cast("Iterable[bytes]", response.stream))
        self._open = True

    def read(self) -> bytes:
        if not self._open:
            return b""
        try:
            if self._inflate is not None:
                data = self._inflate.next_piece(lambda: next(self._pieces, b""))
            else:
                data = next(self._pieces, b"")
            if data:
                return data
            self._response.close()
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
    __slots__ = ("_inflate", "_line", "_open", "_pieces", "_pool", "_response", "headers", "status")

    def __init__(self, pool: AsyncPool, line: AsyncLine, response: httpcore.Response) -> None:
        self.status = response.status
        self.headers = _headers(response)
        self._pool = pool
        self._line = line
        self._response = response
        self._inflate = _inflater(self.headers)
        self._pieces: AsyncIterator[bytes] = aiter(cast("AsyncIterable[bytes]", response.stream))
        self._open = True

    async def read(self) -> bytes:
        if not self._open:
            return b""
        try:
            if self._inflate is not None:
                data = await self._inflate.next_piece_async(lambda: anext(self._pieces, b""))
            else:
                data = await anext(self._pieces, b"")
            if data:
                return data
            await self._response.aclose()
        except BaseException:
            self._finish(broken=True)
            raise
        self._finish()
        return b""

    async def aclose(self) -> None:
        if not self._open:
            return
        self._finish(broken=True)
        # The generators below end with the connection's error. Left unfinished, the event loop would have to end
        # them when they are collected, and trio complains about that.
        with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
            while await anext(self._pieces, b""):
                pass

    def abort(self) -> None:
        self._pool.post(lambda: self._finish(broken=True))

    def _finish(self, *, broken: bool = False) -> None:
        if self._open:
            self._open = False
            self._pool.release(self._line, broken=broken)

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.abort()


class _Inflater:
    """Undoes a compression that nobody asked for, in steps, so that a small body cannot become a huge one at once."""

    _STEP = 1024 * 1024

    def __init__(self) -> None:
        # 32 + 15: gzip or zlib, as the data says.
        self._inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)

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
        try:
            return self._inflate.decompress(source, self._STEP)
        except zlib.error as error:
            raise httpcore.RemoteProtocolError(f"the compressed body is broken: {error}") from error


def _inflater(headers: dict[str, str]) -> _Inflater | None:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return None
    if coding in ("gzip", "x-gzip", "deflate"):
        return _Inflater()
    raise httpcore.RemoteProtocolError(
        f"the server sent content-encoding {coding!r}, which was not asked for"
    )


def _origin(base: BaseURL) -> httpcore.Origin:
    return httpcore.Origin(base.scheme.encode(), base.host.encode("ascii"), base.port)


def _request(base: BaseURL, step: Send, clock: Clock) -> httpcore.Request:
    host = base.origin.partition("://")[2]
    headers = [(b"Host", host.encode("ascii"))]
    headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in step.headers]
    if step.body is not None:
        headers.append((b"Content-Length", str(len(step.body)).encode()))
    return httpcore.Request(
        step.method,
        httpcore.URL(
            scheme=base.scheme.encode(),
            host=base.host.encode("ascii"),
            port=base.port,
            target=step.target.encode("ascii"),
        ),
        headers=headers,
        content=step.body,
        extensions={"timeout": {"connect": clock.connect_seconds()}},
    )


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
