"""What is printed: safe for terminals, with colors only where they are wanted."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN: Final = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"},
    ord("\r"): None,
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}
"""Control characters, and what is shown for them: their pictures, such as `␛`. Carriage returns are left out."""


def printable(text: str) -> str:
    """Returns a text without control characters, which could drive the terminal. Tabs and line breaks stay."""
    return text.translate(_SHOWN)


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal."""
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def has_color(stream: TextIO) -> bool:
    """Whether to write colors to a stream: it is a terminal, and `NO_COLOR` is not set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(
    text: str, stream: TextIO, *, color: str | None = None, dim: bool = False, bold: bool = False
) -> str:
    """Returns a text in a color for a stream that has colors, else unchanged."""
    if not (text and (color or dim or bold) and has_color(stream)):
        return text
    return click.style(text, fg=color, dim=dim or None, bold=bold or None)


def write(text: str, stream: TextIO | None = None, *, color: str | None = None, dim: bool = False) -> None:
    """Writes a text of a model or a server, at once. To a pipe or a file it goes unchanged."""
    out: TextIO = stream or sys.stdout
    if is_terminal(out):
        text = styled(printable(text), out, color=color, dim=dim)
    out.write(text)
    out.flush()


def say(text: str, *, label: str = "", color: str | None = None) -> None:
    """Writes a line about what happens to stderr.

    Args:
        text: What happens.
        label: What kind of line it is, such as `error`.
        color: The color of the label.
    """
    write("vllmchat: ", sys.stderr)
    if label:
        write(f"{label}: ", sys.stderr, color=color)
    write(f"{text}\n", sys.stderr)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table without lines, its columns two spaces apart. The first row is the head."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
        for row in rows
    )
