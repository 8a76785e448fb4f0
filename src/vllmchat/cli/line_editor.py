"""Reads messages in a terminal, with readline's keys and history where Python has it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vllmchat.cli.terminal import has_color

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

try:
    import readline as _readline
except ImportError:  # Windows
    _keys: Any = None
else:
    _keys = _readline

_LONGEST_HISTORY: Final = 1_000
_BLOCK: Final = '"""'


class LineEditor:
    """Reads messages. As a context manager it loads the history of earlier conversations, and saves it."""

    def __init__(self) -> None:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        self._history = Path(state) / "vllmchat" / "history"
        # readline counts what is between \001 and \002 as nothing.
        bold = (
            ("\001\x1b[1m\002", "\001\x1b[0m\002")
            if _keys is not None and has_color(sys.stdout)
            else ("", "")
        )
        self._prompt = f"{bold[0]}> {bold[1]}"

    def read(self) -> str:
        """Returns the next message: a line, or several between three quotes.

        Raises:
            EOFError: The user leaves.
            KeyboardInterrupt: The user does not want to write it.
        """
        text = input(self._prompt)
        if not text.startswith(_BLOCK):
            return text
        lines = [text.removeprefix(_BLOCK)]
        while not lines[-1].rstrip().endswith(_BLOCK):
            lines.append(input("  "))
        lines[-1] = lines[-1].rstrip().removesuffix(_BLOCK)
        return "\n".join(lines).strip("\n")

    def __enter__(self) -> Self:
        if _keys is not None:
            with suppress(OSError):
                _keys.read_history_file(self._history)
            _keys.set_history_length(_LONGEST_HISTORY)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if _keys is not None:
            # A history that cannot be written must not end the program.
            with suppress(OSError):
                self._history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._history.touch(mode=0o600)
                _keys.write_history_file(self._history)
