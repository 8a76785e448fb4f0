"""A Ray cluster on this machine, and its end."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import ModuleType

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc"),
    # Ray Data sets settings of its own that it has deprecated.
    pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning:ray"),
]
"""Of tests that use a cluster."""


@contextmanager
def cluster() -> Generator[ModuleType]:
    """A cluster that believes that it has four CPUs; all its processes are gone afterwards."""
    # Its sockets need short paths.
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory(prefix="ray") as folder:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_AUTH_MODE", "disabled")
        ray = pytest.importorskip("ray")
        pytest.importorskip("ray.data")
        before = _descendants(os.getpid())
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=folder,
        )
        roots = _descendants(os.getpid()) - before
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            yield ray
        finally:
            started = roots.union(*map(_descendants, filter(_is_running, roots)))
            assert len(started) > len(roots) > 0
            ray.shutdown()
            deadline = time.monotonic() + 30
            while left := {each for each in started if _is_running(each)}:
                assert time.monotonic() < deadline, f"still running: {left}"
                time.sleep(0.05)


def _descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have started."""
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        children |= {int(each) for each in (task / "children").read_text().split()}
    return children.union(*(_descendants(each) for each in children if Path(f"/proc/{each}/task").is_dir()))


def _is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
