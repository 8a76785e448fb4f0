"""What a stream adds up to is what the same request answers without streaming.

The server is not of one mind with itself in two places, and no client can make that up:

- Next to tool calls `content` is null, empty or white space: without a stream it is null (`""` for required and
  named calls), in a stream the blank line that comes before the first call.
- A call that `max_tokens` cuts is the text of the reply without a stream, and a call without its end in one.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest

from support.questions import comparable, differences, told_by
from vllmchat import ResponseError, VLLMChatParams

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _pytest.mark import ParameterSet

    from support.vllm import LiveServer
    from tiny_model.dialogues import Script
    from vllmchat import ChatCompletion, Message, VLLMProvider
    from vllmchat.schemas.tool_params import FunctionTool, NamedToolChoice

WEATHER: FunctionTool = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NAMED: NamedToolChoice = {"type": "function", "function": {"name": "get_weather"}}
USER_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TAG = json.dumps(
    {
        "type": "structural_tag",
        "format": {
            "type": "tag",
            "begin": "<user>",
            "content": {"type": "json_schema", "json_schema": USER_SCHEMA},
            "end": "</user>",
        },
    }
)

G = VLLMChatParams(temperature=0)
"""Greedy, with thinking."""
N = VLLMChatParams(temperature=0, enable_thinking=False)
"""Greedy, without thinking."""

SINCE: dict[str, tuple[str, str]] = {
    "reasoning left out": ("0.25", "streams without reasoning"),
    "tool required": ("0.25", "a required call whose end the server knows"),
    "tool required after reasoning": ("0.25", "a required call whose end the server knows"),
    "logprobs": ("0.32", "every log probability in streams"),
    "top logprobs": ("0.32", "every log probability in streams"),
    "logprobs of tools": ("0.32", "every log probability in streams"),
    "interval with logprobs": ("0.32", "every log probability in streams"),
    "logprobs of some tokens": ("0.26", "the parameter logprob_token_ids"),
    "prompt text": ("0.21", "the parameter return_prompt_text"),
    "interval": ("0.27", "the parameter stream_interval"),
    "interval with tools": ("0.27", "the parameter stream_interval"),
    "repetition": ("0.17", "the parameter repetition_detection"),
    "length in reasoning": ("0.17", "reasoning that max_tokens cuts"),
    "two choices with tools": ("0.22", "several choices with tool calls"),
    **dict.fromkeys(
        (
            "tool",
            "tool after reasoning",
            "two tools in parallel",
            "one tool of two",
            "token ids of tools",
        ),
        ("0.19", "arguments without a line break at their end"),
    ),
}
"""The first vLLM here whose streams add up, for those cases in which older ones' do not."""

