"""MassGen's runs while its command line works: how the last one ended."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from massgen.cancellation import CancellationRequested
from massgen.cli import entrypoint
from massgen.frontend.interactive_controller import InteractiveSessionController
from massgen.orchestrator import Orchestrator

from vllmchat.adapters.massgen.backend import VLLMBackend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator


class Runs:
    """The runs so far. MassGen creates an orchestrator for each question.

    Attributes:
        interrupted: Whether the user stopped the last run.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._last: Orchestrator | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def failure(self) -> str | None:
        """The message if no agent of the last run produced an answer; None if one did, or if nothing ran."""
        if self._last is None or any(state.answer for state in self._last.agent_states.values()):
            return None
        lines = [f"  {agent}: {_reason(self._last, agent)}" for agent in self._last.agent_states]
        return "\n".join(["❌ No agent produced an answer.", *lines])

    def begin(self, run: Orchestrator) -> None:
        """Notes that a run begins."""
        self._last, self.interrupted = run, False
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def cancel(self) -> None:
        """Notes that the user stopped the last run, and ends its replies: MassGen leaves them open for seconds."""
        self.interrupted = True
        self._in_its_loop([backend.interrupt for backend in self._backends()])

    def quit(self) -> None:
        """Notes that the user left the display, and ends the replies that are still being read."""
        replying = [backend for backend in self._backends() if backend.is_replying]
        self.interrupted = self.interrupted or bool(replying)
        self._in_its_loop([backend.stop for backend in replying])

    def _backends(self) -> list[VLLMBackend]:
        agents = self._last.agents.values() if self._last is not None else ()
        return [agent.backend for agent in agents if isinstance(agent.backend, VLLMBackend)]

    def _in_its_loop(self, actions: list[Callable[[], Awaitable[None]]]) -> None:
        """Starts something in the last run's event loop: a display may have another, in another thread."""

        async def act() -> None:
            for action in actions:
                await action()

        if self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(act(), self._loop)


def _reason(run: Orchestrator, agent: str) -> str:
    """Why an agent has no answer: what MassGen says, and the agent's last error if that says something else."""
    reason = run.agent_states[agent].error_reason or "no answer"
    backend = run.agents[agent].backend if agent in run.agents else None
    last = backend.last_failure if isinstance(backend, VLLMBackend) else None
    return reason if last is None or last in reason else f"{reason}. Its last error: {last}"


@contextmanager
def watching() -> Generator[Runs]:
    """Watches the runs inside a `with` block."""
    runs = Runs()
    begin, cancel = Orchestrator.__init__, CancellationRequested.__init__
    leave, main = InteractiveSessionController.stop, entrypoint.main

    def note_begin(self: Orchestrator, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        runs.begin(self)

    def note_cancel(self: CancellationRequested, *args: Any, **kwargs: Any) -> None:
        cancel(self, *args, **kwargs)
        runs.cancel()

    async def note_end(args: Any) -> None:
        try:
            await main(args)
        except (asyncio.CancelledError, KeyboardInterrupt):
            runs.interrupted = True
            raise

    def note_quit(self: InteractiveSessionController) -> None:
        runs.quit()
        leave(self)

    # Nothing else shows a run, a turn that was cancelled in a display, or Ctrl-C, which MassGen swallows.
    Orchestrator.__init__ = note_begin  # type: ignore[method-assign]
    CancellationRequested.__init__ = note_cancel  # type: ignore[method-assign]
    InteractiveSessionController.stop = note_quit  # type: ignore[method-assign]
    entrypoint.main = note_end
    try:
        yield runs
    finally:
        Orchestrator.__init__ = begin  # type: ignore[method-assign]
        CancellationRequested.__init__ = cancel  # type: ignore[method-assign]
        InteractiveSessionController.stop = leave  # type: ignore[method-assign]
        entrypoint.main = main
