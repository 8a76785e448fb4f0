"""The page on the command line: its examples run, and its screens are what was recorded."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import docs_screens
from support.examples import ROOT, Example, as_promised, read
from vllmchat.cli.run import COMMANDS, command_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.vllm import LiveServer

FILE = ROOT / "docs" / "command-line.md"
PAGE = FILE.read_text(encoding="utf-8")
SESSIONS = [each for each in read(FILE) if each.language == "console"]


def steps(session: Example) -> list[tuple[str, list[str]]]:
    """The commands of a session, each with its promised output."""
    found: list[tuple[str, list[str]]] = []
    for line in session.code.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif not found[-1][1] and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        else:
            found[-1][1].append(line)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="the examples are written for a POSIX shell")
@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_a_session_runs(session: Example, vllm_server: LiveServer, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "vllmchat"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vllmchat "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "VLLM_BASE_URL": vllm_server.base_url,
    }
    for command, promised in steps(session):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert as_promised(promised, done.stdout), f"{command} printed:\n{done.stdout}"


def test_every_command_is_on_the_page() -> None:
    assert {name for name in COMMANDS if f"vllmchat {name}" in PAGE} == set(COMMANDS)


def test_the_options_of_the_table_exist() -> None:
    table = PAGE.partition("## The server and its key")[2].partition("\n## ")[0]
    known = {option for each in command_of(COMMANDS["ask"]).params for option in each.opts}
    assert set(re.findall(r"`(--[a-z-]+|-\w)\b", table)) <= known


def test_the_screens_show_their_recording() -> None:
    drawn = docs_screens.pictures(docs_screens.read())
    assert docs_screens.read().keys() == docs_screens.SCREENS.keys()
    for path, picture in drawn.items():
        assert path.read_text(encoding="utf-8") == picture, "draw it: python scripts/docs_screens.py --draw"
        assert f"(assets/{path.name})" in PAGE


def test_the_screens_show_what_the_commands_print_today() -> None:
    recorded = docs_screens.read()
    assert "\x1b[2mThe" in recorded["ask"], "reasoning is dimmed"
    assert recorded["check"].endswith("All is well.")
    for heading in ("RUNNING", "WAITING", "KV", "HITS", "PROMPT/S", "OUTPUT/S", "PREEMPTED"):
        assert heading in recorded["top"]
    assert re.search(r"\d+ of 120 done, ", recorded["map"])
