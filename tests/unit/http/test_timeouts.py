"""The four timeouts of `Timeout` over real sockets. `test_clock` tests their order without sockets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from support.chats import chunk, chunks, completion
from support.scripted import (
    KEEP_ALIVE,
    Gate,
    ScriptedServer,
    body,
    forever,
    head,
    never,
    reply,
    sse,
    unanswering_origin,
)
from vllmchat import (
    APITimeoutError,
    InternalServerError,
    ServiceUnavailableError,
    Timeout,
    VLLMChatError,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.runners import Runner

pytestmark = pytest.mark.slow

SHORT = 0.1
SOON = 5.0
"""Seconds. Much longer than any timeout here, so that nothing fails on a slow machine; much shorter than the
defaults."""


@pytest.fixture(params=["whole", "stream"])
def ask(request: pytest.FixtureRequest, runner: Runner) -> Callable[[VLLMProvider], object]:
    """Gets a reply, whole or streamed."""
    if request.param == "whole":
        return runner.chat
    return lambda llm: runner.stream(llm).until_done()


def passed(act: Callable[[], object], limit: str, seconds: float) -> APITimeoutError:
    began = time.monotonic()
    with pytest.raises(APITimeoutError) as caught:
        act()
    took = time.monotonic() - began
    error = caught.value
    assert (error.limit, error.seconds) == (limit, seconds)
    assert f"{seconds:g} s" in str(error)
    assert f"Timeout.{limit}" in str(error)
    assert seconds * 0.9 <= took < SOON
    assert error.__cause__ is not None
    return error


def test_connect(ask: Callable[[VLLMProvider], object]) -> None:
    with unanswering_origin() as origin:
        llm = VLLMProvider("m", base_url=origin, timeout=Timeout(connect=SHORT), max_retries=0)
        error = passed(lambda: ask(llm), "connect", SHORT)
    assert error.url == f"{origin}/v1/chat/completions"
    assert str(error).startswith(f"no connection to {error.url} within")


def test_connect_is_retried(ask: Callable[[VLLMProvider], object], monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    def backoff(attempt: int) -> float:
        attempts.append(attempt)
        return 0.001

    monkeypatch.setattr("vllmchat.http.flow.backoff", backoff)
    with unanswering_origin() as origin:
        llm = VLLMProvider("m", base_url=origin, timeout=Timeout(connect=0.05))
        passed(lambda: ask(llm), "connect", 0.05)
    assert attempts == [0, 1, 2]


def test_first_token(scripted: ScriptedServer, ask: Callable[[VLLMProvider], object]) -> None:
    scripted.script(never)
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(first_token=SHORT, idle=0.01))
    error = passed(lambda: ask(llm), "first_token", SHORT)
    assert scripted.wait_requests(1)
    assert error.request_id == scripted.requests[0].headers["x-request-id"]
    assert error.partial is None
    assert scripted.wait_client_closed()
    # The request may be running: it must not run twice.
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("noise", [[], [KEEP_ALIVE], [b": \n\n", b"data: \n\n", b"event: x\n\n"]])
def test_first_token_ends_with_the_first_event_not_with_the_first_byte(
    scripted: ScriptedServer, runner: Runner, noise: list[bytes]
) -> None:
    scripted.stream([*noise, never])
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(first_token=SHORT, idle=0.01))
    passed(runner.stream(llm).until_done, "first_token", SHORT)


def test_a_token_that_arrived_in_time_but_is_read_late(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.stream([gate := Gate(), *chunks("a", "b")])
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(first_token=SHORT))
    with runner.stream(llm) as talk:
        gate.release()
        time.sleep(3 * SHORT)  # the caller is busy: the point of this test
        assert talk.until_done().text == "ab"


def test_first_token_expires_even_while_bytes_arrive(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.stream([forever(KEEP_ALIVE * 1000)])
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(first_token=SHORT))
    passed(runner.stream(llm).until_done, "first_token", SHORT)


def test_idle_in_a_stream(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.stream([chunk("a"), chunk("b"), never])
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(idle=SHORT))
    error = passed(runner.stream(llm).until_done, "idle", SHORT)
    assert error.partial is not None
    assert error.partial.text == "ab"
    assert str(error).startswith(f"{scripted.base_url}/chat/completions stopped sending for")
    assert scripted.wait_client_closed()


def test_idle_in_a_whole_reply(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.script(head(200, {"content-length": "99"}), body(b"{"), never)
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(idle=SHORT))
    passed(lambda: runner.chat(llm), "idle", SHORT)
    assert scripted.wait_client_closed()


def test_idle_restarts_with_each_byte(scripted: ScriptedServer, runner: Runner) -> None:
    def pause(_: object) -> None:
        time.sleep(0.1)

    scripted.stream([chunk("a"), pause, chunk("b"), pause, chunk("c"), pause, *chunks()])
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(idle=0.25))
    assert runner.stream(llm).until_done().text == "abc"


def test_idle_in_an_errors_body_costs_only_the_body(
    scripted: ScriptedServer, ask: Callable[[VLLMProvider], object]
) -> None:
    scripted.script(head(500, {"content-length": "99"}), body(b"{"), never)
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(idle=SHORT))
    with pytest.raises(InternalServerError, match="the server gave no reason"):
        ask(llm)


def test_after_the_finish_reason_timeouts_are_harmless(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.stream([*chunks("a"), never])
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=Timeout(idle=SHORT))
    assert runner.stream(llm).until_done().text == "a"


# ------------------------------------------------------------------------------------------------
# Total
# ------------------------------------------------------------------------------------------------


def test_a_number_is_total(scripted: ScriptedServer, ask: Callable[[VLLMProvider], object]) -> None:
    scripted.script(never)
    error = passed(lambda: ask(VLLMProvider("m", base_url=scripted.base_url, timeout=SHORT)), "total", SHORT)
    assert str(error).startswith(f"the call to {scripted.base_url}/chat/completions did not finish within")
    assert len(scripted.requests) <= 1


def test_a_number_for_one_call(scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url)
    scripted.script(never)
    passed(lambda: runner.chat(llm, timeout=SHORT), "total", SHORT)
    scripted.script(never)
    passed(runner.stream(llm, timeout=SHORT).until_done, "total", SHORT)
    scripted.script(never)
    passed(lambda: runner.chat(llm.with_options(timeout=SHORT)), "total", SHORT)


def test_total_ends_an_endless_stream(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.stream([forever(sse(chunk("a")) * 100)])
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=0.4)
    error = passed(runner.stream(llm).until_done, "total", 0.4)
    assert error.partial is not None
    assert error.partial.text.startswith("aaaa")


def test_total_ends_an_endless_reply(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.script(head(200, {"content-length": "999999999"}), forever(b"x" * 1000))
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=SHORT)
    passed(lambda: runner.chat(llm), "total", SHORT)


def test_total_limits_connecting(ask: Callable[[VLLMProvider], object]) -> None:
    with unanswering_origin() as origin:
        llm = VLLMProvider("m", base_url=origin, timeout=Timeout(total=SHORT))
        passed(lambda: ask(llm), "total", SHORT)


def test_total_spans_attempts(
    scripted: ScriptedServer, ask: Callable[[VLLMProvider], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    scripted.busy(1, retry_after="0")
    scripted.script(never)
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=0.4)
    passed(lambda: ask(llm), "total", 0.4)
    assert scripted.wait_requests(2)


def test_total_spans_pauses(scripted: ScriptedServer, ask: Callable[[VLLMProvider], object]) -> None:
    scripted.always(reply({"error": "busy"}, 503, {"retry-after": "0"}))
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=0.4, max_retries=10_000)
    began = time.monotonic()
    with pytest.raises((ServiceUnavailableError, APITimeoutError)):
        ask(llm)
    assert time.monotonic() - began < SOON
    assert len(scripted.requests) > 1


def test_no_pause_goes_beyond_total(scripted: ScriptedServer, ask: Callable[[VLLMProvider], object]) -> None:
    scripted.busy(1, retry_after="30")
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=20)
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError):
        ask(llm)
    assert time.monotonic() - began < SOON


# ------------------------------------------------------------------------------------------------
# No timeouts
# ------------------------------------------------------------------------------------------------


def test_none_disables_a_timeout(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A day passes while the server thinks, and another one in the middle of its response.
    days = 0
    monkeypatch.setattr("vllmchat.http.clock.monotonic", lambda: time.monotonic() + days * 86_400)
    first, second = Gate(), Gate()
    scripted.stream([first, chunk("a"), second, *chunks("b")])
    llm = VLLMProvider(
        "m",
        base_url=scripted.base_url,
        timeout=Timeout(connect=None, first_token=None, idle=None, total=None),
    )
    with runner.stream(llm) as stream:
        first.wait_reached()
        days += 1
        first.release()
        assert next(stream).text == "a"
        days += 1
        second.release()
        assert stream.until_done().text == "ab"


def test_the_defaults_end_only_what_hangs(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(completion("hello"))
    assert runner.chat(VLLMProvider("m", base_url=scripted.base_url)).text == "hello"


def test_a_call_after_one_that_timed_out(
    scripted: ScriptedServer, ask: Callable[[VLLMProvider], object]
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, timeout=SHORT)
    scripted.script(never)
    with pytest.raises(VLLMChatError):
        ask(llm)
    scripted.script(never)
    with pytest.raises(APITimeoutError):
        ask(llm)
    assert scripted.wait_for(lambda: scripted.connections == 2)
