"""Validates the parameters of a chat before anything is sent.

Rules for single values are part of the parameters (`params`); rules across parameters are here. They are the
server's own rules, so the server accepts the parameters of a valid request, except for what only it knows: the model's
vocabulary and context, and the options it was started with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

from vllmchat.chat.params import ChatParams, VLLMChatParams
from vllmchat.chat.templating import TEMPLATE_RULES, convert_tools, fold_template
from vllmchat.checking.describe import format_value, suggest
from vllmchat.checking.validator import CheckedParams, Convert, CrossFieldRule, Validator
from vllmchat.errors import Problem
from vllmchat.sampling.rules import (
    CONSTRAINT_CONVERT,
    GENERATION_RULES,
    at_most_max_tokens,
    not_streamed,
    only_streamed,
    text_keys,
    vllm_stream_options,
)

__all__ = [
    "OPENAI_CHAT",
    "OPENAI_CHAT_NAMES",
    "VLLM_CHAT",
    "VLLM_CHAT_NAMES",
    "CheckedParams",
    "check_vllm",
    "suggest",
]

OPENAI_CHAT_NAMES: Final = ChatParams.__required_keys__ | ChatParams.__optional_keys__
"""The names of all chat parameters of `OpenAIProvider`."""

VLLM_CHAT_NAMES: Final = VLLMChatParams.__required_keys__ | VLLMChatParams.__optional_keys__
"""The names of all chat parameters of `VLLMProvider`."""


def _as_sent(fields: dict[str, object]) -> None:
    """Converts the validated fields, in place, to what the server accepts."""
    fold_template(fields)
    text_keys(fields)


def _with_hint(problem: Problem, name: str, value: object) -> Problem:
    """Adds what was probably meant, if the name and the value show it."""
    if problem.parameter != name:
        return problem
    hint = problem.suggestion
    if name == "logprobs" and isinstance(value, int):
        hint = f"Write logprobs=True, top_logprobs={value}."
    elif name == "tool_choice" and isinstance(value, str) and hint is None:
        hint = f'To name a tool, write {{"type": "function", "function": {{"name": "{value}"}}}}.'
    elif name == "response_format" and isinstance(value, str):
        hint = 'For any JSON object, write {"type": "json_object"}.'
    return replace(problem, suggestion=hint)


# Rules across parameters, keyed by the parameter that triggers them. They only see values that are valid by themselves.


def _top_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["top_logprobs"] != 0 and fields.get("logprobs") is not True and "logprobs" not in wrong:
        yield Problem("top_logprobs", format_value(fields["top_logprobs"]), "needs logprobs=True.")


def _tool_choice(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    choice = fields["tool_choice"]
    if choice == "none" or "tools" in wrong:
        return
    if "tools" not in fields:
        yield Problem("tool_choice", format_value(choice), "needs `tools`.")
        return
    name = _chosen(choice)
    if name is None:
        return
    names = [_tool_name(tool) for tool in cast("Sequence[Mapping[str, object]]", fields["tools"])]
    if name not in names:
        meant = suggest(name, names)
        hint = f'Did you mean "{meant}"?' if meant else f"The tools are: {', '.join(names)}."
        yield Problem("tool_choice", format_value(choice), "must name one of the `tools`.", hint)


def _chosen(choice: object) -> str | None:
    """Returns the name of the tool that must be called, if one is named."""
    if not isinstance(choice, Mapping):
        return None
    named = cast("Mapping[str, object]", choice)
    return _tool_name(named) if named["type"] in ("function", "custom") else None


def _tool_name(tool: Mapping[str, object]) -> str:
    return cast("Mapping[str, str]", tool[cast("str", tool["type"])])["name"]


def _logprob_token_ids(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    if not fields["logprob_token_ids"]:
        return
    shown = format_value(fields["logprob_token_ids"])
    if fields.get("logprobs") is not True and "logprobs" not in wrong:
        yield Problem("logprob_token_ids", shown, "needs logprobs=True.")
    if fields.get("use_beam_search") is True:
        yield Problem("logprob_token_ids", shown, "cannot be combined with use_beam_search=True.")


_STREAM: Final = "Call .stream(...) or .astream(...)."

_CHAT_RULES: Final[dict[str, CrossFieldRule]] = {
    "top_logprobs": _top_logprobs,
    "tool_choice": _tool_choice,
    "stream_options": only_streamed(_STREAM),
}


_CONVERT: Final[dict[str, Convert]] = {"tools": convert_tools, **CONSTRAINT_CONVERT}


OPENAI_CHAT: Final = Validator(
    "OpenAIProvider",
    ChatParams,
    _CHAT_RULES,
    other=VLLMChatParams,
    hint=_with_hint,
    finish=_as_sent,
    convert=_CONVERT,
)
"""Validates chats with any OpenAI-compatible server."""

VLLM_CHAT: Final = Validator(
    "VLLMProvider",
    VLLMChatParams,
    {
        **_CHAT_RULES,
        **TEMPLATE_RULES,
        "stream_options": vllm_stream_options(_STREAM),
        **GENERATION_RULES,
        "min_tokens": at_most_max_tokens(None),
        "prompt_logprobs": not_streamed("Call .chat(...) or .achat(...)."),
        "logprob_token_ids": _logprob_token_ids,
    },
    hint=_with_hint,
    finish=_as_sent,
    convert=_CONVERT,
)
"""Validates chats with a vLLM server."""

check_vllm: Final = VLLM_CHAT.check
"""Validates the parameters of a chat with a vLLM server, by vLLM's own rules."""
