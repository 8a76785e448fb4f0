"""A server that dies, restarts, or is busy: the job waits and goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest

from support.chats import answer_any, completion, models
from support.jobs import job, refused, run
from support.scripted import reply, reset, script
from vllmchat import (
    APIConnectionError,
    APITimeoutError,
    InternalServerError,
    InvalidRequestError,
    JobProgress,
    JobStoppedError,
    NotFoundError,
    RateLimitError,
    ServiceUnavailableError,
    VLLMProvider,
)
from vllmchat.errors import ErrorResponse
from vllmchat.jobs import failures
from vllmchat.jobs.engine import Server
from vllmchat.jobs.failures import Fault, fault_of, pause_before

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import Answer, Request, ScriptedServer


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllmchat.jobs.engine.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("vllmchat.jobs.engine.LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(failures, "FIRST_PAUSE", 0.001)


def unavailable(**headers: str) -> ServiceUnavailableError:
    response = ErrorResponse(503, headers)
    return ServiceUnavailableError("engine_paused", status_code=503, code="engine_paused", response=response)


def connection_error(kind: str) -> APIConnectionError:
    error = APIConnectionError(kind, url="http://s")
    error.kind = kind
    return error


class Flaky:
    """A server that is down between two of its requests.

    Attributes:
        requests: How many there were.
        rejected: How many were rejected.
    """

    def __init__(self, error: Exception, first: int, last: int) -> None:
        self.requests = self.rejected = 0
        self._error = error
        self._down = range(first, last)

    async def __call__(self, item: int) -> int:
        number, self.requests = self.requests, self.requests + 1
        if number in self._down:
            self.rejected += 1
            raise self._error
        return item


DOWN = [
    refused(),
    connection_error("connect_timeout"),
    unavailable(),
    InternalServerError("bad gateway", status_code=502),
    InternalServerError("gateway timeout", status_code=504),
]


@pytest.mark.parametrize("error", DOWN, ids=str)
def test_a_server_that_is_down_is_no_error(runner: Runner, error: Exception) -> None:
    server = Flaky(error, 30, 50)
    results = run(runner, job(server, range(100), in_flight=8, retries=0))
    assert [each.value for each in results] == list(range(100))
    assert {each.attempts for each in results} == {1}
    # What was in flight, and then one at a time.
    assert server.rejected == 20
    assert server.requests == 120


def test_a_server_without_the_model_is_not_waited_for(runner: Runner) -> None:
    """After one failed connection. Readiness would never come."""

    async def ready(seconds: float) -> None:
        raise InvalidRequestError(f"healthy, but no such model ({seconds} s)")

    server = Flaky(refused(), 3, 4)
    results = run(runner, job(server, range(10), server=Server(ready=ready), wait=5))
    assert [each.value for each in results] == list(range(10))


def test_while_the_server_is_down_one_input_tries_it(runner: Runner) -> None:
    running: list[int] = []

    async def call(item: int) -> int:
        running.append(item)
        if len(running) < 40:
            raise refused()
        return item

    seen: list[JobProgress] = []
    results = run(runner, job(call, range(20), in_flight=8, progress=seen.append))
    assert len(results) == 20
    assert len(running) == 39 + 20


def test_a_server_that_is_not_there_from_the_start(runner: Runner) -> None:
    server = Flaky(refused(), 0, 20)
    assert len(run(runner, job(server, range(10), in_flight=4))) == 10


def test_when_the_wait_is_over_one_error_has_everything(runner: Runner) -> None:
    async def call(item: int) -> int:
        if item == 6 or item >= 10:
            raise refused()
        return item

    got: list[int] = []
    with pytest.raises(JobStoppedError) as caught:
        run(runner, job(lambda item: call(item), iter(range(14)), in_flight=4, wait=0.05))
    error = caught.value
    assert "the server was down for 0.05 s: no connection: refused" in str(error)
    assert error.__cause__ is not None
    kept = {each.index for each in error.results}
    pending = {index for index, _ in error.pending}
    assert not kept & pending
    # Those before 6 were handed out; each other input that was read is in one of the two.
    assert kept | pending == set(range(6, 14))
    assert 6 in pending
    assert error.done == 6 + len(kept)
    assert got == []


def test_the_wait_is_for_one_outage(runner: Runner) -> None:
    """A server that comes back in time, again and again, is waited for each time."""
    errors = 0

    async def call(item: int) -> int:
        nonlocal errors
        if errors <= item:
            errors += 1
            await anyio.sleep(0.02)
            raise refused()
        return item

    started = time.monotonic()
    assert len(run(runner, job(call, range(10), in_flight=1, wait=0.15))) == 10
    assert time.monotonic() - started > 0.15


def test_an_unhealthy_server_is_down(runner: Runner) -> None:
    """Its engine has died: it returns 500 until it exits."""
    health = [False, False, True]

    async def healthy() -> bool:
        return health.pop(0) if len(health) > 1 else health[0]

    server = Flaky(InternalServerError("EngineDeadError", status_code=500), 3, 5)
    results = run(runner, job(server, range(10), in_flight=1, retries=3, server=Server(health=healthy)))
    assert all(each.ok for each in results)


def test_an_input_that_kills_the_server_is_given_up(runner: Runner) -> None:
    alive = True
    seen: list[int] = []

    async def call(item: int) -> int:
        nonlocal alive
        seen.append(item)
        if not alive:
            alive = True
            raise refused()
        if item == 2:
            alive = False
            raise connection_error("broken")
        return item

    async def healthy() -> bool:
        return alive

    results = run(runner, job(call, range(5), in_flight=1, retries=1, server=Server(health=healthy)))
    assert [each.ok for each in results] == [True, True, False, True, True]
    assert results[2].attempts == 2
    assert isinstance(results[2].error, APIConnectionError)


def test_a_server_is_asked_whether_it_is_ready(runner: Runner) -> None:
    asked: list[float] = []

    async def ready(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) < 4:
            raise APITimeoutError("not yet", limit="total", seconds=seconds)

    server = Flaky(refused(), 5, 9)
    results = run(runner, job(server, range(10), in_flight=4, wait=60, server=Server(ready=ready)))
    assert len(results) == 10
    assert len(asked) >= 4
    assert server.rejected == 4
    assert all(0 < seconds <= 60 for seconds in asked)


def test_a_gateway_without_health_is_not_unhealthy(runner: Runner) -> None:
    async def health() -> bool:
        raise NotFoundError("no such route", status_code=404)

    server = Flaky(InternalServerError("oops", status_code=500), 1, 2)
    results = run(runner, job(server, range(3), in_flight=1, retries=1, server=Server(health=health)))
    assert [each.attempts for each in results] == [1, 2, 1]


def test_a_busy_server_gets_its_pause(runner: Runner) -> None:
    server = Flaky(
        RateLimitError("slow down", status_code=429, response=ErrorResponse(429, {"retry-after-ms": "5"})),
        5,
        25,
    )
    results = run(runner, job(server, range(40), in_flight=4, retries=0))
    assert [each.value for each in results] == list(range(40))
    assert server.rejected == 20


def test_a_server_that_stays_busy_ends_the_job(runner: Runner) -> None:
    server = Flaky(RateLimitError("slow down", status_code=429), 5, 10_000)
    with pytest.raises(JobStoppedError, match=r"the server was busy for 0\.05 s: slow down"):
        run(runner, job(server, range(40), in_flight=4, wait=0.05))


def test_progress_says_what_the_job_waits_for(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllmchat.jobs.engine._REPORT_SECONDS", 0.001)
    seen: list[JobProgress] = []
    server = Flaky(refused(), 5, 12)
    run(runner, job(server, range(20), in_flight=2, progress=seen.append))
    assert "no connection: refused" in {each.waiting_for for each in seen}
    assert seen[-1].waiting_for is None


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (connection_error("broken"), Fault.UNSURE),
        (connection_error("timeout"), Fault.UNSURE),
        (connection_error("tls"), Fault.JOB),
        (connection_error("unusable"), Fault.JOB),
        (connection_error("stale"), Fault.DOWN),
        (APIConnectionError("of another provider"), Fault.UNSURE),
        (InternalServerError("x", status_code=500), Fault.UNSURE),
        (NotFoundError("x", status_code=404), Fault.INPUT),
        (KeyError("x"), Fault.INPUT),
    ],
)
def test_whose_fault_an_error_is(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault


def test_pauses_double_unless_the_server_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "FIRST_PAUSE", 0.1)
    assert [pause_before(count) for count in (1, 2, 3, 9, 999)] == [0.1, 0.2, 0.4, 2.0, 2.0]
    assert pause_before(1, unavailable(**{"retry-after": "7"})) == 7.0
    assert pause_before(1, unavailable(**{"retry-after": "7000"})) == 60.0


# A real connection


def test_a_server_that_restarts(scripted: ScriptedServer) -> None:
    """Some requests break, then it refuses, then it is back, without its model at first."""
    state = {"requests": 0, "models": 0}

    def answer(request: Request) -> Answer:
        if request.path == "/health":
            return reply(b"")
        if request.path == "/v1/models":
            state["models"] += 1
            return reply(models("m") if state["models"] > 1 else {"object": "list", "data": []})
        state["requests"] += 1
        if state["requests"] == 8:
            return script(reset)
        if 8 < state["requests"] < 12:
            return reply({"error": {"message": "engine is paused", "code": "engine_paused"}}, 503)
        return answer_any(request)

    scripted.always(answer)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    results = list(llm.map([str(number) for number in range(30)], in_flight=1, wait=20))
    assert [each.text for each in results] == [str(number) for number in range(30)]
    assert state["models"] >= 2
    llm.close()


def test_a_server_without_a_listener(runner: Runner) -> None:
    from support.scripted import refusing_origin

    with refusing_origin() as origin:
        llm = VLLMProvider("m", base_url=origin)
        with pytest.raises(
            JobStoppedError, match=r"The job stopped after 0 of 2 inputs.*down for 0\.1 s"
        ) as caught:
            list(llm.map(["a", "b"], wait=0.1))
        assert {index for index, _ in caught.value.pending} == {0, 1}


def test_what_the_server_refuses_is_sent_once(scripted: ScriptedServer) -> None:
    """The job's own retries take the place of the provider's."""
    scripted.reply({"error": {"message": "oops"}}, 500)
    scripted.reply(b"")
    scripted.reply(completion("a"))
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=5)
    [result] = llm.map(["a"], retries=1, in_flight=1)
    assert (result.text, result.attempts) == ("a", 2)
    assert [request.path for request in scripted.requests] == [
        "/v1/chat/completions",
        "/health",
        "/v1/chat/completions",
    ]
    llm.close()
