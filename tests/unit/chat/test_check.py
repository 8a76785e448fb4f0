"""Validation of chat parameters: compared with the server's verdicts, and the error messages."""

from __future__ import annotations

import ast
import enum
import json
import re
import subprocess
import sys
from collections import UserDict, UserList, deque
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, strategies as st

from vllmchat.chat import check as check_module
from vllmchat.chat.check import (
    OPENAI_CHAT,
    OPENAI_CHAT_NAMES,
    VLLM_CHAT_NAMES,
    CheckedParams,
    check_vllm,
    suggest,
)
from vllmchat.checking.describe import format_value
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[..., CheckedParams]

check_openai: Check = OPENAI_CHAT.check

RECORDED = Path(__file__).parents[2] / "recorded"
TOOLS: list[Any] = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "get_time")]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def problems(
    params: Mapping[str, object], check: Check = check_vllm, *, stream: bool = False
) -> list[Problem]:
    """Returns the problems of a request; empty for a valid one."""
    try:
        check(params, stream=stream)
    except InvalidRequestError as error:
        return list(error.problems)
    return []


def problem(params: Mapping[str, object], check: Check = check_vllm, *, stream: bool = False) -> Problem:
    """Returns the only problem of a request."""
    found = problems(params, check, stream=stream)
    assert len(found) == 1, found
    return found[0]


def fields(
    params: Mapping[str, object], check: Check = check_vllm, *, stream: bool = False
) -> dict[str, object]:
    return check(params, stream=stream).fields


# Comparison with the server's verdicts

VERDICTS: dict[str, Any] = json.loads((RECORDED / "vllm-0.32.0-verdicts.json").read_text("utf-8"))

COERCED = re.compile(r"must be .*, not an? \w+\.")
"""The server converts `"5"` to 5 and `True` to 1; we do not."""

ONLY_THE_SERVER_KNOWS = {
    "n": "how many its settings allow",
    "stop": "how many its settings allow",
    "min_tokens": "the model's context",
    "prompt_logprobs": "the model's vocabulary",
    "stop_token_ids": "the model's vocabulary",
    "allowed_token_ids": "the model's vocabulary",
    "kv_transfer_params": "what its connector takes",
    "ec_transfer_params": "what its connector takes",
}
"""Parameters for which the server rejects more than we do, and why that is left to it."""


@pytest.mark.parametrize("name", VERDICTS["alone"])
def test_single_parameters_get_the_servers_verdict(name: str) -> None:
    for value, letter in zip(VERDICTS["values"], VERDICTS["alone"][name], strict=True):
        found = problems({name: value})
        if value is None:
            assert not found  # never sent, so the server's verdict on null does not matter
        elif letter == "x":
            left_to_it = name in ONLY_THE_SERVER_KNOWS and value not in ("", [""], [], -2, -1, [-1])
            assert found or left_to_it, (value, "the server rejects it, we do not")
        elif found:
            unknown_key = isinstance(value, dict) and "has no such key" in found[0].rule
            assert unknown_key or COERCED.fullmatch(found[0].rule), (value, "the server accepts it", found)


@pytest.mark.parametrize(
    ("request_fields", "refusal"),
    [pytest.param(*each, id=json.dumps(each[0])[:100]) for each in VERDICTS["together"]],
)
def test_combinations_get_the_servers_verdict(request_fields: dict[str, object], refusal: str | None) -> None:
    params = {name: value for name, value in request_fields.items() if name != "stream"}
    found = problems(params, stream=request_fields.get("stream") is True)
    if params == {"guided_json": {}}:
        assert refusal is None  # accepted and ignored, which is what this library prevents
        assert "removed in vLLM 0.12" in found[0].rule
    elif params.get("tool_choice") == "required" and "structured_outputs" in params:
        assert refusal is None  # accepted, and the constraint ignored
        assert "silently ignore the constraint" in found[0].rule
    elif params == {"stop": list("abcde")}:
        assert refusal is not None
        assert not found  # the limit is a server setting
    else:
        assert bool(found) == (refusal is not None), (found, refusal)


def samples() -> list[Any]:
    text = (RECORDED / "vllm-0.32.0-samples.txt").read_text("utf-8").partition("## 2.")[0]
    of_chat = text.partition("-- err\n")[2].partition("{'prompt'")[0]
    lines = re.findall(
        r"^(OK|ERR) (\{.+?\})(?: ->| VLLMValidationError| ValidationError)", of_chat, re.MULTILINE
    )
    return [
        pytest.param(verdict == "OK", ast.literal_eval(said), id=said)
        for verdict, said in lines
        if said != "{}"
    ]


@pytest.mark.parametrize(("taken", "said"), samples())
def test_the_servers_own_validation_agrees(taken: bool, said: dict[str, object]) -> None:
    params = {name: value for name, value in said.items() if name != "stream"}
    found = problems(params, stream=said.get("stream") in (True, "yes"))
    if all(value is None for value in params.values()):
        assert not found  # never sent
    elif not taken:
        assert found or params == {"stop": ["a"] * 5}
    elif found:
        assert COERCED.fullmatch(found[0].rule) or "has no such key" in found[0].rule or found[0].parameter in (
            "foo", "n", "logit_bias", "guided_json"
        )  # fmt: skip


def test_samples_exist() -> None:
    assert len(samples()) == 67


# Validated parameters


def test_only_set_parameters_are_sent() -> None:
    assert fields({"temperature": 0, "top_k": None, "stop": None, "user": None}) == {"temperature": 0}
    nothing, empty = check_vllm({}, stream=True), CheckedParams({})
    assert all(getattr(nothing, name) == getattr(empty, name) for name in CheckedParams.__slots__)


def test_values_are_not_converted() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    params = {"structured_outputs": {"json": schema}, "stop": ("a", "b"), "temperature": 1}
    checked = fields(params)
    assert checked == params
    assert all(checked[name] is params[name] for name in params)


