"""Every parameter of `VLLMChatParams`, sent to the real server.

That the server answers proves little, since it ignores what it does not know; so wherever a parameter shows in the
answer, the table says how.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import pytest

from tiny_model.dialogues import DIALOGUES_FILE
from vllmchat import BadRequestError, ChatCompletion, InvalidRequestError, VLLMChatParams
from vllmchat.chat.check import VLLM_CHAT_NAMES
from vllmchat.checking.rules import fields_of
from vllmchat.checking.since import HARMLESS

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from support.vllm import LiveServer
    from vllmchat import Message, VLLMProvider
    from vllmchat.schemas.tool_params import FunctionTool

Check = Callable[[ChatCompletion], bool]

_TOKENIZER = DIALOGUES_FILE.with_name("model") / "tokenizer.json"
_VOCABULARY = cast("dict[str, int]", json.loads(_TOKENIZER.read_text("utf-8"))["model"]["vocab"])
THE, OF, FRANCE, PARIS = (_VOCABULARY[token] for token in ("The", "Ġof", "ĠFrance", "ĠParis"))
"""Ids of tokens; the tokenizer writes a leading space as `Ġ`."""

TURN_END = [_VOCABULARY["<|im_end|>"], _VOCABULARY["Ċ"]]

TOOLS: list[FunctionTool] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
CAPITAL = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
WEATHER = "What is the weather in Paris?"
COMPARE = "Compare the weather in Paris and Oslo."

GREEDY = VLLMChatParams(temperature=0, enable_thinking=False)
THINKING = VLLMChatParams(temperature=0)
RANDOM = VLLMChatParams(temperature=2, enable_thinking=False)
"""So hot that the known answer does not always come by itself."""
SEEDS = range(3, 19)
"""Which of these gives another answer differs from one version of vLLM to the next."""
COLD = VLLMChatParams(temperature=0.01, enable_thinking=False)
"""The known answer, though `n` may be more than 1."""


@dataclass(frozen=True, slots=True)
class Try:
    """A value for one parameter, and what it does.

    Attributes:
        params: The parameter, and what it needs in addition.
        shows: What is true of the answer, and not without the parameter; or that it differs from the answer without
            it; None where nothing shows and the answer is the known one.
        base: The other parameters.
        ask: The question.
        stream: Whether to ask by a stream.
        refused: The option without which the server refuses it, as its message names it.
        refused_since: The first vLLM here that refuses it; before, it has no effect.
        since: The first vLLM here on which it works, if that is later than the one that introduced it.
    """

    params: VLLMChatParams
    shows: Check | Literal["differs"] | None = None
    base: VLLMChatParams = field(default_factory=lambda: GREEDY)
    ask: str | list[Message] = CAPITAL
    stream: bool = False
    refused: str | None = None
    refused_since: str = "0.8.5"
    since: str | None = None


def says(text: str) -> Check:
    return lambda reply: reply.text == text


def begins(text: str) -> Check:
    return lambda reply: reply.text.startswith(text)


def tokens(count: int) -> Check:
    return lambda reply: reply.usage is not None and reply.usage.completion_tokens == count


def calls(count: int) -> Check:
    return lambda reply: len(reply.tool_calls) == count


def has_logprobs(alternatives: int) -> Check:
    def check(reply: ChatCompletion) -> bool:
        logprobs = reply.choices[0].logprobs
        return (
            logprobs is not None
            and logprobs.content is not None
            and [token.token for token in logprobs.content[:2]] == ["The", " capital"]
            and all(len(token.top_logprobs) == alternatives for token in logprobs.content)
        )

    return check


def first_token(reply: ChatCompletion) -> list[str]:
    """The tokens that have a log probability at the first position."""
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    return [token.token for token in logprobs.content[0].top_logprobs]


PREFILLED: list[Message] = [
    {"role": "user", "content": CAPITAL},
    {"role": "assistant", "content": "The capital of France is"},
]

TABLE: dict[str, Try] = {
    # of all OpenAI-compatible servers
    "frequency_penalty": Try({"frequency_penalty": 2, "max_tokens": 30}, "differs", RANDOM),
    "presence_penalty": Try({"presence_penalty": 2, "max_tokens": 30}, "differs", RANDOM),
    "logit_bias": Try({"logit_bias": {PARIS: -100}}, says("The capital of France is Oslo.")),
    "logprobs": Try({"logprobs": True}, has_logprobs(0)),
    "top_logprobs": Try({"logprobs": True, "top_logprobs": 2}, has_logprobs(2)),
    "max_tokens": Try({"max_tokens": 3}, says("The capital of")),
    "max_completion_tokens": Try({"max_completion_tokens": 3, "max_tokens": 5}, says("The capital of")),
    "n": Try(
        {"n": 3, "temperature": 0.1}, lambda reply: [choice.index for choice in reply.choices] == [0, 1, 2]
    ),
    "response_format": Try(
        {"response_format": {"type": "json_object"}, "max_tokens": 5}, begins("{"), ask="Hello"
    ),
    "seed": Try({"seed": 7}),
    "stop": Try({"stop": ["x", "France"]}, says("The capital of ")),
    "temperature": Try({"temperature": 0}, says(ANSWER), RANDOM),
    "top_p": Try({"top_p": 1e-9}, says(ANSWER), RANDOM),
    "reasoning_effort": Try(
        {"reasoning_effort": "none"}, lambda reply: reply.reasoning is None, THINKING, since="0.18"
    ),
    "tools": Try({"tools": TOOLS}, calls(1), ask=WEATHER),
    "tool_choice": Try({"tools": TOOLS, "tool_choice": "none", "max_tokens": 40}, calls(0), ask=WEATHER),
    "parallel_tool_calls": Try({"tools": TOOLS, "parallel_tool_calls": False}, calls(1), ask=COMPARE),
    "stream_options": Try(
        {"stream_options": {"include_usage": False}}, lambda reply: reply.usage is None, stream=True
    ),
    "user": Try({"user": "ada"}),
    # sampling
    "top_k": Try({"top_k": 1}, says(ANSWER), RANDOM),
    "min_p": Try({"min_p": 1}, says(ANSWER), RANDOM),
    "repetition_penalty": Try({"repetition_penalty": 2, "max_tokens": 30}, "differs", RANDOM),
    "min_tokens": Try(
        {"min_tokens": 20, "max_tokens": 30},
        lambda reply: reply.usage is not None and reply.usage.completion_tokens >= 20,
    ),
    "stop_token_ids": Try({"stop_token_ids": [FRANCE]}, lambda reply: reply.choices[0].stop_reason == FRANCE),
    "include_stop_str_in_output": Try(
        {"stop": "France", "include_stop_str_in_output": True}, says("The capital of France")
    ),
    "ignore_eos": Try({"ignore_eos": True, "max_tokens": 20}, tokens(20)),
    "bad_words": Try({"bad_words": ["Paris"]}, says("The capital of France is Oslo.")),
    "allowed_token_ids": Try(
        {"allowed_token_ids": [THE, OF], "return_token_ids": True, "max_tokens": 4},
        lambda reply: set(reply.choices[0].token_ids or ()) <= {THE, OF},
    ),
    "use_beam_search": Try(
        {"use_beam_search": True, "n": 2, "max_tokens": 8},
        lambda reply: len({choice.message.content for choice in reply.choices}) == 2,
        COLD,
    ),
    "length_penalty": Try({"use_beam_search": True, "length_penalty": 2.0, "max_tokens": 8}),
    "repetition_detection": Try(
        {
            "allowed_token_ids": [THE],
            "max_tokens": 20,
            "repetition_detection": {"max_pattern_size": 2, "min_pattern_size": 1, "min_count": 4},
        },
        lambda reply: reply.finish_reason == "repetition",
    ),
    "structured_outputs": Try(
        {"structured_outputs": {"choice": ["yes", "no"]}}, lambda reply: len(reply.text) < 4
    ),
    "watermarking": Try({"watermarking": False}),
    "vllm_xargs": Try({"vllm_xargs": {"a": 1, "b": "x", "c": 0.5, "d": [1, "x", 0.5]}}),
    # reasoning
    "enable_thinking": Try({"enable_thinking": False}, lambda reply: reply.reasoning is None, THINKING),
    "thinking_token_budget": Try(
        {"thinking_token_budget": 3},
        lambda reply: reply.reasoning == "The user",
        THINKING,
        since="0.25",  # before, the server asks for a --reasoning-config, or its engine dies on a CPU
    ),
    "include_reasoning": Try(
        {"include_reasoning": False},
        lambda reply: reply.reasoning is None,
        THINKING,
    ),
    # prompt and template
    "chat_template": Try(
        {"chat_template": "{{ messages[0].content }}"}, refused="--trust-request-chat-template"
    ),
    "chat_template_kwargs": Try(
        {"chat_template_kwargs": {"enable_thinking": False}},
        lambda reply: (reply.text, reply.reasoning) == (ANSWER, None),
        THINKING,
    ),
    "documents": Try({"documents": [{"title": "Towers", "text": "It stands in Paris."}]}),
    "add_generation_prompt": Try(
        {"add_generation_prompt": False, "return_token_ids": True, "max_tokens": 1},
        lambda reply: (reply.prompt_token_ids or [])[-2:] == TURN_END,
    ),
    "continue_final_message": Try({"continue_final_message": True}, says(" Paris."), ask=PREFILLED),
    "echo": Try({"continue_final_message": True, "echo": True}, says(ANSWER), ask=PREFILLED),
    "add_special_tokens": Try({"add_special_tokens": True}),
    "truncate_prompt_tokens": Try(
        {"truncate_prompt_tokens": 4, "return_token_ids": True, "max_tokens": 1},
        lambda reply: len(reply.prompt_token_ids or ()) == 4,
    ),
    "truncation_side": Try(
        {
            "truncate_prompt_tokens": 4,
            "truncation_side": "right",
            "return_token_ids": True,
            "max_tokens": 1,
        },
        lambda reply: (
            reply.prompt_token_ids is not None and reply.prompt_token_ids[0] == _VOCABULARY["<|im_start|>"]
        ),
    ),
    "cache_salt": Try({"cache_salt": "salt"}),
    "media_io_kwargs": Try(
        {"media_io_kwargs": {"video": {"num_frames": 4}}},
        refused="--trust-request-mm-kwargs",
        refused_since="0.32",
    ),
    "mm_processor_kwargs": Try(
        {"mm_processor_kwargs": {"num_crops": 4}},
        refused="--trust-request-mm-kwargs",
        refused_since="0.32",
    ),
    # what comes back
    "prompt_logprobs": Try(
        {"prompt_logprobs": 1, "max_tokens": 1},
        lambda reply: (
            reply.usage is not None
            and reply.prompt_logprobs is not None
            and len(reply.prompt_logprobs) == reply.usage.prompt_tokens
            and reply.prompt_logprobs[0] is None
        ),
    ),
    "logprob_token_ids": Try(
        {"logprobs": True, "logprob_token_ids": [OF, PARIS], "max_tokens": 1},
        lambda reply: {" of", " Paris"} <= set(first_token(reply)),
    ),
    "skip_special_tokens": Try({"skip_special_tokens": False}),
    "spaces_between_special_tokens": Try({"spaces_between_special_tokens": False}),
    "return_tokens_as_token_ids": Try(
        {"logprobs": True, "top_logprobs": 1, "return_tokens_as_token_ids": True},
        lambda reply: first_token(reply) == [f"token_id:{THE}"],
    ),
    "return_token_ids": Try(
        {"return_token_ids": True}, lambda reply: (reply.choices[0].token_ids or [])[:1] == [THE]
    ),
    "return_prompt_text": Try(
        {"return_prompt_text": True}, lambda reply: CAPITAL in (reply.prompt_text or "")
    ),
    "return_token_offsets": Try({"return_token_offsets": True}),
    "return_weight_versions": Try({"return_weight_versions": True}),
    "routed_experts_prompt_start": Try({"routed_experts_prompt_start": 1}),
    "mm_payload": Try({"mm_payload": "none"}),
    "return_mm_kwargs": Try({"return_mm_kwargs": False}),
    "stream_interval": Try({"stream_interval": 3}, stream=True),
    # scheduling and transfer
    "priority": Try({"priority": -1}),
    "request_id": Try(
        {"request_id": "mine"},
        lambda reply: (reply.id, reply.request_id) == ("chatcmpl-mine", "mine"),
    ),
    "session_id": Try({"session_id": "conversation"}),
    "data_parallel_rank": Try({"data_parallel_rank": 0}),
    "kv_transfer_params": Try({"kv_transfer_params": {"do_remote_decode": False}}),
    "ec_transfer_params": Try({"ec_transfer_params": {"do_remote_encode": False}}),
    # of this library
    "extra_body": Try({"extra_body": {"stop": ["France"]}}, says("The capital of ")),
    "extra_headers": Try(
        {"extra_headers": {"X-Request-Id": "theirs"}},
        lambda reply: (reply.id, reply.request_id) == ("chatcmpl-theirs", "theirs"),
    ),
    "timeout": Try({"timeout": 60}),
    "max_retry_seconds": Try({"max_retry_seconds": 5}),
}


ASKS_NOTHING = {"watermarking"}
"""Those whose value in the table is what every server does anyway."""


def test_the_table_has_every_parameter() -> None:
    assert set(TABLE) == VLLM_CHAT_NAMES
    assert [name for name, row in TABLE.items() if name not in row.params] == []


def ask(llm: VLLMProvider, row: Try, params: VLLMChatParams) -> ChatCompletion:
    if row.stream:
        return llm.stream(row.ask, **params).until_done()
    return llm.chat(row.ask, **params)


def rows() -> list[ParameterSet]:
    """The names in the table, each for the servers on which it works, or which are too old for it."""
    return [
        pytest.param(
            name, marks=[] if row.since is None else [pytest.mark.since(row.since, f"the parameter {name}")]
        )
        for name, row in TABLE.items()
    ]


@pytest.mark.parametrize("name", rows())
def test_the_server_takes_the_parameter(llm: VLLMProvider, vllm_server: LiveServer, name: str) -> None:
    row = TABLE[name]
    params: VLLMChatParams = {**row.base, **row.params}
    since = fields_of(VLLMChatParams)[name].since
    if since is not None and not vllm_server.since(since) and name not in ASKS_NOTHING:
        message = rf"{name}: needs vLLM {re.escape(since)} or newer"
        if name in HARMLESS:
            with pytest.warns(UserWarning, match=message):
                assert ask(llm, row, params).text == ANSWER
        else:
            with pytest.raises(InvalidRequestError, match=message):
                ask(llm, row, params)
        return
    if row.refused is not None and vllm_server.since(row.refused_since):
        with pytest.raises(BadRequestError, match=row.refused):
            ask(llm, row, params)
        return
    if row.shows is None:
        assert ask(llm, row, params).text == ANSWER
        return
    others = cast("VLLMChatParams", {key: value for key, value in row.params.items() if key != name})
    for seed in SEEDS if row.base is RANDOM else (None,):
        reply = ask(llm, row, {**params, "seed": seed})
        without = ask(llm, row, {**row.base, **others, "seed": seed})
        if row.shows == "differs":
            shown = reply.text != without.text
        else:
            assert row.shows(reply), reply
            shown = not row.shows(without)
        if shown:
            return
    pytest.fail(f"nothing shows of {name}")


def test_the_same_seed_gives_the_same_reply(llm: VLLMProvider) -> None:
    one, two, other = (
        llm.chat("Tell me a story.", seed=seed, temperature=1.5, max_tokens=40).message.to_request()
        for seed in (7, 7, 8)
    )
    assert one == two
    assert one != other
