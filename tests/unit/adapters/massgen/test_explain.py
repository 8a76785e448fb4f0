"""What MassGen's user reads when a request fails, and whether MassGen retries."""

from __future__ import annotations

import pytest

from vllmchat.adapters.massgen.explain import explain, is_fatal
from vllmchat.adapters.massgen.wording import in_yaml, value_in_yaml
from vllmchat.chat.completion import ChatCompletion
from vllmchat.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ContextWindowExceededError,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServiceUnavailableError,
    StreamInterruptedError,
    UnprocessableEntityError,
    VLLMChatError,
)

URL = "http://gpu:8000/v1"
KEY = AuthenticationError("401: Unauthorized", status_code=401)
MODEL = NotFoundError("404: The model `x` does not exist.", status_code=404, param="model")
ROUTE = NotFoundError("404: Not Found", status_code=404)
BAD = BadRequestError("400: min_tokens must be at most max_tokens", status_code=400, param="min_tokens")


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (KEY, (URL, "401", 'api_key: "${NAME}"', "VLLM_API_KEY")),
        (MODEL, (URL, "'Qwen'", "does not exist", f"curl {URL}/models", "model:")),
        (ROUTE, (URL, "base_url:", "/v1")),
        (
            BadRequestError(
                '400: "auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
                status_code=400,
            ),
            (URL, "MassGen needs tool calls", "--enable-auto-tool-choice", "--tool-call-parser"),
        ),
        (
            BadRequestError(
                '400: tool_choice="required" requires --tool-call-parser to be set', status_code=400
            ),
            (URL, "MassGen needs tool calls", "--enable-auto-tool-choice", "such as hermes"),
        ),
        (BAD, ("min_tokens must be at most max_tokens",)),
        (
            StreamInterruptedError("the stream stopped"),
            ("before the reply was complete", "No text", "the stream stopped"),
        ),
    ],
)
def test_the_sentence_says_what_to_do(error: VLLMChatError, parts: tuple[str, ...]) -> None:
    text = explain(error, base_url=URL, model="Qwen")
    for part in parts:
        assert part in text


def test_a_broken_stream_says_how_much_is_kept() -> None:
    partial = ChatCompletion.model_validate({"choices": [{"message": {"content": "Once upon"}}]})
    error = StreamInterruptedError("the stream stopped", partial=partial)
    assert "9 characters arrived and are kept" in explain(error, base_url=URL, model="Qwen")


@pytest.mark.parametrize(
    "error", [KEY, MODEL, ROUTE, PermissionDeniedError("403", status_code=403), APIConnectionError("refused")]
)
def test_what_a_retry_cannot_fix_is_fatal(error: VLLMChatError) -> None:
    assert is_fatal(error, first=True)
    assert is_fatal(error, first=False)


@pytest.mark.parametrize(
    "error",
    [BAD, InvalidRequestError("wrong"), UnprocessableEntityError("422: no such image", status_code=422)],
)
def test_what_the_server_rejects_at_first_it_rejects_again(error: VLLMChatError) -> None:
    assert is_fatal(error, first=True)
    assert not is_fatal(error, first=False)


@pytest.mark.parametrize(
    "error",
    [
        APITimeoutError("slow", limit="idle", seconds=1),
        RateLimitError("429", status_code=429),
        InternalServerError("500", status_code=500),
        ServiceUnavailableError("503", status_code=503),
        StreamInterruptedError("the stream stopped"),
        ResponseError("not this protocol"),
    ],
)
def test_what_may_pass_is_retried(error: VLLMChatError) -> None:
    assert not is_fatal(error, first=True)


def test_the_key_is_never_advised_in_clear() -> None:
    from_server = "401: Unauthorized - check api_key= or the environment variable it comes from."
    text = explain(AuthenticationError(from_server, status_code=401), base_url=URL, model="Qwen")
    assert text.startswith(
        f"The vLLM server at {URL} rejected the API key (401: Unauthorized). Set VLLM_API_KEY"
    )
    assert "api_key=" not in text
    assert text.count("environment variable") == 1


def test_a_context_that_is_too_small_from_the_start() -> None:
    error = ContextWindowExceededError(
        "400: This model's maximum context length is 2048 tokens.", status_code=400
    )
    assert "--max-model-len" in explain(error, base_url=URL, model="Qwen")
    later = explain(error, base_url=URL, model="Qwen", first=False)
    assert later == "400: This model's maximum context length is 2048 tokens."


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "no response within 5 s (Timeout.first_token): allow more with timeout=Timeout(first_token=...)",
            "no response within 5 s (timeout.first_token): allow more with `timeout: {first_token: ...}`",
        ),
        (
            "the stream from URL ended too early. What arrived is in .partial; the server's log says why",
            "the stream from URL ended too early. The server's log says why",
        ),
        ("it stopped. What had arrived is in .partial.", "it stopped."),
        ("max_tokens=5 is too small, api_key=... too", "max_tokens: 5 is too small, api_key: ... too"),
        (
            "http://host/v1?model=x&seed=3 with --seed=5 and other=3",
            "http://host/v1?model=x&seed=3 with --seed=5 and other=3",
        ),
    ],
)
def test_messages_speak_of_keys(message: str, words: str) -> None:
    assert in_yaml(message) == words
    assert explain(ResponseError(message), base_url=URL, model="Qwen") == words


def test_values_are_yaml() -> None:
    assert value_in_yaml("{'a': True, 'b': None} but not Trueish") == "{'a': true, 'b': null} but not Trueish"
