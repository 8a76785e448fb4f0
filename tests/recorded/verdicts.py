"""Ask vLLM's own code which chat requests it takes; the answers are vllm-0.32.0-verdicts.json.

Run it with the Python of a vLLM environment; no server, no model and no GPU are needed:

    python tests/recorded/verdicts.py > tests/recorded/vllm-0.32.0-verdicts.json

Each request goes through what happens to it before its first token: the request model, the sampling parameters, and
the engine's check of these, with a vocabulary of 1,000 tokens.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

MESSAGES = [{"role": "user", "content": "x"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}]
NAMED = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, -2, 3, 5, 128, 129, -3, 1.0, 0.5, 1.5, 2.0, 2.5, -0.5, -2.5, 1e-6, 0.0,
    2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, "", " ", "x", "5", "0.5", "true", "low", "max",
    "left", "none", "auto", "required", "tensors", "a/b", "a@b", "a\\b", "a\0b", "x" * 128, "x" * 129, [], ["a"], [""],
    ["a", "b", "c", "d"], [1], [0, 1], [-1], [999], [1000], [1.5], ["5"], [True], [None], list(range(128)),
    list(range(129)), {}, {"a": 1}, {"a": "b"}, {"5": 1}, {"5": 1.5}, {"5": 1000}, {"5": "1"}, {"-5": 1}, {"x": 1},
    {"a": {"b": 1}}, {"a": [1, "b", 2.5]}, {"a": 2**64}, {"a": [2**64]}, {"a": -(2**63) - 1}, {"a": None},
    {"a": [None]}, [{}], [{"a": "b"}], [{"a": 1}], {"type": "text"}, {"type": "json_object"}, {"type": "function"},
    {"type": "x"}, {"enable_thinking": False}, {"include_usage": True}, TOOLS, NAMED, SCHEMA,
]  # fmt: skip
"""What each field is asked with, alone."""

TOGETHER: list[dict[str, Any]] = [
    {"logprobs": True, "top_logprobs": 0},
    {"logprobs": True, "top_logprobs": 5},
    {"logprobs": True, "top_logprobs": -1},
    {"logprobs": True, "top_logprobs": -2},
    {"logprobs": False, "top_logprobs": 5},
    {"logprobs": False, "top_logprobs": 0},
    {"logprobs": True, "logprob_token_ids": [1, 2]},
    {"logprobs": False, "logprob_token_ids": [1, 2]},
    {"logprobs": True, "logprob_token_ids": [1, 2], "use_beam_search": True},
    {"logprobs": True, "logprob_token_ids": [-1]},
    {"logprobs": True, "logprob_token_ids": list(range(129))},
    {"logprobs": False, "logprob_token_ids": []},
    {"n": 2, "temperature": 0},
    {"n": 1, "temperature": 0},
    {"n": 2, "temperature": 1e-6},
    {"n": 2, "temperature": 0.5},
    {"n": 2},
    {"n": 2, "temperature": 0, "use_beam_search": True},
    {"min_tokens": 5, "max_tokens": 4},
    {"min_tokens": 5, "max_tokens": 5},
    {"min_tokens": 5, "max_tokens": 4, "max_completion_tokens": 6},
    {"min_tokens": 5, "max_tokens": 6, "max_completion_tokens": 4},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"include_usage": None, "continuous_usage_stats": True}},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {}},
    {"stream": True, "prompt_logprobs": 0},
    {"stream": True, "prompt_logprobs": 1},
    {"stream": True, "prompt_logprobs": -1},
    {"continue_final_message": True},
    {"continue_final_message": True, "add_generation_prompt": True},
    {"continue_final_message": True, "add_generation_prompt": False},
    {"continue_final_message": False, "add_generation_prompt": True},
    {"tools": TOOLS, "tool_choice": "none"},
    {"tools": TOOLS, "tool_choice": "auto"},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": "f"},
    {"tools": TOOLS, "tool_choice": NAMED},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "h"}}},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": ""}}},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {}}},
    {"tools": TOOLS, "tool_choice": {"type": "function"}},
    {"tools": TOOLS, "tool_choice": NAMED, "structured_outputs": {"regex": "a"}},
    {"tools": TOOLS, "tool_choice": "auto", "structured_outputs": {"regex": "a"}},
    {"tools": TOOLS, "tool_choice": "required", "structured_outputs": {"regex": "a"}},
    {"tools": [{"type": "function", "function": {"name": 5}}]},
    {"tools": [{"type": "function", "function": {}}]},
    {"tools": [{"type": "function"}]},
    {"tools": [{"type": "custom", "function": {"name": "f"}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": None, "description": None}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "defer_loading": True}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "strict": "maybe"}}]},
    {"tools": [{"type": "function", "function": {"name": "f"}, "defer_loading": True}]},
    {"response_format": SCHEMA},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": None}}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": 5, "schema": {}}}},
    {"response_format": {"json_schema": {"name": "x", "schema": {}}}},
    {"response_format": {"type": "structural_tag", "structures": [{"begin": "<a>", "schema": {}, "end": "</a>"}],
                         "triggers": ["<a"]}},
    {"response_format": {"type": "structural_tag", "structures": [{"begin": "<a>", "schema": {}}], "triggers": ["<a"]}},
    {"response_format": {"type": "structural_tag", "format": {"type": "any_text"}}},
    {"response_format": {"type": "structural_tag"}},
    {"structured_outputs": {"json": {"type": "object"}}},
    {"structured_outputs": {"json": "{}"}},
    {"structured_outputs": {"json": ""}},
    {"structured_outputs": {"json": " "}},
    {"structured_outputs": {"json": 5}},
    {"structured_outputs": {"json": {}}},
    {"structured_outputs": {"regex": "a+"}},
    {"structured_outputs": {"regex": ""}},
    {"structured_outputs": {"regex": "a\0"}},
    {"structured_outputs": {"regex": 5}},
    {"structured_outputs": {"choice": ["a", "b"]}},
    {"structured_outputs": {"choice": []}},
    {"structured_outputs": {"choice": "a"}},
    {"structured_outputs": {"choice": [1]}},
    {"structured_outputs": {"grammar": 'root ::= "a"'}},
    {"structured_outputs": {"grammar": ""}},
    {"structured_outputs": {"grammar": " \n"}},
    {"structured_outputs": {"json_object": True}},
    {"structured_outputs": {"json_object": False}},
    {"structured_outputs": {"json_object": None}},
    {"structured_outputs": {"structural_tag": ""}},
    {"structured_outputs": {"structural_tag": {"type": "any_text"}}},
    {"structured_outputs": {"structural_tag": '{"type": "structural_tag", "format": {"type": "any_text"}}'}},
    {"structured_outputs": {"regex": "a", "choice": ["a"]}},
    {"structured_outputs": {"regex": "a", "choice": None}},
    {"structured_outputs": {"regex": "a", "grammar": 'root ::= "a"'}},
    {"structured_outputs": {"regex": "a", "json_object": True}},
    {"structured_outputs": {"json": {}, "disable_any_whitespace": True, "whitespace_pattern": " "}},
    {"structured_outputs": {"json": {}, "disable_any_whitespace": None}},
    {"structured_outputs": {"json": {}, "disable_additional_properties": True}},
    {"structured_outputs": {"json": {}, "whitespace_pattern": 5}},
    {"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}},
    {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
    {"structured_outputs": {"regex": "a"}, "response_format": SCHEMA},
    {"repetition_detection": {"max_pattern_size": 3, "min_count": 2}},
    {"repetition_detection": {"max_pattern_size": 3, "min_count": 1}},
    {"repetition_detection": {"max_pattern_size": 3, "min_pattern_size": 3, "min_count": 2}},
    {"repetition_detection": {"max_pattern_size": 3, "min_pattern_size": 4, "min_count": 2}},
    {"repetition_detection": {"min_pattern_size": 1}},
    {"repetition_detection": {"max_pattern_size": -1, "min_count": 2}},
    {"repetition_detection": {"max_pattern_size": 3, "min_count": None}},
    {"repetition_detection": {"max_pattern_size": 3}},
    {"repetition_detection": {}},
    {"truncate_prompt_tokens": 5, "truncation_side": "left"},
    {"truncate_prompt_tokens": 5, "truncation_side": "middle"},
    {"temperature": 2.0001},
    {"temperature": 0.0001, "top_p": 0.0001},
    {"top_p": 1.0001},
    {"repetition_penalty": 0.0001},
    {"stop": ["a", "b", "c", "d", "e"]},
    {"media_io_kwargs": {"video": {"num_frames": 40}}},
    {"mm_payload": "none", "return_mm_kwargs": True},
    {"cache_salt": "A_-43"},
    {"guided_json": {}},
    {"enable_thinking": True},
]  # fmt: skip
"""What is asked with several fields, or with values that have a shape of their own."""


def main() -> None:
    # By name, so that this file can be read and checked where there is no vLLM.
    request_model: Any = import_module(
        "vllm.entrypoints.openai.chat_completion.protocol"
    ).ChatCompletionRequest
    config = SimpleNamespace(
        max_logprobs=-1, is_diffusion=False, get_vocab_size=lambda: 1000, max_model_len=2048
    )
    outputs = SimpleNamespace(
        backend="auto", disable_any_whitespace=False, disable_additional_properties=False
    )

    def refusal(fields: dict[str, Any]) -> str | None:
        try:
            request = request_model.model_validate(json.loads(json.dumps({"messages": MESSAGES, **fields})))
            most = request.max_completion_tokens
            most = most if most is not None else request.max_tokens
            most = most if most is not None else 1024
            if request.use_beam_search:
                request.to_beam_search_params(most, {})
            else:
                request.to_sampling_params(most, {}).verify(config, None, outputs, object())
        except Exception as error:
            # Whatever it raises becomes an error of the server.
            return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
        return None

    names = [name for name in request_model.model_fields if name not in ("messages", "model", "stream")]
    answers = {
        "server": import_module("vllm.version").__version__,
        "values": VALUES,
        # One letter for each value: "." for taken, "x" for refused.
        "alone": {
            name: "".join(".x"[refusal({name: value}) is not None] for value in VALUES) for name in names
        },
        "together": [[fields, refusal(fields)] for fields in TOGETHER],
    }
    json.dump(answers, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
