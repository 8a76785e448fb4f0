"""What the answers of a fake and of a real server must have in common: status, keys, types, kinds of events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import decode_chunk
from vllmchat.chat.completion import decode_completion
from vllmchat.checking.describe import as_list
from vllmchat.completions import completion as completions
from vllmchat.testing import FakeServer, reply
from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllmchat import ChatCompletion
    from vllmchat.testing import Answer

Object = dict[str, Any]

BY_FLAG = {"prompt_tokens_details", "completion_tokens_details", "system_fingerprint"}
"""Fields that depend on how the real server was started: an object, or null."""

BY_TOKEN = {"top_logprobs"}
"""Mappings whose keys are tokens."""


@dataclass(frozen=True)
class Seen:
    """One answer.

    Attributes:
        status: HTTP status.
        media: Its media type.
        body: Its decoded body, its text, or None for an empty one.
        events: The decoded events of a stream, without `[DONE]`.
        done: Whether `[DONE]` was at the end.
    """

    status: int
    media: str
    body: Any = None
    events: list[Object] = field(default_factory=list[Object])
    done: bool = False


def seen(status: int, content_type: str, content: bytes) -> Seen:
    """An answer, decoded."""
    media = content_type.partition(";")[0]
    if media == "text/event-stream":
        data = [event.removeprefix(b"data: ") for event in content.split(b"\n\n") if event]
        done = data[-1] == b"[DONE]"
        return Seen(status, media, events=[json.loads(each) for each in data if each != b"[DONE]"], done=done)
    body = json.loads(content) if media == "application/json" else content.decode()
    return Seen(status, media, body or None)


def seen_of(response: httpx.Response) -> Seen:
    """An answer that came over HTTP."""
    return seen(response.status_code, response.headers.get("content-type", ""), response.content)


def answer_of(path: str, content: bytes, real: Seen) -> Answer:
    """What a script must say for a fake to answer as the real server did."""
    if real.events:
        if path.endswith("/chat/completions"):
            choices = {choice["index"] for event in real.events for choice in event["choices"]}
            parts = Accumulator(expected=len(choices))
            for event in real.events:
                parts.add(decode_chunk(json.dumps(event).encode()))
            return _answer(parts.reply(ended=True))
        texts: dict[int, str] = {}
        reasons: dict[int, str] = {}
        for event in real.events:
            for choice in event["choices"]:
                texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
                reasons[choice["index"]] = choice["finish_reason"]
        return tuple(reply(text, finish_reason=reasons[index]) for index, text in sorted(texts.items()))
    if path.endswith("/chat/completions"):
        return _answer(decode_completion(content))
    whole = completions.decode_completion(content)
    return tuple(reply(choice.text, finish_reason=choice.finish_reason) for choice in whole.choices)


def _answer(completion: ChatCompletion) -> ChatCompletion:
    completion.usage = None
    return completion


def differences(fake: Seen, real: Seen) -> list[str]:
    """How a fake answer differs from a real one in shape."""
    found: list[str] = []
    for name in ("status", "media", "done"):
        ours, theirs = getattr(fake, name), getattr(real, name)
        if ours != theirs:
            found.append(f"{name}: {ours!r}, not {theirs!r}")
    found += _compared(fake.body, real.body, "")
    kinds, real_kinds = _kinds(fake.events), _kinds(real.events)
    # What only the real server sends there: the usage if it was started to, a token without text, a line break before
    # a tool call.
    if kinds.keys() ^ real_kinds.keys() and (
        kinds.keys() - real_kinds.keys() or real_kinds.keys() - kinds.keys() - {"usage", "nothing", "content"}
    ):
        found.append(f"events: {sorted(kinds)}, not {sorted(real_kinds)}")
    for kind in kinds.keys() & real_kinds.keys():
        found += _compared(kinds[kind], real_kinds[kind], kind)
    return found


def _compared(fake: object, real: object, path: str) -> Iterator[str]:
    name = path.rpartition(".")[2].partition("[")[0]
    ours, theirs = as_object(fake), as_object(real)
    if name in BY_FLAG and (ours is None or real is None):
        return
    items, real_items = as_list(fake), as_list(real)
    if ours is not None and theirs is not None:
        if name in BY_TOKEN:
            ours, theirs = ({"*": next(iter(each.values()))} for each in (ours, theirs))
        if ours.keys() != theirs.keys() and (odd := (ours.keys() ^ theirs.keys()) - BY_FLAG):
            yield f"{path}: only one has {sorted(odd)}"
        for key in ours.keys() & theirs.keys():
            yield from _compared(ours[key], theirs[key], f"{path}.{key}")
    elif items is not None and real_items is not None:
        if bool(items) != bool(real_items):
            yield f"{path}: {items!r:.60}, not {real_items!r:.60}"
        for index, (item, real_item) in enumerate(zip(items, real_items, strict=False)):
            yield from _compared(item, real_item, f"{path}[{index}]")
    elif _type(fake) != _type(real) or (name in NAMED and fake != real):
        yield f"{path}: {fake!r:.60}, not {real!r:.60}"


NAMED = {"finish_reason", "object", "role", "type", "param", "code", "detail"}
"""Fields whose values must be the same."""


def _type(value: object) -> str:
    return "number" if isinstance(value, float) else type(value).__name__ if value is not None else "null"


def _kinds(events: list[Object]) -> dict[str, Object]:
    """The events of a stream by what they add, one of each kind."""
    found: dict[str, Object] = {}
    asked_for = sum("usage" in event for event in events) > 1
    for event in events:
        if asked_for and event["choices"]:
            # A real server may be started so that it always sends the usage so far.
            event = {name: value for name, value in event.items() if name != "usage"}
        kind = _kind(event)
        if kind == "finish":
            # The last token may come with the reason or before it.
            of_token = ("delta", "logprobs", "token_ids", "text")
            choice = {name: value for name, value in event["choices"][0].items() if name not in of_token}
            event = {**event, "choices": [choice]}
        found.setdefault(kind, event)
    return found


def _kind(event: Object) -> str:
    if not event["choices"]:
        return "usage"
    choice = event["choices"][0]
    if choice["finish_reason"] is not None:
        return "finish"
    delta: Object = choice.get("delta", {"text": ""})
    if calls := delta.get("tool_calls"):
        return "call" if "id" in calls[0] else "arguments"
    return "role" if "role" in delta else next(iter(delta), "nothing")


def fake_answer(
    method: str,
    target: str,
    body: Any,
    headers: dict[str, str],
    real: Seen,
    content: bytes,
    *,
    model: str = "tiny-qwen3",
    api_key: str | None = None,
) -> Seen:
    """What a fake server with the same model answers to the same request."""
    with FakeServer(model=model, version="0.32.0", max_model_len=2048, api_key=api_key) as server:
        if real.status == 200 and target in ("/v1/chat/completions", "/v1/completions"):
            server.answer(answer_of(target, content, real))
        sent = body if isinstance(body, str) or body is None else json.dumps(body)
        response = httpx.request(method, f"{server.url}{target}", content=sent, headers=headers)
        server.assert_done()
    return seen_of(response)
