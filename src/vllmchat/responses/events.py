"""The events of a streamed response.

Events with text, arguments, items or the response itself have their own classes. All others are plain `ResponseEvent`
objects, with their fields in `model_extra`.
"""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated

from pydantic import Field

from vllmchat.responses.response import NEEDED_IN_RESPONSES, ModelResponse, ResponseItem, ResponsePart
from vllmchat.wire.decode import (
    JsonText,
    LenientInt,
    LenientStr,
    WireModel,
    as_object,
    decode,
    default_for_null,
    unexpected_body,
)
from vllmchat.wire.lenient import TornCharacters, parse
from vllmchat.wire.usage import TokenLogprob


class ResponseEvent(WireModel):
    """One event of a streamed response."""

    type: LenientStr = ""
    """The type of event, such as `"response.output_text.delta"`."""

    sequence_number: LenientInt = 0
    """Its sequence number, from 0."""

    @property
    def text_delta(self) -> str:
        """What the event adds to the response's text; empty if nothing."""
        return ""

    @property
    def reasoning_delta(self) -> str:
        """What the event adds to the response's reasoning; empty if nothing."""
        return ""


class ResponseItemEvent(ResponseEvent):
    """An item starts (`response.output_item.added`) or is complete (`response.output_item.done`)."""

    output_index: LenientInt = 0
    """Index of the item in the output, from 0."""

    item: Annotated[ResponseItem, default_for_null(lambda: ResponseItem())] = Field(
        default_factory=ResponseItem
    )
    """The item so far."""


class ResponsePartEvent(ResponseEvent):
    """A part of an item starts (`response.content_part.added`) or is complete (`response.content_part.done`)."""

    item_id: str | None = None
    """Id of the item."""

    output_index: LenientInt = 0
    """Index of the item in the output, from 0."""

    content_index: LenientInt = 0
    """Index of the part in the item, from 0."""

    part: Annotated[ResponsePart, default_for_null(lambda: ResponsePart())] = Field(
        default_factory=ResponsePart
    )
    """The part so far."""


class ResponseTextDelta(ResponseEvent):
    """A piece of the text: `response.output_text.delta`."""

    item_id: str | None = None
    """Id of the message."""

    output_index: LenientInt = 0
    """Index of the message in the output, from 0."""

    content_index: LenientInt = 0
    """Index of the part in the message, from 0."""

    delta: LenientStr = ""
    """The piece."""

    logprobs: list[TokenLogprob] | None = None
    """Log probabilities of its tokens, if `include` requested them."""

    @property
    def text_delta(self) -> str:
        """What the event adds to the response's text."""
        return self.delta


class ResponseReasoningDelta(ResponseEvent):
    """A piece of the reasoning: `response.reasoning_text.delta`."""

    item_id: str | None = None
    """Id of the reasoning item."""

    output_index: LenientInt = 0
    """Index of the reasoning item in the output, from 0."""

    content_index: LenientInt = 0
    """Index of the part in the reasoning item, from 0."""

    delta: LenientStr = ""
    """The piece."""

    @property
    def reasoning_delta(self) -> str:
        """What the event adds to the response's reasoning."""
        return self.delta


class ResponseArgumentsDelta(ResponseEvent):
    """A piece of a function call's arguments: `response.function_call_arguments.delta`."""

    item_id: str | None = None
    """Id of the call's item. The tool's result refers to its `call_id` instead."""

    output_index: LenientInt = 0
    """Index of the call in the output, from 0."""

    delta: JsonText = ""
    """The piece of JSON text. It need not be valid JSON by itself."""


class ResponseStateEvent(ResponseEvent):
    """The response starts (`response.created`, `response.in_progress`) or ends (`response.completed` and others)."""

    response: Annotated[ModelResponse, default_for_null(lambda: ModelResponse())] = Field(
        default_factory=ModelResponse
    )
    """The response so far; at the end, the whole response."""


_CLASSES: dict[str, type[ResponseEvent]] = {
    "response.created": ResponseStateEvent,
    "response.queued": ResponseStateEvent,
    "response.in_progress": ResponseStateEvent,
    "response.completed": ResponseStateEvent,
    "response.incomplete": ResponseStateEvent,
    "response.failed": ResponseStateEvent,
    "response.cancelled": ResponseStateEvent,
    "response.output_item.added": ResponseItemEvent,
    "response.output_item.done": ResponseItemEvent,
    "response.content_part.added": ResponsePartEvent,
    "response.content_part.done": ResponsePartEvent,
    "response.output_text.delta": ResponseTextDelta,
    "response.reasoning_text.delta": ResponseReasoningDelta,
    "response.function_call_arguments.delta": ResponseArgumentsDelta,
}

LAST = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
"""The types of the last event of a stream, which are `response.` and the status of the response.

Up to vLLM 0.32, the last event is `response.completed` for a truncated response too.
"""

_WHAT = "an event of a response"


def decode_event(data: bytes, kind: str, torn: TornCharacters | None = None) -> ResponseEvent:
    """Parses the data of a server-sent event.

    Args:
        data: The data.
        kind: The event's name; if empty, the type is read from the data.
        torn: The torn characters of the stream.

    Raises:
        ResponseError: The data is not an event of a response.
    """
    if not kind.startswith("response."):
        kind = _kind_of(data)
    cls = _CLASSES.get(kind, ResponseEvent)
    event: ResponseEvent = decode(cls, data, _WHAT, needed=NEEDED_IN_RESPONSES, torn=torn)
    event.type = event.type or kind
    return event


def is_foreign(data: bytes) -> bool:
    """Whether the data of an event has a type that is not one of a response."""
    try:
        body = as_object(parse(data))
    except (ValueError, RecursionError):
        return False
    kind = body.get("type") if body is not None else None
    return isinstance(kind, str) and not kind.startswith("response.")


def _kind_of(data: bytes) -> str:
    try:
        body = as_object(parse(data))
    except (ValueError, RecursionError) as error:
        raise unexpected_body(_WHAT, data, str(error)) from error
    kind = body.get("type") if body is not None else None
    if not isinstance(kind, str) or not kind.startswith("response."):
        raise unexpected_body(_WHAT, data, "it has no type that starts with 'response.'")
    return kind
