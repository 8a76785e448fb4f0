"""Python types as JSON schemas: what `response_format=Model` and `structured_outputs={"json": Model}` send."""

from __future__ import annotations

import re
import typing
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, NewType, TypeGuard, TypeVar, cast, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypeAliasType

from vllmchat.checking.words import as_mapping
from vllmchat.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from typing_extensions import TypeForm

T = TypeVar("T")

_KEPT: Final = 256
"""How many types are remembered. To take one apart takes longer than to send a request."""

_ALIASES: Final = (TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType))
"""Named types: the `type` statement of Python 3.12 makes others than `typing_extensions` does."""

_LONGEST_NAME: Final = 64
"""What OpenAI's own server allows for the name of a schema."""


class SchemaError(Exception):
    """A type has no JSON schema. The message is the reason; it begins in the middle of a sentence."""


class _Schema(GenerateJsonSchema):
    # A default without a JSON form is left out of the schema; that is no reason to warn at each call.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own way


def is_type(value: object) -> TypeGuard[TypeForm[Any]]:
    """Whether a value is a type: a class, `list[int]`, `Literal["a", "b"]`, `int | None` and the like."""
    return (
        isinstance(value, (type, UnionType, NewType, *_ALIASES))
        or get_origin(value) is not None
        or value is Any
    )


def unaliased(value: object) -> object:
    """What a named type stands for; anything else as it is."""
    return cast("TypeAliasType", value).__value__ if isinstance(value, _ALIASES) else value


def adapter_of(kind: TypeForm[T]) -> TypeAdapter[T]:
    """What validates values of a type.

    Raises:
        SchemaError: Pydantic knows no such type.
    """
    key = cast("Hashable", kind)
    return cast("TypeAdapter[T]", _kept_adapter(key) if _hashes(key) else _adapter(key))


def schema_of(adapter: TypeAdapter[T]) -> dict[str, object]:
    """The JSON schema of the values that an adapter takes.

    Raises:
        SchemaError: There are values that JSON has no form for.
    """
    try:
        return adapter.json_schema(schema_generator=_Schema)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise SchemaError(_reason(error)) from error


def name_of(kind: object) -> str:
    """A name for the schema of a type: letters, digits, `_` and `-`."""
    plain = isinstance(kind, type) and get_origin(kind) is None
    name = cast("type", kind).__name__ if plain else str(kind)
    name = re.sub(r"\b(\w+\.)+|<locals>\.", "", name)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:_LONGEST_NAME] or "reply"


def response_format_of(name: str, schema: Mapping[str, object]) -> dict[str, object]:
    """The `response_format` of a schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


# What a dialect converts


def convert_response_format(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    """A type given as `response_format`, as the mapping that is sent."""
    if not is_type(value):
        return _checked_later(value, path)
    try:
        return response_format_of(name_of(value), schema_of(adapter_of(value))), ()
    except SchemaError as error:
        return value, (_no_schema(value, path, error),)


def convert_structured_outputs(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    """`structured_outputs` whose `json` is a type, as the mapping that is sent."""
    given = as_mapping(value) or {}
    kind = given.get("json")
    if not is_type(kind):
        return value, ()
    try:
        schema = schema_of(adapter_of(kind))
    except SchemaError as error:
        return value, (_no_schema(kind, f"{path}.json", error),)
    return {**given, "json": schema}, ()


def _checked_later(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    if hasattr(value, "model_dump"):
        rule = f"must be a mapping or a type, not an instance of {type(value).__name__}."
        return value, (Problem(path, "", rule, f"Write the class itself: {type(value).__name__}."),)
    return value, ()


def _no_schema(kind: object, path: str, error: SchemaError) -> Problem:
    hint = (
        f"Take its schema: {shown(kind)}.model_json_schema()." if hasattr(kind, "model_json_schema") else None
    )
    return Problem(path, shown(kind), f"has no JSON schema: {error}.", hint)


def shown(kind: object) -> str:
    """A type, for messages."""
    plain = isinstance(kind, type) and get_origin(kind) is None
    return cast("type", kind).__name__ if plain else str(kind).replace("typing.", "")


# Taking types apart


def _hashes(kind: Hashable) -> bool:
    try:
        hash(kind)
    except TypeError:  # such as Annotated with a list
        return False
    return True


def _adapter(kind: object) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(cast("TypeForm[Any]", kind))
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError, NameError) as error:
        raise SchemaError(_reason(error)) from error


# Bounded: classes that are made while a program runs must be able to go away.
_kept_adapter = lru_cache(_KEPT)(_adapter)


def _reason(error: Exception) -> str:
    """The first sentence of a message that goes on with advice and links."""
    text = " ".join(str(error).partition("\n")[0].split())
    return re.split(r"\. (?=[A-Z])", text)[0].rstrip(".")
