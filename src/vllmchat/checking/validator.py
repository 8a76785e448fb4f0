"""Validates the parameters of a call in one pass, and raises one error with every problem."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias, TypeVar, cast

from vllmchat.checking.checkers import OK, Checker, checker_of
from vllmchat.checking.describe import format_value, type_name, wrong_type
from vllmchat.checking.headers import is_computed, is_header_name, is_header_value
from vllmchat.checking.rules import Bounds, Field, fields_of
from vllmchat.checking.secrets import is_secret
from vllmchat.checking.since import OLDEST
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from vllmchat.checking import unknown_names
    from vllmchat.http.timeout import Timeout
else:
    unknown_names = LazyModule("vllmchat.checking.unknown_names")  # needed only for invalid requests

CrossFieldRule: TypeAlias = "Callable[[Mapping[str, object], bool, frozenset[str]], Iterable[Problem]]"
"""A rule across parameters. It gets the valid ones, whether the call streams, and the names of the invalid ones."""

Convert: TypeAlias = "Callable[[object, str], tuple[object, Sequence[Problem]]]"
"""Converts Python types or functions to what is sent. It gets a value and its path, and returns the value to check
and the problems found so far."""

Explanation: TypeAlias = tuple[str, str | None]
"""What is wrong with an unknown name, and what to write instead, with `{value}` in place of the given value."""


class CheckedParams:
    """The validated parameters of one call.

    Attributes:
        fields: The fields for the request body, without those that are not set. The values are the caller's own
            objects; do not modify them.
        extra_body: Unchecked fields that are merged into the body last.
        extra_headers: Headers for this call. Their values may be secrets.
        timeout: The timeout for this call; None for the provider's.
        max_retry_seconds: For how long to retry this call; None for the provider's setting.
        newer: Parameters that some servers do not know, each with the vLLM version that added it.
    """

    __slots__ = ("extra_body", "extra_headers", "fields", "max_retry_seconds", "newer", "timeout")

    def __init__(
        self,
        fields: dict[str, object],
        extra_body: Mapping[str, object] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: float | Timeout | None = None,
        max_retry_seconds: float | None = None,
        newer: Mapping[str, str] | None = None,
    ) -> None:
        self.fields = fields
        self.extra_body = extra_body
        self.extra_headers = extra_headers
        self.timeout = timeout
        self.max_retry_seconds = max_retry_seconds
        self.newer = newer or {}

    def with_fields(self, fields: dict[str, object]) -> CheckedParams:
        """A copy with other fields."""
        params = copy.copy(self)
        params.fields = fields
        return params


class Validator:
    """Validates one set of parameters, and the rules across them.

    Args:
        owner: What accepts the parameters, such as `VLLMProvider.embed`, or `VLLMProvider` for chats.
        params: The TypedDict of the parameters.
        cross_field_rules: The rules across parameters, keyed by the parameter that triggers them.
        own: Unknown names that this endpoint explains itself.
        chats: Explains the parameters of chats that this endpoint does not have.
        other: The parameters that `VLLMProvider` has in addition, for `OpenAIProvider`.
        hatch: The parameter for names that only the server knows.
        hint: Improves the problem of a parameter, given its name and value.
        finish: Converts the validated fields, in place, to what the server accepts.
        convert: For parameters that accept types or functions: converts them to mappings before the check.
    """

    def __init__(
        self,
        owner: str,
        params: type,
        cross_field_rules: Mapping[str, CrossFieldRule] | None = None,
        *,
        own: Mapping[str, Explanation] | None = None,
        chats: Explanation | None = None,
        other: type | None = None,
        hatch: str = "extra_body",
        hint: Callable[[Problem, str, object], Problem] | None = None,
        finish: Callable[[dict[str, object]], None] | None = None,
        convert: Mapping[str, Convert] | None = None,
    ) -> None:
        self.owner = owner
        self.params = params
        self._own = own or {}
        self._chats = chats
        self._other = other
        self._hatch = hatch
        self._cross_field_rules = cross_field_rules or {}
        self._hint = hint
        self._finish = finish
        self._convert = convert or {}
        # Compiled when a parameter is first given: most calls have a few of a hundred.
        self._checkers: dict[str, Checker] = {}
        self._later: dict[str, Field] = {}

    def _compile(self, name: str) -> Checker | None:
        """Returns the checker of a parameter, from now on kept, or None for an unknown name."""
        field = fields_of(self.params).get(name)
        if field is None:
            return None
        if field.since is not None:
            self._later[name] = field
        checker = self._checkers[name] = _HATCHES.get(name) or checker_of(field)
        return checker

    def check(self, params: Mapping[str, object], *, stream: bool = False) -> CheckedParams:
        """Validates the parameters of one call.

        Args:
            params: The keyword arguments of the call.
            stream: Whether the call streams.

        Raises:
            InvalidRequestError: With every problem found.
        """
        checkers = self._checkers
        cross_field_rules, convert, later = self._cross_field_rules, self._convert, self._later
        newer: dict[str, str] = {}
        fields: dict[str, object] = {}
        problems: list[Problem] = []
        rules: list[CrossFieldRule] = []
        for name, value in params.items():
            checker = checkers.get(name) or self._compile(name)
            if checker is None:
                problems.append(self._explain(name, value))
                continue
            if value is None:
                continue
            sent, found = convert[name](value, name) if name in convert else (value, OK)
            found = found or checker(sent, name)
            if found:
                problems.extend(self._described(each, name, value) for each in found)
                continue
            fields[name] = sent
            if name in later and later[name].too_new_for_some(sent):
                newer[name] = later[name].since or OLDEST
            if name in cross_field_rules:
                rules.append(cross_field_rules[name])
        if rules:
            wrong = frozenset(_top(problem.parameter) for problem in problems)
            for rule in rules:
                problems.extend(rule(fields, stream, wrong))
        if problems:
            order = {name: place for place, name in enumerate(params)}
            problems.sort(key=lambda problem: order.get(_top(problem.parameter), len(order)))
            raise InvalidRequestError(problems)
        if self._finish is not None:
            self._finish(fields)
        return CheckedParams(
            fields,
            cast("Mapping[str, object] | None", fields.pop("extra_body", None)),
            cast("Mapping[str, str] | None", fields.pop("extra_headers", None)),
            cast("float | Timeout | None", fields.pop("timeout", None)),
            cast("float | None", fields.pop("max_retry_seconds", None)),
            newer,
        )

    def _explain(self, name: str, value: object) -> Problem:
        other = fields_of(self._other) if self._other is not None else ()
        known = fields_of(self.params)
        names = unknown_names.Names(self.owner, known, self._own, self._chats, other, self._hatch)
        return unknown_names.explain_unknown(name, value, names)

    def _described(self, problem: Problem, name: str, value: object) -> Problem:
        if is_secret(name, value):
            return replace(problem, value="", suggestion=None)
        return self._hint(problem, name, value) if self._hint else problem


def _top(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


# Escape hatches: their contents are not checked, and never shown


def _extra_body(value: object, path: str) -> Sequence[Problem]:
    if not isinstance(value, Mapping):
        return (wrong_type(value, path, "a mapping of field names to values"),)
    body = cast("Mapping[object, object]", value)
    if not all(isinstance(name, str) for name in body):
        return (Problem(path, "", "must have strings as keys."),)
    if "stream" in body:
        rule = "is not allowed: the method decides whether to stream."
        return (
            Problem(f"{path}.stream", format_value(body["stream"]), rule, "Call .chat(...) or .stream(...)."),
        )
    return OK


def _extra_headers(value: object, path: str) -> Sequence[Problem]:
    if not isinstance(value, Mapping):
        return (Problem(path, "", f"must be a mapping of header names to strings, not {type_name(value)}."),)
    problems: list[Problem] = []
    for name, text in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or not is_header_name(name):
            problems.append(Problem(path, "", f"{format_value(name)} is not a valid header name."))
        elif is_computed(name):
            problems.append(Problem(f"{path}[{name!r}]", "", "is computed from the body and cannot be set."))
        elif not isinstance(text, str):
            problems.append(Problem(f"{path}[{name!r}]", "", f"must be a string, not {type_name(text)}."))
        elif not is_header_value(text):
            rule = "must be printable ASCII without line breaks or surrounding white space."
            problems.append(Problem(f"{path}[{name!r}]", "", rule))
    return problems


_HATCHES: dict[str, Checker] = {"extra_body": _extra_body, "extra_headers": _extra_headers}

S = TypeVar("S")
F = TypeVar("F")


class Check(Protocol):
    """Validates the parameters of a call, as `Validator.check` does."""

    def __call__(self, params: Mapping[str, object], *, stream: bool) -> CheckedParams:
        """Raises one `InvalidRequestError` with every problem."""
        ...


def check_request(
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


def collect(encode: Callable[[], S], failed: F) -> tuple[S | F, Sequence[Problem]]:
    """Returns a subject as it is sent, and its problems.

    Args:
        encode: Returns the subject, or raises `InvalidRequestError`.
        failed: The value to return if it raises.
    """
    try:
        return encode(), ()
    except InvalidRequestError as error:
        return failed, error.problems


def check_tokens(value: object, path: str) -> Sequence[Problem]:
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
