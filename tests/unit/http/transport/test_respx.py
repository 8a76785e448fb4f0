"""respx, the usual mock for httpx, intercepts what a provider sends through its own pool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
import respx

from support.chats import chunk, chunks, completion
from vllmchat import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    StreamInterruptedError,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner

URL = "http://localhost:8000/v1/chat/completions"


@pytest.fixture
def router() -> Iterator[respx.Router]:
    with respx.mock(assert_all_called=True) as router:
        yield router


@pytest.fixture
def llm() -> VLLMProvider:
    return VLLMProvider("m", api_key="key", max_retries=0)


def events(*bodies: object) -> bytes:
    """A stream as sent over the wire."""
    return b"".join(b"data: %s\n\n" % json.dumps(body).encode() for body in bodies)


def test_a_reply(router: respx.Router, llm: VLLMProvider, runner: Runner) -> None:
    route = router.post(URL, json__model="m").mock(httpx.Response(200, json=completion("mocked")))
    for _ in range(2):
        assert runner.chat(llm).text == "mocked"
    request = route.calls.last.request
    assert request.headers["authorization"] == "Bearer key"
    assert json.loads(request.content)["messages"] == [{"role": "user", "content": "Hi"}]
    runner.close(llm)


def test_a_stream(router: respx.Router, llm: VLLMProvider, runner: Runner) -> None:
    body = events(*chunks("a", "b")) + b"data: [DONE]\n\n"
    router.post(URL).respond(200, headers={"content-type": "text/event-stream"}, content=body)
    assert runner.stream(llm).texts() == ["a", "b"]


def test_a_stream_that_breaks(router: respx.Router, llm: VLLMProvider, runner: Runner) -> None:
    router.post(URL).respond(200, headers={"content-type": "text/event-stream"}, content=events(chunk("a")))
    with pytest.raises(StreamInterruptedError) as caught:
        runner.stream(llm).texts()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


def test_leaving_a_stream(router: respx.Router, llm: VLLMProvider, runner: Runner) -> None:
    body = events(*chunks("a", "b"))
    router.post(URL).respond(200, headers={"content-type": "text/event-stream"}, content=body)
    with runner.stream(llm) as opened:
        assert next(iter(opened)).text == "a"


def test_an_error(router: respx.Router, llm: VLLMProvider, runner: Runner) -> None:
    router.post(URL).respond(400, json={"error": {"message": "no such thing"}}, headers={"x-request-id": "r"})
    with pytest.raises(BadRequestError, match="no such thing") as caught:
        runner.chat(llm)
    assert caught.value.request_id == "r"


def test_second_attempts(router: respx.Router, runner: Runner) -> None:
    router.post(URL).mock(
        side_effect=[
            httpx.Response(503, headers={"retry-after": "0"}),
            httpx.ConnectError("refused"),
            httpx.Response(200, json=completion("third")),
        ]
    )
    assert runner.chat(VLLMProvider("m")).text == "third"


@pytest.mark.parametrize(
    ("raised", "error", "limit"),
    [
        (httpx.ConnectError("Connection refused"), APIConnectionError, None),
        (httpx.ConnectTimeout("late"), APITimeoutError, "connect"),
        (httpx.ReadTimeout("late"), APITimeoutError, "first_token"),
        (httpx.WriteError("gone"), APIConnectionError, None),
        (httpx.RemoteProtocolError("nonsense"), APIConnectionError, None),
    ],
)
def test_exceptions(
    raised: Exception,
    error: type[Exception],
    limit: str | None,
    router: respx.Router,
    llm: VLLMProvider,
    runner: Runner,
) -> None:
    router.post(URL).mock(side_effect=raised)
    with pytest.raises(error) as caught:
        runner.chat(llm)
    assert caught.value.__cause__ is not None
    assert getattr(caught.value, "limit", None) == limit


def test_what_is_not_mocked(llm: VLLMProvider, runner: Runner) -> None:
    with respx.mock, pytest.raises(AssertionError, match="not mocked"):
        runner.chat(llm)
    with (
        respx.mock(assert_all_mocked=False),
        pytest.raises(Exception, match=r"not a chat completion|no chat"),
    ):
        runner.chat(llm)
