"""The adapter's entry points without MassGen."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import vllmchat.adapters.massgen as adapter
from vllmchat.adapters.massgen import installed, launcher


def test_importing_does_not_import_massgen() -> None:
    code = "import sys, vllmchat, vllmchat.adapters.massgen; sys.exit('massgen' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_names_are_listed() -> None:
    assert {"VLLMBackend", "install", "uninstall"} == set(adapter.__all__) <= set(dir(adapter))
    with pytest.raises(AttributeError, match="no attribute 'VLLM'"):
        _ = adapter.VLLM  # pyright: ignore[reportAttributeAccessIssue]  # on purpose


def pretend(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Makes the package metadata report a version of MassGen, or none."""

    def tell(name: str) -> str:
        assert name == "massgen"
        if version is None:
            raise PackageNotFoundError(name)
        return version

    monkeypatch.setattr(installed, "version", tell)


@pytest.mark.parametrize(
    ("version", "part"),
    [(None, "MassGen is not installed"), ("0.1.12", "MassGen 0.1.12 is too old: 0.1.97 or newer")],
)
@pytest.mark.parametrize("name", adapter.__all__)
def test_a_missing_or_old_massgen_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str | None, part: str, name: str
) -> None:
    pretend(monkeypatch, version)
    with pytest.raises(ImportError, match=part) as caught:
        getattr(adapter, name)
    assert "pip install -U 'vllmchat[massgen]'" in str(caught.value)


def test_the_launcher_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, None)
    with pytest.raises(SystemExit) as caught:
        launcher.main()
    assert "pip install -U 'vllmchat[massgen]'" in str(caught.value.code)


def test_ctrl_c_while_massgen_is_imported_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "take_over", interrupted)
    with pytest.raises(SystemExit) as caught:
        launcher.main()
    assert caught.value.code == 130


def test_the_command_and_the_extra_are_declared() -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    assert project["scripts"]["vllmchat-massgen"] == "vllmchat.adapters.massgen.launcher:main"
    assert project["optional-dependencies"]["massgen"] == ["massgen>=0.1.97", "mcp<2"]
    assert installed.OLDEST_MASSGEN == (0, 1, 97)


def write_package(folder: Path, name: str, version: str, code: str) -> None:
    """Installs a package into a directory as pip does."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "__init__.py").write_text(code, encoding="utf-8")
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
    )
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("massgen", "code", "message"),
    [
        (
            "from mcp import McpError",
            "",
            (
                r"MassGen 0\.1\.97 cannot be imported with mcp 2\.3\.0: cannot import name 'McpError' from 'mcp' .*"
                r"Install a compatible version: pip install 'mcp<2'"
            ),
        ),
        (
            "import mcp\nmcp.McpError",
            "",
            r"with mcp 2\.3\.0: module 'mcp' has no attribute 'McpError'.*pip install 'mcp<2'",
        ),
        (
            "import mcp.types",
            "",
            r"with mcp 2\.3\.0: No module named 'mcp\.types'.*pip install 'mcp<2'",
        ),
        (
            "import mcp",
            "raise TypeError('no such protocol')",
            r"with mcp 2\.3\.0: no such protocol.*pip install 'mcp<2'",
        ),
        (
            "import other",
            "",
            r"with other 3\.1: no more.*pip install 'other<3\.1'",
        ),
        ("import absent.part", "", r"the package absent is missing\. Install it with: pip install absent"),
        (
            "1 / 0",
            "",
            r"cannot be imported: ZeroDivisionError: .*pip install --force-reinstall --no-deps 'massgen==0\.1\.97'",
        ),
    ],
    ids=["name", "attribute", "module", "own error", "no bound", "missing", "itself"],
)
def test_a_package_that_does_not_fit_massgen_is_named(
    tmp_path: Path, massgen: str, code: str, message: str
) -> None:
    write_package(tmp_path, "massgen", "0.1.97", massgen)
    write_package(tmp_path, "mcp", "2.3.0", code)
    write_package(tmp_path, "other", "3.1", "raise ImportError('no more')")
    run = subprocess.run(
        [sys.executable, "-m", "vllmchat.adapters.massgen"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert re.fullmatch(message if message.startswith("MassGen") else f".*{message}", run.stderr.strip())
