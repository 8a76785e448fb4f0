"""Runs MassGen's command line with our backend for `type: vllm`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vllmchat.adapters.massgen import installed

if TYPE_CHECKING:
    from collections.abc import Generator

    from massgen.orchestrator import Orchestrator


def main() -> None:
    """Runs the command line; all flags are MassGen's own.

    It exits like MassGen. If no agent produced an answer, which MassGen's exit code does not show, it exits with
    MassGen's code for a failed run.
    """
    try:
        for module in ("vllmchat.adapters.massgen.hook", "massgen.cli", "massgen.orchestrator"):
            installed.load(module)
    except ImportError as error:
        sys.exit(str(error))
    from massgen.cli import EXIT_EXECUTION_ERROR, cli_main

    from vllmchat.adapters.massgen.hook import install

    install()
    with _watching() as runs:
        cli_main()
    if runs and (failure := _failure(runs[-1])) is not None:
        print(failure, file=sys.stderr)  # noqa: T201 - output of a command line
        sys.exit(EXIT_EXECUTION_ERROR)


@contextmanager
def _watching() -> Generator[list[Orchestrator]]:
    """Collects MassGen's runs: it creates an orchestrator for each question."""
    from massgen.orchestrator import Orchestrator

    runs: list[Orchestrator] = []
    begin = Orchestrator.__init__

    def note(self: Orchestrator, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        runs.append(self)

    Orchestrator.__init__ = note  # type: ignore[method-assign]  # nothing else shows a run
    try:
        yield runs
    finally:
        Orchestrator.__init__ = begin  # type: ignore[method-assign]  # as above


def _failure(run: Orchestrator) -> str | None:
    """The message if no agent produced an answer; None if one did."""
    states = run.agent_states
    if any(state.answer for state in states.values()):
        return None
    lines = [f"  {agent}: {state.error_reason or 'no answer'}" for agent, state in states.items()]
    return "\n".join(["❌ No agent produced an answer.", *lines])
