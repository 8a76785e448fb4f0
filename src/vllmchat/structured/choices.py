"""Replies that are one of some options."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_args, get_origin

from vllmchat.checking.describe import as_list, format_value, type_name
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.schemas.types import is_type, shown, unaliased
from vllmchat.structured.output_type import check_whole, mismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypeForm

    from vllmchat.chat.completion import ChatCompletion


S = TypeVar("S", bound=str)


class Choices(Generic[S]):
    """The options that the model chooses from.

    Args:
        options: A list of strings, a `Literal` of strings, or an enum of strings.

    Raises:
        InvalidRequestError: The options are something else, or empty.

    Attributes:
        names: The options as strings.
    """

    __slots__ = ("_by_name", "names")

    def __init__(self, options: Sequence[S] | TypeForm[S]) -> None:
        self._by_name = {_text_of(option): cast("S", option) for option in _members(options)}
        self.names = list(self._by_name)
        if not self.names:
            raise _no_options("must not be empty.")

    def read(self, completion: ChatCompletion) -> S:
        """Returns the option that a reply is.

        Raises:
            StructuredOutputError: It is not an option, or it was truncated and could have become another one.
        """
        text = completion.message.content or ""
        name = text if text in self._by_name else text.strip()
        longer = any(other != name and other.startswith(name) for other in self.names)
        if name not in self._by_name or longer:
            check_whole(completion, "one of the options")
        if name not in self._by_name:
            raise mismatch(completion, f"is not one of {', '.join(map(repr, self.names))}")
        return self._by_name[name]

    @property
    def literal(self) -> TypeForm[str]:
        """A `Literal` of the names."""
        return cast("Any", Literal)[tuple(self.names)]  # type: ignore[no-any-return] # built from a list

    def named(self, name: str) -> S:
        """Returns the option with a name."""
        return self._by_name[name]


def _members(value: object) -> Sequence[object]:
    options = unaliased(value)
    if get_origin(options) is Literal:
        return get_args(options)
    members = _members_of_enum(options) or as_list(options)
    if members is None:
        what = shown(value) if is_type(value) else type_name(value)
        raise _no_options(f"must be a list of strings, a Literal or an enum, not {what}.")
    return members


def _members_of_enum(options: object) -> Sequence[object] | None:
    return list(options) if isinstance(options, type) and issubclass(options, Enum) else None


def _text_of(option: object) -> str:
    text = option.value if isinstance(option, Enum) else option
    if not isinstance(text, str):
        raise _no_options(f"must be strings; {format_value(option)} is {type_name(option)}.")
    return str(text)


def _no_options(rule: str) -> InvalidRequestError:
    return InvalidRequestError([Problem("options", "", rule)])
