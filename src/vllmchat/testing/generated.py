"""What replies of all generating endpoints share on the wire: where they come from, and what they took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic_core import to_json

from vllmchat.testing.tokens import split
from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vllmchat.chat.completion import ToolCall
    from vllmchat.testing.call import Call
    from vllmchat.testing.replies import Reply
    from vllmchat.testing.tokens import Vocabulary
    from vllmchat.wire.usage import Usage

Object: TypeAlias = dict[str, Any]

FINGERPRINT: Final = "vllm-fake"

_LOGPROB: Final = -0.125
"""The log probability of each token; those that were not chosen are less likely by 2 each."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a reply comes from.

    Attributes:
        id: The id of the reply.
        model: The name of the model.
        created: In seconds since 1970.
        prompt: The text of the prompt.
        vocabulary: Numbers the tokens.
        chunk: Characters per streamed piece; None for a token.
    """

    id: str
    model: str
    created: int
    prompt: str
    vocabulary: Vocabulary
    chunk: int | None = None


def event(body: Mapping[str, object]) -> bytes:
    """A server-sent event as vLLM writes it."""
    return b"data: " + to_json(body) + b"\n\n"


def call_tokens(call: ToolCall) -> list[str]:
    """The tokens of a tool call."""
    return split(call.function.name) + split(call.function.arguments)


@dataclass(frozen=True, slots=True)
class Count:
    """The tokens of one reply.

    Attributes:
        prompt: Tokens of the prompt.
        reasoning: Tokens of the reasoning.
        generated: All generated tokens.
    """

    prompt: int
    reasoning: int
    generated: int


def count(call: Call, origin: Origin, choice: Reply, finish_reason: str) -> Count:
    """Counts the tokens of one choice. They are fewer than `max_tokens`, unless that ended the reply."""
    if (usage := choice.usage) is not None:
        details = usage.completion_tokens_details
        reasoning = (details.reasoning_tokens if details is not None else None) or 0
        return Count(usage.prompt_tokens, reasoning, usage.completion_tokens)
    reasoning = len(split(choice.reasoning or ""))
    generated = (
        reasoning + len(split(choice.text)) + sum(len(call_tokens(each)) for each in choice.tool_calls) + 1
    )
    limits: Sequence[object] = (call.params.get("max_completion_tokens"), call.params.get("max_tokens"))
    limit = next((each for each in limits if isinstance(each, int)), None)
    if limit is not None:
        generated = limit if finish_reason == "length" else min(generated, max(limit - 1, 1))
    return Count(len(split(origin.prompt)), min(reasoning, generated), generated)


def whole_usage(counts: Sequence[Count], given: Usage | None = None) -> Object:
    """The usage of a whole reply. The details of the prompt are those of a server that reports them."""
    if given is not None:
        return given.model_dump()
    total = _total(counts)
    return {
        **_numbers(total),
        "prompt_tokens_details": {"cached_tokens": 0, "created_cache_tokens": 0, "multimodal_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": total.reasoning},
    }


def stream_usage(counts: Sequence[Count], given: Usage | None = None) -> Object:
    """The usage at the end of a stream."""
    if given is not None:
        return given.model_dump(exclude_none=True)
    total = _total(counts)
    return {
        **_numbers(total),
        "prompt_tokens_details": {"cached_tokens": 0, "created_cache_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": total.reasoning},
    }


def usage_so_far(total: Count) -> Object:
    """The usage in the middle of a stream, for `continuous_usage_stats`."""
    return {**_numbers(total), "completion_tokens_details": {"reasoning_tokens": total.reasoning}}


def _total(counts: Sequence[Count]) -> Count:
    generated = sum(each.generated for each in counts)
    return Count(counts[0].prompt if counts else 0, sum(each.reasoning for each in counts), generated)


def _numbers(total: Count) -> Object:
    return {
        "prompt_tokens": total.prompt,
        "total_tokens": total.prompt + total.generated,
        "completion_tokens": total.generated,
    }


def token_logprobs(tokens: Iterable[str], top: int) -> list[Object]:
    """The log probabilities of chosen tokens, as chats report them."""
    return [
        {
            **_entry(token, _LOGPROB),
            "top_logprobs": [
                _entry(token if not rank else f"<other {rank}>", _LOGPROB - 2 * rank) for rank in range(top)
            ],
        }
        for token in tokens
    ]


def _entry(token: str, logprob: float) -> Object:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def text_logprobs(tokens: Sequence[str], top: int, offset: int = 0) -> Object:
    """The log probabilities of chosen tokens, as completions report them."""
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "text_offset": offsets,
        "token_logprobs": [_LOGPROB] * len(tokens),
        "tokens": list(tokens),
        "top_logprobs": [
            {token if not rank else f"<other {rank}>": _LOGPROB - 2 * rank for rank in range(max(top, 1))}
            for token in tokens
        ],
    }


def stream_options(call: Call) -> tuple[bool, bool]:
    """Whether a stream ends with the usage, and whether each chunk has the usage so far."""
    options = as_object(call.params.get("stream_options")) or {}
    ends = bool(options.get("include_usage"))
    return ends, ends and bool(options.get("continuous_usage_stats"))
