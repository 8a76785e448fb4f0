"""What a request to generate from tokens may hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from vllmchat.chat.check import CONSTRAINT_CONVERT, GENERATION_RULES, VLLM_CHAT_NAMES
from vllmchat.checking.dialect import Between, CheckedParams, Dialect
from vllmchat.checking.words import show, suggest
from vllmchat.errors import Problem
from vllmchat.generate.params import GenerateParams

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
"""What stands in the request itself; all else goes into its `sampling_params`."""

NAMES: Final = GenerateParams.__required_keys__ | GenerateParams.__optional_keys__
"""The names of all parameters."""


def check_generate(params: Mapping[str, object], *, stream: bool) -> CheckedParams:
    """Check the parameters of a call. Those of sampling are in the field `sampling_params` then.

    Raises:
        InvalidRequestError: With every problem found.
    """
    return _DIALECT.check(params, stream=stream)


def _unknown(name: str, value: object) -> Problem:
    shown = show(value)
    if name == "stream":
        hint = "Call .stream_generate(...) for a stream, .generate(...) for the whole."
        return Problem(name, shown, "is not a parameter: the verb decides.", hint)
    if name == "max_completion_tokens":
        return Problem(
            name, shown, "is not what this parameter is called here.", f"Write `max_tokens={shown}`."
        )
    if name == "top_logprobs":
        return Problem(
            name, shown, "is not what this parameter is called here.", f"Write `logprobs={shown}`."
        )
    if name == "sampling_params":
        hint = "Write its fields as parameters: `temperature=..., top_k=...`."
        return Problem(name, shown, "is not a parameter.", hint)
    if name == "response_format":
        hint = 'Write structured_outputs={"json": ...}.'
        return Problem(name, shown, "is a parameter of chats and completions.", hint)
    if name in VLLM_CHAT_NAMES:
        rule = "is a parameter of chats: here the prompt is made of tokens already."
        return Problem(name, shown, rule, "Give it to .render(...).")
    meant = suggest(name, NAMES)
    if meant:
        return Problem(
            name, shown, "is not a parameter of VLLMProvider.generate.", f"Did you mean `{meant}`?"
        )
    hint = f'If the server knows it, write extra_sampling_params={{"{name}": ...}}.'
    return Problem(name, shown, "is not a parameter of VLLMProvider.generate.", hint)


def _with_hint(problem: Problem, name: str, value: object) -> Problem:
    # Who knows another's salt can time its cache.
    return replace(problem, value="") if name == "cache_salt" else problem


def _stream_options(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if not stream and fields["stream_options"]:
        hint = "Call .stream_generate(...) or .astream_generate(...)."
        yield Problem("stream_options", show(fields["stream_options"]), "is only for streams.", hint)


def _min_tokens(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if "max_tokens" in wrong or "extra_sampling_params" in fields:
        return
    # The route generates as much as the context leaves, but judges `min_tokens` by the 16 of `SamplingParams`.
    most = cast("int", fields.get("max_tokens", 16))
    if cast("int", fields["min_tokens"]) > most:
        hint = None if "max_tokens" in fields else "Set `max_tokens` too."
        yield Problem("min_tokens", show(fields["min_tokens"]), f"must be at most max_tokens={most}.", hint)


def _prompt_logprobs(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if stream and fields["prompt_logprobs"] != 0:
        hint = "Call .generate(...) or .agenerate(...)."
        yield Problem("prompt_logprobs", show(fields["prompt_logprobs"]), "is not for streams.", hint)


def _detokenize(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["detokenize"] is False:
        if fields.get("output_mode") == "text":
            yield Problem("detokenize", "False", 'does not go with output_mode="text".')
        if fields.get("stop"):
            yield Problem("detokenize", "False", "does not go with `stop`.", "Write `stop_token_ids`.")


def _content_parts(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> Iterable[Problem]:
    if fields["content_parts"] and fields.get("features"):
        yield Problem("content_parts", "", "does not go with `features`: they are the same, processed.")


def _logprob_token_ids(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    wanted = len(cast("Sequence[int]", fields["logprob_token_ids"]))
    if wanted and fields.get("logprobs", wanted) != wanted:
        rule = f"does not go with logprobs={fields['logprobs']}: these tokens take the place of the likeliest ones."
        yield Problem("logprob_token_ids", show(fields["logprob_token_ids"]), rule, "Leave `logprobs` out.")


def _as_sent(fields: dict[str, object]) -> None:
    """The checked fields in the form that the server takes."""
    sampling = {name: fields.pop(name) for name in list(fields) if name not in OUTSIDE}
    if "logit_bias" in sampling:
        biases = cast("Mapping[object, object]", sampling["logit_bias"])
        sampling["logit_bias"] = {str(token): bias for token, bias in biases.items()}
    if sampling.get("logprob_token_ids"):
        # Without their number nothing is returned.
        sampling["logprobs"] = len(cast("Sequence[int]", sampling["logprob_token_ids"]))
    if "vllm_xargs" in sampling:
        sampling["extra_args"] = sampling.pop("vllm_xargs")
    sampling.update(cast("Mapping[str, object]", sampling.pop("extra_sampling_params", {})))
    fields["sampling_params"] = sampling


_DIALECT: Final = Dialect(
    "VLLMProvider.generate",
    GenerateParams,
    cast(
        "dict[str, Between]",
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
