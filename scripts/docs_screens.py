"""Record the screens of the documentation's page on the command line, and draw them.

    python scripts/docs_screens.py            record them anew, with a real server on port 8000, and draw them
    python scripts/docs_screens.py --draw     draw the pictures from the recording

A screen is what one command has printed in a terminal; of one that redraws itself, the rows that it had drawn in the
middle. `make server` starts the server.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import pexpect
from rich.console import Console
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
ASSETS: Final = ROOT / "docs" / "assets"
RECORDING: Final = ASSETS / "command-line.json"

COLUMNS: Final = 100
_REDRAWN: Final = re.compile(r"\r?(?:\x1b\[2K\x1b\[1A)*\r?\x1b\[2K")
_CURSOR: Final = re.compile(r"\x1b\[\?25[lh]|\x1b\[\?2004[lh]")

COLORS: Final[Mapping[int | None, str]] = {
    1: "#f87171",
    2: "#34d399",
    3: "#fbbf24",
    6: "#22d3ee",
    8: "#475569",
}
"""By their numbers in a terminal."""

DIM: Final = "#64748b"
BOLD: Final = "#f8fafc"


@dataclass(frozen=True)
class Screen:
    """One screen.

    Attributes:
        command: What is typed after `vllmchat`.
        seconds: For a command that redraws itself: when to look, after it has begun.
    """

    command: str
    seconds: float | None = None

    @property
    def arguments(self) -> list[str]:
        """The words of the command."""
        return [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', self.command)]


SCREENS: Final = {
    "ask": Screen('ask "What is the capital of France?" --temperature 0'),
    "map": Screen("map questions.txt answers.jsonl --temperature 0", seconds=8),
    "check": Screen("check --model Qwen/Qwen3-4B"),
    "top": Screen("top --url http://localhost:8000 --url http://localhost:8001", seconds=8),
}

LOAD: Final = "map load.txt load.jsonl --temperature 0"
"""What runs while `top` is recorded, so that there is something to see."""

FILES: Final = {"questions.txt": 120, "load.txt": 2_000}
"""The inputs, and how many prompts they have."""


def record() -> dict[str, str]:
    """Run each command in a terminal; returns what was printed."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for file, count in FILES.items():
            questions = (f"Tell me a story. Number {number}." for number in range(count))
            (Path(folder) / file).write_text("\n".join(questions), encoding="utf-8")
        for name, screen in SCREENS.items():
            load = None
            if name == "top":
                load = subprocess.Popen(
                    [sys.executable, "-m", "vllmchat", *LOAD.split()], cwd=folder, stderr=subprocess.DEVNULL
                )
            try:
                found[name] = _printed(screen, folder)
            finally:
                if load is not None:
                    load.terminate()
                    load.wait()
    return found


def _printed(screen: Screen, folder: str) -> str:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "vllmchat", *screen.arguments],
        timeout=120,
        env={**os.environ, "TERM": "xterm-256color"},
        cwd=folder,
        dimensions=(40, COLUMNS),
        encoding="utf-8",
    )
    try:
        if screen.seconds is None:
            child.expect(pexpect.EOF)
            text = child.before
        else:
            child.expect(r"\S")
            begun, text = time.monotonic(), ""
            while time.monotonic() - begun < screen.seconds:
                child.expect(r".+")
                text += child.after
            *_, whole, _ = _REDRAWN.split(text)
            text = whole
    finally:
        child.close(force=True)
    return _CURSOR.sub("", text).replace("\r\n", "\n").strip("\n")


def draw(screen: Screen, printed: str) -> str:
    """The picture of a screen."""
    prompt = Text("$ ", style="cyan").append(f"vllmchat {screen.command}", style="bold")
    lines = [prompt, *Text.from_ansi(printed).split("\n", allow_blank=True)]
    console = Console(width=COLUMNS)
    rows = [row for line in lines for row in (line.wrap(console, COLUMNS) if line.plain else [line])]
    width, top, step = 800, 44, 19
    height = top + step * len(rows) + 4
    drawn = "\n".join(_row(row, top + step * number) for number, row in enumerate(rows))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>vllmchat {html.escape(screen.command)}</title>
<style>
text {{ font: 12.5px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }}
text {{ fill: #cbd5e1; }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#0f172a" stroke="#253044"/>
<circle cx="18" cy="16" r="5" fill="#f87171"/><circle cx="35" cy="16" r="5" fill="#fbbf24"/>\
<circle cx="52" cy="16" r="5" fill="#34d399"/>
{drawn}
</svg>
"""


def _row(row: Text, y: int) -> str:
    spans: list[tuple[str, str]] = []
    for at, character in enumerate(row.plain):
        look = _look([span.style for span in row.spans if span.start <= at < span.end])
        if spans and spans[-1][0] == look:
            spans[-1] = (look, spans[-1][1] + character)
        else:
            spans.append((look, character))
    inside = "".join(
        f'<tspan style="{look}">{html.escape(text, quote=False)}</tspan>'
        if look
        else html.escape(text, quote=False)
        for look, text in spans
    )
    return f'<text x="16" y="{y}">{inside}</text>'


def _look(styles: Sequence[Style | str]) -> str:
    """The style sheet of what has these styles."""
    whole = Style.combine(
        [Style.null(), *(Style.parse(each) if isinstance(each, str) else each for each in styles)]
    )
    if whole.color is not None and (color := COLORS.get(whole.color.number)) is not None:
        return f"fill:{color}"
    return f"fill:{DIM}" if whole.dim else f"fill:{BOLD}" if whole.bold else ""


def pictures(recording: Mapping[str, str]) -> dict[Path, str]:
    """The pictures of a recording, by their files."""
    return {
        ASSETS / f"command-line-{name}.svg": draw(SCREENS[name], text) for name, text in recording.items()
    }


def read() -> dict[str, str]:
    """The recording."""
    return cast("dict[str, str]", json.loads(RECORDING.read_text(encoding="utf-8")))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draw", action="store_true", help="record nothing")
    if not parser.parse_args().draw:
        text = json.dumps(record(), indent=1, ensure_ascii=False)
        RECORDING.write_text(f"{text}\n", encoding="utf-8")
    for path, picture in pictures(read()).items():
        path.write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