def test_call_parameters_are_separated_from_the_body() -> None:
    body, headers, timeout = {"new": 1}, {"X-Team": "blue"}, Timeout(total=3)
    checked = check_vllm(
        {"extra_body": body, "extra_headers": headers, "timeout": timeout, "seed": 1}, stream=False
    )
    assert checked.fields == {"seed": 1}
    assert checked.extra_body is body
    assert checked.extra_headers is headers
    assert checked.timeout is timeout
    assert check_openai({"timeout": 2.5}, stream=False).timeout == 2.5


def test_the_callers_values_are_not_modified() -> None:
    kwargs = {"a": 1}
    bias = {5: 1.0}
    params = {
        "enable_thinking": True,
        "chat_template_kwargs": kwargs,
        "logit_bias": bias,
        "extra_body": {"b": 1},
    }
    before = dict(params)
    check_vllm(params, stream=False)
    assert params == before
    assert kwargs == {"a": 1}
    assert bias == {5: 1.0}


def test_enable_thinking_is_sent_as_a_template_variable() -> None:
    assert fields({"enable_thinking": False}) == {"chat_template_kwargs": {"enable_thinking": False}}
    given = {"chat_template_kwargs": {"style": "terse"}, "enable_thinking": True}
    assert fields(given) == {"chat_template_kwargs": {"style": "terse", "enable_thinking": True}}
    twice = {"chat_template_kwargs": {"enable_thinking": True}, "enable_thinking": True}
    assert fields(twice) == {"chat_template_kwargs": {"enable_thinking": True}}


def test_continue_final_message_disables_the_generation_prompt() -> None:
    wanted = {"continue_final_message": True, "add_generation_prompt": False}
    assert fields({"continue_final_message": True}) == wanted
    assert fields(wanted) == wanted
    assert fields({"continue_final_message": False}) == {"continue_final_message": False}


def test_bias_token_ids_become_strings() -> None:
    assert fields({"logit_bias": {5: 1, 6: -2.5}}) == {"logit_bias": {"5": 1, "6": -2.5}}
    assert fields({"logit_bias": {"5": 1}}, check_openai) == {"logit_bias": {"5": 1}}
    assert fields({"logit_bias": {}}) == {"logit_bias": {}}


class Level(enum.StrEnum):
    LOW = "low"


class Count(enum.IntEnum):
    TWO = 2


class Real(float):
    pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop", ("a", "b")),
        ("stop", UserList(["a"])),
        ("stop_token_ids", range(3)),
        ("stop_token_ids", deque([1])),
        ("bad_words", []),
        ("chat_template_kwargs", MappingProxyType({"a": 1})),
        ("logit_bias", UserDict({"5": 1})),
        ("reasoning_effort", Level.LOW),
        ("max_tokens", Count.TWO),
        ("temperature", Count.TWO),
        ("temperature", Real(0.5)),
        ("repetition_penalty", sys.float_info.max),
        ("length_penalty", -3),
        ("seed", -(2**63)),
        ("timeout", 1),
        ("timeout", 0.001),
        ("extra_body", {}),
        ("extra_headers", {}),
        ("extra_headers", {"X-Empty": "", "X-Tab": "a\tb"}),
    ],
)
def test_equivalent_types_are_accepted(name: str, value: object) -> None:
    assert problems({name: value}) == []


# Error messages


def test_one_error_has_all_problems_in_order() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_vllm({"top_p": 2, "temprature": 1, "n": 2, "temperature": 0, "stop": ""}, stream=False)
    assert [each.parameter for each in caught.value.problems] == ["top_p", "temprature", "n", "stop"]
    assert str(caught.value) == (
        "4 problems in this request:"
        "\n  - top_p=2: must be greater than 0 and at most 1."
        "\n  - temprature=1: is not a parameter of VLLMProvider. Did you mean `temperature`?"
        "\n  - n=2: must be 1 with temperature=0: greedy decoding makes all replies identical."
        "\n  - stop='': must not be empty."
    )
    assert isinstance(caught.value, ValueError)


