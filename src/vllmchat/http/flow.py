"""The policy of a call: send, wait, try again, give up. No I/O, and the same for sync and async.

A flow is a generator. It yields what is to be done, receives the outcome, and returns the result; the drivers in
`exchange.py` do the waiting. Sync and async run the same flow. `yield` of a step returns the step's own result.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import sys
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

from vllmchat.errors import ResponseError, VLLMChatError
from vllmchat.http.call import MAX_BODY_BYTES, Call, Response, ResponseHead
from vllmchat.http.density import check_density
from vllmchat.http.observe import ObservedCall
from vllmchat.http.record import CallRecord
from vllmchat.http.secrets import Mask
from vllmchat.http.transport_errors import TransportFailure
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Mapping

    from vllmchat.errors import Partial
    from vllmchat.http import api_errors, logs
    from vllmchat.http.clock import Clock
    from vllmchat.http.observe import Observer
    from vllmchat.http.url import BaseURL
else:
    api_errors = LazyModule("vllmchat.http.api_errors")
    datetime = LazyModule("datetime")
    logs = LazyModule("vllmchat.http.logs")

T = TypeVar("T")

RETRIED_STATUSES = frozenset({429, 503})
"""Statuses that mean that nothing was generated: too busy. A 502 or 504 comes from a proxy, and the server behind it
may have had the request, or still be generating."""

MAX_RETRY_AFTER = 60.0
"""Seconds. If a server asks for a longer pause, the error is raised at once instead."""

_ERROR_SECONDS = 10.0
"""How long the body of an error may take: the status has come, and a retry waits."""

_UNREADABLE = (
    VLLMChatError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a decoder raises, also one that meets what nobody foresaw."""

_STREAM_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How an event stream may begin; JSON cannot."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0


class Send:
    """Send a request and wait for the head of its response.

    Result: `ResponseHead`, or a `TransportFailure` is thrown in.

    With `default_key`, the key comes from the environment or is the default: the caller's client takes precedence if it
    sets its own credentials.
    """

    __slots__ = ("base", "body", "default_key", "headers", "method", "request_id", "target")

    def __init__(
        self,
        method: str,
        base: BaseURL,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        request_id: str,
        default_key: bool = False,
    ) -> None:
        self.method = method
        self.base = base
        self.target = target
        self.headers = headers
        self.body = body
        self.request_id = request_id
        self.default_key = default_key

    @property
    def url(self) -> str:
        """The full URL."""
        return self.base.origin + self.target

    @property
    def safe_url(self) -> str:
        """The URL without its query, for messages."""
        return self.url.partition("?")[0]

    def __repr__(self) -> str:
        # The headers hold the key. Tools that show a traceback with its variables print this.
        return f"Send({self.method!r}, {self.safe_url!r})"

    def with_headers(self, added: Mapping[str, str]) -> Send:
        """A copy with more headers, whose names are in lower case."""
        return Send(
            self.method,
            self.base,
            self.target,
            {**self.headers, **added},
            self.body,
            added.get("x-request-id", self.request_id),
            self.default_key and "authorization" not in added,
        )

    @property
    def mask(self) -> Mask:
        """Hides what must not be shown of this request. Made when something has failed."""
        return Mask(self.headers.items())


class Read:
    """Read some of the body of the last response. Result: `bytes`, empty at the end; or a `TransportFailure`."""

    __slots__ = ()


READ = Read()


class Close:
    """Release the connection of the last response. Result: None."""

    __slots__ = ()


CLOSE = Close()


class Sleep:
    """Wait. Result: None.

    Attributes:
        seconds: For how long.
    """

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


Step: TypeAlias = Send | Read | Close | Sleep
Outcome: TypeAlias = ResponseHead | bytes | None
# Any, since the result of each step has its own type.
Flow: TypeAlias = Generator[Step, Any, T]


