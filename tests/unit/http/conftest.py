"""A provider on each transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from vllmchat import VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runners import Runner
    from support.scripted import ScriptedServer


@pytest.fixture
def secret() -> str:
    """The key of the provider."""
    return "-".join(("sk", "3d1f9c7ae8b24455a1"))


@pytest.fixture(params=["pool", "httpx", "httpx2"])
def llm(
    request: pytest.FixtureRequest, scripted: ScriptedServer, runner: Runner, secret: str
) -> Iterator[VLLMProvider]:
    """A provider on each transport."""
    clients: dict[str, Any] = {}
    if request.param != "pool":
        library: Any = httpx if request.param == "httpx" else httpx2
        name = "http_client" if runner.name == "sync" else "async_http_client"
        clients[name] = library.Client() if runner.name == "sync" else library.AsyncClient()
    provider = VLLMProvider("m", base_url=scripted.base_url, api_key=secret, **clients)
    yield provider
    runner.close(provider)
    for client in clients.values():
        if runner.portal is None:
            client.close()
        else:
            runner.portal.call(client.aclose)
