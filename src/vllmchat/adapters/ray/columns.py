"""Python values as columns of Arrow tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_JSON: Final = pa.string()
"""The type of what has no type in Arrow: it becomes JSON."""

_PLAIN: Final[Mapping[object, pa.DataType]] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}


def type_of(schema: Mapping[str, Any]) -> pa.DataType:
    """Returns the type of a column for values of a JSON schema.

    Objects with properties become structs, and arrays lists. What is recursive, of several types, or has any keys
    becomes text: JSON.
    """
    return _type_of(schema, schema.get("$defs", {}), ())


def _type_of(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], within: tuple[str, ...]
) -> pa.DataType:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        if name in within or name not in definitions:
            return _JSON
        return _type_of(definitions[name], definitions, (*within, name))
    if "anyOf" in schema:
        others = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return _type_of(others[0], definitions, within) if len(others) == 1 else _JSON
    if "enum" in schema or "const" in schema:
        options: list[object] = schema.get("enum", [schema.get("const")])
        return column(options)[0].type if len(set(map(type, options))) == 1 else _JSON
    kind = schema.get("type")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return pa.list_(_type_of(schema["items"], definitions, within))
    if kind == "object" and schema.get("properties"):
        fields = schema["properties"].items()
        return pa.struct([(name, _type_of(each, definitions, within)) for name, each in fields])
    return _PLAIN.get(kind, _JSON) if isinstance(kind, str) else _JSON


def fitted(value: object, kind: pa.DataType) -> object:
    """Returns a value of JSON as a column of a type takes it."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else json.dumps(value)
    if pa.types.is_struct(kind) and isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {each.name: fitted(fields.get(each.name), each.type) for each in kind}
    if pa.types.is_list(kind) and isinstance(value, list):
        return [fitted(each, kind.value_type) for each in cast("list[object]", value)]
    return value


def column(
    values: Sequence[object], kind: pa.DataType | None = None
) -> tuple[pa.Array, dict[int, Exception]]:
    """Returns a column, and why values do not fit into it, by their places.

    Args:
        values: The values. Those that do not fit are null in the column.
        kind: The type; None for that of the first value.
    """
    plain = [each.tolist() if hasattr(each, "tolist") else each for each in cast("Sequence[Any]", values)]
    try:
        return pa.array(plain, kind), {}
    except _UNFIT:
        pass
    misfits: dict[int, Exception] = {}
    for place, value in enumerate(plain):
        try:
            kind = pa.array([value], kind).type if value is not None else kind
        except _UNFIT as error:
            misfits[place] = error
    kept = [None if place in misfits else value for place, value in enumerate(plain)]
    return pa.array(kept, kind), misfits


_UNFIT: Final = (pa.ArrowException, TypeError, ValueError, OverflowError)