CASES: dict[str, tuple[str, VLLMChatParams]] = {
    "plain": ("capital", N),
    "reasoning": ("capital", G),
    "reasoning left out": ("capital", {**G, "include_reasoning": False}),
    "unicode": ("languages", G),
    "special tokens shown": ("capital", {**N, "skip_special_tokens": False}),
    # tools
    "tool": ("weather_paris", {**N, "tools": [WEATHER]}),
    "tool after reasoning": ("weather_paris", {**G, "tools": [WEATHER]}),
    "two tools in parallel": ("weather_both", {**G, "tools": [WEATHER]}),
    "one tool of two": ("weather_both", {**N, "tools": [WEATHER], "parallel_tool_calls": False}),
    "tool required": ("weather_paris", {**N, "tools": [WEATHER], "tool_choice": "required"}),
    "tool required after reasoning": ("weather_paris", {**G, "tools": [WEATHER], "tool_choice": "required"}),
    "tool named": ("weather_paris", {**N, "tools": [WEATHER], "tool_choice": NAMED}),
    "tool named after reasoning": ("weather_paris", {**G, "tools": [WEATHER], "tool_choice": NAMED}),
    "tools forbidden": ("capital", {**G, "tools": [WEATHER], "tool_choice": "none"}),
    # several choices
    "two choices": ("story", {"n": 2, "seed": 7, "temperature": 0.8, "max_tokens": 40}),
    "two choices with tools": ("weather_both", {"n": 2, "seed": 7, "temperature": 0.5, "tools": [WEATHER]}),
    "two choices with token ids": (
        "capital",
        {"n": 2, "seed": 1, "temperature": 0.9, "return_token_ids": True, "logprobs": True},
    ),
    "beams": ("capital", {**N, "use_beam_search": True, "n": 2, "max_tokens": 8}),
    # log probabilities and token ids
    "logprobs": ("capital", {**G, "logprobs": True}),
    "top logprobs": ("languages", {**N, "logprobs": True, "top_logprobs": 3}),
    "logprobs of tools": ("weather_paris", {**G, "logprobs": True, "top_logprobs": 1, "tools": [WEATHER]}),
    "logprobs as ids": ("capital", {**N, "logprobs": True, "return_tokens_as_token_ids": True}),
    "logprobs of some tokens": ("capital", {**N, "logprobs": True, "logprob_token_ids": [5, 6]}),
    "token ids": ("capital", {**G, "return_token_ids": True}),
    "token ids of tools": ("weather_both", {**G, "return_token_ids": True, "tools": [WEATHER]}),
    "prompt text": ("capital", {**N, "return_prompt_text": True}),
    # ends
    "stop string": ("count", {**N, "stop": [", 7,"]}),
    "stop string kept": ("count", {**N, "stop": ", 7,", "include_stop_str_in_output": True}),
    "length": ("story", {**N, "max_tokens": 12}),
    "length in reasoning": ("story", {**G, "max_completion_tokens": 5}),
    "length in the first token": ("story", {**N, "max_tokens": 1}),
    "repetition": (
        "capital",
        {
            **N,
            "allowed_token_ids": [40],
            "repetition_detection": {"max_pattern_size": 2, "min_pattern_size": 1, "min_count": 4},
        },
    ),
    # constraints
    "choice": ("capital", {**N, "structured_outputs": {"choice": ["Paris", "Oslo"]}}),
    "choice after reasoning": ("capital", {**G, "structured_outputs": {"choice": ["Paris", "Oslo"]}}),
    "regex": ("capital", {**N, "structured_outputs": {"regex": "[A-Z][a-z]{3,6}"}}),
    "json": ("json", {**N, "structured_outputs": {"json": USER_SCHEMA}}),
    "grammar": ("capital", {**N, "structured_outputs": {"grammar": 'root ::= "yes" | "no"'}}),
    "structural tag": ("json", {**N, "structured_outputs": {"structural_tag": TAG}}),
    "json object": ("json", {**N, "response_format": {"type": "json_object"}}),
    "json schema": (
        "json",
        {
            **N,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "user", "schema": USER_SCHEMA},
            },
        },
    ),
    # how a stream is sent
    "interval": ("story", {**G, "stream_interval": 7}),
    "interval with tools": ("weather_both", {**G, "stream_interval": 9, "tools": [WEATHER]}),
    "interval with logprobs": ("languages", {**N, "stream_interval": 4, "logprobs": True}),
}


def conversation(script: Script, name: str) -> Sequence[Message]:
    return cast("list[Message]", list(script[name].messages))


def form(reply: ChatCompletion, server: LiveServer) -> dict[str, Any]:
    """The reply without what the server itself does differently in a stream."""
    dumped = comparable(reply)
    for choice in dumped["choices"]:
        message = choice["message"]
        if message["tool_calls"]:
            # "" without a stream where the call was required, else none.
            message["content"] = message["content"] or ""
        for name in ("content", "reasoning"):
            message[name] = message[name] and server.kept(message[name])
    return dumped


def in_time(cases: Iterable[str]) -> list[ParameterSet]:
    """The cases, each for the servers whose streams add up."""
    return [
        pytest.param(case, marks=[pytest.mark.since(*SINCE[case])] if case in SINCE else []) for case in cases
    ]


@pytest.mark.parametrize("case", in_time(CASES))
def test_a_stream_adds_up_to_the_reply(
    llm: VLLMProvider, vllm_server: LiveServer, script: Script, case: str
) -> None:
    name, params = CASES[case]
    messages = conversation(script, name)
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(llm.chat, messages, **params)
        streamed = pool.submit(lambda: llm.stream(messages, **params).until_done())
        assert differences(form(plain.result(), vllm_server), form(streamed.result(), vllm_server)) == []
    # And the case is what it says.
    reply = plain.result()
    assert len(reply.choices) == params.get("n", 1)
    if case.startswith(("tool", "two tools", "one tool")) and case != "tools forbidden":
        assert reply.tool_calls
    if params.get("logprobs"):
        assert all(choice.logprobs and choice.logprobs.content for choice in reply.choices)
    if params.get("return_token_ids"):
        assert reply.prompt_token_ids
        assert all(choice.token_ids for choice in reply.choices)
    if case.startswith(("length", "repetition")):
        assert reply.finish_reason == case.split()[0]


@pytest.mark.anyio
@pytest.mark.parametrize("case", in_time(["two tools in parallel", "two choices with token ids", "length"]))
async def test_an_asynchronous_stream_adds_up_to_the_reply(
    allm: VLLMProvider, vllm_server: LiveServer, script: Script, case: str
) -> None:
    name, params = CASES[case]
    messages = conversation(script, name)
    plain = await allm.achat(messages, **params)
    streamed = await allm.astream(messages, **params).until_done()
    assert differences(form(plain, vllm_server), form(streamed, vllm_server)) == []


