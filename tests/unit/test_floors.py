"""Imports run downward only: adapters, providers, chat and its neighbours, http, errors."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vllmchat

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(vllmchat.__file__).parent

FLOORS: dict[str, int] = {
    "errors": 0,
    "lazy": 0,
    "version": 0,
    "http": 1,
    "checking": 2,
    "versions": 2,
    "wire": 2,
    "schemas": 3,
    "sampling": 4,
    "client": 4,
    "server": 5,
    "chat": 6,
    "audio": 7,
    "completions": 7,
    "pooling": 7,
    "responses": 7,
    "tokens": 7,
    "structured": 7,
    "tools": 7,
    "generate": 8,
    "providers": 9,
    "types": 10,
    "adapters": 11,
}
"""Each part of the package and its floor. A part imports lower floors and itself, never its neighbours."""

TYPES_ONLY = {
    (low, high)
    for low in ("errors", "http")
    for high in ("chat", "completions", "generate", "responses", "audio")
}
"""What may be named upward for type checkers: what an error has in its `partial`."""

FACE = "__init__"
"""The package's own file: it names everything and imports nothing until it is asked for it."""


class Imports(ast.NodeVisitor):
    """The modules that a file imports, and whether only for type checkers."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bool, int]] = []
        self._for_types = False

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self._for_types = True
            for child in node.body:
                self.visit(child)
            self._for_types = False
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(alias.name, self._for_types, node.lineno) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "imports are absolute here"
        assert node.module is not None
        if node.module == "vllmchat":
            self.found += [(f"vllmchat.{alias.name}", self._for_types, node.lineno) for alias in node.names]
        else:
            self.found.append((node.module, self._for_types, node.lineno))


def files() -> Iterator[tuple[Path, str]]:
    """Every file of the package and the part that it belongs to."""
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        yield path, part


def imports(path: Path) -> list[tuple[str, bool, int]]:
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text("utf-8")))
    return visitor.found


def test_every_part_has_a_floor() -> None:
    assert {part for _, part in files()} - {FACE} == set(FLOORS)


@pytest.mark.parametrize("part", FLOORS)
def test_imports_run_downward(part: str) -> None:
    wrong: list[str] = []
    for path, own in files():
        if own != part:
            continue
        for module, for_types, line in imports(path):
            if not module.startswith("vllmchat."):
                continue
            other = module.split(".")[1]
            if other not in FLOORS:  # a public name: the face knows what stands behind it
                other = str(getattr(vllmchat, other).__module__).split(".")[1]
            allowed = other == part or FLOORS[other] < FLOORS[part]
            if not allowed and not (for_types and (part, other) in TYPES_ONLY):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert wrong == []


def test_adapters_do_not_import_each_other() -> None:
    for path, part in files():
        if part != "adapters" or path.parent.name == "adapters":
            continue
        own = path.relative_to(PACKAGE).parts[1]
        for module, _, line in imports(path):
            if module.startswith("vllmchat.adapters."):
                assert module.split(".")[2] == own, f"{path}:{line}"


def test_only_the_massgen_adapter_imports_massgen() -> None:
    importing = {
        path.relative_to(PACKAGE).parts[:2]
        for path, _ in files()
        for module, _, _ in imports(path)
        if module.partition(".")[0] == "massgen"
    }
    assert importing <= {("adapters", "massgen")}


def test_no_part_imports_the_face() -> None:
    """`from vllmchat import ...` at run time would tie every part to all the others."""
    for path, part in files():
        if part == "adapters":
            continue
        for module, for_types, line in imports(path):
            assert for_types or module.split(".")[0] != "vllmchat" or module.split(".")[1] in FLOORS, (
                f"{path.relative_to(PACKAGE)}:{line}"
            )


def test_nothing_but_the_dependencies_is_imported() -> None:
    """What pyproject.toml does not name must not be needed; httpcore comes with httpx."""
    known = {
        "httpx",
        "httpcore",
        "h11",
        "pydantic",
        "pydantic_core",
        "typing_extensions",
        "anyio",
        "vllmchat",
    }
    optional = {"sniffio", "massgen", "trio", "httpx2", "certifi", "prometheus_client", "numpy"}
    for path, part in files():
        for module, _, line in imports(path):
            name = module.partition(".")[0]
            allowed = name in known or name in sys.stdlib_module_names or name in optional
            assert allowed, f"{path.relative_to(PACKAGE)}:{line} imports {module} ({part})"
