from __future__ import annotations

import dataclasses
import json
import pickle
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import pytest
from hypothesis import given, settings, strategies as st

from support import recordings
from support.replies import Streamed, streamed_replies
from vllmchat.chat import events as module, tool_calls as calls_module
from vllmchat.chat.accumulate import Accumulator
from vllmchat.chat.chunk import ChatCompletionChunk, decode_chunk
from vllmchat.chat.completion import ChatCompletion, FunctionCall, ToolCall
from vllmchat.chat.events import (
    Event,
    EventBuilder,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStart,
)
from vllmchat.chat.tool_calls import PartialToolCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

E = TypeVar("E")
STREAMS = recordings.names("stream*")


def events_of(chunks: Iterable[ChatCompletionChunk]) -> list[Event]:
    maker, accumulator = EventBuilder(), Accumulator()
    events: list[Event] = []
    for chunk in chunks:
        accumulator.add(chunk)
        events += maker.feed(chunk)
    return events + maker.finish(accumulator.reply())


def recorded(name: str) -> list[Event]:
    return events_of(map(decode_chunk, recordings.load(name).chunks))


def only(events: Iterable[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def delta(fields: dict[str, Any], index: int = 0, **choice: Any) -> ChatCompletionChunk:
    return decode_chunk(json.dumps({"choices": [{"index": index, "delta": fields, **choice}]}).encode())


def calls(*pieces: dict[str, Any], **choice: Any) -> ChatCompletionChunk:
    return delta({"tool_calls": pieces}, **choice)


def piece(index: int, arguments: str | None = None, **function: Any) -> dict[str, Any]:
    return {"index": index, "id": f"c{index}", "function": {"arguments": arguments, **function}}


def done(index: int, name: str, arguments: str) -> ToolCallDone:
    function = FunctionCall(name=name, arguments=arguments)
    return ToolCallDone(index, ToolCall(id=f"c{index}", function=function))


class TestRecordedStreams:
    def test_text(self) -> None:
        *pieces, finished = recorded("stream")
        assert pieces == [
            TextDelta(text) for text in ("The", " capital", " of", " France", " is", " Paris", ".")
        ]
        assert isinstance(finished, Finished)
        assert finished.finish_reason == "stop"
        assert finished.usage is not None
        assert finished.usage.total_tokens == 44
        assert finished.completion.text == "The capital of France is Paris."

    def test_reasoning_comes_before_text(self) -> None:
        events = recorded("stream_reasoning")
        kinds = [type(event) for event in events]
        assert kinds == [ReasoningDelta] * 25 + [TextDelta] * 8 + [Finished]

    def test_a_tool_call(self) -> None:
        events = recorded("stream_tool_call")
        id = "chatcmpl-tool-a2e73d2eaa87efbf"  # noqa: A001
        assert events[-9:-1] == [
            ToolCallStart(0, id, "get_weather"),
            *[ToolCallDelta(0, text) for text in ('{"', "city", '":', ' "', "Paris", '"}')],
            ToolCallDone(
                0, ToolCall(id=id, function=FunctionCall(name="get_weather", arguments='{"city": "Paris"}'))
            ),
        ]

    def test_the_first_call_is_done_when_the_second_starts(self) -> None:
        events = recorded("stream_tool_calls_parallel")
        kinds = [
            (type(event), event.index)
            for event in events
            if isinstance(event, ToolCallStart | ToolCallDelta | ToolCallDone)
        ]
        assert kinds == [
            (ToolCallStart, 0),
            *[(ToolCallDelta, 0)] * 6,
            (ToolCallDone, 0),
            (ToolCallStart, 1),
            *[(ToolCallDelta, 1)] * 6,
            (ToolCallDone, 1),
        ]

    def test_a_truncated_call(self) -> None:
        (event,) = only(recorded("stream_tool_cut_by_max_tokens"), ToolCallDone)
        assert event.tool_call.arguments == '{"city":'
        assert not event.tool_call.complete

    def test_several_choices(self) -> None:
        events = recorded("stream_n2")
        for choice in (0, 1):
            pieces = [event.text for event in only(events, ReasoningDelta) if event.choice == choice]
            assert "".join(pieces) == "\nA greeting. I greet back"

    @pytest.mark.parametrize("name", STREAMS)
    def test_events_add_up_to_the_whole_reply(self, name: str) -> None:
        assert_adds_up(recorded(name))

    @pytest.mark.parametrize("name", STREAMS)
    def test_events_can_be_pickled(self, name: str) -> None:
        events = recorded(name)
        assert pickle.loads(pickle.dumps(events)) == events


def assert_adds_up(events: list[Event]) -> None:
    """Checks that the events of each choice are pieces of the last event's completion, in a valid order."""
    *pieces, finished = events
    assert isinstance(finished, Finished)
    completion: ChatCompletion = finished.completion
    assert not only(pieces, Finished)
    for choice in completion.choices:
        own = [event for event in pieces if not isinstance(event, Finished) and event.choice == choice.index]
        text = "".join(event.text for event in only(own, TextDelta))
        if choice.message.tool_calls and not text.strip():
            text = ""  # White space before tool calls is not content.
        assert text == (choice.message.content or "")
        reasoning = "".join(event.text for event in only(own, ReasoningDelta))
        assert reasoning == (choice.message.reasoning or "")
        of_calls = [event for event in own if isinstance(event, ToolCallStart | ToolCallDelta | ToolCallDone)]
        # Indexes may have gaps while an earlier call has not started.
        indices = sorted({event.index for event in of_calls})
        for index, call in zip(indices, choice.message.tool_calls, strict=True):
            start, *deltas, end = [event for event in of_calls if event.index == index]
            assert start == ToolCallStart(index, call.id, call.name, choice.index)
            assert "".join(event.arguments for event in only(deltas, ToolCallDelta)) == call.arguments
            assert len(only(deltas, ToolCallDelta)) == len(deltas)
            assert end == ToolCallDone(index, call, choice.index)
            assert isinstance(end, ToolCallDone)
            assert end.tool_call.complete == call.complete
    for event in pieces:
        if isinstance(event, TextDelta | ReasoningDelta):
            assert event.text
        if isinstance(event, ToolCallDelta):
            assert event.arguments


class TestAnyStream:
    @settings(deadline=None)
    @given(streamed_replies())
    def test_events_add_up_to_the_completion(self, streamed: Streamed) -> None:
        assert_adds_up(events_of(map(decode_chunk, streamed.chunks)))

    @settings(deadline=None)
    @given(streamed_replies(), st.integers(0, 20))
    def test_events_of_an_interrupted_stream_add_up_to_the_partial_reply(
        self, streamed: Streamed, count: int
    ) -> None:
        assert_adds_up(events_of(map(decode_chunk, streamed.chunks[:count])))


class TestOrder:
    def test_order_within_a_chunk(self) -> None:
        chunk = delta(
            {"content": "t", "reasoning": "r", "tool_calls": [piece(0, '{"a":1}', name="f")]},
            finish_reason="stop",
        )
        assert EventBuilder().feed(chunk) == [
            ReasoningDelta("r"),
            TextDelta("t"),
            ToolCallStart(0, "c0", "f"),
            ToolCallDelta(0, '{"a":1}'),
            done(0, "f", '{"a":1}'),
        ]

    def test_an_empty_chunk(self) -> None:
        maker = EventBuilder()
        assert maker.feed(delta({"role": "assistant", "content": ""})) == []
        assert maker.feed(delta({"reasoning": None}, finish_reason="stop")) == []
        assert maker.feed(decode_chunk(b'{"choices":[],"usage":{}}')) == []

    def test_several_calls_in_one_delta(self) -> None:
        maker = EventBuilder()
        assert maker.feed(calls(piece(0, '{"a":1}', name="f"), piece(1, '{"b":', name="g"))) == [
            ToolCallStart(0, "c0", "f"),
            ToolCallDelta(0, '{"a":1}'),
            done(0, "f", '{"a":1}'),
            ToolCallStart(1, "c1", "g"),
            ToolCallDelta(1, '{"b":'),
        ]
        assert maker.feed(calls(piece(1, "2}"), finish_reason="tool_calls")) == [
            ToolCallDelta(1, "2}"),
            done(1, "g", '{"b":2}'),
        ]

    def test_pieces_after_the_finish_reason(self) -> None:
        maker = EventBuilder()
        maker.feed(calls(piece(0, '{"a":', name="f"), piece(1, "{}", name="g"), finish_reason="tool_calls"))
        assert maker.feed(calls(piece(0, "1}"), piece(1, '{"b":2}'))) == [
            ToolCallDelta(0, "1}"),
            ToolCallDelta(1, '{"b":2}'),
        ]
        first, second, _ = maker.finish(ChatCompletion())
        assert isinstance(first, ToolCallDone)
        assert isinstance(second, ToolCallDone)
        assert [first.tool_call.arguments, second.tool_call.arguments] == ['{"a":1}', '{"b":2}']

    @pytest.mark.parametrize("call_first", [True, False])
    def test_a_stop_after_what_truncated_the_call(self, call_first: bool) -> None:
        call = calls(piece(0, '{"a":1}', name="f"))
        truncated = delta({}, finish_reason="length")
        begin = [call, truncated] if call_first else [truncated, call]
        events = events_of([*begin, delta({}, finish_reason="stop")])
        (event,) = only(events, ToolCallDone)
        assert not event.tool_call.complete
        assert [event.tool_call] == only(events, Finished)[0].completion.tool_calls

    def test_calls_that_interleave_are_done_at_the_end(self) -> None:
        maker = EventBuilder()
        assert maker.feed(calls(piece(0, None, name="f"), piece(1, None, name="g"))) == []
        assert maker.feed(calls(piece(1, '{"b":2}'), piece(0, '{"a":1}'))) == [
            ToolCallStart(1, "c1", "g"),
            ToolCallDelta(1, '{"b":2}'),
            ToolCallStart(0, "c0", "f"),
            ToolCallDelta(0, '{"a":1}'),
        ]
        assert maker.feed(delta({}, finish_reason="stop")) == [
            done(0, "f", '{"a":1}'),
            done(1, "g", '{"b":2}'),
        ]

    def test_arguments_wait_for_the_name(self) -> None:
        maker = EventBuilder()
        assert maker.feed(calls(piece(0, '{"a"'))) == []
        assert maker.feed(calls(piece(0, ":"))) == []
        assert maker.feed(calls(piece(0, "1}", name="f"))) == [
            ToolCallStart(0, "c0", "f"),
            ToolCallDelta(0, '{"a":1}'),
        ]

    def test_a_call_without_a_name_starts_at_the_end(self) -> None:
        maker = EventBuilder()
        assert maker.feed(calls(piece(0, '{"a":1}'), finish_reason="stop")) == []
        reply = ChatCompletion.model_validate(
            {"choices": [{"message": {"tool_calls": [done(0, "", '{"a":1}').tool_call]}}]}
        )
        assert maker.finish(reply) == [
            ToolCallStart(0, "c0", ""),
            ToolCallDelta(0, '{"a":1}'),
            done(0, "", '{"a":1}'),
            Finished(reply),
        ]

    def test_every_call_is_done_once(self) -> None:
        maker = EventBuilder()
        maker.feed(calls(piece(0, '{"a":1}', name="f"), piece(1, '{"a":1}', name="f"), finish_reason="stop"))
        assert maker.feed(delta({}, finish_reason="stop")) == []
        assert maker.finish(ChatCompletion()) == [Finished(ChatCompletion())]

    def test_no_deltas_follow_the_end_of_a_call(self) -> None:
        maker = EventBuilder()
        maker.feed(calls(piece(0, '{"a":1}', name="f"), piece(1, '{"a":2}', name="f")))
        assert maker.feed(calls(piece(0, "\n"))) == []
        assert maker.feed(delta({}, finish_reason="stop")) == [done(1, "f", '{"a":2}')]

    def test_calls_of_an_interrupted_stream_are_incomplete(self) -> None:
        maker = EventBuilder()
        maker.feed(calls(piece(0, '{"a":1}', name="f"), piece(1, '{"a":2}', name="f")))
        last, _ = maker.finish(ChatCompletion())
        assert isinstance(last, ToolCallDone)
        assert (last.index, last.tool_call.complete) == (1, False)

    def test_choices_are_independent(self) -> None:
        maker = EventBuilder()
        maker.feed(calls(piece(0, '{"a":1}', name="f")))
        assert maker.feed(
            delta({"tool_calls": [piece(0, '{"a":1}', name="g")]}, index=1, finish_reason="stop")
        ) == [
            ToolCallStart(0, "c0", "g", 1),
            ToolCallDelta(0, '{"a":1}', 1),
            dataclasses.replace(done(0, "g", '{"a":1}'), choice=1),
        ]


def test_all_events_are_in_the_union_and_immutable() -> None:
    kinds = {value for value in vars(module).values() if dataclasses.is_dataclass(value)}
    assert kinds == set(get_args(Event))
    assert len(kinds) == 6
    for event in recorded("stream_tool_call"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, dataclasses.fields(event)[0].name, None)
        assert not hasattr(event, "__dict__")


MANY = 400


@pytest.mark.parametrize("arguments", ["{}", "{"])
@pytest.mark.parametrize("numbers", [[None] * MANY, [0] * MANY, range(MANY), range(MANY, 0, -1)])
def test_the_cost_is_linear_in_the_number_of_calls(
    numbers: Sequence[int | None], arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0

    def counting(function: Any) -> Any:
        def counted(*given: Any, **options: Any) -> Any:
            nonlocal looked
            items = list(given[0] if len(given) == 1 else given)
            looked += len(items)
            return function(items, **options)

        return counted

    for user in (calls_module, module):
        for function in (max, sorted):
            monkeypatch.setattr(user, function.__name__, counting(function), raising=False)
    ended: Any = vars(PartialToolCall)["ended"]

    def counted_end(call: PartialToolCall) -> Any:
        nonlocal looked
        looked += 1
        return ended.fget(call)

    monkeypatch.setattr(PartialToolCall, "ended", property(counted_end))
    named = {"name": "f", "arguments": arguments}
    events = events_of(
        calls({"index": number, "id": f"c{place}", "function": named}) for place, number in enumerate(numbers)
    )
    assert len(only(events, ToolCallDone)) == len(only(events, ToolCallStart)) > 0
    assert looked < 20 * MANY
