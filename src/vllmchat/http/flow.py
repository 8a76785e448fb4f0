"""The policy of a call: send, wait, try again, give up. No I/O, and the same for sync and async.

A flow is a generator. It yields what is to be done, receives the outcome, and returns the result; the drivers in
`exchange.py` do the waiting. Sync and async run the same flow. `yield from` a step returns the step's own result.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from vllmchat.errors import ResponseError
from vllmchat.http.api_errors import MAX_ERROR_BYTES, error_despite_status, error_from_reply, no_stream
from vllmchat.http.call import MAX_BODY_BYTES, Call, Response, ResponseHead
from vllmchat.http.transport_errors import TransportFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.http.clock import Clock
    from vllmchat.http.url import BaseURL

T = TypeVar("T")

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""Statuses that mean that nothing was generated: too busy, or a proxy could not reach the server."""

MAX_RETRY_AFTER = 60.0
"""Seconds. If a server asks for a longer pause, the error is raised at once instead."""

_SECRET_HEADER = re.compile("auth|key|token|secret|cookie|passw|credential")
_WORDS = re.compile(r"[^\s;,=]{8,}")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request and wait for the head of its response.

    Result: `ResponseHead`, or a `TransportFailure` is thrown in.

    With `default_key`, the key comes from the environment or is the default: the caller's client takes precedence if it
    sets its own credentials.
    """

    method: str
    base: BaseURL
    target: str
    headers: list[tuple[str, str]]
    body: bytes | None
    request_id: str
    default_key: bool = False

    @property
    def url(self) -> str:
        """The full URL."""
        return self.base.origin + self.target

    @property
    def safe_url(self) -> str:
        """The URL without its query, for messages."""
        return self.url.partition("?")[0]

    def __iter__(self) -> Generator[Send, ResponseHead, ResponseHead]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class ReadBody:
    """Read the body of the last response, up to `limit` bytes, and release its connection. Result: `bytes`.

    A longer body is truncated with `cut`; without, it raises `ResponseError`.
    """

    limit: int
    cut: bool = False

    def __iter__(self) -> Generator[ReadBody, bytes, bytes]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait. Result: None."""

    seconds: float

    def __iter__(self) -> Iterator[Sleep]:
        yield self


Step: TypeAlias = Send | ReadBody | Sleep
Outcome: TypeAlias = ResponseHead | bytes | None
# Any, since each step declares the type of its own result.
Flow: TypeAlias = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Target:
    """What all calls of one provider share.

    Attributes:
        base: The server's URL.
        headers: Sent with each request: authorization, user agent and the caller's own.
        max_retries: Number of retries.
        default_key: Whether the key was not passed in, but comes from the environment or is the default.
    """

    base: BaseURL
    headers: Mapping[str, str]
    max_retries: int
    default_key: bool = False

    def __repr__(self) -> str:
        # The headers hold the key.
        return f"Target({str(self.base)!r}, max_retries={self.max_retries})"


def open_flow(target: Target, call: Call[T], clock: Clock) -> Flow[ResponseHead]:
    """Sends until a stream is open; its body is not read.

    Raises:
        APIStatusError: The server returned an error.
        APIConnectionError: No response arrived.
        ResponseError: The response is not a stream.
    """
    send, head = yield from _good_answer(target, call, clock)
    # Not the other way round: streams come with all sorts of media types, and with none.
    kind = content_type(head)
    if not kind.endswith(("json", "html", "xml")) or (call.whole_too and kind.endswith("json")):
        return head
    raw = yield from _read_error(clock)
    head, raw = without_secrets(send, head, raw)
    raise error_despite_status(head, raw) or no_stream(head, raw)


def reply_flow(target: Target, call: Call[T], clock: Clock) -> Flow[T]:
    """Sends, reads the whole response and returns the result.

    Raises:
        APIStatusError: The server returned an error.
        APIConnectionError: No response arrived, or not all of it.
        ResponseError: The response is not what the call expects.
    """
    send, head = yield from _good_answer(target, call, clock)
    # Without streaming, the head arrives when the whole reply has been generated.
    clock.begin_idle()
    try:
        body = yield from ReadBody(MAX_BODY_BYTES)
    except TransportFailure as failure:
        raise failure.error(send.safe_url, head.request_id) from failure.cause
    try:
        return call.read(Response(head, body))
    except ResponseError:
        pass
    # Read again with the secrets masked, for the error message.
    head, body = without_secrets(send, head, body)
    reported = error_despite_status(head, body)
    if reported is not None:
        raise reported
    try:
        return call.read(Response(head, body))
    except ResponseError as error:
        error.status_code = error.status_code or head.status
        error.request_id = error.request_id or head.request_id
        raise


