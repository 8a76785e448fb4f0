"""Whose fault an error is: the input's, the server's, or that of the whole job."""

from __future__ import annotations

import enum

from vllmchat.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    RateLimitError,
    ResponseError,
    StreamError,
)
from vllmchat.http.flow import retry_after

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""The pauses between attempts to reach a server, in seconds; each is twice the one before."""


class Fault(enum.Enum):
    """What an error means for its input and for the job."""

    INPUT = "input"
    """Another attempt would end the same way."""
    UNSURE = "unsure"
    """Another attempt may succeed. If the server's health is bad, it is the server's fault."""
    BUSY = "busy"
    """The server wants fewer requests. Nothing was generated."""
    DOWN = "down"
    """The server cannot be reached, or does not work. Nothing was generated."""
    JOB = "job"
    """All inputs would fail the same way."""


_DOWN_STATUSES = frozenset({502, 503, 504})
_NOT_CONNECTED = frozenset({"refused", "unreachable", "connect_timeout", "stale"})
_MISCONFIGURED = frozenset({"tls", "proxy", "unusable"})


def fault_of(error: Exception) -> Fault:
    """Returns whose fault an error is."""
    if isinstance(error, APIStatusError):
        return _fault_of_status(error)
    if isinstance(error, APIConnectionError):
        if error.kind in _NOT_CONNECTED:
            expired = isinstance(error, APITimeoutError) and error.limit == "total"
            return Fault.UNSURE if expired else Fault.DOWN
        return Fault.JOB if error.kind in _MISCONFIGURED else Fault.UNSURE
    return Fault.UNSURE if isinstance(error, ResponseError | StreamError) else Fault.INPUT


def _fault_of_status(error: APIStatusError) -> Fault:
    if isinstance(error, AuthenticationError):
        return Fault.JOB
    if isinstance(error, RateLimitError):
        return Fault.BUSY
    if error.status_code in _DOWN_STATUSES:
        return Fault.DOWN
    return Fault.UNSURE if error.status_code >= 500 or error.status_code == 408 else Fault.INPUT


def pause_before(attempt: int, error: Exception | None = None) -> float:
    """Seconds to wait before another attempt: what the server asks for, else a pause that doubles.

    Args:
        attempt: How many attempts there were, from 1.
        error: The error of the last one.
    """
    if isinstance(error, APIStatusError):
        wish = retry_after(error.response.headers)
        if wish is not None:
            return min(wish, 60.0)
    return min(FIRST_PAUSE * 2.0 ** min(attempt - 1, 16), LONGEST_PAUSE)
