"""The list of MassGen's names is complete, and a missing one is named."""

from __future__ import annotations

import ast
import sys
import tomllib
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from support.examples import ROOT
from vllmchat.adapters.massgen import installed, names
from vllmchat.adapters.massgen.names import FOR_THE_BACKEND, FOR_THE_COMMAND, NEWEST_MASSGEN, missing

if TYPE_CHECKING:
    from pathlib import Path

ADAPTER = ROOT / "src" / "vllmchat" / "adapters" / "massgen"
NAMES = (*FOR_THE_BACKEND, *FOR_THE_COMMAND)

SET_BY_THE_CONSTRUCTOR = {
    "_custom_tool_names",
    "_nlip_enabled",
    "_nlip_router",
    "agent_id",
    "api_params_handler",
    "circuit_breaker",
    "config",
    "formatter",
}
"""Attributes that a class does not show."""


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def test_every_import_is_listed() -> None:
    imported: set[str] = set()
    for file in ADAPTER.glob("*.py"):
        typing_only = {
            each
            for node in ast.walk(tree(file))
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for each in map(ast.unparse, node.body)
        }
        imported |= {
            f"{node.module}:{each.name}"
            for node in ast.walk(tree(file))
            if isinstance(node, ast.ImportFrom) and ast.unparse(node) not in typing_only
            for each in node.names
            if str(node.module).startswith("massgen")
        }
    assert imported
    for name in imported:
        # Either itself, or something in it if it is a class or a module.
        beginnings = (f"{name}.", f"{name.replace(':', '.')}:")
        assert name in NAMES or any(each.startswith(beginnings) for each in NAMES), name


def test_every_method_of_massgens_class_is_listed() -> None:
    (backend,) = [
        node
        for node in tree(ADAPTER / "backend.py").body
        if isinstance(node, ast.ClassDef) and node.name == "VLLMBackend"
    ]
    own = {node.name for node in backend.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {ast.unparse(node.target) for node in backend.body if isinstance(node, ast.AnnAssign)}
    used: set[str] = set()
    for node in ast.walk(backend):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Load()) if name not in own:
                used.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name)):
                used.add(name)
            case _:
                pass
    listed = {name.rpartition(".")[2] for name in NAMES if ":ChatCompletionsBackend." in name}
    assert used - own - SET_BY_THE_CONSTRUCTOR - {"__init__"} <= listed


def test_the_newest_version_is_the_one_that_the_tests_run_with() -> None:
    from massgen_env import MASSGEN_VERSION

    assert NEWEST_MASSGEN == MASSGEN_VERSION
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"massgen>={MASSGEN_VERSION}" in extra["project"]["optional-dependencies"]["massgen"]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a MassGen."""
    module = ModuleType("massgen.part")
    monkeypatch.setitem(sys.modules, "massgen", ModuleType("massgen"))
    monkeypatch.setitem(sys.modules, "massgen.part", module)
    module.Thing = type("Thing", (), {"run": 1})  # type: ignore[attr-defined]
    return module


def test_what_is_missing(package: ModuleType) -> None:
    given = ["massgen.part:Thing", "massgen.part:Thing.run", "massgen.part:Thing.go", "massgen.part:No.run"]
    assert list(missing(given)) == ["massgen.part:Thing.go", "massgen.part:No.run"]
    sys.modules["massgen"].__path__ = []
    assert list(missing(["massgen.gone:Thing"])) == ["massgen.gone:Thing"]


def test_a_package_that_does_not_fit_is_not_a_missing_name(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'mcp'", name="mcp")

    monkeypatch.setattr(names, "import_module", absent)
    with pytest.raises(ModuleNotFoundError):
        list(missing(["massgen.part:Thing"]))


@pytest.mark.parametrize(
    ("version", "command"),
    [
        ("0.1.97", "pip install --force-reinstall --no-deps 'massgen==0.1.97'"),
        ("0.2.3", "pip install 'massgen==0.1.97'"),
    ],
)
def test_a_missing_name_is_one_sentence(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str, command: str
) -> None:
    monkeypatch.setattr(installed, "version", {"massgen": version}.__getitem__)
    with pytest.raises(ImportError) as caught:
        installed.require_names(["massgen.part:Thing.go"])
    assert str(caught.value) == (
        f"MassGen {version} has no massgen.part.Thing.go, which this backend uses. "
        f"The newest version known to work is 0.1.97: {command}"
    )


def test_many_missing_names_are_still_one_sentence(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "version", {"massgen": "0.2.3"}.__getitem__)
    with pytest.raises(
        ImportError, match=r"has no massgen\.part\.a, massgen\.part\.b, massgen\.part\.c and 2 more"
    ):
        installed.require_names([f"massgen.part:{name}" for name in "abcde"])
