"""Compiles a type and its rules into a checker.

A checker takes a value and its path, such as `tools[0].function.name`, and returns the problems it finds: an empty
sequence for a valid value. Checkers are compiled once, on first use. They accept what vLLM accepts, but without its
coercions: `"5"` is not a number, `True` and `2.0` are not integers; an integer is a number.

Checkers never look inside a JSON schema or another free-form mapping, and never copy a value.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import NoneType
from typing import Final, Literal, TypeAlias, cast, get_args, get_origin

from typing_extensions import is_typeddict

from vllmchat.checking.describe import (
    as_mapping,
    describe_union,
    format_value,
    is_list,
    one_of,
    plural,
    suggest,
    wrong_type,
)
from vllmchat.checking.rules import (
    Bounds,
    ExactlyOne,
    Field,
    Length,
    NotBlank,
    Rule,
    TokenIds,
    Without,
    enforced,
    fields_of,
    is_generic,
    is_python,
    members,
    unwrap,
)
from vllmchat.errors import Problem
from vllmchat.http.timeout import Timeout

Checker: TypeAlias = "Callable[[object, str], Sequence[Problem]]"

OK: Final[tuple[Problem, ...]] = ()
"""No problems."""

_LARGEST = sys.float_info.max
_LONGEST_KEY = 60


def checker_of(field: Field) -> Checker:
    """Returns the checker for one parameter. It never sees a top-level `None`, which means "not set"."""
    return _compile(field.type, field.rules)


@cache
def typed_dict_checker(typed_dict: type) -> Checker:
    """Returns the checker for a mapping: no unknown keys, none missing, every value valid."""
    fields = fields_of(typed_dict)
    checkers = {name: (checker_of(field), field.nullable) for name, field in fields.items()}
    required = {name: _missing(field) for name, field in fields.items() if field.required}
    names = ", ".join(fields)

    def check(value: object, path: str) -> Sequence[Problem]:
        mapping = as_mapping(value)
        if mapping is None:
            return (wrong_type(value, path, "a mapping", f"Valid keys: {names}."),)
        problems: list[Problem] = []
        for key, item in mapping.items():
            known = checkers.get(key) if isinstance(key, str) else None
            if known is None:
                meant = suggest(key, fields) if isinstance(key, str) else None
                hint = f"Did you mean `{meant}`?" if meant else f"Valid keys: {names}."
                written = key if isinstance(key, str) and len(key) <= _LONGEST_KEY else format_value(key)
                problems.append(
                    Problem(f"{path}.{written}", format_value(item), f"`{path}` has no such key.", hint)
                )
            elif item is None:
                if not known[1]:
                    problems.append(Problem(f"{path}.{key}", "None", "must not be None.", "Leave it out."))
            else:
                problems.extend(known[0](item, f"{path}.{key}"))
        for name, way in required.items():
            if name not in mapping:
                problems.append(Problem(f"{path}.{name}", "", "is required.", way))
        return problems

    return check


def _missing(field: Field) -> str | None:
    words = get_args(field.type) if get_origin(field.type) is Literal else ()
    return f'Write "{field.name}": "{words[0]}".' if len(words) == 1 else None


# Types


def _compile(hint: object, rules: tuple[Rule, ...]) -> Checker:
    bare, metadata = unwrap(hint)
    rules = (*rules, *enforced(metadata))
    if any(isinstance(rule, TokenIds) for rule in rules):
        return _token_biases
    kinds = [kind for kind in members(bare) if kind is not NoneType]
    check = _kinds(kinds, rules) if len(kinds) > 1 else _one(kinds[0], rules)
    for rule in rules:
        if isinstance(rule, ExactlyOne):
            check = _exactly_one(check, rule.keys)
    return check


def _one(kind: object, rules: tuple[Rule, ...]) -> Checker:
    bare, metadata = unwrap(kind)
    rules = (*rules, *enforced(metadata))
    if bare is bool:
        return _boolean
    if bare is int:
        return _integer(rules)
    if bare is float:
        return _real(rules)
    if bare is str:
        return _string(rules)
    if get_origin(bare) is Literal:
        return _literal(get_args(bare))
    if is_typeddict(bare):
        return typed_dict_checker(cast("type", bare))
    if is_generic(bare, Sequence):
        return _sequence(get_args(bare)[0], rules)
    if is_generic(bare, Mapping):
        return _mapping(get_args(bare)[1])
    raise TypeError(f"no checker for {bare!r}")


def _kinds(kinds: list[object], rules: tuple[Rule, ...]) -> Checker:
    """Returns the checker for a union: the kind of value decides which member checks it."""
    by_shape: dict[str, Checker] = {}
    tagged: list[type] = []
    words: list[object] = []
    what = describe_union(kinds)
    for kind in kinds:
        bare, _ = unwrap(kind)
        if is_typeddict(bare):
            tagged.append(cast("type", bare))
        elif get_origin(bare) is Literal:
            words.extend(get_args(bare))
        elif bare is Timeout:
            by_shape["object"] = _instance(Timeout, what)
        elif not is_python(bare):
            by_shape[_shape_of(bare)] = _one(kind, rules)
    if tagged:
        by_shape["mapping"] = typed_dict_checker(tagged[0]) if len(tagged) == 1 else _tagged(tagged)
    if words and "str" not in by_shape:  # next to str, a Literal only lists common values
        by_shape["str"] = _literal(tuple(words), what)
    if "float" in by_shape and "int" not in by_shape:
        by_shape["int"] = by_shape["float"]

    def check(value: object, path: str) -> Sequence[Problem]:
        check_member = by_shape.get(_shape(value))
        return check_member(value, path) if check_member is not None else (wrong_type(value, path, what),)

    return check


def _shape_of(bare: object) -> str:
    if isinstance(bare, type) and bare in (bool, int, float, str):
        return bare.__name__
    if is_typeddict(bare) or is_generic(bare, Mapping):
        return "mapping"
    return "sequence"


def _shape(value: object) -> str:
    if isinstance(value, str):
        return "str"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, Mapping):
        return "mapping"
    if is_list(value):
        return "sequence"
    return "object"


def _wrong(value: object, path: str, rule: str, hint: str | None = None) -> Sequence[Problem]:
    return (Problem(path, format_value(value), rule, hint),)


def _did_you_mean(value: object, words: Iterable[str]) -> str | None:
    meant = suggest(value, words) if isinstance(value, str) else None
    return f'Did you mean "{meant}"?' if meant else None


def _boolean(value: object, path: str) -> Sequence[Problem]:
    return OK if value is True or value is False else (wrong_type(value, path, "True or False"),)


def _integer(rules: tuple[Rule, ...]) -> Checker:
    low, high, bounds = _range(rules)

    def check(value: object, path: str) -> Sequence[Problem]:
        if type(value) is int or (isinstance(value, int) and not isinstance(value, bool)):
            if low <= value <= high:
                return OK
            return _wrong(value, path, f"must be {bounds}.")
        return (wrong_type(value, path, "an integer"),)

    return check


def _real(rules: tuple[Rule, ...]) -> Checker:
    low, high, bounds = _range(rules)
    low = -_LARGEST if math.isinf(low) else low
    high = _LARGEST if math.isinf(high) else high

    def check(value: object, path: str) -> Sequence[Problem]:
        if isinstance(value, (float, int)) and not isinstance(value, bool):
            if low <= value <= high:
                return OK
            finite = -_LARGEST <= value <= _LARGEST
            return _wrong(value, path, f"must be {bounds}." if finite else "must be a finite number.")
        return (wrong_type(value, path, "a number"),)

    return check


def _range(rules: tuple[Rule, ...]) -> tuple[float, float, str]:
    """Returns the lowest and highest allowed value, and their description. A strict bound becomes the next number."""
    for rule in rules:
        if isinstance(rule, Bounds):
            low = rule.ge if rule.ge is not None else -math.inf
            high = rule.le if rule.le is not None else math.inf
            if rule.gt is not None:
                low = math.nextafter(rule.gt, math.inf)
            if rule.lt is not None:
                # Above 2**53, floats cannot represent the next integer.
                high = rule.lt - 1 if isinstance(rule.lt, int) else math.nextafter(rule.lt, -math.inf)
            return low, high, str(rule)
    return -math.inf, math.inf, "a number"


def _string(rules: tuple[Rule, ...]) -> Checker:
    least, most, forbidden, blank = 0, sys.maxsize, "", True
    for rule in rules:
        if isinstance(rule, Length):
            least, most = rule.least, rule.most if rule.most is not None else most
        elif isinstance(rule, Without):
            forbidden = rule.characters
        blank = blank and not isinstance(rule, NotBlank)

    def check(value: object, path: str) -> Sequence[Problem]:
        if not isinstance(value, str):
            return (wrong_type(value, path, "a string"),)
        if len(value) < least:
            return _wrong(value, path, "must not be empty.")
        if len(value) > most:
            return _wrong(value, path, f"must have at most {most} characters, not {len(value)}.")
        if forbidden and any(character in value for character in forbidden):
            named = " ".join("NUL" if character == "\0" else character for character in forbidden)
            return _wrong(value, path, f"must not contain any of: {named}")
        if not blank and not value.strip():
            return _wrong(value, path, "must not be blank.")
        return OK

    return check


def _literal(words: tuple[object, ...], what: str | None = None) -> Checker:
    names = tuple(word for word in words if isinstance(word, str))
    what = what or one_of(words)

    def check(value: object, path: str) -> Sequence[Problem]:
        for word in words:
            if value is word or (type(value) is type(word) and value == word):
                return OK
        if not isinstance(value, str):
            return (wrong_type(value, path, what),)
        if value in names:  # an enum whose members are strings
            return OK
        return _wrong(value, path, f"must be {what}.", _did_you_mean(value, names))

    return check


def _instance(kind: type, what: str) -> Checker:
    def check(value: object, path: str) -> Sequence[Problem]:
        return OK if isinstance(value, kind) else (wrong_type(value, path, what),)

    return check


def _sequence(item: object, rules: tuple[Rule, ...]) -> Checker:
    # Rules such as Bounds apply to the items only if they annotate the items.
    length = next((rule for rule in rules if isinstance(rule, Length)), Length(0))
    least, most = length.least, length.most if length.most is not None else sys.maxsize
    check_item = _compile(item, ())
    what = f"a list of {plural(item)}"
    bare, metadata = unwrap(item)
    low, high, _ = _range(enforced(metadata))

    def check(value: object, path: str) -> Sequence[Problem]:
        if not is_list(value):
            return (wrong_type(value, path, what),)
        items = cast("Sequence[object]", value)
        if len(items) < least and least > 1:
            return (
                Problem(path, format_value(value), f"must have at least {least} items, not {len(items)}."),
            )
        if len(items) < least:
            return _wrong(value, path, "must not be empty.", "Leave it out instead.")
        if len(items) > most:
            return _wrong(value, path, f"must have at most {most} items, not {len(items)}.")
        if bare is int and set(map(type, items)) == {int}:  # fast path for thousands of token ids
            ids = cast("Sequence[int]", items)
            if low <= min(ids) and max(ids) <= high:
                return OK
        problems: list[Problem] = []
        for index, each in enumerate(items):
            problems.extend(check_item(each, f"{path}[{index}]"))
            if len(problems) >= _MOST_IN_A_LIST:
                break
        return problems

    return check


_MOST_IN_A_LIST = 5
"""Report only the first few problems of a long list: thousands of wrong items are one mistake."""


def _mapping(item: object) -> Checker:
    free = item is object
    check_item = None if free else _compile(item, ())
    what = "a mapping" if free else f"a mapping of strings to {plural(item)}"

    def check(value: object, path: str) -> Sequence[Problem]:
        mapping = as_mapping(value)
        if mapping is None:
            return (wrong_type(value, path, what),)
        if check_item is None:
            return OK
        problems: list[Problem] = []
        for key, each in mapping.items():
            if not isinstance(key, str):
                problems += _wrong(key, path, "must have strings as keys.")
            else:
                problems.extend(check_item(each, f"{path}.{key}"))
            if len(problems) >= _MOST_IN_A_LIST:
                break
        return problems

    return check


def _tagged(kinds: list[type]) -> Checker:
    """Returns the checker for a union of TypedDicts that differ in their `type`."""
    variants: dict[str, list[type]] = {}
    for kind in kinds:
        for tag in get_args(fields_of(kind)["type"].type):
            variants.setdefault(str(tag), []).append(kind)
    tags = one_of(tuple(variants))

    def check(value: object, path: str) -> Sequence[Problem]:
        mapping = cast("Mapping[str, object]", value)  # the caller has checked that
        tag = mapping.get("type")
        found = variants.get(tag) if isinstance(tag, str) else None
        if found is None:
            if tag is None:
                return (Problem(f"{path}.type", "", f"is required: {tags}."),)
            return _wrong(tag, f"{path}.type", f"must be {tags}.", _did_you_mean(tag, variants))
        best = max(found, key=lambda kind: sum(key in mapping for key in fields_of(kind)))
        return typed_dict_checker(best)(mapping, path)

    return check


def _exactly_one(check: Checker, keys: tuple[str, ...]) -> Checker:
    names = ", ".join(keys)

    def checked(value: object, path: str) -> Sequence[Problem]:
        problems = check(value, path)
        mapping = as_mapping(value) or {}
        present = [key for key in keys if mapping.get(key) is not None]
        # Something other than a mapping, or a misspelled constraint, is one problem, not two.
        if len(present) == 1 or (not present and problems):
            return problems
        rule = f"needs exactly one of {names}, but has {' and '.join(present) or 'none of them'}."
        return (*problems, *_wrong(value, path, rule))

    return checked


def _token_biases(value: object, path: str) -> Sequence[Problem]:
    mapping = as_mapping(value)
    if mapping is None:
        return (wrong_type(value, path, "a mapping of token ids to numbers"),)
    problems: list[Problem] = []
    for key, bias in mapping.items():
        is_id = (isinstance(key, int) and not isinstance(key, bool) and key >= 0) or (
            isinstance(key, str) and key.isascii() and key.isdigit()
        )
        if not is_id:
            problems += _wrong(key, path, "must have token ids as keys: integers of at least 0.")
        else:
            problems.extend(_bias(bias, f"{path}[{format_value(key)}]"))
        if len(problems) >= _MOST_IN_A_LIST:
            break
    return problems


_bias = _real(())
