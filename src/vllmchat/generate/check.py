"""Validates the parameters of `generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from vllmchat.checking.describe import format_value
from vllmchat.checking.validator import CrossFieldRule, Validator
from vllmchat.errors import Problem
from vllmchat.generate.params import GenerateParams
from vllmchat.sampling.rules import (
    CONSTRAINT_CONVERT,
    GENERATION_RULES,
    at_most_max_tokens,
    not_streamed,
    only_streamed,
    text_keys,
)

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
        "parse_context",
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


# The server generates up to the remaining context, but checks `min_tokens` against the default of `SamplingParams`, 16.
_MIN_TOKENS: Final = at_most_max_tokens(16, "Set `max_tokens` too.")


def _min_tokens(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if "extra_sampling_params" not in fields:
        yield from _MIN_TOKENS(fields, stream, wrong)


def _detokenize(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["detokenize"] is False:
        mode = fields.get("output_mode", "tokens")
        if mode != "tokens":
            yield Problem("detokenize", "False", f'cannot be combined with output_mode="{mode}".')
        if fields.get("stop"):
            yield Problem("detokenize", "False", "cannot be combined with `stop`.", "Use `stop_token_ids`.")


def _output_mode(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if stream and fields["output_mode"] == "derender":
        rule = "is not available when streaming: the message is made at the end."
        yield Problem("output_mode", "'derender'", rule, "Call .generate(...) or .agenerate(...).")


def _content_parts(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["content_parts"] and fields.get("features"):
        yield Problem("content_parts", "", "cannot be combined with `features`, which are the same media.")


def _logprob_token_ids(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    count = len(cast("Sequence[int]", fields["logprob_token_ids"]))
    if count and fields.get("logprobs", count) != count:
        rule = f"cannot be combined with logprobs={fields['logprobs']}: these tokens replace the most likely ones."
        yield Problem(
            "logprob_token_ids", format_value(fields["logprob_token_ids"]), rule, "Leave `logprobs` out."
        )


def _as_sent(fields: dict[str, object]) -> None:
    """Converts the validated fields, in place, to what the server accepts."""
    sampling = {name: fields.pop(name) for name in list(fields) if name not in OUTSIDE}
    text_keys(sampling)
    if sampling.get("logprob_token_ids"):
        # The server returns nothing unless `logprobs` is their number.
        sampling["logprobs"] = len(cast("Sequence[int]", sampling["logprob_token_ids"]))
    if "vllm_xargs" in sampling:
        sampling["extra_args"] = sampling.pop("vllm_xargs")
    sampling.update(cast("Mapping[str, object]", sampling.pop("extra_sampling_params", {})))
    fields["sampling_params"] = sampling


check_generate: Final = Validator(
    "VLLMProvider.generate",
    GenerateParams,
    cast(
        "dict[str, CrossFieldRule]",
        {
            **{name: rule for name, rule in GENERATION_RULES.items() if name != "response_format"},
            "stream_options": only_streamed("Call .stream_generate(...) or .astream_generate(...)."),
            "min_tokens": _min_tokens,
            "prompt_logprobs": not_streamed("Call .generate(...) or .agenerate(...)."),
            "detokenize": _detokenize,
            "output_mode": _output_mode,
            "content_parts": _content_parts,
            "logprob_token_ids": _logprob_token_ids,
        },
    ),
    own={
        "max_completion_tokens": ("has a different name here.", "Write `max_tokens={value}`."),
        "top_logprobs": ("has a different name here.", "Write `logprobs={value}`."),
        "sampling_params": (
            "is not a parameter.",
            "Write its fields as parameters: `temperature=..., top_k=...`.",
        ),
        "response_format": (
            "is a parameter of chats and completions.",
            'Write structured_outputs={{"json": ...}}.',
        ),
    },
    chats=("is a parameter of chats: here the prompt is already rendered.", "Pass it to .render(...)."),
    hatch="extra_sampling_params",
    finish=_as_sent,
    convert={"structured_outputs": CONSTRAINT_CONVERT["structured_outputs"]},
).check
"""Validates the parameters of a call. Sampling parameters are then in the field `sampling_params`."""
