"""Accumulates the events of a response."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from vllmchat.responses.events import (
    LAST,
    ResponseArgumentsDelta,
    ResponseEvent,
    ResponseItemEvent,
    ResponsePartEvent,
    ResponseReasoningDelta,
    ResponseStateEvent,
    ResponseTextDelta,
)
from vllmchat.responses.response import ModelResponse, ResponseItem, ResponsePart
from vllmchat.wire.decode import drop_empty_usage, ensure_built, with_record

if TYPE_CHECKING:
    from vllmchat.http.call import ResponseHead

_WHOLE_TEXTS = {
    "response.output_text.done": ("message", "output_text"),
    "response.reasoning_text.done": ("reasoning", "reasoning_text"),
    "response.function_call_arguments.done": ("function_call", ""),
}


class ResponseAccumulator:
    """Accumulates events. The cost of an event does not depend on the number of events before it."""

    def __init__(self) -> None:
        self._state: ModelResponse | None = None
        self._items: dict[int, _ItemAccumulator] = {}
        self.last: ResponseStateEvent | None = None

    def add(self, event: ResponseEvent) -> None:
        """Adds the next event."""
        if isinstance(event, ResponseTextDelta):
            self._item(event.output_index, "message").write(event.content_index, "output_text", event.delta)
        elif isinstance(event, ResponseReasoningDelta):
            self._item(event.output_index, "reasoning").write(
                event.content_index, "reasoning_text", event.delta
            )
        elif isinstance(event, ResponseArgumentsDelta):
            self._item(event.output_index, "function_call").arguments.write(event.delta)
        elif isinstance(event, ResponseItemEvent):
            if not event.item.model_fields_set:
                return
            item = self._item(event.output_index, event.item.type)
            whole = event.type == "response.output_item.done"
            # vLLM 0.10 announces an item under the index of the previous one, which has ended.
            if whole or not item.whole:
                item.replace(event.item, whole=whole)
        elif isinstance(event, ResponsePartEvent):
            if not event.part.model_fields_set:
                return
            kind = "reasoning" if event.part.type == "reasoning_text" else "message"
            item = self._item(event.output_index, kind)
            if event.type == "response.content_part.added" or not item.in_pieces:
                item.begin(event.content_index, event.part)
        elif isinstance(event, ResponseStateEvent):
            if self._state is not None and not event.response.model_fields_set:
                # The response so far is more than nothing.
                event.response = self._state.model_copy(update={"status": None})
            self._state = event.response
            if event.type in LAST:
                self.last = event
                # An event that says less than "completed" is believed, whatever the response in it says.
                status = event.type.removeprefix("response.")
                if status != "completed" or event.response.status is None:
                    event.response.status = status
        elif event.type in _WHOLE_TEXTS:
            self._add_whole(event)

    def _add_whole(self, event: ResponseEvent) -> None:
        """Adds a text or arguments that came as a whole, unless the item came in pieces.

        The index of a part does not tell: vLLM 0.10 gives each piece, and the whole text, its own.
        """
        extra = event.model_extra or {}
        index, part = (
            place if isinstance(place := extra.get(name), int) else 0
            for name in ("output_index", "content_index")
        )
        kind, part_kind = _WHOLE_TEXTS[event.type]
        item = self._item(index, kind)
        text = extra.get("arguments" if kind == "function_call" else "text")
        if not isinstance(text, str):
            return
        if kind == "function_call":
            if not item.arguments.tell():
                item.arguments.write(text)
        elif not item.in_pieces:
            item.begin(part, ResponsePart(type=part_kind, text=text))

    @property
    def finished(self) -> bool:
        """Whether the last event has arrived: nothing else shows that the response is complete."""
        return self.last is not None

    def shortfall(self) -> str | None:
        """What the response lacks although the server has marked its end: nothing, since the last event does that."""
        return None

    def reply(self, *, head: ResponseHead | None = None, ended: bool = True) -> ModelResponse:
        """Returns the response so far, even if it is empty. Later events do not change it."""
        ensure_built(ModelResponse)
        response = ModelResponse() if self._state is None else self._state.model_copy(deep=True)
        # The output in the last event takes precedence, but vLLM 0.10 leaves it empty.
        if self._items and not (self.last is not None and response.output):
            response.output = [self._items[index].build() for index in sorted(self._items)]
        drop_empty_usage(response)
        return with_record(response, head)

    def _item(self, index: int, kind: str) -> _ItemAccumulator:
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _ItemAccumulator(ResponseItem(type=kind, status="in_progress"))
        return item


class _ItemAccumulator:
    """One item so far."""

    __slots__ = ("_item", "_kinds", "_texts", "arguments", "in_pieces", "whole")

    def __init__(self, item: ResponseItem) -> None:
        self._item = item
        self.whole = False
        self.in_pieces = False
        self._texts: dict[int, StringIO] = {}
        self._kinds: dict[int, ResponsePart] = {}
        self.arguments = StringIO()

    def write(self, index: int, kind: str, text: str) -> None:
        if index not in self._texts:
            self.begin(index, ResponsePart(type=kind))
        self.in_pieces = True
        self._texts[index].write(text)

    def begin(self, index: int, part: ResponsePart) -> None:
        """Notes a part, with its text unless that has come in pieces."""
        if index not in self._texts:
            self._kinds[index] = part
            self._texts[index] = StringIO()
        if part.text and not self._texts[index].tell():
            self._texts[index].write(part.text)

    def replace(self, item: ResponseItem, *, whole: bool) -> None:
        self._item, self.whole = item, whole

    def build(self) -> ResponseItem:
        item = self._item.model_copy(deep=True)
        if self.whole:
            return item
        if self._texts:
            item.content = [
                self._kinds[index].model_copy(update={"text": self._texts[index].getvalue()}, deep=True)
                for index in sorted(self._texts)
            ]
        if arguments := self.arguments.getvalue():
            item.arguments = arguments
        return item
