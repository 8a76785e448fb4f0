"""The tool calls of one streamed choice, put together from their pieces.

How the pieces come differs from server to server, parser to parser: the id only in the first one, or in
all, or empty in later ones; the name late or repeated; the arguments in many pieces, in one, as null, or
not at all; several calls opened at once; a number that is missing, or the same for all calls. Here, and
nowhere else, that is made one.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from vllmchat.chat.completion import ToolCall, is_whole, mark_cut
from vllmchat.wire import build

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllmchat.chat.chunk import DeltaToolCall
    from vllmchat.wire import JsonObject


class CallSoFar:
    """One tool call as far as it came.

    Attributes:
        index: Its number in the choice.
        id: Its id, empty until it came. The first one stays.
        name: Name of the function, empty until it came. The first one stays.
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
        """Add a piece; returns what it adds to the arguments."""
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
        """Whether no more arguments can come: they are a whole JSON object."""
        arguments = self.arguments
        return arguments.rstrip().endswith("}") and is_whole(arguments)

    def fields(self) -> JsonObject:
        """The fields of the call so far."""
        function: JsonObject = {**self._function_extra, "name": self.name, "arguments": self.arguments}
        return {**self._extra, "id": self.id, "type": self._type or "function", "function": function}

    def build(self, *, cut: bool = False) -> ToolCall:
        """The call so far.

        Args:
            cut: Whether it is known to lack its end.
        """
        build(ToolCall)
        call = ToolCall.model_validate(self.fields())
        if cut:
            mark_cut(call)
        return call


class CallsSoFar:
    """The tool calls of one choice as far as they came."""

    __slots__ = ("_calls", "_highest", "_latest")

    def __init__(self) -> None:
        self._calls: dict[int, CallSoFar] = {}
        self._highest = -1
        self._latest: dict[int | None, CallSoFar] = {}  # by the number on the wire

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, pieces: Iterable[DeltaToolCall]) -> None:
        """Add the pieces of one chunk."""
        for piece in pieces:
            self.find(piece).add(piece)

    def find(self, piece: DeltaToolCall) -> CallSoFar:
        """The call that a piece belongs to, begun if the piece begins one."""
        call = self._latest.get(piece.index)
        if call is None or _begins_another(call, piece):
            index = piece.index
            if index is None or index in self._calls:
                index = self._highest + 1
            call = self._calls[index] = self._latest[piece.index] = CallSoFar(index)
            self._highest = max(self._highest, index)
        return call

    def in_order(self) -> list[CallSoFar]:
        """The calls by their number."""
        return [self._calls[index] for index in sorted(self._calls)]

    def is_last(self, call: CallSoFar) -> bool:
        """Whether no call has a higher number."""
        return call.index >= self._highest

    def may_grow(self, call: CallSoFar) -> bool:
        """Whether a call of a choice that goes on may get more: it has not ended, or is the last."""
        return self.is_last(call) or not call.ended


def _begins_another(call: CallSoFar, piece: DeltaToolCall) -> bool:
    # Some servers number all calls 0, or none. A new one then shows by its name, and its own id if it has
    # one, after a call that can be whole. vLLM up to 0.11 repeats id and type of the same call: that is no
    # new one.
    if piece.function is None or not piece.function.name or not call.name:
        return False
    if piece.id:
        other = bool(call.id) and piece.id != call.id
        return other and is_whole(call.arguments)
    return piece.index is None and call.ended
