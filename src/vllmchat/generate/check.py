"""Validates the parameters of `generate`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from vllmchat.chat.check import VLLM_CHAT_NAMES
from vllmchat.checking.describe import format_value, suggest
from vllmchat.checking.validator import CheckedParams, CrossFieldRule, Validator
from vllmchat.errors import Problem
from vllmchat.generate.params import GenerateParams
from vllmchat.sampling.rules import CONSTRAINT_CONVERT, GENERATION_RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OUTSIDE: Final = frozenset(
    {
        "cache_salt",
        "content_parts",
        "ec_transfer_params",
        "extra_body",
        "extra_headers",
        "features",
        "kv_transfer_params",
        "output_mode",
        "priority",
        "reasoning_ended",
        "reasoning_parser_kwargs",
        "request_id",
        "return_token_ids",
        "stream_options",
        "timeout",
    }
)
"""Top-level fields of the request; all other parameters go into its `sampling_params`."""

NAMES: Final = GenerateParams.__required_keys__ | GenerateParams.__optional_keys__
"""The names of all parameters."""


def check_generate(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    """Validates the parameters of a call. Sampling parameters are then in the field `sampling_params`.

    Raises:
        InvalidRequestError: With every problem found.
    """
    return _VALIDATOR.check(params, stream=stream)


def _unknown(name: str, value: object) -> Problem:
    shown = format_value(value)
    if name == "stream":
        rule = "is not a parameter: the method decides whether to stream."
        hint = "Call .stream_generate(...) to stream, .generate(...) for the whole generation."
        return Problem(name, shown, rule, hint)
    if name == "max_completion_tokens":
        return Problem(name, shown, "has a different name here.", f"Write `max_tokens={shown}`.")
    if name == "top_logprobs":
        return Problem(name, shown, "has a different name here.", f"Write `logprobs={shown}`.")
    if name == "sampling_params":
        hint = "Write its fields as parameters: `temperature=..., top_k=...`."
        return Problem(name, shown, "is not a parameter.", hint)
    if name == "response_format":
        hint = 'Write structured_outputs={"json": ...}.'
        return Problem(name, shown, "is a parameter of chats and completions.", hint)
    if name in VLLM_CHAT_NAMES:
        rule = "is a parameter of chats: here the prompt is already rendered."
        return Problem(name, shown, rule, "Pass it to .render(...).")
    meant = suggest(name, NAMES)
    if meant:
        return Problem(
            name, shown, "is not a parameter of VLLMProvider.generate.", f"Did you mean `{meant}`?"
        )
    hint = f'If your server accepts it, write extra_sampling_params={{"{name}": ...}}.'
    return Problem(name, shown, "is not a parameter of VLLMProvider.generate.", hint)


def _with_hint(problem: Problem, name: str, value: object) -> Problem:
    # A salt is a secret: it protects against timing attacks on the cache.
    return replace(problem, value="") if name == "cache_salt" else problem


def _stream_options(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if not stream and fields["stream_options"]:
        hint = "Call .stream_generate(...) or .astream_generate(...)."
        yield Problem("stream_options", format_value(fields["stream_options"]), "requires streaming.", hint)


def _min_tokens(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if "max_tokens" in wrong or "extra_sampling_params" in fields:
        return
    # The server generates up to the remaining context, but checks `min_tokens` against the default of
    # `SamplingParams`, 16.
    most = cast("int", fields.get("max_tokens", 16))
    if cast("int", fields["min_tokens"]) > most:
        hint = None if "max_tokens" in fields else "Set `max_tokens` too."
        yield Problem(
            "min_tokens", format_value(fields["min_tokens"]), f"must be at most max_tokens={most}.", hint
        )


def _prompt_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if stream and fields["prompt_logprobs"] != 0:
        hint = "Call .generate(...) or .agenerate(...)."
        yield Problem(
            "prompt_logprobs",
            format_value(fields["prompt_logprobs"]),
            "is not supported when streaming.",
            hint,
        )


def _detokenize(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["detokenize"] is False:
        if fields.get("output_mode") == "text":
            yield Problem("detokenize", "False", 'cannot be combined with output_mode="text".')
        if fields.get("stop"):
            yield Problem("detokenize", "False", "cannot be combined with `stop`.", "Use `stop_token_ids`.")


def _content_parts(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["content_parts"] and fields.get("features"):
        yield Problem("content_parts", "", "cannot be combined with `features`, which are the same media.")


def _logprob_token_ids(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    wanted = len(cast("Sequence[int]", fields["logprob_token_ids"]))
    if wanted and fields.get("logprobs", wanted) != wanted:
        rule = f"cannot be combined with logprobs={fields['logprobs']}: these tokens replace the most likely ones."
        yield Problem(
            "logprob_token_ids", format_value(fields["logprob_token_ids"]), rule, "Leave `logprobs` out."
        )


def _as_sent(fields: dict[str, object]) -> None:
    """Converts the validated fields, in place, to what the server accepts."""
    sampling = {name: fields.pop(name) for name in list(fields) if name not in OUTSIDE}
    if "logit_bias" in sampling:
        biases = cast("Mapping[object, object]", sampling["logit_bias"])
        sampling["logit_bias"] = {str(token): bias for token, bias in biases.items()}
    if sampling.get("logprob_token_ids"):
        # The server returns nothing unless `logprobs` is their number.
        sampling["logprobs"] = len(cast("Sequence[int]", sampling["logprob_token_ids"]))
    if "vllm_xargs" in sampling:
        sampling["extra_args"] = sampling.pop("vllm_xargs")
    sampling.update(cast("Mapping[str, object]", sampling.pop("extra_sampling_params", {})))
    fields["sampling_params"] = sampling


_VALIDATOR: Final = Validator(
    "VLLMProvider.generate",
    GenerateParams,
    cast(
        "dict[str, CrossFieldRule]",
        {
            **{name: rule for name, rule in GENERATION_RULES.items() if name != "response_format"},
            "stream_options": _stream_options,
            "min_tokens": _min_tokens,
            "prompt_logprobs": _prompt_logprobs,
            "detokenize": _detokenize,
            "content_parts": _content_parts,
            "logprob_token_ids": _logprob_token_ids,
        },
    ),
    unknown=_unknown,
    hint=_with_hint,
    finish=_as_sent,
    convert={"structured_outputs": CONSTRAINT_CONVERT["structured_outputs"]},
)
