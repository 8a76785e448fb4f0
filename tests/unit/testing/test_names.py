"""The names of `vllmchat.testing`: all there, documented, and loaded on first use."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from importlib import import_module

import pytest

from support.examples import ROOT
from vllmchat import testing


def test_names_for_type_checkers_are_those_at_run_time() -> None:
    [block] = [
        node
        for node in ast.parse(inspect.getsource(testing)).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imported = {
        alias.asname or alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(imported) == dir(testing)
    for name, home in imported.items():
        assert getattr(testing, name) is getattr(import_module(home), name)


def test_no_module_hides_a_name() -> None:
    """A submodule that was imported is an attribute of its package, and takes precedence over `__getattr__`."""
    modules = {path.stem for path in (ROOT / "src/vllmchat/testing").glob("*.py")}
    assert not modules & set(dir(testing))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'vllmchat\.testing' has no attribute 'FakeProvider'"):
        testing.FakeProvider  # type: ignore[attr-defined] # noqa: B018 # pyright: ignore


def test_every_name_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/testing.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: vllmchat\.testing\.(\w+)$", page, re.MULTILINE)) == dir(testing)


@pytest.mark.parametrize(
    "name",
    [name for name in dir(testing) if inspect.isclass(value := getattr(testing, name)) or callable(value)],
)
def test_every_name_is_documented(name: str) -> None:
    value = getattr(testing, name)
    assert re.match(r"[A-Z][^\n]*[.:]", inspect.getdoc(value) or ""), name
    for method, each in vars(value).items() if inspect.isclass(value) else ():
        if not method.startswith("_") and (inspect.isfunction(each) or isinstance(each, property)):
            assert inspect.getdoc(each), f"{name}.{method}"


def test_importing_the_names_loads_next_to_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules)\nimport vllmchat.testing\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    loaded = {
        name for name in json.loads(ran.stdout) if name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert loaded <= {"vllmchat", "vllmchat.testing"}
