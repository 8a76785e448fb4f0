"""The words in which `params` says what a value must be, and the reading of what it says.

A parameter is one line, `name: Annotated[type | None, Bounds(ge=0), Since("0.9.1")]`. From that line come the
static type, the check before sending (`checkers`), and the reference page. `Default`, `Since` and `Needs` are
for readers only; the other words are enforced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, NotRequired, Required, Union, get_args, get_origin

from typing_extensions import TypeForm, get_type_hints

from vllmchat.checking.since import NEUTRAL, OLDEST, REWRITTEN, SINCE

# Plain classes: a dataclass costs half a millisecond of import each.


class Bounds:
    """The range of a number. Numbers are always finite.

    Args:
        ge: It is at least this.
        gt: It is greater than this.
        le: It is at most this.
        lt: It is less than this.
    """

    __slots__ = ("ge", "gt", "le", "lt")

    def __init__(
        self,
        *,
        ge: float | None = None,
        gt: float | None = None,
        le: float | None = None,
        lt: float | None = None,
    ) -> None:
        self.ge, self.gt, self.le, self.lt = ge, gt, le, lt

    def __str__(self) -> str:
        if self.ge is not None and self.le is not None:
            return f"between {_number(self.ge)} and {_number(self.le)}"
        words = (
            ("at least", self.ge),
            ("greater than", self.gt),
            ("at most", self.le),
            ("less than", self.lt),
        )
        return " and ".join(f"{word} {_number(bound)}" for word, bound in words if bound is not None)


class Length:
    """How many characters a string has, or how many items a list has.

    Args:
        least: At least so many.
        most: At most so many.
    """

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: int | None = None) -> None:
        self.least, self.most = least, most


class Without:
    """Characters that a string must not hold.

    Args:
        characters: All of them, as one string.
    """

    __slots__ = ("characters",)

    def __init__(self, characters: str) -> None:
        self.characters = characters


class NotBlank:
    """A string is more than white space."""

    __slots__ = ()


class ExactlyOne:
    """Exactly one of some keys of a mapping is set.

    Args:
        keys: The keys.
    """

    __slots__ = ("keys",)

    def __init__(self, *keys: str) -> None:
        self.keys = keys


class TokenIds:
    """The keys of a mapping are token ids: whole numbers, or strings that read as such."""

    __slots__ = ()


class Since(str):
    """The vLLM version that brought the parameter. Without it: 0.8.5 or older.

    Of a parameter that several endpoints share, it is the version that brought it to the first of them, mostly chats;
    for the others see `SINCE`. An older server is not sent it.
    """

    __slots__ = ()


class Default(str):
    """What the server does when the parameter is not sent."""

    __slots__ = ()


class Needs(str):
    """The option the server must have been started with."""

    __slots__ = ()


Rule = Bounds | Length | Without | NotBlank | ExactlyOne | TokenIds
"""A word that is enforced."""


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a TypedDict, taken apart.

    Attributes:
        name: The key.
        type: Its type, without `None` and without what was written around it.
        nullable: Whether `None` is allowed.
        required: Whether the key must be there.
        rules: What is enforced beside the type.
        default: What the server does without it, for readers.
        since: The vLLM version that brought it; None for 0.8.5 or older.
        needs: The server option it needs, for readers.
    """

    name: str
    type: object
    nullable: bool
    required: bool
    rules: tuple[Rule, ...]
    default: str | None
    since: str | None
    needs: str | None

    def too_new_for_some(self, value: object) -> bool:
        """Whether there are servers that ignore it, and do something else for that than they would with this value."""
        if self.since is None or self.since == OLDEST or self.name in REWRITTEN:
            return False
        default = (self.default or "").partition(",")[0].strip('`"')
        nothing = value in ([], (), {}) or str(value) == default
        return not nothing and not (self.name in NEUTRAL and value == NEUTRAL[self.name])


@cache
def fields_of(typed_dict: type) -> dict[str, Field]:
    """The keys of a TypedDict, inherited ones included, in the order in which they are written."""
    came = SINCE.get(typed_dict.__name__, {})
    hints: dict[str, object] = get_type_hints(typed_dict, include_extras=True)
    required: frozenset[str] = getattr(typed_dict, "__required_keys__", frozenset())
    return {
        name: _field(name, hint, required=name in required, came=came.get(name))
        for name, hint in hints.items()
    }


def unwrap(hint: object) -> tuple[object, tuple[object, ...]]:
    """A type and what `Annotated` says of it."""
    metadata: tuple[object, ...] = ()
    while get_origin(hint) in (Annotated, Required, NotRequired):
        if get_origin(hint) is Annotated:
            metadata = (*metadata, *hint.__metadata__)  # type: ignore[attr-defined] # get_origin said so
        hint = get_args(hint)[0]
    return hint, metadata


def members(hint: object) -> tuple[object, ...]:
    """The members of a union, or the type itself; with `None` among them when it is allowed."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def is_generic(bare: object, kind: type) -> bool:
    """Whether a type is a generic of this kind, as `Sequence[str]` is of `Sequence`."""
    origin: object = get_origin(bare)
    return isinstance(origin, type) and issubclass(origin, kind)


def is_python(bare: object) -> bool:
    """Whether a type stands for types or functions of Python, which become mappings before they are checked."""
    return get_origin(bare) in (TypeForm, Callable)


def enforced(metadata: tuple[object, ...]) -> tuple[Rule, ...]:
    """Those words of an annotation that are enforced."""
    return tuple(word for word in metadata if isinstance(word, Rule))


def _field(name: str, hint: object, *, required: bool, came: str | None) -> Field:
    bare, metadata = unwrap(hint)
    kinds = members(bare)
    rest = tuple(kind for kind in kinds if kind is not NoneType)

    def said(word: type[str]) -> str | None:
        return next((str(item) for item in metadata if isinstance(item, word)), None)

    return Field(
        name,
        rest[0] if len(rest) == 1 else Union[rest],  # noqa: UP007 - the members are known only here
        nullable=len(rest) < len(kinds),
        required=required,
        rules=enforced(metadata),
        default=said(Default),
        since=came or said(Since),
        needs=said(Needs),
    )


def _number(value: float) -> str:
    # 2**63 is easier to recognise than its nineteen digits.
    for power in (63, 64):
        if value in (2**power, -(2**power)):
            return f"{'-' if value < 0 else ''}2**{power}"
        if value == 2**power - 1:
            return f"2**{power} - 1"
    return repr(value)
