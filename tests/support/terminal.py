"""The command line in a real terminal."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pexpect

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\x01\x02]")
"""Escape sequences, and the marks around them in prompts."""


@contextmanager
def terminal(
    *arguments: str, home: Path, columns: int = 100, **environment: str
) -> Generator[pexpect.spawn, None, None]:
    """Runs `vllmchat` in a terminal, and ends it with the block."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "vllmchat", *arguments],
        timeout=60,
        env={**kept, "TERM": "xterm-256color", "XDG_STATE_HOME": str(home), **environment},
        dimensions=(40, columns),
        encoding="utf-8",
    )
    try:
        yield child
    finally:
        child.close(force=True)


def rest(child: pexpect.spawn) -> str:
    """Returns what is printed until the end, without escape sequences."""
    child.expect(pexpect.EOF)
    text = ESCAPE.sub("", child.before).replace("\r\n", "\n")
    child.close()
    return text
