"""Assembles the tool calls of one streamed choice from their pieces.

The pieces differ between servers and parsers: the id only in the first piece, in all, or empty in later ones; the name
late or repeated; the arguments in many pieces, in one, as null, or not at all; several calls open at once; an index
that is missing, or the same for all calls. All of that is handled here.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from vllmchat.chat.completion import ToolCall, is_whole, mark_cut
from vllmchat.wire.decode import ensure_built

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllmchat.chat.chunk import DeltaToolCall
    from vllmchat.wire.decode import JsonObject


class PartialToolCall:
    """One tool call so far.

    Attributes:
        index: Its index in the choice.
        id: Its id; empty until it arrives. The first one is kept.
        name: Name of the function; empty until it arrives. The first one is kept.
    """

    __slots__ = ("_arguments", "_extra", "_function_extra", "_type", "id", "index", "name")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self._type = ""
        self._arguments = StringIO()
        self._extra: JsonObject = {}
        self._function_extra: JsonObject = {}

    def add(self, piece: DeltaToolCall) -> str:
        """Adds a piece. Returns what it adds to the arguments."""
        if piece.id and not self.id:
            self.id = piece.id
        if piece.type and not self._type:
            self._type = piece.type
        if piece.__pydantic_extra__:
            self._extra.update(piece.__pydantic_extra__)
        function = piece.function
        if function is None:
            return ""
        if function.name and not self.name:
            self.name = function.name
        if function.__pydantic_extra__:
            self._function_extra.update(function.__pydantic_extra__)
        if not function.arguments:
            return ""
        self._arguments.write(function.arguments)
        return function.arguments

    @property
    def arguments(self) -> str:
        """The arguments so far."""
        return self._arguments.getvalue()

    @property
    def ended(self) -> bool:
        """Whether the arguments are a complete JSON object, so that no more can follow."""
        arguments = self.arguments
        return arguments.rstrip().endswith("}") and is_whole(arguments)

    def fields(self) -> JsonObject:
        """Returns the fields of the call so far."""
        function: JsonObject = {**self._function_extra, "name": self.name, "arguments": self.arguments}
        return {**self._extra, "id": self.id, "type": self._type or "function", "function": function}

    def build(self, *, cut: bool = False) -> ToolCall:
        """Returns the call so far.

        Args:
            cut: Whether the call is known to be truncated.
        """
        ensure_built(ToolCall)
        call = ToolCall.model_validate(self.fields())
        if cut:
            mark_cut(call)
        return call


class PartialToolCalls:
    """The tool calls of one choice so far."""

    __slots__ = ("_calls", "_highest", "_latest")

    def __init__(self) -> None:
        self._calls: dict[int, PartialToolCall] = {}
        self._highest = -1
        self._latest: dict[int | None, PartialToolCall] = {}  # by the index on the wire

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, pieces: Iterable[DeltaToolCall]) -> None:
        """Adds the pieces of one chunk."""
        for piece in pieces:
            self.find(piece).add(piece)

    def find(self, piece: DeltaToolCall) -> PartialToolCall:
        """Returns the call that a piece belongs to: a new one if the piece starts a call."""
        call = self._latest.get(piece.index)
        if call is None or _begins_another(call, piece):
            index = piece.index
            if index is None or index in self._calls:
                index = self._highest + 1
            call = self._calls[index] = self._latest[piece.index] = PartialToolCall(index)
            self._highest = max(self._highest, index)
        return call

    def in_order(self) -> list[PartialToolCall]:
        """Returns the calls in the order of their indexes."""
        return [self._calls[index] for index in sorted(self._calls)]

    def is_last(self, call: PartialToolCall) -> bool:
        """Whether no call has a higher index."""
        return call.index >= self._highest

    def may_grow(self, call: PartialToolCall) -> bool:
        """Whether more pieces of a call may follow: it has not ended, or is the last one."""
        return self.is_last(call) or not call.ended


def _begins_another(call: PartialToolCall, piece: DeltaToolCall) -> bool:
    # Some servers give all calls the index 0, or none. A new call is then recognized by its name, and its id if it
    # has one, after a call that can be complete. vLLM up to 0.11 repeats the id and type of the same call.
    if piece.function is None or not piece.function.name or not call.name:
        return False
    if piece.id:
        other = bool(call.id) and piece.id != call.id
        return other and is_whole(call.arguments)
    return piece.index is None and call.ended
