"""The script that records a server's answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import record

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from support.scripted import ScriptedServer


def recorded(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text("utf-8"))


def test_a_post_is_recorded(scripted: ScriptedServer, tmp_path: Path) -> None:
    scripted.version = "0.33.0"
    scripted.reply({"say": "日本"})
    argv = ["it", "/v1/x", "--body", '{"n": 1}', "--url", scripted.origin, "--api-key", "k"]
    assert record.main([*argv, "--folder", str(tmp_path)]) == 0
    [sent] = scripted.requests
    assert sent.headers["authorization"] == "Bearer k"
    assert sent.json() == {"model": "tiny-qwen3", "n": 1}
    found = recorded(tmp_path, "it")
    assert found["server"] == "vllm 0.33.0"
    assert found["request"] == {"method": "POST", "path": "/v1/x", "body": {"model": "tiny-qwen3", "n": 1}}
    assert found["response"]["status"] == 200
    assert json.loads(found["response"]["body"]) == {"say": "日本"}
    assert "date" not in found["response"]["headers"]


def test_an_error_is_an_answer_too(scripted: ScriptedServer, tmp_path: Path) -> None:
    scripted.version = "0.33.0"
    scripted.reply({"error": "no"}, 404)
    assert record.main(["it", "/v1/x", "--url", scripted.origin, "--folder", str(tmp_path)]) == 0
    found = recorded(tmp_path, "it")
    assert found["request"] == {"method": "GET", "path": "/v1/x", "body": None}
    assert found["response"]["status"] == 404


def test_no_answer_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main(["it", "/v1/x", "--url", "http://127.0.0.1:9", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
