"""What the answers of all generating endpoints have: why they ended, log probabilities, what they took."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import BaseModel, ConfigDict

from vllmchat.wire.decode import (
    Fallback,
    JsonObject,
    LenientInt,
    LenientList,
    LenientStr,
    WireModel,
    as_object,
    default_for_null,
)

FinishReason: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "function_call", "abort", "repetition"
]
"""Why generation ended.

- `"stop"`: the model ended its turn, or generated a stop string or stop token; also after a named tool choice.
- `"length"`: `max_tokens` or the model's context was reached.
- `"tool_calls"`: the model called tools. Some servers also return this if `max_tokens` truncated the call: check
  `ToolCall.complete`.
- `"abort"`: the server aborted the request (pause, shutdown), and the text is truncated. The HTTP status is still 200.
- `"repetition"`: `repetition_detection` ended it. Since vLLM 0.17.
- `"content_filter"`, `"function_call"`: servers other than vLLM.

Other servers' names for these reasons are replaced by them, in any case: `"eos_token"`, `"end_turn"` and
`"stop_sequence"` by `"stop"`, `"MAX_TOKENS"` by `"length"`, `"tool_use"` by `"tool_calls"`.

Any other reason, such as `"error"` from some gateways, counts as one that truncates the reply: its tool calls are not
executed, and it is not parsed into a value.
"""

_CALLS = frozenset({"tool_calls", "function_call"})
_ENDS = _CALLS | {"stop"}
_TRUNCATIONS = frozenset({"length", "abort", "repetition", "content_filter"})

_NAMES: dict[str, str | None] = {
    **{reason: reason for reason in _ENDS | _TRUNCATIONS},
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence", "complete"), "stop"),
    **dict.fromkeys(("max_tokens", "max_output_tokens", "max_length", "model_length"), "length"),
    **dict.fromkeys(("tool_call", "tool_use"), "tool_calls"),
    "safety": "content_filter",
    # What some servers send while generation goes on.
    **dict.fromkeys(("", "null", "none"), None),
}
"""The reasons by the names that servers have for them."""

LINE_BREAKS = "\r\n"
"""What is left out around the text and the reasoning of a reply."""


def _reason(value: object) -> str | None:
    """A finish reason by its usual name. An unknown one is kept as it is, as text."""
    if not isinstance(value, str):
        return json.dumps(value)
    return _NAMES.get(value.strip().lower().replace("-", "_"), value)


Reason: TypeAlias = Annotated[FinishReason | str | None, Fallback(_reason, tried=FinishReason | None)]
"""A finish reason as a field of a response: what other servers call it is replaced by its usual name."""


def calls_tools(reason: str | None) -> bool:
    """Whether a reply with this finish reason ends with tool calls."""
    return reason in _CALLS


def truncates(reason: str | None) -> bool:
    """Whether a reply with this finish reason may be incomplete. An unknown reason is not a stop."""
    return bool(reason) and reason not in _ENDS


def final_reason(before: str | None, reason: str) -> str:
    """The finish reason of a choice that gets another one: some servers send `stop` after what truncated the reply."""
    return before if before is not None and truncates(before) else reason


def is_unknown(reason: str | None) -> bool:
    """Whether a finish reason is unknown, such as the `error` or `network_error` of some gateways."""
    return truncates(reason) and reason not in _TRUNCATIONS


MISSING_LOGPROB = -9999.0
"""Minus infinity on the wire, and the default for a log probability that was not sent."""


# Plain dataclasses that keep only the fields below: there are six of them per token, and models took three times the
# time and memory.
@dataclass(slots=True)
class TopLogprob:
    """One of the most likely tokens at a position. Other fields are not kept."""

    __pydantic_config__ = ConfigDict(extra="ignore")

    token: LenientStr = ""
    """The token as text; with `return_tokens_as_token_ids`, as `"token_id:17"`."""

    logprob: Annotated[float, default_for_null(lambda: MISSING_LOGPROB)] = MISSING_LOGPROB
    """Natural logarithm of its probability; -9999.0 means minus infinity or "not sent"."""

    bytes: list[int] | None = None
    """The token's UTF-8 bytes, 0 to 255 each. A token may be part of a character."""


@dataclass(slots=True)
class TokenLogprob(TopLogprob):
    """The token generated at a position, and the most likely ones. Other fields are not kept."""

    top_logprobs: LenientList[TopLogprob] = field(default_factory=list[TopLogprob])
    """The most likely tokens at this position, as many as `top_logprobs` requested."""


