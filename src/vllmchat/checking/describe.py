"""Formats values, types and names for error messages."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast, get_args, get_origin

from typing_extensions import TypeForm, is_typeddict

from vllmchat.checking.rules import is_generic, is_python, members, unwrap
from vllmchat.checking.secrets import Secret
from vllmchat.errors import Problem
from vllmchat.http.timeout import Timeout

_LONGEST = 200
_LONGEST_NAME = 60


def format_value(value: object) -> str:
    """Formats a value for an error message: its `repr`, shortened. Large values are not formatted in full."""
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python does not format integers of more than a few thousand digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def format_code(value: object) -> str:
    """Formats a value as it is written in code: a class is its name."""
    return value.__name__ if isinstance(value, type) else format_value(value)


def suggest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that was probably meant, or None.

    Args:
        name: The unknown name.
        known: The known names.
    """
    if len(name) > _LONGEST_NAME:
        return None
    flat = _flat(name)
    by_flat = {_flat(other): other for other in known}
    if flat in by_flat:
        return by_flat[flat]
    import difflib  # needed only for invalid requests

    close = difflib.get_close_matches(flat, by_flat, n=1, cutoff=0.75)
    return by_flat[close[0]] if close else None


def wrong_type(value: object, path: str, what: str, hint: str | None = None) -> Problem:
    """Returns the problem for a value of the wrong type."""
    return Problem(
        path, format_value(value), f"must be {what}, not {type_name(value)}.", _hint(value, what) or hint
    )


def one_of(words: Sequence[object]) -> str:
    """Formats literals as "a, b or c"."""
    quoted = [f'"{word}"' if isinstance(word, str) else repr(word) for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def describe_union(kinds: Sequence[object]) -> str:
    """Describes the members of a union."""
    words: list[object] = []
    names: list[str] = []
    for kind in kinds:
        bare, _ = unwrap(kind)
        if get_origin(bare) is Literal:
            words.extend(get_args(bare))
        else:
            names.append(_singular(bare))
    if words and "a string" not in names:
        names.insert(0, one_of(words))
    return " or ".join(dict.fromkeys(names))


def _singular(hint: object) -> str:
    bare, _ = unwrap(hint)
    if bare is Timeout:
        return "a Timeout"
    if is_python(bare):
        return "a type" if get_origin(bare) is TypeForm else "a function"
    if is_typeddict(bare) or is_generic(bare, Mapping):
        return "a mapping"
    if is_generic(bare, Sequence):
        return f"a list of {plural(get_args(bare)[0])}"
    return {bool: "True or False", int: "an integer", float: "a number", str: "a string"}[cast("type", bare)]


def plural(hint: object) -> str:
    """Describes several values of a type."""
    bare, _ = unwrap(hint)
    kinds = members(bare)
    if len(kinds) > 1:
        return " or ".join(dict.fromkeys(plural(kind) for kind in kinds))
    if get_origin(bare) is Literal:
        return one_of(get_args(bare))
    if get_origin(bare) is None and not is_typeddict(bare):
        return {int: "integers", float: "numbers", str: "strings"}[cast("type", bare)]
    one = _singular(bare)
    return "lists" if one.startswith("a list") else f"{one.removeprefix('a ')}s"


def as_mapping(value: object) -> Mapping[object, object] | None:
    """Returns a mapping unchanged, or None for any other value."""
    return cast("Mapping[object, object]", value) if isinstance(value, Mapping) else None


def as_list(value: object) -> Sequence[object] | None:
    """Returns a list unchanged, or None for any other value. A string is not a list."""
    return cast("Sequence[object]", value) if is_list(value) else None


def is_list(value: object) -> bool:
    """Whether a value is a list. A string is not."""
    if isinstance(value, (list, tuple)):
        return True
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))


def type_name(value: object) -> str:
    """Describes a value's type for an error message, with its article: "an int"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return "a class"
    kind = str if isinstance(value, Secret) else type(value)
    name, module = kind.__name__, kind.__module__
    if module != "builtins":
        name = f"{module.partition('.')[0]}.{name}"
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def _hint(value: object, what: str) -> str | None:
    """Suggests how to turn the value into the expected type, if that is obvious."""
    single = _is_single(value)
    if isinstance(value, type) and hasattr(value, "model_json_schema") and "mapping" in what:
        return f"Write {value.__name__}.model_json_schema()."
    if hasattr(value, "model_dump") and "mapping" in what:
        return "Call .model_dump() on it."
    if hasattr(value, "tolist") and hasattr(value, "item"):  # numpy, torch and similar
        return "Call .tolist() on it." if "list" in what else "Call .item() on it."
    if hasattr(value, "total_seconds") and "number" in what:
        return "Call .total_seconds() on it."
    if isinstance(value, float) and value.is_integer() and "integer" in what:
        return f"Write {int(value)}."
    if isinstance(value, str) and ("number" in what or "integer" in what or "True" in what):
        return "Remove the quotes." if _reads_as(value, what) else None
    if isinstance(value, (set, frozenset)) and "list" in what:
        return "Wrap it in sorted(...) or list(...): a set has no order."
    if single and what.startswith("a list"):
        return "Wrap it in [...]."
    return None


def _is_single(value: object) -> bool:
    return callable(value) or isinstance(value, (str, Mapping))


def _reads_as(text: str, what: str) -> bool:
    if "True" in what and text in ("True", "False"):
        return True
    try:
        number = float(text)
    except ValueError:
        return False
    return ("number" in what or number.is_integer()) and math.isfinite(number)


def _flat(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = 6
_REPR.maxlevel = 3
_REPR.maxlong = 60
