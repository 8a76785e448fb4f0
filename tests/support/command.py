"""Runs the command line inside this process."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, NamedTuple

from vllmchat.cli.run import run

if TYPE_CHECKING:
    import pytest


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class CommandLine:
    """Runs commands.

    Args:
        monkeypatch: Replaces the streams.

    Attributes:
        terminal: Whether the streams are terminals.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.terminal = False

    def __call__(self, *arguments: str, stdin: str | None = None) -> Done:
        """Runs one command; without `stdin`, nothing is piped in."""
        make = Terminal if self.terminal else io.StringIO
        out, err = make(), make()
        source = Terminal() if stdin is None else io.StringIO(stdin)
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "stdin", source)
            code = run(arguments)
        return Done(code, out.getvalue(), err.getvalue())
