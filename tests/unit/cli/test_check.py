"""`vllmchat check`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from vllmchat.cli.examine import judge_stream
from vllmchat.cli.parsers import REASONING_PARSERS, TOOL_PARSERS, has_call, has_reasoning, parser_for
from vllmchat.testing import FakeServer, error, reply, tool_call
from vllmchat.testing.exchange import Response
from vllmchat.testing.model import NEWEST
from vllmchat.versions import TESTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.command import CommandLine
    from support.scripted import ScriptedServer
    from vllmchat.testing import Call


def good(call: Call) -> Any:
    """A server on which everything works."""
    if call.tool_names:
        return tool_call("get_weather", {"city": "Paris"})
    if "sky" in call.text:
        return "no"
    return reply("51", reasoning="17 times 3 is 51.") if "17" in call.text else "Hello!"


def statuses(
    vllmchat: CommandLine, url: str, *arguments: str
) -> tuple[int, Mapping[str, tuple[str, str, str]]]:
    """The exit code, and by what was looked at: status, text, advice."""
    done = vllmchat("check", "--url", url, "--json", *arguments)
    assert done.err == ""
    report: dict[str, Any] = json.loads(done.out)
    assert report["ok"] == (done.code == 0)
    return done.code, {
        each["what"]: (each["status"], each["text"], each["advice"]) for each in report["findings"]
    }


def test_a_server_on_which_all_is_well(vllmchat: CommandLine) -> None:
    with FakeServer(good) as server:
        code, out, err = vllmchat("check", "--url", server.base_url)
        assert (code, err) == (0, "")
        lines = [re.split(r"\s+", line, maxsplit=2) for line in out.splitlines() if line]
        assert {line[0] for line in lines[:-1]} == {"ok"}
        assert [line[1] for line in lines[:-1]] == [
            *(
                "reachable",
                "TLS",
                "key",
                "version",
                "health",
                "models",
                "context",
                "LoRA",
                "chat",
                "streaming",
            ),
            *("reasoning", "tools", "structured", "tokenizer", "metrics"),
        ]
        assert out.endswith("\nAll is well.\n")
        assert "32,768 tokens" in out
        assert f"vLLM {NEWEST}" in out


def test_the_newest_version_is_the_one_that_doubles_report() -> None:
    assert ".".join(map(str, TESTED)) == NEWEST


def test_a_server_that_is_down_is_one_problem(vllmchat: CommandLine) -> None:
    code, found = statuses(vllmchat, "http://127.0.0.1:9")
    assert code == 1
    assert list(found) == ["reachable"]
    status, text, advice = found["reachable"]
    assert status == "problem"
    assert text == "no connection to http://127.0.0.1:9/v1/models: [Errno 111] Connection refused"
    assert "vllm serve MODEL --port 9" in advice


def test_a_proxy_that_catches_localhost(vllmchat: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy.example:3128")
    code, found = statuses(vllmchat, "http://localhost:8000")
    assert code == 1
    assert found == {
        "proxy": (
            "problem",
            "requests to this machine go through the proxy http://proxy.example:3128 (from HTTP_PROXY)",
            "export NO_PROXY=localhost,127.0.0.1",
        )
    }
    monkeypatch.setenv("HTTP_PROXY", "nonsense://")
    code, out, err = vllmchat("check")
    assert (code, out) == (2, "")
    assert "the proxy in the environment" in err


@pytest.mark.parametrize(("key", "text"), [(None, "asks for a key"), ("sk-wrong", "does not accept the key")])
def test_a_key_that_is_missing_or_wrong(
    vllmchat: CommandLine, monkeypatch: pytest.MonkeyPatch, key: str | None, text: str
) -> None:
    if key:
        monkeypatch.setenv("VLLM_API_KEY", key)
    with FakeServer(good, api_key="sk-right") as server:
        code, found = statuses(vllmchat, server.base_url)
        assert code == 1
        assert [what for what, (status, *_) in found.items() if status == "problem"] == ["key"]
        assert text in found["key"][1]
        assert found["version"][0] == found["health"][0] == "ok", "these need no key"
        assert server.calls == []
        monkeypatch.setenv("VLLM_API_KEY", "sk-right")
        code, found = statuses(vllmchat, server.base_url)
        assert (code, found["key"][:2]) == (0, ("ok", "accepted"))


def test_a_key_that_nobody_asks_for(vllmchat: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sk-right")
    with FakeServer(good) as server:
        code, found = statuses(vllmchat, server.base_url)
        assert (code, found["key"][0]) == (0, "warning")
        assert "--api-key" in found["key"][2]


@pytest.mark.parametrize(
    ("version", "status"),
    [("0.8.5", "ok"), ("0.8.4", "problem"), ("0.33.1", "ok"), ("0.34.0", "warning"), ("dev", "ok")],
)
def test_versions(vllmchat: CommandLine, version: str, status: str) -> None:
    with FakeServer(good, version=version) as server:
        assert statuses(vllmchat, server.base_url)[1]["version"][0] == status


def test_another_server_than_vllm(vllmchat: CommandLine) -> None:
    with FakeServer(good) as server:
        for path in ("/version", "/health", "/metrics", "/tokenize"):
            server.on(path, error(404, "Not Found"))
        code, found = statuses(vllmchat, server.base_url)
        assert code == 0
        assert found["version"][0] == "warning"
        assert "--provider openai" in found["version"][2]
        assert not {"health", "tokenizer", "metrics", "LoRA"} & found.keys()
        code, found = statuses(vllmchat, server.base_url, "--provider", "openai")
        assert code == 0
        assert "version" not in found
        assert found["structured"][0] == found["tools"][0] == "ok"
        assert server.calls[-1].params["response_format"]["json_schema"]["schema"]["enum"] == ["yes", "no"]  # type: ignore[index]


def test_a_dead_engine(vllmchat: CommandLine) -> None:
    with FakeServer(error(500, "EngineCore encountered an issue")) as server:
        server.on("/health", error(503, "dead"))
        code, found = statuses(vllmchat, server.base_url)
        assert code == 1
        assert found["health"][:2] == ("problem", "the engine has died")
        assert found["chat"][0] == "problem"
        assert "streaming" not in found, "what needs a chat is not tried"


def without_parsers(call: Call) -> Any:
    if call.tool_names:
        return '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    if "17" in call.text:
        return "<think>\n17 times 3 is 51.\n</think>\n\n51"
    return "Certainly!"


def test_what_is_missing_is_named_with_its_flag(vllmchat: CommandLine) -> None:
    with FakeServer(without_parsers, model="Qwen/Qwen3-4B") as server:
        code, found = statuses(vllmchat, server.base_url)
    assert code == 1
    assert found["reasoning"][0] == found["tools"][0] == found["structured"][0] == "problem"
    assert found["reasoning"][2].endswith("vllm serve --reasoning-parser qwen3")
    assert found["tools"][2].endswith("vllm serve --enable-auto-tool-choice --tool-call-parser hermes")
    assert "'Certainly!'" in found["structured"][1]


def test_tools_that_are_switched_off(vllmchat: CommandLine) -> None:
    refusal = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    with FakeServer(lambda call: error(400, refusal) if call.tool_names else good(call), model="m") as server:
        code, found = statuses(vllmchat, server.base_url)
    assert code == 0
    assert found["tools"][:2] == ("warning", "tools are switched off")
    assert found["tools"][2].endswith("--tool-call-parser NAME")


def test_models(vllmchat: CommandLine) -> None:
    base = {"id": "big", "root": "org/big", "max_model_len": 4096}
    lora = {"id": "small", "root": "/adapters/small", "parent": "big"}
    other = {"id": "other", "root": "org/other", "max_model_len": 1}
    with FakeServer(good) as server:
        server.on("/v1/models", {"object": "list", "data": [base, lora]})
        found = statuses(vllmchat, server.base_url, "--model", "small")[1]
        assert found["models"][0] == "ok"
        assert found["context"][1].startswith("4,096 tokens")
        assert found["LoRA"][1] == "small"
        assert server.calls[0].model == "small"
        code, found = statuses(vllmchat, server.base_url, "--model", "huge")
        assert (code, found["models"]) == (
            1,
            ("problem", "huge is not served", "Set --model to one of: big, small"),
        )
        server.on("/v1/models", {"object": "list", "data": [base, other]})
        code, found = statuses(vllmchat, server.base_url)
        assert (code, found["models"][:2]) == (0, ("warning", "big, other; examining big"))
        server.on("/v1/models", {"object": "list", "data": []})
        assert statuses(vllmchat, server.base_url)[1]["models"][:2] == ("problem", "the server serves none")


def test_a_web_page(vllmchat: CommandLine) -> None:
    with FakeServer(good) as server:
        server.on("/v1/models", Response(b"<html>Welcome</html>", headers={"content-type": "text/html"}))
        code, found = statuses(vllmchat, server.base_url)
    assert code == 1
    assert found["models"][0] == "problem"
    assert "chat" not in found


def test_clock_and_what_is_in_between(vllmchat: CommandLine, scripted: ScriptedServer) -> None:
    scripted.reply(
        {"object": "list", "data": []},
        headers={"date": "Thu, 01 Jan 2026 00:00:00 GMT", "server": "nginx", "via": "1.1 \x1b[1mproxy"},
    )
    code, found = statuses(vllmchat, scripted.base_url, "--provider", "openai")
    assert code == 1
    assert found["in between"][1].startswith("the response came through nginx")
    assert found["clock"][0] == "warning"
    assert re.search(r"is [\d,]+ s (behind|ahead of) this one", found["clock"][1])


METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running 3
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting 2
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total 7
# TYPE vllm:prefix_cache_queries counter
vllm:prefix_cache_queries_total 100
# TYPE vllm:prefix_cache_hits counter
vllm:prefix_cache_hits_total 25
"""


