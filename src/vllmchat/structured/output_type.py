"""Replies of a Python type: the parameters that request one, and parsing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from vllmchat.checking.describe import as_mapping, format_value, is_list, type_name
from vllmchat.errors import InvalidRequestError, Problem, StructuredOutputError
from vllmchat.http.excerpt import excerpt
from vllmchat.schemas.types import (
    SchemaError,
    adapter_of,
    name_of,
    response_format_of,
    schema_of,
    shown,
)
from vllmchat.wire.decode import as_object, first_problem
from vllmchat.wire.usage import truncates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import TypeAdapter
    from typing_extensions import TypeForm

    from vllmchat.chat.completion import ChatCompletion

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """A reply parsed into a value.

    Attributes:
        value: The value.
        completion: The reply that it was parsed from.
    """

    value: T
    completion: ChatCompletion


def _check_is_type(kind: object) -> None:
    """Raises for what is often given in place of a type."""
    found = type_name(kind)
    hint: str | None = "For the answer as one of several texts, call choose(messages, [...])."
    if as_mapping(kind) is not None:
        schema = '{"type": "json_schema", "json_schema": {"name": "reply", "schema": ...}}'
        hint = (
            f"Write chat(messages, response_format={schema}) for a JSON schema, then json.loads(reply.text)."
        )
    elif hasattr(kind, "model_dump") and not isinstance(kind, type):
        hint = f"Pass the class itself: {type(kind).__name__}."
    elif isinstance(kind, str) or kind is None:
        hint = "Write parse(messages, TYPE)."
    elif not is_list(kind):
        return
    rule = f"must be a type, such as a pydantic model or list[int], not {found}."
    raise InvalidRequestError([Problem("kind", "", rule, hint)])


class OutputType(Generic[T]):
    """The type that a reply is parsed into.

    Args:
        kind: The type.
        wrap: Whether the server accepts only object schemas, so that other types are wrapped in an object.

    Raises:
        InvalidRequestError: The type has no JSON schema.

    Attributes:
        response_format: The `response_format` for the type.
    """

    __slots__ = ("_adapter", "_name", "_wrapped", "response_format")

    def __init__(self, kind: TypeForm[T], *, wrap: bool) -> None:
        _check_is_type(kind)
        self._name = shown(kind)
        try:
            self._adapter: TypeAdapter[T] = adapter_of(kind)
            schema = schema_of(self._adapter)
        except SchemaError as error:
            raise InvalidRequestError(
                [Problem("kind", self._name, f"has no JSON schema: {error}.")]
            ) from error.__cause__
        self._wrapped = wrap and schema.get("type") != "object"
        self.response_format = response_format_of(
            name_of(kind), _in_object(schema) if self._wrapped else schema
        )

    @property
    def request_params(self) -> dict[str, object]:
        """The request parameters for the type."""
        return {"response_format": self.response_format}

    def read(self, completion: ChatCompletion) -> Parsed[T]:
        """Parses a complete reply.

        Raises:
            StructuredOutputError: The reply was truncated, is a refusal, or is not valid.
        """
        check_whole(completion, f"a complete {self._name}")
        try:
            return Parsed(self._adapter.validate_json(self._inner(completion.text)), completion)
        except ValidationError as error:
            raise mismatch(completion, f"is not a valid {self._name} ({first_problem(error)})") from error
        except ValueError as error:
            raise mismatch(completion, f"is not a valid {self._name} ({error})") from error

    def data(self, text: str) -> object:
        """Parses the JSON of an incomplete text.

        Raises:
            ValueError: There is too little text, or it is not JSON.
        """
        return self._unwrapped(_partial_json(text))

    def parse_partial(self, text: str) -> T | None:
        """Returns the value of an incomplete text without an incomplete part at its end, or None if nothing is left."""
        data = self.data(text)
        while True:
            try:
                return self._adapter.validate_json(to_json(data))
            except ValidationError:
                if not _without_end(data):
                    return None

    def _inner(self, text: str) -> str | bytes:
        return to_json(self.whole(text)) if self._wrapped else text

    def whole(self, text: str) -> object:
        """Parses the JSON of a complete text.

        Raises:
            ValueError: It is not JSON.
        """
        return self._unwrapped(from_json(text))

    def _unwrapped(self, data: object) -> object:
        if not self._wrapped:
            return data
        outer = as_object(data) or {}
        if _KEY not in outer:
            raise ValueError(f"it has no {_KEY!r}")
        return outer[_KEY]


_KEY: Final = "value"


def _in_object(schema: Mapping[str, object]) -> dict[str, object]:
    """Wraps a schema in that of an object with one key."""
    inner = dict(schema)
    outer: dict[str, object] = {
        "type": "object",
        "properties": {_KEY: inner},
        "required": [_KEY],
        "additionalProperties": False,
    }
    if "$defs" in inner:  # references to it start at the root
        outer["$defs"] = inner.pop("$defs")
    return outer


def check_single(params: Mapping[str, object]) -> list[Problem]:
    """Rejects parameters that a method cannot have if it parses the reply into one value."""
    problems = [
        Problem(name, "", "is set by this method.", "To set it yourself, call .chat(...).")
        for name in ("response_format", "structured_outputs")
        if params.get(name) is not None
    ]
    n = params.get("n")
    if n is not None and n != 1:
        problems.append(Problem("n", format_value(n), "must be 1: this method parses one reply."))
    return problems


def check_whole(completion: ChatCompletion, what: str) -> None:
    """Checks that a reply is complete.

    Raises:
        StructuredOutputError: It was truncated, or it is a refusal.
    """
    refusal = completion.message.refusal
    reason = completion.finish_reason
    if refusal or reason == "content_filter":
        detail = f": {refusal}" if refusal else f" (finish reason {reason!r})"
        raise StructuredOutputError(f"the model refused{detail}", reason="refused", completion=completion)
    if truncates(reason):
        hint = ": raise max_tokens" if reason == "length" else ""
        raise StructuredOutputError(
            f"the reply was truncated before it was {what} (finish reason {reason!r}){hint}; {_shown(completion)}",
            reason="truncated",
            completion=completion,
        )


def mismatch(completion: ChatCompletion, why: str) -> StructuredOutputError:
    """Returns the error for a reply that is complete but not valid."""
    if completion.tool_calls and not completion.text.strip():
        names = ", ".join(call.name for call in completion.tool_calls)
        why = f"is a tool call: the model called {names}"
    return StructuredOutputError(
        f"the reply {why}; {_shown(completion)}", reason="mismatch", completion=completion
    )


def _shown(completion: ChatCompletion) -> str:
    text = completion.text
    if not text.strip():
        return "it has no text, only reasoning" if completion.reasoning else "it has no text"
    shown = excerpt(text)
    return f"it is: {text}" if shown == text else f"it starts with: {shown}"


# Partial values


def _partial_json(text: str) -> object:
    if text[-1:].isdigit() and '"' not in _STRING.sub("", text):
        # A number at the end may still get more digits.
        text = text.rstrip("0123456789+-.eE")
    return from_json(text, allow_partial="trailing-strings")


_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _without_end(data: object) -> bool:
    """Removes the innermost last item from nested data. Returns False if there is none."""
    holder: dict[str, object] | list[object] | None = None
    inner = data
    while isinstance(inner, dict | list) and inner:
        holder = cast("dict[str, object] | list[object]", inner)
        inner = holder[-1] if isinstance(holder, list) else next(reversed(holder.values()))
    if isinstance(holder, dict):
        holder.popitem()
    elif holder is not None:
        holder.pop()
    return holder is not None
