"""`vllmchat-massgen enable`: stock `massgen` and the processes that it starts use the backend."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from massgen_env import SOURCE, environment
from support.fake_vllm import FakeVLLM, plays_along, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

UV = '#!/bin/sh\n[ "$1" = run ] && shift\nexec "$@"\n'
"""What MassGen needs of `uv`: `uv run massgen` runs the environment's `massgen`."""


class Run(Protocol):
    """Runs a command of the environment to its end."""

    def __call__(self, *command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="module")
def folder(massgen_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that sees MassGen's packages and this clone, so that the shared one stays as it is."""
    made = tmp_path_factory.mktemp("environment")
    subprocess.run([str(massgen_python), "-m", "venv", "--without-pip", str(made)], check=True)
    packages, own = (
        subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for python in (massgen_python, made / "bin" / "python")
    )
    Path(own, "packages.pth").write_text(
        f"import site; site.addsitedir({packages!r})\n{SOURCE}\n", encoding="utf-8"
    )
    scripts = {
        "massgen": f"#!{made}/bin/python\nfrom massgen.cli import cli_main\ncli_main()\n",
        "vllmchat-massgen": f"#!{made}/bin/python\nfrom vllmchat.adapters.massgen.launcher import main\nmain()\n",
        "uv": UV,
    }
    for name, text in scripts.items():
        script = made / "bin" / name
        script.write_text(text, encoding="utf-8")
        script.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("home")

    def start(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        base = environment({"HOME": str(home), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"})
        del base["PYTHONPATH"]
        return subprocess.run(
            [str(folder / "bin" / command[0]), *command[1:]],
            cwd=cwd,
            env={**base, "PYTHONWARNINGS": "ignore", **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return start


@pytest.fixture
def enabled(run: Run, folder: Path, tmp_path: Path) -> Iterator[None]:
    """The backend is enabled during the test; afterwards the environment is as before."""

    def files() -> set[str]:
        return {str(file) for file in folder.rglob("*") if "__pycache__" not in file.parts}

    before = files()
    assert run("vllmchat-massgen", "enable", cwd=tmp_path).returncode == 0
    assert len(files() - before) == 1
    yield
    assert run("vllmchat-massgen", "disable", cwd=tmp_path).returncode == 0
    assert files() == before


WHICH = "from massgen.cli import create_backend; print(type(create_backend('vllm', model='m')).__module__)"


def test_without_it_massgen_uses_its_own(run: Run, tmp_path: Path) -> None:
    done = run("python", "-c", WHICH, cwd=tmp_path)
    assert done.stdout.splitlines()[-1:] == ["massgen.backend.inference"], done.stderr


@pytest.mark.usefixtures("enabled")
def test_the_stock_command_uses_the_backend_and_its_exit_codes(run: Run, tmp_path: Path) -> None:
    fake_vllm = FakeVLLM()
    fake_vllm.always(refusal(401, "Unauthorized"))
    with fake_vllm.server:
        block = {"type": "vllm", "model": "m", "base_url": fake_vllm.base_url, "enable_thinking": True}
        config = {"agents": [{"id": name, "backend": block} for name in ("ada", "bob")]}
        (tmp_path / "agents.yaml").write_text(json.dumps(config), encoding="utf-8")
        words = [
            "--automation",
            "--no-session-registry",
            "--config",
            "agents.yaml",
            "What is six times seven?",
        ]
        done = run("massgen", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("No agent produced an answer") == 1
    assert len(fake_vllm.chats) == 2
    assert fake_vllm.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}


SUBAGENT = """
import asyncio, json, sys
from massgen.subagent.manager import SubagentManager

block = json.loads(sys.argv[1])
manager = SubagentManager(
    parent_workspace="workspace", parent_agent_id="ada", orchestrator_id="o",
    parent_agent_configs=[{"id": "ada", "backend": block}], subagent_runtime_mode="inherited",
)
result = asyncio.run(manager.spawn_subagent("What is six times seven?", subagent_id="s1", refine=False))
print("RESULT", json.dumps({"success": result.success, "answer": result.answer, "error": result.error}))
"""


def subagent(run: Run, cwd: Path, fake_vllm: FakeVLLM) -> dict[str, object]:
    """What MassGen reports of a subagent, which is a process of its own."""
    workspace = cwd / "workspace"
    workspace.mkdir()
    (workspace / "CONTEXT.md").write_text("A test.", encoding="utf-8")
    block = {
        "type": "vllm",
        "model": "m",
        "base_url": fake_vllm.base_url,
        "enable_thinking": True,
        "min_p": 0.1,
    }
    with fake_vllm.server:
        done = run("python", "-c", SUBAGENT, json.dumps(block), cwd=cwd, VLLM_API_KEY="in-the-environment")
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout + done.stderr
    found: dict[str, object] = json.loads(lines[0].removeprefix("RESULT "))
    return found


@pytest.mark.usefixtures("enabled")
def test_a_subagent_uses_the_backend(run: Run, tmp_path: Path) -> None:
    fake_vllm = FakeVLLM()
    fake_vllm.always(plays_along)
    result = subagent(run, tmp_path, fake_vllm)
    assert result["success"], result
    assert result["answer"] == "Six times seven is 42."
    body = fake_vllm.bodies[0]
    assert (body["chat_template_kwargs"], body["min_p"]) == ({"enable_thinking": True}, 0.1)
    keys = {request.headers["authorization"] for request in fake_vllm.chats}
    assert keys == {"Bearer in-the-environment"}


@pytest.mark.usefixtures("enabled")
def test_a_subagent_that_fails_is_a_failure(run: Run, tmp_path: Path) -> None:
    fake_vllm = FakeVLLM()
    fake_vllm.always(refusal(401, "Unauthorized"))
    result = subagent(run, tmp_path, fake_vllm)
    assert not result["success"]
    assert "rejected the API key" in str(result["error"])
