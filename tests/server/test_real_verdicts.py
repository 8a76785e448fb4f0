"""Our check and the real server agree on what a request may hold: at every border, and where not, for a reason.

`extra_body` takes anything to the server unchecked; the check judges the same values as parameters.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat import BadRequestError, InvalidRequestError
from vllmchat.chat.check import check_vllm

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.vllm import LiveServer
    from vllmchat import VLLMProvider

Params = dict[str, Any]

INT64 = 2**63
EMPTY: Params = {}
TOOLS = [{"type": "function", "function": {"name": "get_weather"}}]


def named(name: str) -> Params:
    return {"type": "function", "function": {"name": name}}


def each(name: str, *values: object, **others: object) -> list[Params]:
    return [{name: value, **others} for value in values]


def schema(json_schema: Params) -> Params:
    return {"type": "json_schema", "json_schema": json_schema}


def tool(**function: object) -> list[Params]:
    return [{"type": "function", "function": function}]


ALIKE: list[Params] = [
    # numbers, on both sides of each bound
    *each("frequency_penalty", -2, 2, -2.0001, 2.0001, 0),
    *each("presence_penalty", -2, 2, -2.0001, 2.0001, 0),
    *each("temperature", 0, 2, 2.0001, -0.0001, 1e-6),
    *each("top_p", 0, 1e-9, 1, 1.0001, -1),
    *each("top_k", -2, -1, 0, 1, 2**31),
    *each("min_p", 0, 1, -0.1, 1.1),
    *each("repetition_penalty", 0, 1e-9, -1, 1e300),
    *each("length_penalty", -5, 0),
    *each("max_tokens", 0, 1, -1, 2048),
    *each("max_completion_tokens", 0, 1, -1),
    *each("min_tokens", -1, 0, 2, 3, max_tokens=2),
    {"min_tokens": 3, "max_tokens": 9, "max_completion_tokens": 2},
    {"min_tokens": 3, "max_tokens": 2, "max_completion_tokens": 9},
    *each("n", 0, 1, -1),
    *each("n", 1, 2, temperature=0),
    *each("n", 2, temperature=1e-6),
    *each("n", 2, temperature=0, use_beam_search=True),
    *each("seed", -INT64, INT64 - 1, -INT64 - 1, INT64, -1),
    *each("priority", -INT64, INT64 - 1, -INT64 - 1, INT64),
    *each("thinking_token_budget", -2, -1, 0, 1),
    *each("truncate_prompt_tokens", -2, -1, 1, 2048, INT64),
    *each("stream_interval", 0, 1, -1),
    *each("routed_experts_prompt_start", -1, 0, 1),
    # log probabilities
    *each("top_logprobs", -2, 0, 20, logprobs=True),
    *each("top_logprobs", 0, 1, -1),
    *each("top_logprobs", 0, 1, logprobs=False),
    *each("prompt_logprobs", -2, 0, 1, 20),
    *each("logprob_token_ids", [1], [], list(range(128)), list(range(129)), [-1], logprobs=True),
    *each("logprob_token_ids", [1]),
    {"logprob_token_ids": [1], "logprobs": True, "use_beam_search": True},
    # lists, texts, words
    *each("stop", "", "a", [], [""], ["a", "b", "c", "d"]),
    *each("stop_token_ids", [], [-1], [0]),
    *each("allowed_token_ids", [], [-1], [0]),
    *each("bad_words", [], [""], ["x"]),
    *each("logit_bias", {}, {"1": 1}, {"1": 1000}, {"x": 1}, {"-1": 1}, {"1.5": 1}),
    *each("cache_salt", "", "a", "a" * 128, "a" * 129, "a@b", "a/b", "a\\b", "a\0b", "é", " "),
    *each("truncation_side", "left", "middle"),
    *each("reasoning_effort", "none", "minimal", "low", "medium", "high", "xhigh", "max", "extreme", ""),
    *each("mm_payload", "none", "x"),
    *each("user", ""),
    *each("request_id", "", "é"),
    *each("session_id", "", "x" * 1000),
    *each("documents", [], [EMPTY], [{"a": "b"}], [{"a": 1}]),
    *each("vllm_xargs", {}, {"a": 2**64 - 1}, {"a": 2**64}, {"a": -INT64}, {"a": -INT64 - 1}, {"a": 1.5}),
    *each("vllm_xargs", {"a": {}}, {"a": []}, {"a": [[1]]}, {"a": None}, {"a": [2**64]}),
    *each("kv_transfer_params", {}),
    *each("media_io_kwargs", {}),
    *each("mm_processor_kwargs", {}),
    # one that needs another
    *each(
        "repetition_detection", {}, {"max_pattern_size": 0}, {"max_pattern_size": 3}, {"min_pattern_size": 1}
    ),
    *each("repetition_detection", {"max_pattern_size": 3, "min_count": 1}, {"max_pattern_size": -1}),
    *each("repetition_detection", {"max_pattern_size": 3, "min_count": 2, "min_pattern_size": 3}),
    *each("repetition_detection", {"max_pattern_size": 3, "min_count": 2, "min_pattern_size": 4}),
    *each("continue_final_message", True, add_generation_prompt=True),
    *each("continue_final_message", False, add_generation_prompt=True),
    *each("chat_template_kwargs", {}, {"unknown": 1}, {"chat_template": "x"}),
    *each("stream_options", {"include_usage": True}),
    # constraints
    *each("structured_outputs", {}, {"choice": []}, {"choice": ["a"]}, {"choice": ["a"], "regex": "a"}),
    *each("structured_outputs", {"json": "{}"}, {"json": {}}, {"json": ""}, {"json": " "}),
    *each("structured_outputs", {"grammar": ""}, {"grammar": " "}, {"grammar": 'root ::= "a"'}),
    *each("structured_outputs", {"grammar": 'start: "a"'}, {"regex": "a\0"}, {"json_object": True}),
    *each("structured_outputs", {"json_object": False}, {"structural_tag": ""}, {"whitespace_pattern": "x"}),
    *each("structured_outputs", {"disable_any_whitespace": True}, {"choice": ["a"], "json": None}),
    *each("structured_outputs", {"json": {}, "disable_any_whitespace": True}, {"regex": 1}, {"choice": [1]}),
    *each("response_format", {"type": "text"}, {"type": "json_object"}, {"type": "json_schema"}, {}),
    *each("response_format", schema({}), schema({"name": "a"}), schema({"name": "a", "schema": {}})),
    *each("response_format", schema({"name": "a", "schema": None}), schema({"name": "a b!", "schema": {}})),
    *each("response_format", {"type": "regex"}, {"type": "structural_tag"}, "json_object"),
    *each("response_format", {"type": "structural_tag", "format": {"type": "any_text"}}),
    *each("structured_outputs", {"choice": ["a"]}, response_format={"type": "text"}),
    *each("structured_outputs", {"choice": ["a"]}, response_format={"type": "json_object"}),
    *each("structured_outputs", {"choice": ["a"]}, tools=TOOLS, tool_choice=named("get_weather")),
    *each("structured_outputs", {"choice": ["a"]}, tools=TOOLS),
    *each("structured_outputs", {"choice": ["a"]}, tools=TOOLS, tool_choice="none"),
    # tools
    *each(
        "tools", [], TOOLS, {}, [EMPTY], [{"type": "function"}], tool(), [{"type": "tool", "function": EMPTY}]
    ),
    *each("tools", tool(name="a", parameters=None), tool(name="a", description=None), tool(name="a b")),
    *each("tools", tool(name="a", parameters="x"), tool(name="a", strict=True)),
    *each("tool_choice", "auto", "none", "required", named("get_weather")),
    *each("tool_choice", "auto", "none", "required", "get_weather", tools=TOOLS),
    *each("tool_choice", named("get_weather"), named("other"), named(""), {}, tools=TOOLS),
    *each("tool_choice", {"type": "function"}, {"type": "tool", "function": {"name": "x"}}, tools=TOOLS),
    # types that nothing makes right
    *each("top_k", 5.5, "x"),
    *each("ignore_eos", "maybe", 2),
    *each("logprobs", 2),
    *each("stop", 5, [5]),
    *each("bad_words", "x"),
    *each("stop_token_ids", "x"),
    *each("cache_salt", 5),
    *each("user", 5),
    *each("thinking_token_budget", True, 1.0),
    *each("chat_template_kwargs", []),
    *each("logit_bias", [], {"1": "x"}),
    *each("documents", {}, "x"),
]
"""What both take, or both refuse."""

COERCED = "the server makes another type of it, and what it makes is seldom what was meant"
SILENT = "the server ignores it silently"
SENSELESS = "the server takes it, and it can only be a mistake"
NOTATION = "one way to write a token id is enough"

STRICTER: list[tuple[str, Params]] = [
    *((COERCED, params) for params in each("temperature", "0.5", True)),
    *((COERCED, params) for params in each("top_k", "5", 5.0, True)),
    *((COERCED, params) for params in each("max_tokens", "5", True)),
    *((COERCED, params) for params in each("ignore_eos", "yes", 1)),
    *((COERCED, params) for params in each("logprobs", 1)),
    *((COERCED, params) for params in each("seed", 1.0)),
    *((COERCED, params) for params in each("stop_token_ids", ["1"], [1.0])),
    *((COERCED, params) for params in each("n", "1")),
    *((COERCED, params) for params in each("logit_bias", {"1": "2"})),
    *((COERCED, params) for params in each("vllm_xargs", {"a": True})),
    *((SILENT, params) for params in each("guided_json", {"type": "object"})),
    *((SILENT, params) for params in each("best_of", 2)),
    *((SILENT, params) for params in each("temprature", 0.5)),
    *((SILENT, params) for params in each("thinking", True)),
    *((SILENT, params) for params in each("reasoning_content", "x")),
    *((SILENT, params) for params in each("structured_outputs", {"choice": ["a"], "chioce": ["b"]})),
    *((SILENT, params) for params in each("repetition_detection", {"max_size": 3})),
    (SILENT, {"structured_outputs": {"regex": "[0-9]{5}"}, "tools": TOOLS, "tool_choice": "required"}),
    *(
        (SILENT, {**params, "tools": TOOLS, "tool_choice": choice})
        for params in each("response_format", {"type": "json_object"}, schema({"name": "a", "schema": {}}))
        for choice in ("required", named("get_weather"))
    ),
    *(
        (SILENT, {**params, "use_beam_search": True})
        for params in (
            *each("structured_outputs", {"regex": "[0-9]{5}"}),
            *each("response_format", {"type": "json_object"}),
            *each("stop", "a", ["a"]),
            *each("stop_token_ids", [1]),
            *each("bad_words", ["a"]),
            *each("logit_bias", {"1": 5}),
            *each("min_tokens", 1),
            *each("repetition_detection", {"max_pattern_size": 3, "min_count": 2}),
        )
    ),
    *((SENSELESS, params) for params in each("max_tokens", 0, max_completion_tokens=1)),
    *((SENSELESS, params) for params in each("repetition_detection", {"min_count": -1})),
    *((SENSELESS, params) for params in each("tools", tool(name=""), [{"function": {"name": "a"}}])),
    *((SENSELESS, params) for params in each("response_format", schema({"name": "", "schema": {}}))),
    *((NOTATION, params) for params in each("logit_bias", {" 1": 1}, {"1_0": 1}, {"+1": 1}, {"\u0661": 1})),
]
"""What only we refuse, and why."""

VOCABULARY = "only the server knows its vocabulary"
CONTEXT = "only the server knows its context"
SETTING = "it depends on how the server was started"
VERSION = "older servers take it"
COMPILED = "only the server compiles constraints"

SERVER_ONLY: list[tuple[str, Params]] = [
    *((VOCABULARY, params) for params in each("allowed_token_ids", [10**6])),
    *((VOCABULARY, params) for params in each("stop_token_ids", [10**6])),
    *((VOCABULARY, params) for params in each("logit_bias", {"1000000": 1})),
    *((VOCABULARY, params) for params in each("bad_words", [" "])),
    *((CONTEXT, params) for params in each("max_tokens", 2049)),
    *((CONTEXT, params) for params in each("truncate_prompt_tokens", 2049)),
    *((CONTEXT, params) for params in each("routed_experts_prompt_start", 5000)),
    *((SETTING, params) for params in each("top_logprobs", 21, -1, logprobs=True)),
    *((SETTING, params) for params in each("prompt_logprobs", 21, -1)),
    *((SETTING, params) for params in each("chat_template", "x")),
    *((SETTING, params) for params in each("media_io_kwargs", {"video": {}})),
    *((SETTING, params) for params in each("mm_processor_kwargs", {"num_crops": 4})),
    *((VERSION, params) for params in each("stop", ["a", "b", "c", "d", "e"])),
    *((COMPILED, params) for params in each("structured_outputs", {"json": "{"}, {"json": {"type": "x"}})),
    *((COMPILED, params) for params in each("structured_outputs", {"grammar": "x"}, {"regex": "["})),
    *((COMPILED, params) for params in each("structured_outputs", {"structural_tag": "{}"})),
    *((COMPILED, params) for params in each("response_format", {"type": "structural_tag", "format": {}})),
]
"""What only the server refuses, and why."""

OTHERWISE: list[Params] = [
    {"max_tokens": 2048},
    {"truncate_prompt_tokens": 2048},
    {"mm_payload": "x"},
    {"media_io_kwargs": {"video": {}}},
    {"mm_processor_kwargs": {"num_crops": 4}},
]
"""What vLLM before 0.32 judges the other way."""

pytestmark = pytest.mark.since("0.30", "an engine that survives every wrong request")


def we_take(params: Params) -> bool:
    try:
        check_vllm(params, stream=False)
    except InvalidRequestError:
        return False
    return True


def server_takes(llm: VLLMProvider, params: Params) -> bool:
    body = {**params} if "max_completion_tokens" in params else {"max_tokens": 1, **params}
    try:
        llm.chat("Hello", extra_body=body)
    except BadRequestError:
        return False
    return True


def judge_all(llm: VLLMProvider, requests: list[Params]) -> list[tuple[Params, bool, bool]]:
    """Each request with our verdict and the server's."""
    judge: Callable[[Params], bool] = partial(server_takes, llm)
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(judge, requests))
    return [(params, we_take(params), verdict) for params, verdict in zip(requests, verdicts, strict=True)]


