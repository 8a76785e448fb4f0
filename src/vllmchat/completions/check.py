"""Validates the parameters of a completion. Rules for single values are part of the parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from vllmchat.checking.describe import format_value
from vllmchat.checking.validator import CrossFieldRule, Explanation, Validator
from vllmchat.completions.params import CompletionParams, VLLMCompletionParams
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_MAX_TOKENS: Final = 16
"""The default of `max_tokens` in completions."""


def _with_hint(problem: Problem, name: str, value: object) -> Problem:
    if name == "logprobs" and isinstance(value, bool):
        hint = (
            "Write logprobs=0 for the generated tokens only, logprobs=5 to add the five most likely tokens."
        )
        return replace(problem, suggestion=hint)
    return problem


# Rules across parameters, keyed by the parameter that triggers them. They only see values that are valid by themselves.


def _max_tokens(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["max_tokens"] == 0 and fields.get("echo") is not True and "echo" not in wrong:
        yield Problem("max_tokens", "0", "must be at least 1, unless echo=True requests only the prompt.")


def _suffix(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    shown = format_value(fields["suffix"])
    if fields.get("echo") is True:
        yield Problem("suffix", shown, "cannot be combined with echo=True.")
    for name in ("prompt_embeds", "truncate_prompt_tokens"):
        if name in fields:
            yield Problem("suffix", shown, f"cannot be combined with `{name}`.")


def _echo(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["echo"] is not True:
        return
    if "prompt_embeds" in fields:
        yield Problem("echo", "True", "cannot be combined with `prompt_embeds`, which have no text.")
    if fields.get("use_beam_search") is True and "logprobs" in fields:
        rule = "cannot be combined with `logprobs` in beam search, which returns none for the prompt."
        yield Problem("echo", "True", rule)


def _beam_search(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    yield from GENERATION_RULES["use_beam_search"](fields, stream, wrong)
    if stream and fields["use_beam_search"] is True:
        hint = "Call .complete(...) or .acomplete(...)."
        yield Problem(
            "use_beam_search",
            "True",
            "is not supported when streaming: the best beam is known at the end.",
            hint,
        )


_PROMPT_LOGPROBS: Final = not_streamed("Call .complete(...) or .acomplete(...).")


def _prompt_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    yield from _PROMPT_LOGPROBS(fields, stream, wrong)
    if "prompt_embeds" in fields:
        shown = format_value(fields["prompt_logprobs"])
        yield Problem("prompt_logprobs", shown, "cannot be combined with `prompt_embeds`.")


def _logprob_token_ids(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    if not fields["logprob_token_ids"]:
        return
    shown = format_value(fields["logprob_token_ids"])
    if "logprobs" not in fields and "logprobs" not in wrong:
        yield Problem("logprob_token_ids", shown, "needs `logprobs`.", "Add logprobs=0.")
    if fields.get("use_beam_search") is True:
        yield Problem("logprob_token_ids", shown, "cannot be combined with use_beam_search=True.")
    if fields.get("echo") is True and fields.get("max_tokens") == 0:
        rule = "cannot be combined with max_tokens=0: no tokens are generated."
        yield Problem("logprob_token_ids", shown, rule)


def _best_of(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if stream and cast("int", fields["best_of"]) > 1:
        yield Problem("best_of", format_value(fields["best_of"]), "is not supported when streaming.")
    n = fields.get("n", 1)
    if cast("int", fields["best_of"]) < cast("int", n) and "n" not in wrong:
        yield Problem("best_of", format_value(fields["best_of"]), f"must be at least n={n}.")


_OWN: Final[dict[str, Explanation]] = {
    "messages": (
        "is not a parameter: the prompt is the first argument.",
        "Write complete(prompt, ...), or call .chat(messages, ...).",
    ),
    "max_completion_tokens": ("has a different name here.", "Write `max_tokens={value}`."),
    "top_logprobs": ("has a different name here.", "Write `logprobs={value}`."),
}
_CHATS: Final[Explanation] = (
    "is a parameter of chats: completions do not use messages or a chat template.",
    "Call .chat(...), or leave it out.",
)

_STREAM: Final = "Call .stream_complete(...) or .astream_complete(...)."

_OF_ALL: Final[dict[str, CrossFieldRule]] = {
    "max_tokens": _max_tokens,
    "suffix": _suffix,
    "stream_options": only_streamed(_STREAM),
}

check_openai: Final = Validator(
    "OpenAIProvider.complete",
    CompletionParams,
    {**_OF_ALL, "best_of": _best_of},
    own=_OWN,
    chats=_CHATS,
    other=VLLMCompletionParams,
    hint=_with_hint,
    finish=text_keys,
).check
"""Validates the parameters of a completion for any OpenAI-compatible server."""

check_vllm: Final = Validator(
    "VLLMProvider.complete",
    VLLMCompletionParams,
    {
        **GENERATION_RULES,
        **_OF_ALL,
        "stream_options": vllm_stream_options(_STREAM),
        "min_tokens": at_most_max_tokens(
            DEFAULT_MAX_TOKENS, "Set `max_tokens` too: it defaults to 16 in completions."
        ),
        "echo": _echo,
        "use_beam_search": _beam_search,
        "prompt_logprobs": _prompt_logprobs,
        "logprob_token_ids": _logprob_token_ids,
    },
    own=_OWN,
    chats=_CHATS,
    hint=_with_hint,
    finish=text_keys,
    convert=CONSTRAINT_CONVERT,
).check
"""Validates the parameters of a completion for a vLLM server, by vLLM's own rules."""
