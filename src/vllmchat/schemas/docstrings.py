"""Parses docstrings in Google, NumPy and reST style."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Docstring:
    """A parsed docstring.

    Attributes:
        text: The description: everything except the sections on parameters, returns and errors.
        parameters: The description of each parameter, as one line.
    """

    text: str
    parameters: dict[str, str]


def parse(docstring: str | None) -> Docstring:
    """Parses a docstring. Anything it does not recognize stays in the text."""
    kept: list[str] = []
    parameters: dict[str, str] = {}
    for heading, lines in _sections(_lines(docstring or "")):
        if heading is None:
            kept += lines
        elif heading in _PARAMETERS:
            parameters.update(_items(lines))
    text, fields = _fields(kept)
    return Docstring(text.strip(), {**fields, **parameters})


def _lines(docstring: str) -> list[str]:
    lines = inspect.cleandoc(docstring).splitlines()
    if (
        lines
        and _heading(lines, 0)[1] == 1
        and not any(_heading(lines, at)[1] for at in range(1, len(lines)))
    ):
        # The heading is the first line, which has no indentation, so `cleandoc` removed that of the section.
        lines[1:] = [f"    {line}" for line in lines[1:]]
    return lines


_PARAMETERS: Final = frozenset(
    {"args", "arguments", "parameters", "params", "keyword args", "keyword arguments", "other parameters"}
)
_DROPPED: Final = frozenset({"returns", "return", "yields", "yield", "raises", "warns", "receives"})
_GOOGLE: Final = re.compile(r"(\w[\w ]*):\s*")
_RULE: Final = re.compile(r"-{3,}\s*")
_GOOGLE_ITEM: Final = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:(?:\s+(.*)|\s*)")
_NUMPY_ITEM: Final = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")
_FIELD: Final = re.compile(r":(\w+)((?:\s+[^:\s][^:]*)?):\s*(.*)")


def _sections(lines: list[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Yields the known sections, each with its heading in lower case, and the text between them with None."""
    rest: list[str] = []
    at = 0
    while at < len(lines):
        heading, begin = _heading(lines, at)
        if heading is None:
            rest.append(lines[at])
            at += 1
            continue
        yield None, rest
        rest = []
        numpy = begin == at + 2
        end = begin
        while end < len(lines) and not _ends(lines, end, numpy=numpy):
            end += 1
        yield heading, lines[begin:end]
        at = end
    yield None, rest


def _heading(lines: list[str], at: int) -> tuple[str | None, int]:
    """Returns the known heading on this line and the start of its section, or None and 0."""
    line = lines[at]
    if at + 1 < len(lines) and _RULE.fullmatch(lines[at + 1]):
        name = line.strip().lower()
        return (name, at + 2) if name in _PARAMETERS | _DROPPED else (None, 0)
    match = _GOOGLE.fullmatch(line)
    name = match[1].lower() if match is not None else ""
    return (name, at + 1) if name in _PARAMETERS | _DROPPED else (None, 0)


def _ends(lines: list[str], at: int, *, numpy: bool) -> bool:
    """Whether a section ends before this line."""
    if numpy:  # any heading ends it, even an unknown one
        return at + 1 < len(lines) and bool(lines[at].strip()) and bool(_RULE.fullmatch(lines[at + 1]))
    return bool(lines[at].strip()) and not lines[at].startswith((" ", "\t"))


def _items(lines: list[str]) -> dict[str, str]:
    """Returns the items of a section on parameters."""
    filled = [line for line in lines if line.strip()]
    if not filled:
        return {}
    indent = _indent(filled[0])
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in filled:
        if _indent(line) > indent:
            for name in names:
                found[name].append(line.strip())
            continue
        item = line.strip()
        # Items are indented in Google style, but not in NumPy style.
        match = _GOOGLE_ITEM.fullmatch(item) if indent else _NUMPY_ITEM.fullmatch(item)
        names = [name.strip(" *") for name in match[1].split(",")] if match is not None else []
        for name in names:
            found[name] = [match[2]] if match is not None and indent and match[2] else []
    return {name: " ".join(words) for name, words in found.items() if words}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _fields(lines: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Returns the text without reST fields, and their descriptions of parameters."""
    kept: list[str] = []
    found: dict[str, list[str]] = {}
    words: list[str] | None = None
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is not None and match[1] in _REST:
            # `:param str name: text` or `:param name: text`
            name = match[2].split()[-1].lstrip("*") if match[2] else ""
            words = [match[3]] if match[3] else []
            if match[1] in ("param", "parameter", "arg", "argument", "key", "keyword") and name:
                found[name] = words
        elif words is not None and line.startswith((" ", "\t")):
            words.append(line.strip())
        else:
            words = None
            kept.append(line)
    return "\n".join(kept), {name: " ".join(words) for name, words in found.items() if words}


_REST: Final = frozenset(
    {
        "param", "parameter", "arg", "argument", "key", "keyword", "type", "return", "returns", "rtype", "raise",
        "raises", "yield", "yields", "ytype",
    }
)  # fmt: skip
