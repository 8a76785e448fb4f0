"""Tokens of a real server: its own counts, and the way there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from vllmchat import BadRequestError

if TYPE_CHECKING:
    from vllmchat import VLLMChatParams, VLLMProvider
    from vllmchat.tokens.tokenize import CountTokensParams

TEXTS = ["Hello world", "", "Grüße, 世界 🌍 \u2028", "<|im_start|>user\n"]


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return city


@pytest.mark.parametrize("text", TEXTS)
def test_there_and_back(text: str, llm: VLLMProvider) -> None:
    result = llm.tokenize(text, return_token_strs=True)
    assert result.count == len(result.tokens) == len(result.token_strs or [])
    assert result.max_model_len == 2048
    assert llm.detokenize(result.tokens) == text


@pytest.mark.anyio
async def test_there_and_back_awaiting(allm: VLLMProvider) -> None:
    result = await allm.atokenize(TEXTS[2])
    assert await allm.adetokenize(result.tokens) == TEXTS[2]
    assert await allm.acount_tokens("Hello") > result.count


@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("thinking", [False, True])
def test_the_count_is_what_a_chat_costs(tools: bool, thinking: bool, llm: VLLMProvider) -> None:
    params: CountTokensParams = {"enable_thinking": thinking}
    chat: VLLMChatParams = {"enable_thinking": thinking, "max_tokens": 1}
    if tools:
        params["tools"] = chat["tools"] = [weather]
        chat["tool_choice"] = "none"
    reply = llm.chat("Is it raining?", **chat)
    assert reply.usage is not None
    assert llm.count_tokens("Is it raining?", **params) == reply.usage.prompt_tokens


@pytest.mark.parametrize(
    "effort",
    [pytest.param("none", marks=pytest.mark.since("0.18", "no effort to reason at all")), "low", "high"],
)
def test_the_count_is_what_a_chat_costs_that_is_told_how_much_to_reason(
    effort: Literal["none", "low", "high"], llm: VLLMProvider
) -> None:
    reply = llm.chat("Is it raining?", max_tokens=1, reasoning_effort=effort)
    assert reply.usage is not None
    assert llm.count_tokens("Is it raining?", reasoning_effort=effort) == reply.usage.prompt_tokens


def test_the_prompt_of_a_conversation(llm: VLLMProvider) -> None:
    prompt = llm.tokenize([{"role": "user", "content": "Hello"}], add_generation_prompt=False)
    text = llm.detokenize(prompt.tokens)
    assert "Hello" in text
    assert not text.rstrip().endswith("assistant")
    opened = llm.tokenize([{"role": "user", "content": "Hello"}])
    assert opened.tokens[: prompt.count] == prompt.tokens
    assert opened.count > prompt.count


def test_a_token_outside_the_vocabulary(llm: VLLMProvider) -> None:
    with pytest.raises(BadRequestError):
        llm.detokenize([2**40])
