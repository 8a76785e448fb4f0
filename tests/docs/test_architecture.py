"""The page on the architecture names every module, and every class that exists twice."""

from __future__ import annotations

import ast
import re

from support.examples import ROOT

PACKAGE = ROOT / "src" / "vllmchat"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TREE = PAGE.partition("src/vllmchat/\n")[2].partition("\n```")[0]


def drawn() -> dict[str, set[str]]:
    """The modules that are drawn, by their folder; a folder that is drawn as one line has none."""
    folders: dict[str, set[str]] = {"": set()}
    folder = ""
    for line in TREE.splitlines():
        names = re.findall(r"[\w…]+\.py\b", line.strip().partition("  ")[0])
        if line.startswith("    "):
            folders[folder].update(names)
        elif named := re.match(r"  ([\w/]+)/ ", line):
            folder = named[1]
            folders[folder] = set()
        else:
            folders[""].update(names)
    return folders


def test_every_module_is_drawn_where_it_is() -> None:
    folders = drawn()
    packages = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")} - {"."}
    assert set(folders) - {""} == packages - {"adapters"}
    for folder, names in folders.items():
        modules = {path.name for path in (PACKAGE / folder).glob("*.py")}
        if folder:
            modules.discard("__init__.py")
        if names:
            assert names == modules, folder


def pairs() -> set[tuple[str, str]]:
    """The classes that are written once for sync and once for async; protocols only describe."""
    found: set[tuple[str, str]] = set()
    for path in PACKAGE.rglob("*.py"):
        classes = {
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef)
            and not any("Protocol" in ast.unparse(base) for base in node.bases)
        }
        for name in classes:
            twins = {name.replace("Async", "Sync", 1), name.replace("Async", "", 1)} - {name}
            found |= {(twin, name) for twin in twins & classes}
    return found - {("Once", "AsyncOnce"), ("_Lease", "_AsyncLease")}  # with the shared parts


def test_every_class_that_exists_twice_is_named() -> None:
    assert set(re.findall(r"`(\w+)` / `(\w+)`", PAGE)) == pairs()
