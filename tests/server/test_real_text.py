"""Completions, batches, tokens and responses by the real server."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from support.vllm import not_served
from vllmchat import (
    BadRequestError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ResponseReasoningDelta,
    ResponseStateEvent,
    ResponseTextDelta,
    StreamInterruptedError,
    VLLMProvider,
)
from vllmchat.completions.check import check_vllm
from vllmchat.generate.check import check_generate
from vllmchat.responses.check import check_respond
from vllmchat.versions import fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from _pytest.mark import ParameterSet

    from support.vllm import LiveServer
    from vllmchat.responses.request import ResponseInput
    from vllmchat.responses.response import ModelResponse
    from vllmchat.sampling.formats import StructuredOutputs

Params = dict[str, Any]

PROMPTS = ["Hello", "The capital"]
FRANCE = "What is the capital of France?"


# Completions


def test_a_completion_whole_and_streamed_are_the_same(llm: VLLMProvider) -> None:
    params: Params = {"max_tokens": 8, "temperature": 0, "logprobs": 2, "return_token_ids": True}
    whole = llm.complete(PROMPTS, **params)
    with llm.stream_complete(PROMPTS, **params) as stream:
        assert all(chunk.model == whole.model for chunk in stream)
    streamed = stream.completion
    assert whole.texts == streamed.texts
    assert whole.usage == streamed.usage
    for one, other in zip(whole.choices, streamed.choices, strict=True):
        assert (one.finish_reason, one.token_ids, one.prompt_token_ids) == (
            other.finish_reason,
            other.token_ids,
            other.prompt_token_ids,
        )
        assert one.logprobs is not None
        assert other.logprobs is not None
        assert one.logprobs.tokens == other.logprobs.tokens
        assert one.logprobs.text_offset == other.logprobs.text_offset


def test_several_choices_of_several_prompts_stand_in_their_order(llm: VLLMProvider) -> None:
    with llm.stream_complete(PROMPTS, n=2, max_tokens=3, temperature=0.5, seed=1) as stream:
        streamed = stream.until_done()
    whole = llm.complete(PROMPTS, n=2, max_tokens=3, temperature=0.5, seed=1)
    assert [choice.index for choice in streamed.choices] == [0, 1, 2, 3]
    assert streamed.usage == whole.usage


def test_token_ids_say_what_their_text_says(llm: VLLMProvider) -> None:
    (choice,) = llm.complete("Hello there", max_tokens=4, temperature=0, return_token_ids=True).choices
    assert choice.prompt_token_ids
    assert llm.complete(choice.prompt_token_ids, max_tokens=4, temperature=0).text == choice.text


def test_the_prompt_alone_is_scored(llm: VLLMProvider) -> None:
    (choice,) = llm.complete("Hello there", max_tokens=0, echo=True, logprobs=1).choices
    assert choice.text == "Hello there"
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logprob is not None for logprob in choice.logprobs.token_logprobs[1:])


def test_prompt_log_probabilities(llm: VLLMProvider) -> None:
    (choice,) = llm.complete("Hello there", max_tokens=1, prompt_logprobs=1).choices
    assert choice.prompt_logprobs is not None
    assert choice.prompt_logprobs[0] is None
    assert all(each and any(one.rank for one in each.values()) for each in choice.prompt_logprobs[1:])


def test_a_completion_is_constrained_to_what_is_requested(llm: VLLMProvider) -> None:
    # This server reads reasoning, so nothing is constrained before the reasoning has ended.
    choice: StructuredOutputs = {"choice": ["yes", "no"]}
    text = llm.complete("Say yes.<think></think>", structured_outputs=choice, max_tokens=20).text
    assert text in ("yes", "no")


@pytest.mark.since("0.32", "the parameter reasoning_ended")
def test_a_generation_is_constrained_to_what_is_requested(llm: VLLMProvider) -> None:
    prompt = llm.render("Hello")
    choice: StructuredOutputs = {"choice": ["yes", "no"]}
    generation = llm.generate(prompt, structured_outputs=choice, reasoning_ended=True)
    assert llm.detokenize(generation.token_ids).removesuffix("<|im_end|>") in ("yes", "no")


@pytest.mark.anyio
async def test_a_completion_awaiting(allm: VLLMProvider) -> None:
    whole = await allm.acomplete("Hello", max_tokens=5, temperature=0)
    async with allm.astream_complete("Hello", max_tokens=5, temperature=0) as stream:
        text = "".join([chunk.text async for chunk in stream])
    assert text == whole.text == stream.completion.text


def later(since: str, params: Params) -> ParameterSet:
    """A request that servers before that version judge otherwise."""
    return pytest.param(params, marks=pytest.mark.since(since, "what the server itself checks"))


COMPLETIONS: list[Params | ParameterSet] = [
    {"max_tokens": 0},
    {"max_tokens": 0, "echo": True},
    {"max_tokens": 1},
    {"min_tokens": 16},
    {"min_tokens": 17},
    {"min_tokens": 3, "max_tokens": 2},
    {"logprobs": -2},
    {"logprobs": 0},
    {"logprobs": 20},
    {"prompt_logprobs": -2},
    {"prompt_logprobs": 1},
    later("0.26", {"logprob_token_ids": [5]}),
    {"logprob_token_ids": [5], "logprobs": 0},
    later("0.26", {"logprob_token_ids": [5], "logprobs": 0, "use_beam_search": True}),
    later("0.26", {"logprob_token_ids": [5], "logprobs": 0, "echo": True, "max_tokens": 0}),
    later("0.32", {"echo": True, "logprobs": 1, "use_beam_search": True, "n": 2}),
    {"use_beam_search": True, "n": 2},
    {"n": 2, "temperature": 0},
    {"n": 0},
    {"best_of": 1},
    {"suffix": "x", "echo": True},
    {"suffix": "x", "truncate_prompt_tokens": 5},
    {"stream_options": {"include_usage": True}},
    later("0.17", {"structured_outputs": {}}),
    {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
    later("0.17", {"response_format": {"type": "json_schema"}}),
    later("0.30", {"cache_salt": "a/b"}),
    later("0.30", {"bad_words": [""]}),
    {"allowed_token_ids": []},
    later("0.30", {"vllm_xargs": {"a": [1]}}),
    later("0.17", {"repetition_detection": {"max_pattern_size": 3, "min_count": 1}}),
    {"truncate_prompt_tokens": -2},
    {"add_special_tokens": False},
]

GENERATIONS: list[Params | ParameterSet] = [
    {"max_tokens": 0},
    {"min_tokens": 16, "ignore_eos": False},
    {"min_tokens": 17},
    {"min_tokens": 3, "max_tokens": 2},
    {"logprobs": -2},
    {"logprobs": 0},
    later("0.22", {"logprob_token_ids": [5], "logprobs": 0}),
    {"logprob_token_ids": [5], "logprobs": 1},
    {"n": 2, "temperature": 0},
    later("0.24", {"temperature": 3}),
    {"detokenize": False, "stop": "x"},
    later("0.32", {"detokenize": False, "output_mode": "text"}),
    later("0.32", {"output_mode": "words"}),
    later("0.17", {"structured_outputs": {}}),
    {"structured_outputs": {"regex": "a"}},
    {"logit_bias": {"5": 1}},
    later("0.30", {"cache_salt": "a/b"}),
    later("0.22", {"bad_words": [""]}),
    later("0.27", {"stream_interval": 0}),
]

RESPONSES: list[Params | ParameterSet] = [
    {"max_output_tokens": 5},
    later("0.22", {"presence_penalty": 3}),
    later("0.24", {"temperature": 3}),
    later("0.17", {"structured_outputs": {"regex": "a"}, "text": {"format": {"type": "json_object"}}}),
    later("0.17", {"structured_outputs": {}}),
    {"structured_outputs": {"regex": "a"}},
    later("0.22", {"tool_choice": "required"}),
    {"tool_choice": "auto"},
    later("0.22", {"tool_choice": {"type": "function", "name": "f"}}),
    {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function", "name": "g"}},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"reasoning": {"effort": "low"}},
    {"reasoning": {"effort": "extreme"}},
    {"truncation": "some"},
    {"include": ["nothing"]},
    {"text": {"format": {"type": "json_schema", "name": "x"}}},
    later("0.30", {"cache_salt": "a/b"}),
]

KNOWN: list[Params] = [
    # The server takes these and does nothing, or what was not meant.
    {"best_of": 1},
    {"allowed_token_ids": []},
]


def refusal(ask: Callable[[], object]) -> str:
    try:
        ask()
    except (InvalidRequestError, BadRequestError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("params", COMPLETIONS, ids=str)
def test_our_check_of_completions_is_the_servers(llm: VLLMProvider, params: Params) -> None:
    ours = refusal(partial(check_vllm, params, stream=False))
    theirs = refusal(partial(llm.complete, "Hello", extra_body={"max_tokens": 16, **params}))
    if "max_tokens" not in params:
        theirs = refusal(partial(llm.complete, "Hello", extra_body=params))
    assert bool(ours) == (bool(theirs) or params in KNOWN), ours or theirs


@pytest.mark.parametrize("params", GENERATIONS, ids=str)
def test_our_check_of_generations_is_the_servers(llm: VLLMProvider, params: Params) -> None:
    ours = refusal(partial(check_generate, params, stream=False))
    outside = {name: value for name, value in params.items() if name in ("output_mode", "cache_salt")}
    inside = {name: value for name, value in params.items() if name not in outside}
    if not {"max_tokens", "min_tokens"} & inside.keys():
        inside["max_tokens"] = 3
    theirs = refusal(partial(llm.generate, [300], extra_body={**outside, "sampling_params": inside}))
    assert bool(ours) == bool(theirs), ours or theirs


@pytest.mark.parametrize("params", RESPONSES, ids=str)
def test_our_check_of_responses_is_the_servers(llm: VLLMProvider, params: Params) -> None:
    ours = refusal(partial(check_respond, params, stream=False))
    theirs = refusal(partial(llm.respond, "Hello", extra_body={"max_output_tokens": 3, **params}))
    assert bool(ours) == bool(theirs), ours or theirs


def test_a_beam_search_is_not_streamed(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    with pytest.raises(InvalidRequestError):
        llm.stream_complete("Hello", use_beam_search=True, n=2)
    if not vllm_server.since("0.19"):  # it answers with one piece
        return
    with pytest.raises(BadRequestError):
        llm.stream_complete("Hello", extra_body={"use_beam_search": True, "n": 2}).until_done()


# Batches


@pytest.mark.since("0.19", "batches of chats")
def test_each_conversation_of_a_batch_gets_the_reply_it_gets_alone(llm: VLLMProvider) -> None:
    questions = ["Hello", FRANCE]
    answer = llm.chat_batch(questions, temperature=0)
    alone = [llm.chat(question, temperature=0) for question in questions]
    assert [choice.message.content for choice in answer.choices] == [reply.message.content for reply in alone]
    assert [choice.message.reasoning for choice in answer.choices] == [
        reply.message.reasoning for reply in alone
    ]
    assert all(reply.reasoning for reply in alone)
    assert answer.usage is not None
    assert answer.usage.total_tokens == sum(reply.usage.total_tokens for reply in alone if reply.usage)


@pytest.mark.since("0.19", "batches of chats")
def test_a_batch_tells_the_tokens_of_the_replies_alone(llm: VLLMProvider) -> None:
    answer = llm.chat_batch(["Hello", FRANCE], max_tokens=3, return_token_ids=True)
    assert [len(choice.token_ids or []) for choice in answer.choices] == [3, 3]
    assert answer.prompt_token_ids is None


@pytest.mark.since("0.19", "batches of chats")
@pytest.mark.anyio
async def test_a_batch_awaiting(allm: VLLMProvider) -> None:
    answer = await allm.achat_batch(["Hello", FRANCE], temperature=0, enable_thinking=False)
    assert (answer.choices[1].message.content or "").strip() == "The capital of France is Paris."


# Tokens


@pytest.mark.since("0.15", "render")
def test_what_is_rendered_and_generated_is_what_a_chat_answers(
    llm: VLLMProvider, vllm_server: LiveServer
) -> None:
    prompt = llm.render(FRANCE, temperature=0, enable_thinking=False)
    reply = llm.chat(FRANCE, temperature=0, enable_thinking=False, return_token_ids=True)
    generation = llm.generate(prompt)
    assert reply.prompt_token_ids == prompt.token_ids
    assert generation.token_ids == reply.choices[0].token_ids
    assert generation.finish_reason == "stop"
    assert reply.usage is not None
    if vllm_server.since("0.25"):
        assert generation.usage is not None
        assert generation.usage.total_tokens == reply.usage.total_tokens
    assert "Paris" in llm.detokenize(generation.token_ids)


@pytest.mark.since("0.32", "generations as text")
def test_a_generation_as_text(llm: VLLMProvider) -> None:
    prompt = llm.render(FRANCE, temperature=0, enable_thinking=False)
    assert llm.generate(prompt, output_mode="text").text == "The capital of France is Paris."


@pytest.mark.since("0.22", "generations streamed")
def test_a_generation_streamed_is_the_same(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    prompt = llm.render(FRANCE, temperature=0)
    params: Params = {"logprobs": 1}
    if vllm_server.since("0.30"):
        params["return_token_ids"] = True
    whole = llm.generate(prompt, **params)
    with llm.stream_generate(prompt, **params) as stream:
        pieces = [chunk.token_ids for chunk in stream]
    assert len(pieces) > 5
    assert [token for piece in pieces for token in piece] == whole.token_ids
    streamed = stream.generation
    if vllm_server.since("0.25"):
        assert streamed.usage == whole.usage
    if vllm_server.since("0.30"):
        assert streamed.prompt_token_ids == whole.prompt_token_ids == prompt.token_ids
    for generation in (streamed, whole):
        logprobs = generation.choices[0].logprobs
        assert logprobs is not None
        told = [token.token_id for token in logprobs.content or []]
        assert told == (whole.token_ids if vllm_server.since("0.32") else [None] * len(whole.token_ids))


@pytest.mark.since("0.26", "the parameter logprob_token_ids")
def test_chosen_tokens_have_their_log_probabilities(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    (choice,) = llm.generate([300], max_tokens=1, logprob_token_ids=[5, 6]).choices
    assert choice.logprobs is not None
    (token,) = choice.logprobs.content or []
    # The token that was generated takes the place of one of them.
    if vllm_server.since("0.32"):
        assert {each.token_id for each in token.top_logprobs} & {5, 6}
    else:
        assert {each.token for each in token.top_logprobs} & {"token_id:5", "token_id:6"}


@pytest.mark.since("0.15", "render")
def test_prompts_of_completions_are_rendered_one_by_one(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    # An older server gives the tokens alone, without the parameters.
    params: Params = {} if vllm_server.since("0.18") else {"max_tokens": 4, "temperature": 0}
    rendered = llm.render_completion(PROMPTS, max_tokens=4, temperature=0)
    texts = llm.complete(PROMPTS, max_tokens=4, temperature=0, return_token_ids=True)
    assert [prompt.token_ids for prompt in rendered] == [choice.prompt_token_ids for choice in texts.choices]
    assert [llm.generate(prompt, **params).token_ids for prompt in rendered] == [
        each.token_ids for each in texts.choices
    ]


@pytest.mark.since("0.15", "render")
@pytest.mark.anyio
async def test_tokens_awaiting(allm: VLLMProvider) -> None:
    prompt = await allm.arender("Hello", temperature=0)
    (rendered,) = await allm.arender_completion("Hello")
    assert rendered.token_ids
    whole = await allm.agenerate(prompt, max_tokens=5)
    async with allm.astream_generate(prompt, max_tokens=5) as stream:
        assert [token async for chunk in stream for token in chunk.token_ids] == whole.token_ids


@pytest.mark.since("0.30", "the option --enable-scale-out")
@pytest.mark.parametrize("ask", ["render", "render_completion", "generate"])
def test_a_server_without_the_option_says_so(keyed_server: LiveServer, ask: str) -> None:
    refused = PermissionDeniedError if keyed_server.since("0.32") else NotFoundError
    with VLLMProvider(base_url=keyed_server.base_url, api_key=keyed_server.api_key) as llm:
        method: Callable[[Any], object] = getattr(llm, ask)
        with pytest.raises(refused, match="--enable-scale-out"):
            method([300] if ask != "render" else "Hello")


def chat_batch(llm: VLLMProvider) -> object:
    return llm.chat_batch(["Hello"])


GENERATING: list[Callable[[VLLMProvider], object] | ParameterSet] = [
    lambda llm: llm.chat("Hello"),
    lambda llm: llm.stream("Hello").until_done(),
    lambda llm: llm.parse("Hello", int),
    lambda llm: llm.stream_parse("Hello", int).until_done(),
    lambda llm: llm.choose("Hello", ["yes", "no"]),
    lambda llm: llm.run_tools("Hello", tools=[get_weather]),
    lambda llm: llm.stream_run_tools("Hello", tools=[get_weather]).until_done(),
    lambda llm: llm.complete("Hello"),
    lambda llm: llm.stream_complete("Hello").until_done(),
    lambda llm: llm.respond("Hello"),
    lambda llm: llm.stream_respond("Hello").until_done(),
    pytest.param(chat_batch, marks=pytest.mark.since("0.19", "batches of chats")),
]


@pytest.mark.parametrize("ask", GENERATING)
def test_a_pooling_server_generates_nothing(
    ask: Callable[[VLLMProvider], object], pooling_server: LiveServer
) -> None:
    base_url = pooling_server.base_url
    with (
        VLLMProvider(base_url=base_url) as llm,
        not_served(pooling_server, "generating model|model that generates"),
    ):
        ask(llm)


def test_a_server_without_the_store_says_so(llm: VLLMProvider) -> None:
    with pytest.raises(NotFoundError, match="VLLM_ENABLE_RESPONSES_API_STORE=1"):
        llm.respond("Hello", previous_response_id="resp_x")


@pytest.mark.since("0.17", "constraints of responses")
def test_a_stream_of_a_response_breaks_off_over_a_constraint_that_is_none(llm: VLLMProvider) -> None:
    grammar: Params = {"structured_outputs": {"grammar": "no grammar ["}}
    with pytest.raises(BadRequestError, match="grammar"):
        llm.respond("Hello", **grammar)
    # The server breaks the connection off, and only its log says why.
    with pytest.raises(StreamInterruptedError):
        llm.stream_respond("Hello", **grammar).until_done()


# Responses


@pytest.mark.parametrize(
    ("given", "pattern"), [({"json": {"type": "integer"}}, r"\s*-?\d"), ({"json_object": True}, r"\s*\{")]
)
def test_what_is_written_for_old_responses_holds(llm: VLLMProvider, given: Params, pattern: str) -> None:
    fitted = fit({"structured_outputs": given}, (0, 16, 0), "/responses")
    assert set(fitted) == {"text"}
    response = llm.respond("Hello", max_output_tokens=80, extra_body=fitted)
    assert re.match(pattern, response.text), response.text


def test_a_response_is_what_a_chat_answers(llm: VLLMProvider) -> None:
    response = llm.respond(FRANCE, temperature=0)
    reply = llm.chat(FRANCE, temperature=0)
    assert response.text.strip() == reply.text.strip()
    assert (response.reasoning or "").strip() == (reply.reasoning or "").strip()
    assert response.status == "completed"
    assert response.usage is not None
    assert reply.usage is not None
    assert response.usage.input_tokens == reply.usage.prompt_tokens


def written(response: ModelResponse, kind: str) -> str:
    """The text of all items of a type, as the model wrote it."""
    return "".join(item.text for item in response.output if item.type == kind)


def test_a_response_streamed_is_the_same(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    whole = llm.respond(FRANCE, temperature=0)
    text = reasoning = ""
    with llm.stream_respond(FRANCE, temperature=0) as stream:
        for event in stream:
            match event:
                case ResponseTextDelta(delta=piece):
                    text += piece
                case ResponseReasoningDelta(delta=piece):
                    reasoning += piece
                case ResponseStateEvent(response=state):
                    assert state.id
                case _:
                    pass
    # The pieces and the items keep the line breaks, and the response leaves out those around its texts.
    assert (written(stream.response, "message"), written(stream.response, "reasoning")) == (text, reasoning)
    assert vllm_server.kept(text) == vllm_server.kept(written(whole, "message"))
    assert vllm_server.kept(reasoning) == vllm_server.kept(written(whole, "reasoning"))
    for response in (stream.response, whole):
        assert response.text == "The capital of France is Paris."
        assert response.reasoning == reasoning.strip("\n")
    assert stream.response.usage is not None
    assert whole.usage is not None
    assert stream.response.usage.output_tokens == whole.usage.output_tokens


def get_weather(city: str) -> str:
    """Gets the current weather."""
    return city


@pytest.mark.parametrize("streamed", [False, True])
def test_a_response_calls_a_tool_and_goes_on(llm: VLLMProvider, streamed: bool) -> None:
    question: Params = {"role": "user", "content": "What is the weather in Paris?"}
    params: Params = {"tools": [get_weather], "temperature": 0}

    def ask(given: ResponseInput) -> ModelResponse:
        if streamed:
            return llm.stream_respond(given, **params).until_done()
        return llm.respond(given, **params)

    response = ask([question])
    (call,) = response.tool_calls
    assert (call.name, call.parse(), call.complete) == ("get_weather", {"city": "Paris"}, True)
    answer = {"type": "function_call_output", "call_id": call.id, "output": "18 degrees, sunny"}
    assert ask([question, *response.output, answer]).status == "completed"


def test_a_response_that_is_cut_says_so(llm: VLLMProvider) -> None:
    response = llm.respond("Count from 1 to 100.", max_output_tokens=10, temperature=0)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_what_was_said_goes_back(llm: VLLMProvider) -> None:
    first = llm.respond("Hello", temperature=0)
    history: list[Any] = [
        {"role": "user", "content": "Hello"},
        *first.output,
        {"role": "user", "content": FRANCE},
    ]
    assert llm.respond(history, temperature=0).text.strip() == "The capital of France is Paris."


@pytest.mark.since("0.25", "responses without thinking")
def test_a_response_without_thinking(llm: VLLMProvider) -> None:
    response = llm.respond(FRANCE, temperature=0, enable_thinking=False)
    assert (response.text, response.reasoning) == ("The capital of France is Paris.", None)


def test_a_response_is_constrained_to_what_is_requested(llm: VLLMProvider) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    response = llm.respond(
        "Hello",
        text={"format": {"type": "json_schema", "name": "x", "schema": schema}},
        max_output_tokens=100,
    )
    assert response.text.lstrip().startswith("{")


@pytest.mark.anyio
async def test_a_response_awaiting(allm: VLLMProvider) -> None:
    whole = await allm.arespond(FRANCE, temperature=0)
    async with allm.astream_respond(FRANCE, temperature=0) as stream:
        assert "".join([event.text_delta async for event in stream]).strip() == whole.text.strip()
