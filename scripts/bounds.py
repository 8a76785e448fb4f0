"""Run the tests with the newest or the lowest versions that pyproject.toml allows, as of today.

The locks keep everyday tests from breaking when a new release does; these runs show such a break before users see it.
`make test-newest` and `make test-lowest` run them, and so does a weekly workflow.

    python scripts/bounds.py newest     # resolved by pip, as `pip install vllmchat` does
    python scripts/bounds.py lowest     # the lowest of each bound, which only uv can resolve

It runs the unit tests, the examples of the documentation, and three MassGen agents on a real vLLM server, in two new
environments: MassGen cannot share one with our tools.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MASSGEN_RUN = "tests/massgen/test_massgen_command.py::test_three_agents_find_a_winner"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bounds.py", description="Test the bounds in pyproject.toml.")
    parser.add_argument("end", choices=["newest", "lowest"])
    end: str = parser.parse_args(argv).end
    try:
        python = _environment(end, f".venv-{end}", "dev,docs")
        _pytest(python, "-n", "auto", "tests/unit", "tests/docs")
        massgen = _environment(end, f".venv-{end}-massgen", "massgen")
        _pytest(python, MASSGEN_RUN, massgen=massgen)
    except subprocess.CalledProcessError as error:
        print(
            f"error: with the {end} versions, this failed: {' '.join(map(str, error.cmd))}", file=sys.stderr
        )
        return 1
    return 0


def _environment(end: str, name: str, extras: str) -> Path:
    """Create an environment with this project and some extras; return its interpreter."""
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    wanted = f"{ROOT}[{extras}]"
    install: list[str | Path]
    if end == "newest":
        install = [
            python,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
            "--editable",
            wanted,
        ]
    else:
        uv = Path(sys.executable).with_name("uv")
        install = [uv, "pip", "install", "--quiet", "--no-config", "--resolution", "lowest-direct"]
        install += ["--python", python, "--editable", wanted]
    print(f"installing the {end} versions of [{extras}] into {name}", file=sys.stderr, flush=True)
    subprocess.run(install, check=True)
    listed: list[str | Path] = [
        python,
        "-m",
        "pip",
        "list",
        "--disable-pip-version-check",
        "--format",
        "freeze",
    ]
    subprocess.run(listed, check=True)
    return python


def _pytest(python: Path, *arguments: str, massgen: Path | None = None) -> None:
    env = os.environ | ({"VLLMCHAT_MASSGEN_PYTHON": str(massgen)} if massgen else {})
    subprocess.run([python, "-m", "pytest", "-q", *arguments], cwd=ROOT, env=env, check=True)


if __name__ == "__main__":
    sys.exit(main())
