"""Whole runs of MassGen: its own command line and its Python interface, with a real vLLM server."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread
from massgen.cli import EXIT_CONFIG_ERROR, EXIT_EXECUTION_ERROR

import massgen
from support.fake_vllm import FakeVLLM, plays_along, recorder, refusal
from support.scripted import ScriptedServer, refusing_origin
from vllmchat.adapters.massgen import VLLMBackend, install, uninstall
from vllmchat.adapters.massgen.launcher import main

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[3] / "examples" / "massgen"
SERVER = os.environ.get("VLLMCHAT_TEST_SERVER", "")
MODEL = os.environ.get("VLLMCHAT_TEST_MODEL", "")
QUESTION = "What is six times seven?"

pytestmark = pytest.mark.skipif(not SERVER, reason="VLLMCHAT_TEST_SERVER does not say where a real server is")


@pytest.fixture(autouse=True)
def not_installed() -> Iterator[None]:
    yield
    uninstall()


@pytest.fixture
def real() -> Iterator[ScriptedServer]:
    """The real server, with a record of its requests."""
    with recorder(SERVER) as server:
        yield server


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the launcher with a configuration; returns the exit code and the output."""

    def launch(config: str, *flags: str) -> tuple[int, str, str]:
        file = tmp_path / "agents.yaml"
        file.write_text(config, encoding="utf-8")
        arguments = ["--automation", "--no-session-registry", *flags, "--config", str(file), QUESTION]
        monkeypatch.setattr(sys, "argv", ["vllmchat-massgen", *arguments])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capfd.readouterr()
        return code, out, err

    return launch


def chats(server: ScriptedServer) -> list[dict[str, Any]]:
    """The bodies of the chat requests that a server received."""
    return [request.json() for request in server.requests if request.path.endswith("/chat/completions")]


def three_agents(base_url: str, **more: Any) -> str:
    """A configuration, as JSON, which is YAML too."""
    block = {"type": "vllm", "model": MODEL, "base_url": base_url, "temperature": 0, **more}
    return json.dumps({"agents": [{"id": name, "backend": block} for name in ("ada", "bob", "eve")]})