WRONG_VALUES: list[tuple[dict[str, object], str, str, str | None]] = [
    ({"top_k": 1.5}, "top_k", "must be an integer, not a float.", None),
    ({"top_k": 2.0}, "top_k", "must be an integer, not a float.", "Write 2."),
    ({"top_k": "5"}, "top_k", "must be an integer, not a str.", "Remove the quotes."),
    ({"top_k": True}, "top_k", "must be an integer, not a bool.", None),
    ({"top_k": [5]}, "top_k", "must be an integer, not a list.", None),
    ({"top_k": -2}, "top_k", "must be at least -1.", None),
    ({"temperature": "hot"}, "temperature", "must be a number, not a str.", None),
    ({"temperature": float("nan")}, "temperature", "must be a finite number.", None),
    ({"temperature": float("inf")}, "temperature", "must be a finite number.", None),
    ({"length_penalty": 10**400}, "length_penalty", "must be a finite number.", None),
    ({"temperature": -0.1}, "temperature", "must be between 0 and 2.", None),
    ({"repetition_penalty": 0}, "repetition_penalty", "must be greater than 0.", None),
    ({"seed": 2**63}, "seed", "must be between -2**63 and 2**63 - 1.", None),
    ({"ignore_eos": 1}, "ignore_eos", "must be True or False, not an int.", None),
    ({"ignore_eos": "True"}, "ignore_eos", "must be True or False, not a str.", "Remove the quotes."),
    ({"logprobs": 3}, "logprobs", "must be True or False, not an int.", "Write logprobs=True, top_logprobs=3."),
    ({"user": 5}, "user", "must be a string, not an int.", None),
    ({"stop": {"a"}}, "stop", "must be a string or a list of strings, not a set.",
     "Wrap it in sorted(...) or list(...): a set has no order."),
    ({"stop": ["a", 5]}, "stop[1]", "must be a string, not an int.", None),
    ({"bad_words": "a"}, "bad_words", "must be a list of strings, not a str.", "Wrap it in [...]."),
    ({"bad_words": {"a"}}, "bad_words", "must be a list of strings, not a set.",
     "Wrap it in sorted(...) or list(...): a set has no order."),
    ({"bad_words": (x for x in "ab")}, "bad_words", "must be a list of strings, not a generator.", None),
    ({"bad_words": b"ab"}, "bad_words", "must be a list of strings, not a bytes.", None),
    ({"allowed_token_ids": []}, "allowed_token_ids", "must not be empty.", "Leave it out instead."),
    ({"allowed_token_ids": [1, -1]}, "allowed_token_ids[1]", "must be at least 0.", None),
    ({"allowed_token_ids": [1, True]}, "allowed_token_ids[1]", "must be an integer, not a bool.", None),
    ({"logprobs": True, "logprob_token_ids": [1] * 129}, "logprob_token_ids",
     "must have at most 128 items, not 129.", None),
    ({"reasoning_effort": "hihg"}, "reasoning_effort",
     'must be "none", "minimal", "low", "medium", "high", "xhigh" or "max".', 'Did you mean "high"?'),
    ({"truncation_side": 1}, "truncation_side", 'must be "left" or "right", not an int.', None),
    ({"documents": [{"text": 1}]}, "documents[0].text", "must be a string, not an int.", None),
    ({"documents": {"text": "a"}}, "documents", "must be a list of mappings, not a dict.",
     "Wrap it in [...]."),
    ({"chat_template_kwargs": [1]}, "chat_template_kwargs", "must be a mapping, not a list.", None),
    ({"vllm_xargs": {"a": True}}, "vllm_xargs.a",
     "must be a string or an integer or a number or a list of strings or integers or numbers, not a bool.", None),
    ({"vllm_xargs": {"a": 2**64}}, "vllm_xargs.a", "must be at least -2**63 and less than 2**64.", None),
    ({"vllm_xargs": {"a": [2**64]}}, "vllm_xargs.a[0]", "must be at least -2**63 and less than 2**64.", None),
    ({"vllm_xargs": {5: 1}}, "vllm_xargs", "must have strings as keys.", None),
    ({"logit_bias": [5]}, "logit_bias", "must be a mapping of token ids to numbers, not a list.", None),
    ({"logit_bias": {"x": 1}}, "logit_bias", "must have token ids as keys: integers of at least 0.", None),
    ({"logit_bias": {-1: 1}}, "logit_bias", "must have token ids as keys: integers of at least 0.", None),
    ({"logit_bias": {True: 1}}, "logit_bias",
     "must have token ids as keys: integers of at least 0.", None),
    ({"logit_bias": {5: "1"}}, "logit_bias[5]", "must be a number, not a str.", "Remove the quotes."),
    ({"cache_salt": "a/b"}, "cache_salt", "must not contain any of: @ / \\ NUL", None),
    ({"cache_salt": "a" * 129}, "cache_salt", "must have at most 128 characters, not 129.", None),
    ({"timeout": "5"}, "timeout", "must be a number or a Timeout, not a str.", "Remove the quotes."),
    ({"timeout": timedelta(5)}, "timeout", "must be a number or a Timeout, not a datetime.timedelta.",
     "Call .total_seconds() on it."),
    ({"timeout": 0}, "timeout", "must be greater than 0.", None),
    ({"timeout": float("inf")}, "timeout", "must be a finite number.", None),
    ({"extra_body": [1]}, "extra_body", "must be a mapping of field names to values, not a list.", None),
    ({"extra_body": {1: 2}}, "extra_body", "must have strings as keys.", None),
    ({"extra_body": {"stream": True}}, "extra_body.stream",
     "is not allowed: the method decides whether to stream.",
     "Call .chat(...) or .stream(...)."),
    ({"structured_outputs": {"jsn": {}}}, "structured_outputs.jsn", "`structured_outputs` has no such key.",
     "Did you mean `json`?"),
    ({"structured_outputs": {}}, "structured_outputs",
     "needs exactly one of json, regex, choice, grammar, json_object, structural_tag, but has none of them.", None),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs",
     "needs exactly one of json, regex, choice, grammar, json_object, structural_tag, but has regex and choice.",
     None),
    ({"structured_outputs": {"json": {}, "disable_any_whitespace": None}},
     "structured_outputs.disable_any_whitespace", "must not be None.", "Leave it out."),
    ({"structured_outputs": "json"}, "structured_outputs", "must be a mapping, not a str.",
     ("Valid keys: json, regex, choice, grammar, json_object, structural_tag, disable_any_whitespace, "
     "disable_additional_properties, whitespace_pattern.")),
    ({"structured_outputs": {1: 2, "regex": "a"}}, "structured_outputs.1",
     "`structured_outputs` has no such key.",
     ("Valid keys: json, regex, choice, grammar, json_object, structural_tag, disable_any_whitespace, "
     "disable_additional_properties, whitespace_pattern.")),
    ({"structured_outputs": {"grammar": " "}}, "structured_outputs.grammar", "must not be blank.", None),
    ({"structured_outputs": {"json_object": False}}, "structured_outputs.json_object",
     "must be True, not a bool.", None),
    ({"response_format": "json"}, "response_format", "must be a mapping or a type, not a str.",
     'For any JSON object, write {"type": "json_object"}.'),
    ({"response_format": ["json"]}, "response_format", "must be a mapping or a type, not a list.", None),
    ({"response_format": {}}, "response_format.type",
     'is required: "text", "json_object", "json_schema" or "structural_tag".', None),
    ({"response_format": {"type": "jsonschema"}}, "response_format.type",
     'must be "text", "json_object", "json_schema" or "structural_tag".', 'Did you mean "json_schema"?'),
    ({"response_format": {"type": 5}}, "response_format.type",
     'must be "text", "json_object", "json_schema" or "structural_tag".', None),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
     "response_format.json_schema.name", "is required.", None),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
     "response_format.json_schema.schema", "is required.", 'For any JSON object, write {"type": "json_object"}.'),
    ({"response_format": {"type": "structural_tag", "structures": [{"begin": "<a>"}], "triggers": ["<"]}},
     "response_format.structures[0].end", "is required.", None),
    ({"response_format": {"type": "structural_tag", "format": "x"}}, "response_format.format",
     "must be a mapping, not a str.", None),
    ({"tools": []}, "tools", "must not be empty.", "Leave it out instead."),
    ({"tools": TOOLS[0]}, "tools", "must be a list of mappings or functions, not a dict.",
     "Wrap it in [...]."),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type", "is required.", 'Write "type": "function".'),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name",
     "must not be empty.", None),
    ({"tools": [{"type": "function", "function": {"name": "f", "paramters": {}}}]},
     "tools[0].function.paramters", "`tools[0].function` has no such key.", "Did you mean `parameters`?"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": "{}"}}]},
     "tools[0].function.parameters", "must be a mapping, not a str.", None),
    ({"tools": TOOLS, "tool_choice": "get_weather"}, "tool_choice",
     'must be "none", "auto" or "required" or a mapping.',
     'To name a tool, write {"type": "function", "function": {"name": "get_weather"}}.'),
    ({"tools": TOOLS, "tool_choice": "requierd"}, "tool_choice",
     'must be "none", "auto" or "required" or a mapping.', 'Did you mean "required"?'),
    ({"tools": TOOLS, "tool_choice": ["auto"]}, "tool_choice",
     'must be "none", "auto" or "required" or a mapping, not a list.', None),
]  # fmt: skip


