"""`python -m vllmchat.adapters.massgen` as a user starts it: three agents, a real server, a winner."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from massgen_env import environment
from support.fake_vllm import FakeVLLM, events, recorder
from support.scripted import never, stream

if TYPE_CHECKING:
    from support.fake_vllm import RunPython
    from support.vllm import LiveServer

AGENTS = ("ada", "bob", "eve")


def test_three_agents_find_a_winner(
    run_massgen_python: RunPython, vllm_server: LiveServer, tmp_path: Path
) -> None:
    with recorder(vllm_server.base_url, first=lambda body: body.get("top_k") == 50) as server:
        block = {"type": "vllm", "model": vllm_server.model, "base_url": server.base_url, "temperature": 0}
        parameters: dict[str, dict[str, Any]] = {
            "ada": {"top_k": 50, "repetition_penalty": 1.0, "enable_thinking": True},
            "bob": {"min_p": 0.1, "structured_outputs": None, "enable_thinking": False},
            "eve": {"seed": 7, "stop_token_ids": [1], "bad_words": ["zebra"], "extra_body": {"x_mine": 1}},
        }
        config = {"agents": [{"id": name, "backend": {**block, **parameters[name]}} for name in AGENTS]}
        (tmp_path / "agents.yaml").write_text(json.dumps(config), encoding="utf-8")
        done = run_massgen_python(
            *("-m", "vllmchat.adapters.massgen", "--automation", "--no-session-registry"),
            *("--config", "agents.yaml", "What is six times seven?"),
            cwd=tmp_path,
        )
        bodies = [request.json() for request in server.requests if request.path == "/v1/chat/completions"]
        others = {(request.method, request.path) for request in server.requests} - {
            ("POST", "/v1/chat/completions")
        }
    assert done.returncode == 0, done.stdout + done.stderr

    assert re.findall(r"^WINNER: (.*)$", done.stdout, re.MULTILINE) == ["ada"], done.stdout
    assert done.stdout.count("[VOTE]") == 3
    (answer,) = re.findall(r"^ANSWER: (.*)$", done.stdout, re.MULTILINE)
    assert Path(answer).read_text(encoding="utf-8").strip() == "Six times seven is 42."
    (status_file,) = re.findall(r"^STATUS: (.*)$", done.stdout, re.MULTILINE)
    status = json.loads(Path(status_file).read_text(encoding="utf-8"))
    assert all(status["agents"][name]["vote_cast"] for name in AGENTS)
    assert all(status["agents"][name]["answer_count"] == 1 for name in AGENTS)
    usage = [status["agents"][name]["token_usage"] for name in AGENTS]
    assert all(each["input_tokens"] > 0 and each["output_tokens"] > 0 for each in usage)
    assert usage[AGENTS.index("ada")]["reasoning_tokens"] > 0
    assert all(
        each["context_window_size"] == 2048
        for name in AGENTS
        for each in status["agents"][name]["round_history"]
    )

    # Three answers, three votes, the presentation; an agent may be asked again if an answer arrived in the meantime.
    assert len(bodies) >= 7
    # `bad_words` is younger than the oldest vLLM, so the server is asked for its version.
    assert others == {("GET", "/v1/models"), ("GET", "/version")}
    of_ada = {"top_k": 50, "repetition_penalty": 1.0, "chat_template_kwargs": {"enable_thinking": True}}
    of_bob = {"min_p": 0.1, "chat_template_kwargs": {"enable_thinking": False}}
    of_eve = {"seed": 7, "stop_token_ids": [1], "bad_words": ["zebra"], "x_mine": 1}
    common = {
        "model": vllm_server.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }
    sent = [{name: body[name] for name in body if name not in ("messages", "tools")} for body in bodies]
    for expected in (of_ada, of_bob, of_eve):
        assert {**common, **expected} in sent
    assert all(each in [{**common, **own} for own in (of_ada, of_bob, of_eve)] for each in sent)


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job ignores it.
from vllmchat.adapters.massgen.launcher import main
main()
"""


@pytest.mark.parametrize("display", ["--no-display", "--automation"])
def test_ctrl_c_ends_a_run_without_a_traceback(massgen_python: Path, tmp_path: Path, display: str) -> None:
    fake_vllm = FakeVLLM()
    fake_vllm.always(stream([*events(text="Once upon a time", finish=""), never]))
    with fake_vllm.server as server:
        block = {"type": "vllm", "model": "m", "base_url": fake_vllm.base_url}
        config = {"agents": [{"id": name, "backend": block} for name in AGENTS]}
        (tmp_path / "agents.yaml").write_text(json.dumps(config), encoding="utf-8")
        words = [display, "--no-session-registry", "--config", "agents.yaml", "What is six times seven?"]
        with subprocess.Popen(
            [str(massgen_python), "-W", "ignore", "-c", INTERRUPTIBLE, *words],
            cwd=tmp_path,
            env={**environment({"PATH": os.environ["PATH"]}), "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert server.wait_for(lambda: len(fake_vllm.chats) == len(AGENTS), timeout=180)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    for word in ("Traceback", "aclose", "No agent produced an answer"):
        assert word not in err


def test_the_stubs_agree_with_the_installed_massgen(run_massgen_python: RunPython) -> None:
    typings = Path(__file__).parents[2] / "typings"
    done = run_massgen_python(
        *("-m", "mypy.stubtest", "--concise", "--ignore-missing-stub"),
        *("--allowlist", str(typings / "massgen" / "stubtest-allowlist.txt"), "massgen"),
        env={"MYPYPATH": str(typings)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
