"""The progress of a job: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from vllmchat.cli.terminal import is_terminal, printable
from vllmchat.jobs.result import JobProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

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
    bar = Progress(
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )
    task = bar.add_task("", total=None)

    def show(progress: JobProgress) -> None:
        bar.update(task, completed=progress.done, total=progress.total, description=line(progress))

    with bar:
        yield Reporter(show)


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
    of = f" of {progress.total:,}" if progress.total is not None else ""
    parts = [f"{progress.done:,}{of} done"]
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.waiting_for is not None:
        return printable(", ".join([*parts, f"waiting for the server: {progress.waiting_for}"]))
    parts += rates(progress)
    if not progress.ended:
        parts.append(f"{progress.in_flight:,} in flight")
        if (left := progress.seconds_left) is not None:
            parts.append(f"{duration(left)} left")
    return ", ".join(parts)


def rates(progress: JobProgress) -> list[str]:
    """Returns how fast a job is: inputs and tokens per second, and the share of the prompts that was cached."""
    parts = [f"{progress.rate:,.1f}/s"]
    if progress.seconds > 0 and progress.prompt_tokens:
        parts.append(f"{progress.prompt_tokens / progress.seconds:,.0f} prompt tokens/s")
    if progress.seconds > 0 and progress.completion_tokens:
        parts.append(f"{progress.completion_tokens / progress.seconds:,.0f} completion tokens/s")
    if progress.cached_tokens and progress.prompt_tokens:
        parts.append(f"{progress.cached_tokens / progress.prompt_tokens:.0%} of the prompts cached")
    return parts


def duration(seconds: float) -> str:
    """Returns a time for people, such as `2 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
