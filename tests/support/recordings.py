"""Responses of real vLLM servers, and what the models of 0.32.0 serialize to.

A server is named by its version, plus its setup if that matters: `0.32.0`, `0.10.2-pooling`. Its recordings are files
in a directory, or in an archive made by `scripts/pack_recordings.py`.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, cast

from vllmchat.versions import Version, read_version
from vllmchat.wire.decode import as_object

_RECORDED = Path(__file__).parents[1] / "recorded"

NEWEST = "0.32.0"
"""The server that tests mean unless they name another."""


@dataclass(frozen=True)
class Recording:
    """One request and its response.

    Attributes:
        server: The server that responded.
        name: The file name without its suffix.
        method: HTTP method.
        path: Path of the request.
        request: Decoded body of the request; None if it had none.
        status: HTTP status of the response.
        headers: Headers of the response, names in lower case.
        body: Body of the response.
        length: The length of the body in bytes; more than that of `body` if only its start was kept.
    """

    server: str
    name: str
    method: str
    path: str
    request: Any
    status: int
    headers: dict[str, str]
    body: bytes
    length: int

    @property
    def route(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.path}"

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the request's body; none where it has no body, or no JSON object."""
        return cast("dict[str, Any]", as_object(self.request) or {})

    @property
    def is_stream(self) -> bool:
        """Whether it was answered with events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def data(self) -> list[bytes]:
        """The data of a stream's events, including `[DONE]`."""
        prefix = b"data: "
        events = [event for event in self.body.split(b"\n\n") if event]
        assert all(event.startswith(prefix) for event in events)
        return [event[len(prefix) :] for event in events]

    @property
    def chunks(self) -> list[bytes]:
        """The data of a stream's events up to `[DONE]`."""
        *chunks, done = self.data
        assert done == b"[DONE]"
        return chunks


def version_of(server: str) -> Version:
    """The version of a server."""
    return read_version(server)


@cache
def servers() -> tuple[str, ...]:
    """All servers that were recorded, oldest first."""
    found = {
        path.stem if path.suffix == ".zip" else path.name
        for path in _RECORDED.glob("vllm-*")
        if path.suffix == ".zip" or path.is_dir()
    }
    names = [name.removeprefix("vllm-") for name in found]
    return tuple(sorted(names, key=lambda server: (version_of(server), server)))


@cache
def load(name: str, server: str = NEWEST) -> Recording:
    """The recording of this name."""
    return _read(server, name, json.loads(_file(server, name)))


@cache
def names(pattern: str = "*", server: str = NEWEST) -> list[str]:
    """Names of all recordings that a pattern such as `"chat*"` fits, in order."""
    files = [path.name.removesuffix(".json") for path in _folder(server).iterdir()]
    found = sorted(name for name in files if fnmatchcase(name, pattern) and name != _DESCRIPTION)
    assert found, f"no recording is named {pattern}"
    return found


@cache
def openapi(server: str) -> dict[str, Any]:
    """The server's own description of its routes and their requests."""
    description: dict[str, Any] = json.loads(_file(server, _DESCRIPTION))
    return description


_DESCRIPTION = "openapi"


@cache
def _folder(server: str) -> Path | zipfile.Path:
    folder = _RECORDED / f"vllm-{server}"
    return folder if folder.is_dir() else zipfile.Path(_RECORDED / f"vllm-{server}.zip")


def _file(server: str, name: str) -> str:
    return _folder(server).joinpath(f"{name}.json").read_text("utf-8")


def _read(server: str, name: str, recorded: Any) -> Recording:
    request, response = recorded["request"], recorded["response"]
    body: bytes = response["body"].encode()
    return Recording(
        server=server,
        name=name,
        method=request["method"],
        path=request["path"],
        request=request.get("body"),
        status=response["status"],
        headers=response["headers"],
        body=body,
        length=response.get("body_cut_from", len(body)),
    )


@cache
def samples(heading: str) -> list[bytes]:
    """The serialized objects below a heading of the samples, such as `"tool first"`."""
    lines = (_RECORDED / "vllm-0.32.0-samples.txt").read_text("utf-8").split("\n")
    start = lines.index(f"-- {heading}") + 1
    found: list[bytes] = []
    for line in lines[start:]:
        if not line.startswith("{"):
            break
        found.append(line.encode())
    assert found
    return found
