"""Sockets for local test servers: listening, one thread per connection, waits that always end.

The only HTTP here is the framing of bodies. Every wait ends with one of three things: what it waits
for, the client closing (`ClientGoneError`), and the end of the server (`ServerStoppedError`). So a `with`
block over a server never leaves a thread or a socket behind, whatever state its connections were in.
"""

from __future__ import annotations

import contextlib
import functools
import selectors
import shutil
import socket
import ssl
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

Place = Literal["ipv4", "ipv6", "unix"]
ClosedBy = Literal["client", "server"]
T = TypeVar("T")

JOIN_SECONDS = 5.0


class ClientGoneError(Exception):
    """The client closed or reset the connection."""


class ServerStoppedError(Exception):
    """The server's `with` block ends."""


class Compressor(Protocol):
    """What `zlib.compressobj` returns; its type has no public name."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self, mode: int = ..., /) -> bytes: ...


class Connection:
    """One accepted connection, used by its own thread only (except `wake` and the plain attributes).

    Attributes:
        number: Counts accepted connections of this server, from 0.
        closed_by: Who ended it; None while it is open.
        tls_error: Why TLS failed, if it did. A client that rejects the handshake counts as gone.
        patience: How long, in seconds, a wait lasts before it fails.
        buffer: Data received but not consumed yet.
    """

    def __init__(self, sock: socket.socket, number: int, *, patience: float) -> None:
        self.number = number
        self.closed_by: ClosedBy | None = None
        self.tls_error: ssl.SSLError | None = None
        self.patience = patience
        self.buffer = bytearray()
        self._chunked = False
        self._compressor: Compressor | None = None
        self._sock = sock
        self._stopping = False
        self._awake, self._waker = socket.socketpair()
        for end in (sock, self._awake, self._waker):
            end.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wake(self, *, stop: bool = False) -> None:
        """Makes a wait of this connection check its condition again. Called from other threads."""
        self._stopping = self._stopping or stop
        # If the pipe is full, it will wake anyway; if it is closed, there is nothing to wake.
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Performs the server's side of a handshake."""
        try:
            secure = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        except OSError as error:
            raise ClientGoneError from error
        self._sock = secure
        self._retry(secure.do_handshake, blocked=selectors.EVENT_READ, deadline=self._deadline())

    def receive(self, *, patient: bool = False) -> None:
        """Receives more data into `buffer`.

        Args:
            patient: Wait without a limit, as for the next request of an idle connection.
        """
        deadline = None if patient else self._deadline()
        data = self._retry(lambda: self._sock.recv(65536), blocked=selectors.EVENT_READ, deadline=deadline)
        if not data:
            raise ClientGoneError
        self.buffer += data

    def send(self, data: bytes) -> None:
        """Sends all of `data` exactly as it is."""
        if self.closed_by is not None:
            raise RuntimeError("the script sends after it closed the connection")
        rest = memoryview(data)
        deadline = self._deadline()
        while rest:
            sent = self._retry(
                functools.partial(self._sock.send, rest), blocked=selectors.EVENT_WRITE, deadline=deadline
            )
            rest = rest[sent:]

    def begin_body(self, *, chunked: bool, gzip: bool) -> None:
        """Sets how `send_body` frames data, until `end_body`."""
        self._chunked = chunked
        self._compressor = zlib.compressobj(wbits=31) if gzip else None

    def send_body(self, data: bytes) -> None:
        """Sends a piece of a body: one chunk, if it is chunked; unchanged, if no body was begun."""
        if self._compressor is not None:
            data = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        self._send_piece(data)

    def end_body(self) -> None:
        """Ends a body."""
        if self._compressor is not None:
            self._send_piece(self._compressor.flush())
        if self._chunked:
            self.send(b"0\r\n\r\n")
        self.begin_body(chunked=False, gzip=False)

    def watch(self, until: Callable[[], bool], *, what: str) -> None:
        """Waits until a condition is true, and watches for the client closing.

        Args:
            until: The condition, checked again after each `wake`.
            what: For the error message, for example "the gate to be released".

        Raises:
            ClientGoneError: The client closed first.
            AssertionError: `patience` seconds passed.
        """
        deadline = self._deadline()
        while not until():
            self._check_stop()
            try:
                data = self._sock.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(selectors.EVENT_READ, deadline, what)
            except OSError as error:
                raise ClientGoneError from error
            else:
                if not data:
                    raise ClientGoneError
                self.buffer += data

    def relay(self, other: socket.socket) -> None:
        """Passes bytes both ways between the client and another socket until that one ends.

        Args:
            other: A connected, blocking socket.

        Raises:
            ClientGoneError: The client closed first.
        """
        other.settimeout(self.patience)
        with contextlib.suppress(ConnectionError), selectors.DefaultSelector() as selector:
            for sock in (self._sock, other, self._awake):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                if self.buffer:
                    other.sendall(self.buffer)
                    self.buffer.clear()
                ready = {key.fileobj for key, _ in selector.select()}
                self._check_stop()
                if other in ready:
                    data = other.recv(65536)
                    if not data:
                        return
                    self.send(data)
                if self._sock in ready:
                    self.receive()

    def half_close(self) -> None:
        """Closes the sending side, and keeps receiving."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self, by: ClosedBy = "server", *, reset: bool = False) -> None:
        """Closes the connection.

        Args:
            by: Who is recorded as having closed it.
            reset: Send RST instead of FIN: the client's next read fails instead of ending.
        """
        if self.closed_by is None:
            self.closed_by = by
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def dispose(self) -> None:
        """Frees everything. For the thread that served the connection, at its end."""
        self.close()
        self._waker.close()
        self._awake.close()

    def _send_piece(self, data: bytes) -> None:
        # An empty chunk would end the body.
        if data:
            self.send(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    def _retry(self, operation: Callable[[], T], *, blocked: int, deadline: float | None) -> T:
        """Performs a non-blocking operation as soon as the socket is ready.

        Args:
            operation: What to do.
            blocked: What a plain socket waits for, as a selector's event.
            deadline: When patience ends, on the monotonic clock.
        """
        while True:
            self._check_stop()
            try:
                return operation()
            except BlockingIOError:
                event = blocked
            except ssl.SSLWantReadError:
                event = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                event = selectors.EVENT_WRITE
            except OSError as error:
                if isinstance(error, ssl.SSLError):
                    self.tls_error = error
                raise ClientGoneError from error
            self._wait(event, deadline, "the client to read or to write")

    def _wait(self, event: int, deadline: float | None, what: str) -> None:
        """Blocks until the socket is ready or `wake` is called."""
        remaining = None if deadline is None else deadline - time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, event)
            selector.register(self._awake, selectors.EVENT_READ)
            ready = selector.select(remaining)
        if not ready and deadline is not None and time.monotonic() >= deadline:
            raise AssertionError(f"waited {self.patience:g} s for {what}")
        with contextlib.suppress(BlockingIOError):
            self._awake.recv(4096)

    def _check_stop(self) -> None:
        if self._stopping:
            raise ServerStoppedError

    def _deadline(self) -> float:
        return time.monotonic() + self.patience


class Listener:
    """A server on this machine that runs `serve` in a separate thread for each connection.

    Attributes:
        failures: Errors in the server's threads. Leaving the `with` block raises them.
    """

    def __init__(
        self, place: Place = "ipv4", *, tls: ssl.SSLContext | None = None, patience: float = 10.0
    ) -> None:
        self.failures: list[BaseException] = []
        self.place = place
        self._tls = tls
        self._patience = patience
        self._changed = threading.Condition()
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._folder: Path | None = None
        self._socket, self.address = self._listen()
        self._awake, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name=f"{self._name}-accept", daemon=True)

    @property
    def _name(self) -> str:
        return type(self).__name__.lower()

    @property
    def port(self) -> int:
        """The port; 0 on a unix socket."""
        return self.address[1]

    @property
    def unix_path(self) -> str:
        """The path of the unix socket; `""` for other places."""
        return "" if self._folder is None else str(self._folder / "socket")

    @property
    def origin(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        scheme = "http" if self._tls is None else "https"
        host, port = self.address
        if self.place == "unix":
            return f"{scheme}://{host}"
        return f"{scheme}://[{host}]:{port}" if self.place == "ipv6" else f"{scheme}://{host}:{port}"

    @property
    def connections(self) -> int:
        """The number of connections accepted so far."""
        with self._changed:
            return len(self._connections)

    @property
    def open_connections(self) -> int:
        """The number of connections that neither side has closed, as far as the server knows. See `wait_open`."""
        with self._changed:
            return self._count_open()

    def connection(self, number: int = -1) -> Connection:
        """A connection by its number, counted from 0; the newest one by default."""
        with self._changed:
            return self._connections[number]

    def wait_for(self, condition: Callable[[], bool], timeout: float = 2.0) -> bool:
        """Waits until a condition on the server is true.

        Args:
            condition: Checked again whenever a connection opens or ends, or a request arrives.
            timeout: In seconds.

        Returns:
            Whether it became true in time.
        """
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def wait_open(self, count: int, timeout: float = 2.0) -> bool:
        """Waits until exactly `count` connections are open. Returns whether that happened in time."""
        return self.wait_for(lambda: self._count_open() == count, timeout)

    def wait_client_closed(self, timeout: float = 2.0, *, connection: int = -1) -> bool:
        """Waits until the client closes a connection.

        Args:
            timeout: In seconds.
            connection: Its number, from 0; the newest one by default.

        Returns:
            True if the client closed it in time. False if it did not, or if the server closed it first.
        """
        watched = self.connection(connection)
        self.wait_for(lambda: watched.closed_by is not None, timeout)
        return watched.closed_by == "client"

    def serve(self, connection: Connection) -> None:
        """Serves one connection until it ends. Runs in the connection's own thread."""
        raise NotImplementedError

    def prepare(self, connection: Connection) -> None:
        """Runs in the connection's thread before a TLS handshake."""

    def fail(self, error: BaseException) -> None:
        """Makes the `with` block end with this error."""
        with self._changed:
            self.failures.append(error)

    def close(self) -> None:
        """Ends every connection and thread. Idempotent.

        Raises:
            AssertionError: A thread does not end.
        """
        with self._changed:
            self._stopping = True
            connections = list(self._connections)
        for connection in connections:
            connection.wake(stop=True)
        if self._acceptor.ident is not None:
            with contextlib.suppress(OSError):
                self._waker.send(b"!")
            self._acceptor.join(JOIN_SECONDS)
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self._socket.close()
        self._awake.close()
        self._waker.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        alive = [thread.name for thread in (self._acceptor, *self._threads) if thread.is_alive()]
        assert not alive, f"threads of the test server do not end: {alive}"

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if not self.failures:
            return
        if error is None:
            if len(self.failures) == 1:
                raise self.failures[0]
            raise BaseExceptionGroup("the test server failed", self.failures)
        for failure in self.failures:
            error.add_note(f"The test server failed, too: {failure!r}")

    def _count_open(self) -> int:
        return sum(connection.closed_by is None for connection in self._connections)

    def _listen(self) -> tuple[socket.socket, tuple[str, int]]:
        if self.place == "unix":
            # The path of a unix socket has at most about 100 characters, which pytest's tmp_path may exceed.
            self._folder = Path(tempfile.mkdtemp(prefix="scripted-"))
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(self.unix_path)
            address = ("localhost", 0)
        else:
            family, host = (socket.AF_INET6, "::1") if self.place == "ipv6" else (socket.AF_INET, "127.0.0.1")
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.bind((host, 0))
            address = (host, listening.getsockname()[1])
        listening.listen(1024)
        listening.setblocking(False)
        return listening, address

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._awake, selectors.EVENT_READ)
            while not self._stopping:
                selector.select()
                with contextlib.suppress(BlockingIOError):
                    while not self._stopping:
                        self._start(self._socket.accept()[0])

    def _start(self, sock: socket.socket) -> None:
        with self._changed:
            number = len(self._connections)
            connection = Connection(sock, number, patience=self._patience)
            if self._stopping:
                connection.wake(stop=True)
            self._connections.append(connection)
            thread = threading.Thread(
                target=self._run, args=(connection,), name=f"{self._name}-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
            self._changed.notify_all()

    def _run(self, connection: Connection) -> None:
        try:
            self.prepare(connection)
            if self._tls is not None and connection.closed_by is None:
                connection.start_tls(self._tls)
            if connection.closed_by is None:
                self.serve(connection)
        except ClientGoneError:
            connection.close("client")
        except ServerStoppedError:
            pass
        except BaseException as error:  # It is raised where the test sees it.
            self.fail(error)
        finally:
            with self._changed:
                connection.dispose()
                self._changed.notify_all()


async def in_thread(wait: Callable[[], T]) -> T:
    """Runs a blocking wait (of a server or a gate) without blocking the event loop, on asyncio and trio."""
    return await anyio.to_thread.run_sync(wait)


def ipv6_available() -> bool:
    """Whether this machine can listen on ::1."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def refusing_origin() -> Generator[str]:
    """Yields an origin whose port refuses every connection, and stays reserved inside the block."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.contextmanager
def unanswering_origin() -> Generator[str]:
    """Yields an origin where connecting neither succeeds nor fails: its queue is full and nothing accepts."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
