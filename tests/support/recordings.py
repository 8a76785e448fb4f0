"""What a real vLLM 0.32.0 answered, and what its own models serialise to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_RECORDED = Path(__file__).parents[1] / "recorded"
_FOLDER = _RECORDED / "vllm-0.32.0"


@dataclass(frozen=True)
class Recording:
    """One request and its answer.

    Attributes:
        name: Name of the file, without its suffix.
        method: HTTP method.
        path: Path of the request.
        request: Decoded body of the request; None when it had none.
        status: HTTP status of the answer.
        headers: Headers of the answer, names in lower case.
        body: Body of the answer.
    """

    name: str
    method: str
    path: str
    request: Any
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> list[bytes]:
        """Of a stream, the data of its events, `[DONE]` among them."""
        prefix = b"data: "
        events = [event for event in self.body.split(b"\n\n") if event]
        assert all(event.startswith(prefix) for event in events)
        return [event[len(prefix) :] for event in events]

    @property
    def chunks(self) -> list[bytes]:
        """Of a stream, the data of its events up to `[DONE]`."""
        *chunks, done = self.data
        assert done == b"[DONE]"
        return chunks


@cache
def load(name: str) -> Recording:
    """The recording of this name."""
    recorded: Any = json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))
    request, response = recorded["request"], recorded["response"]
    return Recording(
        name=name,
        method=request["method"],
        path=request["path"],
        request=request.get("body"),
        status=response["status"],
        headers=response["headers"],
        body=response["body"].encode(),
    )


def names(pattern: str) -> list[str]:
    """Names of all recordings that a pattern such as `"chat*"` fits, in order."""
    found = sorted(path.stem for path in _FOLDER.glob(f"{pattern}.json"))
    assert found, f"no recording is named {pattern}"
    return found


@cache
def samples(heading: str) -> list[bytes]:
    """The serialised objects below a heading of the samples, such as `"tool first"`."""
    lines = (_RECORDED / "vllm-0.32.0-samples.txt").read_text("utf-8").split("\n")
    start = lines.index(f"-- {heading}") + 1
    found: list[bytes] = []
    for line in lines[start:]:
        if not line.startswith("{"):
            break
        found.append(line.encode())
    assert found
    return found
