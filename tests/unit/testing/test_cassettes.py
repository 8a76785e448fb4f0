"""What was recorded is replayed as it was."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import httpx
import pytest

from support.runners import NAMES, Runner, runner_of
from vllmchat import (
    APIConnectionError,
    InternalServerError,
    RateLimitError,
    StreamInterruptedError,
    VLLMProvider,
)
from vllmchat.testing import (
    CassetteError,
    FakeServer,
    Response,
    drop,
    error,
    record,
    replay,
    reply,
    slow,
    tool_call,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

KEY = "sk-a-very-secret-key-0123456789"


@pytest.fixture(params=NAMES)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Sync, and async on both event loops."""
    with runner_of(request.param) as made:
        yield made


@pytest.fixture
def cassette(tmp_path: Path) -> Path:
    """Where a cassette goes."""
    return tmp_path / "cassette.json"


@contextlib.contextmanager
def recorded_provider(cassette: Path, real: FakeServer, key: str | None = None) -> Generator[VLLMProvider]:
    """A provider of a server whose answers are recorded."""
    with (
        record(cassette, real.base_url) as server,
        VLLMProvider("m", base_url=server.base_url, api_key=key, max_retries=0) as llm,
    ):
        yield llm


def test_what_is_recorded_is_replayed(runner: Runner, cassette: Path) -> None:
    answer = reply("Hello, yöu.", reasoning="A greeting.", tool_calls=[tool_call("f", {"a": [1]})])

    def calls(base_url: str) -> list[object]:
        llm = VLLMProvider(base_url=base_url, max_retries=0)
        got: list[object] = [
            runner.do(llm, "chat", "Hi", logprobs=True, return_token_ids=True, min_p=0.5).model_dump(),
            runner.open(llm, "stream", "Hi").until_done().model_dump(),
            [chunk.model_dump() for chunk in runner.stream(llm, "Hi")],
            runner.do(llm, "embed", ["a", "b"]).vectors,
            runner.do(llm, "version"),
            runner.do(llm, "health"),
            dict(runner.do(llm, "metrics")),
        ]
        with pytest.raises(RateLimitError, match="Slowly"):
            runner.chat(llm, "Hi")
        runner.close(llm)
        return got

    with FakeServer([answer, answer, answer, error(429, "Slowly.")]) as real:
        with record(cassette, real.base_url) as server:
            first = calls(server.base_url)
        served = len(real.requests)
    with replay(cassette) as played:
        assert calls(played.base_url) == first
        played.assert_done()
        assert len(played.requests) == served


def test_a_cassette_reads_well(cassette: Path) -> None:
    with FakeServer("Hi, you") as real, recorded_provider(cassette, real) as llm:
        llm.stream("Hello", top_k=3).until_done()
        llm.embed("x", encoding_format="float")
    text = cassette.read_text(encoding="utf-8")
    chat, embed = json.loads(text)["exchanges"]
    assert chat["request"]["path"] == "/v1/chat/completions"
    assert chat["request"]["body"]["top_k"] == 3
    assert chat["response"]["headers"] == {"content-type": "text/event-stream; charset=utf-8"}
    assert [event["data"] for event in chat["response"]["events"]][-1] == "[DONE]"
    assert embed["response"]["json"]["data"][0]["object"] == "embedding"
    lines = text.splitlines()
    assert sum(line.lstrip().startswith('{"data":') for line in lines) == len(chat["response"]["events"])
    assert sum('"embedding": [' in line and line.rstrip(",").endswith("]") for line in lines) == 1


def test_keys_are_not_recorded(cassette: Path) -> None:
    real = FakeServer(lambda call: f"You said {call.text}", api_key=KEY)
    with real, recorded_provider(cassette, real, KEY) as llm:
        assert KEY in llm.chat(f"My key is {KEY}").text
        httpx.get(f"{llm.base_url}/models?key={KEY}", headers={"authorization": f"Bearer {KEY}"})
    assert KEY not in cassette.read_text(encoding="utf-8")
    with replay(cassette) as played, VLLMProvider("m", base_url=played.base_url, api_key=KEY) as llm:
        assert llm.chat(f"My key is {KEY}").text == "You said My key is ***"


def test_the_same_request_gets_its_answers_in_order(runner: Runner, cassette: Path) -> None:
    with FakeServer(["one", "two"]) as real, record(cassette, real.base_url) as server:
        llm = VLLMProvider("m", base_url=server.base_url)
        runner.chat(llm)
        runner.chat(llm)
        runner.close(llm)
    with replay(cassette) as played:
        llm = VLLMProvider("m", base_url=played.base_url)
        assert [runner.chat(llm).text for _ in range(3)] == ["one", "two", "two"]
        runner.close(llm)


def test_a_request_that_was_not_recorded_names_the_nearest(runner: Runner, cassette: Path) -> None:
    with FakeServer("ok") as real, record(cassette, real.base_url) as server:
        llm = VLLMProvider("m", base_url=server.base_url)
        runner.do(llm, "chat", "Something else", top_k=1, min_p=0.5, seed=1)
        runner.do(llm, "chat", "Hello", top_k=1)
        runner.close(llm)
    with replay(cassette) as played:
        llm = VLLMProvider("m", base_url=played.base_url)
        near = (
            r"has no answer to POST /v1/chat/completions with this body\. The nearest is exchange 2, which differs in "
            r"messages\[0\]\.content: recorded 'Hello', sent 'Bye'; top_k: recorded 1, not sent; top_p: not recorded, "
            r"sent 0\.5"
        )
        with pytest.raises(InternalServerError, match=near):
            runner.do(llm, "chat", "Bye", top_p=0.5)
        with pytest.raises(InternalServerError, match="It has answers to POST /v1/chat/completions"):
            runner.do(llm, "models")
        with pytest.raises(CassetteError, match="has no answer to POST"):
            played.assert_done()
        runner.close(llm)


