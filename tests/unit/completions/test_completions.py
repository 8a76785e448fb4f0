"""Completions: requests, validation, responses and streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import recordings
from support.null_or_absent import null_and_absent
from support.scripted import ScriptedServer, body, close, head, reply, sse, stream
from vllmchat import (
    BadRequestError,
    InvalidRequestError,
    OpenAIProvider,
    ResponseError,
    StreamInterruptedError,
    TextCompletion,
    VLLMProvider,
)
from vllmchat.checking.rules import fields_of
from vllmchat.completions import check
from vllmchat.completions.completion import decode_chunk, decode_completion
from vllmchat.completions.params import CompletionParams, VLLMCompletionParams
from vllmchat.completions.prompt import encode_prompt
from vllmchat.completions.request import choices_wanted, complete_request
from vllmchat.completions.stream import text_reader
from vllmchat.http.call import ResponseHead
from vllmchat.http.sse import ServerSentEvent
from vllmchat.http.timeout import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from support.runners import Runner
    from vllmchat.client.request import ModelRequest
    from vllmchat.completions.completion import TextCompletionChunk
    from vllmchat.http.reader import ChunkReader

Object = dict[str, Any]

NOTHING: list[int] = []

RECORDED = Path(__file__).parents[2] / "recorded"
SERVER: dict[str, Any] = json.loads((RECORDED / "vllm-0.32.0-fields.json").read_text("utf-8"))["requests"]

WHOLE = ["completion", "completion_echo_prompt_logprobs", "completion_token_ids_prompt"]


def text(*pieces: str, index: int = 0, finish: str | None = None, **fields: Any) -> list[Object]:
    """The chunks of one choice."""
    said = [{"index": index, "text": piece, "finish_reason": None} for piece in pieces]
    if finish:
        said.append({"index": index, "text": "", "finish_reason": finish})
    made: Object = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", **fields}
    return [{**made, "choices": [choice]} for choice in said]


def whole(*texts: str, **fields: Any) -> Object:
    choices = [{"index": i, "text": each, "finish_reason": "stop"} for i, each in enumerate(texts)]
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": choices,
        **fields,
    }


def reader(prompt: Any = "Hello", **params: Any) -> ChunkReader[TextCompletionChunk, TextCompletion]:
    return text_reader(complete_request(prompt, params, check.check_vllm, stream=True))


def read(target: ChunkReader[TextCompletionChunk, TextCompletion], *chunks: Object) -> TextCompletion:
    for chunk in chunks:
        item = target.read_event(ServerSentEvent(json.dumps(chunk).encode()))
        assert item is not None
        target.accept(item)
    return target.reply()


def refused(**params: Any) -> list[str]:
    streamed = params.pop("streamed", False)
    with pytest.raises(InvalidRequestError) as caught:
        check.check_vllm(params, stream=streamed)
    return [str(problem) for problem in caught.value.problems]


# Parameters


def test_parameters_are_the_servers_fields() -> None:
    ours = set(fields_of(VLLMCompletionParams)) - {
        "data_parallel_rank",
        "extra_body",
        "extra_headers",
        "max_retry_seconds",
        "timeout",
    }
    newer = {"return_weight_versions"}
    assert ours - newer == set(SERVER["CompletionRequest"]) - {"model", "prompt", "stream"}


def test_openai_parameters_are_the_apis_fields() -> None:
    assert set(fields_of(CompletionParams)) == {
        "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "seed",
        "stop", "stream_options", "suffix", "temperature", "top_p", "user",
        "extra_body", "extra_headers", "max_retry_seconds", "timeout",
    }  # fmt: skip


@pytest.mark.parametrize("typed_dict", [CompletionParams, VLLMCompletionParams])
def test_every_parameter_is_nullable(typed_dict: type) -> None:
    assert [
        name for name, field in fields_of(typed_dict).items() if not field.nullable or field.required
    ] == []


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 0, "echo": True},
        {"max_tokens": 5, "min_tokens": 5},
        {"logprobs": 0, "logprob_token_ids": [1]},
        {"logprob_token_ids": []},
        {"echo": False, "suffix": "x"},
        {"echo": True, "use_beam_search": True},
        {"streamed": True, "prompt_logprobs": 0, "use_beam_search": False},
        {"streamed": True, "stream_options": {"include_usage": True}},
        {"stream_options": {}},
        {"n": 2, "temperature": 0, "use_beam_search": True},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"prompt_embeds": "AAAA"},
        {"prompt_embeds": ["AAAA", "BBBB"]},
    ],
)
def test_valid_parameters(params: Object) -> None:
    check.check_vllm(params, stream=params.pop("streamed", False))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"max_tokens": 0}, "max_tokens=0: must be at least 1, unless echo=True"),
        ({"max_tokens": -1}, "max_tokens=-1: must be at least 0."),
        ({"min_tokens": 17}, "must be at most max_tokens=16. Set `max_tokens` too"),
        ({"min_tokens": 3, "max_tokens": 2}, "min_tokens=3: must be at most max_tokens=2."),
        ({"suffix": "x", "echo": True}, "suffix='x': cannot be combined with echo=True."),
        ({"suffix": "x", "truncate_prompt_tokens": 1}, "cannot be combined with `truncate_prompt_tokens`."),
        ({"echo": True, "prompt_embeds": "AAAA"}, "echo=True: cannot be combined with `prompt_embeds`"),
        (
            {"echo": True, "logprobs": 1, "use_beam_search": True},
            "cannot be combined with `logprobs` in beam search",
        ),
        (
            {"use_beam_search": True, "streamed": True},
            "use_beam_search=True: is not supported when streaming",
        ),
        (
            {"streamed": True, "stream_options": {"include_usage": False, "continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats=True: has no effect with include_usage=False.",
        ),
        (
            {"use_beam_search": True, "stop": ["a"]},
            "stop=['a']: cannot be combined with use_beam_search=True",
        ),
        (
            {"use_beam_search": True, "structured_outputs": {"regex": "a"}},
            "cannot be combined with use_beam_search=True: beam search silently ignores it",
        ),
        (
            {"prompt_logprobs": 1, "streamed": True},
            "is not supported when streaming. Call .complete(...) or .acomplete(...).",
        ),
        ({"prompt_logprobs": 1, "prompt_embeds": "AAAA"}, "cannot be combined with `prompt_embeds`."),
        ({"logprob_token_ids": [1]}, "needs `logprobs`. Add logprobs=0."),
        (
            {"logprob_token_ids": [1], "logprobs": 0, "use_beam_search": True},
            "cannot be combined with use_beam_search=True.",
        ),
        (
            {"logprob_token_ids": [1], "logprobs": 0, "echo": True, "max_tokens": 0},
            "cannot be combined with max_tokens=0",
        ),
        ({"logprobs": True}, "Write logprobs=0 for the generated tokens only"),
        ({"logprobs": -2}, "logprobs=-2: must be at least -1."),
        ({"stream_options": {"include_usage": True}}, "requires streaming. Call .stream_complete(...)"),
        (
            {"stream_options": {"include_obfuscation": True}, "streamed": True},
            "an option of OpenAI's own server",
        ),
        ({"n": 2, "temperature": 0}, "n=2: must be 1 with temperature=0"),
        ({"cache_salt": "a/b"}, "cache_salt: must not contain any of"),
        ({"prompt_embeds": []}, "prompt_embeds=[]: must not be empty."),
        # names
        (
            {"stream": True},
            "is not a parameter: the method decides whether to stream. Call .stream_complete(...)",
        ),
        ({"messages": []}, "Write complete(prompt, ...), or call .chat(messages, ...)."),
        ({"max_completion_tokens": 5}, "Write `max_tokens=5`."),
        ({"top_logprobs": 5}, "Write `logprobs=5`."),
        ({"tools": []}, "is a parameter of chats: completions do not use messages or a chat template."),
        ({"enable_thinking": False}, "Call .chat(...), or leave it out."),
        ({"guided_json": {}}, 'Write structured_outputs={"json": {}}.'),
        ({"temprature": 0}, "Did you mean `temperature`?"),
    ],
)
def test_invalid_parameters(params: Object, said: str) -> None:
    (problem,) = refused(**params)
    assert said in problem


def test_an_invalid_value_triggers_no_rule() -> None:
    assert len(refused(max_tokens=0, echo="yes")) == 1
    assert len(refused(min_tokens=20, max_tokens="x")) == 1
    assert len(refused(logprob_token_ids=[1], logprobs="x")) == 1


def test_rules_of_openai() -> None:
    check.check_openai({"best_of": 3, "n": 2, "logit_bias": {5: 1}}, stream=False)
    for params, said in (
        ({"best_of": 1, "n": 2}, "must be at least n=2."),
        ({"top_k": 5}, "is a parameter of vLLM"),
        ({"tools": NOTHING}, "is a parameter of chats"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            check.check_openai(params, stream=False)
    with pytest.raises(InvalidRequestError, match="best_of=2: is not supported when streaming"):
        check.check_openai({"best_of": 2}, stream=True)


def test_bias_keys_become_strings() -> None:
    assert check.check_vllm({"logit_bias": {5: 1.0, "6": 2}}, stream=False).fields == {
        "logit_bias": {"5": 1.0, "6": 2}
    }


# Prompts


@pytest.mark.parametrize("prompt", ["Hello", ["a", "b"], [1, 2, 0], [[1], [2, 3]], (1, 2), range(3), [""]])
def test_prompts_are_sent_unchanged(prompt: Any) -> None:
    assert encode_prompt(prompt) is prompt


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "prompt='': must not be empty."),
        ([], "prompt=[]: must not be empty."),
        ([NOTHING], "prompt[0]=[]: must not be empty."),
        ([1, -1], "prompt[1]=-1: must be between 0 and 2**63 - 1."),
        ([1, True], "prompt[1]=True: must be an integer, not a bool."),
        ([1, "a"], "prompt[1]='a': must be an integer"),
        (["a", 1], "prompt[1]=1: must be a string, like the first prompt, not an int."),
        ([[1], "a"], "prompt[1]='a': must be a list of token ids, like the first prompt"),
        ([[1], [2, "b"]], "prompt[1][1]='b': must be an integer"),
        (5, "prompt: must be a string, a list of token ids, or a list of prompts, not an int."),
        (b"Hello", "not a bytes."),
    ],
)
def test_invalid_prompts(prompt: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode_prompt(prompt)
    assert said in str(caught.value)


def test_an_array_gets_a_hint() -> None:
    class Array:
        def tolist(self) -> list[int]:
            raise AssertionError

        def item(self) -> int:
            raise AssertionError

    with pytest.raises(InvalidRequestError, match=r"Call \.tolist\(\) on it\."):
        encode_prompt(Array())  # type: ignore[arg-type] # that is the point


def test_only_a_few_invalid_tokens_are_reported() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode_prompt([-1] * 1000)
    assert len(caught.value.problems) == 5


def request(prompt: Any, params: Object) -> ModelRequest[TextCompletion]:
    return complete_request(prompt, params, check.check_vllm, stream=False)


def test_a_prompt_is_required_unless_there_are_embeddings() -> None:
    with pytest.raises(InvalidRequestError, match="prompt=None: is required"):
        request(None, {})
    assert request(None, {"prompt_embeds": "AAAA"}).subject == {}
    assert request(None, {"extra_body": {"prompt_embeds": "AAAA"}}).subject == {}


def test_a_suffix_needs_a_text_prompt() -> None:
    request(["a", "b"], {"suffix": "end"})
    with pytest.raises(InvalidRequestError, match="needs a text prompt"):
        request([1, 2], {"suffix": "end"})


@pytest.mark.parametrize(
    ("prompt", "params", "count"),
    [
        ("a", {}, 1),
        ("a", {"n": 3}, 3),
        ([1, 2, 3], {}, 1),
        (["a", "b"], {"n": 2}, 4),
        ([[1], [2], [3]], {}, 3),
        (None, {"prompt_embeds": ["AAAA", "BBBB"]}, 2),
        ("a", {"prompt_embeds": "AAAA"}, 2),
        (None, {"extra_body": {"prompt_embeds": "AAAA"}}, 1),
    ],
)
def test_number_of_expected_choices(prompt: Any, params: Object, count: int) -> None:
    made = request(prompt, params)
    assert choices_wanted(made.subject, made.params) == count


# Whole completions


@pytest.mark.parametrize("name", WHOLE)
def test_recorded_responses_have_no_unknown_fields(name: str) -> None:
    recorded = recordings.load(name)
    completion = decode_completion(recorded.body, head=ResponseHead(200, {}, "r"))
    sent = json.loads(recorded.body)
    for choice in sent["choices"]:
        choice["weight_versions"] = None  # since 0.33
    assert completion.model_dump(mode="json") == sent
    assert completion.text == sent["choices"][0]["text"]
    assert completion.texts == [completion.text]
    assert completion.finish_reason == "length"
    assert completion.request_id == "r"


def test_null_and_absent_are_the_same() -> None:
    sent = json.loads(recordings.load("completion").body)
    for null, absent in null_and_absent(sent):
        if "choices" not in absent or null["choices"] is None:
            continue
        try:
            read_null = decode_completion(json.dumps(null).encode())
        except ResponseError:
            continue  # an item of a list, not a field of a model
        assert read_null.text == decode_completion(json.dumps(absent).encode()).text


def test_log_probabilities_and_tokens() -> None:
    choice = decode_completion(recordings.load("completion").body).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.tokens[:2] == ["!", "Hello"]
    assert len(choice.logprobs.token_logprobs) == len(choice.logprobs.text_offset) == 8
    echoed = decode_completion(recordings.load("completion_echo_prompt_logprobs").body).choices[0]
    assert echoed.text == "Hello!"
    assert echoed.logprobs is not None
    assert echoed.logprobs.token_logprobs[0] is None
    tokens = decode_completion(recordings.load("completion_token_ids_prompt").body).choices[0]
    assert (tokens.prompt_token_ids, tokens.token_ids) == ([300, 301, 302], [14, 615, 3, 14])


@pytest.mark.parametrize("data", [b"[]", b"null", b"{}", b"<html>", b'{"choices": 5}', b'{"object": "list"}'])
def test_invalid_responses(data: bytes) -> None:
    with pytest.raises(ResponseError):
        decode_completion(data)
    with pytest.raises(ResponseError):
        decode_chunk(data)


def test_a_completion_without_choices_has_no_text() -> None:
    empty = decode_completion(b'{"choices": []}')
    assert (empty.text, empty.texts, empty.finish_reason, empty.request_id) == ("", [], None, None)


# Streams


def test_a_recorded_stream_adds_up_to_the_completion() -> None:
    recorded = recordings.load("completion_stream")
    target = reader(recorded.request["prompt"])
    for data in recorded.data:
        item = target.read_event(ServerSentEvent(data))
        if item is not None:
            target.accept(item)
    completion = target.reply()
    assert target.done
    assert target.is_complete()
    assert len(completion.choices) == 2
    assert completion.texts[0].startswith("!Hello?!!")
    assert [choice.finish_reason for choice in completion.choices] == ["length", "length"]
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 12)
    assert completion.model == "tiny-qwen3"
    assert completion.id.startswith("cmpl-")


def test_log_probabilities_token_ids_and_unknown_fields_add_up() -> None:
    pieces = text("a", "b", fresh="x")
    for number, chunk in enumerate(pieces):
        choice = chunk["choices"][0]
        choice["logprobs"] = {
            "tokens": [choice["text"]],
            "token_logprobs": [-0.5],
            "top_logprobs": [None],
            "text_offset": [number],
        }
        choice["token_ids"] = [number]
        choice["mine"] = number
    pieces[0]["choices"][0]["prompt_token_ids"] = [7, 8]
    completion = read(reader(), *pieces, *text(finish="stop", system_fingerprint="fp"))
    choice = completion.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.model_dump() == {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [None, None],
        "text_offset": [0, 1],
    }
    assert (choice.token_ids, choice.prompt_token_ids, choice.model_extra) == ([0, 1], [7, 8], {"mine": 1})
    assert completion.system_fingerprint == "fp"
    assert completion.model_extra == {"fresh": "x"}


def test_later_chunks_do_not_change_a_snapshot() -> None:
    target = reader()
    before = read(target, *text("a"))
    kept = before.model_copy(deep=True)
    read(target, *text("b", finish="stop"))
    assert before == kept
    assert (before.text, target.reply().text) == ("a", "ab")
    assert before.finish_reason is None


def test_the_usage_is_summed_if_the_total_is_missing() -> None:
    def used(prompt: int, completion: int) -> Object:
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    target = reader(["a", "b"], n=2)
    completion = read(
        target,
        *text("x", index=0, usage=used(5, 1)),
        *text("x", index=1, usage=used(5, 2)),
        *text("x", index=2, usage=used(7, 3)),
        *text("x", index=0, usage=used(5, 4)),
    )
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (12, 9)
    total: Object = {**text("")[0], "choices": [], "usage": used(12, 11)}
    assert (read(target, total).usage or completion.usage).completion_tokens == 11


def test_a_stream_is_complete_when_every_choice_has_finished() -> None:
    target = reader(["a", "b"])
    assert target.reply().usage is None
    read(target, *text("x", finish="stop"))
    assert not target.is_complete()
    read(target, *text("x", index=1, finish="length"))
    assert target.is_complete()
    read(target, *text("x", index=2))
    assert not target.is_complete()


# The methods, sync and async


def ask(
    runner: Runner, server: ScriptedServer, *args: Any, openai: bool = False, **params: Any
) -> TextCompletion:
    provider = OpenAIProvider if openai else VLLMProvider
    found: TextCompletion = runner.do(provider("m", base_url=server.base_url), "complete", *args, **params)
    return found


@pytest.mark.parametrize("openai", [False, True])
def test_complete(runner: Runner, scripted: ScriptedServer, openai: bool) -> None:
    scripted.add(reply(whole("one", "two")))
    completion = ask(runner, scripted, ["a", "b"], openai=openai, max_tokens=5, temperature=None)
    assert completion.texts == ["one", "two"]
    assert completion.request_id
    assert scripted.requests[0].path == "/v1/completions"
    assert scripted.requests[0].json() == {"model": "m", "prompt": ["a", "b"], "max_tokens": 5}


def test_complete_accepts_only_embeddings(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.version = "0.33.0"
    scripted.add(reply(whole("one")))
    assert ask(runner, scripted, prompt_embeds="AAAA").text == "one"
    assert scripted.requests[0].json() == {"model": "m", "prompt_embeds": "AAAA"}


@pytest.mark.parametrize("openai", [False, True])
def test_a_stream(runner: Runner, scripted: ScriptedServer, openai: bool) -> None:
    scripted.add(stream(text("a", "b", finish="stop")))
    provider = OpenAIProvider if openai else VLLMProvider
    got = runner.open(provider("m", base_url=scripted.base_url), "stream_complete", "Hello")
    assert not scripted.requests
    with got:
        assert got.texts() == ["a", "b"]
    assert got.completion.text == "ab"
    assert got.inner.request_id == got.completion.request_id
    asked: Object = scripted.requests[0].json()
    assert asked["stream"] is True
    assert asked.get("stream_options") == (None if openai else {"include_usage": True})


def test_an_interrupted_stream_keeps_the_partial_completion(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.add(stream(text("a", "b"), done=False))
    got = runner.open(VLLMProvider("m", base_url=scripted.base_url), "stream_complete", "Hello")
    with pytest.raises(StreamInterruptedError) as caught:
        got.until_done()
    assert isinstance(caught.value.partial, TextCompletion)
    assert caught.value.partial.text == "ab"


def test_an_error_inside_the_stream_is_raised(runner: Runner, scripted: ScriptedServer) -> None:
    error = {"error": {"message": "bad grammar", "type": "BadRequestError", "param": None, "code": 400}}
    scripted.script(
        head(headers={"content-type": "text/event-stream"}), body(sse(text("a")[0]) + sse(error)), close
    )
    got = runner.open(VLLMProvider("m", base_url=scripted.base_url), "stream_complete", "Hello")
    with pytest.raises(BadRequestError, match="bad grammar") as caught:
        got.until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


def test_invalid_parameters_raise_before_anything_is_sent() -> None:
    for provider in (VLLMProvider("m"), OpenAIProvider("m")):
        with pytest.raises(InvalidRequestError):
            provider.complete("Hello", max_tokens=-1)
        with pytest.raises(InvalidRequestError):
            provider.stream_complete("Hello", max_tokens=-1)
        with pytest.raises(InvalidRequestError):
            provider.astream_complete("", max_tokens=1)


def test_timeouts_of_a_call_apply() -> None:
    assert request("a", {"timeout": 3.0}).call("m", DEFAULT_TIMEOUT).timeout.total == 3.0


def test_a_stop_does_not_replace_a_truncation() -> None:
    assert read(reader(), *text("a", finish="length"), *text("", finish="stop")).finish_reason == "length"


def test_the_finish_reason_null_does_not_count(runner: Runner, scripted: ScriptedServer) -> None:
    target = reader()
    read(target, *text("a", finish="null"))
    assert not target.is_complete()
    assert read(target, *text("b", finish="stop")).finish_reason == "stop"
    scripted.reply({"choices": [{"text": "a", "finish_reason": "null"}]})
    with pytest.raises(ResponseError, match="no finish reason"):
        runner.do(VLLMProvider("m", base_url=scripted.base_url), "complete", "Hello")


def test_the_usage_by_itself() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    completion = read(reader(), *text("a", finish="stop"), {"usage": usage})
    assert completion.usage is not None
    assert completion.usage.total_tokens == 3
