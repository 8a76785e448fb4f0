"""Event loops: which one runs, and how to run something on the one that a thing belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import ModuleType


def on_trio() -> bool:
    """Whether the running event loop is trio's; otherwise it is asyncio's."""
    if "trio" not in sys.modules:
        return False
    # sniffio comes with trio. Looking for a running asyncio loop would not do: trio may run as its guest.
    import sniffio

    return sniffio.current_async_library() == "trio"


class EventLoopHandle:
    """The event loop that something belongs to."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        # Held here, since a finalizer that runs at interpreter exit cannot import anything.
        self._trio: ModuleType | None = None
        if on_trio():
            import trio

            self._trio = trio.lowlevel
            token = trio.lowlevel.current_trio_token()
            self._loop: object = token
            self._post: Callable[[Callable[[], object]], object] = token.run_sync_soon
        else:
            loop = asyncio.get_running_loop()
            self._loop = loop
            self._post = loop.call_soon_threadsafe

    def run(self, job: Callable[[], object]) -> None:
        """Runs a job on the loop: at once if called there, otherwise soon; never if the loop has ended."""
        if self._is_here():
            job()
        else:
            self.post(job)

    def post(self, job: Callable[[], object]) -> None:
        """Runs a job on the loop soon; never if the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._post(job)

    def start(self, job: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Starts a task on the loop; must be called there."""
        if self._trio is not None:
            # RuntimeError: the loop is about to end.
            with contextlib.suppress(RuntimeError):
                self._trio.spawn_system_task(job, *args)
            return
        task = asyncio.ensure_future(job(*args))
        # The loop keeps only weak references to its tasks.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def is_trio(self) -> bool:
        """Whether it is trio's."""
        return self._trio is not None

    def _is_here(self) -> bool:
        if self._trio is not None:
            return bool(self._trio.in_trio_run()) and self._trio.current_trio_token() is self._loop
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False
