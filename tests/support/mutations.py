"""Answers that are almost what a real server sent: one or a few values, events or bytes are different."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.recordings import Recording

VALUES: Final[tuple[Any, ...]] = (
    None,
    "",
    "x",
    "null",
    "\ud83d",
    "a\ude00",
    0,
    -1,
    3.7,
    1e308,
    10**30,
    float("nan"),
    float("inf"),
    True,
    [],
    {},
    [None],
    [[]],
    ["\udcff"],
    [{"x": None}],
    {"x": "y"},
    {"\ud83d": None},
    [[[[[[[[[[]]]]]]]]]],
)
"""What takes the place of a value."""

KEYS: Final = (
    "id",
    "index",
    "error",
    "message",
    "text",
    "delta",
    "type",
    "truncated",
    "reasoning_content",
    "service_tier",
    "refusal",
    "prompt_logprobs",
    "routed_experts",
    "kv_transfer_params",
    "weight_versions",
    "__class__",
    "__dict__",
    "_truncated",
    "_request_id",
    "model_fields",
    "model_config",
    "copy",
    "\udcff",
    "",
)
"""Keys that are added to objects."""


@st.composite
def mutated(draw: st.DrawFn, recording: Recording) -> bytes:
    """The body of a recorded answer with a few changes."""
    body = recording.body
    if recording.is_stream:
        events = [event for event in body.split(b"\n\n") if event.strip()]
        for _ in range(draw(st.integers(1, 3))):
            events = draw(_events(events))
        return b"".join(event + b"\n\n" for event in events)
    return draw(_json(body))


@st.composite
def _events(draw: st.DrawFn, events: list[bytes]) -> list[bytes]:
    events = list(events)
    place = draw(st.integers(0, max(len(events) - 1, 0)))
    change = draw(st.sampled_from(["value", "value", "value", "drop", "twice", "first", "cut", "new"]))
    if change == "new" or not events:
        events.insert(
            place,
            draw(
                st.sampled_from(
                    [b"data: null", b"data: {}", b": x", b"event: error\ndata: {}", b"data: [DONE]", b"data"]
                )
            ),
        )
    elif change == "drop":
        del events[place]
    elif change == "twice":
        events.insert(place, events[place])
    elif change == "first":
        events.insert(0, events.pop(place))
    elif change == "cut":
        del events[place + 1 :]
    else:
        head, colon, data = events[place].rpartition(b"data: ")
        events[place] = head + colon + draw(_json(data))
    return events


@st.composite
def _json(draw: st.DrawFn, body: bytes) -> bytes:
    try:
        value: Any = json.loads(body)
    except ValueError:
        return draw(_bytes(body))
    if draw(st.integers(0, 9)) == 0:
        return draw(_bytes(body))
    for _ in range(draw(st.integers(1, 3))):
        # A copy, since values are changed in place.
        value = draw(_changed(json.loads(json.dumps(value))))
    # Half a surrogate pair is an escape on the wire.
    return json.dumps(value).encode()


@st.composite
def _bytes(draw: st.DrawFn, body: bytes) -> bytes:
    place = draw(st.integers(0, len(body)))
    return (
        body[:place]
        + draw(st.sampled_from([b"", b"\xff", b'"', b"}", b"\\ud83d", b"\0"]))
        + body[place + draw(st.integers(0, 3)) :]
    )


@st.composite
def _changed(draw: st.DrawFn, value: Any) -> Any:
    """A value with one change somewhere in it, as likely in each of its objects and lists."""
    holders = list(_holders(value))
    if not holders:
        return draw(st.sampled_from(VALUES))
    holder = draw(st.sampled_from(holders))
    if isinstance(holder, dict):
        fields = holder
        name = draw(st.sampled_from([*sorted(fields), *KEYS]))
        if name in fields and draw(st.booleans()):
            del fields[name]
        else:
            fields[name] = draw(st.sampled_from(VALUES))
        return value
    items = holder
    place = draw(st.integers(0, max(len(items) - 1, 0)))
    change = draw(st.sampled_from(["value", "new", "drop", "reverse"]))
    if change == "reverse":
        items.reverse()
    elif change == "new" or not items:
        items.insert(place, draw(st.sampled_from(VALUES)))
    elif change == "drop":
        del items[place]
    else:
        items[place] = draw(st.sampled_from(VALUES))
    return value


def _holders(value: Any) -> Iterator[dict[str, Any] | list[Any]]:
    if isinstance(value, dict | list):
        holder = cast("dict[str, Any] | list[Any]", value)
        yield holder
        for each in holder.values() if isinstance(holder, dict) else holder:
            yield from _holders(each)
