"""Validates the parameters of a completion. Rules for single values are part of the parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from vllmchat.chat.check import OPENAI_CHAT_NAMES, VLLM_CHAT_NAMES
from vllmchat.checking.describe import format_value
from vllmchat.checking.rules import fields_of
from vllmchat.checking.validator import CheckedParams, CrossFieldRule, Validator
from vllmchat.completions.params import CompletionParams, VLLMCompletionParams
from vllmchat.errors import Problem
from vllmchat.sampling.rules import CONSTRAINT_CONVERT, GENERATION_RULES, check_stream_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEFAULT_MAX_TOKENS: Final = 16
"""The default of `max_tokens` in completions."""


def check_openai(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    """Validates the parameters of a completion for any OpenAI-compatible server.

    Raises:
        InvalidRequestError: With every problem found.
    """
    return _OPENAI.check(params, stream=stream)


def check_vllm(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    """Validates the parameters of a completion for a vLLM server, by vLLM's own rules.

    Raises:
        InvalidRequestError: With every problem found.
    """
    return _VLLM.check(params, stream=stream)


def _unknown(
    provider: str, params: type, others: type, chat: frozenset[str]
) -> Callable[[str, object], Problem]:
    def problem(name: str, value: object) -> Problem:
        from vllmchat.chat.unknown_names import explain_unknown  # needed only for invalid requests

        if name == "stream":
            rule = "is not a parameter: the method decides whether to stream."
            hint = "Call .stream_complete(...) to stream, .complete(...) for the whole completion."
            return Problem(name, format_value(value), rule, hint)
        if name in ("messages", "input"):
            rule = "is not a parameter: the prompt is the first argument."
            return Problem(
                name, format_value(value), rule, "Write complete(prompt, ...), or call .chat(messages, ...)."
            )
        if name == "max_completion_tokens":
            rule = "has a different name here."
            return Problem(name, format_value(value), rule, f"Write `max_tokens={format_value(value)}`.")
        if name == "top_logprobs":
            rule = "has a different name here."
            return Problem(name, format_value(value), rule, f"Write `logprobs={format_value(value)}`.")
        if name in chat:
            rule = "is a parameter of chats: completions do not use messages or a chat template."
            return Problem(name, format_value(value), rule, "Call .chat(...), or leave it out.")
        return explain_unknown(
            name, value, provider=provider, known=fields_of(params), others=fields_of(others)
        )

    return problem


def _with_hint(problem: Problem, name: str, value: object) -> Problem:
    if name == "cache_salt":
        return replace(
            problem, value=""
        )  # a salt is a secret: it protects against timing attacks on the cache
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


def _min_tokens(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    most = cast("int", fields.get("max_tokens", DEFAULT_MAX_TOKENS))
    if "max_tokens" in wrong or cast("int", fields["min_tokens"]) <= most:
        return
    hint = None if "max_tokens" in fields else "Set `max_tokens` too: it defaults to 16 in completions."
    yield Problem(
        "min_tokens", format_value(fields["min_tokens"]), f"must be at most max_tokens={most}.", hint
    )


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


def _prompt_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    shown = format_value(fields["prompt_logprobs"])
    if stream and fields["prompt_logprobs"] != 0:
        hint = "Call .complete(...) or .acomplete(...)."
        yield Problem("prompt_logprobs", shown, "is not supported when streaming.", hint)
    if "prompt_embeds" in fields:
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


def _stream_options(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if not stream and fields["stream_options"]:
        hint = "Call .stream_complete(...) or .astream_complete(...)."
        yield Problem("stream_options", format_value(fields["stream_options"]), "requires streaming.", hint)


def _vllm_stream_options(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    yield from _stream_options(fields, stream, wrong)
    yield from check_stream_options(cast("Mapping[str, object]", fields["stream_options"]))


def _best_of(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if stream and cast("int", fields["best_of"]) > 1:
        yield Problem("best_of", format_value(fields["best_of"]), "is not supported when streaming.")
    n = fields.get("n", 1)
    if cast("int", fields["best_of"]) < cast("int", n) and "n" not in wrong:
        yield Problem("best_of", format_value(fields["best_of"]), f"must be at least n={n}.")


def _as_sent(fields: dict[str, object]) -> None:
    """Converts the validated fields, in place, to what the server accepts."""
    if "logit_bias" in fields:
        biases = cast("Mapping[object, object]", fields["logit_bias"])
        fields["logit_bias"] = {str(token): bias for token, bias in biases.items()}


_OF_ALL: Final[dict[str, CrossFieldRule]] = {
    "max_tokens": _max_tokens,
    "suffix": _suffix,
    "stream_options": _stream_options,
}

_OPENAI: Final = Validator(
    "OpenAIProvider.complete",
    CompletionParams,
    {**_OF_ALL, "best_of": _best_of},
    unknown=_unknown("OpenAIProvider", CompletionParams, VLLMCompletionParams, OPENAI_CHAT_NAMES),
    hint=_with_hint,
    finish=_as_sent,
)
_VLLM: Final = Validator(
    "VLLMProvider.complete",
    VLLMCompletionParams,
    {
        **GENERATION_RULES,
        **_OF_ALL,
        "stream_options": _vllm_stream_options,
        "min_tokens": _min_tokens,
        "echo": _echo,
        "use_beam_search": _beam_search,
        "prompt_logprobs": _prompt_logprobs,
        "logprob_token_ids": _logprob_token_ids,
    },
    unknown=_unknown("VLLMProvider", VLLMCompletionParams, CompletionParams, VLLM_CHAT_NAMES),
    hint=_with_hint,
    finish=_as_sent,
    convert=CONSTRAINT_CONVERT,
)
