"""MassGen's runs while its command line works: how the last one ended."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from massgen.cancellation import CancellationRequested
from massgen.cli import entrypoint
from massgen.orchestrator import Orchestrator

from vllmchat.adapters.massgen.backend import VLLMBackend

if TYPE_CHECKING:
    from collections.abc import Generator


class Runs:
    """The runs so far. MassGen creates an orchestrator for each question.

    Attributes:
        interrupted: Whether the user stopped the last run.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._last: Orchestrator | None = None
        self._stopping: asyncio.Task[None] | None = None

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

    def cancel(self) -> None:
        """Notes that the user stopped the last run, and ends its replies: MassGen leaves them open for seconds."""
        self.interrupted = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._stopping = loop.create_task(self._stop())

    async def _stop(self) -> None:
        agents = self._last.agents.values() if self._last is not None else ()
        for agent in agents:
            if isinstance(agent.backend, VLLMBackend):
                await agent.backend.interrupt()


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
    begin, cancel, main = Orchestrator.__init__, CancellationRequested.__init__, entrypoint.main

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

    # Nothing else shows a run, a turn that was cancelled in a display, or Ctrl-C, which MassGen swallows.
    Orchestrator.__init__ = note_begin  # type: ignore[method-assign]
    CancellationRequested.__init__ = note_cancel  # type: ignore[method-assign]
    entrypoint.main = note_end
    try:
        yield runs
    finally:
        Orchestrator.__init__ = begin  # type: ignore[method-assign]
        CancellationRequested.__init__ = cancel  # type: ignore[method-assign]
        entrypoint.main = main