@pytest.mark.since("0.30", "a stream that continues a message")
def test_continuing_a_message(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    messages: list[Message] = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is"},
    ]
    params: VLLMChatParams = {**N, "continue_final_message": True}
    reply = llm.chat(messages, **params)
    assert reply.text == " Paris."
    assert (
        differences(form(reply, vllm_server), form(llm.stream(messages, **params).until_done(), vllm_server))
        == []
    )


def test_usage_on_every_chunk(llm: VLLMProvider) -> None:
    plain = llm.chat("Hello", **G)
    params: VLLMChatParams = {**G, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    with llm.stream("Hello", **params) as stream:
        told = [chunk.usage for chunk in stream]
    assert all(usage is not None for usage in told)
    counts = [usage.completion_tokens for usage in told if usage is not None]
    assert counts == sorted(counts)
    assert plain.usage is not None
    assert counts[-1] == plain.usage.completion_tokens
    assert stream.completion.usage == plain.usage


def test_a_stream_without_usage(llm: VLLMProvider) -> None:
    params: VLLMChatParams = {**N, "stream_options": {"include_usage": False}}
    reply = llm.stream("Hello", **params).until_done()
    assert reply.text == "Hello! How can I help you today?"
    assert reply.usage is None


@pytest.mark.since("0.27", "the parameter stream_interval")
def test_an_interval_makes_fewer_chunks(llm: VLLMProvider, script: Script) -> None:
    messages = conversation(script, "story")
    params: VLLMChatParams = {**N, "stream_interval": 7}
    each = list(llm.stream(messages, **N))
    seventh = list(llm.stream(messages, **params))
    assert len(seventh) < len(each) / 3
    assert "".join(chunk.text for chunk in seventh) == "".join(chunk.text for chunk in each)


def cut_reason(server: LiveServer) -> str:
    """What a stream ends with whose call was cut."""
    return "length" if server.since("0.32") else "tool_calls"


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        pytest.param(
            "required", marks=pytest.mark.since("0.25", "a required call whose end the server knows")
        ),
    ],
)
def test_a_tool_call_cut_by_max_tokens_is_never_whole(
    llm: VLLMProvider, vllm_server: LiveServer, script: Script, thinking: bool, choice: str
) -> None:
    messages = conversation(script, "weather_paris")
    params = VLLMChatParams(
        temperature=0, enable_thinking=thinking, tools=[WEATHER], max_tokens=30 if thinking else 16
    )
    params["tool_choice"] = "required" if choice == "required" else "auto"
    told = told_by(llm.stream(messages, **params).events())
    reply = told.completion
    assert reply.finish_reason == cut_reason(vllm_server)
    [call] = reply.tool_calls
    assert call.name == "get_weather"
    assert '{"city": "Paris"}'.startswith(call.arguments)
    assert not call.complete
    with pytest.raises(ResponseError, match="truncated"):
        call.parse()
    # Without a stream this server gives the half call as text; what counts is that it hands out no whole call.
    plain = llm.chat(messages, **params)
    assert plain.finish_reason == "length"
    assert not any(call.complete for call in plain.tool_calls)
    assert "<tool_call>" in plain.text


def test_of_two_calls_only_the_last_can_be_cut(llm: VLLMProvider, script: Script) -> None:
    params: VLLMChatParams = {**N, "tools": [WEATHER], "max_tokens": 36}
    reply = llm.stream(conversation(script, "weather_both"), **params).until_done()
    assert [call.complete for call in reply.tool_calls] == [True, False]
    assert reply.tool_calls[0].parse() == {"city": "Paris"}


def test_a_call_that_only_lacks_its_end_is_not_whole_either(
    llm: VLLMProvider, vllm_server: LiveServer, script: Script
) -> None:
    messages = conversation(script, "weather_paris")
    params: VLLMChatParams = {**N, "tools": [WEATHER]}
    whole = llm.chat(messages, **params)
    assert whole.usage is not None
    # One token less than the whole answer: only the end of turn is missing.
    params["max_tokens"] = whole.usage.completion_tokens - 1
    reply = llm.stream(messages, **params).until_done()
    assert reply.finish_reason == cut_reason(vllm_server)
    assert reply.tool_calls[0].arguments.rstrip("\n") == '{"city": "Paris"}'
    # The finish reason or the usage says that it was cut, so it is not handed out as whole, though it looks it.
    assert not reply.tool_calls[0].complete
