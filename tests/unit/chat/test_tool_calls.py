"""Which pieces of tool calls belong together: the table in docs/tools.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

from vllmchat import ToolCallDelta, ToolCallDone, ToolCallStart
from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import ChatCompletionChunk, decode_chunk
from vllmchat.chat.completion import ChatMessage, decode_completion
from vllmchat.chat.events import EventBuilder
from vllmchat.chat.tool_calls import PartialToolCalls
from vllmchat.errors import ResponseError

if TYPE_CHECKING:
    from vllmchat.chat.completion import ChatCompletion

Object = dict[str, Any]
Calls = list[tuple[str, str]]


def piece(
    index: int | None = None, id_: str | None = None, name: str | None = None, arguments: Any = None
) -> Object:
    return {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}


def chunk(reason: str | None = None, *pieces: Object) -> ChatCompletionChunk:
    choice = {"index": 0, "delta": {"tool_calls": list(pieces)}, "finish_reason": reason}
    return decode_chunk(json.dumps({"id": "x", "choices": [choice]}).encode())


def streamed(chunks: list[ChatCompletionChunk]) -> tuple[ChatCompletion, list[Any]]:
    """The whole reply, and the events."""
    accumulator, builder = Accumulator(), EventBuilder()
    events: list[Any] = []
    for each in chunks:
        accumulator.add(each)
        events += builder.feed(each)
    reply = accumulator.reply(ended=True)
    return reply, [*events, *builder.finish(reply)]


TWO: Calls = [("f", '{"a":1}'), ("g", '{"b":2}')]

CASES: dict[str, tuple[list[Object], Calls]] = {
    "one piece": ([piece(0, "a", "f", '{"a":1}'), piece(1, "b", "g", '{"b":2}')], TWO),
    "indexes, id once": (
        [
            piece(0, "a", "f", ""),
            piece(0, arguments='{"a":'),
            piece(0, arguments="1}"),
            piece(1, "b", "g", '{"b":2}'),
        ],
        TWO,
    ),
    "indexes, interleaved": (
        [
            piece(0, "a", "f"),
            piece(1, "b", "g"),
            piece(1, None, None, '{"b":'),
            piece(0, None, None, '{"a":1}'),
            piece(1, None, None, "2}"),
        ],
        TWO,
    ),
    "the whole call again": (
        [
            piece(0, "a", "f", '{"a":'),
            piece(0, None, None, "1}"),
            piece(0, "a", "f", '{"a":1}'),
            piece(1, "b", "g", '{"b":2}'),
            piece(1, "b", "g", '{"b":2}'),
        ],
        TWO,
    ),
    "name in pieces": (
        [piece(0, "a", "read", ""), piece(0, None, "_file", ""), piece(0, None, None, "{}")],
        [("read_file", "{}")],
    ),
    "name so far": (
        [piece(0, "a", "read"), piece(0, "a", "read_file"), piece(0, None, None, "{}")],
        [("read_file", "{}")],
    ),
    "name in each piece": (
        [piece(0, "a", "f", ""), piece(0, "a", "f", '{"a"'), piece(0, "a", "f", ":1}")],
        [("f", '{"a":1}')],
    ),
    "name in each piece, no id": (
        [piece(0, None, "f", '{"a"'), piece(0, None, "f", ":1}")],
        [("f", '{"a":1}')],
    ),
    "name after the arguments": (
        [piece(0, "a", None, '{"a":'), piece(0, None, "f", "1}")],
        [("f", '{"a":1}')],
    ),
    "empty id in later pieces": ([piece(0, "a", "f", '{"a"'), piece(0, "", None, ":1}")], [("f", '{"a":1}')]),
    "a new id in each piece": (
        [piece(0, "a", "f", ""), piece(0, "b", None, '{"a"'), piece(0, "c", None, ":1}")],
        [("f", '{"a":1}')],
    ),
    "a new id and the name in each piece": (
        [piece(0, "a", "f", ""), piece(0, "b", "f", '{"a"'), piece(0, "c", "f", ":1}")],
        [("f", '{"a":1}')],
    ),
    "a new id and the name, no index": (
        [piece(None, "a", "f", ""), piece(None, "b", "f", '{"a":1}')],
        [("f", '{"a":1}')],
    ),
    "index 0 for all": ([piece(0, "a", "f", '{"a":1}'), piece(0, "b", "g", '{"b":2}')], TWO),
    "index 0 for all, the same function": (
        [piece(0, "a", "f", '{"a":1}'), piece(0, "b", "f", '{"a":2}')],
        [("f", '{"a":1}'), ("f", '{"a":2}')],
    ),
    "index 0 for all, no ids": ([piece(0, None, "f", '{"a":1}'), piece(0, None, "g", '{"b":2}')], TWO),
    "index 0 for all, no ids, the same function": (
        [piece(0, None, "f", '{"a":1}'), piece(0, None, "f", '{"a":2}')],
        [("f", '{"a":1}'), ("f", '{"a":2}')],
    ),
    "index 0 for all, the first is not JSON": (
        [piece(0, "a", "f", "{'a':1}"), piece(0, "b", "g", '{"b":2}')],
        [("f", "{'a':1}"), ("g", '{"b":2}')],
    ),
    "index 0 for all, interleaved by id": (
        [
            piece(0, "a", "f", '{"a":'),
            piece(0, "b", "g", '{"b":'),
            piece(0, "a", None, "1}"),
            piece(0, "b", None, "2}"),
        ],
        TWO,
    ),
    "no index": ([piece(None, "a", "f", '{"a":1}'), piece(None, "b", "g", '{"b":2}')], TWO),
    "no index, in pieces": (
        [
            piece(None, "a", "f", ""),
            piece(None, None, None, '{"a":1}'),
            piece(None, "b", "g", '{"b":'),
            piece(None, None, None, "2}"),
        ],
        TWO,
    ),
    "no index, interleaved by id": (
        [
            piece(None, "a", "f", '{"a":'),
            piece(None, "b", "g", '{"b":'),
            piece(None, "a", None, "1}"),
            piece(None, "b", None, "2}"),
        ],
        TWO,
    ),
    "no index, interleaved by id, the same function": (
        [
            piece(None, "a", "f", '{"a":'),
            piece(None, "b", "f", '{"a":'),
            piece(None, "a", None, "1}"),
            piece(None, "b", None, "2}"),
        ],
        [("f", '{"a":1}'), ("f", '{"a":2}')],
    ),
    "no index, no ids": (
        [piece(None, None, "f", '{"a":1}'), piece(None, None, "g", '{"b":'), piece(None, None, None, "2}")],
        TWO,
    ),
    "one id for all": (
        [piece(0, "a", "f", '{"a":1}'), piece(1, "a", "g", '{"b":'), piece(1, "a", None, "2}")],
        TWO,
    ),
    "one id for all, the same function": (
        [piece(0, "a", "f", '{"a":1}'), piece(1, "a", "f", '{"a":2}')],
        [("f", '{"a":1}'), ("f", '{"a":2}')],
    ),
    "one id for all, two functions at once": (
        [
            piece(0, "a", "f", '{"a":'),
            piece(1, "a", "g", '{"b":'),
            piece(0, None, None, "1}"),
            piece(1, None, None, "2}"),
        ],
        TWO,
    ),
    "one id for all, index 0": (
        [piece(0, "a", "f", '{"a":1}'), piece(0, "a", "f", '{"a":2}'), piece(0, "a", "g", '{"b":2}')],
        [("f", '{"a":1}'), ("f", '{"a":2}'), ("g", '{"b":2}')],
    ),
    "the same call at another index": (
        [piece(0, "a", "f", '{"a":1}'), piece(1, "b", "g", '{"b":2}'), piece(2, "a", "f", '{"a":1}')],
        TWO,
    ),
    "the same call at another index, in pieces": (
        [
            piece(0, "a", "f", '{"a":1}'),
            piece(1, "b", "g", '{"b":2}'),
            piece(2, "a", "f", ""),
            piece(2, None, None, '{"a"'),
            piece(2, None, None, ":1} "),
        ],
        TWO,
    ),
    "an index that is not a number": (
        [
            {**piece(0, "a", "f", '{"a":'), "index": "first"},
            {**piece(0, None, None, "1}"), "index": "first"},
            piece(-1, "b", "g", '{"b":'),
            piece(-1, None, None, "2}"),
        ],
        TWO,
    ),
    "an index that is too large": (
        [piece(10**30, "a", "f", '{"a":1}'), piece(70_000, "b", "g", '{"b":2}')],
        TWO,
    ),
    "an index for each piece": ([piece(0, "a", "f", '{"a"'), piece(1, "a", None, ":1}")], [("f", '{"a":1}')]),
    "a placeholder": ([piece(0, "a", "f", "{}"), piece(0, None, None, '{"a":1}')], [("f", '{"a":1}')]),
    "placeholders of two calls": (
        [
            piece(0, "a", "f", "{}"),
            piece(1, "b", "g", "{}"),
            piece(0, None, None, '{"a":1}'),
            piece(1, None, None, '{"b":'),
            piece(1, None, None, "2}"),
        ],
        TWO,
    ),
    "null as text, then the arguments": (
        [piece(0, "a", "f", "null"), piece(0, None, None, '{"a":1}')],
        [("f", '{"a":1}')],
    ),
    "null": ([piece(0, "a", "f", None), piece(0, None, None, '{"a":1}')], [("f", '{"a":1}')]),
    "an object": ([piece(0, "a", "f", {"a": 1})], [("f", '{"a": 1}')]),
    "no arguments": ([piece(0, "a", "f", "{}"), piece(1, "b", "g", "{}")], [("f", "{}"), ("g", "{}")]),
}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_pieces_are_put_together(name: str, together: bool) -> None:
    pieces, calls = CASES[name]
    chunks = [chunk(None, *pieces)] if together else [chunk(None, each) for each in pieces]
    reply, events = streamed([*chunks, chunk("tool_calls")])
    assert_agree(reply, events, calls)


@pytest.mark.parametrize("name", CASES)
def test_pieces_after_the_finish_reason(name: str) -> None:
    pieces, calls = CASES[name]
    for place in range(len(pieces)):
        chunks = [chunk("tool_calls" if at == place else None, each) for at, each in enumerate(pieces)]
        assert_agree(*streamed(chunks), calls)


def assert_agree(reply: ChatCompletion, events: list[Any], calls: Calls) -> None:
    ids = [call.id for call in reply.tool_calls if call.id]
    assert len(set(ids)) == len(ids)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == calls
    # Each event says what the whole reply says.
    done = {event.index: event.tool_call for event in events if isinstance(event, ToolCallDone)}
    started = {event.index: (event.id, event.name) for event in events if isinstance(event, ToolCallStart)}
    for index, call in enumerate(reply.tool_calls):
        assert (done[index], done[index].complete) == (call, call.complete)
        assert started[index] == (call.id, call.name)
        deltas = [e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == index]
        assert "".join(deltas) == call.arguments
    assert len(done) == len(started) == len(calls)


@pytest.mark.parametrize("name", CASES)
def test_no_part_of_a_stream_has_a_complete_call_that_changes(name: str) -> None:
    pieces, calls = CASES[name]
    accumulator = Accumulator()
    for each in pieces:
        accumulator.add(chunk(None, each))
        for index, call in enumerate(accumulator.reply().tool_calls):
            if call.complete:
                assert (call.name, call.arguments) == calls[index]


@settings(deadline=None, max_examples=300)
@given(
    pieces=st.lists(
        st.builds(
            piece,
            st.sampled_from([None, 0, 0, 1, 2]),
            st.sampled_from([None, "a", "b"]),
            st.sampled_from([None, "f", "g"]),
            st.sampled_from(['{"a":1}', '{"a":2}', '{"a"', ":1}", "{}", "", "null", None]),
        ),
        min_size=1,
        max_size=6,
    ),
    reason=st.sampled_from(["tool_calls", "length"]),
    data=st.data(),
)
def test_events_and_reply_agree_whatever_comes_after_what(
    pieces: list[Object], reason: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(pieces)))
    chunks = [chunk(reason if at == place else None, each) for at, each in enumerate(pieces)]
    reply, events = streamed([*chunks, chunk(reason if place == len(pieces) else None)])
    done = {event.index: event.tool_call for event in events if isinstance(event, ToolCallDone)}
    assert [done[index] for index in sorted(done)] == reply.tool_calls
    assert [done[index].complete for index in sorted(done)] == [call.complete for call in reply.tool_calls]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (["f1", "f2"], {"a": "f1", "a-2": "f2"}),
        (["f1", "f1"], {"a": "f1"}),
        (["f1", "g1"], {"a": "f1", "a-2": "g1"}),
        (["f1", "f1", "f2", "f1"], {"a": "f1", "a-3": "f2"}),
    ],
)
def test_calls_with_one_id_are_told_apart(sent: list[str], kept: dict[str, str]) -> None:
    calls = [{"id": "a", "function": {"name": each[0], "arguments": f'{{"n":{each[1]}}}'}} for each in sent]
    choice = {"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}
    whole = decode_completion(json.dumps({"choices": [choice]}).encode())
    reply, _ = streamed(
        [*(chunk(None, {"index": n, **each}) for n, each in enumerate(calls)), chunk("tool_calls")]
    )
    for each in (whole, reply):
        found = {call.id: call.name + str(call.parse()["n"]) for call in each.tool_calls}
        assert (found, len(each.tool_calls)) == (kept, len(kept))


def test_an_id_made_for_a_call_is_not_the_id_of_a_later_one() -> None:
    calls = [
        {"id": call_id, "function": {"name": "f", "arguments": f'{{"n":{n}}}'}}
        for n, call_id in enumerate(["a", "a", "a-2", "a", ""])
    ]
    message = ChatMessage.model_validate({"tool_calls": calls})
    assert [call.id for call in message.tool_calls] == ["a", "a-2", "a-2-2", "a-3", ""]


def test_the_number_of_calls_is_limited() -> None:
    many = chunk(None, *(piece(number, f"c{number}", "f", "{}") for number in range(4_096)))
    accumulator = Accumulator()
    accumulator.add(many)
    accumulator.add(many)
    with pytest.raises(ResponseError, match="more than 4,096 tool calls"):
        accumulator.add(chunk(None, piece(5_000, "d", "f", "{}")))


def test_white_space_around_a_placeholder() -> None:
    reply, events = streamed(
        [chunk(None, piece(0, "a", "f", " ")), chunk("stop", piece(0, None, None, "{}"))]
    )
    assert reply.tool_calls[0].arguments == " {}"
    assert [e.arguments for e in events if isinstance(e, ToolCallDelta)] == [" {}"]


def test_calls_are_whole_if_each_is_an_object_with_a_name() -> None:
    for pieces, whole in (
        ([piece(0, "a", "f", "{}")], True),
        ([piece(0, "a", "f", '{"a":1} ')], True),
        ([piece(0, "a", None, "{}")], False),
        ([piece(0, "a", "f", "")], False),
        ([piece(0, "a", "f", "{}"), piece(1, "b", "g", "[]")], False),
        ([], False),
    ):
        calls = PartialToolCalls()
        calls.add(chunk(None, *pieces).choices[0].delta.tool_calls or [])
        assert calls.are_whole is whole
