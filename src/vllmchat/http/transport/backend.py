"""The network of one connection: the steps it takes, and how long each may wait.

Timeouts change while a response runs (first token, then idle, and never beyond the total), so the streams take them
from the call's `Clock` before each wait. Closing never waits. On asyncio a protocol receives the bytes, those of plain
connections through one shared buffer: per read it needs no cancel scope, no timer and no poll, and no more memory than
the bytes themselves.
"""

from __future__ import annotations

import ipaddress
import math
import select
import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from vllmchat.http.clock import monotonic
from vllmchat.http.transport.network_errors import ConnectTimeout, TimeoutException

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator

    from vllmchat.http.clock import Clock


class Connect(NamedTuple):
    """Open a TCP connection."""

    host: str
    port: int


class StartTLS(NamedTuple):
    """Go on under TLS with this host."""

    context: ssl.SSLContext
    host: str


class HasFileno(Protocol):
    """A socket of Python, asyncio or trio."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


class Write:
    """Send bytes. They hold keys, so they are shown nowhere: a `memoryview` does not print its content.

    Attributes:
        data: The bytes.
        early: Takes what arrives in the meantime; returns whether that is a whole response, so that the rest need not
            be sent.
    """

    __slots__ = ("data", "early")

    def __init__(self, data: bytes, early: Callable[[bytes], bool] | None = None) -> None:
        self.data = memoryview(data)
        self.early = early


class Read:
    """Wait for bytes; empty at the end of the connection. Result: `bytes`."""

    __slots__ = ()


READ = Read()

READ_BYTES = 64 * 1024
"""How much is read at once."""

NetworkStep: TypeAlias = Connect | StartTLS | Write | Read
NetworkSteps: TypeAlias = "Generator[NetworkStep, bytes, None]"
"""What is done on a connection, the same for sync and async. It receives what a `Read` returns."""


def _keep_alive_options() -> list[tuple[int, int, int]]:
    """TCP keep-alive: a server is silent for minutes while it computes, and routers drop silent connections."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 5)):
        option = getattr(socket, name, None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


TCP_OPTIONS = _keep_alive_options()


class NetworkBackend:
    """How long a wait on one connection may take: as the call's clock says, or while it opens, as `connect` allows.

    Attributes:
        clock: The clock of the call that the connection is serving.
    """

    def __init__(self) -> None:
        self.clock: Clock | None = None
        self._opening = False
        self._open_until = math.inf

    def begin_opening(self, timeout: float | None) -> None:
        """Opening begins, and may take so many seconds: with a proxy's answer and all TLS handshakes."""
        self._opening = True
        self._open_until = math.inf if timeout is None else monotonic() + timeout

    def end_opening(self) -> None:
        """The connection is open."""
        self._opening = False

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

    def note_received(self, data: bytes) -> bytes:
        """Notes that bytes of a response have arrived, if any have."""
        if data and self.clock is not None:
            self.clock.response_started = True
        return data

    def timed_out(self, error: type[TimeoutException]) -> TimeoutException:
        """The exception for a wait that took too long."""
        return ConnectTimeout("timed out") if self._opening else error("timed out")


def readable_check(sock: HasFileno) -> Callable[[int], object]:
    """Returns what says, asked with 0, whether bytes, or the end of the connection, have arrived.

    It asks the kernel: an event loop may not have read them yet.
    """
    if not hasattr(select, "poll"):
        return lambda seconds: select.select([sock], [], [], seconds)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    # No function of our own around it: each idle connection keeps it, and garbage collection visits it.
    return poll.poll


def is_address(host: str) -> bool:
    """Whether a host is written as an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def reason(error: BaseException | None) -> str:
    """Why a connection is closed, in words."""
    return str(error) if error is not None and str(error) else "the connection is closed"
