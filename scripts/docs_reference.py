"""How the reference shows parameters: a Griffe extension, for `mkdocs build`.

A parameter is one annotation, `name: Annotated[int | None, Bounds(ge=0), Since("0.9.1")]`, and the text under it. The
reference lists it as a type, what is allowed, a default and a version, where a method accepts it. The templates in
`docs_theme/python` write that down.
"""

from __future__ import annotations

import html
import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import griffe

from parameters_page import allowed, by_hand, rank
from vllmchat.checking.rules import Field, fields_of

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN: Final = frozenset({"Annotated", "Required", "NotRequired", "ReadOnly"})
"""What an annotation may be wrapped in that is not its type."""


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter, as the templates need it.

    Attributes:
        name: Its name.
        annotation: Its type, without None.
        facts: What is allowed, the default, the version, what the server needs, as HTML.
        required: Whether it must be given.
        text: The whole text about it, as Markdown.
        brief: The first sentence of the text, as HTML.
    """

    name: str
    annotation: griffe.Expr | str | None
    facts: tuple[str, ...]
    required: bool
    text: str
    brief: str


class ParameterExtension(griffe.Extension):
    """Attaches to each TypedDict its keys, and to each function with `**params: Unpack[...]` those of its TypedDict."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: object) -> None:
        """Called when the package is loaded."""
        found: dict[str, list[Row]] = {}
        objects = list(_objects(pkg))
        for each in objects:
            if isinstance(each, griffe.Attribute):
                each.annotation = _bare(each.annotation)
        for each in objects:
            if isinstance(each, griffe.Class) and (rows := _rows(each, found)):
                each.extra["vllmchat"]["rows"] = rows
        for each in objects:
            if isinstance(each, griffe.Function):
                for parameter in each.parameters:
                    path = _unpacked(parameter.annotation)
                    if path is not None:
                        each.extra["vllmchat"].update(rows=found[path], params=path)


def _objects(parent: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    for member in parent.members.values():
        if isinstance(member, griffe.Alias):
            continue
        yield member
        if isinstance(member, griffe.Module | griffe.Class):
            yield from _objects(member)


def _bare(annotation: griffe.Expr | str | None) -> griffe.Expr | str | None:
    """An annotation without its metadata."""
    if not isinstance(annotation, griffe.Expr):
        return annotation
    if isinstance(annotation, griffe.ExprSubscript):
        if isinstance(annotation.left, griffe.ExprName) and annotation.left.name in HIDDEN:
            inner = annotation.slice
            return _bare(inner.elements[0] if isinstance(inner, griffe.ExprTuple) else inner)
        annotation.slice = _bare(annotation.slice) or ""
    elif isinstance(annotation, griffe.ExprTuple):
        annotation.elements = [_bare(each) or "" for each in annotation.elements]
    elif isinstance(annotation, griffe.ExprBinOp):
        annotation.left = _bare(annotation.left) or ""
        annotation.right = _bare(annotation.right) or ""
    return annotation


def _not_none(annotation: griffe.Expr | str | None) -> griffe.Expr | str | None:
    """A type without `| None`, which every parameter accepts."""
    if isinstance(annotation, griffe.ExprBinOp) and str(annotation.right) == "None":
        return annotation.left
    return annotation


def _unpacked(annotation: griffe.Expr | str | None) -> str | None:
    """The path of the TypedDict in `Unpack[TypedDict]`."""
    if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left).rpartition(".")[2] == "Unpack":
        return annotation.slice.canonical_path if isinstance(annotation.slice, griffe.Expr) else None
    return None


def _rows(owner: griffe.Class, found: dict[str, list[Row]]) -> list[Row]:
    """The keys of a TypedDict of parameters; empty for other classes."""
    module = importlib.import_module(owner.module.path) if "TypedDict" in _ancestors(owner) else None
    typed_dict = getattr(module, owner.name, None)
    if typed_dict is None:
        return []
    members = owner.all_members
    fields = sorted(fields_of(typed_dict).items(), key=lambda item: rank(item[0]))
    rows = [_row(field, members[name]) for name, field in fields if name in members]
    found[owner.path] = rows
    return rows


def _ancestors(owner: griffe.Class) -> set[str]:
    """The names of all bases."""
    names = {str(base).rpartition(".")[2] for base in owner.bases}
    for base in owner.resolved_bases:
        if isinstance(base, griffe.Class):
            names |= _ancestors(base)
    return names


def _row(field: Field, member: griffe.Object | griffe.Alias) -> Row:
    text = "\n\n".join(by_hand(member.docstring.value)) if member.docstring else ""
    facts = [allowed(field)]
    if field.default:
        facts.append(f"default: {field.default}")
    if field.since:
        facts.append(f"since vLLM {field.since}")
    if field.needs:
        facts.append(f"needs {field.needs}")
    annotation = member.annotation if isinstance(member, griffe.Attribute | griffe.Alias) else None
    return Row(
        name=field.name,
        annotation=_not_none(annotation),
        facts=tuple(_inline(fact) for fact in facts if fact),
        required=field.required,
        text=text,
        brief=_inline(re.split(r"(?<=\.)\s", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]),
    )


def _inline(markdown: str) -> str:
    """The HTML of a phrase with code in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(markdown, quote=False))
