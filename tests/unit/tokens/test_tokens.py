"""Tokenizing strings and conversations: requests, responses and validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from vllmchat import (
    ChatMessage,
    InvalidRequestError,
    NotFoundError,
    ResponseError,
    Tokenization,
    VLLMProvider,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer

CHAT = [{"role": "user", "content": "Hello"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner) -> Iterator[VLLMProvider]:
    provider = VLLMProvider("m", base_url=scripted.base_url)
    yield provider
    runner.close(provider)


def refused(runner: Runner, llm: VLLMProvider, method: str, *args: object, **params: object) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        runner.do(llm, method, *args, **params)
    return [str(problem) for problem in caught.value.problems]


# Text to tokens


def test_a_string_is_tokenized_unchanged(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.version = "0.33.0"
    recorded = recordings.load("tokenize")
    scripted.reply(recorded.body)
    result: Tokenization = runner.do(llm, "tokenize", "Hello world", return_token_strs=True)
    [request] = scripted.requests
    assert (request.method, request.path) == ("POST", "/tokenize")
    assert request.json() == {"model": "m", "prompt": "Hello world", "return_token_strs": True}
    assert (result.count, result.max_model_len) == (5, 2048)
    assert result.tokens == [421, 350, 276, 78, 70]
    assert result.token_strs == ["Hello", "Ġw", "or", "l", "d"]
    assert result.request_id == request.headers["x-request-id"]


def test_a_conversation_is_rendered_with_the_template(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.version = "0.33.0"
    scripted.reply(recordings.load("tokenize_chat").body)
    messages = [*CHAT, ChatMessage(content="Hi!")]
    params: Any = {
        "tools": [WEATHER],
        "enable_thinking": False,
        "chat_template_kwargs": {"x": 1},
        "continue_final_message": True,
        "extra_body": {"new": 2},
        "extra_headers": {"x-trace": "t"},
    }
    result: Tokenization = runner.do(llm, "tokenize", messages, model="other", **params)
    assert (result.count, result.token_strs) == (24, None)
    [request] = scripted.requests
    assert request.headers["x-trace"] == "t"
    assert request.json() == {
        "model": "other",
        "messages": [*CHAT, {"role": "assistant", "content": "Hi!"}],
        "tools": [WEATHER],
        "chat_template_kwargs": {"x": 1, "enable_thinking": False},
        "continue_final_message": True,
        "add_generation_prompt": False,
        "new": 2,
    }


def test_python_functions_are_tools(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.version = "0.33.0"

    def weather(city: str) -> str:
        """Get the weather."""
        return city

    scripted.reply(recordings.load("tokenize_chat").body)
    runner.do(llm, "tokenize", CHAT, tools=[weather])
    body: Any = scripted.requests[0].json()
    [tool] = body["tools"]
    assert tool["function"]["name"] == "weather"
    assert tool["function"]["description"] == "Get the weather."


def test_conversation_parameters_are_rejected_for_a_string(runner: Runner, llm: VLLMProvider) -> None:
    first, second, third = refused(
        runner, llm, "tokenize", "Hello", tools=[WEATHER], enable_thinking=True, return_token_str=True
    )
    assert first.startswith("tools=")
    assert "only applies to conversations" in first
    assert second.startswith("enable_thinking=True: only applies to conversations")
    assert third == (
        "return_token_str=True: is not a parameter of VLLMProvider.tokenize. Did you mean `return_token_strs`?"
    )


def test_all_problems_are_reported_together(runner: Runner, llm: VLLMProvider) -> None:
    found = refused(runner, llm, "tokenize", [{"content": "x"}, 3], add_special_tokens="yes", prompts=1)
    assert [text.partition(":")[0].partition("=")[0] for text in found] == [
        "prompt[0].role",
        "prompt[1]",
        "add_special_tokens",
        "prompts",
    ]
    assert refused(runner, llm, "tokenize", 3) == ["prompt: must be a str or a list of messages, not an int."]


def test_template_rules_apply(runner: Runner, llm: VLLMProvider) -> None:
    [one] = refused(runner, llm, "tokenize", CHAT, continue_final_message=True, add_generation_prompt=True)
    assert one.startswith("continue_final_message=True: cannot be combined with add_generation_prompt=True")
    [two] = refused(runner, llm, "count_tokens", CHAT, chat_template_kwargs={"tokenize": True})
    assert two.startswith("chat_template_kwargs.tokenize=True: is rejected by the server")


@pytest.mark.parametrize("body", [b'{"count": 3}', b'{"tokens": []}', b"[]", b"no", b'{"tokens": "x"}'])
def test_invalid_responses(body: bytes, scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(body)
    with pytest.raises(ResponseError, match="not a list of tokens") as caught:
        runner.do(llm, "tokenize", "x")
    assert caught.value.request_id == scripted.requests[0].headers["x-request-id"]


def test_a_server_without_the_route(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply({"detail": "Not Found"}, 404)
    with pytest.raises(NotFoundError, match="outside /v1: check base_url"):
        runner.do(llm, "tokenize", "x")


# Counting


def test_a_string_to_count_is_a_user_message(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.reply(recordings.load("tokenize_chat").body)
    assert runner.do(llm, "count_tokens", "Hello", add_special_tokens=False) == 24
    assert scripted.requests[0].json() == {"model": "m", "messages": CHAT, "add_special_tokens": False}


def test_count_tokens_rejects_invalid_arguments(runner: Runner, llm: VLLMProvider) -> None:
    [problem] = refused(runner, llm, "count_tokens", "Hello", return_token_strs=True)
    assert problem == (
        "return_token_strs=True: is a parameter of VLLMProvider.tokenize, not of VLLMProvider.count_tokens. "
        "Leave it out, or call .tokenize(...)."
    )
    [problem] = refused(runner, llm, "count_tokens", None)
    assert problem == "messages: must be a str or a list of messages, not None."


# Tokens to text


def test_detokenize(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply(recordings.load("detokenize").body)
    assert runner.do(llm, "detokenize", (39, 68, 300), timeout=5) == "Eb ca"
    [request] = scripted.requests
    assert (request.path, request.json()) == ("/detokenize", {"model": "m", "tokens": [39, 68, 300]})


def test_invalid_tokens(runner: Runner, llm: VLLMProvider) -> None:
    assert refused(runner, llm, "detokenize", [1, -1, 2.0], timeout=0) == [
        "tokens[1]=-1: must be between 0 and 2**63 - 1.",
        "tokens[2]=2.0: must be an integer, not a float. Write 2.",
        "timeout=0: must be greater than 0.",
    ]
    assert refused(runner, llm, "detokenize", "Hello") == [
        "tokens='Hello': must be a list of integers, not a str."
    ]


def test_invalid_responses_to_detokenize(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    scripted.reply({"tokens": []})
    with pytest.raises(ResponseError, match="is not a text"):
        runner.do(llm, "detokenize", [1])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low", "enable_thinking": True}),
        (
            {"reasoning_effort": "low", "enable_thinking": False},
            {"reasoning_effort": "low", "enable_thinking": False},
        ),
        (
            {"documents": [{"title": "a", "text": "b"}], "chat_template_kwargs": {"x": 1}},
            {"documents": [{"title": "a", "text": "b"}], "x": 1},
        ),
        ({"documents": [{"text": "b"}], "chat_template_kwargs": {"documents": []}}, {"documents": []}),
    ],
)
def test_template_variables_of_chats_are_counted(
    params: Any, expected: dict[str, object], scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.version = "0.33.0"
    scripted.reply({"count": 3, "max_model_len": 8, "tokens": [1, 2, 3]})
    llm = VLLMProvider("m", base_url=scripted.base_url)
    assert runner.do(llm, "count_tokens", "Hello", **params) == 3
    assert scripted.requests[0].json() == {"model": "m", "messages": CHAT, "chat_template_kwargs": expected}
    runner.close(llm)
