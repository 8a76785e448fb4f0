"""The progress of a job: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vllmchat.cli.terminal import is_terminal, printable
from vllmchat.jobs.result import JobProgress, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_BAR: Final = 32
"""How wide the bar is, in characters."""

_PLAIN_SECONDS: Final = 10.0
"""Seconds between plain lines."""


class Reporter:
    """Receives the states of a job, and keeps the last one."""

    def __init__(self, show: Callable[[JobProgress], None]) -> None:
        self._show = show
        self.last = JobProgress()

    def __call__(self, progress: JobProgress) -> None:
        """Shows a state."""
        self.last = progress
        self._show(progress)


@contextmanager
def reporting() -> Generator[Reporter, None, None]:
    """Shows the progress of a job on stderr."""
    if not is_terminal(sys.stderr):
        yield Reporter(_Lines().show)
        return
    with Live(console=Console(stderr=True, highlight=False), auto_refresh=False, transient=True) as live:
        yield Reporter(lambda progress: live.update(drawn(progress), refresh=True))


def drawn(progress: JobProgress) -> Group:
    """Returns what a terminal shows: a bar and how far the job is, and under it how fast."""
    bar = ProgressBar(
        total=progress.total or None,
        completed=progress.done,
        width=_BAR,
        pulse=not progress.total,
        style="bright_black",
        complete_style="green",
        finished_style="green",
    )
    row = Table.grid(padding=(0, 1))
    row.add_row(bar, Text(", ".join(how_far(progress)), no_wrap=True, overflow="ellipsis"))
    return Group(row, Text(", ".join(how_fast(progress)), no_wrap=True, overflow="ellipsis"))


class _Lines:
    """Prints a line every ten seconds, and when the server goes away or comes back."""

    def __init__(self) -> None:
        self._next = _PLAIN_SECONDS
        self._waited = False

    def show(self, progress: JobProgress) -> None:
        waits = progress.waiting_for is not None
        if progress.ended:
            return
        if progress.seconds >= self._next or waits != self._waited:
            self._next = progress.seconds + _PLAIN_SECONDS
            self._waited = waits
            sys.stderr.write(f"{line(progress)}\n")
            sys.stderr.flush()


def line(progress: JobProgress) -> str:
    """Returns all figures of a state in one line."""
    return ", ".join([*how_far(progress), *how_fast(progress)])


def how_far(progress: JobProgress) -> list[str]:
    """Returns how many inputs are done, and how long the rest will take."""
    of = f" of {progress.total:,}" if progress.total is not None else ""
    parts = [f"{progress.done:,}{of} done"]
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if not progress.ended and progress.waiting_for is None and (left := progress.seconds_left) is not None:
        parts.append(f"{duration(left)} left")
    return parts


def how_fast(progress: JobProgress) -> list[str]:
    """Returns how fast a job is and how wide, or why it waits."""
    if progress.waiting_for is not None:
        return [printable(f"waiting for the server: {progress.waiting_for}")]
    width = [] if progress.ended else [f"{progress.in_flight:,} in flight"]
    return [*rates(progress), *width]


def rates(progress: JobProgress) -> list[str]:
    """Returns how fast a job is: inputs and tokens per second, and the share of the prompts that was cached."""
    parts = [f"{progress.rate:,.1f}/s"]
    if rate := progress.prompt_tokens_per_second:
        parts.append(f"{rate:,.0f} prompt tokens/s")
    if rate := progress.completion_tokens_per_second:
        parts.append(f"{rate:,.0f} completion tokens/s")
    if (share := progress.cache_hit_rate) is not None:
        parts.append(f"{share:.0%} of the prompts cached")
    return parts
