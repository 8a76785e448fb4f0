"""The real vLLM server as the tests see it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from vllmchat import BadRequestError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tiny_model.dialogues import Script

API_KEY = "key-of-the-tests"
"""What the server of the fixture `keyed_server` asks for."""

SERVER_FIXTURES = frozenset(
    {"vllm_server", "keyed_server", "admin_server", "pooling_server", "traced_server"}
)
"""A test that uses one of these is marked `server`, wherever it stands."""


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A server that runs until the end of the test session."""

    url: str
    """Its root, without `/v1`."""
    model: str
    """The name under which it serves its one model."""
    log: Path
    """Its log; the end shows why it died."""
    dialogues: Script
    """The model's known dialogues, each with its reply at temperature 0."""
    version: str
    """Of vLLM: `0.32.0`."""
    api_key: str | None = None
    """The key it asks for, if any."""

    @property
    def base_url(self) -> str:
        """The `base_url` for clients."""
        return f"{self.url}/v1"

    def kept(self, text: str | None) -> str:
        """A text as it can be compared where one side was streamed.

        If a chunk holds the end of the reasoning and more tokens, servers before 0.30 lose a line break next to it.
        Those before 0.17 return `<think>` as reasoning if the first chunk holds more tokens than that.
        """
        if self.since("0.30"):
            return text or ""
        return (text or "").removeprefix("" if self.since("0.17") else "<think>").strip()

    def since(self, version: str) -> bool:
        """Whether it is that version of vLLM or a newer one."""
        return at_least(self.version, version)


def at_least(version: str, since: str) -> bool:
    """Whether a version is another one or newer."""
    return _numbers(version) >= _numbers(since)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def not_served(server: LiveServer, hint: str) -> AbstractContextManager[object]:
    """Expects what the client raises for a route that the server's model does not serve, with its hint.

    Before 0.17 the server has all routes, and answers those with a 400 that says so.
    """
    if server.since("0.17"):
        return pytest.raises(NotFoundError, match=hint)
    return pytest.raises(BadRequestError, match="does not support")


def is_required(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a missing server is a failure: in CI, or where `VLLMCHAT_REQUIRE_SERVER=1` says so."""
    chosen = environ.get("VLLMCHAT_REQUIRE_SERVER") or environ.get("CI") or "0"
    return chosen.lower() not in ("0", "false", "no")
