"""The fixtures of the pytest plugin, as another project's tests get them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
from vllmchat import VLLMProvider
from vllmchat.testing import FakeServer, ScriptedProvider

def test_provider(scripted_provider: ScriptedProvider) -> None:
    scripted_provider.answer("42")
    assert scripted_provider.chat("x").text == "42"

def test_server(fake_vllm: FakeServer) -> None:
    fake_vllm.answer("42")
    assert VLLMProvider().base_url == fake_vllm.base_url
    assert VLLMProvider().chat("x").text == "42"

def test_the_next_one_starts_anew(fake_vllm: FakeServer, scripted_provider: ScriptedProvider) -> None:
    assert fake_vllm.requests == scripted_provider.calls == []
"""

BAD = """
def test_provider(scripted_provider):
    scripted_provider.answer("left")

def test_server(fake_vllm):
    fake_vllm.answer("left")
"""

FAILING = """
def test_provider(scripted_provider):
    scripted_provider.answer("left")
    assert False, "for a reason of its own"

def test_server(fake_vllm):
    fake_vllm.answer("left")
    assert False, "for a reason of its own"
"""

UNUSED = """
import sys

def test_nothing() -> None:
    loaded = {name for name in sys.modules if name.partition(".")[0] == "vllmchat"}
    assert loaded == {"vllmchat", "vllmchat.testing", "vllmchat.testing.plugin"}, loaded
"""


def run(folder: Path, code: str, **env: str) -> str:
    """Runs pytest on a project's tests, and returns what it prints."""
    (folder / "test_it.py").write_text(code)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:anyio", "-W", "error", "-c", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), str(folder)],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_pytest_finds_the_plugin() -> None:
    [found] = entry_points(group="pytest11", name="vllmchat")
    assert found.value == "vllmchat.testing.plugin"


def test_fixtures_work(tmp_path: Path) -> None:
    assert "3 passed" in run(tmp_path, GOOD)


def test_a_proxy_does_not_stand_in_the_way(tmp_path: Path) -> None:
    assert "3 passed" in run(tmp_path, GOOD, HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="example.com")


def test_answers_that_are_left_fail_the_test(tmp_path: Path) -> None:
    printed = run(tmp_path, BAD)
    assert "2 passed, 2 errors" in printed
    assert printed.count("1 of 1 scripted answers are left") >= 2


def test_a_test_that_fails_before_fails_once(tmp_path: Path) -> None:
    printed = run(tmp_path, FAILING)
    assert "2 failed" in printed
    assert "error" not in printed.splitlines()[-1]


def test_a_run_that_does_not_use_it_loads_next_to_nothing(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, UNUSED)
