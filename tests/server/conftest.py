"""Providers of the real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vllmchat import VLLMProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.vllm import LiveServer
    from tiny_model.dialogues import Script

WAIT = 120.0
"""Seconds: only a server that hangs takes so long."""


@pytest.fixture
def script(vllm_server: LiveServer) -> Script:
    """The dialogues that the tiny model has memorized."""
    return vllm_server.dialogues


@pytest.fixture
def llm(vllm_server: LiveServer) -> Iterator[VLLMProvider]:
    """A provider whose blocking calls are closed at the end."""
    with VLLMProvider(vllm_server.model, base_url=vllm_server.base_url, timeout=WAIT) as provider:
        yield provider


@pytest.fixture
async def allm(vllm_server: LiveServer, anyio_backend: str) -> AsyncIterator[VLLMProvider]:
    """A provider whose asynchronous calls are closed at the end, on each event loop."""
    async with VLLMProvider(vllm_server.model, base_url=vllm_server.base_url, timeout=WAIT) as provider:
        yield provider
