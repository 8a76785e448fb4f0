"""`vllmchat map`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from support.terminal import ESCAPE, rest, terminal
from vllmchat.cli.progress import Reporter, drawn, line, reporting
from vllmchat.jobs.result import JobProgress, duration
from vllmchat.testing import FakeServer, error, slow, stall

if TYPE_CHECKING:
    from pathlib import Path

    from support.command import CommandLine
    from vllmchat.testing import Call


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in.txt"
    path.write_text("one\ntwo\nthree\n", encoding="utf-8")
    return path


def texts(path: Path) -> dict[str, str | None]:
    rows: list[Any] = [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]
    return {
        row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"]
        if row["response"]
        else None
        for row in rows
    }


def test_each_line_is_sent(vllmchat: CommandLine, server: FakeServer, prompts: Path) -> None:
    done = vllmchat(
        "map", "in.txt", "out.jsonl", "--prompt", "Say {text}", "--temperature", "0", "--in-flight", "2"
    )
    assert (done.code, done.out) == (0, "")
    assert sorted(texts(prompts.parent / "out.jsonl").values(), key=str) == [
        *("You said: Say one", "You said: Say three", "You said: Say two")
    ]
    assert done.err.startswith("vllmchat: 3 done in ")
    assert "prompt tokens/s" in done.err
    assert {call.params["temperature"] for call in server.calls} == {0}
    again = vllmchat("map", "in.txt", "out.jsonl", "--prompt", "Say {text}", "--temperature", "0")
    assert again.code == 0
    assert "3 were done before." in again.err
    assert len(server.calls) == 3


def test_inputs_that_begin_alike_are_sent_together(
    vllmchat: CommandLine, server: FakeServer, prompts: Path
) -> None:
    long = "x" * 2_000
    rows = [f"{long} {number}" if number % 2 else f"{number} {long}" for number in range(20)]
    prompts.write_text("\n".join(rows), encoding="utf-8")
    assert vllmchat("map", "in.txt", "out.jsonl", "--order", "prefix", "--in-flight", "1").code == 0
    alike = [call.text.startswith("x") for call in server.calls]
    assert alike != [bool(number % 2) for number in range(20)]
    assert len(server.calls) == 20


def test_other_routes(vllmchat: CommandLine, server: FakeServer, prompts: Path) -> None:
    (prompts.parent / "in.jsonl").write_text('{"id": "a", "input": "Hello"}\n', encoding="utf-8")
    done = vllmchat("map", "in.jsonl", "out.jsonl", "--route", "/v1/embeddings")
    assert done.code == 0, done.err
    assert server.requests[-1].path == "/v1/embeddings"
    code, _, err = vllmchat("map", "in.jsonl", "out2.jsonl", "--route", "/v1/nothing")
    assert code in (1, 2)
    assert "/v1/nothing" in err


def test_other_parameters_are_refused_with_the_option(
    vllmchat: CommandLine, server: FakeServer, prompts: Path
) -> None:
    assert vllmchat("map", "in.txt", "out.jsonl").code == 0
    code, _, err = vllmchat("map", "in.txt", "out.jsonl", "--temperature", "0")
    assert code == 2
    assert "out.jsonl has results for other parameters." in err
    assert "--force" in err
    assert "force=True" not in err
    assert vllmchat("map", "in.txt", "out.jsonl", "--temperature", "0", "--force").code == 0


def test_a_wrong_parameter_is_found_before_anything_is_read(
    vllmchat: CommandLine, server: FakeServer, prompts: Path
) -> None:
    code, _, err = vllmchat("map", "in.txt", "out.jsonl", "--temperature", "5")
    assert code == 2
    assert "--temperature 5.0: must be between 0 and 2." in err
    assert not (prompts.parent / "out.jsonl").exists()
    code, _, err = vllmchat("map", "in.txt", "out.jsonl", "--in-flight", "0")
    assert code == 2
    assert '--in-flight 0: must be "auto" or a positive integer.' in err


def test_an_input_that_is_missing_is_named(vllmchat: CommandLine, server: FakeServer, prompts: Path) -> None:
    code, _, err = vllmchat("map", "none.txt", "out.jsonl")
    assert code == 1
    assert err == "vllmchat: error: none.txt: No such file or directory\n"


def answer(call: Call) -> Any:
    return error(400, "too hard") if call.text == "two" else "fine"


def test_failures_are_counted_by_kind(vllmchat: CommandLine, prompts: Path) -> None:
    with FakeServer(answer) as server:
        job = ("map", "in.txt", "out.jsonl", "--url", server.base_url, "--retries", "0")
        code, _, err = vllmchat(*job)
        assert code == 1
        assert "1 failed. Their errors are in out.jsonl; --retry-failed sends them again." in err
        assert "      1  BadRequestError: 400: too hard\n" in err
        assert vllmchat(*job, "--retry-failed").code == 1
        assert [call.text for call in server.calls].count("two") == 2


def test_the_summary_shows_one_line_of_an_error(vllmchat: CommandLine, prompts: Path) -> None:
    with FakeServer(lambda call: error(400, "x" * 300 + "\nmore")) as server:
        _, _, err = vllmchat("map", "in.txt", "out.jsonl", "--url", server.base_url)
    assert err.endswith(f"BadRequestError: 400: {'x' * 195}…\n")


def test_a_wrong_route_and_width_name_their_options(vllmchat: CommandLine, prompts: Path) -> None:
    code, _, err = vllmchat("map", "in.txt", "out.jsonl", "--route", "/v1/chat")
    assert (code, err.partition(": must")[0]) == (2, "vllmchat: error: --route '/v1/chat'")
    code, _, err = vllmchat("map", "in.txt", "out.jsonl", "--in-flight", "many")
    assert code == 2
    assert err.startswith("vllmchat: error: --in-flight: 'many' is neither auto nor an integer.\n")


def test_pipes(vllmchat: CommandLine, server: FakeServer, prompts: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vllmchat", "map", "-", "-", "--format", "text"],
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len([json.loads(row) for row in done.stdout.splitlines()]) == 2


def test_a_server_that_is_down_stops_the_job_and_it_says_how_to_go_on(
    vllmchat: CommandLine, prompts: Path
) -> None:
    code, _, err = vllmchat("map", "in.txt", "out.jsonl", "--url", "http://127.0.0.1:9", "--wait", "0")
    assert code == 1
    assert "The job stopped after 0 of 3 inputs" in err
    assert err.endswith("Run the same command again to go on.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_wrong_key_is_explained_with_the_option(
    vllmchat: CommandLine, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sk-other")
    with FakeServer("Hi", api_key="sk-secret") as server:
        done = vllmchat("map", "in.txt", "out.jsonl", "--url", server.base_url)
    assert done.code == 1
    assert "check --api-key-file or" in done.err


def test_ctrl_c_keeps_what_is_done(prompts: Path) -> None:
    def answer(call: Call) -> Any:
        return "fine" if call.text == "one" else slow("late", before=60)

    output = prompts.parent / "out.jsonl"
    with FakeServer(answer) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllmchat", "map", "in.txt", "out.jsonl", "--in-flight", "3"],
            env={**os.environ, "VLLM_BASE_URL": server.base_url},
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (output.exists() and output.read_text(encoding="utf-8")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        server.wait_abandoned(2)
    assert process.returncode == 130
    assert list(texts(output).values()) == ["fine"]
    assert "vllmchat: stopped: " in err
    assert "Run the same command again to go on." in err
    assert "Traceback" not in err


STATE = JobProgress(
    done=50,
    failed=2,
    total=100,
    in_flight=8,
    width=8,
    seconds=10.0,
    prompt_tokens=4_000,
    completion_tokens=1_000,
    cached_tokens=1_000,
)


def test_a_line_has_all_figures() -> None:
    assert line(STATE) == (
        "50 of 100 done, 2 failed, 10 s left, 5.0/s, 400 prompt tokens/s, 100 completion tokens/s, "
        "25% of the prompts cached, 8 in flight"
    )


def test_without_a_terminal_there_is_a_line_each_ten_seconds_and_when_the_server_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with reporting() as report:
        assert isinstance(report, Reporter)
        for seconds, waiting_for in (
            (1.0, None),
            (9.0, None),
            (10.1, None),
            (11, "refused \x1b[1m"),
            (12, None),
        ):
            report(JobProgress(done=1, seconds=seconds, waiting_for=waiting_for))
        report(JobProgress(done=3, seconds=13, ended=True))
    lines = capsys.readouterr().err.splitlines()
    assert [each.partition(", ")[2].partition(",")[0] for each in lines] == [
        *("0.1/s", "waiting for the server: refused ␛[1m", "0.1/s")
    ]
    assert report.last.ended


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (125, "2 min 05 s"), (3_660, "1 h 01 min")])
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_terminal_shows_a_bar_and_two_lines() -> None:
    console = Console(width=80, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(drawn(STATE))
        console.print(drawn(JobProgress(done=5, seconds=1, waiting_for="[bold]refused[/bold] \x1b[5m")))
    lines = [line.rstrip() for line in ESCAPE.sub("", capture.get()).splitlines()]
    assert re.fullmatch(r"━+ +50 of 100 done, 2 failed, 10 s left", lines[0])
    assert lines[1].startswith("5.0/s, 400 prompt tokens/s")
    assert re.fullmatch(r"━+ 5 done", lines[2])
    assert lines[3] == "waiting for the server: [bold]refused[/bold] ␛[5m"


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of another kind")
def test_json_does_not_drive_the_terminal(prompts: Path) -> None:
    evil = "\x1b[2J\x9b2J\x7f"
    with FakeServer(lambda call: evil) as server:
        for command in (["map", "in.txt", "-"], ["ask", "Hi", "--json"]):
            with terminal(*command, "--url", server.base_url, home=prompts.parent) as child:
                shown = rest(child)
            assert r"\u001b[2J\u009b2J\u007f" in shown
            assert not re.search(r"[\x7f-\x9f]", shown)


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of another kind")
def test_ctrl_c_in_a_terminal(prompts: Path) -> None:
    with (
        FakeServer(lambda call: "fine" if call.text == "one" else stall()) as server,
        terminal(
            "map", "in.txt", "out.jsonl", "--url", server.base_url, home=prompts.parent, columns=80
        ) as child,
    ):
        child.expect_exact("1 of 3 done")
        child.sendintr()
        text = rest(child)
        assert child.exitstatus == 130
        assert "Traceback" not in text
        assert "vllmchat: stopped: 1 done, 0 of them failed." in text
        assert "Run the same command again to go on." in text
        assert server.wait_abandoned(2)


def test_a_prompt_without_a_field_is_a_warning(
    vllmchat: CommandLine, server: FakeServer, prompts: Path
) -> None:
    code, _, err = vllmchat("map", "in.txt", "out.jsonl", "--prompt", "Translate")
    assert code == 0
    assert err.startswith("vllmchat: warning: --prompt 'Translate': has no field")
