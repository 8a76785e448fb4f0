"""Events of a streamed reply: the layer that adapters build on.

Chunks are a wire format. Events are simpler: new text, new reasoning, a tool call starts, grows or ends, the reply is
complete. `EventBuilder` converts chunks to events without doing any I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from vllmchat.chat.tool_calls import PartialToolCalls
from vllmchat.wire.usage import final_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmchat.chat.chunk import ChatCompletionChunk, ChunkChoice
    from vllmchat.chat.completion import ChatCompletion, ToolCall
    from vllmchat.chat.limits import CallLimits
    from vllmchat.chat.tool_calls import PartialToolCall
    from vllmchat.wire.usage import FinishReason, Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of a choice's text. Joined, the pieces are the text of its message.

    Attributes:
        text: The piece; never empty.
        choice: Index of the choice.
    """

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of a choice's reasoning. Joined, the pieces are the reasoning of its message.

    Attributes:
        text: The piece; never empty.
        choice: Index of the choice.
    """

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool call has started: the tool's name is known, and the arguments begin.

    Attributes:
        index: Index of the call in its choice, from 0.
        id: Id of the call; empty if the server sends none.
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
        index: Index of the call in its choice, from 0.
        arguments: The piece of JSON text; never empty. It need not be valid JSON by itself.
        choice: Index of the choice.
    """

    index: int
    arguments: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDone:
    """A tool call has ended. Every call that started has exactly one such event, even a truncated call.

    It comes as soon as the end is certain: when the arguments are a complete JSON object other than `{}`, and a later
    call starts or the choice finishes; else when the stream ends. With `max_tokens`, the last call of a choice
    waits for the end of the stream, where the usage shows whether the limit was reached.

    Attributes:
        index: Index of the call in its choice, from 0.
        tool_call: The call. Check its `complete` before you run the tool.
        choice: Index of the choice.
    """

    index: int
    tool_call: ToolCall
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The reply is complete; the last event of a stream.

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
        """The token usage of the request."""
        return self.completion.usage


Event: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallDone | Finished
"""The events that a stream's `events` yields."""


class EventBuilder:
    """Converts the chunks of one stream to events.

    Within a chunk, the order is reasoning, text, tool calls, as models write them.

    Args:
        limits: What the request says about tool calls; None if unknown.
    """

    __slots__ = ("_calls", "_limits")

    def __init__(self, limits: CallLimits | None = None) -> None:
        self._limits = limits
        self._calls: dict[int, _ChoiceCalls] = {}

    def feed(self, chunk: ChatCompletionChunk) -> list[Event]:
        """Returns the events of the next chunk: often one, sometimes none."""
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
        """Returns the last events: calls that wait for the usage or the end of the stream, and the whole reply.

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
        if calls is None:
            calls = self._calls[piece.index] = _ChoiceCalls(piece.index)
        if piece.delta.tool_calls:
            calls.feed(piece, events)
        if piece.finish_reason:
            calls.end(events, piece.finish_reason, self._limits)


class _ChoiceCalls:
    """The tool calls of one choice, and the events sent for them."""

    __slots__ = ("_calls", "_choice", "_done", "_reason", "_started")

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._calls = PartialToolCalls()
        self._started: set[int] = set()
        self._done: set[int] = set()
        self._reason: str | None = None

    def feed(self, piece: ChunkChoice, events: list[Event]) -> None:
        for delta in piece.delta.tool_calls or ():
            known = len(self._calls)
            call = self._calls.find(delta)
            if len(self._calls) > known:
                self._end_closed(events)
            arguments = call.add(delta)
            if call.index in self._done:
                continue
            if call.index in self._started:
                if arguments:
                    events.append(ToolCallDelta(call.index, arguments, self._choice))
            elif call.name and call.has_arguments and not self._calls.may_repeat(call):
                # Before there are arguments, a piece of the name may follow.
                self._start(call, events)

    def end(self, events: list[Event], finish_reason: str, limits: CallLimits | None) -> None:
        """Adds the events for the end of a choice's calls that are certain to have ended, when the choice has.

        Args:
            events: Where to add them.
            finish_reason: Why the choice ended.
            limits: What the request says about tool calls; None if unknown.
        """
        self._reason = final_reason(self._reason, finish_reason)
        self._calls.end(self._reason, limits)
        self._end_closed(events)

    def finish(self, events: list[Event], final_calls: Sequence[ToolCall]) -> None:
        """Adds the events for the end of all calls that are still open.

        Args:
            events: Where to add them.
            final_calls: The calls in the whole reply.
        """
        calls = self._calls.in_order()
        for place, call in enumerate(calls):
            known = len(final_calls) == len(calls)
            self._end(
                events,
                call,
                final_calls[place] if known else call.build(truncated=self._calls.may_grow(call)),
            )

    def _start(self, call: PartialToolCall, events: list[Event]) -> None:
        self._started.add(call.index)
        events.append(ToolCallStart(call.index, call.own_id, call.name, self._choice))
        if not call.placeholder and (arguments := call.arguments):
            events.append(ToolCallDelta(call.index, arguments, self._choice))

    def _end_closed(self, events: list[Event]) -> None:
        for call in self._calls.take_closed():
            self._end(events, call, call.build())

    def _end(self, events: list[Event], call: PartialToolCall, built: ToolCall) -> None:
        if call.index in self._done:
            return
        if call.index not in self._started:
            if self._calls.repeats(call):
                self._done.add(call.index)
                return
            self._start(call, events)
        if call.placeholder:
            events.append(ToolCallDelta(call.index, call.placeholder, self._choice))
        self._done.add(call.index)
        events.append(ToolCallDone(call.index, built, self._choice))
