"""`get` and `post`: any route, with everything else of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from support.chats import completion
from support.scripted import never
from vllmchat import (
    APITimeoutError,
    ChatCompletion,
    InvalidRequestError,
    NotFoundError,
    OpenAIProvider,
    ResponseError,
    ServiceUnavailableError,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer


class Answer(BaseModel):
    number: int
    note: str | None = None


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner) -> Iterator[VLLMProvider]:
    provider = VLLMProvider(
        "m", base_url=f"{scripted.base_url.removesuffix('/v1')}/team/v1", api_key="the-key-1"
    )
    yield provider
    runner.close(provider)


def test_a_post(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply({"number": 1, "list": [None]})
    value = runner.do(llm, "post", "/v2/thing?x=1", {"a": [1, "é"]}, extra_headers={"X-Team": "b"})
    assert value == {"number": 1, "list": [None]}
    [request] = scripted.requests
    assert (request.method, request.target) == ("POST", "/team/v2/thing?x=1")
    assert request.json() == {"a": [1, "é"]}
    assert request.headers["authorization"] == "Bearer the-key-1"
    assert request.headers["x-team"] == "b"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-request-id"]


def test_a_get(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply([1, 2])
    assert runner.do(llm, "get", "/server_info") == [1, 2]
    [request] = scripted.requests
    assert (request.method, request.path, request.body) == ("GET", "/team/server_info", b"")


def test_a_type(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply({"number": 5})
    assert runner.do(llm, "post", "/a", Answer(number=1), cast_to=Answer) == Answer(number=5)
    assert scripted.requests[0].json() == {"number": 1}
    scripted.reply([1, 2])
    assert runner.do(llm, "get", "/a", cast_to=list[int]) == [1, 2]
    scripted.reply(completion("hi"))
    reply = runner.do(llm, "post", "/v1/chat/completions", {}, cast_to=ChatCompletion)
    assert (reply.text, reply.attempts) == ("hi", 1)
    assert reply.request_id == scripted.requests[-1].headers["x-request-id"]


def test_an_empty_response(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply(b"")
    assert runner.do(llm, "post", "/reset") is None
    assert scripted.requests[0].body == b""
    scripted.reply(b"")
    with pytest.raises(ResponseError, match="the response is not of type"):
        runner.do(llm, "post", "/reset", cast_to=Answer)


def test_what_is_not_json(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply(b"<html>", headers={"content-type": "text/html"})
    with pytest.raises(ResponseError, match="the response is not JSON"):
        runner.do(llm, "get", "/a")
    scripted.reply({"number": "x"})
    with pytest.raises(ResponseError, match="number: "):
        runner.do(llm, "get", "/a", cast_to=Answer)


def test_errors_and_retries_are_those_of_all_calls(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer
) -> None:
    scripted.busy(1, retry_after="0")
    scripted.reply({"a": 1})
    assert runner.do(llm, "post", "/a", {}) == {"a": 1}
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match="does not have the route /team/a"):
        runner.do(llm, "post", "/a", {})
    scripted.busy(1, retry_after="0")
    with pytest.raises(ServiceUnavailableError):
        runner.do(llm.with_options(max_retries=0), "get", "/a")
    scripted.script(never)
    with pytest.raises(APITimeoutError):
        runner.do(llm, "post", "/a", {}, timeout=0.05)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("v1/models", 'Write "/v1/models".'),
        ("http://other/v1/models?a", "The server is that of the provider: write '/v1/models?a'."),
        ("https://other", "The server is that of the provider: write '/'."),
        ("/a b", 'such as "/v1/models" or "/tokenize"'),
        ("/a\r\nx: y", 'such as "/v1/models"'),
        ("", 'Write "/".'),
        (None, 'such as "/v1/models"'),
    ],
)
def test_a_wrong_path(path: Any, hint: str, llm: VLLMProvider, runner: Runner) -> None:
    with pytest.raises(InvalidRequestError, match="must be a path that starts with /") as caught:
        runner.do(llm, "get", path)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"timeout": -1}, "timeout"),
        ({"extra_headers": {"a b": "c"}}, "extra_headers"),
        ({"body": {"a": object()}}, "a"),
        ({"cast": Answer}, "cast"),
    ],
)
def test_a_wrong_argument(
    arguments: dict[str, Any], parameter: str, llm: VLLMProvider, runner: Runner, scripted: ScriptedServer
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, "post", "/a", **arguments)
    assert caught.value.problems[0].parameter.startswith(parameter)
    assert not scripted.requests


def test_any_server(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply({})
    llm = OpenAIProvider("m", base_url=scripted.base_url)
    assert runner.do(llm, "post", "/v1/batches", []) == {}
    runner.close(llm)
    assert scripted.requests[0].path == "/v1/batches"
