"""Attributes of spans, of what a call sends and receives. Nothing here imports OpenTelemetry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from pydantic import BaseModel

from vllmchat.http.observe import token_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllmchat.http.observe import ObservedCall

Attribute: TypeAlias = "str | bool | int | float | Sequence[str]"
Attributes: TypeAlias = "dict[str, Attribute]"

_OPERATIONS: Final = {
    "/chat/completions": "chat",
    "/chat/completions/batch": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
    "/inference/v1/generate": "text_completion",
    "/responses": "chat",
}

_PARAMETERS: Final = {
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    **{
        name: name
        for name in (
            "max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed",
            "stream",
        )
    },
}  # fmt: skip
"""Parameters of requests, and their names in the conventions."""


def operation_of(path: str) -> str:
    """The operation of a route: that of the conventions if there is one, else the end of the route."""
    return _OPERATIONS.get(path) or path.rstrip("/").rpartition("/")[2]


def request_attributes(fields: Mapping[str, object]) -> Attributes:
    """The attributes of what a call sends."""
    found: Attributes = {}
    for name, meaning in _PARAMETERS.items():
        value = fields.get(name)
        if isinstance(value, bool | int | float):
            found[f"gen_ai.request.{meaning}"] = value
    stop = fields.get("stop")
    if stop:
        stops = [stop] if isinstance(stop, str) else cast("list[object]", stop)
        found["gen_ai.request.stop_sequences"] = [str(each) for each in stops]
    n = fields.get("n")
    if isinstance(n, int) and n != 1:
        found["gen_ai.request.choice.count"] = n
    encoding = fields.get("encoding_format")
    if isinstance(encoding, str):
        found["gen_ai.request.encoding_formats"] = [encoding]
    return found


def response_attributes(call: ObservedCall) -> Attributes:
    """The attributes of what a call received."""
    reply, record = call.reply, call.record
    found: Attributes = {}
    for name in ("id", "model"):
        value = getattr(reply, name, None)
        if isinstance(value, str) and value:
            found[f"gen_ai.response.{name}"] = value
    choices = cast("Iterable[object]", getattr(reply, "choices", None) or ())
    reasons = [str(reason) for each in choices if (reason := getattr(each, "finish_reason", None))]
    if reasons:
        found["gen_ai.response.finish_reasons"] = reasons
    for name, count in zip(("input", "output"), token_counts(reply), strict=True):
        if count is not None:
            found[f"gen_ai.usage.{name}_tokens"] = count
    timings = record.timings()
    if timings.first_token is not None:
        found["gen_ai.response.time_to_first_chunk"] = timings.first_token
    if record.status is not None:
        found["http.response.status_code"] = record.status
    if record.attempts > 1:
        found["http.request.resend_count"] = record.attempts - 1
    if record.request_id:
        found["vllmchat.request_id"] = record.request_id
    return found


def content_of(side: str, value: object) -> Attributes:
    """The messages of a request, or the choices of a reply, in the form of the conventions.

    Args:
        side: `"input"` or `"output"`.
        value: The messages or the choices.
    """
    if not isinstance(value, list) or not value:
        return {}
    messages: list[dict[str, object]] = []
    for each in cast("list[object]", value):
        fields = _fields(each)
        message = _fields(fields.get("message")) if side == "output" else fields
        shown: dict[str, object] = {"role": message.get("role", "assistant"), "parts": _parts(message)}
        if side == "output":
            shown["finish_reason"] = fields.get("finish_reason") or ""
        messages.append(shown)
    return {f"gen_ai.{side}.messages": json.dumps(messages, ensure_ascii=False, default=str)}


def _fields(value: object) -> Mapping[str, object]:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _parts(message: Mapping[str, object]) -> list[dict[str, object]]:
    parts: list[dict[str, object]] = []
    if message.get("reasoning"):
        parts.append({"type": "reasoning", "content": message["reasoning"]})
    content = message.get("content")
    answers = message.get("role") == "tool"
    for each in cast("list[object]", content) if isinstance(content, list) else [content] if content else []:
        part = _fields(each)
        text = each if isinstance(each, str) else part.get("text")
        if answers:
            parts.append({"type": "tool_call_response", "id": message.get("tool_call_id"), "response": text})
        elif text is not None:
            parts.append({"type": "text", "content": text})
        else:
            # Media are too large for a span.
            parts.append({"type": part.get("type", "unknown")})
    for call in cast("Iterable[object]", message.get("tool_calls") or ()):
        fields = _fields(call)
        function = _fields(fields.get("function"))
        parts.append(
            {
                "type": "tool_call",
                "id": fields.get("id"),
                "name": function.get("name"),
                "arguments": function.get("arguments"),
            }
        )
    return parts
