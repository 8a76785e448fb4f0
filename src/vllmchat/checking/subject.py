"""Validates the subject of a call, such as the text to embed, together with its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

from vllmchat.checking.checkers import Checker, checker_of
from vllmchat.checking.rules import Bounds, Field, fields_of
from vllmchat.checking.words import show, suggest
from vllmchat.errors import InvalidRequestError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllmchat.checking.dialect import CheckedParams

S = TypeVar("S")
F = TypeVar("F")


class Check(Protocol):
    """Validates the parameters of a call, as `Dialect.check` does."""

    def __call__(self, params: Mapping[str, object], *, stream: bool) -> CheckedParams:
        """Raises one `InvalidRequestError` with every problem."""
        ...


def check_all(
    found: Sequence[Problem], check: Check, params: Mapping[str, object], *, stream: bool = False
) -> CheckedParams:
    """Validates the parameters of a call whose subject has been validated.

    Args:
        found: The problems of the subject.
        check: Validates the parameters.
        params: The keyword arguments of the call.
        stream: Whether the call streams.

    Raises:
        InvalidRequestError: With every problem found, those of the subject first.
    """
    try:
        checked = check(params, stream=stream)
    except InvalidRequestError as error:
        if not found:
            raise
        raise InvalidRequestError([*found, *error.problems]) from None
    if found:
        raise InvalidRequestError(found)
    return checked


def judged(encode: Callable[[], S], failed: F) -> tuple[S | F, Sequence[Problem]]:
    """Returns a subject as it is sent, and its problems.

    Args:
        encode: Returns the subject, or raises `InvalidRequestError`.
        failed: The value to return if it raises.
    """
    try:
        return encode(), ()
    except InvalidRequestError as error:
        return failed, error.problems


def unknown(
    owner: str, params: type, said: Mapping[str, tuple[str, str | None]]
) -> Callable[[str, object], Problem]:
    """Returns what a `Dialect` needs to explain unknown names.

    Args:
        owner: What accepts the parameters, such as `embed`.
        params: The TypedDict of the parameters, for suggestions.
        said: For some names, what is wrong with them and what to write instead.
    """

    def problem(name: str, value: object) -> Problem:
        if name in said:
            return Problem(name, show(value), *said[name])
        meant = suggest(name, fields_of(params))
        hint = f"Did you mean `{meant}`?" if meant else None
        return Problem(name, show(value), f"is not a parameter of {owner}.", hint)

    return problem


def judge_tokens(value: object, path: str) -> Sequence[Problem]:
    """Returns the first few problems of a list of token ids."""
    return _tokens()(value, path)


@cache
def _tokens() -> Checker:
    return checker_of(
        Field(
            "tokens",
            Sequence[Annotated[int, Bounds(ge=0, le=2**63 - 1)]],
            nullable=False,
            required=True,
            rules=(),
            default=None,
            since=None,
            needs=None,
        )
    )
