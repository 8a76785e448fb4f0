"""MassGen for the tests: an environment of its own, made once per machine."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from cached_env import InstallError
from massgen_env import environment, install
from support.vllm import is_required

if TYPE_CHECKING:
    from _pytest.capture import CaptureManager

    from support.fake_vllm import RunPython

collect_ignore = ["inside"]
"""These tests import MassGen: they run in its environment, started by `test_massgen_inside.py`."""

TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def massgen_python(pytestconfig: pytest.Config) -> Path:
    """The interpreter of MassGen's environment."""
    try:
        return install(say=partial(_say, pytestconfig))
    except InstallError as error:
        if is_required():
            pytest.fail(f"no MassGen: {error}", pytrace=False)
        pytest.skip(f"no MassGen: {str(error).splitlines()[0]}")


@pytest.fixture(scope="session")
def run_massgen_python(massgen_python: Path, tmp_path_factory: pytest.TempPathFactory) -> RunPython:
    """Runs MassGen's Python with this clone's vllmchat, in an empty directory and with an empty home."""
    home = tmp_path_factory.mktemp("home")

    def run(
        *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        inherited = environment(
            {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        )
        paths = [inherited["PYTHONPATH"], str(TESTS)]
        return subprocess.run(
            [str(massgen_python), "-W", "ignore", *_measuring(), *arguments],
            cwd=cwd if cwd is not None else tmp_path_factory.mktemp("cwd"),
            env={**inherited, "HOME": str(home), "PYTHONPATH": os.pathsep.join(paths), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def _measuring() -> list[str]:
    """Makes Python measure coverage in child processes if the tests' coverage is measured."""
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is None:
        return []
    where = current.get_data().base_filename()
    return [
        "-m",
        "coverage",
        "run",
        "--parallel-mode",
        "--rcfile",
        str(TESTS.parent / "pyproject.toml"),
        "--data-file",
        where,
    ]


def _say(config: pytest.Config, line: str) -> None:
    """Show a line of progress through pytest's capture: an installation takes minutes."""
    capture = cast("CaptureManager", config.pluginmanager.getplugin("capturemanager"))
    with capture.global_and_fixture_disabled():
        sys.stderr.write(f"\n[massgen] {line}")
        sys.stderr.flush()
