"""The annotations that describe parameters, and the code that reads them.

A parameter is one line, `name: Annotated[type | None, Bounds(ge=0), Since("0.9.1")]`. The static type, the check
before sending (`checkers`) and the reference page all come from it. `Default` and `Needs` are documentation only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, NamedTuple, NotRequired, Required, Union, get_args, get_origin

from typing_extensions import TypeForm, get_type_hints

from vllmchat.checking.since import NEUTRAL, OLDEST, REWRITTEN, SINCE

# Plain classes: a dataclass costs half a millisecond of import each.


class Bounds:
    """The range of a number. Numbers must always be finite.

    Args:
        ge: Greater than or equal to this.
        gt: Greater than this.
        le: Less than or equal to this.
        lt: Less than this.
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
    """The length of a string, in characters, or of a list, in items.

    Args:
        least: The minimum.
        most: The maximum; None for no limit.
    """

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: int | None = None) -> None:
        self.least, self.most = least, most


class Without:
    """Characters that a string must not contain.

    Args:
        characters: The characters, as one string.
    """

    __slots__ = ("characters",)

    def __init__(self, characters: str) -> None:
        self.characters = characters


class NotBlank:
    """A string with more than white space."""

    __slots__ = ()


class ExactlyOne:
    """A mapping in which exactly one of some keys is set.

    Args:
        keys: The keys.
    """

    __slots__ = ("keys",)

    def __init__(self, *keys: str) -> None:
        self.keys = keys


class TokenIds:
    """A mapping whose keys are token ids: integers of at least 0, or strings of digits."""

    __slots__ = ()


class Since(str):
    """The vLLM version that added the parameter. Without this annotation: 0.8.5 or older.

    If several endpoints share a parameter, this is the version for the first of them, usually chats; see `SINCE` for
    the others. The parameter is not sent to older servers.
    """

    __slots__ = ()


class Default(str):
    """What the server does if the parameter is not sent."""

    __slots__ = ()


class Needs(str):
    """The option that the server must be started with."""

    __slots__ = ()


Rule = Bounds | Length | Without | NotBlank | ExactlyOne | TokenIds
"""An annotation that is enforced."""


class Field(NamedTuple):
    """One key of a TypedDict.

    Attributes:
        name: The key.
        type: Its type, without `None` and `Annotated`.
        nullable: Whether `None` is allowed.
        required: Whether the key is required.
        rules: What is enforced in addition to the type.
        default: What the server does without it; documentation only.
        since: The vLLM version that added it; None for 0.8.5 or older.
        needs: The server option it needs; documentation only.
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
        """Whether some servers would ignore it and so behave differently from what this value asks for."""
        if self.since is None or self.since == OLDEST or self.name in REWRITTEN:
            return False
        default = (self.default or "").partition(",")[0].strip('`"')
        nothing = value in ([], (), {}) or str(value) == default
        return not nothing and not (self.name in NEUTRAL and value == NEUTRAL[self.name])


@cache
def fields_of(typed_dict: type) -> dict[str, Field]:
    """Returns the keys of a TypedDict in the order of definition, including inherited ones."""
    since = SINCE.get(typed_dict.__name__, {})
    hints: dict[str, object] = get_type_hints(typed_dict, include_extras=True)
    required: frozenset[str] = getattr(typed_dict, "__required_keys__", frozenset())
    return {
        name: _field(name, hint, required=name in required, since=since.get(name))
        for name, hint in hints.items()
    }


def unwrap(hint: object) -> tuple[object, tuple[object, ...]]:
    """Returns a type without `Annotated`, and the annotations."""
    metadata: tuple[object, ...] = ()
    while get_origin(hint) in (Annotated, Required, NotRequired):
        if get_origin(hint) is Annotated:
            metadata = (*metadata, *hint.__metadata__)  # type: ignore[attr-defined] # get_origin ensures it
        hint = get_args(hint)[0]
    return hint, metadata


def members(hint: object) -> tuple[object, ...]:
    """Returns the members of a union, including `None` if it is allowed, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def is_generic(bare: object, kind: type) -> bool:
    """Whether a type is a generic of this kind, as `Sequence[str]` is of `Sequence`."""
    origin: object = get_origin(bare)
    return isinstance(origin, type) and issubclass(origin, kind)


def is_python(bare: object) -> bool:
    """Whether values of this type are Python types or functions, which are converted to mappings before the check."""
    return get_origin(bare) in (TypeForm, Callable)


def enforced(metadata: tuple[object, ...]) -> tuple[Rule, ...]:
    """Returns those annotations that are enforced."""
    return tuple(word for word in metadata if isinstance(word, Rule))


def _field(name: str, hint: object, *, required: bool, since: str | None) -> Field:
    bare, metadata = unwrap(hint)
    kinds = members(bare)
    rest = tuple(kind for kind in kinds if kind is not NoneType)

    def text_of(word: type[str]) -> str | None:
        return next((str(item) for item in metadata if isinstance(item, word)), None)

    return Field(
        name,
        rest[0] if len(rest) == 1 else Union[rest],  # noqa: UP007 - the members are known only here
        nullable=len(rest) < len(kinds),
        required=required,
        rules=enforced(metadata),
        default=text_of(Default),
        since=since or text_of(Since),
        needs=text_of(Needs),
    )


def _number(value: float) -> str:
    # 2**63 is easier to recognize than its nineteen digits.
    for power in (63, 64):
        if value in (2**power, -(2**power)):
            return f"{'-' if value < 0 else ''}2**{power}"
        if value == 2**power - 1:
            return f"2**{power} - 1"
    return repr(value)
