"""What a test against an older server does: it is skipped where it needs a newer one, and the run says why."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.examples import ROOT
from support.vllm import at_least


@pytest.mark.parametrize(
    ("version", "since", "holds"),
    [
        ("0.19.1", "0.19", True),
        ("0.19.1", "0.19.1", True),
        ("0.19.1", "0.19.2", False),
        ("0.9.2", "0.10", False),
        ("0.32.0", "0.8.5", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, since: str, holds: bool) -> None:
    assert at_least(version, since) is holds


@pytest.mark.slow
def test_what_needs_a_newer_server_is_skipped_and_counted_by_its_reason() -> None:
    test = "tests/server/test_real_routes.py::test_every_route_of_the_tables_exists"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--vllm", "0.19.1", test],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "= skipped on vLLM 0.19.1 =" in run.stdout
    assert "   1 since vLLM 0.32.0: the routes of the newest server\n" in run.stdout
