"""Fixtures of the tests of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.command import CommandLine
from vllmchat.testing import FakeServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def vllmchat(monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Runs the command line."""
    return CommandLine(monkeypatch)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server that echoes, and that the environment names."""
    with FakeServer(lambda call: f"You said: {call.text}") as fake:
        monkeypatch.setenv("VLLM_BASE_URL", fake.base_url)
        yield fake