@pytest.mark.parametrize(("params", "parameter", "rule", "suggestion"), WRONG_VALUES)
def test_invalid_values(params: dict[str, object], parameter: str, rule: str, suggestion: str | None) -> None:
    found = problem(params)
    assert (found.parameter, found.rule, found.suggestion) == (parameter, rule, suggestion)


@pytest.mark.parametrize(
    ("params", "stream", "text"),
    [
        ({"top_logprobs": 3}, False, "top_logprobs=3: needs logprobs=True."),
        ({"top_logprobs": -1, "logprobs": False}, False, "top_logprobs=-1: needs logprobs=True."),
        ({"logprob_token_ids": [1]}, False, "logprob_token_ids=[1]: needs logprobs=True."),
        ({"logprob_token_ids": [1], "logprobs": True, "use_beam_search": True}, False,
         "logprob_token_ids=[1]: cannot be combined with use_beam_search=True."),
        ({"prompt_logprobs": 1}, True,
         "prompt_logprobs=1: is not supported when streaming. Call .chat(...) or .achat(...)."),
        ({"stream_options": {"include_usage": True}}, False,
         "stream_options={'include_usage': True}: requires streaming. Call .stream(...) or .astream(...)."),
        ({"stream_options": {"include_obfuscation": False}}, True,
         ("stream_options.include_obfuscation=False: is an option of OpenAI's own server; vLLM silently ignores "
          "it. Leave it out.")),
        ({"stream_options": {"continuous_usage_stats": True, "include_usage": False}}, True,
         ("stream_options.continuous_usage_stats=True: has no effect with include_usage=False. "
         "Leave include_usage out.")),
        ({"min_tokens": 5, "max_tokens": 4}, False, "min_tokens=5: must be at most max_tokens=4."),
        ({"min_tokens": 5, "max_tokens": 9, "max_completion_tokens": 4}, False,
         "min_tokens=5: must be at most max_completion_tokens=4."),
        ({"tool_choice": "auto"}, False, "tool_choice='auto': needs `tools`."),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_wether"}}}, False,
         ("tool_choice={'function': {'name': 'get_wether'}, 'type': 'function'}: must name one of the `tools`. "
         'Did you mean "get_weather"?')),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, False,
         ("tool_choice={'function': {'name': 'x'}, 'type': 'function'}: must name one of the `tools`. "
         "The tools are: get_weather, get_time.")),
        ({"structured_outputs": {"grammar": "a"}, "tools": TOOLS, "tool_choice": NAMED}, False,
         ("structured_outputs={'grammar': 'a'}: cannot be combined with a tool_choice that forces a call: vLLM would "
         "silently ignore the constraint. Keep one of them.")),
        ({"response_format": {"type": "json_object"}, "tools": TOOLS, "tool_choice": "required"}, False,
         ("response_format={'type': 'json_object'}: cannot be combined with a tool_choice that forces a call: vLLM "
         "would silently ignore the constraint. Keep one of them.")),
        ({"use_beam_search": True, "stop": ["a"]}, False,
         ("stop=['a']: cannot be combined with use_beam_search=True: beam search silently ignores it. "
         "Leave one of them out.")),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, False,
         ("structured_outputs={'regex': 'a'}: cannot be combined with a response_format of type \"json_object\": both "
          "constrain the reply. Keep one of them.")),
        ({"continue_final_message": True, "add_generation_prompt": True}, False,
         ("continue_final_message=True: cannot be combined with add_generation_prompt=True, which begins a new "
         "message. Leave `add_generation_prompt` out.")),
        ({"repetition_detection": {"max_pattern_size": 3}}, False,
         "repetition_detection.min_count=0: must be at least 2 if max_pattern_size is greater than 0."),
        ({"repetition_detection": {"min_pattern_size": 3}}, False,
         "repetition_detection.min_pattern_size=3: must be at most max_pattern_size=0."),
        ({"chat_template_kwargs": {"chat_template": "x"}}, False,
         ("chat_template_kwargs.chat_template='x': is rejected by the server. "
         "Use the parameter `chat_template` instead.")),
        ({"chat_template_kwargs": {"tokenize": False}}, False,
         "chat_template_kwargs.tokenize=False: is rejected by the server, which always tokenizes. Leave it out."),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, False,
         ("chat_template_kwargs.add_generation_prompt=False: has no effect: the parameter of the same name "
         "overrides it. Use the parameter `add_generation_prompt` instead.")),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}}, False,
         'enable_thinking=True: contradicts chat_template_kwargs={"enable_thinking": False}. Keep one of them.'),
        ({"enable_thinking": True, "extra_body": {"chat_template_kwargs": {"a": 1}}}, False,
         ('enable_thinking=True: would be lost: extra_body["chat_template_kwargs"] overrides it. '
         "Use the parameter `chat_template_kwargs` instead.")),
    ],
)  # fmt: skip
def test_invalid_combinations(params: dict[str, object], stream: bool, text: str) -> None:
    assert str(problem(params, stream=stream)) == text


