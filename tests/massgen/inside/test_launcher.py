"""The launcher's exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import massgen.cli
import pytest
from massgen.cancellation import CancellationRequested
from massgen.cli import EXIT_EXECUTION_ERROR, EXIT_INTERRUPTED, entrypoint
from massgen.frontend.interactive_controller import InteractiveSessionController
from massgen.orchestrator import AgentState, Orchestrator

from support.fake_vllm import QUESTION, WORKFLOW, FakeVLLM, collected, events, kinds, says
from support.scripted import in_thread, never, stream
from vllmchat.adapters.massgen import VLLMBackend, uninstall
from vllmchat.adapters.massgen.launcher import main
from vllmchat.adapters.massgen.runs import watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


def test_the_last_error_of_an_agent_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fake_vllm: FakeVLLM
) -> None:
    backend = VLLMBackend(model="m", base_url=fake_vllm.base_url)
    fake_vllm.next(says(calls=[("new_answer", '{"content": "4')], finish="length"))
    asyncio.run(collected(backend.stream_with_tools(QUESTION, WORKFLOW, agent_id="ada")))
    agents: dict[str, Any] = {"ada": SimpleNamespace(backend=backend), "bob": SimpleNamespace(backend=None)}

    def cli_main() -> None:
        run = Orchestrator(agents={})
        run.agents = agents
        run.agent_states = {
            "ada": state(None, "No workflow tools after 3 attempts"),
            "bob": state(None, "It refused the key."),
        }

    monkeypatch.setattr(massgen.cli, "cli_main", cli_main)
    with pytest.raises(SystemExit):
        main()
    lines = capfd.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("  ada: ")]
    assert line.startswith(
        "  ada: No workflow tools after 3 attempts. Its last error: The call of tool 'new_answer'"
    )
    assert "raise max_tokens" in line
    assert "  bob: It refused the key." in lines


def interrupted(monkeypatch: pytest.MonkeyPatch, how: Callable[[], object]) -> int | str | None:
    """The exit code of a run that ends so."""
    monkeypatch.setattr(massgen.cli, "cli_main", how)
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_ctrl_c_in_a_run_gives_massgens_exit_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def run(args: object) -> None:
        Orchestrator(agents={}).agent_states = {"ada": state(None)}
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    def cli_main() -> None:  # As MassGen's: it swallows Ctrl-C.
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(entrypoint.main(None))

    monkeypatch.setattr(entrypoint, "main", run)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job ignores the signal.
    try:
        assert interrupted(monkeypatch, cli_main) == EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err == ""


def test_a_cancelled_turn_gives_massgens_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def cli_main() -> None:  # As MassGen's displays: they stop the turn and end normally.
        Orchestrator(agents={}).agent_states = {"ada": state("42")}
        with contextlib.suppress(CancellationRequested):
            raise CancellationRequested

    assert interrupted(monkeypatch, cli_main) == EXIT_INTERRUPTED


def test_ctrl_c_outside_a_run_gives_massgens_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def cli_main() -> None:
        raise KeyboardInterrupt

    assert interrupted(monkeypatch, cli_main) == EXIT_INTERRUPTED


def test_a_run_after_a_cancelled_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def cli_main() -> None:
        with contextlib.suppress(CancellationRequested):
            raise CancellationRequested
        Orchestrator(agents={}).agent_states = {"ada": state("42")}

    monkeypatch.setattr(massgen.cli, "cli_main", cli_main)
    main()


def leave_the_display() -> None:
    """As the Textual display does when the user leaves it, in a thread of its own."""
    controller = object.__new__(InteractiveSessionController)
    controller._question_source = SimpleNamespace(close=lambda: None)
    controller.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["cancel", "leave"])
async def test_a_turn_that_is_stopped_ends_its_replies_at_once(fake_vllm: FakeVLLM, how: str) -> None:
    backend = VLLMBackend(model="m", base_url=fake_vllm.base_url)
    fake_vllm.always(stream([*events(text="Once", finish=""), never]))
    with watching() as runs:
        run = Orchestrator(agents={})
        run.agents = {"ada": SimpleNamespace(backend=backend)}
        chunks = backend.stream_with_tools(QUESTION, [], agent_id="ada")
        await anext(chunks)
        assert not runs.interrupted
        if how == "cancel":
            CancellationRequested()
        else:
            await in_thread(leave_the_display)
        assert runs.interrupted
        assert await in_thread(
            lambda: fake_vllm.server.wait_for(lambda: fake_vllm.server.open_connections == 0)
        )
    assert kinds(await collected(chunks)) == ["error"]
    # After a cancelled turn, the user may ask again; after leaving, MassGen must not retry.
    first = await anext(backend.stream_with_tools(QUESTION, [], agent_id="ada"))
    assert (first.type, first.status) == (("content", None) if how == "cancel" else ("error", "fatal"))
    assert len(fake_vllm.chats) == (2 if how == "cancel" else 1)


def test_leaving_the_display_after_the_run_is_no_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def cli_main() -> None:
        Orchestrator(agents={}).agent_states = {"ada": state("42")}
        leave_the_display()

    monkeypatch.setattr(massgen.cli, "cli_main", cli_main)
    main()


def test_massgen_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    def watched() -> list[object]:
        return [
            vars(Orchestrator)["__init__"],
            vars(CancellationRequested)["__init__"],
            vars(InteractiveSessionController)["stop"],
            entrypoint.main,
        ]

    before = watched()
    ends(monkeypatch)
    main()
    assert watched() == before
