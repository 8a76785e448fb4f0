"""Replies of `/v1/completions`, as vLLM 0.32 sends them."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from pydantic_core import to_json

from vllmchat.testing.exchange import DONE, Response
from vllmchat.testing.generated import (
    FINGERPRINT,
    Count,
    Object,
    Origin,
    count,
    event,
    stream_options,
    stream_usage,
    text_logprobs,
    usage_so_far,
    whole_usage,
)
from vllmchat.testing.tokens import pieces_of, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vllmchat.testing.call import Call
    from vllmchat.testing.replies import Reply


def completion_response(call: Call, origin: Origin, choices: Sequence[Reply]) -> tuple[Response, list[Count]]:
    """The response to a completion, whole or streamed, and the tokens of each choice."""
    counts = [count(call, origin, choice, choice.finish_reason or "stop") for choice in choices]
    if call.stream:
        return Response(list(_events(call, origin, choices, counts))), counts
    return Response(to_json(_whole(call, origin, choices, counts))), counts


def _top(call: Call) -> int | None:
    top = call.params.get("logprobs")
    return top if isinstance(top, int) and not isinstance(top, bool) else None


def _whole(call: Call, origin: Origin, choices: Sequence[Reply], counts: Sequence[Count]) -> Object:
    ids, top = bool(call.params.get("return_token_ids")), _top(call)
    bodies = [
        {
            "index": index,
            "text": choice.text,
            "logprobs": None if top is None else text_logprobs(split(choice.text), top),
            "finish_reason": choice.finish_reason or "stop",
            "stop_reason": choice.stop_reason,
            "token_ids": origin.vocabulary.encode(choice.text) if ids else None,
            "prompt_logprobs": None,
            "prompt_token_ids": origin.vocabulary.encode(origin.prompt) if ids else None,
            "routed_experts": None,
        }
        for index, choice in enumerate(choices)
    ]
    usage = whole_usage(counts, choices[0].usage if len(choices) == 1 else None)
    if not (choices[0].usage and len(choices) == 1):
        usage["prompt_tokens_details"] = {
            "cached_tokens": 0,
            "created_cache_tokens": None,
            "multimodal_tokens": None,
        }
        usage["completion_tokens_details"] = None
    return {
        "id": origin.id,
        "object": "text_completion",
        "created": origin.created,
        "model": origin.model,
        "choices": bodies,
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _events(call: Call, origin: Origin, choices: Sequence[Reply], counts: Sequence[Count]) -> Iterator[bytes]:
    ends_with_usage, continuous = stream_options(call)
    ids, top = bool(call.params.get("return_token_ids")), _top(call)
    head: Object = {
        "id": origin.id,
        "object": "text_completion",
        "created": origin.created,
        "model": origin.model,
    }
    strands = [_pieces(origin, choice) for choice in choices]
    offsets, generated, first = [0] * len(choices), [0] * len(choices), [True] * len(choices)
    for turn in zip_longest(*strands):
        for index, step in enumerate(turn):
            if step is None:
                continue
            piece, last = step
            tokens = split(piece)
            logprobs = None if top is None else text_logprobs(tokens, top, offsets[index])
            offsets[index] += len(piece)
            generated[index] = counts[index].generated if last else generated[index] + len(tokens)
            body: Object = {
                "index": index,
                "text": piece,
                "logprobs": logprobs,
                "finish_reason": (choices[index].finish_reason or "stop") if last else None,
                "stop_reason": choices[index].stop_reason if last else None,
                "prompt_token_ids": origin.vocabulary.encode(origin.prompt) if ids and first[index] else None,
                "token_ids": origin.vocabulary.encode(piece) if ids else None,
            }
            first[index] = False
            usage: Object = {}
            if continuous:
                so_far = usage_so_far(Count(counts[index].prompt, 0, generated[index]))
                so_far.pop("completion_tokens_details")
                usage = {"usage": so_far}
            yield event({**head, "choices": [body], **usage})
    if ends_with_usage:
        usage = stream_usage(counts, choices[0].usage if len(choices) == 1 else None)
        if not (choices[0].usage and len(choices) == 1):
            usage["prompt_tokens_details"] = {"cached_tokens": 0}
            usage.pop("completion_tokens_details")
        yield event({**head, "choices": [], "usage": usage, "system_fingerprint": FINGERPRINT})
    yield DONE


def _pieces(origin: Origin, choice: Reply) -> Iterator[tuple[str, bool]]:
    """The pieces of a text, and whether each is the last one."""
    pieces = (
        choice.pieces if choice.pieces is not None else pieces_of(choice.text, choice.chunk or origin.chunk)
    )
    filled = [piece for piece in pieces if piece] or [""]
    for number, piece in enumerate(filled):
        yield piece, number == len(filled) - 1
