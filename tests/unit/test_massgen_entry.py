"""The adapter's door: what happens without MassGen."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import vllmchat.adapters.massgen as adapter
from vllmchat.adapters.massgen import launcher


def test_importing_does_not_import_massgen() -> None:
    code = "import sys, vllmchat, vllmchat.adapters.massgen; sys.exit('massgen' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_names_are_listed() -> None:
    assert {"VLLMBackend", "install", "uninstall"} == set(adapter.__all__) <= set(dir(adapter))
    with pytest.raises(AttributeError, match="no attribute 'VLLM'"):
        _ = adapter.VLLM  # pyright: ignore[reportAttributeAccessIssue]  # on purpose


def installed(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Makes the package index of this environment tell a version of MassGen, or none."""

    def tell(name: str) -> str:
        assert name == "massgen"
        if version is None:
            raise PackageNotFoundError(name)
        return version

    monkeypatch.setattr(adapter, "version", tell)


@pytest.mark.parametrize(
    ("version", "part"),
    [(None, "MassGen is not installed"), ("0.1.12", "MassGen 0.1.12 is too old: 0.1.97 or newer")],
)
@pytest.mark.parametrize("name", adapter.__all__)
def test_a_missing_or_old_massgen_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str | None, part: str, name: str
) -> None:
    installed(monkeypatch, version)
    with pytest.raises(ImportError, match=part) as caught:
        getattr(adapter, name)
    assert "pip install -U 'vllmchat[massgen]'" in str(caught.value)


def test_the_launcher_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, None)
    with pytest.raises(SystemExit) as caught:
        launcher.main()
    assert "pip install -U 'vllmchat[massgen]'" in str(caught.value.code)


def test_the_command_and_the_extra_are_declared() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    assert project["scripts"]["vllmchat-massgen"] == "vllmchat.adapters.massgen.launcher:main"
    assert project["optional-dependencies"]["massgen"] == ["massgen>=0.1.97"]
    assert adapter.OLDEST_MASSGEN == (0, 1, 97)
