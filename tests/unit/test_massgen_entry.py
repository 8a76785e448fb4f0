"""The adapter's door: what happens without MassGen."""

from __future__ import annotations

import subprocess
import sys
import tomllib
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


def test_the_launcher_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(name: str) -> None:
        assert name == "massgen"

    monkeypatch.setattr(launcher, "find_spec", nothing)
    with pytest.raises(SystemExit) as caught:
        launcher.main()
    assert caught.value.code == 1
    assert "pip install 'vllmchat[massgen]'" in capsys.readouterr().err


def test_the_command_and_the_extra_are_declared() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    assert project["scripts"]["vllmchat-massgen"] == "vllmchat.adapters.massgen.launcher:main"
    assert project["optional-dependencies"]["massgen"] == ["massgen>=0.1.97"]
