"""Validation of `timeout`, for methods that have no other parameter."""

from __future__ import annotations

from functools import cache
from typing import Annotated, cast

from typing_extensions import TypedDict

from vllmchat.checking.dialect import Dialect
from vllmchat.checking.rules import Bounds
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.timeout import Timeout  # noqa: TC001 - the checkers read the annotations


class Limits(TypedDict, total=False):
    """The parameters of methods that accept only a timeout."""

    timeout: Annotated[float, Bounds(gt=0)] | Timeout | None
    """Timeout for this call, in place of the provider's. A number limits the whole call, in seconds."""


class _Seconds(TypedDict):
    timeout: Annotated[float, Bounds(gt=0)]


_dialect = cache(Dialect)


def checked_timeout(timeout: float | Timeout | None) -> float | Timeout | None:
    """Returns a valid timeout unchanged.

    Raises:
        InvalidRequestError: It is not a positive number or a `Timeout`.
    """
    return _dialect("this method", Limits).check({"timeout": timeout}).timeout


def checked_seconds(timeout: float) -> float:
    """Returns a valid number of seconds unchanged.

    Raises:
        InvalidRequestError: It is not a positive number.
    """
    if cast("object", timeout) is None:
        raise InvalidRequestError([Problem("timeout", "None", "must be a number of seconds.")])
    _dialect("this method", _Seconds).check({"timeout": timeout})
    return timeout
