"""Which timeout applies now, and which one has expired."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final

from vllmchat.errors import APITimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllmchat.http.record import CallRecord
    from vllmchat.http.timeout import Limit, Timeout

monotonic = time.monotonic

_GRACE: Final = 0.25
"""Grace period, in seconds, for a response that arrived in time but is only looked at after `first_token`."""


class Clock:
    """Keeps the time of one call across all its attempts.

    The transport asks it before each wait, so that one timeout can follow another while a request runs: the same
    read waits for `first_token` at first and for `idle` later, and never beyond `total`.

    Attributes:
        reused: Whether the current attempt uses a connection that had served a request before.
        response_started: Whether any byte of the response to the current attempt has arrived.
        idle_end: When `idle` passes, unless what is waited for arrives; None if no wait has begun since the last.
        force_new: Whether the next attempt must open a new connection.
        attempt_began: When the current attempt began, or got its connection.
        connect_time: How long opening the connection of the current attempt took, in seconds; None if it was open.
        record: What happened during the current request of the call.
        proxy: The proxy that is being asked for a connection, for messages; None when a failure is not the proxy's.
        interrupted: Whether another thread has ended the call before its response began.
        waiting: What ends the current wait, from another thread; None if nothing waits.
    """

    __slots__ = (
        "_end",
        "_first_end",
        "_idle",
        "_late",
        "attempt_began",
        "connect_time",
        "force_new",
        "idle_end",
        "interrupted",
        "proxy",
        "record",
        "response_started",
        "reused",
        "timeout",
        "waiting",
    )

    def __init__(self, timeout: Timeout) -> None:
        self.timeout = timeout
        self.reused = False
        self.response_started = False
        self.force_new = False
        self.proxy: str | None = None
        self.interrupted = False
        self.waiting: Callable[[], None] | None = None
        self.attempt_began = monotonic()
        self.connect_time: float | None = None
        self.record: CallRecord | None = None
        self._end = math.inf if timeout.total is None else monotonic() + timeout.total
        self._first_end = math.inf
        self._late = False
        self._idle: float | None = None
        self.idle_end: float | None = None

    def interrupt(self) -> None:
        """Ends the call, from another thread, whatever it waits for before its response begins."""
        self.interrupted = True
        end_wait = self.waiting
        if end_wait is not None:
            end_wait()

    def sleep(self, seconds: float) -> None:
        """Waits in a sync call, unless another thread ends the call."""
        woken = threading.Event()
        self.waiting = woken.set
        try:
            if not self.interrupted:
                woken.wait(seconds)
        finally:
            self.waiting = None

    def start_attempt(self) -> None:
        """An attempt begins, or has got its connection: the wait for the first token starts over."""
        self.response_started = False
        self.proxy = None
        self.attempt_began = monotonic()
        self.connect_time = None
        limit = self.timeout.first_token
        self._first_end = math.inf if limit is None else self.attempt_began + limit
        self._late = False
        self._idle = self.idle_end = None

    def begin_idle(self, at_most: float = math.inf) -> None:
        """The response has begun: from now on `idle` applies, or so many seconds if that is less."""
        if self._idle is None:
            self._idle = min(math.inf if self.timeout.idle is None else self.timeout.idle, at_most)

    def note_progress(self) -> None:
        """What was waited for has arrived: `idle` starts over with the next wait.

        Not with any bytes: proxies send comments and empty events to keep a connection alive while a server hangs.
        """
        self.idle_end = None

    def now(self) -> float:
        """The time, in monotonic seconds."""
        return monotonic()

    def restrict(self, seconds: float) -> None:
        """Limits the rest of the call to so many seconds; for the clean-up after its end."""
        self._end = min(self._end, monotonic() + seconds)

    def deadline(self) -> float:
        """When a wait for bytes that starts now must end, in monotonic seconds. May be infinite."""
        if self._idle is not None:
            if self.idle_end is None:
                self.idle_end = monotonic() + self._idle
            return min(self.idle_end, self._end)
        if not self._late and self._first_end <= monotonic():
            # The caller was busy with something else, and the response may have arrived in time.
            self._late = True
            self._first_end = monotonic() + _GRACE
        return min(self._first_end, self._end)

    def seconds(self) -> float | None:
        """How long a wait for bytes that starts now may take, at least 0; None for no limit."""
        deadline = self.deadline()
        return None if deadline == math.inf else max(deadline - monotonic(), 0.0)

    def body_seconds(self) -> float | None:
        """One timeout for all waits of a body, for clients that allow only one: the longer of first token and idle."""
        first = self._first_end - monotonic()
        idle = math.inf if self.timeout.idle is None else self.timeout.idle
        limit = min(max(first, idle), self._end - monotonic())
        return None if limit == math.inf else max(limit, 0.001)

    def connect_seconds(self) -> float | None:
        """How long opening a connection may take, at least 0; None for no limit."""
        limit = math.inf if self.timeout.connect is None else self.timeout.connect
        limit = min(limit, self._end - monotonic())
        return None if limit == math.inf else max(limit, 0.0)

    def total_seconds(self) -> float:
        """What is left of `total`, at least 0; infinite if it is not set."""
        return max(self._end - monotonic(), 0.0)

    def expired(self) -> APITimeoutError:
        """The error for a wait, not for bytes, that ended because `total` passed."""
        seconds = self.timeout.total or 0.0
        return APITimeoutError(
            f"the call did not finish within {seconds:g} s (Timeout.total): the server was still being asked for its "
            "model or version",
            limit="total",
            seconds=seconds,
        )

    def attempt_seconds(self) -> float:
        """How long ago the current attempt began."""
        return monotonic() - self.attempt_began

    def passed(self, *, connecting: bool = False) -> tuple[Limit, float] | None:
        """Which timeout ended the wait, and its value in seconds; None if it was none of ours."""
        # A wait ends a little before or after its deadline, hence the tolerance.
        if self.timeout.total is not None and monotonic() >= self._end - 0.005:
            return "total", self.timeout.total
        limit: Limit
        if connecting:
            limit, seconds = "connect", self.timeout.connect
        elif self._idle is None:
            limit, seconds = "first_token", self.timeout.first_token
        else:
            limit, seconds = "idle", self.timeout.idle
        return None if seconds is None else (limit, seconds)
