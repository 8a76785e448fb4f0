"""Imports run downward only, from tier to tier."""

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

ROOT = {"__init__", "__main__", "errors", "lazy", "types", "version", "versions"}
"""The modules that are in no folder."""

TIERS: dict[str, set[str]] = {
    "ground": {"errors", "lazy", "version"},
    "bytes and time": {"http"},
    "rules and JSON": {"checking", "versions", "wire"},
    "how a request is sent": {"client"},
    "schemas of Python types": {"schemas"},
    "what generating endpoints share": {"sampling"},
    "chat": {"chat"},
    "endpoints": {path.parent.name for path in PACKAGE.glob("*/methods.py")} - {"chat", "generate", "jobs"},
    "endpoints made of others": {"generate"},
    "many inputs": {"jobs"},
    "what a user imports": {"providers"},
    "public types": {"types"},
    "adapters and doubles": {"adapters", "testing"},
    "the command line": {"cli"},
    "python -m": {"__main__"},
}
"""Each part of the package and its tier, the lowest first. A part imports lower tiers and itself, never its
neighbors.
"""

LEVEL = {part: level for level, parts in enumerate(TIERS.values()) for part in sorted(parts)}

TYPES_ONLY = {
    (low, high)
    for low in ("errors", "http")
    for high in ("audio", "chat", "completions", "generate", "jobs", "responses")
}
"""What may be named upward for type checkers: what an error has in its `partial`."""

FROM_CHAT: dict[str, set[str]] = {
    "audio": set(),
    "completions": {"request"},
    "decisions": set(),
    "generate": {"check", "completion", "messages", "params", "templating"},
    "pooling": {"completion", "content", "messages", "templating"},
    "responses": {"completion", "roles", "templating"},
    "server": set(),
    "tokens": {"completion", "messages", "templating"},
}
"""What other endpoints import from chat/: conversations, roles, templates, tool calls, and which names are those of
chats.
"""

FACE = "__init__"
"""The package's own file: it names everything and imports nothing until a name is used."""


class Imports(ast.NodeVisitor):
    """The modules that a file imports, and whether only for type checkers. What is lazy counts too."""

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
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        modules = [name for name in names if is_module(name)]
        if node.module == "vllmchat":
            modules = names
        elif len(modules) < len(names):
            modules.append(node.module)
        self.found += [(module, self._for_types, node.lineno) for module in modules]

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "LazyModule":
            home = node.args[0]
            if isinstance(home, ast.Constant):
                self.found.append((str(home.value), self._for_types, node.lineno))
        self.generic_visit(node)


def is_module(name: str) -> bool:
    base = PACKAGE.parent.joinpath(*name.split("."))
    return base.with_suffix(".py").exists() or base.joinpath("__init__.py").exists()


def files() -> Iterator[tuple[Path, str]]:
    """Every file of the package and the part that it belongs to."""
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        yield path, part


def imports(path: Path) -> list[tuple[str, bool, int]]:
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text("utf-8")))
    return visitor.found


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def test_every_part_has_a_tier() -> None:
    assert {part for _, part in files()} - {FACE} == set(LEVEL)
    assert len(LEVEL) == sum(map(len, TIERS.values()))


def test_the_root_holds_what_belongs_to_no_folder() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT


@pytest.mark.parametrize("part", LEVEL)
def test_imports_run_downward(part: str) -> None:
    wrong: list[str] = []
    for path, own in files():
        if own != part:
            continue
        for module, for_types, line in imports(path):
            if not module.startswith("vllmchat."):
                continue
            other = module.split(".")[1]
            if other not in LEVEL:  # a public name: the face knows where it is
                other = str(getattr(vllmchat, other).__module__).split(".")[1]
            allowed = other == part or LEVEL[other] < LEVEL[part]
            if not allowed and not (for_types and (part, other) in TYPES_ONLY):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module_of(path): {
            module for module, for_types, _ in imports(path) if not for_types and is_module(module)
        }
        for path, _ in files()
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for other in graph.get(module, set()) - {"vllmchat", module}:
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("endpoint", FROM_CHAT)
def test_an_endpoint_imports_from_chat_only_what_is_chat(endpoint: str) -> None:
    found = {
        module.split(".")[2]
        for path, part in files()
        if part == endpoint
        for module, _, _ in imports(path)
        if module.startswith("vllmchat.chat.")
    }
    assert found == FROM_CHAT[endpoint]


