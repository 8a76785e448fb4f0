"""Retries over real sockets. The policy itself is tested without sockets in `test_flow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.chats import chunk, chunks, completion, models
from support.scripted import ScriptedServer, close, head, never, refusing_origin, reset
from vllmchat import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    InternalServerError,
    ServiceUnavailableError,
    StreamInterruptedError,
    Timeout,
    VLLMProvider,
)

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import Step

pytestmark = pytest.mark.usefixtures("pauses")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The attempts after which there was a pause; all pauses are short here."""
    attempts: list[int] = []

    def backoff(attempt: int) -> float:
        attempts.append(attempt)
        return 0.001

    monkeypatch.setattr("vllmchat.http.flow.backoff", backoff)
    monkeypatch.setattr("random.random", lambda: 0.0)
    return attempts


class Asking:
    """Gets replies, whole or streamed."""

    def __init__(self, runner: Runner, server: ScriptedServer, streaming: bool) -> None:
        self.runner = runner
        self.server = server
        self.streaming = streaming
        self.llm = VLLMProvider("m", base_url=server.base_url)

    def __call__(self, llm: VLLMProvider | None = None, **params: Any) -> str:
        """Gets a reply's text."""
        llm = llm or self.llm
        if self.streaming:
            return self.runner.stream(llm, **params).until_done().text
        return self.runner.chat(llm, **params).text

    def answer(self, text: str) -> None:
        """Queues a good reply."""
        if self.streaming:
            self.server.stream(chunks(text))
        else:
            self.server.reply(completion(text))

    @property
    def ids(self) -> list[str]:
        """The IDs of all attempts."""
        return [request.headers["x-request-id"] for request in self.server.requests]


@pytest.fixture(params=["whole", "stream"])
def ask(request: pytest.FixtureRequest, runner: Runner, scripted: ScriptedServer) -> Asking:
    return Asking(runner, scripted, request.param == "stream")


# ------------------------------------------------------------------------------------------------
# Connections
# ------------------------------------------------------------------------------------------------


def test_a_refused_connection_is_retried_then_raised(ask: Asking, pauses: list[int]) -> None:
    with refusing_origin() as origin, pytest.raises(APIConnectionError) as caught:
        ask(VLLMProvider("m", base_url=origin))
    assert pauses == [0, 1, 2]
    port = origin.rpartition(":")[2]
    assert f"Is the server running? Start it with: vllm serve MODEL --port {port}" in str(caught.value)
    assert caught.value.url == f"{origin}/v1/chat/completions"
    assert not isinstance(caught.value, APITimeoutError)


@pytest.mark.parametrize("end", [close, reset])
def test_a_stale_connection_is_replaced(ask: Asking, end: Step, pauses: list[int]) -> None:
    ask.answer("one")
    ask.server.script(end)
    ask.answer("two")
    assert [ask(), ask()] == ["one", "two"]
    assert (len(ask.server.requests), ask.server.connections) == (3, 2)
    # It says nothing about the server: no reason to wait.
    assert pauses == []
    assert len(set(ask.ids)) == 3


def test_a_server_that_closes_after_each_response(runner: Runner) -> None:
    with ScriptedServer(requests_per_connection=1) as server:
        llm = VLLMProvider("m", base_url=server.base_url)
        for number in range(4):
            server.reply(completion(str(number)))
            assert runner.chat(llm).text == str(number)


def test_a_new_connection_that_ends_without_a_response_raises(ask: Asking) -> None:
    for end in (close, reset):
        ask.server.script(end)
        with pytest.raises(APIConnectionError) as caught:
            ask()
        assert caught.value.request_id == ask.ids[-1]
    assert len(ask.server.requests) == 2


def test_a_reused_connection_that_ends_within_a_response_raises(ask: Asking) -> None:
    for start in (
        b"HTTP/1.1 2",
        head(200, {"content-length": "9"}),
        head(200, {"content-length": "9"}) + b"{",
    ):
        ask.answer("one")
        assert ask() == "one"
        ask.server.script(start, close)
        with pytest.raises((APIConnectionError, StreamInterruptedError)):
            ask()
    assert len(ask.server.requests) == 6


def test_a_read_that_times_out_raises(ask: Asking) -> None:
    ask.answer("one")
    ask()
    ask.server.script(never)
    with pytest.raises(APITimeoutError):
        ask(ask.llm.with_options(timeout=Timeout(first_token=0.2)))
    assert len(ask.server.requests) == 2


