"""Keeps keys out of error messages, and out of the locals of tracebacks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import is_
from typing import TYPE_CHECKING, Final, TypeVar, cast

from vllmchat.http.secrets import is_secret_name

if TYPE_CHECKING:
    from typing import Self, SupportsIndex

T = TypeVar("T")
M = TypeVar("M", bound=Mapping[str, object])

_KEY = r"(sk|hf|ghp|gsk|xox[a-z])[-_]\w|Bearer |[a-z][a-z0-9+.-]*://[^/\s]*@"


class Secret(str):
    """A text that is sent as it is, but masked where a local variable is shown: by its `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, key: SupportsIndex | slice) -> Self:
        # What shows locals shortens a long text before it asks for the `repr`.
        return type(self)(super().__getitem__(key))


def is_secret(name: str, value: object = None) -> bool:
    """Whether a parameter's value must not be shown: by its name, or because it looks like a key."""
    return is_secret_name(name) or (isinstance(value, str) and bool(re.match(_KEY, value, re.IGNORECASE)))


def holds_secret(name: str, value: object) -> bool:
    """Whether a value is a secret, or has one among its fields."""
    return is_secret(name, value) or _hidden_inside(value) is not value


def hide(value: T) -> T:
    """Returns a value that is equal, and whose `repr` does not show its texts."""
    hidden: object = value
    if isinstance(value, str):
        hidden = Secret(value)
    elif isinstance(value, Mapping):
        hidden = {name: hide(each) for name, each in cast("Mapping[object, object]", value).items()}
    elif isinstance(value, list):
        hidden = [hide(each) for each in cast("list[object]", value)]
    elif isinstance(value, tuple):
        hidden = tuple(hide(each) for each in cast("tuple[object, ...]", value))
    return cast("T", hidden)


def hide_secrets(arguments: M) -> M:
    """Returns keyword arguments with the secrets among them hidden, by their names; usually unchanged.

    The fields of `extra_body` and of tools have secrets too, such as the key of an MCP server.
    """
    if _NESTED.isdisjoint(arguments) and not any(map(is_secret_name, arguments)):
        return arguments
    hidden = {
        name: hide(value) if is_secret_name(name) else _hidden_inside(value) if name in _NESTED else value
        for name, value in arguments.items()
    }
    return cast("M", hidden)


_NESTED: Final = frozenset({"extra_body", "tools"})


def _hidden_inside(value: object) -> object:
    """A value with the secrets among its fields hidden, by their names; unchanged if there are none."""
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)
        hidden = {
            name: hide(each) if isinstance(name, str) and is_secret_name(name) else _hidden_inside(each)
            for name, each in fields.items()
        }
        return fields if all(hidden[name] is each for name, each in fields.items()) else hidden
    if isinstance(value, list):
        items = cast("list[object]", value)
        shown = [_hidden_inside(each) for each in items]
        return items if all(map(is_, shown, items)) else shown
    return value
