"""The programs in `examples/`: a web application and a notebook are run, and none is forgotten on the pages."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.util
import inspect
import io
import json
import re
import socket
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import uvicorn

from support.examples import ROOT, as_promised, examples
from support.pools import wait_until
from vllmchat import VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.vllm import LiveServer

FOLDER = ROOT / "examples"


def programs() -> set[str]:
    """All programs, by their path inside the folder."""
    found = [path for path in FOLDER.rglob("*") if path.suffix in (".py", ".ipynb")]
    return {path.relative_to(FOLDER).as_posix() for path in found}


def test_every_program_is_on_a_page() -> None:
    included = {
        example.path.relative_to(FOLDER).as_posix()
        for example in examples("python")
        if example.path.is_relative_to(FOLDER)
    }
    assert included == programs() - {"notebook.ipynb"}


def test_every_file_is_in_the_list() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[([^\]]+)\]\(([^)]+)\) \|", text, re.MULTILINE))
    files = programs() | {f"massgen/{path.name}" for path in (FOLDER / "massgen").iterdir()}
    assert listed == {(name, name) for name in files}
    for page in re.findall(r"\]\((\.\./docs/[\w./-]+)\)", text):
        assert (FOLDER / page).is_file(), page


# FastAPI


@pytest.fixture
def app_url(
    vllm_server: LiveServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The application, served at a free port. A parameter of the test is the URL of its vLLM server."""
    monkeypatch.setenv("VLLM_BASE_URL", getattr(request, "param", vllm_server.base_url))
    spec = importlib.util.spec_from_file_location("fastapi_stream", FOLDER / "fastapi_stream.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fastapi_stream", module)  # where pydantic looks up annotations
    spec.loader.exec_module(module)
    server = uvicorn.Server(uvicorn.Config(module.app, log_level="warning"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # from here on, clients can connect; they wait until it serves
        thread = threading.Thread(target=asyncio.run, args=(server.serve([listening]),))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line:
            yield json.loads(line.removeprefix("data: "))


def test_a_reply_is_streamed(app_url: str) -> None:
    body = {"text": "What is the capital of France?", "temperature": 0}
    with httpx.stream("POST", f"{app_url}/chat", json=body, timeout=60) as response:
        assert (response.status_code, response.headers["content-type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
        *pieces, last = events(response)
    assert len(pieces) > 1
    assert "".join(piece["text"] for piece in pieces).strip() == "The capital of France is Paris."
    assert last == {"finish_reason": "stop"}


def test_the_model_stops_when_the_browser_leaves(app_url: str, vllm_server: LiveServer) -> None:
    with VLLMProvider(base_url=vllm_server.base_url) as llm:
        before = llm.metrics()
        body = {"text": "Count from 1 to 100.", "temperature": 0}
        with httpx.stream("POST", f"{app_url}/chat", json=body, timeout=60) as response:
            assert next(events(response))["text"]
        wait_until(lambda: llm.metrics().generation_tokens != before.generation_tokens)
        wait_until(lambda: llm.metrics().requests_running == 0)
        # It did not come to its end: vLLM counts what was finished, and not what a client left.
        assert llm.metrics().requests_finished == before.requests_finished


def test_a_wrong_parameter_has_its_own_status(app_url: str) -> None:
    response = httpx.post(f"{app_url}/chat", json={"text": "Hello", "temperature": -1}, timeout=60)
    assert response.status_code == 422
    assert "temperature=-1" in response.json()["error"]


def test_a_prompt_that_is_too_long_has_its_own_status(app_url: str) -> None:
    response = httpx.post(f"{app_url}/chat", json={"text": "Hello " * 5000}, timeout=60)
    assert response.status_code == 400
    assert "maximum context length" in response.json()["error"]


@pytest.mark.parametrize("app_url", ["http://127.0.0.1:1/v1"], indirect=True)
def test_a_missing_server_has_its_own_status(app_url: str) -> None:
    response = httpx.post(f"{app_url}/chat", json={"text": "Hello"}, timeout=60)
    assert response.status_code == 502
    assert "no connection to" in response.json()["error"]


# The notebook


def cells() -> list[str]:
    """The code of its cells."""
    notebook = json.loads((FOLDER / "notebook.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_page_shows_the_cells() -> None:
    shown = [example.code.rstrip("\n") for example in examples("python") if example.directive == "notebook"]
    assert shown == cells()


def test_the_cells_run_one_after_another(
    vllm_server: LiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in IPython: in one namespace, on one running loop, with `await` at the top level."""
    monkeypatch.setenv("VLLM_BASE_URL", vllm_server.base_url)
    shown: list[str] = []

    class Handle:
        def update(self, text: str) -> None:
            shown[-1] = text

    def display(text: str, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(text)
        return Handle()

    ipython = types.ModuleType("IPython.display")
    ipython.__dict__.update(Markdown=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)

    async def run() -> list[str]:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        printed: list[str] = []
        for number, cell in enumerate(cells()):
            code = compile(
                cell,
                f"cell {number}",
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                dont_inherit=True,
            )
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                result = eval(code, namespace)
                if inspect.iscoroutine(result):
                    await result
            printed.append(out.getvalue())
        await cast("VLLMProvider", namespace["llm"]).aclose()
        return printed

    printed = asyncio.run(run())
    for cell, out in zip(cells(), printed, strict=True):
        promised = re.findall(r"^#> ?(.*)$", cell, re.MULTILINE)
        assert as_promised(promised, out), out
    assert [text.strip() for text in shown] == [vllm_server.dialogues["story"].answer]


# Troubleshooting


def literals() -> str:
    """All texts in the code of the library, one a line, with an `…` for each value in them."""
    found: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{\w+\}", "…", node.value))
    return "\n".join(found)


def test_every_message_in_troubleshooting_exists() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    named = re.findall(r"^### `(.+)`$", text, re.MULTILINE)
    assert len(named) > 20
    ours = literals()
    recorded = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests/recorded/vllm-0.32.0").glob("error_*")
    )
    for message in named:
        theirs = ".+".join(map(re.escape, message.split("…")))
        assert message in ours or re.search(theirs, recorded), message
