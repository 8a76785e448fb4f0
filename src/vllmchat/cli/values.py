"""Values of parameters, read from the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from typing_extensions import is_typeddict

from vllmchat.checking.rules import is_generic, is_python, members, unwrap

if TYPE_CHECKING:
    from vllmchat.checking.rules import Field

    AnyType = click.ParamType[Any]
    FloatType = click.ParamType[float]
    IntegersType = click.ParamType[list[int]]
    TextType = click.ParamType[str]
    JSONType = click.ParamType[object]
else:  # generic only for type checkers
    AnyType = FloatType = IntegersType = TextType = JSONType = click.ParamType


class Number(FloatType):
    """A number. Its range is checked with the other parameters.

    Args:
        whole: Whether it is an integer.
    """

    def __init__(self, *, whole: bool) -> None:
        self.name = "integer" if whole else "number"
        self._whole = whole

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads the number."""
        try:
            number = int(value) if self._whole else float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is not {'an integer' if self._whole else 'a number'}.", param, ctx)
        return number


class Integers(IntegersType):
    """Integers with commas in between."""

    name = "integers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Reads the integers."""
        if isinstance(value, list):
            return cast("list[int]", value)
        try:
            return [int(each) for each in str(value).split(",")]
        except ValueError:
            self.fail(
                f"{value!r} is not a list of integers. Write them with commas, such as 1,2.", param, ctx
            )


class Words(TextType):
    """A text, often one of several words. Servers may accept others, so they are only proposed.

    Args:
        words: The words.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.name = "text"
        self.words = tuple(words)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Returns the words."""
        return f"[{'|'.join(self.words)}]" if self.words else None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Proposes the words."""
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


class JSON(JSONType):
    """A JSON value, or `@FILE` for one in a file.

    Args:
        words: Words that are values too.
    """

    name = "json"

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = tuple(words)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Returns the words too."""
        return "|".join((*self.words, "JSON|@FILE"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Reads the value."""
        if not isinstance(value, str) or value in self.words:
            return value
        where = ""
        if value.startswith("@"):
            where = f"{value[1:]}: "
            try:
                value = Path(value[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                self.fail(f"{where}{getattr(error, 'strerror', None) or 'it is not UTF-8.'}", param, ctx)
        return self.parse(value, where, param, ctx)

    def parse(
        self, text: str, where: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Reads a JSON text; `where` it comes from is written before what is wrong with it."""
        try:
            return json.loads(text)
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            at = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            words = f", and not one of {', '.join(self.words)}" if self.words else ""
            self.fail(f"{where}it is not JSON{words}: {reason}{at}.", param, ctx)


def is_switch(field: Field) -> bool:
    """Whether a parameter is true or false."""
    return field.type is bool


def is_repeated(field: Field) -> bool:
    """Whether a parameter is a list whose items are given one by one, each with the option."""
    return any(_item(kind) in ("text", "integer", "word") for kind in _kinds(field))


def type_of(field: Field) -> AnyType:
    """Returns the type of a parameter's option, or of each of its items."""
    kinds = _kinds(field)
    words = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    for kind in kinds:
        if (item := _item(kind)) == "integer":
            return Integers()
        if item == "word":
            words += [str(word) for word in get_args(get_args(kind)[0])]
    if any(is_typeddict(kind) or is_generic(kind, Mapping) or _item(kind) == "json" for kind in kinds):
        return JSON(words)
    if kinds in ((int,), (float,)):
        return Number(whole=kinds == (int,))
    return Words(words)


def _kinds(field: Field) -> tuple[object, ...]:
    """The members of a parameter's type that can be written on a command line."""
    bare = (unwrap(kind)[0] for kind in members(unwrap(field.type)[0]))
    return tuple(kind for kind in bare if not is_python(kind))


def _item(kind: object) -> Literal["text", "integer", "word", "json"] | None:
    """What a list holds; None if it is not a list."""
    if not is_generic(kind, Sequence):
        return None
    item: object = unwrap(get_args(kind)[0])[0]
    if get_origin(item) is Literal:
        return "word"
    return "text" if item is str else "integer" if item is int else "json"
