"""Fixtures of the tests that run in MassGen's environment."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import pytest
from massgen.cli.backends import create_agents_from_config

from support.fake_vllm import FakeVLLM
from vllmchat.adapters.massgen import VLLMBackend, context, install, uninstall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count(1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def unknown_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server has been asked for its models yet: a port may be used again."""
    monkeypatch.setattr(context, "_lists", {})


@pytest.fixture
def installed() -> Iterator[None]:
    """MassGen uses our backend for `type: vllm` during the test."""
    install()
    yield
    uninstall()


@pytest.fixture
def fake_vllm() -> Iterator[FakeVLLM]:
    """A scripted vLLM server."""
    staged = FakeVLLM()
    with staged.server:
        yield staged


@pytest.fixture
def model() -> str:
    """A model name that no other test uses: the server that reports its size is found by it."""
    return f"model-{next(_numbers)}"


@pytest.fixture
def backend(fake_vllm: FakeVLLM, model: str) -> VLLMBackend:
    """A backend for the scripted server."""
    return VLLMBackend(model=model, base_url=fake_vllm.base_url, agent_id="qwen")


@pytest.fixture
def agent(fake_vllm: FakeVLLM, model: str, installed: None) -> Callable[..., Any]:
    """Makes an agent from a backend block, as MassGen does."""

    def make(**block: Any) -> Any:
        full = {"type": "vllm", "model": model, "base_url": fake_vllm.base_url, **block}
        return create_agents_from_config({"agents": [{"id": "qwen", "backend": full}]})["qwen"]

    return make


@pytest.fixture
def mcp_server(tmp_path: Path) -> dict[str, Any]:
    """The block of an MCP server with one tool."""
    program = tmp_path / "weather_server.py"
    program.write_text(_MCP_SERVER, encoding="utf-8")
    return {"name": "weather", "type": "stdio", "command": sys.executable, "args": [str(program)]}


_MCP_SERVER = """
import json, sys

TOOL = {
    "name": "forecast",
    "description": "The weather of tomorrow.",
    "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    method, params = request["method"], request.get("params") or {}
    if method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "weather", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": [TOOL]}
    elif method == "tools/call":
        text = params["arguments"]["city"] + ": -2 degrees"
        result = {"content": [{"type": "text", "text": text}], "isError": False}
    else:
        result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"""
