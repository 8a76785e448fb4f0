"""How long a call may take, where that is its only parameter."""

from __future__ import annotations

from functools import cache
from typing import Annotated, cast

from typing_extensions import TypedDict

from vllmchat.checking.dialect import Dialect
from vllmchat.checking.rules import Bounds
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.timeout import Timeout  # noqa: TC001 - the checkers read the annotations


class Limits(TypedDict, total=False):
    """What verbs without other parameters take."""

    timeout: Annotated[float, Bounds(gt=0)] | Timeout | None
    """How long to wait for this call, over the provider's own. A number limits the whole call, in seconds."""


class _Seconds(TypedDict):
    timeout: Annotated[float, Bounds(gt=0)]


_dialect = cache(Dialect)


def checked_timeout(timeout: float | Timeout | None) -> float | Timeout | None:
    """The limits of a call, checked.

    Raises:
        InvalidRequestError: They are none.
    """
    return _dialect("a verb", Limits).check({"timeout": timeout}).timeout


def checked_seconds(timeout: float) -> float:
    """A number of seconds, checked.

    Raises:
        InvalidRequestError: It is none, or not positive.
    """
    if cast("object", timeout) is None:
        raise InvalidRequestError([Problem("timeout", "None", "must be a number of seconds.")])
    _dialect("a verb", _Seconds).check({"timeout": timeout})
    return timeout
