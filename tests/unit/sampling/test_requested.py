"""What a reply has only on request, and usages added up."""

from __future__ import annotations

import json
import re

import pytest

from support import recordings
from vllmchat import ResponseError, Usage
from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import decode_chunk
from vllmchat.chat.completion import ChatCompletion, decode_completion
from vllmchat.completions.completion import TextCompletion, decode_completion as decode_text
from vllmchat.generate.generation import Generation, decode_generation
from vllmchat.types import CompletionTokensDetails, PromptTokensDetails, ResponseUsage


def test_the_tokens_of_a_chat() -> None:
    reply = decode_completion(recordings.load("chat_token_ids").body)
    assert reply.token_ids == reply.choices[0].token_ids
    assert len(reply.token_ids) == (reply.usage or Usage()).completion_tokens
    reply = decode_completion(recordings.load("chat_logprobs").body)
    assert len(reply.logprobs) > 1
    assert all(token.logprob <= 0 for token in reply.logprobs)


def test_the_tokens_of_a_streamed_chat() -> None:
    accumulator = Accumulator()
    for ids in ([1, 2], [3]):
        choice = {"index": 0, "delta": {}, "token_ids": ids, "logprobs": {"content": [{"logprob": -1.0}]}}
        accumulator.add(decode_chunk(json.dumps({"choices": [choice]}).encode()))
    reply = accumulator.reply()
    assert reply.token_ids == [1, 2, 3]
    assert [token.logprob for token in reply.logprobs] == [-1.0, -1.0]


def test_the_tokens_of_a_completion() -> None:
    reply = decode_text(recordings.load("completion_token_ids_prompt").body)
    assert reply.token_ids == reply.choices[0].token_ids
    reply = decode_text(recordings.load("completion_echo_prompt_logprobs").body)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert [token.token for token in reply.logprobs] == logprobs.tokens
    first, second = reply.logprobs[:2]
    # There is none of the first token of a prompt.
    assert (first.logprob, first.top_logprobs) == (-9999.0, [])
    assert second.logprob == logprobs.token_logprobs[1]
    assert {top.token: top.logprob for top in second.top_logprobs} == logprobs.top_logprobs[1]


def test_the_tokens_of_a_generation() -> None:
    content = [{"token_id": 5, "logprob": -0.5}]
    choice = {"index": 0, "token_ids": [5], "logprobs": {"content": content}, "finish_reason": "stop"}
    generation = decode_generation(json.dumps({"choices": [choice]}).encode())
    [token] = generation.logprobs
    assert (token.token_id, token.logprob) == (5, -0.5)


@pytest.mark.parametrize("reply", [ChatCompletion(), decode_completion(recordings.load("chat").body)])
def test_a_chat_without_them_says_how_to_get_them(reply: ChatCompletion) -> None:
    with pytest.raises(ResponseError, match=r"no token ids\. Pass return_token_ids=True to the call$"):
        _ = reply.token_ids
    with pytest.raises(ResponseError, match=r"no log probabilities\. Pass logprobs=True to the call$"):
        _ = reply.logprobs


def test_so_do_the_others() -> None:
    for reply in (TextCompletion(), decode_text(b'{"choices": [{}]}')):
        with pytest.raises(ResponseError, match=re.escape("Pass return_token_ids=True")):
            _ = reply.token_ids
        with pytest.raises(ResponseError, match=re.escape("Pass logprobs=1")):
            _ = reply.logprobs
    with pytest.raises(ResponseError, match=re.escape("Pass logprobs=1")):
        _ = Generation().logprobs


def test_usages_add_up() -> None:
    first = Usage(prompt_tokens=7, completion_tokens=5, total_tokens=12)
    second = Usage(
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=3,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=1, multimodal_tokens={"image": 4}),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=2),
    )
    both = first + second
    assert (both.prompt_tokens, both.completion_tokens, both.total_tokens) == (8, 7, 15)
    assert both.prompt_tokens_details == second.prompt_tokens_details
    total = sum([first, second, second], Usage())
    assert total == sum([first, second, second])
    assert total.total_tokens == 18
    assert total.prompt_tokens_details is not None
    assert total.prompt_tokens_details.cached_tokens == 2
    assert total.prompt_tokens_details.multimodal_tokens == {"image": 8}
    assert total.completion_tokens_details is not None
    assert total.completion_tokens_details.reasoning_tokens == 4
    # What was added up is as it was.
    assert second.prompt_tokens_details is not None
    assert second.prompt_tokens_details.multimodal_tokens == {"image": 4}
    assert Usage.model_validate_json(total.model_dump_json()) == total


def test_unknown_counts_add_up_too() -> None:
    one = Usage.model_validate({"prompt_tokens": 1, "cost": 0.5, "tier": "a", "flag": "x"})
    other = Usage.model_validate({"prompt_tokens": 1, "cost": 0.25, "tier": "a", "flag": "y"})
    assert (one + other).model_extra == {"cost": 0.75, "tier": "a", "flag": None}


def test_usages_of_responses_add_up() -> None:
    usage = ResponseUsage(input_tokens=1, output_tokens=2, total_tokens=3)
    assert (usage + usage).total_tokens == 6


@pytest.mark.parametrize("other", [1, None, "3", ResponseUsage()])
def test_a_usage_is_added_to_a_usage_alone(other: object) -> None:
    with pytest.raises(TypeError):
        _ = Usage() + other  # type: ignore[operator]
    with pytest.raises(TypeError):
        _ = other + Usage()  # type: ignore[operator]
