"""The pytest plugin. It is loaded with the package, and imports the doubles only when a fixture is used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from vllmchat import testing  # its names are loaded on first use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllmchat.testing import FakeServer, ScriptedProvider


@pytest.fixture
def scripted_provider() -> Iterator[ScriptedProvider]:
    """A `vllmchat.testing.ScriptedProvider` with an empty script.

    Add answers with `scripted_provider.answer(...)`. The test fails if some are left at its end, or if a call had none.
    """
    provider = testing.ScriptedProvider()
    yield provider
    provider.assert_done()


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A running `vllmchat.testing.FakeServer` with an empty script, to which `VLLM_BASE_URL` points.

    Add answers with `fake_vllm.answer(...)`. The test fails if some are left at its end, or if a call had none.
    """
    with testing.FakeServer() as server:
        monkeypatch.setenv("VLLM_BASE_URL", server.base_url)
        # A proxy of the environment could not reach it.
        excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, f"{excepted},127.0.0.1" if excepted else "127.0.0.1")
        yield server
    server.assert_done()
