"""A local server that answers by a script, as a client sees it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

import anyio
import httpx
import pytest

from support.runners import NAMES, Runner, runner_of
from vllmchat import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ContextWindowExceededError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    StreamInterruptedError,
    VLLMProvider,
)
from vllmchat.testing import (
    Call,
    FakeServer,
    Request,
    Response,
    ScriptError,
    drip,
    drop,
    error,
    fail,
    garbage,
    hang_up,
    reply,
    slow,
    stall,
    tool_call,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllmchat.testing import Answer


@pytest.fixture(params=NAMES)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Sync, and async on both event loops."""
    with runner_of(request.param) as made:
        yield made


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server with an empty script."""
    with FakeServer() as started:
        yield started


@pytest.fixture
def llm(server: FakeServer, runner: Runner) -> Iterator[VLLMProvider]:
    """A provider of that server that does not retry."""
    provider = VLLMProvider(base_url=server.base_url, max_retries=0)
    yield provider
    runner.close(provider)


# Answers


def test_it_answers_chats_whole_and_streamed(server: FakeServer, llm: VLLMProvider, runner: Runner) -> None:
    answer = reply("Hello, you.", reasoning="A greeting.", tool_calls=[tool_call("f", {"a": 1}, id="call-1")])
    server.answer(answer, answer)
    whole = runner.do(llm, "chat", "Hi", logprobs=True, top_logprobs=1)
    streamed = runner.open(llm, "stream", "Hi", logprobs=True, top_logprobs=1).until_done()
    for got in (whole, streamed):
        assert (got.text, got.reasoning, got.finish_reason) == ("Hello, you.", "A greeting.", "tool_calls")
        assert [(call.id, call.name, call.parse()) for call in got.tool_calls] == [("call-1", "f", {"a": 1})]
        assert got.usage is not None
        assert got.choices[0].logprobs is not None
    assert whole.usage == streamed.usage
    assert whole.choices == streamed.choices
    server.assert_done()


def test_its_other_routes_answer(server: FakeServer, llm: VLLMProvider, runner: Runner) -> None:
    server.answer("and so on", "and so on")
    assert runner.do(llm, "complete", "Once", logprobs=1).choices[0].logprobs.tokens == ["and", " so", " on"]
    assert runner.open(llm, "stream_complete", "Once").until_done().text == "and so on"
    assert runner.do(llm, "tokenize", "Hello, you").count == 3
    assert runner.do(llm, "detokenize", runner.do(llm, "tokenize", "Hello, you").tokens) == "Hello, you"
    assert len(runner.do(llm, "embed", "x", dimensions=5).vectors[0]) == 5
    assert [card.id for card in runner.do(llm, "models").data] == ["fake-model"]
    assert runner.do(llm, "version") == "0.33.0"
    assert runner.do(llm, "health") is True
    assert runner.do(llm, "load") == 1  # that request itself
    metrics = runner.do(llm, "metrics")
    assert metrics.requests_finished == {"stop": 2}
    assert metrics.generation_tokens == 8
    assert metrics.requests_running == 1


@pytest.mark.parametrize("encoding", ["float", "base64", "bytes"])
def test_embeddings_depend_only_on_the_text(server: FakeServer, encoding: Any) -> None:
    with VLLMProvider(base_url=server.base_url) as llm:
        if encoding == "bytes":
            with pytest.raises(BadRequestError, match="float or base64 only"):
                llm.embed(["a"], encoding_format=encoding)
            return
        a, b, again = llm.embed(["a", "b", "a"], encoding_format=encoding).vectors
    assert list(a) == list(again) != list(b)
    assert len(a) == 16


def test_it_reports_the_model_and_version_that_it_is_given(runner: Runner) -> None:
    with FakeServer("ok", model=["base", "adapter"], version="0.19.1") as server:
        llm = VLLMProvider("adapter", base_url=server.base_url)
        assert runner.do(llm, "version") == "0.19.1"
        assert [card.id for card in runner.do(llm, "models").data] == ["base", "adapter"]
        assert runner.chat(llm).model == "adapter"
        with pytest.raises(
            NotFoundError, match=r"The model `other` does not exist. Valid aliases: base, adapter"
        ):
            runner.chat(llm, model="other")
        runner.close(llm)


def test_without_a_model_it_accepts_every_name(server: FakeServer) -> None:
    server.answer("ok")
    with VLLMProvider("Qwen/Qwen3-4B", base_url=server.base_url) as llm:
        assert llm.chat("x").model == "Qwen/Qwen3-4B"
    assert server.calls[0].model == "Qwen/Qwen3-4B"


def test_a_key_is_required_below_v1() -> None:
    with FakeServer("ok", api_key="secret-key") as server:
        with VLLMProvider("m", base_url=server.base_url) as llm, pytest.raises(AuthenticationError):
            llm.chat("x")
        with VLLMProvider("m", base_url=server.base_url, api_key="secret-key") as llm:
            assert llm.chat("x").text == "ok"
        assert "secret-key" not in repr(server.requests)
        assert "secret-key" not in repr(server.requests[-1].headers)
        assert server.requests[-1].headers["authorization"] == "Bearer secret-key"
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_it_rejects_what_a_server_rejects() -> None:
    with FakeServer("ok", max_model_len=20) as server, httpx.Client(base_url=server.url) as client:

        def post(**body: object) -> httpx.Response:
            return client.post("/v1/chat/completions", json={"model": "m", **body})

        messages = [{"role": "user", "content": "x"}]
        bodies: list[tuple[dict[str, Any], str | None]] = [
            ({"messages": messages, "temperature": -1}, "temperature"),
            ({"messages": messages, "max_tokens": 99}, "max_tokens"),
            ({"messages": []}, None),
            ({"messages": [{"role": "user", "content": "word " * 30}]}, "input_tokens"),
        ]
        for body, param in bodies:
            response = post(**body)
            assert response.status_code == 400
            assert response.json()["error"]["param"] == param
        assert (
            client.post("/v1/chat/completions", content=b"{not json").json()["error"]["type"] == "Bad Request"
        )
        assert client.post("/v1/chat/completions", json=[1]).json()["error"]["param"] == "body"
        assert post(messages=["x"] * 30).json()["error"]["param"] == "input_tokens"
        assert client.get("/v1/chat/completions").json() == {"detail": "Method Not Allowed"}
        assert client.get("/v1/nothing").json() == {"detail": "Not Found"}
        with VLLMProvider("m", base_url=server.base_url) as llm, pytest.raises(ContextWindowExceededError):
            llm.chat("word " * 30)
    assert server.calls == []


def test_a_route_can_be_set(server: FakeServer, llm: VLLMProvider, runner: Runner) -> None:
    def rank(request: Request) -> dict[str, object]:
        documents = cast("list[str]", request.json["documents"])
        results = [
            {"index": index, "relevance_score": 0.5, "document": {"text": "a"}}
            for index in range(len(documents))
        ]
        return {"id": "r", "results": results}

    server.on("/v1/rerank", rank)
    server.on("/v1/models", error(503, "Loading."))
    server.on("/health", Response(status=503))
    assert len(runner.do(llm, "rerank", "x", ["a", "b"], model="m").results) == 2
    assert runner.do(llm, "health") is False
    with pytest.raises(InternalServerError, match="Loading"):
        runner.do(llm, "models")
    server.on("/health", "fine")
    server.on("/health/raw", slow(b"\x00\x01", before=0.01))
    assert httpx.get(f"{server.url}/health").text == "fine"
    assert httpx.get(f"{server.url}/health/raw?x=1").content == b"\x00\x01"
    assert (server.requests[-1].path, server.requests[-1].query) == ("/health/raw", "x=1")
    with pytest.raises(ValueError, match="path must begin with a slash"):
        server.on("v1/models", "x")


def test_a_function_answers(runner: Runner) -> None:
    def answer(call: Call) -> Answer:
        return "hot" if call.params.get("temperature") == 2 else "cold"

    with FakeServer(answer) as server:
        llm = VLLMProvider(base_url=server.base_url)
        assert runner.chat(llm, temperature=2).text == "hot"
        assert runner.chat(llm).text == "cold"
        runner.close(llm)


# When the script does not fit


def test_a_script_that_has_run_out_is_an_error_of_the_server(
    server: FakeServer, llm: VLLMProvider, runner: Runner
) -> None:
    with pytest.raises(InternalServerError, match=r"the script has 0 answers, and this is call 1: 'Hi'"):
        runner.chat(llm)
    with pytest.raises(ScriptError, match="1 call had no answer: 'Hi'"):
        server.assert_done()


def test_answers_that_are_left_are_an_error(server: FakeServer) -> None:
    server.answer("one")
    with pytest.raises(ScriptError, match="1 of 1 scripted answers are left; the next one is 'one'"):
        server.assert_done()


def test_an_exception_is_an_error_if_it_can_cross_http(
    server: FakeServer, llm: VLLMProvider, runner: Runner
) -> None:
    server.answer(RateLimitError("too busy", status_code=429), ValueError("mine"))
    with pytest.raises(RateLimitError, match="too busy"):
        runner.chat(llm)
    with pytest.raises(InternalServerError, match=r"ValueError: mine\. An exception cannot cross HTTP"):
        runner.chat(llm)
    with pytest.raises(ScriptError, match="the script failed: ValueError: mine"):
        server.assert_done()


# Faults


def test_errors_are_retried_as_those_of_a_server(server: FakeServer, runner: Runner) -> None:
    server.answer(error(503, retry_after=0), error(429, retry_after=0), "at last")
    llm = VLLMProvider("m", base_url=server.base_url)
    assert runner.chat(llm).text == "at last"
    assert len(server.requests) == 3
    runner.close(llm)


def test_streams_break(server: FakeServer, llm: VLLMProvider, runner: Runner) -> None:
    server.answer(
        drop("Once upon a time", after=3),
        garbage("Once upon", after=2),
        fail("Once upon", error(500, "The engine died."), after=2),
    )
    with pytest.raises(StreamInterruptedError) as caught:
        runner.stream(llm).until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Once upon"
    with pytest.raises(ResponseError):
        runner.stream(llm).until_done()
    with pytest.raises(InternalServerError, match="The engine died"):
        runner.stream(llm).until_done()


def test_whole_answers_break(server: FakeServer, runner: Runner) -> None:
    # On a connection that had served another request, such as for the model, it would be sent again.
    llm = VLLMProvider("m", base_url=server.base_url, max_retries=0)
    server.answer(drop(), drop("Once upon a time", after=0), garbage("x"))
    with pytest.raises(APIConnectionError):
        runner.chat(llm)
    with pytest.raises(APIConnectionError):
        runner.chat(llm)
    with pytest.raises(ResponseError):
        runner.chat(llm)
    runner.close(llm)


def test_answers_stall(server: FakeServer, llm: VLLMProvider, runner: Runner) -> None:
    server.answer(stall(), stall("Once upon", after=2), slow("late", before=30))
    for _ in range(3):
        with pytest.raises(APITimeoutError):
            runner.do(llm, "chat", "x", timeout=0.1)
    assert len(server.wait_abandoned(3)) == 3


def test_answers_drip(server: FakeServer, llm: VLLMProvider, runner: Runner) -> None:
    server.answer(drip("Hello, you", size=5), drip("Hello", size=400, seconds=0.001))
    assert runner.stream(llm).until_done().text == "Hello, you"
    assert runner.chat(llm).text == "Hello"


def test_a_connection_can_close_after_an_answer(
    server: FakeServer, llm: VLLMProvider, runner: Runner
) -> None:
    server.answer(hang_up("one"), "two", "three")
    assert [runner.chat(llm).text for _ in range(3)] == ["one", "two", "three"]


def test_a_client_that_leaves_is_noticed(server: FakeServer, llm: VLLMProvider, runner: Runner) -> None:
    server.answer(slow("word " * 1000, between=0.01))
    with runner.stream(llm, "Tell me.") as stream:
        assert next(iter(stream)).choices
    [left] = server.wait_abandoned()
    assert left.json["stream"] is True
    with pytest.raises(AssertionError, match="1 of 2 connections were closed early"):
        server.wait_abandoned(2, timeout=0.01)


# Connections


def test_a_connection_is_kept_for_further_requests(server: FakeServer) -> None:
    server.answer("one", "two")
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]))
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True})
    for text in ("one", "two"):
        connection.request("POST", "/v1/chat/completions", body)
        assert text.encode() in connection.getresponse().read()
    connection.close()


def raw(server: FakeServer, data: bytes) -> bytes:
    """What a server responds to these bytes, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(data)
        received = b""
        while more := client.recv(65536):
            received += more
    return received


