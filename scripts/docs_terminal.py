"""Record the session on the documentation's first page, and draw it.

    python scripts/docs_terminal.py            record it anew, with a real server, and draw it
    python scripts/docs_terminal.py --draw     draw the picture from the recording

The recording is an asciicast (https://docs.asciinema.org/manual/asciicast/v2/): what Python printed, and when. The
picture is an SVG that replays it once; where motion is not wanted, it shows the end.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT: Final = Path(__file__).resolve().parent.parent
RECORDING: Final = ROOT / "docs" / "assets" / "terminal.cast"
PICTURE: Final = RECORDING.with_suffix(".svg")

SESSION: Final = (
    "from vllmchat import VLLMProvider",
    'llm = VLLMProvider("Qwen/Qwen3-4B")',
    'with llm.stream("Tell me a story.", temperature=0, enable_thinking=False) as stream:',
    '    for chunk in stream: print(chunk.text, end="", flush=True)',
    "    print()",
    "",
    'llm.choose("What is the capital of France?", ["Oslo", "Paris"], temperature=0, enable_thinking=False)',
    'llm.count_tokens("Tell me a story.")',
)
"""What is typed."""

COLUMNS: Final = 92
PAUSE: Final = 0.7
"""Seconds between a prompt and the next line; also the longest wait that the picture shows."""

PROMPTS: Final = (">>> ", "... ")
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Output(NamedTuple):
    """What was printed at a time, in seconds."""

    seconds: float
    text: str


def record(url: str) -> list[Output]:
    """Type the session into Python, in a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 200))  # wide enough that readline scrolls no line
    environment = {**os.environ, "VLLM_BASE_URL": url, "TERM": "dumb", "PYTHON_BASIC_REPL": "1"}
    environment |= {"COLUMNS": str(COLUMNS), "PYTHONSTARTUP": ""}
    process = subprocess.Popen(
        [sys.executable, "-q", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT
    )
    os.close(theirs)
    start = time.monotonic()
    outputs: list[Output] = []
    try:
        for line in ("", *SESSION):
            if outputs:
                os.write(ours, f"{line}\n".encode())
            seen = ""
            while not seen.endswith(PROMPTS):
                if not select.select([ours], [], [], 60)[0]:
                    raise SystemExit(f"Python printed nothing for a minute after {line!r}")
                text = _ESCAPE.sub("", os.read(ours, 65536).decode()).replace("\r", "")
                seen += text
                if "Traceback" in seen:
                    raise SystemExit(f"{line!r} raised:\n{seen}")
                outputs.append(Output(round(time.monotonic() - start, 3), text))
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    return outputs


def write(outputs: list[Output]) -> str:
    """The recording as text."""
    header = {"version": 2, "width": COLUMNS, "height": 24, "title": "vllmchat with a real vLLM server"}
    events = [[output.seconds, "o", output.text] for output in outputs]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in [header, *events])


def read(recording: str) -> list[Output]:
    """The outputs in a recording."""
    return [Output(seconds, text) for seconds, _, text in map(json.loads, recording.splitlines()[1:])]


def draw(outputs: list[Output]) -> str:
    """The picture of a recording."""
    lines: list[list[Output]] = [[]]
    at, before, typed = 0.1, outputs[0].seconds, 0
    for seconds, text in outputs:
        at += min(seconds - before, PAUSE)
        before = seconds
        for index, piece in enumerate(text.split("\n")):
            if index:
                lines.append([])
            if piece:
                lines[-1].append(Output(at, piece))
        if text.endswith(PROMPTS) and typed < len(SESSION):
            typed += 1
            at += PAUSE
    rows = [(row, _is_typed(line)) for line in lines for row in wrapped(line)]
    width, top, step = 740, 44, 19
    height = top + step * len(rows) + 4
    drawn = "\n".join(_row(row, typed, top + step * number) for number, (row, typed) in enumerate(rows))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>vllmchat with a real vLLM server</title>
<style>
text {{ font: 12.5px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }}
text {{ fill: #cbd5e1; }}
.p {{ fill: #2dd4bf; }}
.i {{ fill: #f8fafc; }}
tspan {{ animation: show 1ms linear both; }}
@keyframes show {{ from {{ fill-opacity: 0; }} to {{ fill-opacity: 1; }} }}
@media (prefers-reduced-motion: reduce) {{ tspan {{ animation: none; }} }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#0f172a" stroke="#253044"/>
<circle cx="18" cy="16" r="5" fill="#f87171"/><circle cx="35" cy="16" r="5" fill="#fbbf24"/>\
<circle cx="52" cy="16" r="5" fill="#34d399"/>
{drawn}
</svg>
"""


def wrapped(line: list[Output]) -> list[list[Output]]:
    """A line of output as rows that fit the window, broken between words."""
    whole = "".join(text for _, text in line)
    if not whole:
        return [[]]
    starts = [0]
    while len(whole) - starts[-1] > COLUMNS:
        end = whole.rfind(" ", starts[-1], starts[-1] + COLUMNS) + 1
        starts.append(end if end > starts[-1] else starts[-1] + COLUMNS)
    rows: list[list[Output]] = [[] for _ in starts]
    position = 0
    for seconds, text in line:
        for row, (start, end) in enumerate(pairwise([*starts, len(whole)])):
            piece = text[max(0, start - position) : max(0, end - position)]
            if piece:
                rows[row].append(Output(seconds, piece))
        position += len(text)
    return rows


def _is_typed(line: list[Output]) -> bool:
    return "".join(text for _, text in line)[:4] in PROMPTS


def _row(row: list[Output], typed: bool, y: int) -> str:
    whole = "".join(text for _, text in row)
    prompt = whole[:4] if typed and whole[:4] in PROMPTS else ""
    spans = [_span(row[0].seconds, prompt, "p")] if prompt else []
    merged: list[Output] = []
    skip = len(prompt)
    for seconds, text in row:
        rest, skip = text[skip:], max(0, skip - len(text))
        if rest and merged and merged[-1].seconds == seconds:
            merged[-1] = Output(seconds, merged[-1].text + rest)
        elif rest:
            merged.append(Output(seconds, rest))
    spans += [_span(seconds, text, "i" if typed else "") for seconds, text in merged]
    return f'<text x="16" y="{y}">{"".join(spans)}</text>'


def _span(seconds: float, text: str, kind: str) -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<tspan{shown} style="animation-delay:{seconds:.2f}s">{html.escape(text, quote=False)}</tspan>'


@contextlib.contextmanager
def server() -> Generator[str]:
    """The URL of a server: of the one in `$VLLM_BASE_URL`, else of one that is started and stopped."""
    if url := os.environ.get("VLLM_BASE_URL"):
        yield url
        return
    command = [sys.executable, str(ROOT / "scripts" / "vllm_server.py")]
    named = ["--name", "recording"]
    run = subprocess.run([*command, "start", *named], check=True, stdout=subprocess.PIPE, text=True)
    try:
        yield run.stdout.strip()
    finally:
        subprocess.run([*command, "stop", *named], check=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draw", action="store_true", help="record nothing")
    if not parser.parse_args().draw:
        with server() as url:
            RECORDING.write_text(write(record(url)), encoding="utf-8")
    PICTURE.write_text(draw(read(RECORDING.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
