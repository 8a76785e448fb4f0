"""What must not leak, and what a hostile server must not be able to do."""

from __future__ import annotations

import gc
import gzip
import logging
import pickle
import zlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support.chats import answer_any, chunk, completion
from support.proxy import ForwardProxy
from support.scripted import (
    ScriptedServer,
    close,
    forever,
    head,
    never,
    refusing_origin,
    reply,
    reset,
)
from support.tls import Authority
from vllmchat import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    OpenAIProvider,
    ResponseError,
    StreamInterruptedError,
    VLLMChatError,
    VLLMProvider,
)
from vllmchat.http import flow
from vllmchat.http.api_errors import MAX_ERROR_BYTES
from vllmchat.http.transport import decompress

if TYPE_CHECKING:
    from pathlib import Path

    from support.runners import Runner

pytestmark = pytest.mark.slow

KEY = "hunter2-is-the-key"


def no_key_in(error: BaseException | None) -> None:
    """The key is nowhere in the error or its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for text in (str(error), repr(error), repr(error.__dict__), repr(error.args)):
            assert KEY not in text
        if isinstance(error, VLLMChatError):
            assert KEY.encode() not in pickle.dumps(error)
        error = error.__cause__ or error.__context__


# ------------------------------------------------------------------------------------------------
# The key
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"api_key": KEY}, {"headers": {"authorization": KEY}}, {"headers": {"x-api-key": KEY}}],
    ids=str,
)
def test_no_error_contains_the_key(
    settings: dict[str, Any], scripted: ScriptedServer, runner: Runner
) -> None:
    # For servers that echo what they receive see below; these do not.
    scripted.script(close)
    scripted.script(reset)
    scripted.script(never)
    scripted.script(b"nonsense\r\n\r\n")
    scripted.busy()
    scripted.reply({"error": {"message": "bad"}}, 401)
    scripted.reply(b"<html>", 200)
    scripted.reply(None, 302, {"location": "http://elsewhere/"})
    llm = OpenAIProvider("m", base_url=scripted.base_url, max_retries=0, **settings)
    for _ in range(8):
        with pytest.raises(VLLMChatError) as failed:
            runner.chat(llm, timeout=0.2)
        no_key_in(failed.value)
    scripted.stream([chunk("a"), reset])
    scripted.stream([{"error": {"message": "broken", "code": 500}}])
    for _ in range(2):
        with pytest.raises(VLLMChatError) as failed:
            runner.stream(llm).texts()
        no_key_in(failed.value)
    with pytest.raises(VLLMChatError) as failed:
        runner.chat(llm, extra_headers={"authorization": KEY}, temperature=99)
    no_key_in(failed.value)
    with refusing_origin() as origin, pytest.raises(APIConnectionError) as refused:
        runner.chat(OpenAIProvider("m", base_url=f"{origin}/v1", max_retries=0, **settings))
    no_key_in(refused.value)


ECHOES: list[dict[str, Any]] = [
    {"api_key": KEY},
    {"headers": {"cookie": f"theme=dark; session={KEY}"}},
    {"headers": {"x-goog-api-key": KEY}},
]


@pytest.mark.parametrize("settings", ECHOES, ids=str)
@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "bad header: Bearer KEY", "code": 400}}\n\n',
        b"data: no JSON but KEY\n\n",
        b'data: {"object": "error", "message": "KEY", "code": 401}\n\n',
        b'data: {"choices": "KEY"}\n\n',
    ],
)
def test_no_error_inside_a_stream_contains_the_key(
    event: bytes, settings: dict[str, Any], scripted: ScriptedServer, runner: Runner
) -> None:
    echo = event.replace(b"KEY", KEY.encode())
    scripted.stream([chunk("a"), echo, never], headers={"x-echo": f"Bearer {KEY}"})
    options: dict[str, Any] = {"api_key": "other", **settings}
    llm = OpenAIProvider("m", base_url=scripted.base_url, **options)
    with pytest.raises(VLLMChatError, match=r"\*\*\*") as failed:
        runner.stream(llm).until_done()
    no_key_in(failed.value)
    assert failed.value.partial is not None
    assert "x-echo" not in str(failed.value)
    runner.close(llm)


@pytest.mark.parametrize("settings", ECHOES, ids=str)
def test_no_error_of_a_server_that_echoes_the_key_contains_it(
    settings: dict[str, Any], scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.reply({"error": {"message": f"you sent {KEY}"}}, 400, {"x-echo": KEY})
    options: dict[str, Any] = {"api_key": "other", **settings}
    llm = OpenAIProvider("m", base_url=scripted.base_url, **options)
    with pytest.raises(APIStatusError, match=r"you sent \*\*\*") as failed:
        runner.chat(llm)
    no_key_in(failed.value)
    runner.close(llm)


@pytest.mark.parametrize("through", ["pool", "proxy", "tunnel", "client"])
def test_no_log_contains_the_key(
    through: str,
    scripted: ScriptedServer,
    runner: Runner,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "httpcore.proxy", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    authority = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path).ca))
    with (
        ScriptedServer(tls=authority.server_context("vllm.example")) as secure,
        ForwardProxy(secure if through == "tunnel" else scripted) as proxy,
    ):
        base_url, options = scripted.base_url, dict[str, Any]()
        if through == "proxy":
            base_url = "http://vllm.example"
        elif through == "tunnel":
            base_url = "https://vllm.example"
        if through in ("proxy", "tunnel"):
            monkeypatch.setenv("ALL_PROXY", proxy.origin.replace("://", f"://user:{KEY}@"))
        if through == "client":
            options["http_client"] = httpx.Client(trust_env=False)
            options["async_http_client"] = httpx.AsyncClient(trust_env=False)
        for server in (scripted, secure):
            server.add(answer_any, answer_any, reply({"error": {"message": "bad"}}, 401))
        llm = VLLMProvider("m", base_url=base_url, api_key=KEY, headers={"x-key": KEY}, **options)
        assert runner.chat(llm, extra_headers={"x-other": KEY}).text == "Hi"
        assert runner.stream(llm).texts() == ["H", "i"]
        with pytest.raises(APIStatusError):
            runner.chat(llm)
        runner.close(llm)
        if through == "client":
            options["http_client"].close()
            if runner.portal is not None:
                runner.portal.call(options["async_http_client"].aclose)
    # A caller's client logs much of what it does; the pool logs nothing.
    assert through != "client" or len(caplog.records) > 10
    for record in caplog.records:
        assert KEY not in record.getMessage() + repr(record.args) + repr(record.__dict__)


def test_redirects_are_not_followed(scripted: ScriptedServer, runner: Runner) -> None:
    with ScriptedServer() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            scripted.reply(None, status, {"location": elsewhere.url("/v1/chat/completions?key=" + KEY)})
            with pytest.raises(APIStatusError, match="Redirects are not followed") as caught:
                runner.chat(VLLMProvider("m", base_url=scripted.base_url))
            assert caught.value.status_code == status
            assert KEY not in str(caught.value)
        assert elsewhere.connections == 0


def test_cookies_are_not_kept(scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url)
    scripted.reply(completion(), headers={"set-cookie": "a=b"})
    scripted.reply(completion())
    for _ in range(2):
        runner.chat(llm)
    assert "cookie" not in scripted.requests[1].headers
    runner.close(llm)


def test_netrc_is_not_read(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    scripted.always(answer_any)
    llm = OpenAIProvider("m", base_url=scripted.base_url)
    runner.chat(llm)
    assert "authorization" not in scripted.requests[0].headers
    runner.close(llm)


# ------------------------------------------------------------------------------------------------
# Too much
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_bodies(monkeypatch: pytest.MonkeyPatch) -> int:
    """The size limit of a whole reply, lowered; the test does not need 512 MB."""
    bound = 3_000_000

    monkeypatch.setattr(flow, "MAX_BODY_BYTES", bound)
    return bound


def test_an_endless_reply(scripted: ScriptedServer, runner: Runner, small_bodies: int) -> None:
    scripted.script(head(200), forever(b"x" * 100_000))
    with pytest.raises(ResponseError, match="more than 3,000,000 bytes") as caught:
        runner.chat(VLLMProvider("m", base_url=scripted.base_url))
    assert caught.value.status_code == 200
    assert caught.value.body == "x" * 2000
    assert scripted.wait_client_closed()


def test_a_compression_bomb(
    scripted: ScriptedServer, runner: Runner, small_bodies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 kB that decompress to 100 MB: decompressed in steps, and stopped at the limit."""
    packer = zlib.compressobj(wbits=31)
    body = b"".join([*(packer.compress(b"x" * 1_000_000) for _ in range(100)), packer.flush()])
    assert len(body) < 200_000
    steps: list[int] = []
    inflater: Any = getattr(decompress, "Decompressor")  # noqa: B009 - it is private
    step = inflater._step

    def counting(self: Any, source: bytes) -> bytes:
        data: bytes = step(self, source)
        steps.append(len(data))
        return data

    monkeypatch.setattr(inflater, "_step", counting)
    scripted.reply(body, headers={"content-encoding": "gzip"})
    with pytest.raises(ResponseError, match="more than 3,000,000 bytes"):
        runner.chat(VLLMProvider("m", base_url=scripted.base_url))
    assert max(steps) <= 1024 * 1024
    assert sum(steps) < small_bodies + 2 * 1024 * 1024


