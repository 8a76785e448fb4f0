"""A streamed reply as events: the layer that adapters build on.

Chunks are the wire's; what a program wants to know is simpler: a piece of text came, a piece of reasoning
came, a tool call began, grew, is whole, the reply is finished. `EventMaker` translates, without any input
or output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from vllmchat.chat.calls import CallsSoFar
from vllmchat.chat.completion import CUT_REASONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmchat.chat.calls import CallSoFar
    from vllmchat.chat.chunk import ChatCompletionChunk, ChunkChoice
    from vllmchat.chat.completion import ChatCompletion, FinishReason, ToolCall, Usage
    from vllmchat.chat.limits import CallLimits


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of a choice's text. All of them joined are the text of its message.

    Attributes:
        text: The piece; never empty.
        choice: Index of the choice.
    """

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of a choice's reasoning. All of them joined are the reasoning of its message.

    Attributes:
        text: The piece; never empty.
        choice: Index of the choice.
    """

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool call began: the tool's name is known.

    Attributes:
        index: Number of the call in its choice, from 0.
        id: Id of the call; empty where the server gives none.
        name: Name of the tool.
        choice: Index of the choice.
    """

    index: int
    id: str
    name: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call's arguments. It comes after the call's `ToolCallStart`.

    Attributes:
        index: Number of the call in its choice, from 0.
        arguments: The piece of JSON text; never empty. It need not be valid JSON by itself.
        choice: Index of the choice.
    """

    index: int
    arguments: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDone:
    """Nothing more comes for a tool call. Every call that began has exactly one, also one that was cut.

    It comes as soon as it is certain: when the arguments are a whole JSON object and a later call begins,
    else when the choice finishes, else when the stream ends. With `max_tokens`, the last call of a choice waits for
    the end of the stream, where the usage shows whether the limit was reached.

    Attributes:
        index: Number of the call in its choice, from 0.
        tool_call: The call. Look at its `complete` before running the tool.
        choice: Index of the choice.
    """

    index: int
    tool_call: ToolCall
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The reply is whole; the last event of a stream.

    Attributes:
        completion: The whole reply.
    """

    completion: ChatCompletion

    @property
    def finish_reason(self) -> FinishReason | str | None:
        """Why the first choice ended."""
        return self.completion.finish_reason

    @property
    def usage(self) -> Usage | None:
        """How many tokens the request took."""
        return self.completion.usage


Event: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallDone | Finished
"""What a stream's `events` yields."""


class EventMaker:
    """Translates the chunks of one stream into events.

    Within a chunk the order is reasoning, text, tool calls, as models write them.

    Args:
        limits: What the request said of tool calls; None where it is not known.
    """

    __slots__ = ("_calls", "_limits")

    def __init__(self, limits: CallLimits | None = None) -> None:
        self._limits = limits
        self._calls: dict[int, _ChoiceCalls] = {}

    def feed(self, chunk: ChatCompletionChunk) -> list[Event]:
        """The events of the next chunk, often one, sometimes none."""
        events: list[Event] = []
        for piece in chunk.choices:
            delta = piece.delta
            if delta.reasoning:
                events.append(ReasoningDelta(delta.reasoning, piece.index))
            if delta.content:
                events.append(TextDelta(delta.content, piece.index))
            if delta.tool_calls or piece.finish_reason:
                self._feed_calls(piece, events)
        return events

    def finish(self, completion: ChatCompletion) -> list[Event]:
        """The last events: calls that wait for the usage, or of choices without a finish reason, and the whole reply.

        Args:
            completion: The whole reply.
        """
        events: list[Event] = []
        choices = {choice.index: choice.message.tool_calls for choice in completion.choices}
        for index in sorted(self._calls):
            self._calls[index].finish(events, choices.get(index, ()))
        events.append(Finished(completion))
        return events

    def _feed_calls(self, piece: ChunkChoice, events: list[Event]) -> None:
        calls = self._calls.get(piece.index)
        if piece.delta.tool_calls:
            if calls is None:
                calls = self._calls[piece.index] = _ChoiceCalls(piece.index)
            calls.feed(piece, events)
        if piece.finish_reason and calls is not None:
            calls.end(events, piece.finish_reason, self._limits)


class _ChoiceCalls:
    """The tool calls of one choice, and what was told of them."""

    __slots__ = ("_calls", "_choice", "_done", "_grown", "_started")

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._calls = CallsSoFar()
        self._started: set[int] = set()
        self._done: set[int] = set()
        self._grown: dict[int, CallSoFar] = {}
        """The calls that got a piece since they were last asked whether they have ended."""

    def feed(self, piece: ChunkChoice, events: list[Event]) -> None:
        for delta in piece.delta.tool_calls or ():
            known = len(self._calls)
            call = self._calls.find(delta)
            if len(self._calls) > known:
                self._end_earlier(events)
            arguments = call.add(delta)
            self._grown[call.index] = call
            if call.index in self._done:
                continue  # white space, if anything: the arguments were a whole object
            if call.index in self._started:
                if arguments:
                    events.append(ToolCallDelta(call.index, arguments, self._choice))
            elif call.name:
                self._start(call, events)

    def end(self, events: list[Event], finish_reason: str, limits: CallLimits | None) -> None:
        """Tell the end of the calls that are open, of a choice that has ended.

        Args:
            events: Where to tell it.
            finish_reason: Why the choice ended.
            limits: By which the last call is judged, if it can be already; else it is left to `finish`.
        """
        *earlier, last = self._calls.in_order()
        for call in earlier:
            self._end(events, call, call.build())
        if limits is None or not limits.leave_open(last.arguments, finish_reason):
            self._end(events, last, last.build(cut=finish_reason in CUT_REASONS))

    def finish(self, events: list[Event], judged: Sequence[ToolCall]) -> None:
        """Tell the end of all calls that are still open.

        Args:
            events: Where to tell it.
            judged: The calls as the whole reply has them.
        """
        calls = self._calls.in_order()
        for place, call in enumerate(calls):
            known = len(judged) == len(calls)
            self._end(events, call, judged[place] if known else call.build(cut=self._calls.may_grow(call)))

    def _start(self, call: CallSoFar, events: list[Event]) -> None:
        self._started.add(call.index)
        events.append(ToolCallStart(call.index, call.id, call.name, self._choice))
        if arguments := call.arguments:
            events.append(ToolCallDelta(call.index, arguments, self._choice))

    def _end_earlier(self, events: list[Event]) -> None:
        # Only those that have grown are looked at, so that many calls cost no more than their pieces.
        grown, self._grown = self._grown, {}
        for index in sorted(grown):
            call = grown[index]
            if self._calls.is_last(call):
                self._grown[index] = call
            elif call.ended:
                self._end(events, call, call.build())

    def _end(self, events: list[Event], call: CallSoFar, built: ToolCall) -> None:
        if call.index in self._done:
            return
        if call.index not in self._started:
            self._start(call, events)
        self._done.add(call.index)
        events.append(ToolCallDone(call.index, built, self._choice))