def otherwise(server: LiveServer, requests: list[Params]) -> list[Params]:
    """Those of the requests that this server judges the other way."""
    return [] if server.since("0.32") else [params for params in requests if params in OTHERWISE]


def test_we_take_what_the_server_takes_and_refuse_what_it_refuses(
    llm: VLLMProvider, vllm_server: LiveServer
) -> None:
    judged = judge_all(llm, ALIKE)
    assert [params for params, ours, theirs in judged if ours is not theirs] == otherwise(vllm_server, ALIKE)
    # Both verdicts are there in plenty: neither judge says the same to everything.
    assert 80 < sum(ours for _, ours, _ in judged) < len(judged) - 80


def test_where_we_are_stricter_there_is_a_reason(llm: VLLMProvider) -> None:
    judged = judge_all(llm, [params for _, params in STRICTER])
    assert [params for params, ours, theirs in judged if ours or not theirs] == []


def test_what_only_the_server_can_know_is_left_to_it(llm: VLLMProvider, vllm_server: LiveServer) -> None:
    requests = [params for _, params in SERVER_ONLY]
    judged = judge_all(llm, requests)
    assert [params for params, ours, theirs in judged if theirs or not ours] == otherwise(
        vllm_server, requests
    )


def test_what_is_not_for_streams_the_server_refuses_too(llm: VLLMProvider) -> None:
    for value, taken in ((0, True), (1, False), (-1, False)):
        params: Params = {"prompt_logprobs": value}
        try:
            check_vllm(params, stream=True)
            ours = True
        except InvalidRequestError:
            ours = False
        try:
            llm.stream("Hello", max_tokens=1, extra_body=params).until_done()
            theirs = True
        except BadRequestError:
            theirs = False
        assert (ours, theirs) == (taken, taken), value