def test_preemptions_are_a_warning(vllmchat: CommandLine) -> None:
    with FakeServer(good) as server:
        server.on("/metrics", METRICS)
        found = statuses(vllmchat, server.base_url)[1]
        assert found["metrics"][:2] == (
            *("warning", "3 running, 2 waiting, 25% of the prompts cached, 7 preemptions since the start"),
        )
        assert "--gpu-memory-utilization" in found["metrics"][2]
        server.on("/metrics", "# TYPE up gauge\nup 1\n")
        assert statuses(vllmchat, server.base_url)[1]["metrics"][0] == "warning"


@pytest.mark.parametrize(
    ("arrivals", "status"),
    [
        ([], "unknown"),
        ([0.01, 0.02, 0.03], "ok"),
        ([0.1 + 0.05 * at for at in range(60)], "ok"),
        ([3.0, 3.001, 3.002, 3.01], "warning"),
        ([3.0], "warning"),
    ],
)
def test_a_stream_that_was_held_back(arrivals: list[float], status: str) -> None:
    assert judge_stream(0.1, arrivals).status == status


@pytest.mark.parametrize(
    ("name", "reasoning", "tools"),
    [
        ("Qwen/Qwen3-4B", "qwen3", "hermes"),
        ("Qwen/Qwen3-Coder-30B", "qwen3", "qwen3_coder"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek_r1", "deepseek_v3"),
        ("openai/gpt-oss-20b", "openai_gptoss", "openai"),
        ("meta-llama/Llama-3.1-8B-Instruct", "NAME", "llama3_json"),
        ("mine", "NAME", "NAME"),
    ],
)
def test_parsers_are_named_by_the_model(name: str, reasoning: str, tools: str) -> None:
    assert parser_for(["served", name], REASONING_PARSERS) == reasoning
    assert parser_for([name], TOOL_PARSERS) == tools


@pytest.mark.parametrize(
    ("text", "reasons", "calls"),
    [
        ("17 times 3 is 51.", False, False),
        ("It is 51.</think>51", True, False),
        ('{"name": "get_weather", "parameters": {}}', False, True),
        ('{"answer": 51}', False, False),
        ("[TOOL_CALLS][]", False, True),
    ],
)
def test_signs_of_a_missing_parser(text: str, reasons: bool, calls: bool) -> None:
    assert (has_reasoning(text), has_call(text)) == (reasons, calls)


def test_colors_on_a_terminal(vllmchat: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    vllmchat.terminal = True
    out = vllmchat("check", "--url", "http://127.0.0.1:9").out
    assert out.startswith("\x1b[31mproblem \x1b[0m reachable")