class Target:
    """What all calls of one provider share.

    Attributes:
        base: The server's URL.
        headers: Sent with each request: authorization, user agent and the caller's own. Names in lower case.
        max_retries: Number of retries.
        max_retry_seconds: For how long to retry instead, in seconds, or None.
        observers: Who observes the calls, in addition to the log.
        default_key: Whether the key was not passed in, but comes from the environment or is the default.
    """

    __slots__ = ("base", "default_key", "headers", "max_retries", "max_retry_seconds", "observers")

    def __init__(
        self,
        base: BaseURL,
        headers: Mapping[str, str],
        max_retries: int,
        default_key: bool = False,
        max_retry_seconds: float | None = None,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self.base = base
        self.headers = headers
        self.max_retries = max_retries
        self.default_key = default_key
        self.max_retry_seconds = max_retry_seconds
        self.observers = observers

    def observed_by(self, observer: Observer) -> Target:
        """A copy that one more observes."""
        target = copy.copy(self)
        target.observers = (*self.observers, observer)
        return target

    def __repr__(self) -> str:
        # The headers hold the key.
        return f"Target({str(self.base)!r}, max_retries={self.max_retries})"


class Opened(NamedTuple):
    """A response whose body is left to be read.

    Attributes:
        head: Its head.
        early: The beginning of its body.
        whole: Whether it is one JSON document, not a stream.
    """

    head: ResponseHead
    early: bytes = b""
    whole: bool = False


def open_flow(target: Target, call: Call[T], clock: Clock) -> Flow[Opened]:
    """Sends until a stream is open; its body is not read. See `_open`."""
    record = clock.record = CallRecord(clock.now())
    if target.observers or _is_logged():
        observed = ObservedCall((*target.observers, logs.LOG), call, record)
        return _until_failure(_open(target, call, clock, record), observed)
    return _open(target, call, clock, record)


def reply_flow(target: Target, call: Call[T], clock: Clock) -> Flow[T]:
    """Sends, reads the whole response and returns the result. See `_reply`."""
    record = clock.record = CallRecord(clock.now())
    if target.observers or _is_logged():
        observed = ObservedCall((*target.observers, logs.LOG), call, record)
        return _to_end(_until_failure(_reply(target, call, clock, record), observed), observed)
    return _reply(target, call, clock, record)


def _is_logged() -> bool:
    """Whether calls are logged. Asked for each call, so the function is looked up only once."""
    global _log_is_on
    if _log_is_on is None:
        if "logging" not in sys.modules:
            return False  # nobody has set it up, and its import takes a while
        _log_is_on = logs.is_on
    return _log_is_on()


_log_is_on: Callable[[], bool] | None = None


def _until_failure(flow: Flow[T], observed: ObservedCall) -> Flow[T]:
    try:
        return (yield from flow)
    except BaseException as error:
        observed.end(error)
        raise


def _to_end(flow: Flow[T], observed: ObservedCall) -> Flow[T]:
    reply = yield from flow
    observed.end(reply=reply, complete=True)
    return reply


def _open(target: Target, call: Call[T], clock: Clock, record: CallRecord) -> Flow[Opened]:
    """Sends until a stream is open; its body is not read.

    Raises:
        APIStatusError: The server returned an error.
        APIConnectionError: No response arrived.
        ResponseError: The response is not a stream.
    """
    send, head = yield from _good_answer(target, call, clock, record)
    # Not the other way round: streams come with all sorts of media types, and with none.
    kind = content_type(head)
    if not kind.endswith(("json", "html", "xml")):
        return Opened(head)
    clock.begin_idle()
    early = b""
    try:
        while not early.strip() and (data := cast("bytes", (yield READ))):
            early += data
    except TransportFailure as failure:
        raise failure.error(send.safe_url, head.request_id) from failure.cause
    if early.lstrip().startswith(_STREAM_STARTS):
        # Some servers and proxies label a stream as JSON.
        return Opened(head, early)
    if call.whole_too and kind.endswith("json"):
        return Opened(head, early, whole=True)
    head, raw = yield from _read_error(send, head, clock, early)
    raise api_errors.error_despite_status(head, raw) or api_errors.no_stream(head, raw)


def _reply(target: Target, call: Call[T], clock: Clock, record: CallRecord) -> Flow[T]:
    """Sends, reads the whole response and returns the result.

    Raises:
        APIStatusError: The server returned an error.
        APIConnectionError: No response arrived, or not all of it.
        ResponseError: The response is not what the call expects.
    """
    send, head = yield from _good_answer(target, call, clock, record)
    # Without streaming, the head arrives when the whole reply has been generated.
    clock.begin_idle()
    pieces: list[bytes] = []
    size = 0
    try:
        data: bytes = yield READ
        while data:
            clock.note_progress()
            pieces.append(data)
            size += len(data)
            if size > MAX_BODY_BYTES:
                # What has come is let go first: the error needs only its beginning.
                begin = send.mask.data(b"".join(pieces[:4])[:8_000], cut=True)
                pieces.clear()
                raise api_errors.too_large(masked_head(send, head), begin, MAX_BODY_BYTES)
            data = yield READ
    except TransportFailure as failure:
        raise failure.error(send.safe_url, head.request_id) from failure.cause
    body = b"".join(pieces)
    pieces.clear()
    record.note_end()
    arrived: Partial | None = None
    try:
        check_density(body)
        return call.read(Response(head, body))
    except _UNREADABLE as error:
        arrived = error.partial if isinstance(error, VLLMChatError) else None
    # Read again with the secrets masked: an error quotes the body, and an excerpt could cut a secret.
    head, body = masked_head(send, head), send.mask.data(body)
    if (reported := api_errors.error_despite_status(head, body)) is not None:
        reported.partial = arrived
        raise reported
    try:
        check_density(body)
        return call.read(Response(head, body))
    except ResponseError as error:
        error.status_code = error.status_code or head.status
        error.request_id = error.request_id or head.request_id
        raise
    except VLLMChatError:
        raise
    except _UNREADABLE as error:
        raise api_errors.unreadable(error, head) from error


class _Retries:
    """Whether another attempt may follow. Made after the first failure: most calls need none.

    Args:
        target: What the calls share.
        call: The call.
        clock: Its clock.
        began: When its first attempt began, in monotonic seconds.

    Attributes:
        count: How many there were.
    """

    def __init__(self, target: Target, call: Call[T], clock: Clock, began: float) -> None:
        self.count = 0
        self._clock = clock
        self._most = target.max_retries if call.max_retries is None else call.max_retries
        seconds = target.max_retry_seconds if call.max_retry_seconds is None else call.max_retry_seconds
        # The seconds take the place of the count: it would end a wait for a server that restarts.
        self._until = None if seconds is None or call.max_retries is not None else began + seconds
        self._replaced = False

    def allow(self, pause: float, *, stale: bool = False) -> bool:
        """Counts another attempt after a pause, if there may be one.

        The first one in place of a stale connection is not counted: the server had not read the request.
        """
        if pause >= self._clock.total_seconds():
            return False
        if stale and not self._replaced:
            self._replaced = True
            return True
        late = self._until is not None and self._clock.now() + pause >= self._until
        if late or (self._until is None and self.count >= self._most):
            return False
        self.count += 1
        return True


def _good_answer(
    target: Target, call: Call[T], clock: Clock, record: CallRecord
) -> Flow[tuple[Send, ResponseHead]]:
    """Sends until a response with a good status is open."""
    retries: _Retries | None = None
    observed = record.observed
    root = target.base.root if call.outside_v1 else target.base.prefix
    attempt = 0
    while True:
        send = _send(target, call, root + call.path, attempt)
        clock.start_attempt()
        record.attempts += 1
        if observed is not None:
            send = observed.sending(send)
        pause: float | None
        try:
            head: ResponseHead = yield send
        except TransportFailure as failure:
            # A stale connection says nothing about the server, so the next attempt opens a new one at once.
            clock.force_new = True
            retries = retries or _Retries(target, call, clock, record.began)
            stale = failure.kind == "stale"
            pause = 0.0 if stale else backoff(retries.count)
            if not failure.retriable or not retries.allow(pause, stale=stale):
                raise failure.error(send.safe_url, send.request_id) from failure.cause
            _report_retry(record, call, send, pause, partial(failure.error, send.safe_url, send.request_id))
        else:
            record.note_response(head, send.headers, clock)
            if observed is not None:
                observed.connected(reused=clock.reused)
            if head.status < 300 or head.status in call.accepted_statuses:
                return send, head
            head, raw = yield from _read_error(send, head, clock)
            retries = retries or _Retries(target, call, clock, record.began)
            pause = _pause_after(head, retries.count) if _is_retried(head.status, call.method) else None
            error = partial(
                api_errors.error_from_reply,
                head,
                raw,
                route=send.target.partition("?")[0],
                missing_v1=None if call.outside_v1 or "/v1" in root else f"{target.base}/v1",
                route_hint=call.route_hint,
            )
            if pause is None or not retries.allow(pause):
                raise error()
            _report_retry(record, call, send, pause, error)
        attempt += 1
        if pause > 0:
            yield Sleep(pause)


def _report_retry(
    record: CallRecord, call: Call[T], send: Send, pause: float, error: Callable[[], Exception]
) -> None:
    """Reports that an attempt has failed, and that another one follows."""
    observed = record.observed
    if observed is None and logs.RETRIES.isEnabledFor(_WARNING):
        # Retries are logged where calls are not.
        observed = ObservedCall((logs.LOG,), call, record)
        observed.request, record.observed = send, None
    if observed is not None:
        observed.retrying(error(), pause)


_WARNING = 30
"""The level of that name in `logging`, which is not imported before the first request."""


def _is_retried(status: int, method: str) -> bool:
    """Whether nothing can have been generated. A proxy's 502 may come from a server that died on the request."""
    return status in RETRIED_STATUSES or (status == 502 and method == "GET")


def _read_error(
    send: Send, head: ResponseHead, clock: Clock, early: bytes = b""
) -> Flow[tuple[ResponseHead, bytes]]:
    """Reads the body of an unwanted response; returns its head and body, masked."""
    clock.begin_idle(_ERROR_SECONDS)
    body = early
    try:
        while len(body) <= api_errors.MAX_ERROR_BYTES and (data := cast("bytes", (yield READ))):
            body += data
    except TransportFailure:
        # The head has what matters.
        body = b""
    yield CLOSE
    mask, is_cut = send.mask, len(body) > api_errors.MAX_ERROR_BYTES
    return masked_head(send, head), mask.data(body[: api_errors.MAX_ERROR_BYTES], cut=is_cut)


def content_type(head: ResponseHead) -> str:
    """The media type of a response, in lower case and without parameters."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_event_stream(head: ResponseHead) -> bool:
    """Whether a response says that it is an event stream."""
    return content_type(head) == "text/event-stream"


def _send(target: Target, call: Call[T], path: str, attempt: int) -> Send:
    """One attempt, under an `X-Request-Id` of its own.

    vLLM takes the id of the request from that header and rejects one that is still running, so an attempt that
    may have reached the server must not come twice under the same id.
    """
    headers = {
        "accept": call.accept,
        "accept-encoding": "identity",
        **target.headers,
        **call.headers,
    }
    if call.body is not None:
        headers.setdefault("content-type", call.content_type)
    default_key = target.default_key and "authorization" not in call.headers
    request_id = headers.pop("x-request-id", None) or call.request_id
    if not request_id:
        headers["x-request-id"] = request_id = os.urandom(16).hex()
        return Send(call.method, target.base, path, headers, call.body, request_id, default_key)
    if attempt:
        request_id = f"{request_id}-{attempt}"
    if request_id.isascii() and request_id.isprintable() and request_id.strip() == request_id:
        headers["x-request-id"] = request_id
    return Send(call.method, target.base, path, headers, call.body, request_id, default_key)


def masked_head(send: Send, head: ResponseHead) -> ResponseHead:
    """The head of a response that goes into an error, without the secrets of its request."""
    return head.with_headers(send.mask.headers(dict(head.headers)))


def backoff(attempt: int) -> float:
    """Seconds to wait before the next attempt: doubling from 0.5 to 8, a random quarter less."""
    pause = min(_FIRST_PAUSE * 2.0 ** min(attempt, 10), _LONGEST_PAUSE)
    return pause * (1 - 0.25 * _chance())


def _pause_after(head: ResponseHead, attempt: int) -> float | None:
    """Seconds to wait as the server asks, else by backoff; None if the server asks for too much."""
    if head.headers.get("x-should-retry", "").lower() == "false":
        return None
    wish = retry_after(head.headers)
    if wish is None:
        return backoff(attempt)
    if wish > MAX_RETRY_AFTER:
        return None
    # Plus a random bit more: clients that were rejected together must not return together.
    return wish + 0.25 * _chance()


def _chance() -> float:
    import random  # slow: it imports OpenSSL's hashes

    return random.random()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The pause that a response asks for, in seconds, or None."""
    text = headers.get("retry-after", "").strip()
    with contextlib.suppress(ValueError):
        return max(float(headers.get("retry-after-ms", "")) / 1000, 0.0)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        at = _date(text)
        if at is None:
            return None
        # Relative to the server's own clock if it sends one: the two clocks may differ.
        seconds = (
            at - (_date(headers.get("date", "")) or datetime.datetime.now(datetime.UTC))
        ).total_seconds()
    return None if math.isnan(seconds) else max(seconds, 0.0)


def _date(text: str) -> datetime.datetime | None:
    from email.utils import parsedate_to_datetime  # slow, and few servers send a date

    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)