def test_what_was_not_asked_for_is_an_error(cassette: Path) -> None:
    with FakeServer("ok") as real, recorded_provider(cassette, real) as llm:
        llm.chat("x")
    with (
        replay(cassette) as played,
        pytest.raises(
            CassetteError,
            match="1 of 1 recorded requests were not made; the first is POST /v1/chat/completions",
        ),
    ):
        played.assert_done()


def test_the_id_of_a_request_does_not_count(cassette: Path) -> None:
    with FakeServer("ok") as real, recorded_provider(cassette, real) as llm:
        llm.chat("x", request_id="one")
    with replay(cassette) as played, VLLMProvider("m", base_url=played.base_url) as llm:
        assert llm.chat("x", request_id="two").text == "ok"


def test_forms_are_told_apart_without_their_boundary(cassette: Path) -> None:
    with FakeServer() as real:
        real.on("/v1/audio/transcriptions", {"text": "Hello.", "usage": None})
        with record(cassette, real.base_url) as server, VLLMProvider("m", base_url=server.base_url) as llm:
            llm.transcribe(b"RIFF-one")
    with replay(cassette) as played, VLLMProvider("m", base_url=played.base_url) as llm:
        assert llm.transcribe(b"RIFF-one").text == "Hello."
        with pytest.raises(InternalServerError, match="sha256"):
            llm.transcribe(b"RIFF-two")


def test_what_is_not_json_is_kept(cassette: Path) -> None:
    with FakeServer() as real:
        real.on("/text", "Grüße")
        real.on("/bytes", b"\xff\x00\x01")
        real.on("/status", Response(status=204))
        strange = [
            b"event: a\ndata: 1\n\n",
            b": ping\n\n",
            b"data: {broken\n\n",
            b'data: "text"\n\n',
            b"data: \xff\n\n",
        ]
        real.on("/events", Response([*strange, b"data: cut"]))
        paths = ("/text", "/bytes", "/status", "/events")
        with record(cassette, real.base_url) as server:
            root = server.base_url.removesuffix("/v1")
            first = [httpx.get(f"{root}{path}") for path in paths]
    with replay(cassette) as played:
        root = played.base_url.removesuffix("/v1")
        for path, before in zip(paths, first, strict=True):
            after = httpx.get(f"{root}{path}")
            assert (after.status_code, after.content) == (before.status_code, before.content)
            assert after.headers.get("content-type") == before.headers.get("content-type")


def test_pieces_are_passed_on_as_they_arrive(runner: Runner, cassette: Path) -> None:
    """And a stream that the client leaves is recorded as far as it came."""
    with FakeServer(slow("word " * 500, between=0.02)) as real, record(cassette, real.base_url) as server:
        llm = VLLMProvider("m", base_url=server.base_url)
        with runner.stream(llm, "x") as stream:
            assert [next(stream).text, next(stream).text] == ["", "word"]
        real.wait_abandoned()
        runner.close(llm)
    [exchange] = json.loads(cassette.read_text())["exchanges"]
    assert exchange["response"]["cut"] is True
    assert 2 <= len(exchange["response"]["events"]) < 400


def test_a_stream_that_broke_breaks_again(runner: Runner, cassette: Path) -> None:
    def call(base_url: str) -> str:
        llm = VLLMProvider("m", base_url=base_url, max_retries=0)
        with pytest.raises(StreamInterruptedError) as caught:
            runner.stream(llm, "x").until_done()
        runner.close(llm)
        assert caught.value.partial is not None
        return str(caught.value.partial.text)

    with FakeServer(drop("Once upon a time", after=3)) as real, record(cassette, real.base_url) as server:
        assert call(server.base_url) == "Once upon"
    with replay(cassette) as played:
        assert call(played.base_url) == "Once upon"


def test_a_whole_answer_that_broke_breaks_again(cassette: Path) -> None:
    real = FakeServer(drop("Once upon a time", after=0))
    with real, recorded_provider(cassette, real) as llm, pytest.raises(APIConnectionError):
        llm.chat("x")
    with replay(cassette) as played, pytest.raises(APIConnectionError):
        VLLMProvider("m", base_url=played.base_url, max_retries=0).chat("x")


def test_a_server_that_cannot_be_reached_is_not_recorded(cassette: Path) -> None:
    with FakeServer() as real:
        gone = real.base_url
    with (
        record(cassette, gone) as server,
        pytest.raises(InternalServerError, match="the recorder cannot reach"),
    ):
        VLLMProvider("m", base_url=server.base_url, max_retries=0).chat("x")
    assert json.loads(cassette.read_text())["exchanges"] == []


def test_the_environment_names_the_server(cassette: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer("ok") as real:
        monkeypatch.setenv("VLLM_BASE_URL", real.url)
        with record(cassette) as server, VLLMProvider("m", base_url=server.base_url) as llm:
            assert llm.chat("x").text == "ok"
    assert json.loads(cassette.read_text())["server"] == real.base_url


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "server": "", "exchanges": [1]}']
)
def test_what_is_not_a_cassette_is_rejected(cassette: Path, text: str) -> None:
    cassette.write_text(text)
    with pytest.raises(CassetteError, match="is not a cassette"):
        replay(cassette)


def test_a_newer_format_is_rejected(cassette: Path) -> None:
    cassette.write_text('{"format": 2}')
    with pytest.raises(CassetteError, match="has format 2, and this version reads 1"):
        replay(cassette)


def test_a_missing_file_is_missing(cassette: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replay(cassette)