class PromptLogprob(WireModel):
    """The log probability of a token at a position of the prompt."""

    logprob: Annotated[float, default_for_null(lambda: MISSING_LOGPROB)] = MISSING_LOGPROB
    """Natural logarithm of its probability; -9999.0 means minus infinity."""

    rank: int | None = None
    """Its rank among all tokens; 1 is the most likely."""

    decoded_token: str | None = None
    """The token as text."""


class WeightVersion(WireModel):
    """The version of the weights that generated a range of tokens."""

    version: LenientStr = ""
    """The version."""

    start: LenientInt = 0
    """Index of the first token."""

    end: LenientInt = 0
    """Index after the last token."""


class _Summable(WireModel):
    """Counts that can be added up."""

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return cast("Self", _added(self, other))

    def __radd__(self, other: int) -> Self:
        if other != 0:  # where `sum` starts
            return NotImplemented
        return self


def _added(first: object, second: object) -> object:
    """The sum of two counts, or of two objects of them. None counts as nothing."""
    if first is None or second is None:
        return second if first is None else first
    if isinstance(first, BaseModel):
        kind, fields = type(first), _fields_of(first)
        added: dict[str, Any] = _added_fields(fields, _fields_of(second))
        return kind.model_construct(**added)
    if isinstance(first, int | float) and isinstance(second, int | float):
        return first + second
    counts, others = as_object(first), as_object(second)
    if counts is not None and others is not None:
        return _added_fields(counts, others)
    # Not a count, such as a text: of both only if it is the same.
    return first if first == second else None


def _fields_of(model: object) -> JsonObject:
    return dict(cast("BaseModel", model))


def _added_fields(first: JsonObject, second: JsonObject) -> JsonObject:
    return {name: _added(first.get(name), second.get(name)) for name in {**first, **second}}


class PromptTokensDetails(WireModel):
    """Details of the prompt tokens. Only from servers started with `--enable-prompt-tokens-details`."""

    cached_tokens: int | None = None
    """Tokens found in the prefix cache."""

    created_cache_tokens: int | None = None
    """Tokens added to the prefix cache. Since vLLM 0.26."""

    multimodal_tokens: dict[str, int] | None = None
    """Tokens for images, audio and video, by modality. Since vLLM 0.24."""


class CompletionTokensDetails(WireModel):
    """Details of the generated tokens. Only from servers with a reasoning parser, since vLLM 0.28."""

    reasoning_tokens: int | None = None
    """Tokens of reasoning."""


class Usage(_Summable):
    """The token usage of a request. `usage + usage` is the usage of both, and `sum` adds up many."""

    prompt_tokens: LenientInt = 0
    """Tokens in the prompt."""

    completion_tokens: LenientInt = 0
    """Generated tokens in all choices, including reasoning."""

    total_tokens: LenientInt = 0
    """The sum of both."""

    prompt_tokens_details: PromptTokensDetails | None = None
    """Details of the prompt tokens."""

    completion_tokens_details: CompletionTokensDetails | None = None
    """Details of the generated tokens."""


class InputTokensDetails(WireModel):
    """Details of the prompt tokens."""

    cached_tokens: LenientInt = 0
    """Tokens found in the prefix cache."""

    cache_write_tokens: int | None = None
    """Tokens added to the prefix cache."""


class OutputTokensDetails(WireModel):
    """Details of the generated tokens."""

    reasoning_tokens: LenientInt = 0
    """Tokens of reasoning."""

    tool_output_tokens: int | None = None
    """Tokens from the server's own tools."""


class ResponseUsage(_Summable):
    """The token usage of a response of the Responses API, or of a decision. Add them up as those of `Usage`."""

    input_tokens: LenientInt = 0
    """Tokens in the prompt."""

    output_tokens: LenientInt = 0
    """Generated tokens, including reasoning."""

    total_tokens: LenientInt = 0
    """The sum of both."""

    input_tokens_details: InputTokensDetails | None = None
    """Details of the prompt tokens."""

    output_tokens_details: OutputTokensDetails | None = None
    """Details of the generated tokens."""


class RequestMetrics(WireModel):
    """Timings measured by the server. Since vLLM 0.25, with `--enable-per-request-metrics` and `n=1`."""

    time_to_first_token_ms: float | None = None
    """Time from arrival to the first token, in milliseconds."""

    generation_time_ms: float | None = None
    """Time from the first to the last token, in milliseconds."""

    queue_time_ms: float | None = None
    """Time spent in the queue, in milliseconds."""

    mean_itl_ms: float | None = None
    """Mean inter-token latency, in milliseconds."""

    tokens_per_second: float | None = None
    """Generated tokens per second."""

    speculative_decoding: JsonObject | None = None
    """Statistics such as accepted draft tokens, if the server uses speculative decoding. Since vLLM 0.29."""
