"""The methods about the server itself, and waiting for it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from support.scripted import Gate
from vllmchat import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    OpenAIProvider,
    ResponseError,
    Timeout,
    VLLMProvider,
)
from vllmchat.http import clock as clock_module
from vllmchat.http.call import ResponseHead
from vllmchat.http.clock import Clock
from vllmchat.http.flow import Send, Sleep, Target
from vllmchat.http.transport_errors import TransportFailure
from vllmchat.http.url import BaseURL
from vllmchat.server.status import Readiness

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

MODELS: dict[str, Any] = {
    "object": "list",
    "data": [{"id": "m", "max_model_len": 2048}, {"id": "a", "parent": "m"}],
}

# Server methods


@pytest.mark.parametrize("cls", [VLLMProvider, OpenAIProvider])
def test_models(cls: type[VLLMProvider | OpenAIProvider], scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(recordings.load("models").body)
    llm = cls("any", base_url=scripted.base_url)
    models = runner.do(llm, "models")
    runner.close(llm)
    [request] = scripted.requests
    assert (request.method, request.path, request.body) == ("GET", "/v1/models", b"")
    [card] = models.data
    assert (card.id, card.max_model_len, card.owned_by) == ("tiny-qwen3", 2048, "vllm")


def test_the_length_of_a_model_is_asked_once(scripted: ScriptedServer, runner: Runner) -> None:
    for _ in range(3):
        scripted.reply(MODELS)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    assert runner.do(llm, "max_model_len") == 2048
    assert runner.do(llm.with_options(max_retries=0), "max_model_len", "m") == 2048
    assert len(scripted.requests) == 1
    assert runner.do(llm, "max_model_len", "a") == 2048, "an adapter has that of its base model"
    assert runner.do(llm, "max_model_len", "a") == 2048
    assert len(scripted.requests) == 2
    with pytest.raises(
        InvalidRequestError, match=r"^model='b': the server does not serve it\. It serves m, a\.$"
    ):
        runner.do(llm, "max_model_len", "b")
    runner.close(llm)


def test_the_length_of_the_only_model(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply({"data": MODELS["data"][:1]})
    scripted.reply(MODELS)
    llm = VLLMProvider(base_url=scripted.base_url)
    assert (runner.do(llm, "max_model_len"), runner.do(llm, "max_model_len")) == (2048, 2048)
    assert len(scripted.requests) == 1
    assert llm.model == "m", "it has been asked"
    other = VLLMProvider(base_url=scripted.base_url)
    with pytest.raises(InvalidRequestError, match="serves m, a"):
        runner.do(other, "max_model_len")
    runner.close(llm)
    runner.close(other)


def test_a_server_that_reports_no_length(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply({"data": [{"id": "m"}]})
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with pytest.raises(ResponseError, match="does not report the max_model_len of m") as caught:
        runner.do(llm, "max_model_len")
    runner.close(llm)
    assert caught.value.request_id == scripted.requests[0].headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "result"),
    [("version", "/version", "0.32.0"), ("load", "/load", 0), ("health", "/health", True)],
)
def test_routes_outside_v1(
    method: str, path: str, result: object, scripted: ScriptedServer, runner: Runner
) -> None:
    for prefix in ("", "/team-a", "/team-a/v1"):
        scripted.reply(recordings.load(method).body)
        llm = VLLMProvider(base_url=scripted.url(prefix))
        assert runner.do(llm, method) == result
        runner.close(llm)
    assert [request.method for request in scripted.requests] == ["GET"] * 3
    assert [request.path for request in scripted.requests] == [path, f"/team-a{path}", f"/team-a{path}"]


@pytest.mark.parametrize("method", ["version", "load", "models"])
def test_another_response_raises(method: str, scripted: ScriptedServer) -> None:
    scripted.reply("<html>Welcome!</html>")
    with pytest.raises(ResponseError):
        getattr(VLLMProvider(base_url=scripted.base_url), method)()


@pytest.mark.parametrize("method", ["version", "load", "health", "metrics"])
def test_a_server_other_than_vllm_does_not_have_the_route(method: str, scripted: ScriptedServer) -> None:
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match="Every vLLM server has it, outside /v1: check base_url"):
        getattr(VLLMProvider(base_url=scripted.base_url), method)()


@pytest.mark.parametrize("status", [500, 503])
def test_unhealthy_is_a_result_and_is_not_retried(
    status: int, scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.reply(status=status)
    llm = VLLMProvider(base_url=scripted.base_url)
    assert runner.do(llm, "health") is False
    runner.close(llm)
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    ("body", "healthy"),
    [
        ("", True),
        ("OK", True),
        ({"status": "ok"}, True),
        ({"healthy_endpoints": [{"model": "m"}], "unhealthy_endpoints": []}, True),
        ({"healthy_endpoints": [], "unhealthy_endpoints": [{"model": "m"}]}, False),
    ],
)
def test_the_health_of_a_gateway(
    body: object, healthy: bool, scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.reply(body)
    llm = VLLMProvider(base_url=scripted.base_url)
    assert runner.do(llm, "health") is healthy
    runner.close(llm)


def test_a_web_page_is_no_health(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply("<!DOCTYPE html><title>Welcome to nginx!</title>")
    llm = VLLMProvider(base_url=scripted.base_url)
    with pytest.raises(ResponseError, match="it is a web page: check base_url"):
        runner.do(llm, "health")
    runner.close(llm)


def test_no_response_about_health_is_an_error(scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider(base_url="http://127.0.0.1:1", max_retries=0)
    with pytest.raises(APIConnectionError, match="Is the server running"):
        runner.do(llm, "health")
    llm = VLLMProvider(base_url=scripted.base_url, max_retries=0)
    scripted.reply(status=502)
    with pytest.raises(APIStatusError, match="502"):
        runner.do(llm, "health")
    runner.close(llm)


def test_the_connection_of_an_unhealthy_server_is_reused(scripted: ScriptedServer) -> None:
    scripted.reply({"no": "health"}, 503)
    scripted.reply()
    with VLLMProvider(base_url=scripted.base_url) as llm:
        assert (llm.health(), llm.health()) == (False, True)
    assert [request.connection for request in scripted.requests] == [0, 0]


@pytest.mark.parametrize("method", ["models", "version", "health", "load", "metrics", "is_sleeping"])
def test_a_timeout_for_one_call(method: str, scripted: ScriptedServer, runner: Runner) -> None:
    gate = Gate()
    scripted.script(gate)
    llm = VLLMProvider(base_url=scripted.base_url)
    with pytest.raises(APITimeoutError) as caught:
        runner.do(llm, method, timeout=Timeout(first_token=0.05))
    gate.release()
    runner.close(llm)
    assert (caught.value.limit, caught.value.seconds) == ("first_token", 0.05)
    with pytest.raises(InvalidRequestError, match="timeout=0: must be greater than 0"):
        runner.do(llm, method, timeout=0)


def test_metrics(scripted: ScriptedServer, runner: Runner) -> None:
    recorded = recordings.load("metrics")
    scripted.reply(recorded.body, headers={"content-type": recorded.headers["content-type"]})
    llm = VLLMProvider(base_url=scripted.base_url)
    metrics = runner.do(llm, "metrics")
    runner.close(llm)
    assert scripted.requests[0].path == "/metrics"
    assert metrics.prompt_tokens == 72


def test_metrics_without_their_parser(monkeypatch: pytest.MonkeyPatch, scripted: ScriptedServer) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)
    with pytest.raises(ImportError, match=r"pip install 'vllmchat\[metrics\]'"):
        VLLMProvider(base_url=scripted.base_url).metrics()
    assert scripted.requests == []


# Waiting, sync and async


def test_ready(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(status=503)
    scripted.reply()
    scripted.reply({"object": "list", "data": []})
    scripted.reply()
    scripted.reply(MODELS)
    llm = VLLMProvider("a", base_url=scripted.url("/team-a"))
    assert runner.do(llm, "ready", 5) is True
    runner.close(llm)
    assert [request.path.removeprefix("/team-a") for request in scripted.requests] == [
        "/health",
        "/health",
        "/v1/models",
        "/health",
        "/v1/models",
    ]


def test_a_server_that_serves_another_model_is_not_waited_for(
    scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.always(lambda request: _served(request.path))
    llm = VLLMProvider("other", base_url=scripted.base_url)
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, "ready", 300, model="A")
    runner.close(llm)
    assert (
        str(caught.value) == "model='A': is not served by this server, which serves m, a. Did you mean 'a'?"
    )


def test_never_ready(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(lambda request: _served(request.path, NO_MODELS))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with pytest.raises(APITimeoutError) as caught:
        runner.do(llm, "ready", 0.6, model="another")
    runner.close(llm)
    assert caught.value.message.startswith(f"{scripted.base_url} was not ready within 0.6 s. Last state: ")
    assert (caught.value.limit, caught.value.seconds, caught.value.url) == ("total", 0.6, scripted.base_url)


NO_MODELS: dict[str, object] = {"object": "list", "data": []}


def _served(path: str, models: object = MODELS) -> Any:
    from support.scripted import reply

    return reply(models if path == "/v1/models" else None)


@pytest.mark.parametrize("timeout", [0, -1, "5", None, float("inf"), True])
def test_an_invalid_time(timeout: Any, runner: Runner) -> None:
    with pytest.raises(InvalidRequestError, match="timeout="):
        runner.do(VLLMProvider("m"), "ready", timeout)


# Waiting, step by step: no sockets, no sleeping

TARGET = Target(BaseURL.parse("http://h:8000", add_v1=True), {}, max_retries=2)
LIMITS = Timeout(connect=1, first_token=None, idle=300, total=None)

Outcome = tuple[int, bytes] | Exception


@dataclass
class Waited:
    """The result of a wait.

    Attributes:
        sends: The requested routes.
        pauses: The pauses in between, in seconds.
        error: The error that it ended with.
    """

    sends: list[str] = field(default_factory=list[str])
    pauses: list[float] = field(default_factory=list[float])
    error: Exception | None = None


def wait(
    monkeypatch: pytest.MonkeyPatch, seconds: float, *outcomes: Outcome, model: str | None = None
) -> Waited:
    """Waits, with these outcomes of requests in turn; the last one repeats."""
    now = 0.0
    monkeypatch.setattr(clock_module, "monotonic", lambda: now)
    readiness = Readiness(model, seconds, LIMITS)
    flow = readiness.flow(TARGET, Clock(readiness.timeout))
    waited = Waited()
    waiting = list(outcomes)
    body = b""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Sleep):
                waited.pauses.append(step.seconds)
                now += step.seconds
                step = flow.send(None)
            elif isinstance(step, Send):
                waited.sends.append(step.target)
                outcome = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                if isinstance(outcome, Exception):
                    now += seconds if outcome is LATE else 0.0
                    step = flow.throw(outcome)
                else:
                    status, body = outcome
                    step = flow.send(ResponseHead(status, {}, "id"))
            else:
                body, piece = b"", body
                step = flow.send(piece)
    except StopIteration:
        pass
    except Exception as error:
        waited.error = error
    return waited


WELL: Outcome = (200, b"")
ANY: Outcome = (200, b'{"data": [{"id": "m"}]}')
LATE = TransportFailure("timeout", TimeoutError(), ("total", 1.0))
REFUSED = TransportFailure("refused", ConnectionRefusedError("Connection refused"))


def test_a_ready_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, 10, WELL, ANY, model="m")
    assert (waited.sends, waited.pauses, waited.error) == (["/health", "/v1/models"], [], None)


def test_pauses_grow_up_to_a_limit_and_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, 10, REFUSED)
    assert waited.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 0.9])
    assert sum(waited.pauses) == pytest.approx(10)
    # One attempt each: a single call does not retry.
    assert len(waited.sends) == len(waited.pauses)


def test_the_error_has_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    error = wait(monkeypatch, 3, REFUSED).error
    assert isinstance(error, APITimeoutError)
    assert error.message.startswith("http://h:8000/v1 was not ready within 3 s. Last state: no connection to")
    assert "Connection refused" in error.message
    assert isinstance(error.__cause__, APIConnectionError)
    ill = wait(monkeypatch, 3, REFUSED, (503, b"")).error
    assert str(ill).endswith("Last state: /health reports that the engine is not running")
    assert ill is not None
    assert ill.__cause__ is None
    busy = wait(monkeypatch, 3, WELL, (502, b"<title>Bad Gateway</title>")).error
    assert "Last state: 502: Bad Gateway - a proxy got no response" in str(busy)
    none = wait(monkeypatch, 3, WELL, (200, b'{"data": []}'), WELL, (200, b'{"data": []}'), (503, b"")).error
    assert "engine is not running" in str(none)


@pytest.mark.parametrize(
    ("model", "body", "state"),
    [
        (None, b'{"data": []}', "it was healthy and serving no model"),
        ("x", b'{"data": []}', "it was healthy and serving no model, but not x"),
    ],
)
def test_what_is_served_matters(
    model: str | None, body: bytes, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [WELL, (200, body)] * 20
    error = wait(monkeypatch, 3, *outcomes, model=model).error
    assert isinstance(error, APITimeoutError)
    assert error.message.endswith(state)


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_gateway_may_forward_only_v1(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked: Outcome = (status, b"<html><head><title>No</title></head></html>")
    waited = wait(monkeypatch, 10, blocked, (200, b'{"data": []}'), blocked, ANY)
    assert (waited.sends, waited.error) == (["/health", "/v1/models"] * 2, None)
    error = wait(monkeypatch, 3, *[blocked, (200, b'{"data": []}')] * 20).error
    assert str(error).endswith("Last state: it was serving no model")
    # The servers behind a gateway may start one after another.
    waited = wait(monkeypatch, 10, blocked, (200, b'{"data": [{"id": "n"}]}'), blocked, ANY, model="m")
    assert (waited.sends, waited.error) == (["/health", "/v1/models"] * 2, None)


def test_a_healthy_server_with_other_models_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, 10, WELL, ANY, model="x")
    assert isinstance(waited.error, InvalidRequestError)
    assert (waited.sends, waited.pauses) == (["/health", "/v1/models"], [])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_errors_of_a_starting_server_are_waited_out(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, 10, WELL, (status, b""), WELL, ANY)
    assert (waited.sends, waited.error) == (["/health", "/v1/models"] * 2, None)


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationError), (404, NotFoundError)])
def test_errors_that_waiting_will_not_fix_are_raised(
    status: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = wait(monkeypatch, 10, WELL, (status, b'{"error":"Unauthorized"}'))
    assert isinstance(waited.error, error)
    assert waited.pauses == []


def test_another_kind_of_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, 10, WELL, (200, b"<html>"))
    assert isinstance(waited.error, ResponseError)


def test_one_poll_does_not_take_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Readiness("m", 600, LIMITS).timeout == Timeout(connect=1, first_token=10, idle=10, total=600)
    assert Readiness("m", 600, Timeout(connect=None, first_token=3, idle=2)).timeout == Timeout(
        connect=None, first_token=3, idle=2, total=600
    )
    hung = TransportFailure("timeout", TimeoutError(), ("first_token", 10.0))
    waited = wait(monkeypatch, 20, hung, WELL, ANY)
    assert waited.error is None
    assert waited.sends == ["/health", "/health", "/v1/models"]


def test_the_timeout_error_has_the_state_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, 1, (503, b""), LATE)
    assert "engine is not running" in str(waited.error)
    assert waited.pauses == [0.1]
    assert str(wait(monkeypatch, 1, LATE).error).endswith("Last state: it has not responded")
