"""Sockets for httpcore: each wait asks the call's clock how long it may take, and closing never waits.

httpcore fixes one read timeout when a response begins. Here the timeout changes while the response runs (first token,
then idle, and never beyond the total), so the streams below take it from the `Clock` before each wait. On asyncio a
protocol receives the bytes, those of plain connections through one shared buffer: per read it needs no cancel scope, no
timer and no poll, and no more memory than the bytes themselves.
"""

from __future__ import annotations

import ipaddress
import math
import socket
from typing import TYPE_CHECKING

import httpcore

from vllmchat.http.clock import monotonic

if TYPE_CHECKING:
    from vllmchat.http.clock import Clock

    SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


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

    def note_received(self, data: bytes) -> bytes:
        """Notes that bytes of a response have arrived, if any have."""
        if data and self.clock is not None:
            self.clock.response_started = True
        return data

    def timed_out(self, error: type[httpcore.TimeoutException]) -> httpcore.TimeoutException:
        """The exception for a wait that took too long."""
        return httpcore.ConnectTimeout("timed out") if self._opening else error("timed out")


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