def test_requests_can_come_in_one_write(server: FakeServer) -> None:
    server.answer(slow("one", before=0.02), "two")
    body = b'{"messages": [{"role": "user", "content": "x"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n" % len(body)
    received = raw(server, head + b"\r\n" + body + head + b"connection: close\r\n\r\n" + body)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b'"one"') < received.index(b'"two"')


def test_a_request_can_come_in_chunks(server: FakeServer) -> None:
    server.answer("ok")
    body = b'{"messages": [{"role": "user", "content": "x"}]}'
    chunks = b"%x\r\n%b\r\n%x;a=b\r\n%b\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    head = b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    assert b'"ok"' in raw(server, head + chunks)


def test_a_client_may_wait_for_continue(server: FakeServer) -> None:
    head = (
        b"POST /tokenize HTTP/1.1\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 15\r\n\r\n"
    )
    assert raw(server, head + b'{"prompt": "x"}').startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize("wrong", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n"])
def test_what_is_not_http_is_rejected(server: FakeServer, wrong: bytes) -> None:
    assert raw(server, wrong).startswith(b"HTTP/1.1 400 ")


def test_a_server_has_a_model() -> None:
    with pytest.raises(ValueError, match="model must name at least one model"):
        FakeServer(model=[])


def test_a_function_that_fails_is_not_an_error_of_the_client() -> None:
    def answer(call: Call) -> Answer:
        return reply(json.loads(call.text))

    with FakeServer(answer) as server, VLLMProvider("m", base_url=server.base_url) as llm:
        with pytest.raises(InternalServerError, match="JSONDecodeError"):
            llm.chat("not JSON")
        with pytest.raises(ScriptError, match="the script failed: JSONDecodeError"):
            server.assert_done()


def test_a_port_can_be_chosen_and_is_free_again(server: FakeServer) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        FakeServer(port=port).start()
    server.close()
    with FakeServer("ok", port=port) as second:
        assert second.url == server.url
        with pytest.raises(RuntimeError, match="started already"):
            second.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "vllmchat-fake"]