INTEGER = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_forced_call_excludes_constraints(choice: object) -> None:
    forced = {"tools": TOOLS, "tool_choice": choice}
    for name, value in (("structured_outputs", {"regex": "[0-9]{5}"}), ("response_format", INTEGER)):
        assert problem({**forced, name: value}).parameter == name
        assert not problems({"tools": TOOLS, "tool_choice": "auto", name: value})
        assert not problems({"tools": TOOLS, "tool_choice": "none", name: value})
        assert not problems({"tools": TOOLS, name: value})
    assert not problems({**forced, "response_format": {"type": "text"}})
    # OpenAI's own server constrains the text next to the calls.
    assert not problems({**forced, "response_format": INTEGER}, check_openai)


@pytest.mark.parametrize(
    ("name", "value", "nothing"),
    [
        ("structured_outputs", {"regex": "a"}, None),
        ("response_format", INTEGER, {"type": "text"}),
        ("stop", "a", []),
        ("stop_token_ids", [1], []),
        ("bad_words", ["a"], []),
        ("logit_bias", {1: 5}, {}),
        ("min_tokens", 3, 0),
        ("repetition_detection", {"max_pattern_size": 3, "min_count": 2}, None),
    ],
)
def test_parameters_that_beam_search_would_ignore(name: str, value: object, nothing: object) -> None:
    assert problem({"use_beam_search": True, name: value}).parameter == name
    assert not problems({"use_beam_search": False, name: value})
    assert not problems({"use_beam_search": True, name: nothing})


def test_parameters_that_beam_search_accepts() -> None:
    known = {"n": 2, "max_tokens": 5, "ignore_eos": True, "temperature": 0.5, "length_penalty": 2.0}
    # The tokens since vLLM 0.33: see `versions`.
    assert not problems(
        {"use_beam_search": True, **known, "allowed_token_ids": [1], "include_stop_str_in_output": True}
    )


@pytest.mark.parametrize(
    ("params", "stream"),
    [
        ({"top_logprobs": 3, "logprobs": "yes"}, False),
        ({"logprob_token_ids": [1], "logprobs": "yes"}, False),
        ({"tool_choice": NAMED, "tools": [{"type": "function"}]}, False),
        ({"n": 2, "temperature": "0"}, False),
        ({"min_tokens": 5, "max_tokens": "4"}, False),
        ({"enable_thinking": True, "chat_template_kwargs": 5}, False),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": None}, "top_k": "5"}, False),
        (
            {
                "enable_thinking": True,
                "extra_body": {"chat_template_kwargs": {"enable_thinking": True}},
                "n": "1",
            },
            True,
        ),
        ({"stream_options": {"include_usage": True}, "temperature": "1"}, True),
    ],
)
def test_one_mistake_is_one_problem(params: dict[str, object], stream: bool) -> None:
    problem(params, stream=stream)


class Numpyish:
    """Like a numpy scalar."""

    def item(self) -> float:
        raise NotImplementedError

    def tolist(self) -> list[float]:
        raise NotImplementedError


class Reply:
    """Like a pydantic class."""

    @classmethod
    def model_json_schema(cls) -> dict[str, object]:
        raise NotImplementedError

    def model_dump(self) -> dict[str, object]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("params", "suggestion"),
    [
        ({"temperature": Numpyish()}, "Call .item() on it."),
        ({"seed": Numpyish()}, "Call .item() on it."),
        ({"stop_token_ids": Numpyish()}, "Call .tolist() on it."),
        ({"structured_outputs": {"json": Reply}}, "Write Reply.model_json_schema()."),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": Reply}}},
            "Write Reply.model_json_schema().",
        ),
        ({"response_format": Reply}, "Write Reply.model_json_schema()."),
        ({"structured_outputs": Reply()}, "Call .model_dump() on it."),
    ],
)
def test_objects_of_other_libraries_get_a_hint(params: dict[str, object], suggestion: str) -> None:
    assert problem(params).suggestion == suggestion


