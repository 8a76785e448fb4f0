"""The same JSON with null for a key, and without the key: equivalent for a lenient reader."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    Path = tuple[str | int, ...]


def null_and_absent(value: object) -> Iterator[tuple[Any, Any]]:
    """For each key at any depth: the value with null for it, and the value without it."""
    for *path, key in _paths(value):
        null, absent = copy.deepcopy(value), copy.deepcopy(value)
        _at(null, path)[key] = None
        del _at(absent, path)[key]
        yield null, absent


def _paths(value: object, here: Path = ()) -> Iterator[Path]:
    """The paths of all keys of objects."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            yield (*here, key)
            yield from _paths(inner, (*here, key))
    elif isinstance(value, list):
        for position, inner in enumerate(cast("list[object]", value)):
            yield from _paths(inner, (*here, position))


def _at(value: Any, path: list[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value