def test_the_guides_file_runs_as_written(
    run: Any, real: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The remote agents keep MassGen's own backend, which needs some key; stand-ins replace their servers.
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    written = (EXAMPLES / "three_agents_vllm.yaml").read_text(encoding="utf-8")
    with ScriptedServer() as remote:
        remote.always(plays_along)
        config = written
        for theirs, ours in (
            ("https://api.cerebras.ai/v1", remote.base_url),
            ("https://api.z.ai/api/paas/v4", remote.base_url),
            ("http://localhost:8000/v1", real.base_url),
            ("Qwen/Qwen3-4B", MODEL),
        ):
            assert config.count(theirs) == 1
            config = config.replace(theirs, ours)
        code, out, _ = run(config)
        remote_models = {body["model"] for body in chats(remote)}
        user_agents = {request.headers["user-agent"].partition("/")[0] for request in remote.requests}
    assert code == 0, out
    assert "WINNER: " in out
    assert "Six times seven is 42." in out
    assert remote_models == {"gpt-oss-120b", "glm-4.5"}
    assert user_agents == {"AsyncOpenAI"}
    asked = chats(real)
    assert asked
    assert {body["model"] for body in asked} == {MODEL}
    assert all(set(body) == {"messages", "model", "stream", "stream_options", "tools"} for body in asked)


def test_the_example_with_parameters_runs_as_written(run: Any) -> None:
    config = (EXAMPLES / "vllm_parameters.yaml").read_text(encoding="utf-8").replace("Qwen/Qwen3-4B", MODEL)
    # The tiny model reproduces its script only without repetition penalties and sampling.
    config = config.replace("repetition_penalty: 1.2", "repetition_penalty: 1.0\n      temperature: 0")
    config = config.replace("min_p: 0.05", "min_p: 0.05\n      temperature: 0")
    with recorder(SERVER, first=lambda body: "max_tokens" in body) as real:
        code, out, _ = run(config.replace("http://localhost:8000/v1", real.base_url))
        asked = chats(real)
    assert code == 0, out
    assert "WINNER: brief" in out
    assert out.count("[VOTE]") == 3
    sent = {
        json.dumps({name: body[name] for name in sorted(body) if name not in ("messages", "tools")})
        for body in asked
    }
    common = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    expected: list[dict[str, Any]] = [
        {"top_k": 50, "repetition_penalty": 1.0, "chat_template_kwargs": {"enable_thinking": True}},
        {"max_tokens": 2048, "chat_template_kwargs": {"enable_thinking": False}},
        {
            "min_p": 0.05,
            "seed": 7,
            "repetition_detection": {"max_pattern_size": 32, "min_pattern_size": 2, "min_count": 4},
        },
    ]
    assert sent == {json.dumps(dict(sorted({**common, **own}.items()))) for own in expected}


@pytest.mark.parametrize("flags", [(), ("--skip-validation",)])
def test_a_misspelled_key_stops_the_run_before_any_request(
    run: Any, real: ScriptedServer, flags: tuple[str, ...]
) -> None:
    config = three_agents(real.base_url, repitition_penalty=1.2)
    code, out, err = run(config, *flags)
    assert code == EXIT_CONFIG_ERROR
    place = "agents['ada'].backend" if flags else "agents[0].backend"
    assert f"{place}.repitition_penalty" in err
    assert err.count("Did you mean `repetition_penalty`?") == (1 if flags else 3)
    assert "WINNER" not in out
    assert real.requests == []


def test_a_wrong_key_ends_the_run_with_a_failure(run: Any) -> None:
    fake_vllm = FakeVLLM()
    fake_vllm.always(refusal(401, "Unauthorized"))
    with fake_vllm.server:
        code, _, err = run(three_agents(fake_vllm.base_url))
    assert code == EXIT_EXECUTION_ERROR
    assert "No agent produced an answer" in err
    for name in ("ada", "bob", "eve"):
        assert f"{name}: The vLLM server at {fake_vllm.base_url} rejected the API key" in err
    assert len(fake_vllm.chats) == 3


def test_an_unreachable_server_ends_the_run_with_a_failure(run: Any) -> None:
    with refusing_origin() as origin:
        url = f"{origin}/v1"
        code, _, err = run(three_agents(url))
    assert code == EXIT_EXECUTION_ERROR
    assert "No agent produced an answer" in err
    assert err.count(url) >= 3


def test_every_flag_is_massgens(run: Any) -> None:
    code, out, _ = run("", "--help")
    assert code == 0
    for flag in ("--config", "--automation", "--no-display", "--skip-validation"):
        assert flag in out


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["interrupt", "close"])
async def test_the_real_server_stops_generating(how: str) -> None:
    backend = VLLMBackend(model=MODEL, base_url=SERVER, temperature=0, ignore_eos=True, max_tokens=1900)
    chunks = backend.stream_with_tools([{"role": "user", "content": "Count from 1 to 100."}], [])
    for _ in range(10):
        await anext(chunks)
    assert await to_thread.run_sync(running_requests) == 1
    began = time.monotonic()
    if how == "interrupt":
        await backend.interrupt()
    else:
        await chunks.aclose()
    while await to_thread.run_sync(running_requests):
        assert time.monotonic() - began < 5
    assert time.monotonic() - began < 1, "far from the time that the rest of the reply takes"
    await chunks.aclose()


def running_requests() -> int:
    """How many requests the real server is working on."""
    with urllib.request.urlopen(SERVER.removesuffix("/v1") + "/metrics") as response:
        text = response.read().decode()
    return sum(
        int(float(count))
        for count in re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE)
    )


def test_nothing_of_the_price_list_is_printed(run: Any, real: ScriptedServer) -> None:
    code, out, err = run(three_agents(real.base_url))
    assert code == 0
    assert "litellm" not in out.lower()
    assert "Provider List" not in out
    assert "$0.00" not in out + err


async def run_in_python(config: dict[str, Any]) -> dict[str, Any]:
    """A run through MassGen's Python interface."""
    return await massgen.run(query=QUESTION, config_dict=config)


@pytest.mark.anyio
async def test_massgen_run_uses_it_after_install(real: ScriptedServer) -> None:
    install()
    result = await run_in_python(json.loads(three_agents(real.base_url, top_k=50)))
    assert result["final_answer"].strip() == "Six times seven is 42."
    assert result["selected_agent"] in ("ada", "bob", "eve")
    assert sum(result["vote_results"]["vote_counts"].values()) >= 1
    assert {body["top_k"] for body in chats(real)} == {50}