# Names


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("temprature", "temperature"),
        ("topK", "top_k"),
        ("top-p", "top_p"),
        ("maxTokens", "max_tokens"),
        ("max_token", "max_tokens"),
        ("repetion_penalty", "repetition_penalty"),
        ("structured_output", "structured_outputs"),
        ("enable_thinkng", "enable_thinking"),
        ("chat_template_kwarg", "chat_template_kwargs"),
        ("respose_format", "response_format"),
        ("tool", "tools"),
        ("stops", "stop"),
        ("logit_biases", "logit_bias"),
        ("frequency_penality", "frequency_penalty"),
        ("extra_header", "extra_headers"),
        ("time_out", "timeout"),
        ("a", None),
        ("color", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_suggested(written: str, meant: str | None) -> None:
    assert suggest(written, VLLM_CHAT_NAMES) == meant
    found = problem({written: 1})
    assert found.parameter == written
    if meant is not None:
        assert found.suggestion == f"Did you mean `{meant}`?"
    else:
        assert found.suggestion == f'If your server accepts it, write extra_body={{"{written}": 1}}.'


@pytest.mark.parametrize("value", [None, 5])
def test_an_unknown_name_is_rejected_for_any_value(value: object) -> None:
    assert problem({"temprature": value}).suggestion == "Did you mean `temperature`?"


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("guided_json", SCHEMA, f'structured_outputs={{"json": {format_value(SCHEMA)}}}'),
        ("guided_regex", r"\d+", r"""structured_outputs={"regex": '\\d+'}"""),
        ("guided_choice", ["yes", "no"], """structured_outputs={"choice": ['yes', 'no']}"""),
        ("guided_grammar", "root ::= a", """structured_outputs={"grammar": 'root ::= a'}"""),
        ("guided_whitespace_pattern", " ", """"whitespace_pattern": ' '"""),
        ("guided_decoding_backend", "xgrammar", "--structured-outputs-config.backend"),
        ("guided_decoding", {}, 'structured_outputs={"json": {...}}'),
        ("structural_tag", "{}", """structured_outputs={"structural_tag": '{}'}"""),
        ("regex", "a", """structured_outputs={"regex": 'a'}"""),
        ("json_schema", {"type": "object"}, "\"schema\": {'type': 'object'}"),
        ("response_schema", {"type": "object"}, 'response_format={"type": "json_schema"'),
        ("best_of", 3, "`n=3`"),
        ("logits_processors", [], "removed in vLLM 0.17"),
        ("return_assistant_tokens_mask", True, "0.25 to 0.30"),
        ("thinking", True, "enable_thinking=True"),
        ("thinking", False, 'chat_template_kwargs={"thinking": False}'),
        ("thinking", {"type": "enabled"}, "enable_thinking=True"),
        ("enable_reasoning", False, "enable_thinking=False"),
        ("extra_query", {}, "`extra_headers`"),
        ("thinking_budget", 100, "`thinking_token_budget=100`"),
        ("reasoning_content", "x", "completion.reasoning"),
        ("reasoning", {"effort": "low"}, 'reasoning_effort="low"'),
        ("separate_reasoning", True, "SGLang"),
        ("max_new_tokens", 5, "`max_tokens=5`"),
        ("num_return_sequences", 2, "`n=2`"),
        ("stop_sequences", ["a"], "`stop=['a']`"),
        ("do_sample", False, "`temperature=0`"),
        ("early_stopping", True, "Leave it out."),
        ("eos_token_id", 2, "`stop_token_ids=[2]`"),
        ("repeat_penalty", 1.1, "`repetition_penalty=1.1`"),
        ("stream", True, ".stream(...)"),
        ("messages", [], "chat(messages, ...)"),
        ("prompt", "Hi", "chat('Hi', ...)"),
        ("system", "Be kind.", """{"role": "system", "content": 'Be kind.'}"""),
        ("model", "m", 'model="..."'),
        ("lora_request", "a", "addressed as a model"),
        ("sampling_params", {}, "offline `LLM` class"),
        ("max_model_len", 4096, "vllm serve --max-model-len"),
        ("gpu_memory_utilization", 0.9, "vllm serve --gpu-memory-utilization"),
        ("tensor_parallel_size", 2, "vllm serve --tensor-parallel-size"),
        ("enable_prefix_caching", True, "vllm serve --enable-prefix-caching"),
        ("base_url", "http://x", "VLLMProvider(..., base_url=...)"),
        ("max_retries", 3, "VLLMProvider(..., max_retries=...)"),
        ("headers", {}, "extra_headers={...}"),
        ("service_tier", "auto", "vLLM silently ignores it"),
        ("store", True, "Leave it out."),
        ("verbosity", "low", "Ask for it in the prompt."),
        ("functions", [], 'tools=[{"type": "function", "function": ...}]'),
        ("temp", 0.5, "`temperature=0.5`"),
        ("rep_penalty", 1.1, "`repetition_penalty=1.1`"),
        ("freq_pen", 1, "`frequency_penalty=1`"),
        ("pres_pen", 1, "`presence_penalty=1`"),
        ("think", False, "`enable_thinking=False`"),
    ],
)
def test_names_known_elsewhere_are_explained(name: str, value: object, says: str) -> None:
    assert says in str(problem({name: value}))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("top_k", 5, 'Use VLLMProvider, or write extra_body={"top_k": 5}.'),
        ("chat_template_kwargs", {}, 'Use VLLMProvider, or write extra_body={"chat_template_kwargs": {}}.'),
        ("enable_thinking", False, 'extra_body={"chat_template_kwargs": {"enable_thinking": False}}'),
        ("best_of", 3, "is not a parameter of OpenAI's API. Write `n=3`"),
        ("structured_outputs", {}, "Use VLLMProvider"),
        ("guided_json", {"a": 1}, '"json_schema": {"name": "reply", "schema": {\'a\': 1}}'),
        ("guided_regex", "a", """With VLLMProvider: Write structured_outputs={"regex": 'a'}."""),
        ("thinking", True, "With VLLMProvider: Write `enable_thinking=True`"),
        (
            "grammar",
            "x",
            """If your server accepts it, write extra_body={"grammar": 'x'}. With VLLMProvider: Write """,
        ),
        ("temprature", 1, "Did you mean `temperature`?"),
        ("repetion_penalty", 1, 'Use VLLMProvider, or write extra_body={"repetition_penalty": 1}.'),
        ("topk", 3, "is probably `top_k`, which is a parameter of vLLM"),
        ("topk", 3, 'Use VLLMProvider, or write extra_body={"top_k": 3}.'),
        ("temp", 1, "Write `temperature=1`."),
        ("rep_penalty", 1, "With VLLMProvider: Write `repetition_penalty=1`."),
        ("guided_jsn", {"a": 1}, '"json_schema": {"name": "reply", "schema": {\'a\': 1}}'),
        ("api-key", "sk-1", "OpenAIProvider(..., api_key=...)"),
        ("max_new_tokens", 1, "`max_tokens=1`"),
        ("api_key", "sk-1", "OpenAIProvider(..., api_key=...)"),
        ("color", 1, 'extra_body={"color": 1}'),
    ],
)
def test_parameters_of_the_other_provider(name: str, value: object, says: str) -> None:
    assert says in str(problem({name: value}, check_openai))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("guided_jsn", "guided_json"),
        ("guided_regx", "guided_regex"),
        ("guidedjson", "guided_json"),
        ("guided-json", "guided_json"),
        ("thinkng", "thinking"),
        ("bestof", "best_of"),
        ("logitsprocessors", "logits_processors"),
        ("max_modellen", "max_model_len"),
        ("service_teir", "service_tier"),
        ("jsonschema", "json_schema"),
        ("base-url", "base_url"),
    ],
)
def test_a_misspelled_name_known_elsewhere_is_explained(written: str, meant: str) -> None:
    for check in (check_vllm, check_openai):
        right = (
            problem({meant: "x"}, check) if meant not in OPENAI_CHAT_NAMES or check is check_vllm else None
        )
        found = problem({written: "x"}, check)
        assert found.parameter == written
        if right is None:
            assert found.suggestion == f"Did you mean `{meant}`?"
        else:
            assert found.rule == f"is probably `{meant}`, which {right.rule}"
            assert (found.value, found.suggestion) == (right.value, right.suggestion)


