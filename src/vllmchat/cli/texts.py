"""The texts of parameters, for help: what is written under them in the package's own source."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from vllmchat.chat import params as chat_params
from vllmchat.checking import call_params
from vllmchat.sampling import params as sampling_params

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

_FACTS: Final = re.compile(r"(Range|Default|Needs|Since): ")


@dataclass(frozen=True, slots=True)
class ParamText:
    """What is known about one parameter.

    Attributes:
        group: The group that it belongs to; empty if none is named.
        about: What it does, in a few sentences.
        facts: Range, default, needs and version; may be empty.
    """

    group: str
    about: str
    facts: str


@cache
def param_texts() -> Mapping[str, ParamText]:
    """Returns the texts by name. Without the source, as in a frozen program, there are none."""
    found: dict[str, ParamText] = {}
    for module in (sampling_params, chat_params, call_params):
        with suppress(OSError):
            for name, text in _texts(module):
                found.setdefault(name, text)
    return found


def _texts(module: ModuleType) -> Iterator[tuple[str, ParamText]]:
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or not node.name.endswith(("Base", "Params")):
            continue
        group, above = "", node.lineno
        for item, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            for line in lines[above : item.lineno - 1]:
                if line.startswith("    # "):
                    group = line.removeprefix("    # ")
            above = item.end_lineno or item.lineno
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                yield item.target.id, _text(group, str(after.value.value))


def _text(group: str, doc: str) -> ParamText:
    paragraphs = [" ".join(textwrap.dedent(part).split()) for part in doc.strip().split("\n\n")]
    facts = paragraphs[-1] if _FACTS.match(paragraphs[-1]) else ""
    return ParamText(group, paragraphs[0], facts)
