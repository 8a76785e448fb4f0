"""The fake server answers in the shape in which the real one does, and with the same errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support.shapes import differences, fake_answer, seen_of
from vllmchat import APIStatusError, VLLMProvider
from vllmchat.testing import FakeServer, record, replay
from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from pathlib import Path

    from support.vllm import LiveServer

pytestmark = pytest.mark.since("0.32", "the fake has the shape of that version")

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def asks(question: str, **params: Any) -> dict[str, Any]:
    """The body of a chat."""
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, **params}


QUIET = {"chat_template_kwargs": {"enable_thinking": False}}
USAGE = {"stream_options": {"include_usage": True}}

CHATS: dict[str, dict[str, Any]] = {
    "text": asks("What is the capital of France?", **QUIET),
    "reasoning": asks("What is 17 times 3?"),
    "length": asks("Hello", max_tokens=6),
    "choices": {**asks("Hello", n=2, seed=1), "temperature": 1.0},
    "logprobs": asks("Hello", logprobs=True, top_logprobs=2, return_token_ids=True),
    "tool": asks("What is the weather in Paris?", tools=[TOOL]),
    "required": asks("What is the weather in Oslo?", tools=[TOOL], tool_choice="required", **QUIET),
    "schema": asks("Hello", response_format={"type": "json_object"}, max_tokens=40, **QUIET),
}

OTHERS: dict[str, tuple[str, str, Any]] = {
    "completion": ("POST", "/v1/completions", {"prompt": "Hello", "max_tokens": 4, "logprobs": 2}),
    "completion stream": (
        "POST",
        "/v1/completions",
        {"prompt": "Hello", "max_tokens": 4, "stream": True, **USAGE},
    ),
    "tokenize": ("POST", "/tokenize", {"prompt": "Hello world", "return_token_strs": True}),
    "tokenize a chat": ("POST", "/tokenize", {"messages": [{"role": "user", "content": "Hello"}]}),
    "detokenize": ("POST", "/detokenize", {"tokens": [3, 4]}),
    "models": ("GET", "/v1/models", None),
    "version": ("GET", "/version", None),
    "health": ("GET", "/health", None),
    "load": ("GET", "/load", None),
    "no route": ("GET", "/v1/nothing", None),
    "no method": ("GET", "/v1/chat/completions", None),
    "no JSON": ("POST", "/v1/chat/completions", "{not json"),
    "no messages": ("POST", "/v1/chat/completions", {"messages": []}),
    "no such model": ("POST", "/v1/chat/completions", asks("Hello", model="nope")),
    "too cold": ("POST", "/v1/chat/completions", {**asks("Hello"), "temperature": -1}),
    "too many tokens": ("POST", "/v1/chat/completions", asks("Hello", max_tokens=100_000)),
    "too long": ("POST", "/v1/chat/completions", asks("word " * 3000)),
}

JSON = {"content-type": "application/json"}


def compare(server: LiveServer, method: str, target: str, body: Any) -> list[str]:
    """How the fake's answer differs from the real server's."""
    fields = as_object(body)
    sent = {"model": server.model, **fields} if fields is not None else body
    real = httpx.request(
        method,
        f"{server.url}{target}",
        headers=JSON if sent is not None else {},
        content=sent if isinstance(sent, str) else None,
        json=sent if fields is not None else None,
        timeout=60,
    )
    shown = seen_of(real)
    fake = fake_answer(method, target, sent, dict(JSON), shown, real.content, model=server.model)
    return differences(fake, shown)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CHATS)
def test_chats_have_the_same_shape(vllm_server: LiveServer, name: str, stream: bool) -> None:
    body = {**CHATS[name], "stream": True, **USAGE} if stream else CHATS[name]
    assert compare(vllm_server, "POST", "/v1/chat/completions", body) == []


@pytest.mark.parametrize("name", OTHERS)
def test_other_routes_have_the_same_shape(vllm_server: LiveServer, name: str) -> None:
    assert compare(vllm_server, *OTHERS[name]) == []


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_have_the_same_shape(pooling_server: LiveServer, encoding: str) -> None:
    body = {"input": ["Hello", "world"], "encoding_format": encoding}
    assert compare(pooling_server, "POST", "/v1/embeddings", body) == []


def test_errors_have_the_same_class(vllm_server: LiveServer) -> None:
    def failure(base_url: str, params: dict[str, Any]) -> tuple[type, int, object, object]:
        with (
            VLLMProvider(vllm_server.model, base_url=base_url) as llm,
            pytest.raises(APIStatusError) as caught,
        ):
            llm.chat("word " * 3000 if params.get("long") else "Hello", **params.get("send", {}))
        return type(caught.value), caught.value.status_code, caught.value.type, caught.value.param

    with FakeServer("ok", model=vllm_server.model, max_model_len=2048) as server:
        for params in ({"send": {"model": "nope"}}, {"send": {"max_tokens": 100_000}}, {"long": True}):
            assert failure(server.base_url, params) == failure(vllm_server.base_url, params)


def test_real_answers_are_recorded_and_replayed(vllm_server: LiveServer, tmp_path: Path) -> None:
    def calls(base_url: str) -> list[object]:
        with VLLMProvider(vllm_server.model, base_url=base_url) as llm:
            question = "What is 17 times 3?"
            stream = llm.stream(question, temperature=0)
            return [
                llm.chat(question, temperature=0, logprobs=True).model_dump(),
                [chunk.model_dump() for chunk in stream],
                stream.completion.model_dump(),
                llm.count_tokens(question),
                llm.version(),
            ]

    cassette = tmp_path / "cassette.json"
    with record(cassette, vllm_server.base_url) as recorder:
        first = calls(recorder.base_url)
    with replay(cassette) as player:
        assert calls(player.base_url) == first
        player.assert_done()
