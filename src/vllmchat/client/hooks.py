"""Hooks: functions of a program that see the requests of a provider, its retries, and how its calls ended."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, cast

from vllmchat.client.options import checked_headers
from vllmchat.http.record import masked_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllmchat.http.observe import ObservedCall, Observer
    from vllmchat.http.record import Timings
    from vllmchat.wire.usage import ResponseUsage, Usage


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request that is about to be sent.

    Attributes:
        method: HTTP method.
        url: URL, without its query.
        headers: Its headers, names in lower case. Keys are masked.
        attempt: 1 for the first attempt of a call, 2 for its first retry, and so on.
        request_id: Its `X-Request-Id`. Each attempt has its own.
        model: The model; None for requests to the server itself.
        state: Yours: the same dict in all hooks of one call.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    attempt: int
    request_id: str
    model: str | None = None
    state: dict[str, object] = field(default_factory=dict[str, object], compare=False)


@dataclass(frozen=True, slots=True)
class RetryInfo:
    """An attempt that failed, and that another one follows.

    Attributes:
        request: The request that failed.
        error: What would be raised if no attempt followed.
        seconds: How long the pause before the next attempt is.
    """

    request: RequestInfo
    error: Exception
    seconds: float


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """A call that has ended, in whatever way.

    Attributes:
        request: The request of the last attempt.
        status: HTTP status of the last response; None if there was none.
        headers: Its headers, names in lower case. Cookies and keys are masked.
        attempts: How many requests were sent.
        timings: How long it took.
        usage: The tokens used, if the response has them.
        reply: What the call returns; of a stream, what has arrived. None if it failed before.
        error: What the call raises; None if it succeeded. A cancelled call has the exception that cancelled it.
        complete: Whether all of the response has arrived. False after an error, and for a stream that was closed early.
    """

    request: RequestInfo
    status: int | None
    headers: Mapping[str, str]
    attempts: int
    timings: Timings
    usage: Usage | ResponseUsage | None
    reply: object
    error: BaseException | None
    complete: bool


OnRequest: TypeAlias = "Callable[[RequestInfo], Mapping[str, str] | None]"
"""Called before each request. It may return headers to add."""

OnRetry: TypeAlias = "Callable[[RetryInfo], object]"
"""Called when an attempt has failed and another one follows."""

OnResponse: TypeAlias = "Callable[[ResponseInfo], object]"
"""Called when a call has ended."""


class Hooks:
    """The hooks of a provider, as an observer of its calls."""

    __slots__ = ("on_request", "on_response", "on_retry")

    def __init__(
        self, on_request: OnRequest | None, on_retry: OnRetry | None, on_response: OnResponse | None
    ) -> None:
        self.on_request = on_request
        self.on_retry = on_retry
        self.on_response = on_response

    def sending(self, call: ObservedCall) -> Mapping[str, str] | None:
        """Calls `on_request`."""
        added = None if self.on_request is None else self.on_request(_request(call))
        return None if added is None else checked_headers(added)

    def connected(self, call: ObservedCall, *, reused: bool) -> None:
        """Does nothing."""

    def retrying(self, call: ObservedCall, error: Exception, seconds: float) -> None:
        """Calls `on_retry`."""
        if self.on_retry is not None:
            self.on_retry(RetryInfo(_request(call), error, seconds))

    def ended(self, call: ObservedCall) -> None:
        """Calls `on_response`."""
        if self.on_response is None or call.request is None:
            return
        record, reply = call.record, call.reply
        timings: Timings | None = getattr(reply, "timings", None)
        self.on_response(
            ResponseInfo(
                _request(call),
                record.status,
                record.headers,
                record.attempts,
                record.timings() if timings is None else timings,
                cast("Usage | ResponseUsage | None", getattr(reply, "usage", None)),
                reply,
                call.error,
                call.complete,
            )
        )


def with_hooks(
    observers: tuple[Observer, ...],
    on_request: OnRequest | None,
    on_retry: OnRetry | None,
    on_response: OnResponse | None,
) -> tuple[Observer, ...]:
    """Returns the observers of a provider with other hooks. A hook that is None stays as it is.

    Raises:
        TypeError: A hook cannot be called by sync and async calls.
    """
    for name, hook in (("on_request", on_request), ("on_retry", on_retry), ("on_response", on_response)):
        _check(name, hook)
    old = next((each for each in observers if isinstance(each, Hooks)), Hooks(None, None, None))
    new = Hooks(on_request or old.on_request, on_retry or old.on_retry, on_response or old.on_response)
    return (*(each for each in observers if each is not old), new)


def _check(name: str, hook: object) -> None:
    if hook is None:
        return
    if not callable(hook):
        raise TypeError(f"{name} must be a function, not {type(hook).__name__}")
    if inspect.iscoroutinefunction(hook):
        raise TypeError(
            f"{name} must be a plain function: sync and async calls use the same hooks. To do something async, "
            "put the event into a queue"
        )


def _request(call: ObservedCall) -> RequestInfo:
    send = call.request
    assert send is not None
    model = (call.call.fields or {}).get("model")
    return RequestInfo(
        send.method,
        send.safe_url,
        masked_headers(send.headers, send.headers),
        call.record.attempts,
        send.request_id,
        model if isinstance(model, str) else None,
        call.state,
    )
