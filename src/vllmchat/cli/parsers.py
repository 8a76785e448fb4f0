"""The parsers of vLLM, and signs that one is missing."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Final, cast

REASONING_PARSERS: Final = (
    *(("deepseek-r1", "deepseek_r1"), ("qwq", "deepseek_r1"), ("deepseek-v3", "deepseek_v3")),
    *(("qwen3", "qwen3"), ("gpt-oss", "openai_gptoss"), ("glm-4.7", "glm47"), ("glm-4", "glm45")),
    *(("granite", "granite"), ("magistral", "mistral"), ("hunyuan", "hunyuan_a13b"), ("ernie", "ernie45")),
    *(("seed-oss", "seed_oss"), ("minimax-m2", "minimax_m2"), ("kimi-k2", "kimi_k2"), ("step3", "step3")),
    *(("olmo-3", "olmo3"), ("gemma-4", "gemma4")),
)
"""By a part of a model's name, the value of `--reasoning-parser`. The first that fits applies."""

TOOL_PARSERS: Final = (
    *(
        ("qwen3-coder", "qwen3_coder"),
        ("qwen", "hermes"),
        ("hermes", "hermes"),
        ("llama-4", "llama4_pythonic"),
    ),
    *(("llama-3", "llama3_json"), ("mistral", "mistral"), ("mixtral", "mistral"), ("magistral", "mistral")),
    *(("deepseek-v3.1", "deepseek_v31"), ("deepseek", "deepseek_v3"), ("gpt-oss", "openai")),
    *(("glm-4.7", "glm47"), ("glm-4", "glm45"), ("granite-4", "granite4"), ("granite", "granite")),
    *(("kimi-k2", "kimi_k2"), ("minimax-m2", "minimax_m2"), ("phi-4-mini", "phi4_mini_json")),
    *(("hunyuan", "hunyuan_a13b"), ("seed-oss", "seed_oss"), ("step3", "step3"), ("jamba", "jamba")),
    *(("internlm", "internlm"), ("xlam", "xlam"), ("olmo-3", "olmo3"), ("gemma-4", "gemma4")),
)
"""The same for `--tool-call-parser`."""

_REASONING_MARKS: Final = ("<think>", "</think>", "<|channel|>", "[THINK]", "<seed:think>", "◁think▷")
_CALL_MARKS: Final = (
    *("<tool_call>", "<|tool_call", "[TOOL_CALLS]", "<function=", "<|python_tag|>", "<\uff5ctool▁call"),
    *("<minimax:tool_call>", "<|tool_calls_section_begin|>"),
)


def parser_for(names: list[str], parsers: tuple[tuple[str, str], ...]) -> str:
    """Returns the parser that a model probably needs, by its names; `NAME` if that is not known."""
    known = " ".join(names).lower().replace("_", "-")
    return next((parser for part, parser in parsers if part in known), "NAME")


def has_reasoning(text: str) -> bool:
    """Whether a reply has reasoning in its text, which a parser would have taken out."""
    return any(mark in text for mark in _REASONING_MARKS)


def has_call(text: str) -> bool:
    """Whether a reply has a tool call in its text, which a parser would have taken out."""
    if any(mark in text for mark in _CALL_MARKS):
        return True
    with suppress(ValueError):
        value: object = json.loads(text.rpartition("</think>")[2])
        return isinstance(value, dict) and "name" in cast("dict[str, object]", value)
    return False
