"""Chunks that differ from an earlier one in their text only, as almost all chunks of a stream do.

Such a chunk is not validated again. The bytes before its text and those after it are compared with those of the earlier
chunk, the text is parsed, and the models are made as those of the earlier chunk were.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import from_json

from vllmchat.errors import ResponseError
from vllmchat.wire.lenient import TornCharacters

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllmchat.wire.decode import JsonObject

M = TypeVar("M", bound=BaseModel)

_TEXT = re.compile(rb'"(?:content|reasoning|reasoning_content|text)": ?("(?:[^"\\]|\\.)+")')
"""Where a chunk may have its text. Another text in its place shows whether that is so."""

PROBE = "any text"
"""That other text."""

_MOST_BYTES = 4096
_MOST_KINDS = 64
_SEARCHES = 12
"""So many chunks of a stream are searched for their kind before one comes more than `_A_FEW` times in a row.

If all chunks are different, or those of several choices take turns, it does not pay.
"""

_A_FEW = 4

# What sets the parts of a model without validation.
_parts = vars(BaseModel)
_new = object.__new__
_set_fields = _parts["__dict__"].__set__
_set_extra = _parts["__pydantic_extra__"].__set__
_set_private = _parts["__pydantic_private__"].__set__
_set_names = _parts["__pydantic_fields_set__"].__set__


class Repeats(Generic[M]):
    """Makes the chunks of one stream that differ from an earlier one in their text only.

    Args:
        decode: Decodes a chunk. Raises `ResponseError` if the data is not one.

    Attributes:
        texts: Those of all that `next` has returned since the last call of `joined`.
    """

    __slots__ = ("_decode", "_kind", "_kinds", "_searches", "texts")

    def __init__(self, decode: Callable[[bytes, TornCharacters], M]) -> None:
        self._decode = decode
        self._searches = _SEARCHES
        # By what comes before the text and after it. None after the first chunk of a kind.
        self._kinds: dict[tuple[bytes, bytes], _Kind[M] | None] = {}
        self._kind: _Kind[M] | None = None
        """That of the last chunk that was found."""
        self.texts: list[str] = []

    def next(self, data: bytes) -> M | None:
        """Returns the next chunk, if it is of the kind of the last one; else None."""
        kind = self._kind
        if (
            kind is None
            or not (data.startswith(kind.head) and data.endswith(kind.tail))
            or (text := kind.text(data)) is None
        ):
            return None
        self.texts.append(text)
        return kind.make(text)

    def joined(self) -> M | None:
        """Returns one chunk with the texts of all that `next` has returned since the last call; None without any.

        It adds up to the same: the other fields are those of the chunk before them. To be called before `find`.
        """
        texts, kind = self.texts, self._kind
        if kind is None or not texts:
            return None
        if len(texts) > _A_FEW:
            self._searches = _SEARCHES
        chunk = kind.make("".join(texts))
        texts.clear()
        return chunk

    def find(self, data: bytes) -> M | None:
        """Returns a chunk that is of the kind of two earlier ones; else None, and takes note of its kind."""
        if not self._searches:
            self._kind = None
            return None
        self._searches -= 1
        if len(data) > _MOST_BYTES:
            return None
        place = _TEXT.search(data, data.find(b'"choices"'))
        if place is None:
            return None
        around = data[: place.start(1)], data[place.end(1) :]
        if around not in self._kinds:
            if len(self._kinds) == _MOST_KINDS:
                self._kinds.clear()
            self._kinds[around] = None
            return None
        kind = self._kinds[around] = self._kinds[around] or self._learn(*around)
        if kind is None or (text := kind.text(data)) is None:
            return None
        self._kind = kind
        return kind.make(text)

    def _learn(self, head: bytes, tail: bytes) -> _Kind[M] | None:
        probe = PROBE.encode()
        if probe in head or probe in tail:
            # Among keys that are there twice, it would not show which of them counts.
            return None
        try:
            chunk = self._decode(b'%s"%s"%s' % (head, probe, tail), TornCharacters())
        except ResponseError:
            return None
        levels = _levels(chunk)
        return None if levels is None else _Kind(head, tail, levels)


class _Kind(Generic[M]):
    """Chunks that differ in their text only.

    Attributes:
        head: The bytes before the text, with its quotes.
        tail: Those after it.
    """

    __slots__ = ("_begin", "_end", "_levels", "head", "tail")

    def __init__(self, head: bytes, tail: bytes, levels: list[_Level]) -> None:
        self.head = head
        self.tail = tail
        self._begin = len(head)
        self._end = -len(tail)
        self._levels = levels

    def text(self, data: bytes) -> str | None:
        """The text of a chunk with this head and tail; None if it has no text, or something else, there.

        Without a text, what `decode` makes of the rest may be different.
        """
        try:
            text: object = from_json(data[self._begin : self._end])
        except ValueError:
            return None
        return text if isinstance(text, str) and text else None

    def make(self, text: str) -> M:
        """Returns a chunk with a text."""
        value: Any = text
        for model, fields, names, name, listed in self._levels:
            made = _new(model)
            _set_fields(made, {**fields, name: value})
            _set_extra(made, {})
            _set_private(made, None)
            _set_names(made, names.copy())
            value = [made] if listed else made
        chunk: M = value
        return chunk


class _Level(NamedTuple):
    """A model around the text: its values, the names of those that were sent, and where in it the next level is.

    Attributes:
        listed: Whether this model is the only item of a list.
    """

    model: type[BaseModel]
    fields: JsonObject
    names: set[str]
    name: str
    listed: bool


def _levels(model: BaseModel, *, listed: bool = False) -> list[_Level] | None:
    """The models around the text of a probe, from the innermost.

    None if it is nowhere or twice, or if the models have other parts that chunks must not share.
    """
    if model.__pydantic_extra__ or model.__pydantic_private__ is not None:
        return None
    fields = vars(model)
    found: list[list[_Level]] = []
    for name, value in fields.items():
        inner: list[_Level] | None = []
        if isinstance(value, BaseModel):
            inner = _levels(value)
        elif isinstance(value, list):
            items = cast("list[object]", value)
            only = items[0] if len(items) == 1 else None
            inner = _levels(only, listed=True) if isinstance(only, BaseModel) else None
        elif value is None or (isinstance(value, str | int | float) and value != PROBE):
            continue
        elif value != PROBE:
            inner = None
        if inner is None:
            return None
        found.append([*inner, _Level(type(model), dict(fields), set(model.model_fields_set), name, listed)])
    return found[0] if len(found) == 1 else None
