"""What the real server refuses, as the errors that a user sees; the same from all four methods."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import anyio
import pytest

from support.vllm import API_KEY
from vllmchat import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContextWindowExceededError,
    InvalidRequestError,
    NotFoundError,
    OpenAIProvider,
    VLLMChatParams,
    VLLMProvider,
    image_part,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.vllm import LiveServer
    from vllmchat import ChatCompletion, Message

    Ask = Callable[[VLLMProvider, str | list[Message], VLLMChatParams], ChatCompletion]


def by_chat(llm: VLLMProvider, messages: str | list[Message], params: VLLMChatParams) -> ChatCompletion:
    return llm.chat(messages, **params)


def by_stream(llm: VLLMProvider, messages: str | list[Message], params: VLLMChatParams) -> ChatCompletion:
    return llm.stream(messages, **params).until_done()


def by_events(llm: VLLMProvider, messages: str | list[Message], params: VLLMChatParams) -> ChatCompletion:
    stream = llm.stream(messages, **params)
    for _ in stream.events():
        pass
    return stream.completion


def by_achat(llm: VLLMProvider, messages: str | list[Message], params: VLLMChatParams) -> ChatCompletion:
    # Not closed: a closed provider cannot be asked again.
    async def ask() -> ChatCompletion:
        return await llm.achat(messages, **params)

    return anyio.run(ask)


def by_astream(llm: VLLMProvider, messages: str | list[Message], params: VLLMChatParams) -> ChatCompletion:
    async def ask() -> ChatCompletion:
        async with llm.astream(messages, **params) as stream:
            return await stream.until_done()

    return anyio.run(ask, backend="trio")


METHODS = [by_chat, by_stream, by_events, by_achat, by_astream]


@pytest.mark.parametrize("ask", METHODS)
def test_an_unknown_model(llm: VLLMProvider, vllm_server: LiveServer, ask: Ask) -> None:
    with pytest.raises(NotFoundError, match=r"The model `gpt-9` does not exist") as caught:
        ask(llm.with_options(model="gpt-9"), "Hello", {})
    error = caught.value
    assert (error.status_code, error.code, error.type, error.param) == (404, 404, "NotFoundError", "model")
    assert error.response.status_code == 404
    assert error.response.headers["content-type"] == "application/json"
    assert error.request_id
    assert error.partial is None
    # The provider is as good as before.
    assert ask(llm, "Hello", {"temperature": 0, "enable_thinking": False}).text.startswith("Hello!")


@pytest.mark.parametrize("ask", METHODS)
def test_a_prompt_beyond_the_context(llm: VLLMProvider, vllm_server: LiveServer, ask: Ask) -> None:
    with pytest.raises(ContextWindowExceededError, match=r"context length is (only )?2048 tokens") as caught:
        ask(llm, "Hello " * 4_000, {})
    assert caught.value.status_code == 400
    assert caught.value.param in (("input_tokens", "input_text") if vllm_server.since("0.17") else (None,))


@pytest.mark.parametrize("ask", [by_chat, by_stream])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_reply_beyond_the_context(llm: VLLMProvider, ask: Ask, name: str) -> None:
    params = (
        VLLMChatParams(max_tokens=5_000)
        if name == "max_tokens"
        else VLLMChatParams(max_completion_tokens=5_000)
    )
    with pytest.raises(
        ContextWindowExceededError,
        match=r"5000 ?cannot be greater than max_model_len=.*2048|is too large: 5000",
    ):
        ask(llm, "Hello", params)


@pytest.mark.parametrize("ask", METHODS)
@pytest.mark.parametrize(
    "params",
    [
        VLLMChatParams(structured_outputs={"grammar": "no grammar at all"}),
        VLLMChatParams(structured_outputs={"regex": "["}),
        pytest.param(
            VLLMChatParams(stop_token_ids=[1_000_000]),
            marks=pytest.mark.since("0.30", "a stop token outside the vocabulary is rejected"),
        ),
    ],
)
def test_what_only_the_engine_finds_is_the_same_error_in_a_stream(
    llm: VLLMProvider, ask: Ask, params: VLLMChatParams
) -> None:
    # In a stream the status has been 200 by then: the error is the first event, or follows an empty chunk.
    with pytest.raises(BadRequestError) as caught:
        ask(llm, "Hello", params)
    error = caught.value
    assert (error.status_code, error.code, error.type) == (400, 400, "BadRequestError")
    assert not isinstance(error, ContextWindowExceededError)
    assert error.request_id
    assert error.partial is None or error.partial.text == ""
    assert ask(llm, "Hello", {"temperature": 0, "enable_thinking": False}).text.startswith("Hello!")


def test_the_error_inside_a_stream_tells_its_own_code(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    stream = llm.stream("Hello", structured_outputs={"regex": "["})
    with pytest.raises(BadRequestError) as caught:
        stream.until_done()
    # The oldest find it before they begin to stream.
    assert caught.value.response.status_code == (200 if vllm_server.since("0.17") else 400)
    assert caught.value.status_code == 400
    assert stream.completion.text == ""
    if vllm_server.since("0.17"):
        assert stream.request_id == caught.value.request_id


@pytest.mark.parametrize("ask", METHODS)
def test_an_image_for_a_model_that_only_reads(llm: VLLMProvider, ask: Ask) -> None:
    dot = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    messages: list[Message] = [
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image_part(dot)]}
    ]
    with pytest.raises(BadRequestError, match=r"(?i)not a multimodal model|multimodal"):
        ask(llm, messages, {})


def test_the_request_id_is_in_errors_too(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    with pytest.raises(APIStatusError) as caught:
        llm.chat("Hello", request_id="find-me", extra_body={"top_p": 5})
    assert caught.value.request_id == "find-me"
    with pytest.raises(APIStatusError) as caught:
        llm.stream("Hello", extra_headers={"X-Request-Id": "me-too"}, logit_bias={10**6: 1}).until_done()
    # Servers before 0.30 may close a connection after a refusal; the call is then sent again under its next id.
    assert caught.value.request_id == "me-too" or (
        caught.value.request_id == "me-too-1" and not vllm_server.since("0.30")
    )


def test_what_is_refused_here_never_reaches_the_server(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    elsewhere = VLLMProvider("m", base_url="http://127.0.0.1:1")
    with pytest.raises(InvalidRequestError) as caught:
        elsewhere.chat("Hello", temperature=5, top_p=0)
    assert [problem.parameter for problem in caught.value.problems] == ["temperature", "top_p"]


@pytest.mark.parametrize("ask", METHODS)
@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_wrong_key(keyed_server: LiveServer, ask: Ask, key: str | None) -> None:
    with VLLMProvider(keyed_server.model, base_url=keyed_server.base_url, api_key=key) as llm:
        with pytest.raises(AuthenticationError, match="Unauthorized") as caught:
            ask(llm, "Hello", {})
        assert caught.value.status_code == 401
        assert "wrong" not in str(caught.value)
        # The copy with the right key shares the connections.
        params = VLLMChatParams(temperature=0, enable_thinking=False)
        assert ask(llm.with_options(api_key=API_KEY), "Hello", params).text.startswith("Hello!")


def test_the_key_comes_from_the_environment(
    keyed_server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", API_KEY)
    monkeypatch.setenv("VLLM_BASE_URL", keyed_server.url)
    with VLLMProvider() as llm:
        assert llm.chat("Hello", temperature=0, enable_thinking=False).text.startswith("Hello!")
        assert llm.model == keyed_server.model
        assert API_KEY not in repr(llm)


def test_the_plain_provider_with_the_same_server(keyed_server: LiveServer) -> None:
    with OpenAIProvider(keyed_server.model, base_url=keyed_server.base_url, api_key=API_KEY) as llm:
        reply = llm.chat("Hello", temperature=0)
        assert reply.text.strip().startswith("Hello!")
        assert reply.reasoning
        assert llm.stream("Hello", temperature=0).until_done().text == reply.text
    with (
        OpenAIProvider(keyed_server.model, base_url=keyed_server.base_url) as llm,
        pytest.raises(AuthenticationError),
    ):
        llm.chat("Hello")