def test_a_misspelled_secret_is_not_shown() -> None:
    for check in (check_vllm, check_openai):
        for name in ("apikey", "api_kye", "default_haeders", "hftoken"):
            assert "sk-1" not in str(problem({name: "sk-1"}, check))


def test_openai_only_parameters_are_explained_as_ignored_by_vllm() -> None:
    for name in OPENAI_CHAT_NAMES - VLLM_CHAT_NAMES:
        assert "silently ignores it" in problem({name: "x"}).rule


def test_vllm_only_parameters_are_explained_as_vllms() -> None:
    for name in VLLM_CHAT_NAMES - OPENAI_CHAT_NAMES:
        assert problem({name: "x"}, check_openai).rule == "is a parameter of vLLM, not of OpenAI's API."


def test_no_parameter_is_listed_as_unknown() -> None:
    from vllmchat.checking import unknown_names

    places = cast("dict[str, object]", vars(unknown_names)["_PLACES"])
    options = cast("frozenset[str]", vars(unknown_names)["_START_OPTIONS"])
    assert VLLM_CHAT_NAMES.isdisjoint(places)
    assert VLLM_CHAT_NAMES.isdisjoint(options)
    assert OPENAI_CHAT_NAMES.isdisjoint(places)
    for name in {*places, *options}:
        for check in (check_vllm, check_openai):
            said = str(problem({name: 1}, check))
            assert "{" not in said or "}" in said
            assert "{value}" not in said
            assert "{{" not in said


# OpenAI's API


TAKEN_BY_OPENAI: list[dict[str, object]] = [
    {"top_p": 0},
    {"reasoning_effort": "default"},
    {"service_tier": "on_demand"},
    {"n": 2, "temperature": 0},
    {"tools": [{"type": "custom", "custom": {"name": "shell", "format": {"type": "text"}}}]},
    {"tools": [{"type": "custom", "custom": {"name": "shell", "format": {
        "type": "grammar", "grammar": {"syntax": "regex", "definition": "a"}}}}],
     "tool_choice": {"type": "custom", "custom": {"name": "shell"}}},
    {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": TOOLS}}},
    {"tools": TOOLS, "tool_choice": NAMED},
    {"functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}},
    {"functions": [{"name": "f"}], "function_call": "auto"},
    {"audio": {"format": "wav", "voice": "alloy"}, "modalities": ["text", "audio"]},
    {"audio": {"format": "wav", "voice": {"id": "v"}}},
    {"prediction": {"type": "content", "content": "x"}},
    {"prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
    {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Bonn"}}}},
    {"metadata": {"a": "b"}, "store": True, "user": "u", "safety_identifier": "s", "verbosity": "low"},
    {"moderation": {"model": "m", "policy": {"input": {"mode": "score"}, "output": None}}},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"ttl": "30m"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    {"stop": list("abcdef")},
]  # fmt: skip


@pytest.mark.parametrize("params", TAKEN_BY_OPENAI)
def test_valid_openai_parameters(params: dict[str, object]) -> None:
    assert fields(params, check_openai) == params


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"temperature": 2.5}, "temperature=2.5: must be between 0 and 2."),
        ({"top_logprobs": 2}, "top_logprobs=2: needs logprobs=True."),
        ({"stream_options": {"include_usage": True}}, ("stream_options={'include_usage': True}: requires streaming. "
         "Call .stream(...) or .astream(...).")),
        ({"tool_choice": "required"}, "tool_choice='required': needs `tools`."),
        ({"modalities": ["text", "smell"]}, "modalities[1]='smell': must be \"text\" or \"audio\"."),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type='retrieval': must be \"function\" or \"custom\"."),
        ({"metadata": {"a": 1}}, "metadata.a=1: must be a string, not an int."),
        ({"web_search_options": {"user_location": {"approximate": {}}}},
         'web_search_options.user_location.type: is required. Write "type": "approximate".'),
    ],
)  # fmt: skip
def test_invalid_openai_parameters(params: dict[str, object], text: str) -> None:
    assert str(problem(params, check_openai)) == text


