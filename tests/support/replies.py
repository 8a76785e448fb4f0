"""Random replies, and the same replies split into the chunks of a stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]


@dataclass(frozen=True)
class Streamed:
    """A reply in both forms.

    Attributes:
        reply: The response body without streaming, decoded.
        chunks: The data of the events with streaming.
    """

    reply: Object
    chunks: list[bytes]

    @property
    def body(self) -> bytes:
        """The response body without streaming."""
        return json.dumps(self.reply, ensure_ascii=False).encode()


_texts = st.text(max_size=12)
_names = st.text("abcdef_", min_size=1, max_size=4)
_objects = st.dictionaries(_texts, st.integers() | _texts | st.lists(st.booleans(), max_size=2), max_size=3)
_head: Object = {"id": "chatcmpl-1", "created": 1, "model": "m"}


@st.composite
def _pieces(draw: st.DrawFn, text: str) -> list[str]:
    """A text split at random; some pieces are empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def _tool_call(draw: st.DrawFn, position: int) -> Object:
    # IDs differ by position; dropping the end of its arguments makes a call a cut one.
    arguments = json.dumps(draw(_objects), ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 4)) == 0:
        arguments = arguments[: draw(st.integers(0, len(arguments)))]
    return {
        "id": f"call-{position}",
        "type": "function",
        "function": {"name": draw(_names), "arguments": arguments},
    }


@st.composite
def _call_deltas(draw: st.DrawFn, index: int, call: Object) -> list[Object]:
    """The pieces of one tool call, in one of the forms that servers send."""
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    head: Object = {"index": index, "id": call["id"], "type": "function", "function": {}}
    repeated: Object = draw(
        st.sampled_from([{}, {"id": ""}, {"id": None, "type": None}, {"id": call["id"], "type": "function"}])
    )
    no_name: Object = draw(st.sampled_from([{}, {"name": None}, {"name": ""}]))
    form = draw(st.sampled_from(["whole", "head first", "name late"]))
    if form == "whole":
        return [{**head, "function": {"name": name, "arguments": arguments}}]
    deltas: list[Object] = [
        {"index": index, **repeated, "function": {**no_name, "arguments": piece}}
        for piece in draw(_pieces(arguments))
    ]
    if form == "name late":
        deltas[0]["function"]["name"] = name
        return [
            {**head, "function": draw(st.sampled_from([None, {}, {"name": ""}, {"arguments": None}]))},
            *deltas,
        ]
    empty: Object = draw(st.sampled_from([{}, {"arguments": None}, {"arguments": ""}]))
    return [{**head, "function": {"name": name, **empty}}, *deltas]


@st.composite
def _woven(draw: st.DrawFn, strands: list[list[Any]]) -> list[Any]:
    """All items, interleaved, each strand in its own order."""
    order = draw(st.permutations([number for number, strand in enumerate(strands) for _ in strand]))
    waiting = [iter(strand) for strand in strands]
    return [next(waiting[number]) for number in order]


@st.composite
def _choice(draw: st.DrawFn, index: int) -> tuple[Object, list[Object]]:
    """One choice of the whole reply, and its pieces."""
    reasoning = draw(st.none() | _texts.filter(bool))
    content = draw(_texts)
    calls = [draw(_tool_call(position)) for position in range(draw(st.integers(0, 3)))]
    finish_reason = draw(st.sampled_from(["stop", "length", "abort", *(["tool_calls"] if calls else [])]))
    stop_reason = draw(st.none() | st.integers(0, 9) | _texts)
    tokens = draw(st.none() | st.lists(_texts, max_size=4))
    old_name = draw(st.sampled_from([False, True, None]))

    deltas: list[Object] = [{"content": piece} for piece in draw(_pieces(content))]
    if reasoning is not None:
        names = {False: ["reasoning"], True: ["reasoning_content"], None: ["reasoning", "reasoning_content"]}
        deltas = [dict.fromkeys(names[old_name], piece) for piece in draw(_pieces(reasoning))] + deltas
    pieces = draw(_woven([draw(_call_deltas(number, call)) for number, call in enumerate(calls)]))
    while pieces:
        count = draw(st.integers(1, len(pieces)))
        deltas.append({"content": None, "tool_calls": pieces[:count]})
        del pieces[:count]
    if len(deltas) > 1 and draw(st.booleans()):  # several kinds in one chunk
        at = draw(st.integers(0, len(deltas) - 2))
        first, second = deltas[at], deltas[at + 1]
        if not {name for name in first if first[name] is not None} & set(second):
            deltas[at : at + 2] = [
                {**first, **{key: value for key, value in second.items() if value is not None}}
            ]

    parts: list[Object] = [
        {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None}
        for delta in [{"role": "assistant", "content": ""}, *deltas]
    ]
    for number, token in enumerate(tokens or []):
        part = parts[min(1 + number, len(parts) - 1)]
        logprob: Object = {"token": token, "logprob": -0.5, "top_logprobs": [{"token": "t"}]}
        part["logprobs"] = {"content": [*(part["logprobs"] or {"content": []})["content"], logprob]}
        part["token_ids"] = [*(part["token_ids"] or []), number]
    end: Object = {"finish_reason": finish_reason, "stop_reason": stop_reason}
    if draw(st.booleans()):
        parts[-1].update(end)
    else:
        parts.append({"index": index, "delta": {}, **end})

    whole: Object = {
        "index": index,
        "message": {
            "role": "assistant",
            # White space before tool calls is dropped in a reply that is not streamed.
            "content": (content.strip() and content if calls else content)
            or (None if reasoning or calls else ""),
            "reasoning": reasoning,
            "tool_calls": calls,
        },
        "logprobs": {
            "content": [
                {"token": token, "logprob": -0.5, "top_logprobs": [{"token": "t"}]} for token in tokens
            ]
        }
        if tokens
        else None,
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
        "token_ids": list(range(len(tokens))) if tokens else None,
    }
    return whole, parts


@st.composite
def streamed_replies(draw: st.DrawFn) -> Streamed:
    """A reply and its stream: several choices that interleave, every kind of piece in every legal form."""
    choices = [draw(_choice(index)) for index in range(draw(st.integers(1, 3)))]
    usage: Object | None = draw(
        st.none() | st.just({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7})
    )
    chunks: list[Object] = [
        {**_head, "object": "chat.completion.chunk", "choices": [part]}
        for part in draw(_woven([parts for _, parts in choices]))
    ]
    if usage is not None:
        chunks.append({**_head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        if draw(st.booleans()):  # continuous usage: that of each chunk's choice so far
            for chunk in chunks[:-1]:
                chunk["usage"] = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    chunks[-1]["system_fingerprint"] = "fp"
    reply: Object = {
        **_head,
        "object": "chat.completion",
        "choices": [whole for whole, _ in choices],
        "usage": usage,
        "system_fingerprint": "fp",
    }
    return Streamed(reply, [json.dumps(chunk, ensure_ascii=False).encode() for chunk in chunks])