def test_an_endless_error(scripted: ScriptedServer, runner: Runner) -> None:
    sent = 0

    def endless(connection: Any) -> None:
        nonlocal sent
        for _ in range(1000):
            connection.send(b"x" * 100_000)
            sent += 100_000

    scripted.script(head(400, {"content-length": "100000000"}), endless)
    with pytest.raises(APIStatusError) as caught:
        runner.chat(VLLMProvider("m", base_url=scripted.base_url))
    assert caught.value.body == "x" * MAX_ERROR_BYTES
    assert len(str(caught.value)) < 1000
    assert scripted.wait_client_closed()
    assert sent < 50_000_000


@pytest.mark.parametrize("kind", ["one header", "many headers", "status line"])
def test_endless_headers(kind: str, scripted: ScriptedServer, runner: Runner) -> None:
    start = {
        "one header": b"HTTP/1.1 200 OK\r\nx: ",
        "many headers": b"HTTP/1.1 200 OK\r\n",
        "status line": b"HTTP/1.1 200 ",
    }[kind]
    scripted.script(start, forever(b"x: y\r\n" * 1000 if kind == "many headers" else b"x" * 10_000))
    with pytest.raises(APIConnectionError, match="broke"):
        runner.chat(VLLMProvider("m", base_url=scripted.base_url, max_retries=0))
    assert scripted.wait_client_closed()


