"""The command line with a real server."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.command import CommandLine

if sys.platform == "win32":
    pytest.skip("terminals of another kind", allow_module_level=True)

from support.terminal import rest, terminal

if TYPE_CHECKING:
    from pathlib import Path

    from support.vllm import LiveServer

CAPITAL = "What is the capital of France?"


@pytest.fixture
def vllmchat(vllm_server: LiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CommandLine:
    """Runs the command line, with the real server in the environment."""
    monkeypatch.setenv("VLLM_BASE_URL", vllm_server.base_url)
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch)


def test_ask(vllmchat: CommandLine) -> None:
    assert vllmchat("ask", CAPITAL, "--temperature", "0") == (0, "The capital of France is Paris.\n", "")
    done = vllmchat("ask", "--temperature", "0", "--reasoning", stdin=CAPITAL)
    assert done.out == "The capital of France is Paris.\n"
    assert "That is Paris." in done.err


def test_ask_for_json(vllmchat: CommandLine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    done = vllmchat(
        *("ask", "Write JSON for a user named Ada, age 36.", "--schema", json.dumps(schema)),
        *("--temperature", "0", "--no-enable-thinking"),
    )
    assert (done.code, json.loads(done.out)) == (0, {"name": "Ada", "age": 36})


def test_ask_too_much(vllmchat: CommandLine) -> None:
    code, out, err = vllmchat("ask", "word " * 5_000)
    assert (code, out) == (1, "")
    assert "context" in err
    assert len(err) < 1_000


def test_models(vllmchat: CommandLine, vllm_server: LiveServer) -> None:
    code, out, err = vllmchat("models")
    assert (code, err) == (0, "")
    assert re.search(rf"^{re.escape(vllm_server.model)} +2,048  ", out, re.MULTILINE)


def test_map(vllmchat: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("country\nFrance\nItaly\n", encoding="utf-8")
    job = (
        "map",
        "in.csv",
        "out.jsonl",
        "--prompt",
        "What is the capital of {country}?",
        "--temperature",
        "0",
    )
    code, out, err = vllmchat(*job)
    assert (code, out) == (0, "")
    assert err.startswith("vllmchat: 2 done in ")
    rows: list[Any] = [json.loads(row) for row in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    texts = [row["response"]["body"]["choices"][0]["message"]["content"].strip() for row in rows]
    assert "The capital of France is Paris." in texts
    assert "2 were done before." in vllmchat(*job).err


def test_check(vllmchat: CommandLine, vllm_server: LiveServer) -> None:
    done = vllmchat("check", "--json")
    findings = {each["what"]: each["status"] for each in json.loads(done.out)["findings"]}
    assert done.code == 0, done.out
    assert {
        findings[what] for what in ("chat", "streaming", "reasoning", "tools", "structured", "metrics")
    } == {"ok"}


def test_check_of_a_server_with_a_key(vllmchat: CommandLine, keyed_server: LiveServer) -> None:
    code, out, err = vllmchat("check", "--url", keyed_server.url)
    assert (code, err) == (1, "")
    assert re.search(r"^problem  key +the server asks for a key \(HTTP 401\)$", out, re.MULTILINE)


def test_check_of_a_server_that_embeds(vllmchat: CommandLine, pooling_server: LiveServer) -> None:
    code, out, err = vllmchat("check", "--url", pooling_server.url)
    assert (code, err) == (0, ""), out
    assert re.search(r"^warning  chat ", out, re.MULTILINE)


def test_top(vllmchat: CommandLine) -> None:
    code, out, err = vllmchat("top", "--once", "--interval", "0.1", "--json")
    assert (code, err) == (0, "")
    [load] = json.loads(out)["servers"]
    assert load["down"] is None
    assert None not in [value for name, value in load.items() if name != "down"]


def test_a_conversation_in_a_terminal(vllmchat: CommandLine, tmp_path: Path) -> None:
    with terminal(
        "chat", "--temperature", "0", "--model", "tiny-qwen3", home=tmp_path, NO_COLOR="1"
    ) as child:
        child.expect("> ")
        child.sendline(CAPITAL)
        child.expect_exact("That is Paris.")  # the reasoning
        child.expect_exact("The capital of France is Paris.\r\n")
        child.sendline("/reset")
        child.sendline("Count from 1 to 100.")
        child.expect_exact("1, 2, 3")
        child.sendintr()
        child.expect("> ")
        child.sendline("/exit")
        assert "Traceback" not in rest(child)
        assert child.exitstatus == 0
