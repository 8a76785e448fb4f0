"""The pytest plugin. It is loaded with the package, and imports the doubles only when a fixture is used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from vllmchat import testing  # its names are loaded on first use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllmchat.testing import FakeServer, ScriptedProvider


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Notes that a test failed: the answers that it did not come to are no second failure."""
    if call.when == "call" and call.excinfo is not None:
        item.stash[_FAILED] = True


@pytest.fixture
def scripted_provider(request: pytest.FixtureRequest) -> Iterator[ScriptedProvider]:
    """A `vllmchat.testing.ScriptedProvider` with an empty script.

    Add answers with `scripted_provider.answer(...)`. The test fails if some are left at its end, or if a call had none.
    """
    provider = testing.ScriptedProvider()
    yield provider
    if not _failed(request):
        provider.assert_done()


@pytest.fixture
def fake_vllm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
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
    if not _failed(request):
        server.assert_done()


def _failed(request: pytest.FixtureRequest) -> bool:
    node: pytest.Item = request.node
    return node.stash.get(_FAILED, False)
