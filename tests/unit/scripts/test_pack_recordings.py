"""The script that packs a server's recordings."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pack_recordings

if TYPE_CHECKING:
    import pytest


def recording(body: str, **response: Any) -> dict[str, Any]:
    return {
        "server": "vllm 0.33.0",
        "request": {"method": "GET", "path": "/v1/models", "body": None},
        "response": {"status": 200, "headers": {}, "body": body, **response},
    }


def fill(folder: Path, **recordings: Any) -> Path:
    folder.mkdir()
    for name, content in recordings.items():
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return folder


def test_recordings_become_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = recording('{"data": "日本"}')
    folder = fill(tmp_path / "vllm-0.33.0", models=models, openapi={"paths": {}})
    assert pack_recordings.main([str(folder), "--into", str(tmp_path / "to")]) == 0
    archive = tmp_path / "to" / "vllm-0.33.0.zip"
    assert str(archive) in capsys.readouterr().out
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == ["models.json", "openapi.json"]
        assert json.loads(packed.read("models.json")) == models
        assert json.loads(packed.read("openapi.json")) == {"paths": {}}


def test_the_same_recordings_make_the_same_bytes(tmp_path: Path) -> None:
    first = pack_recordings.pack(fill(tmp_path / "a", x=recording("1"), y=recording("2")), tmp_path / "1")
    second = pack_recordings.pack(fill(tmp_path / "b", y=recording("2"), x=recording("1")), tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()


def test_paths_of_the_machine_are_made_neutral(tmp_path: Path) -> None:
    trace = 'File "/home/ann/.venv/lib/python3.11/site-packages/vllm/utils.py", line 1'
    folder = fill(tmp_path / "a", x=recording(trace), y=recording('{"root":"/home/ann/models/tiny-qwen3"}'))
    with zipfile.ZipFile(pack_recordings.pack(folder, tmp_path)) as packed:
        bodies = [json.loads(packed.read(name))["response"]["body"] for name in packed.namelist()]
    assert bodies == [
        'File "/usr/lib/python3/site-packages/vllm/utils.py", line 1',
        '{"root":"/models/tiny-qwen3"}',
    ]


def test_another_path_of_this_machine_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "a", x=recording(f"see {Path.home()}/server.log"))
    assert pack_recordings.main([str(folder), "--into", str(tmp_path / "to")]) == 1
    assert f"{folder / 'x.json'}: a path below {Path.home()} is left" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_what_got_no_answer_is_left_out(tmp_path: Path) -> None:
    unanswered = {**recording(""), "response": {"error": "ConnectionRefusedError(111)"}}
    folder = fill(tmp_path / "a", x=recording("1"), y=unanswered)
    with zipfile.ZipFile(pack_recordings.pack(folder, tmp_path)) as packed:
        assert packed.namelist() == ["x.json"]


def test_what_is_no_recording_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "a", x={"request": {}})
    assert pack_recordings.main([str(folder), "--into", str(tmp_path)]) == 1
    assert "neither a recording nor openapi.json" in capsys.readouterr().err
    assert pack_recordings.main([str(fill(tmp_path / "b")), "--into", str(tmp_path)]) == 1
    assert "holds no recordings" in capsys.readouterr().err