# What errors must not show


SECRET = "sk-1234567890"


@pytest.mark.parametrize(
    "params",
    [
        {"extra_headers": {"Authorization": f"Bearer {SECRET}\n"}},
        {"extra_headers": {"Authorization": SECRET.encode()}},
        {"extra_headers": {"Authorization": f" {SECRET}"}},
        {"extra_headers": {"Authorization": f"{SECRET}é"}},
        {"extra_headers": f"Authorization: {SECRET}"},
        {"extra_headers": [("Authorization", SECRET)]},
        {"extra_headers": {"Content-Length": SECRET}},
        {"headers": {"Authorization": SECRET}},
        {"default_headers": {"Authorization": SECRET}},
        {"api_key": SECRET},
        {"openai_api_key": SECRET},
        {"hf_token": SECRET},
        {"password": SECRET},
        {"cache_salt": f"{SECRET}/"},
        {"cache_salt": SECRET * 20},
        {"cache_salt": SECRET.encode()},
    ],
)
@pytest.mark.parametrize("check", [check_vllm, check_openai])
def test_errors_never_contain_secrets(params: dict[str, object], check: Check) -> None:
    if check is check_openai and "cache_salt" in params:
        assert SECRET not in str(problem(params, check))
        params = {"cache_salt_key": params["cache_salt"]}
    found = problem(params, check)
    assert SECRET not in str(found)
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ({"X Y": "a"}, "'X Y' is not a valid header name."),
        ({"": "a"}, "'' is not a valid header name."),
        ({5: "a"}, "5 is not a valid header name."),
        ({"X": 5}, "must be a string, not an int."),
        (
            {"X": "a\r\nY: b"},
            "must be printable ASCII without line breaks or surrounding white space.",
        ),
        ({"Transfer-Encoding": "chunked"}, "is computed from the body and cannot be set."),
        ([], "must be a mapping of header names to strings, not a list."),
    ],
)
def test_invalid_headers(headers: object, rule: str) -> None:
    assert problem({"extra_headers": headers}).rule == rule


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("x" * 100_000, id="text"),
        pytest.param("é" * 1000, id="text beyond ASCII"),
        pytest.param(b"x" * 100_000, id="bytes"),
        pytest.param(bytearray(100_000), id="bytearray"),
        pytest.param(["x" * 1000] * 1000, id="list"),
        pytest.param({f"key{index}": "x" * 1000 for index in range(1000)}, id="mapping"),
        pytest.param({"a": {"b": {"c": {"d": {"e": "f" * 1000}}}}}, id="nested"),
        pytest.param(10**5000, id="integer"),
        pytest.param([10**5000], id="integer inside"),
    ],
)
@pytest.mark.parametrize("name", ["temperature", "color", "structured_outputs", "tools", "response_format"])
def test_errors_are_short_for_any_value(name: str, value: object) -> None:
    found = problems({name: value})
    assert 0 < len(found) <= 1000
    for each in found:
        assert len(each.value) <= 200


def test_errors_are_short_for_any_key() -> None:
    found = problem({"structured_outputs": {"x" * 100_000: 1, "regex": "a"}})
    assert len(str(found)) < 500


def test_a_failing_repr_does_not_hide_the_error() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "Broken" in problem({"temperature": Broken()}).value


def test_a_long_list_of_mistakes_yields_few_problems() -> None:
    assert len(problems({"stop_token_ids": ["x"] * 10_000})) < 10
    assert len(problems({"logit_bias": {f"x{index}": 1 for index in range(10_000)}})) < 10
    assert len(problems({"vllm_xargs": {f"x{index}": None for index in range(10_000)}})) < 10


# Cost of validation


class Untouchable(dict[str, object]):
    """A schema that fails if it is traversed."""

    def _walked(self, *args: object) -> Any:
        raise AssertionError("the schema was walked")

    __iter__ = __getitem__ = get = items = keys = values = __contains__ = _walked


def test_schemas_and_free_form_mappings_are_not_traversed() -> None:
    trap = Untouchable(a=1)
    tool = {"type": "function", "function": {"name": "f", "parameters": trap}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": trap}}
    check_vllm({"tools": [tool], "response_format": wanted, "kv_transfer_params": trap}, stream=False)
    check_vllm({"structured_outputs": {"json": trap}, "mm_processor_kwargs": trap}, stream=False)
    check_openai({"tools": [tool], "response_format": wanted}, stream=False)


def test_known_names_are_imported_only_for_invalid_requests() -> None:
    code = (
        "import sys; from vllmchat.chat.check import check_vllm; check_vllm({'top_k': 5}, stream=False);"
        "names = 'vllmchat.checking.unknown_names', 'difflib', 'pydantic', 'httpx';"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


# Any input


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(sorted(VLLM_CHAT_NAMES | OPENAI_CHAT_NAMES)) | st.text(max_size=8)


@given(
    st.dictionaries(NAMES, ANYTHING, max_size=4),
    st.booleans(),
    st.sampled_from([check_vllm, check_openai]),
)
def test_any_request_is_accepted_or_rejected_with_problems(
    params: dict[str, object], stream: bool, check: Check
) -> None:
    found = problems(params, check, stream=stream)
    for each in found:
        assert any(each.parameter.startswith(name) for name in params)
        assert each.rule
        assert each.rule[-1] not in " ,"
    if not found:
        # Accepted parameters can be sent.
        sent = fields(params, check, stream=stream)
        assert None not in sent.values()
        json.dumps(sent, allow_nan=True, default=lambda _: None)


def test_the_module_exports_its_names() -> None:
    assert set(check_module.__all__) <= set(vars(check_module))
