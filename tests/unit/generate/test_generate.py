"""Tokens in, tokens out: rendering, generating, and validation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from support.scripted import ScriptedServer, reply, stream
from vllmchat import (
    BadRequestError,
    Generation,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RenderedPrompt,
    ResponseError,
    StreamInterruptedError,
    VLLMProvider,
)
from vllmchat.checking.rules import fields_of
from vllmchat.generate.check import OUTSIDE, check_generate
from vllmchat.generate.generation import decode_chunk, decode_generation
from vllmchat.generate.params import GenerateParams
from vllmchat.generate.rendered import decode_all_rendered, decode_rendered
from vllmchat.generate.request import generate_request
from vllmchat.generate.stream import generation_reader
from vllmchat.http.timeout import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from support.runners import Runner

Object = dict[str, Any]

NOTHING: list[int] = []
SCALE_OUT = {
    "error": {
        "message": "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.",
        "type": "PermissionDeniedError",
        "param": None,
        "code": 403,
    }
}


def sent(prompt: Any, *, streamed: bool = False, **params: Any) -> Object:
    request = generate_request(prompt, params, stream=streamed)
    body: Object = json.loads(request.call("m", DEFAULT_TIMEOUT).body or b"")
    return body


def rendered(**fields: Any) -> RenderedPrompt:
    return RenderedPrompt.model_validate(
        {"token_ids": [1, 2], "sampling_params": {"temperature": 0.5}, **fields}
    )


def chunk(*tokens: int, index: int = 0, finish: str | None = None, **fields: Any) -> Object:
    choice = {"index": index, "token_ids": list(tokens), "finish_reason": finish, "logprobs": None}
    return {
        "request_id": "generate-tokens-1",
        "output_mode": "tokens",
        "usage": None,
        "choices": [choice],
        **fields,
    }


# Parameters


def test_positions_of_the_parameters() -> None:
    assert set(fields_of(GenerateParams)) > OUTSIDE


def test_sampling_parameters_are_nested() -> None:
    body = sent(
        [1, 2],
        temperature=0,
        top_k=5,
        logit_bias={7: 1.0},
        vllm_xargs={"a": 1},
        extra_sampling_params={"flat_logprobs": True},
        output_mode="text",
        priority=3,
        request_id="mine",
        extra_body={"beyond": 1},
    )
    assert body == {
        "model": "m",
        "token_ids": [1, 2],
        "sampling_params": {
            "temperature": 0,
            "top_k": 5,
            "logit_bias": {"7": 1.0},
            "extra_args": {"a": 1},
            "flat_logprobs": True,
        },
        "output_mode": "text",
        "priority": 3,
        "request_id": "mine",
        "beyond": 1,
    }


def test_sampling_params_are_sent_even_if_empty() -> None:
    assert sent([1])["sampling_params"] == {}
    assert sent((1, 2))["token_ids"] == [1, 2]


def test_logprob_token_ids_set_logprobs() -> None:
    assert sent([1], logprob_token_ids=[5, 6])["sampling_params"] == {
        "logprob_token_ids": [5, 6],
        "logprobs": 2,
    }
    assert sent([1], logprob_token_ids=NOTHING, logprobs=3)["sampling_params"]["logprobs"] == 3


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"stream": True}, "the method decides whether to stream. Call .stream_generate(...)"),
        ({"max_completion_tokens": 5}, "Write `max_tokens=5`."),
        ({"top_logprobs": 5}, "Write `logprobs=5`."),
        ({"sampling_params": {}}, "Write its fields as parameters"),
        ({"response_format": {"type": "json_object"}}, 'Write structured_outputs={"json": ...}.'),
        ({"tools": NOTHING}, "Pass it to .render(...)."),
        ({"temprature": 0}, "Did you mean `temperature`?"),
        ({"whatever": 0}, 'write extra_sampling_params={"whatever": 0}.'),
        ({"max_tokens": 0}, "must be at least 1."),
        ({"min_tokens": 5, "max_tokens": 4}, "must be at most max_tokens=4."),
        ({"min_tokens": 17}, "must be at most max_tokens=16. Set `max_tokens` too."),
        ({"prompt_logprobs": 1, "streamed": True}, "is not supported when streaming. Call .generate(...)"),
        ({"stream_options": {"include_usage": True}}, "requires streaming. Call .stream_generate(...)"),
        ({"detokenize": False, "output_mode": "text"}, 'cannot be combined with output_mode="text".'),
        ({"detokenize": False, "stop": "x"}, "cannot be combined with `stop`. Use `stop_token_ids`."),
        ({"content_parts": [{"type": "text"}], "features": {"a": 1}}, "cannot be combined with `features`"),
        ({"logprob_token_ids": [5], "logprobs": 0}, "cannot be combined with logprobs=0"),
        ({"n": 2, "temperature": 0}, "must be 1 with temperature=0"),
        ({"structured_outputs": {}}, "needs exactly one of"),
        ({"cache_salt": "a/b"}, "cache_salt: must not contain"),
    ],
)
def test_invalid_parameters(params: Object, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_generate(params, stream=params.pop("streamed", False))
    (problem,) = caught.value.problems
    assert said in str(problem)


def test_valid_parameters() -> None:
    check_generate({"detokenize": True, "stop": "x", "content_parts": [{"type": "text"}]}, stream=False)
    check_generate({"detokenize": False, "prompt_logprobs": 0, "stream_options": {}}, stream=True)
    check_generate({"min_tokens": 20, "extra_sampling_params": {"max_tokens": 30}}, stream=False)
    check_generate({"min_tokens": 3, "max_tokens": 3}, stream=False)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Hello", "not a string. Call .complete(...)"),
        (NOTHING, "prompt=[]: must not be empty."),
        ([1, -1], "prompt[1]=-1: must be between 0 and 2**63 - 1."),
        ([[1]], "prompt[0]=[1]: must be an integer"),
        (5, "must be a list of token ids or a RenderedPrompt, not an int."),
        (b"ab", "not a bytes."),
        (rendered(token_ids=NOTHING), "prompt.token_ids=[]: must not be empty."),
        (rendered(token_ids=[-1]), "prompt.token_ids[0]=-1"),
    ],
)
def test_invalid_prompts(prompt: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        sent(prompt)
    assert said in str(caught.value)


# Rendered prompts


def test_a_recorded_prompt_has_no_unknown_fields() -> None:
    body = recordings.load("render").body
    prompt = decode_rendered(body)
    assert prompt.model_dump(mode="json") == {**json.loads(body), "parse_context": None}
    assert len(prompt.token_ids) == 24
    assert prompt.sampling_params["max_tokens"] == 2024


def test_given_parameters_override_rendered_ones() -> None:
    prompt = decode_rendered(recordings.load("render").body)
    body = sent(prompt, max_tokens=5, priority=2)
    assert body["token_ids"] == prompt.token_ids
    assert body["sampling_params"] == {**prompt.sampling_params, "max_tokens": 5}
    assert (body["model"], body["priority"], body["reasoning_ended"]) == ("m", 2, False)
    assert body["reasoning_parser_kwargs"] == prompt.reasoning_parser_kwargs
    # One prompt can be used twice at the same time, by both methods.
    assert body.keys().isdisjoint({"request_id", "stream", "stream_options", "token_offsets"})
    assert prompt.sampling_params["max_tokens"] == 2024


def test_fields_of_newer_servers_are_sent_back() -> None:
    assert sent(rendered(of_a_newer_server={"x": 1}, empty=None))["of_a_newer_server"] == {"x": 1}


OLD: Object = {"type": "token", "prompt_token_ids": [1, 445], "prompt": "<|im_start|>", "arrival_time": 1.5}


def test_prompts_of_old_servers() -> None:
    conversation = [{"role": "user", "content": "Hello"}]
    prompt = decode_rendered(json.dumps([conversation, [OLD]]).encode())
    assert (prompt.token_ids, prompt.sampling_params, prompt.model_extra) == ([1, 445], {}, {})
    assert [each.token_ids for each in decode_all_rendered(json.dumps([OLD, OLD]).encode())] == [[1, 445]] * 2
    assert sent(prompt, max_tokens=5)["token_ids"] == [1, 445]


@pytest.mark.parametrize("wrong", [{"type": "multimodal"}, {"prompt_token_ids": "x"}])
def test_prompts_of_old_servers_that_cannot_be_sent_back(wrong: Object) -> None:
    prompt = {**OLD, **wrong}
    for body, decode in (([[], [prompt]], decode_rendered), ([prompt], decode_all_rendered)):
        with pytest.raises(ResponseError, match="is not a rendered prompt"):
            decode(json.dumps(body).encode())


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b"null", b'{"token_ids": "x"}', b"<html>", b"[[], []]", b"[["]
)
def test_invalid_rendered_prompts(data: bytes) -> None:
    with pytest.raises(ResponseError):
        decode_rendered(data)
    with pytest.raises(ResponseError):
        decode_all_rendered(b"[" + data + b"]")


def test_render_methods(runner: Runner, scripted: ScriptedServer) -> None:
    body = json.loads(recordings.load("render").body)
    scripted.add(reply(body), reply([body, body]))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    assert runner.do(llm, "render", "Hello", temperature=0).token_ids == body["token_ids"]
    assert len(runner.do(llm, "render_completion", ["a", "b"], max_tokens=3)) == 2
    assert [request.path for request in scripted.requests] == [
        "/v1/chat/completions/render",
        "/v1/completions/render",
    ]
    assert scripted.requests[1].json() == {"model": "m", "prompt": ["a", "b"], "max_tokens": 3}


# Generations


def test_a_recorded_generation_has_no_unknown_fields() -> None:
    recorded = recordings.load("generate")
    generation = decode_generation(recorded.body)
    expected = json.loads(recorded.body)
    expected["choices"][0] |= {"text": "", "message": None}
    assert generation.model_dump(mode="json") == expected
    assert (generation.token_ids, generation.text, generation.finish_reason) == (
        [14, 615, 3, 14],
        "",
        "length",
    )
    assert generation.choices[0].weight_versions is not None
    assert generation.choices[0].weight_versions[0].end == 4


# Messages made of the tokens: recorded answers of vLLM 0.33.0


def derendered(name: str) -> Generation:
    return decode_generation(recordings.load(name, "0.33.0").body, "derender")


def test_a_message_is_made_of_the_tokens() -> None:
    generation = derendered("generate_derender")
    assert generation.message is not None
    assert generation.message.content == "\n\nThe capital of France is Paris."
    assert generation.message.reasoning == "\nThe user asks for the capital of France. That is Paris.\n"
    assert (generation.text, len(generation.token_ids), generation.finish_reason) == ("", 27, "stop")


def test_tool_calls_are_made_of_the_tokens() -> None:
    generation = derendered("generate_derender_tools")
    assert generation.message is not None
    [call] = generation.message.tool_calls
    assert (call.name, call.parse(), call.complete) == ("get_weather", {"city": "Paris"}, True)
    assert generation.finish_reason == "tool_calls"


def test_a_call_that_was_cut_is_not_complete() -> None:
    recorded = json.loads(recordings.load("generate_derender_tools", "0.33.0").body)
    recorded["choices"][0]["finish_reason"] = (
        "length"  # as if the last token had been the last that was allowed
    )
    generation = decode_generation(json.dumps(recorded).encode(), "derender")
    assert generation.message is not None
    [call] = generation.message.tool_calls
    assert not call.complete
    cut = derendered("generate_derender_tools_length")
    assert cut.finish_reason == "length"
    assert cut.message is not None
    assert not any(call.complete for call in cut.message.tool_calls)


def test_hidden_reasoning_hides_the_tokens() -> None:
    generation = derendered("generate_derender_hidden")
    assert generation.message is not None
    assert generation.message.reasoning is None
    assert (generation.token_ids, generation.choices[0].logprobs) == ([], None)


def test_logprobs_of_a_message_have_texts() -> None:
    [choice] = derendered("generate_derender_logprobs").choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert [each.token for each in choice.logprobs.content] == ["<think>", "\n", "The"]


@pytest.mark.parametrize("mode", ["text", "derender"])
def test_a_server_that_ignores_the_mode_raises(mode: str) -> None:
    # Servers before 0.32 return tokens, and say nothing of a mode.
    with pytest.raises(ResponseError, match=f"its output_mode is 'tokens', not '{mode}'"):
        decode_generation(b'{"choices": [{"index": 0, "token_ids": [1]}]}', mode)


def test_a_choice_without_its_message_raises() -> None:
    body = b'{"output_mode": "derender", "choices": [{"index": 0, "token_ids": [1]}]}'
    with pytest.raises(ResponseError, match="a choice has no message"):
        decode_generation(body, "derender")


def test_the_mode_may_be_replaced(scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url)
    scripted.reply(recordings.load("generate_derender", "0.33.0").body)
    generation: Generation = runner.do(llm, "generate", [1], extra_body={"output_mode": "derender"})
    runner.close(llm)
    assert generation.message is not None


def test_what_was_rendered_is_sent_back(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.version = "0.33.0"
    llm = VLLMProvider("m", base_url=scripted.base_url)
    prompt = decode_rendered(recordings.load("render_parse_context_tools", "0.33.0").body)
    assert prompt.parse_context is not None
    scripted.reply(recordings.load("generate_derender_tools", "0.33.0").body)
    generation: Generation = runner.do(llm, "generate", prompt, output_mode="derender")
    runner.close(llm)
    assert generation.finish_reason == "tool_calls"
    sent_body = scripted.requests[-1].json()
    assert sent_body["parse_context"] == prompt.parse_context
    assert sent_body["output_mode"] == "derender"


@pytest.mark.parametrize(
    ("params", "stream", "said"),
    [
        ({"output_mode": "derender"}, True, "output_mode='derender': is not available when streaming"),
        ({"output_mode": "derender", "detokenize": False}, False, 'combined with output_mode="derender".'),
        ({"output_mode": "derendered"}, False, 'Did you mean "derender"?'),
        ({"parse_context": "x"}, False, "parse_context='x': must be a mapping, not a str."),
        ({"parsecontext": "x"}, False, "Did you mean `parse_context`?"),
    ],
)
def test_invalid_modes(params: Object, stream: bool, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_generate(params, stream=stream)
    [problem] = caught.value.problems
    assert said in str(problem)


def test_a_parse_context_needs_a_new_server(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.version = "0.32.0"
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with pytest.raises(InvalidRequestError, match=r"parse_context: needs vLLM 0\.33 or newer"):
        runner.do(llm, "generate", [1], output_mode="derender", parse_context={"tools": None})
    runner.close(llm)


def test_a_generation_without_choices_is_empty() -> None:
    generation = decode_generation(b'{"choices": []}')
    assert (generation.token_ids, generation.text, generation.finish_reason) == ([], "", None)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"null", b"<html>"])
def test_invalid_responses(data: bytes) -> None:
    with pytest.raises(ResponseError):
        decode_generation(data)
    with pytest.raises(ResponseError):
        decode_chunk(data)


def test_generate(runner: Runner, scripted: ScriptedServer) -> None:
    recorded = recordings.load("generate")
    scripted.add(reply(json.loads(recorded.body)))
    llm = VLLMProvider("tiny-qwen3", base_url=scripted.base_url)
    generation: Generation = runner.do(llm, "generate", [300, 301, 302], max_tokens=4, temperature=0)
    assert generation.token_ids == [14, 615, 3, 14]
    assert scripted.requests[0].path == "/inference/v1/generate"
    assert scripted.requests[0].json() == recorded.request


def test_a_stream_adds_up(runner: Runner, scripted: ScriptedServer) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    first = chunk(1, prompt_token_ids=[7, 8])
    first["choices"][0]["logprobs"] = {"content": [{"token_id": 1, "logprob": -0.5, "rank": 1}]}
    last = chunk(2, 3, finish="stop")
    last["choices"][0]["logprobs"] = {"content": [{"token_id": 2, "logprob": -0.1, "rank": 1}]}
    end: Object = {"request_id": "generate-tokens-1", "output_mode": "tokens", "choices": [], "usage": usage}
    scripted.add(stream([first, last, end]))
    got = runner.open(VLLMProvider("m", base_url=scripted.base_url), "stream_generate", [300], max_tokens=3)
    pieces: list[Any] = list(got)
    assert [piece.token_ids for piece in pieces] == [[1], [2, 3], []]
    assert {piece.text for piece in pieces} == {""}
    inner: Any = got.inner
    generation: Generation = inner.generation
    assert (generation.token_ids, generation.finish_reason) == ([1, 2, 3], "stop")
    assert generation.usage is not None
    assert generation.usage.total_tokens == 6
    assert generation.prompt_token_ids == [7, 8]
    logprobs = generation.choices[0].logprobs
    assert logprobs is not None
    assert [token.token_id for token in logprobs.content or []] == [1, 2]
    asked: Object = scripted.requests[0].json()
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    with pytest.raises(Exception, match=r"Its result is in \.generation"):
        list(got)


def test_text_adds_up_too() -> None:
    target = generation_reader(generate_request([1], {"n": 2}, stream=True))
    for index, said in ((0, "a"), (1, "x"), (0, "b")):
        made = chunk(1, index=index)
        made["choices"][0]["text"] = said
        made["output_mode"] = "text"
        item = decode_chunk(json.dumps(made).encode())
        assert item.text == (said if index == 0 else "")
        target.accept(item)
    assert [choice.text for choice in target.reply().choices] == ["ab", "x"]
    assert target.reply().output_mode == "text"
    assert not target.is_complete()


def test_missing_log_probabilities() -> None:
    target = generation_reader(generate_request([1], {}, stream=True))
    for logprobs in ({"content": [{"token_id": 1}]}, {"content": None}, None):
        made = chunk(1)
        made["choices"][0]["logprobs"] = logprobs
        item = decode_chunk(json.dumps(made).encode())
        target.accept(item)
    (choice,) = target.reply().choices
    assert choice.logprobs is not None
    assert len(choice.logprobs.content or []) == 1


def test_an_interrupted_stream_keeps_the_partial_generation(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.add(stream([chunk(1, 2)], done=False))
    got = runner.open(VLLMProvider("m", base_url=scripted.base_url), "stream_generate", [300])
    with pytest.raises(StreamInterruptedError) as caught:
        got.until_done()
    assert isinstance(caught.value.partial, Generation)
    assert caught.value.partial.token_ids == [1, 2]


def test_a_response_that_is_not_streamed_is_one_chunk(runner: Runner, scripted: ScriptedServer) -> None:
    # vLLM 0.12 to 0.19 respond like this, regardless of `stream`.
    choice = {"index": 0, "logprobs": None, "finish_reason": "length", "token_ids": [548, 649]}
    scripted.reply({"request_id": "b", "choices": [choice], "prompt_logprobs": None})
    got = runner.open(VLLMProvider("m", base_url=scripted.base_url), "stream_generate", [300])
    pieces: list[Any] = list(got)
    assert [piece.token_ids for piece in pieces] == [[548, 649]]
    inner: Any = got.inner
    assert (inner.generation.token_ids, inner.generation.finish_reason) == ([548, 649], "length")


def test_an_error_instead_of_a_stream(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply({"error": {"message": "no such token", "type": "BadRequestError", "code": 400}})
    got = runner.open(VLLMProvider("m", base_url=scripted.base_url), "stream_generate", [300])
    with pytest.raises(BadRequestError, match="no such token"):
        got.until_done()


def test_a_json_response_that_is_not_a_generation(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply({"hello": "world"})
    got = runner.open(VLLMProvider("m", base_url=scripted.base_url), "stream_generate", [300])
    with pytest.raises(ResponseError, match="is not a chunk of a generation"):
        got.until_done()


# Servers without the routes


@pytest.mark.parametrize(("status", "body"), [(403, SCALE_OUT), (404, {"detail": "Not Found"})])
@pytest.mark.parametrize("method", ["render", "render_completion", "generate", "stream_generate"])
def test_the_error_names_the_option(
    runner: Runner, scripted: ScriptedServer, method: str, status: int, body: Object
) -> None:
    scripted.add(reply(body, status))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    prompt = [1] if "generate" in method else "Hello"

    def ask() -> object:
        return (
            runner.open(llm, method, prompt).until_done()
            if "stream" in method
            else runner.do(llm, method, prompt)
        )

    with pytest.raises((PermissionDeniedError, NotFoundError), match="--enable-scale-out") as caught:
        ask()
    assert caught.value.status_code == status
