"""Assembles the tool calls of one streamed choice from their pieces.

The pieces differ between servers and parsers. The table in docs/tools.md says which pieces belong together.
"""

from __future__ import annotations

from io import StringIO
from itertools import takewhile
from typing import TYPE_CHECKING

from vllmchat.chat.completion import CallIds, ToolCall, is_object, mark_truncated
from vllmchat.errors import ResponseError
from vllmchat.wire.decode import MAX_PARTS, ensure_built
from vllmchat.wire.usage import truncates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllmchat.chat.chunk import DeltaToolCall
    from vllmchat.chat.limits import CallLimits
    from vllmchat.wire.decode import JsonObject

_PLACEHOLDERS = frozenset({"", "{}", "null"})
"""Arguments that some servers send first, before the real ones."""


class PartialToolCall:
    """One tool call so far.

    Attributes:
        index: Its index in the choice.
        id: Its id on the wire; empty until it arrives. The first one is kept.
        own_id: Its id in the reply: another one if an earlier call has the same on the wire.
        name: Name of the function; empty until it arrives.
        closed: Whether it has ended for good: what still comes for it is dropped.
    """

    __slots__ = (
        "_arguments",
        "_begun",
        "_extra",
        "_function_extra",
        "_held",
        "_type",
        "closed",
        "id",
        "index",
        "name",
        "own_id",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.own_id = ""
        self.closed = False
        self.name = ""
        self._type = ""
        self._arguments = StringIO()
        self._begun = False
        self._held = ""
        self._extra: JsonObject = {}
        self._function_extra: JsonObject = {}

    def add(self, piece: DeltaToolCall) -> str:
        """Adds a piece. Returns what it adds to the arguments, except for a placeholder, which may be replaced."""
        if self.closed:
            return ""
        if piece.id and not self.id:
            self.id = piece.id
        if piece.type and not self._type:
            self._type = piece.type
        if piece.__pydantic_extra__:
            self._extra.update(piece.__pydantic_extra__)
        function = piece.function
        if function is None:
            return ""
        name = function.name
        if name and name != self.name and not (self.name and self.has_arguments):
            # Some servers send the name in pieces, some the whole name so far.
            self.name = name if name.startswith(self.name) else self.name + name
        if function.__pydantic_extra__:
            self._function_extra.update(function.__pydantic_extra__)
        arguments = function.arguments
        if not arguments or self.is_repeated_by(piece):
            return ""
        if not self._begun:
            arguments = self._begin(arguments)
        self._arguments.write(arguments)
        return arguments

    def is_repeated_by(self, piece: DeltaToolCall) -> bool:
        """Whether a piece is the whole call again, with its id, as some servers send it at the end."""
        function = piece.function
        if function is None or not piece.id or piece.id != self.id or function.name != self.name:
            return False
        return self.ended and (function.arguments or "").strip() == self.arguments.strip()

    def _begin(self, arguments: str) -> str:
        """Returns the first arguments to write: nothing while they may be a placeholder, which real ones replace."""
        held = self._held
        if (held + arguments).strip() in _PLACEHOLDERS:
            self._held += arguments
            return ""
        self._held = ""
        self._begun = True
        return arguments if held.strip() and arguments.lstrip().startswith("{") else held + arguments

    @property
    def arguments(self) -> str:
        """The arguments so far."""
        return self._arguments.getvalue() or self._held

    @property
    def placeholder(self) -> str:
        """Arguments that more arguments may replace."""
        return self._held

    @property
    def has_arguments(self) -> bool:
        """Whether any arguments have arrived."""
        return self._begun or bool(self._held)

    @property
    def ended(self) -> bool:
        """Whether the arguments are a complete JSON object and not a placeholder, so that no more can follow."""
        return self._begun and self.is_whole

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object."""
        arguments = self.arguments
        return arguments.rstrip().endswith("}") and is_object(arguments)

    def fields(self) -> JsonObject:
        """Returns the fields of the call so far."""
        function: JsonObject = {**self._function_extra, "name": self.name, "arguments": self.arguments}
        return {**self._extra, "id": self.own_id, "type": self._type or "function", "function": function}

    def build(self, *, truncated: bool = False) -> ToolCall:
        """Returns the call so far.

        Args:
            truncated: Whether the call is known to be truncated.
        """
        ensure_built(ToolCall)
        call = ToolCall.model_validate(self.fields())
        if truncated:
            mark_truncated(call)
        return call


class PartialToolCalls:
    """The tool calls of one choice so far."""

    __slots__ = (
        "_by_id",
        "_calls",
        "_closed",
        "_current",
        "_grown",
        "_highest",
        "_ids",
        "_latest",
        "_sharing",
    )

    def __init__(self) -> None:
        self._calls: dict[int, PartialToolCall] = {}
        self._highest = -1
        self._latest: dict[int | None, PartialToolCall] = {}  # by the index on the wire
        self._by_id: dict[str, PartialToolCall] = {}
        self._ids = CallIds()
        self._sharing: dict[str, list[PartialToolCall]] = {}
        """The calls that have the same id on the wire."""
        self._current: PartialToolCall | None = None
        self._grown: dict[int, PartialToolCall] = {}
        """The calls that got a piece since it was last checked whether they have ended."""
        self._closed: list[PartialToolCall] = []

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, pieces: Iterable[DeltaToolCall]) -> None:
        """Adds the pieces of one chunk."""
        for piece in pieces:
            self.find(piece).add(piece)

    def find(self, piece: DeltaToolCall) -> PartialToolCall:
        """Returns the call that a piece belongs to: a new one if the piece starts a call."""
        call = self._latest.get(piece.index)
        function = piece.function
        name = function.name if function is not None else None
        if call is None or name or piece.id:
            call = self._find(piece, call, name)
        if call is not self._current:
            self._current = self._grown[call.index] = call
        return call

    def _find(self, piece: DeltaToolCall, call: PartialToolCall | None, name: str | None) -> PartialToolCall:
        index, call_id = piece.index, piece.id
        if call_id and (call is None or call.id != call_id):
            named = self._by_id.get(call_id)
            # Some servers give all calls the same id: then a new index and a name begin another call.
            if named is not None and not (name and call is None and index is not None):
                call = named
        is_new = call is None or _begins_another(call, piece, name)
        if call is None or is_new:
            call = self._new(index)
        self._latest[index] = call
        if call_id and not call.own_id and not call.closed:
            call.own_id = self._ids.own(call_id)
            first = self._by_id.setdefault(call_id, call)
            if first is not call:
                self._sharing.setdefault(call_id, [first]).append(call)
        if is_new and not self._sharing:
            self._close_earlier()
        return call

    def _new(self, index: int | None) -> PartialToolCall:
        if len(self._calls) >= MAX_PARTS:
            raise ResponseError(f"the reply has more than {MAX_PARTS:,} tool calls")
        if index is None or index in self._calls:
            index = self._highest + 1
        call = self._calls[index] = PartialToolCall(index)
        self._highest = max(self._highest, index)
        return call

    def _close_earlier(self) -> None:
        # Check only calls that have grown, so that the cost of many calls is proportional to their pieces.
        grown, self._grown, self._current = self._grown, {}, None
        for index, call in grown.items():
            if self.is_last(call):
                self._grown[index] = call
            elif call.name and call.ended:
                self._close(call)

    def _close(self, call: PartialToolCall) -> None:
        if not call.closed:
            call.closed = True
            self._closed.append(call)

    def end(self, finish_reason: str, limits: CallLimits | None) -> None:
        """Closes the complete calls of a choice that has ended.

        Others stay open: some servers send the finish reason before the last pieces. So does the last call if it may
        have been truncated, and all of them if any of them may turn out to be sent twice.

        Args:
            finish_reason: Why the choice ended.
            limits: What the request says about tool calls; None if unknown.
        """
        for call in self._calls.values():
            if self._sharing or not (call.name and call.ended):
                continue
            if self.is_last(call) and (
                truncates(finish_reason)
                or (limits is not None and limits.leave_open(call.arguments, finish_reason))
            ):
                continue
            self._close(call)

    def take_closed(self) -> list[PartialToolCall]:
        """Returns the calls that were closed since this was last called, in the order of their indexes."""
        closed, self._closed = self._closed, []
        return sorted(closed, key=lambda call: call.index)

    def in_order(self) -> list[PartialToolCall]:
        """Returns the calls in the order of their indexes, without those that were sent again as another call."""
        calls = [self._calls[index] for index in sorted(self._calls)]
        if not self._sharing:
            return calls
        # In the order in which they began. Without an id or a name, each is a call of its own.
        sent: dict[object, PartialToolCall] = {}
        kept = {
            sent.setdefault(
                (call.id, call.name, call.arguments.strip()) if call.id and call.name else index, call
            )
            for index, call in self._calls.items()
        }
        return [call for call in calls if call in kept]

    def may_repeat(self, call: PartialToolCall) -> bool:
        """Whether a call may turn out to be an earlier one that is sent again: it has the same id and name."""
        return any(each.name in ("", call.name) for each in self._before(call))

    def repeats(self, call: PartialToolCall) -> bool:
        """Whether a call is an earlier one that was sent again: it has the same arguments too."""
        arguments = call.arguments.strip()
        return bool(call.name) and any(
            each.name == call.name and each.arguments.strip() == arguments for each in self._before(call)
        )

    def _before(self, call: PartialToolCall) -> Iterable[PartialToolCall]:
        """The calls before one that have its id."""
        return takewhile(lambda each: each is not call, self._sharing.get(call.id, ()))

    @property
    def are_whole(self) -> bool:
        """Whether there are calls, and the arguments of each are a complete JSON object."""
        return bool(self._calls) and all(call.name and call.is_whole for call in self._calls.values())

    def is_last(self, call: PartialToolCall) -> bool:
        """Whether no call has a higher index."""
        return call.index >= self._highest

    def may_grow(self, call: PartialToolCall) -> bool:
        """Whether more pieces of a call may follow: it has not ended, or is the last one."""
        return self.is_last(call) or not call.ended


def _begins_another(call: PartialToolCall, piece: DeltaToolCall, name: str | None) -> bool:
    """Whether a piece starts another call than the one at its index, or with its id."""
    # Some servers give all calls the index 0, or none. Some repeat the name in each piece, or make a new id for it.
    if not name or not call.name:
        return False
    new_id = bool(piece.id and call.id) and piece.id != call.id
    if name != call.name:
        same_id = bool(piece.id) and not new_id
        return call.ended if same_id and call.id else new_id or call.has_arguments
    if new_id:
        return call.ended or (piece.index is None and call.has_arguments)
    arguments = piece.function.arguments if piece.function is not None else None
    return call.ended and bool(arguments and arguments.strip()) and not call.is_repeated_by(piece)