def test_a_stream_is_not_retried_once_it_has_begun(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.stream([chunk("a"), reset])
    with pytest.raises((StreamInterruptedError, APIConnectionError)):
        runner.stream(VLLMProvider("m", base_url=scripted.base_url)).until_done()
    scripted.stream([{"error": {"message": "busy", "code": 503}}])
    with pytest.raises(ServiceUnavailableError):
        runner.stream(VLLMProvider("m", base_url=scripted.base_url)).until_done()
    assert len(scripted.requests) == 2


# ------------------------------------------------------------------------------------------------
# Statuses
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_retried(ask: Asking, status: int, pauses: list[int]) -> None:
    ask.server.busy(2, status)
    ask.answer("at last")
    assert ask() == "at last"
    assert pauses == [0, 1]
    assert len(set(ask.ids)) == 3
    assert ask.server.connections == 1


def test_a_busy_server_says_how_long_to_wait(ask: Asking, pauses: list[int]) -> None:
    ask.server.busy(2, retry_after="0")
    ask.answer("at last")
    assert ask() == "at last"
    assert pauses == []


def test_a_server_that_stays_busy(ask: Asking) -> None:
    ask.server.busy(3)
    with pytest.raises(ServiceUnavailableError, match="busy") as caught:
        ask()
    assert caught.value.request_id == ask.ids[2]


@pytest.mark.parametrize("status", [400, 404, 408, 500, 501])
def test_other_errors_are_raised_at_once(ask: Asking, status: int) -> None:
    ask.server.reply({"error": "no"}, status)
    with pytest.raises(APIStatusError) as caught:
        ask()
    assert caught.value.status_code == status
    assert len(ask.server.requests) == 1


# ------------------------------------------------------------------------------------------------
# How often, and with which ID
# ------------------------------------------------------------------------------------------------


def test_the_caller_chooses_the_number_of_retries(ask: Asking) -> None:
    never_again = VLLMProvider("m", base_url=ask.server.base_url, max_retries=0)
    for count, llm in (
        (1, never_again),
        (1, ask.llm.with_options(max_retries=0)),
        (5, ask.llm.with_options(max_retries=4)),
    ):
        before = len(ask.server.requests)
        ask.server.busy(count)
        with pytest.raises(InternalServerError):
            ask(llm)
        assert len(ask.server.requests) - before == count


@pytest.mark.parametrize("end", [close, reset])
def test_a_stale_connection_is_replaced_even_without_retries(ask: Asking, end: Step) -> None:
    # Some vLLM servers close the connection after an error without announcing it.
    llm = VLLMProvider("m", base_url=ask.server.base_url, max_retries=0)
    for _ in range(2):
        ask.server.reply({"error": {"message": "no such token"}}, 400)
        with pytest.raises(BadRequestError):
            ask(llm)
        ask.server.script(end)
        ask.answer("two")
        assert ask(llm) == "two"
    assert (len(ask.server.requests), ask.server.connections) == (6, 3)


def test_a_new_connection_that_ends_is_not_replaced(ask: Asking) -> None:
    llm = VLLMProvider("m", base_url=ask.server.base_url, max_retries=0)
    ask.answer("one")
    ask(llm)
    for _ in range(2):
        ask.server.script(close)
    with pytest.raises(APIConnectionError):
        ask(llm)
    assert len(ask.server.requests) == 3


@pytest.mark.parametrize("params", [{"request_id": "mine"}, {"extra_headers": {"X-Request-ID": "mine"}}])
def test_an_id_from_the_caller(ask: Asking, params: dict[str, Any]) -> None:
    ask.server.busy(2)
    ask.answer("at last")
    ask(**params)
    assert ask.ids == ["mine", "mine-1", "mine-2"]


def test_attempts_differ_only_in_their_id(ask: Asking) -> None:
    ask.server.busy(1)
    ask.answer("at last")
    ask(top_k=3)
    first, second = ask.server.requests
    assert first.body == second.body
    assert {**first.headers, "x-request-id": ""} == {**second.headers, "x-request-id": ""}


def test_the_methods_of_the_server_are_retried_for_the_seconds_of_the_provider(
    scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.busy(5)
    scripted.reply(models("m"))
    llm = VLLMProvider(base_url=scripted.base_url, max_retries=0).with_options(max_retry_seconds=60)
    assert [each.id for each in runner.do(llm, "models").data] == ["m"]
    assert len(scripted.requests) == 6
