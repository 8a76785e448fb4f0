"""What every call accepts besides the parameters of its endpoint: the timeout, extra headers, extra body."""

# No `from __future__ import annotations` here: the annotations are read at run time.

from collections.abc import Mapping
from functools import cache
from typing import Annotated, cast

from typing_extensions import TypedDict

from vllmchat.checking.rules import Bounds
from vllmchat.checking.validator import Validator
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.timeout import Timeout


class TimeoutParams(TypedDict, total=False):
    """The parameters of methods that accept only a timeout."""

    timeout: Annotated[float, Bounds(gt=0)] | Timeout | None
    """Timeout for this call, in place of the provider's. A number limits the whole call, in seconds.

    Range: greater than 0.
    """


class _Seconds(TypedDict):
    timeout: Annotated[float, Bounds(gt=0)]


_validator = cache(Validator)


def checked_timeout(timeout: float | Timeout | None) -> float | Timeout | None:
    """Returns a valid timeout unchanged.

    Raises:
        InvalidRequestError: It is not a positive number or a `Timeout`.
    """
    return _validator("this method", TimeoutParams).check({"timeout": timeout}).timeout


def checked_seconds(timeout: float) -> float:
    """Returns a valid number of seconds unchanged.

    Raises:
        InvalidRequestError: It is not a positive number.
    """
    if cast("object", timeout) is None:
        raise InvalidRequestError([Problem("timeout", "None", "must be a number of seconds.")])
    _validator("this method", _Seconds).check({"timeout": timeout})
    return timeout


class CallBase(TypedDict, total=False):
    """Parameters of every method that sends a request to a model. A base class."""

    extra_body: Mapping[str, object] | None
    """Additional fields for the request body, sent unchecked, for parameters that this library does not know.

    Merged last; they override everything else.
    """
    extra_headers: Mapping[str, str] | None
    """Headers for this request. They override the provider's."""
    max_retry_seconds: Annotated[float, Bounds(gt=0)] | None
    """For how many seconds to retry this call, in place of a count: while the server is busy, paused or not reachable.

    Only calls for which nothing can have been generated are retried.

    Range: greater than 0.
    """
    timeout: Annotated[float, Bounds(gt=0)] | Timeout | None
    """Timeout for this call, in place of the provider's. A number limits the whole call, in seconds.

    Range: greater than 0.
    """


class AnyDefaultParams(TypedDict, total=False, closed=True):
    """The defaults of a provider, for type checkers: each class of providers names its own."""
