"""The policy of a call, driven by hand: no sockets, no sleeping."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from support.copies import replace
from vllmchat import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    InternalServerError,
    RateLimitError,
    ResponseError,
    ServiceUnavailableError,
    Timeout,
)
from vllmchat.http import clock as clock_module
from vllmchat.http.call import Call, Response, ResponseHead
from vllmchat.http.clock import Clock
from vllmchat.http.flow import Close, Opened, Read, Send, Sleep, Target, backoff, open_flow, reply_flow
from vllmchat.http.transport_errors import Kind, TransportFailure
from vllmchat.http.url import BaseURL

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

BASE = BaseURL.parse("http://h:8000/team/v1", add_v1=True)
TARGET = Target(BASE, {"user-agent": "test", "authorization": "Bearer 12345678"}, max_retries=2)
LIMITS = Timeout(connect=None, first_token=100, idle=10, total=None)
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def read(reply: Response) -> str:
    if reply.body.startswith(b"bad"):
        raise ResponseError("unreadable", body=reply.body.decode())
    return reply.body.decode()


CALL = Call("/chat", read, LIMITS, body=b"{}")


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock_module, "monotonic", time)
    monkeypatch.setattr(random, "random", lambda: 0.0)
    return time


@dataclass
class Result:
    """The result of a flow.

    Attributes:
        steps: All its steps.
        value: What it returned.
        error: What it raised.
    """

    steps: list[Send | Read | Sleep]
    value: object = None
    error: Exception | None = None

    @property
    def sends(self) -> list[Send]:
        return [step for step in self.steps if isinstance(step, Send)]

    @property
    def pauses(self) -> list[float]:
        return [step.seconds for step in self.steps if isinstance(step, Sleep)]


def run(
    flow: Generator[Any, Any, T],
    *outcomes: ResponseHead | bytes | Exception,
    then: Callable[[], object] = lambda: None,
) -> Result:
    """Drives a flow: each `Send` and each body gets the next outcome."""
    result = Result([])
    waiting = list(outcomes)
    in_body = False
    try:
        step = next(flow)
        while True:
            if isinstance(step, Close) or (isinstance(step, Read) and in_body):
                in_body = False
                step = flow.send(b"" if isinstance(step, Read) else None)
                continue
            result.steps.append(step)
            then()
            if isinstance(step, Sleep):
                step = flow.send(None)
                continue
            outcome = waiting.pop(0)
            in_body = isinstance(step, Read)
            step = flow.throw(outcome) if isinstance(outcome, Exception) else flow.send(outcome)
    except StopIteration as stop:
        result.value = stop.value
    except TransportFailure:
        raise
    except Exception as error:
        result.error = error
    assert not waiting, "the flow ended before all this had happened"
    return result


def ask(
    *outcomes: ResponseHead | bytes | Exception, target: Target = TARGET, call: Call[str] = CALL
) -> Result:
    return run(reply_flow(target, call, Clock(call.timeout)), *outcomes)


def head(status: int, **headers: str) -> ResponseHead:
    return ResponseHead(status, {name.replace("_", "-"): value for name, value in headers.items()}, "id-1")


def failure(kind: Kind) -> TransportFailure:
    return TransportFailure(kind, OSError("why"))


OK = head(200)


# ------------------------------------------------------------------------------------------------
# One attempt
# ------------------------------------------------------------------------------------------------


def test_one_attempt() -> None:
    result = ask(OK, b"text")
    send, body = result.steps
    assert isinstance(send, Send)
    assert (send.method, send.base, send.target, send.body) == ("POST", BASE, "/team/v1/chat", b"{}")
    assert send.url == "http://h:8000/team/v1/chat"
    assert isinstance(body, Read)
    assert result.value == "text"


def test_headers() -> None:
    call = replace(
        CALL,
        headers={"x-one": "1", "user-agent": "mine", "accept-encoding": "gzip"},
        accept="text/event-stream",
    )
    send = ask(OK, b"", call=call).sends[0]
    assert dict(send.headers) == {
        "accept": "text/event-stream",
        "accept-encoding": "gzip",
        "authorization": "Bearer 12345678",
        "content-type": "application/json",
        "user-agent": "mine",
        "x-one": "1",
        "x-request-id": send.request_id,
    }


def test_a_request_without_a_body_has_no_type() -> None:
    send = ask(OK, b"", call=Call("/models", read, LIMITS, method="GET")).sends[0]
    assert (send.method, send.body) == ("GET", None)
    assert "content-type" not in dict(send.headers)
    assert dict(send.headers)["accept-encoding"] == "identity"


def test_routes_outside_v1() -> None:
    send = ask(OK, b"", call=replace(CALL, path="/health", outside_v1=True)).sends[0]
    assert send.url == "http://h:8000/team/health"


def test_the_target_does_not_show_its_headers() -> None:
    assert repr(TARGET) == "Target('http://h:8000/team/v1', max_retries=2)"


# ------------------------------------------------------------------------------------------------
# The ID of an attempt
# ------------------------------------------------------------------------------------------------


def ids(call: Call[str], target: Target = TARGET) -> tuple[list[str], list[str | None]]:
    result = ask(failure("refused"), failure("refused"), OK, b"", call=call, target=target)
    sent = [dict(send.headers).get("x-request-id") for send in result.sends]
    return [send.request_id for send in result.sends], sent


def test_each_attempt_has_its_own_random_id() -> None:
    made, sent = ids(CALL)
    assert made == sent
    assert len({*made, *ids(CALL)[0]}) == 6
    assert all(len(each) == 32 for each in made)


def test_a_given_id_is_numbered_for_each_attempt() -> None:
    for call in (
        replace(CALL, request_id="mine"),
        replace(CALL, headers={"x-request-id": "mine"}, request_id="other"),
    ):
        assert ids(call) == (["mine", "mine-1", "mine-2"],) * 2
    target = Target(BASE, {"x-request-id": "mine"}, 2)
    assert ids(CALL, target)[1] == ["mine", "mine-1", "mine-2"]


def test_an_empty_id_counts_as_absent() -> None:
    assert len(ids(replace(CALL, request_id=""))[0][0]) == 32


@pytest.mark.parametrize("wanted", ["ü", "a\nb", " a"])
def test_an_id_that_does_not_fit_a_header_stays_in_the_body(wanted: str) -> None:
    made, sent = ids(replace(CALL, request_id=wanted))
    assert made[0] == wanted
    assert sent[0] is None


# ------------------------------------------------------------------------------------------------
# Failures below HTTP
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["refused", "unreachable", "connect_timeout"])
def test_without_a_connection_it_is_retried(kind: Kind) -> None:
    result = ask(failure(kind), failure(kind), OK, b"text")
    assert result.value == "text"
    assert result.pauses == [0.5, 1.0]


def test_a_stale_connection_is_replaced_at_once() -> None:
    clock = Clock(LIMITS)
    fresh: list[bool] = []
    flow = reply_flow(TARGET, CALL, clock)
    result = run(flow, failure("stale"), OK, b"text", then=lambda: fresh.append(clock.force_new))
    assert result.value == "text"
    assert result.pauses == []
    assert fresh == [False, True, True]


@pytest.mark.parametrize("kind", ["broken", "timeout", "tls", "unusable"])
def test_what_may_have_been_generated_is_not_retried(kind: Kind) -> None:
    result = ask(failure(kind))
    assert isinstance(result.error, APIConnectionError)
    assert isinstance(result.error.__cause__, OSError)
    assert (result.error.url, result.error.request_id) == (result.sends[0].url, result.sends[0].request_id)


def never_again() -> list[tuple[Target, Call[Any]]]:
    return [(replace(TARGET, max_retries=0), CALL), (TARGET, replace(CALL, max_retries=0))]


def test_the_attempts_are_counted() -> None:
    result = ask(*[failure("refused")] * 3)
    assert isinstance(result.error, APIConnectionError)
    assert result.error.request_id == result.sends[2].request_id
    for target, call in never_again():
        assert len(ask(failure("refused"), target=target, call=call).sends) == 1


def test_a_stale_connection_does_not_count_as_an_attempt() -> None:
    for target, call in never_again():
        result = ask(failure("stale"), OK, b"text", target=target, call=call)
        assert (result.value, result.pauses) == ("text", [])
        assert len({send.request_id for send in result.sends}) == 2
    # All other attempts remain, with the same pauses.
    result = ask(failure("stale"), *[failure("refused")] * 2, OK, b"text")
    assert (result.value, result.pauses) == ("text", [0.5, 1.0])


def test_only_one_stale_connection_is_not_counted() -> None:
    # A caller's own client cannot be made to open a new connection.
    for target, call in never_again():
        assert len(ask(*[failure("stale")] * 2, target=target, call=call).sends) == 2
    result = ask(*[failure("stale")] * 4)
    assert isinstance(result.error, APIConnectionError)
    assert result.error.request_id == result.sends[3].request_id


def test_a_response_that_breaks_off_is_not_retried() -> None:
    result = ask(OK, failure("broken"))
    assert type(result.error) is APIConnectionError
    assert result.error.url == "http://h:8000/team/v1/chat"
    assert result.error.request_id == "id-1"
    assert isinstance(result.error.__cause__, OSError)


def test_an_expired_timeout_is_raised(time: Time) -> None:
    passed = TransportFailure("timeout", OSError(), ("idle", 3.0))
    result = ask(OK, passed)
    assert isinstance(result.error, APITimeoutError)
    assert (result.error.limit, result.error.seconds) == ("idle", 3.0)


# ------------------------------------------------------------------------------------------------
# Statuses
# ------------------------------------------------------------------------------------------------

BUSY = b'{"error": {"message": "busy"}}'


@pytest.mark.parametrize("status", [429, 503])
def test_busy_servers_are_retried(status: int) -> None:
    result = ask(head(status), BUSY, head(status), BUSY, OK, b"text")
    assert result.value == "text"
    assert result.pauses == [0.5, 1.0]


def test_a_bad_gateway_is_retried_where_nothing_is_generated() -> None:
    models = Call("/models", read, LIMITS, method="GET")
    assert ask(head(502), BUSY, OK, b"text", call=models).value == "text"


def test_retries_for_some_seconds(time: Time) -> None:
    patient = replace(TARGET, max_retries=0, max_retry_seconds=10)

    def pass_by() -> None:
        time.now += 1

    busy = [outcome for _ in range(3) for outcome in (head(503), BUSY)]
    flow = reply_flow(patient, CALL, Clock(LIMITS))
    result = run(flow, *busy, then=pass_by)
    # Each step takes a second here. The fourth attempt would begin too late.
    assert result.pauses == [0.5, 1.0]
    assert isinstance(result.error, ServiceUnavailableError)
    assert ask(failure("refused"), OK, b"text", target=patient).value == "text"
    for call in (replace(CALL, max_retries=0), replace(CALL, max_retry_seconds=0.4)):
        assert len(ask(failure("refused"), target=patient, call=call).sends) == 1


@pytest.mark.parametrize(
    "status", [300, 301, 307, 308, 400, 401, 403, 404, 405, 408, 409, 413, 422, 500, 501, 502, 504, 505, 529]
)
def test_other_errors_are_raised_at_once(status: int) -> None:
    result = ask(head(status), BUSY)
    assert isinstance(result.error, APIStatusError)
    assert result.error.status_code == status
    assert result.error.request_id == "id-1"
    assert result.pauses == []


def test_after_all_attempts_the_last_error_is_raised() -> None:
    result = ask(head(503), BUSY, head(429), BUSY, head(503), b'{"error": "last"}')
    assert isinstance(result.error, ServiceUnavailableError)
    assert "last" in str(result.error)
    assert isinstance(ask(head(429), BUSY, target=replace(TARGET, max_retries=0)).error, RateLimitError)


def test_an_error_whose_body_does_not_arrive_is_still_an_error() -> None:
    assert ask(head(503), failure("broken"), OK, b"text").value == "text"
    result = ask(head(500), failure("timeout"))
    assert isinstance(result.error, InternalServerError)
    assert result.error.body is None


def test_a_response_that_has_begun_is_read_with_idle(time: Time) -> None:
    clock = Clock(LIMITS)
    waits: list[float | None] = []
    run(reply_flow(TARGET, CALL, clock), head(503), BUSY, OK, b"", then=lambda: waits.append(clock.seconds()))
    #        send, its body, pause, send, its body
    assert waits == [100, 10, 10, 100, 10]


# ------------------------------------------------------------------------------------------------
# Pauses
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "pause"),
    [
        ("0", None),
        ("3", 3.0),
        (" 2.5 ", 2.5),
        ("60", 60.0),
        ("-5", None),
        ("", 0.5),
        ("soon", 0.5),
        ("nan", 0.5),
        ("Mon, 99 Nov 2026 12:00:00 GMT", 0.5),
        ("Mon, 23 Nov 99999999999999999999 12:00:00 GMT", 0.5),
    ],
)
def test_a_pause_that_the_server_asks_for(wish: str, pause: float | None) -> None:
    result = ask(head(503, retry_after=wish), BUSY, OK, b"text")
    assert result.value == "text"
    assert result.pauses == ([] if pause is None else [pause])


@pytest.mark.parametrize("wish", ["61", "3600", "inf", "1e999"])
def test_too_long_a_pause_raises_instead(wish: str) -> None:
    result = ask(head(503, retry_after=wish), BUSY)
    assert isinstance(result.error, ServiceUnavailableError)
    assert result.error.response.headers["retry-after"] == wish


def test_a_date_is_relative_to_the_servers_clock() -> None:
    def at(second: int) -> str:
        return format_datetime(NOW.replace(second=second), usegmt=True)

    result = ask(head(503, retry_after=at(20), date=at(10)), BUSY, OK, b"")
    assert result.pauses == [10]
    assert ask(head(503, retry_after=at(1), date=at(10)), BUSY, OK, b"").pauses == []
    naive = "Mon, 23 Nov 2026 12:00:30 -0000"
    assert ask(head(503, retry_after=naive, date=at(10)), BUSY, OK, b"").pauses == [20]


@pytest.mark.parametrize("date", [{}, {"date": "today"}])
def test_a_date_without_the_servers_clock_is_relative_to_ours(
    monkeypatch: pytest.MonkeyPatch, date: dict[str, str]
) -> None:
    class Frozen(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override] # only ever asked for UTC
            return NOW

    monkeypatch.setattr("datetime.datetime", Frozen)
    wish = format_datetime(NOW.replace(second=7), usegmt=True)
    assert ask(head(503, retry_after=wish, **date), BUSY, OK, b"").pauses == [7]


def test_backoff_doubles_up_to_a_limit() -> None:
    assert [backoff(attempt) for attempt in range(6)] == [0.5, 1, 2, 4, 8, 8]
    assert backoff(100_000) == 8


def test_pauses_are_randomized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert [backoff(attempt) for attempt in range(5)] == [0.375, 0.75, 1.5, 3, 6]
    # The server's value is a minimum.
    assert ask(head(503, retry_after="3"), BUSY, OK, b"").pauses == [3.25]


def test_no_pause_goes_beyond_total(time: Time) -> None:
    call = replace(CALL, timeout=Timeout(connect=None, first_token=None, idle=None, total=1.2))
    result = ask(failure("refused"), failure("refused"), OK, b"", call=call)
    assert result.pauses == [0.5, 1.0]  # the test's clock stands still
    clock = Clock(Timeout(total=1.2))
    flow = reply_flow(TARGET, call, clock)

    def pass_by() -> None:
        time.now += 0.4

    result = run(flow, failure("refused"), failure("refused"), then=pass_by)
    assert result.pauses == [0.5]
    assert type(result.error) is APIConnectionError
    time.now = 0
    result = run(reply_flow(TARGET, call, Clock(Timeout(total=2))), head(503, retry_after="2"), BUSY)
    assert isinstance(result.error, ServiceUnavailableError)
    assert result.pauses == []


def test_a_stale_connection_found_after_total_raises(time: Time) -> None:
    clock = Clock(Timeout(total=1))
    time.now = 2
    assert isinstance(run(reply_flow(TARGET, CALL, clock), failure("stale")).error, APIConnectionError)


# ------------------------------------------------------------------------------------------------
# Results
# ------------------------------------------------------------------------------------------------


def test_a_response_that_cannot_be_read_is_identified() -> None:
    result = ask(OK, b"bad")
    assert isinstance(result.error, ResponseError)
    assert (result.error.status_code, result.error.request_id, result.error.body) == (200, "id-1", "bad")


def test_a_response_with_its_own_request_id() -> None:
    def refuse(reply: Response) -> str:
        raise ResponseError("no", status_code=299, request_id="own")

    result = ask(OK, b"", call=replace(CALL, read=refuse))
    assert isinstance(result.error, ResponseError)
    assert (result.error.status_code, result.error.request_id) == (299, "own")


def test_a_response_that_reports_an_error() -> None:
    def refuse(reply: Response) -> str:
        raise ResponseError("no")

    result = ask(OK, b'{"error": {"message": "m", "code": 429}}', call=replace(CALL, read=refuse))
    assert isinstance(result.error, RateLimitError)


def test_errors_do_not_contain_the_key() -> None:
    target = Target(
        BASE, {"api-key": "abcdefgh", "authorization": "Bearer 12345678", "x-team": "unrelated"}, 0
    )
    said = "bad 12345678 abcdefgh unrelated Bearer"
    result = ask(head(500, x_echo=said), said.encode(), target=target)
    assert isinstance(result.error, InternalServerError)
    assert result.error.body == "bad *** *** unrelated Bearer"
    assert result.error.response.headers == {"x-echo": "bad *** *** unrelated Bearer"}
    result = ask(OK, said.encode(), target=target)
    assert isinstance(result.error, ResponseError)
    assert result.error.body == "bad *** *** unrelated Bearer"
    # Anything else does not change.
    assert ask(OK, b"12345678", target=target).value == "12345678"


# ------------------------------------------------------------------------------------------------
# Streams
# ------------------------------------------------------------------------------------------------


def open_stream(*outcomes: ResponseHead | bytes | Exception) -> Result:
    return run(open_flow(TARGET, CALL, Clock(LIMITS)), *outcomes)


@pytest.mark.parametrize(
    "kind",
    ["text/event-stream", "text/event-stream; charset=utf-8", "text/plain", "application/octet-stream", ""],
)
def test_a_stream_is_left_open(kind: str) -> None:
    answer = head(200, content_type=kind)
    result = open_stream(failure("refused"), head(503), BUSY, answer)
    assert result.value == Opened(answer)
    assert len(result.steps) == 6


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON ; charset=utf-8",
        "application/problem+json",
        "text/html",
        "application/xhtml+xml",
    ],
)
def test_what_is_not_a_stream_is_read_and_raised(kind: str) -> None:
    result = open_stream(head(200, content_type=kind), b"hello")
    assert isinstance(result.error, ResponseError)
    assert result.error.body == "hello"
    result = open_stream(head(200, content_type=kind), json.dumps({"error": "no"}).encode())
    assert isinstance(result.error, InternalServerError)
    result = open_stream(head(200, content_type=kind), b"")
    assert isinstance(result.error, ResponseError)
    assert result.error.body == ""
    result = open_stream(head(200, content_type=kind), TransportFailure("timeout", OSError(), ("idle", 3.0)))
    assert isinstance(result.error, APITimeoutError)


@pytest.mark.parametrize("begin", [b"data: {}", b"\n\n: hello", b"event: x", b"id: 1", b"retry: 5"])
def test_a_stream_that_is_labelled_as_json(begin: bytes) -> None:
    answer = head(200, content_type="application/json")
    assert open_stream(answer, begin).value == Opened(answer, begin)
    call = replace(CALL, whole_too=True)
    assert run(open_flow(TARGET, call, Clock(LIMITS)), answer, begin).value == Opened(answer, begin)
    assert run(open_flow(TARGET, call, Clock(LIMITS)), answer, b" {").value == Opened(
        answer, b" {", whole=True
    )
