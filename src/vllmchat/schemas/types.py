"""Python types as JSON schemas, for `response_format=Model` and `structured_outputs={"json": Model}`."""

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

from vllmchat.checking.describe import as_mapping
from vllmchat.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from typing_extensions import TypeForm

T = TypeVar("T")

_KEPT: Final = 256
"""Size of the cache of types. Building a schema takes longer than sending a request."""

_ALIASES: Final = (TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType))
"""Type aliases: the `type` statement of Python 3.12 and `typing_extensions` have different classes."""

_LONGEST_NAME: Final = 64
"""Longest schema name that OpenAI's own server accepts."""


_UNSUPPORTED: Final = (PydanticUserError, PydanticUndefinedAnnotation, TypeError, NameError)
"""What pydantic raises for a type that it does not support."""


class SchemaError(Exception):
    """A type has no JSON schema. The message is the reason, as part of a sentence."""


class SchemaGenerator(GenerateJsonSchema):
    """Generates schemas. Leaves out a default that is not JSON-serializable, without a warning on each call."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's API


def is_type(value: object) -> TypeGuard[TypeForm[Any]]:
    """Whether a value is a type: a class, `list[int]`, `Literal["a", "b"]`, `int | None` and the like."""
    return (
        isinstance(value, (type, UnionType, NewType, *_ALIASES))
        or get_origin(value) is not None
        or value is Any
    )


def unaliased(value: object) -> object:
    """Resolves a type alias; returns anything else unchanged."""
    return cast("TypeAliasType", value).__value__ if isinstance(value, _ALIASES) else value


def adapter_of(kind: TypeForm[T]) -> TypeAdapter[T]:
    """Returns the validator for values of a type.

    Raises:
        SchemaError: Pydantic does not support the type.
    """
    key = cast("Hashable", kind)
    return cast("TypeAdapter[T]", _kept_adapter(key) if _hashes(key) else new_adapter(key))


def schema_of(
    adapter: TypeAdapter[T], generator: type[GenerateJsonSchema] = SchemaGenerator
) -> dict[str, object]:
    """Returns the JSON schema of the values that an adapter accepts.

    Raises:
        SchemaError: Some values have no JSON representation.
    """
    try:
        return adapter.json_schema(schema_generator=generator)
    except _UNSUPPORTED as error:
        raise SchemaError(_reason(error)) from error


def name_of(kind: object) -> str:
    """Returns a name for the schema of a type: letters, digits, `_` and `-`."""
    plain = isinstance(kind, type) and get_origin(kind) is None
    name = cast("type", kind).__name__ if plain else str(kind)
    name = re.sub(r"\b(\w+\.)+|<locals>\.", "", name)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:_LONGEST_NAME] or "reply"


def response_format_of(name: str, schema: Mapping[str, object]) -> dict[str, object]:
    """Returns the `response_format` for a schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


# Converters of a `Validator`


def convert_response_format(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    """Converts a type given as `response_format` to the mapping that is sent."""
    if not is_type(value):
        return _checked_on_use(value, path)
    try:
        return response_format_of(name_of(value), schema_of(adapter_of(value))), ()
    except SchemaError as error:
        return value, (_no_schema(value, path, error),)


def convert_structured_outputs(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    """Converts `structured_outputs` whose `json` is a type to the mapping that is sent."""
    fields = as_mapping(value) or {}
    kind = fields.get("json")
    if not is_type(kind):
        return value, ()
    try:
        schema = schema_of(adapter_of(kind))
    except SchemaError as error:
        return value, (_no_schema(kind, f"{path}.json", error),)
    return {**fields, "json": schema}, ()


def _checked_on_use(value: object, path: str) -> tuple[object, Sequence[Problem]]:
    if hasattr(value, "model_dump"):
        rule = f"must be a mapping or a type, not an instance of {type(value).__name__}."
        return value, (Problem(path, "", rule, f"Pass the class itself: {type(value).__name__}."),)
    return value, ()


def _no_schema(kind: object, path: str, error: SchemaError) -> Problem:
    hint = f"Write {shown(kind)}.model_json_schema()." if hasattr(kind, "model_json_schema") else None
    return Problem(path, shown(kind), f"has no JSON schema: {error}.", hint)


def shown(kind: object) -> str:
    """Formats a type for messages."""
    plain = isinstance(kind, type) and get_origin(kind) is None
    return cast("type", kind).__name__ if plain else str(kind).replace("typing.", "")


# Reading types


def _hashes(kind: Hashable) -> bool:
    try:
        hash(kind)
    except TypeError:  # for example Annotated with a list
        return False
    return True


def new_adapter(kind: object) -> TypeAdapter[Any]:
    """Returns the validator for values of a type that is used once, or kept by the caller.

    Raises:
        SchemaError: Pydantic does not support the type.
    """
    try:
        return TypeAdapter(cast("TypeForm[Any]", kind))
    except _UNSUPPORTED as error:
        raise SchemaError(_reason(error)) from error


# Bounded, so that classes created at run time can be garbage-collected.
_kept_adapter = lru_cache(_KEPT)(new_adapter)


def _reason(error: Exception) -> str:
    """Returns the first sentence of a message, without the advice and links after it."""
    text = " ".join(str(error).partition("\n")[0].split())
    return re.split(r"\. (?=[A-Z])", text)[0].rstrip(".")
