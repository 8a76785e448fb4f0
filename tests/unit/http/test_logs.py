"""The log: what is written of calls, when, and that no key is."""

from __future__ import annotations

import gc
import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest

from support.chats import chunks, completion, models
from support.scripted import close, never
from vllmchat import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    StreamInterruptedError,
    Timeout,
    VLLMProvider,
)
from vllmchat.http import flow as flows, logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def short_pause(_: int) -> float:
    """In place of `backoff`."""
    return 0.001


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged, from DEBUG on."""
    with caplog.at_level(logging.DEBUG, "vllmchat"):
        yield caplog


def of(lines: pytest.LogCaptureFixture, name: str) -> list[str]:
    """The messages of a logger."""
    return [each.getMessage() for each in lines.records if each.name == f"vllmchat.{name}"]


def place(server: ScriptedServer) -> str:
    return server.base_url.removeprefix("http://").removesuffix("/v1")


def test_one_line_a_call(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    scripted.reply(completion(usage=USAGE), headers={"x-request-id": "r-1"})
    runner.do(llm, "chat", "Hi", request_id="r-1")
    [record] = [each for each in lines.records if each.name == "vllmchat.requests"]
    assert record.levelno == logging.INFO
    assert re.fullmatch(
        rf"POST /v1/chat/completions 200 in \d+\.\d{{3}} s, 7 \+ 5 tokens, request id r-1, {place(scripted)}",
        record.getMessage(),
    )
    facts: Any = record
    assert (facts.method, facts.path, facts.status) == ("POST", "/v1/chat/completions", 200)
    assert (facts.prompt_tokens, facts.completion_tokens, facts.request_id) == (7, 5, "r-1")
    assert facts.seconds > 0
    assert facts.server == place(scripted)


def test_a_stream_is_logged_at_its_end(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    usage: dict[str, Any] = {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    scripted.stream([*chunks("a"), usage])
    with runner.stream(llm) as stream:
        next(stream)
        assert of(lines, "requests") == []
        stream.until_done()
    [line] = of(lines, "requests")
    assert re.search(r" 200 in \S+ s, first token after \S+ s, 7 \+ 5 tokens, request id \w+, [\d.:]+$", line)


def test_a_stream_that_is_left_early_says_so(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    scripted.stream([*chunks("a")[:1], never])
    with runner.stream(llm) as stream:
        next(stream)
    [line] = of(lines, "requests")
    assert line.endswith(", closed before its end")


def test_so_does_one_that_is_forgotten(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    scripted.stream([*chunks("a")[:1], never])
    stream = runner.stream(llm)
    next(stream)
    del stream
    gc.collect()
    [line] = of(lines, "requests")
    assert line.endswith(", closed before its end")


def test_a_stream_that_breaks_says_why(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    scripted.stream([*chunks("a")[:1], close])
    with pytest.raises(StreamInterruptedError):
        runner.stream(llm).until_done()
    [line] = of(lines, "requests")
    assert ", failed: StreamInterruptedError: the stream from http://" in line


def test_a_failure_says_why(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    scripted.reply({"error": {"message": "no\nway", "code": 400}}, 400)
    scripted.script(never)
    scripted.reply({"error": {"message": "no", "code": 400}}, 400)
    with pytest.raises(BadRequestError):
        runner.chat(llm)
    with pytest.raises(APITimeoutError):
        runner.chat(llm, timeout=Timeout(first_token=0.05))
    with pytest.raises(BadRequestError):
        runner.stream(llm).until_done()
    status, timeout, stream = of(lines, "requests")
    assert status.startswith("POST /v1/chat/completions 400 in ")
    assert status.endswith(", failed: BadRequestError: 400: no way")
    assert " no response in " in timeout
    assert ", failed: APITimeoutError: " in timeout
    assert stream.endswith(", failed: BadRequestError: 400: no")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cancelled_call_says_so(
    streaming: bool, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    import anyio

    scripted.script(never)
    async with VLLMProvider("m", base_url=scripted.base_url) as llm:
        with anyio.move_on_after(0.1):
            if streaming:
                await llm.astream("Hi").until_done()
            else:
                await llm.achat("Hi")
    [line] = of(lines, "requests")
    assert re.search(r" no response in 0\.[\d]+ s, .*, failed: Cancelled(Error)?\b", line)


def test_each_retry_has_its_reason(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    scripted.busy(1, retry_after="0")
    scripted.reply(completion())
    runner.chat(llm)
    [record] = [each for each in lines.records if each.name == "vllmchat.retries"]
    assert record.levelno == logging.WARNING
    assert re.fullmatch(
        r"POST /v1/chat/completions attempt 1 failed: ServiceUnavailableError: 503: .*; the next one begins in "
        rf"\d\.\d\d s \(request id \w+, {place(scripted)}\)",
        record.getMessage(),
    )
    [line] = of(lines, "requests")
    assert ", 2 attempts, " in line


def test_retries_are_logged_where_calls_are_not(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.busy(2, retry_after="0")
    scripted.reply(completion())
    runner.chat(llm)
    assert [each.name for each in caplog.records] == ["vllmchat.retries"] * 2


def test_a_refused_connection_is_a_reason_too(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flows, "backoff", short_pause)
    llm = VLLMProvider("m", base_url="http://127.0.0.1:1", max_retries=1)
    with pytest.raises(APIConnectionError):
        runner.chat(llm)
    [line] = of(caplog, "retries")
    assert (
        "attempt 1 failed: APIConnectionError: no connection to http://127.0.0.1:1/v1/chat/completions"
        in line
    )


def test_connections(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        scripted.reply(completion())
        runner.chat(llm)
    opened, reused = of(lines, "connections")
    assert re.fullmatch(rf"opened a connection to {place(scripted)} in \d\.\d{{3}} s", opened)
    assert reused == f"reused a connection to {place(scripted)}"


def test_why_connections_are_closed(
    runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url)
    scripted.reply(completion(), headers={"connection": "close"})
    runner.chat(llm)
    scripted.stream([*chunks("a")[:1], never])
    with runner.stream(llm) as stream:
        next(stream)
    scripted.reply(completion())
    runner.chat(llm)
    runner.close(llm)
    closed = [each.partition(": ")[2] for each in of(lines, "connections") if each.startswith("closed")]
    assert closed == [
        "the server does not keep it open",
        "the call ended before its response",
        "the provider was closed",
    ]


def test_connections_are_logged_by_themselves(
    runner: Runner, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url)
    scripted.reply(completion())
    with caplog.at_level(logging.DEBUG, "vllmchat.connections"):
        runner.chat(llm)
        runner.close(llm)
    assert {each.name for each in caplog.records} == {"vllmchat.connections"}


def test_what_is_asked_first_is_logged_too(
    runner: Runner, scripted: ScriptedServer, lines: pytest.LogCaptureFixture
) -> None:
    scripted.reply(models("served"))
    scripted.reply(completion())
    llm = VLLMProvider(base_url=scripted.base_url)
    runner.chat(llm)
    runner.close(llm)
    assert [each.split(" in ")[0] for each in of(lines, "requests")] == [
        "GET /v1/models 200",
        "POST /v1/chat/completions 200",
    ]


def test_bodies_need_a_switch_of_their_own(
    llm: VLLMProvider,
    runner: Runner,
    scripted: ScriptedServer,
    lines: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted.reply(completion("first"))
    runner.chat(llm, "secret question")
    assert "secret question" not in lines.text
    assert "first" not in lines.text
    monkeypatch.setenv("VLLMCHAT_LOG_BODIES", "1")
    scripted.reply(completion("second"))
    scripted.stream(chunks("th", "ird"))
    runner.chat(llm, "x" * 10_000)
    runner.stream(llm, "another").until_done()
    sent, received, also_sent, streamed = of(lines, "bodies")
    assert sent.startswith('POST /v1/chat/completions sends {"model":"m","messages":[')
    assert re.search(r"xxx… \(10,\d\d\d bytes\)$", sent)
    assert len(sent) < 2_100
    assert '"content":"second"' in received
    assert '"another"' in also_sent
    assert '"content":"third"' in streamed


def test_no_key_is_logged(
    llm: VLLMProvider,
    runner: Runner,
    scripted: ScriptedServer,
    lines: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    secret: str,
) -> None:
    monkeypatch.setenv("VLLMCHAT_LOG_BODIES", "1")
    monkeypatch.setattr(flows, "backoff", short_pause)
    scripted.reply({"error": {"message": f"bad key {secret}", "code": 503}}, 503, headers={"x-echo": secret})
    scripted.reply(completion(f"your key is {secret}", echo=secret), headers={"x-request-id": secret})
    runner.chat(llm, f"my key is {secret}")
    scripted.reply({"error": {"message": f"bad key {secret}", "code": 400}}, 400)
    scripted.stream([*chunks(f"it is {secret}")[:1], close])
    for streaming in (False, True):
        with pytest.raises((APIStatusError, StreamInterruptedError)):
            runner.stream(llm).until_done() if streaming else runner.chat(llm)
    assert len(of(lines, "requests")) == 3
    assert len(of(lines, "retries")) == 1
    for record in lines.records:
        assert secret not in logging.Formatter().format(record)
        assert secret not in str(vars(record))
    assert "bad key ***" in lines.text


def test_secret_parameters_are_hidden_in_logged_bodies(
    llm: VLLMProvider,
    runner: Runner,
    scripted: ScriptedServer,
    lines: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLMCHAT_LOG_BODIES", "1")
    scripted.reply(completion())
    scripted.version = "0.32.0"
    salt = 'pep"per' * 15
    nested = {"mode": "a", "api_key": "pep\\per"}
    quoted = 'the "cache_salt": "is quoted"'
    runner.do(llm, "chat", quoted, cache_salt=salt, extra_body={"gateway": nested})
    scripted.reply(completion())
    runner.do(llm, "chat", "x" * 7_880, cache_salt=salt)
    short, long = (line for line in of(lines, "bodies") if " sends " in line)
    assert "per" not in short + long
    assert short.count(':"***"') == 2
    assert 'the \\"cache_salt\\": \\"is quoted\\"' in short
    assert '"mode":"a"' in short


# Off


def test_it_is_off_by_default_and_costs_one_question_a_call(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def is_on() -> bool:
        asked.append(1)
        return was_on()

    was_on = logs.is_on
    monkeypatch.setattr(flows, "_log_is_on", is_on)
    monkeypatch.setattr(flows, "ObservedCall", None)  # none is made
    scripted.reply(completion())
    scripted.stream(chunks(*"abcdefgh"))
    runner.chat(llm)
    assert len(asked) == 1
    with runner.stream(llm) as stream:
        assert stream.texts() == list("abcdefgh")
    assert len(asked) == 2


def test_the_loggers_write_nothing_by_themselves() -> None:
    code = """