def _good_answer(target: Target, call: Call[T], clock: Clock) -> Flow[tuple[Send, ResponseHead]]:
    """Sends until a response with a good status is open."""
    retries = target.max_retries if call.max_retries is None else call.max_retries
    root = target.base.root if call.outside_v1 else target.base.prefix
    attempt = retried = 0
    replaced = False
    while True:
        send = _send(target, call, root + call.path, attempt)
        clock.start_attempt()
        pause: float | None
        try:
            head = yield from send
        except TransportFailure as failure:
            # A stale connection says nothing about the server, so the next attempt opens a new one at once. The server
            # has not read the request, so this does not count as a retry.
            clock.force_new = True
            stale = failure.kind == "stale"
            free = stale and not replaced
            pause = 0.0 if stale else backoff(retried)
            left = free or retried < retries
            if not failure.retriable or not left or pause >= clock.total_seconds():
                raise failure.error(send.safe_url, send.request_id) from failure.cause
            replaced = replaced or stale
            retried += not free
        else:
            if head.status < 300 or head.status in call.accepted_statuses:
                return send, head
            raw = yield from _read_error(clock)
            pause = _pause_after(head, retried) if head.status in RETRIED_STATUSES else None
            if pause is None or retried >= retries or pause >= clock.total_seconds():
                raise error_from_reply(*without_secrets(send, head, raw), route_hint=call.route_hint)
            retried += 1
        attempt += 1
        if pause > 0:
            yield from Sleep(pause)


def _read_error(clock: Clock) -> Flow[bytes]:
    """Reads the body of an unwanted response."""
    clock.begin_idle()
    try:
        return (yield from ReadBody(MAX_ERROR_BYTES, cut=True))
    except TransportFailure:
        # The head has what matters.
        return b""


def content_type(head: ResponseHead) -> str:
    """The media type of a response, in lower case and without parameters."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def _send(target: Target, call: Call[T], path: str, attempt: int) -> Send:
    """One attempt, under an `X-Request-Id` of its own.

    vLLM takes the id of the request from that header and rejects one that is still running, so an attempt that
    may have reached the server must not come twice under the same id.
    """
    headers = {
        "accept": call.accept,
        "accept-encoding": "identity",
        **{name.lower(): value for name, value in target.headers.items()},
        **{name.lower(): value for name, value in call.headers.items()},
    }
    if call.body is not None:
        headers.setdefault("content-type", call.content_type)
    request_id = headers.pop("x-request-id", None) or call.request_id
    if not request_id:
        request_id = os.urandom(16).hex()
    elif attempt:
        request_id = f"{request_id}-{attempt}"
    if request_id.isascii() and request_id.isprintable() and request_id.strip() == request_id:
        headers["x-request-id"] = request_id
    default_key = target.default_key and all(name.lower() != "authorization" for name in call.headers)
    return Send(call.method, target.base, path, list(headers.items()), call.body, request_id, default_key)


def without_secrets(send: Send, head: ResponseHead, raw: bytes) -> tuple[ResponseHead, bytes]:
    """Masks the keys that were sent in a response that goes into an error: some servers echo the request."""
    headers: dict[str, str] = dict(head.headers)
    for name, value in send.headers:
        if _SECRET_HEADER.search(name) is None:
            continue
        # Not "Bearer". Shorter ones, like vLLM's "EMPTY", are not secrets but may be ordinary words.
        for secret in _WORDS.findall(value):
            raw = raw.replace(secret.encode(), b"***")
            headers = {each: text.replace(secret, "***") for each, text in headers.items()}
    return replace(head, headers=headers), raw


def backoff(attempt: int) -> float:
    """Seconds to wait before the next attempt: doubling from 0.5 to 8, a random quarter less."""
    pause = min(_FIRST_PAUSE * 2.0 ** min(attempt, 10), _LONGEST_PAUSE)
    return pause * (1 - 0.25 * _chance())


def _pause_after(head: ResponseHead, attempt: int) -> float | None:
    """Seconds to wait as the server asks, else by backoff; None if the server asks for too much."""
    wish = _retry_after(head.headers)
    if wish is None:
        return backoff(attempt)
    if wish > MAX_RETRY_AFTER:
        return None
    # Plus a random bit more: clients that were rejected together must not return together.
    return wish + 0.25 * _chance()


def _chance() -> float:
    import random  # slow: it imports OpenSSL's hashes

    return random.random()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        at = _date(text)
        if at is None:
            return None
        # Relative to the server's own clock if it sends one: the two clocks may differ.
        seconds = (at - (_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else max(seconds, 0.0)


def _date(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # slow, and few servers send a date

    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