def test_closing_ends_open_streams_and_twice_is_fine(server: FakeServer) -> None:
    server.answer(stall("Once upon", after=2))
    stream = VLLMProvider("m", base_url=server.base_url, max_retries=0).stream("x")
    next(iter(stream))
    server.close()
    server.close()
    with pytest.raises(StreamInterruptedError):
        stream.until_done()


@pytest.mark.slow
@pytest.mark.anyio
async def test_many_streams_at_once() -> None:
    with FakeServer(slow("word " * 10, between=0.05)) as server:
        done: list[str] = []
        async with VLLMProvider("m", base_url=server.base_url) as llm, anyio.create_task_group() as group:

            async def one() -> None:
                done.append((await llm.astream("x").until_done()).text)

            for _ in range(1000):
                group.start_soon(one)
        assert done == ["word " * 10] * 1000
        assert server.abandoned == []


# On the command line


def test_it_runs_as_a_module() -> None:
    arguments = [
        "--port",
        "0",
        "--reply",
        "Hi there",
        "--reasoning",
        "Hm.",
        "--model",
        "tiny",
        "--delay-ms",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "vllmchat.testing", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with VLLMProvider(base_url=url) as llm:
            got = llm.stream("x").until_done()
            assert (got.text, got.reasoning, got.model) == ("Hi there", "Hm.", "tiny")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (0, "", "")


def test_a_port_in_use_is_explained(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    from vllmchat.testing.__main__ import main

    port = server.url.rpartition(":")[2]
    assert main(["--port", port]) == 1
    assert (
        capsys.readouterr().err
        == f"port {port} cannot be used: Address already in use. Write --port 0 for a free one\n"
    )