def test_http_meets_its_sockets_in_one_place() -> None:
    """What decides knows two protocols, a transport and an open response; `connections` fills them."""
    transport = PACKAGE / "http" / "transport"
    meeting = {
        path.relative_to(PACKAGE / "http").as_posix()
        for path, part in files()
        if part == "http" and not path.is_relative_to(transport)
        for module, for_types, _ in imports(path)
        if module.startswith("vllmchat.http.transport.") and not for_types
    }
    assert meeting == {"connections.py"}


def test_http_knows_no_endpoint() -> None:
    for path, part in files():
        if part == "http":
            known = {
                module.split(".")[1]
                for module, for_types, _ in imports(path)
                if module.startswith("vllmchat.") and not for_types
            }
            assert known <= {"errors", "http", "lazy", "version"}, path.relative_to(PACKAGE)


def test_there_is_one_way_to_import_a_module_of_ours_later() -> None:
    """It is `LazyModule`, one line a module."""
    late = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path, part in files()
        if part != "adapters"
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllmchat")
    }
    assert not late


def test_a_lazy_module_is_the_one_that_type_checkers_see() -> None:
    for path, _ in files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and node.orelse):
                continue
            seen = {
                alias.asname or alias.name: f"{each.module}.{alias.name}"
                for each in node.body
                if isinstance(each, ast.ImportFrom)
                for alias in each.names
            } | {
                alias.asname or alias.name: alias.name
                for each in node.body
                if isinstance(each, ast.Import)
                for alias in each.names
            }
            for each in node.orelse:
                if isinstance(each, ast.Assign) and ast.unparse(each.value).startswith("LazyModule("):
                    name = ast.unparse(each.targets[0])
                    assert ast.unparse(each.value) == f"LazyModule({seen[name]!r})", path


def test_adapters_do_not_import_each_other() -> None:
    for path, part in files():
        if part != "adapters" or path.parent.name == "adapters":
            continue
        own = path.relative_to(PACKAGE).parts[1]
        for module, _, line in imports(path):
            if module.startswith("vllmchat.adapters."):
                assert module.split(".")[2] == own, f"{path}:{line}"


FRAMEWORKS = {
    "massgen": ("adapters", "massgen"),
    "opentelemetry": ("adapters", "otel"),
    "ray": ("adapters", "ray"),
    "click": ("cli",),
    "rich": ("cli",),
}
"""By framework, the folder that imports it."""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_only_its_adapter_imports_a_framework(framework: str) -> None:
    home = FRAMEWORKS[framework]
    importing = {
        path.relative_to(PACKAGE).parts[: len(home)]
        for path, _ in files()
        for module, _, _ in imports(path)
        if module.partition(".")[0] == framework
    }
    assert importing <= {home}


def test_no_part_imports_the_face() -> None:
    """`from vllmchat import ...` at run time would tie every part to all the others."""
    for path, part in files():
        if part == "adapters":
            continue
        for module, for_types, line in imports(path):
            assert for_types or module.split(".")[0] != "vllmchat" or module.split(".")[1] in LEVEL, (
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
    optional = {
        "sniffio",
        "trio",
        "httpx2",
        "certifi",
        "prometheus_client",
        "numpy",
        "pyarrow",
        "pytest",
        *FRAMEWORKS,
    }
    for path, part in files():
        for module, _, line in imports(path):
            name = module.partition(".")[0]
            allowed = name in known or name in sys.stdlib_module_names or name in optional
            assert allowed, f"{path.relative_to(PACKAGE)}:{line} imports {module} ({part})"
