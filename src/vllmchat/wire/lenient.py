"""Reads JSON that does not fit its model: leaves out what a reply does not need, and repairs torn characters.

Only responses that the compiled validator rejects come here, so none of this costs the usual response anything.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Set as AbstractSet

_PLACES = ("index", "output_index", "content_index")
"""Keys that say which part of a reply an object belongs to."""


def parse(data: bytes) -> object:
    """Parses JSON as leniently as possible: with a byte order mark, invalid UTF-8, or half a surrogate pair.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    return json.loads(data.decode("utf-8-sig", "replace"))


def without_halves(text: str) -> str:
    """Returns a text in which half of a surrogate pair, which cannot be encoded, is U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mend_json(text: str) -> str:
    """Returns JSON text without escapes that are half of a surrogate pair, which strict parsers reject.

    Raises:
        ValueError: It is not JSON.
    """
    if "\\ud" not in text.lower():
        return text
    return json.dumps(TornCharacters().mend(json.loads(text)), ensure_ascii=False)


class TornCharacters:
    """Characters whose escaped surrogate pair was split over two chunks of a stream, as some proxies do.

    The first half waits here for the chunk with the second half.
    """

    def __init__(self) -> None:
        self._halves: dict[tuple[object, ...], str] = {}

    def mend(self, value: object) -> object:
        """Returns a parsed chunk with whole characters only. A half at the end of a text waits for the next chunk."""
        return self._mend(value, ())

    def _mend(self, value: object, path: tuple[object, ...]) -> object:
        if isinstance(value, str):
            return self._mend_text(value, path)
        if isinstance(value, list):
            # Pieces of the same text may be at different places of a list.
            return [self._mend(each, path) for each in cast("list[object]", value)]
        if isinstance(value, dict):
            fields = cast("dict[str, object]", value)
            path += tuple(place for name in _PLACES if isinstance(place := fields.get(name), int))
            return {without_halves(name): self._mend(each, (*path, name)) for name, each in fields.items()}
        return value

    def _mend_text(self, text: str, path: tuple[object, ...]) -> str:
        if "\udc00" <= text[:1] <= "\udfff":
            text = self._halves.pop(path, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._halves[path] = text[-1]
            text = text[:-1]
        return without_halves(text)


def drop(value: object, paths: Iterable[tuple[int | str, ...]], needed: AbstractSet[str]) -> bool:
    """Removes values that do not fit from parsed JSON, in place.

    Each path leads to such a value. What is removed is that value if an object has it, else the innermost value around
    it that an object has, unless the path to it consists of needed keys only. Nulls are removed from needed lists.

    Args:
        value: The parsed JSON.
        paths: The paths. They may have parts that are neither keys nor indexes, such as the names of types.
        needed: The keys without which the response is useless.

    Returns:
        Whether anything was removed.
    """
    found: dict[tuple[int | str, ...], tuple[dict[str, object], str]] = {}
    with_nulls: list[list[object]] = []
    around: set[tuple[int | str, ...]] = set()
    for path in paths:
        each = _droppable(value, path, needed)
        if each is not None:
            holder, name, place = each
            if isinstance(holder, list):
                with_nulls.append(holder)
                continue
            found[place] = holder, name
            around.update(place[:end] for end in range(len(place)))
    for place, (holder, name) in found.items():
        # A list that does not fit is reported too if one of its items does not: then only the item goes.
        if place not in around:
            del holder[name]
    for items in with_nulls:
        items[:] = [item for item in items if item is not None]
    return bool(found or with_nulls)


def _droppable(
    value: object, path: tuple[int | str, ...], needed: AbstractSet[str]
) -> tuple[dict[str, object] | list[object], str, tuple[int | str, ...]] | None:
    """The object and its key that a path leads to, and the path to it; or a list that has nulls, and "".

    None if only needed keys lead there.
    """
    target = None
    optional = False
    place: tuple[int | str, ...] = ()
    for part in path:
        if isinstance(value, dict) and part in value:
            fields, name = cast("dict[str, object]", value), cast("str", part)
            place = (*place, name)
            optional = optional or name not in needed
            if optional:
                target = fields, name, place
            value = fields[name]
        elif isinstance(value, list) and isinstance(part, int):
            items = cast("list[object]", value)
            place = (*place, part)
            if part >= len(items):
                break
            value = items[part]
            if value is None and target is None:
                return items, "", place
    return target
