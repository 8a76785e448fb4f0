"""The plan of the house names every module that there is."""

from __future__ import annotations

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