def test_a_stream_of_comments(scripted: ScriptedServer, runner: Runner) -> None:
    """Bytes without content are not progress, and are not buffered."""
    scripted.stream([forever(b": keep-alive\n\n" * 100)])
    with pytest.raises(APITimeoutError):
        runner.stream(VLLMProvider("m", base_url=scripted.base_url, timeout=0.2)).texts()
    assert scripted.wait_client_closed()


# ------------------------------------------------------------------------------------------------
# Compression that was not requested
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "identity", ""])
def test_codings(coding: str, scripted: ScriptedServer, runner: Runner) -> None:
    body = b'{"choices": [{"message": {"content": "packed"}}]}'
    if "gzip" in coding:
        body = gzip.compress(body)
    elif coding == "deflate":
        body = zlib.compress(body)
    scripted.reply(body, headers={"content-encoding": coding})
    scripted.stream([chunk("a"), chunk("b", "stop")], gzip=True)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    assert runner.chat(llm).text == "packed"
    assert scripted.requests[0].headers["accept-encoding"] == "identity"
    assert runner.stream(llm).texts() == ["a", "b"]
    assert scripted.connections == 1
    runner.close(llm)


@pytest.mark.parametrize(
    ("body", "coding", "words"),
    [
        (b"no gzip", "gzip", "the compressed body is corrupt"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-10], "gzip", "the compressed body ends too early"),
        (b"x", "br", "content-encoding 'br', which was not requested"),
    ],
)
def test_codings_that_cannot_be_undone(
    body: bytes, coding: str, words: str, scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.reply(body, headers={"content-encoding": coding})
    with pytest.raises(APIConnectionError, match=words):
        runner.chat(VLLMProvider("m", base_url=scripted.base_url, max_retries=0))
    assert scripted.wait_client_closed()


@pytest.mark.parametrize("after", [b"", b"x", b"\0" * 512])
def test_a_compressed_body_in_parts(after: bytes, scripted: ScriptedServer, runner: Runner) -> None:
    body = b'{"choices": [{"message": {"content": "packed"}}]}'
    packed = gzip.compress(body[:20]) + gzip.compress(body[20:]) + after
    scripted.reply(packed, headers={"content-encoding": "gzip"})
    llm = VLLMProvider("m", base_url=scripted.base_url)
    assert runner.chat(llm).text == "packed"
    runner.close(llm)


@pytest.mark.parametrize("coding", ["utf-8", "None"])
def test_what_is_no_coding(coding: str, scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(completion("plain"), headers={"content-encoding": coding})
    llm = VLLMProvider("m", base_url=scripted.base_url)
    assert runner.chat(llm).text == "plain"
    runner.close(llm)


def test_endless_bytes_after_a_compressed_body(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.script(
        head(200, {"content-encoding": "gzip"}), gzip.compress(b"{}", mtime=0), forever(b"x" * 10_000)
    )
    with pytest.raises(APIConnectionError, match="goes on after its end"):
        runner.chat(VLLMProvider("m", base_url=scripted.base_url, max_retries=0))
    assert scripted.wait_client_closed()
    # Nothing is left that trio would warn about: the generators below have ended, though the error is not theirs.
    gc.collect(1)


def test_a_compressed_stream_that_breaks(scripted: ScriptedServer, runner: Runner) -> None:
    packer = zlib.compressobj(wbits=31)
    event = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    packed = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    scripted.script(head(200, headers), packed, close)
    with pytest.raises(StreamInterruptedError, match="ends too early") as caught:
        runner.stream(VLLMProvider("m", base_url=scripted.base_url)).texts()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


def test_an_empty_error_that_claims_to_be_compressed(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(None, 400, {"content-encoding": "gzip"})
    with pytest.raises(APIStatusError) as caught:
        runner.chat(VLLMProvider("m", base_url=scripted.base_url))
    assert caught.value.status_code == 400


def test_headers_of_a_call_are_checked(scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with pytest.raises(VLLMChatError, match="extra_headers"):
        runner.chat(llm, extra_headers={"x": "a\r\nx-injected: b"})
    assert scripted.connections == 0
