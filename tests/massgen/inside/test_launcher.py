"""The launcher's exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import massgen.cli
import pytest
from massgen.cli import EXIT_EXECUTION_ERROR
from massgen.orchestrator import AgentState, Orchestrator

from vllmchat.adapters.massgen import uninstall
from vllmchat.adapters.massgen.launcher import main

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def not_installed() -> Iterator[None]:
    yield
    uninstall()


def state(answer: str | None, trouble: str | None = None) -> AgentState:
    made = AgentState()
    made.answer, made.error_reason = answer, trouble
    return made


def ends(monkeypatch: pytest.MonkeyPatch, *runs: dict[str, AgentState]) -> None:
    """Makes MassGen's command line produce these runs."""

    def cli_main() -> None:
        for states in runs:
            Orchestrator(agents={}).agent_states = states

    monkeypatch.setattr(massgen.cli, "cli_main", cli_main)


def test_a_run_with_an_answer_is_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch, {"ada": state("42"), "bob": state(None, "refused")})
    main()


def test_a_run_without_an_answer_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ends(monkeypatch, {"ada": state(None, "It refused the key."), "bob": state(None)})
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == EXIT_EXECUTION_ERROR
    err = capfd.readouterr().err
    assert "No agent produced an answer" in err
    assert "ada: It refused the key." in err
    assert "bob: no answer" in err


def test_the_last_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch, {"ada": state(None)}, {"ada": state("42")})
    main()


def test_a_command_without_a_run_is_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch)
    main()


def test_massgen_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = vars(Orchestrator)["__init__"]
    ends(monkeypatch)
    main()
    assert vars(Orchestrator)["__init__"] is before