import logging
from vllmchat import VLLMProvider
assert "vllmchat.http.logs" not in __import__("sys").modules
try:
    VLLMProvider("m", base_url="http://127.0.0.1:1", max_retries=1).chat("Hi")
except Exception as error:
    print(type(error).__name__)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("APIConnectionError\n", "")


# VLLMCHAT_LOG

PROGRAM = """
import sys, logging
from vllmchat import VLLMProvider
{before}
for _ in range(2):
    llm = VLLMProvider("m", base_url=sys.argv[1])
llm.chat("Hi")
"""


def stderr(server: ScriptedServer, level: str, before: str = "") -> list[str]:
    server.reply(completion())
    code = PROGRAM.format(before=before)
    ran = subprocess.run(
        [sys.executable, "-c", code, server.base_url],
        capture_output=True, text=True, check=True, env={"VLLMCHAT_LOG": level},
    )  # fmt: skip
    return ran.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "loggers"),
    [("info", ["requests"]), ("DEBUG", ["connections", "requests", "connections"]), ("warning", [])],
)
def test_the_environment_turns_it_on(level: str, loggers: list[str], scripted: ScriptedServer) -> None:
    lines = stderr(scripted, level)
    assert [cast("re.Match[str]", re.search(r" vllmchat\.(\w+): ", line))[1] for line in lines] == loggers
    assert all(
        re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|DEBUG) vllmchat\.", each) for each in lines
    )


def test_a_program_with_handlers_of_its_own_gets_each_line_once(scripted: ScriptedServer) -> None:
    lines = stderr(scripted, "info", 'logging.basicConfig(format="own: %(name)s")')
    assert lines == ["own: vllmchat.requests"]


def test_what_a_server_sends_does_not_drive_the_terminal(scripted: ScriptedServer) -> None:
    scripted.reply({"error": {"message": "\x1b[2Jbad\x9b1m"}}, status=400)
    code = PROGRAM.format(before="")
    ran = subprocess.run(
        [sys.executable, "-c", code, scripted.base_url],
        capture_output=True, text=True, check=False, env={"VLLMCHAT_LOG": "info"}, encoding="utf-8",
    )  # fmt: skip
    assert r"BadRequestError: 400: \x1b[2Jbad\x9b1m" in ran.stderr.splitlines()[0]


def test_an_unknown_level_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLMCHAT_LOG", "loud")
    with pytest.warns(UserWarning, match="not a level") as caught:
        VLLMProvider("m")
    [warning] = caught
    assert str(warning.message) == (
        "VLLMCHAT_LOG='loud' is not a level, so nothing is logged. Write debug, info or warning"
    )
    assert warning.filename == __file__
