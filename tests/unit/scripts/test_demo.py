"""The scripts that show a server of this machine, where the environment names a proxy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import demo
import massgen_demo
import massgen_env
from vllmchat import VLLMProvider

if TYPE_CHECKING:
    from types import ModuleType

    from support.scripted import ScriptedServer


class ReachedError(Exception):
    """The script has come to the start of its server."""


@pytest.mark.parametrize("script", [demo, massgen_demo])
@pytest.mark.parametrize("excepted", [None, "example.com"])
def test_a_server_of_this_machine_is_reached_without_a_proxy(
    script: ModuleType, excepted: str | None, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.reply({"object": "list", "data": []})
    for name, value in (("HTTP_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", excepted), ("no_proxy", None)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)

    def run(*args: Any, **options: Any) -> None:
        with VLLMProvider(base_url=scripted.base_url, max_retries=0) as llm:
            assert llm.models().data == []
        raise ReachedError

    monkeypatch.setattr(script, "running", run)
    monkeypatch.setattr(massgen_env, "install", lambda: None)
    with pytest.raises(ReachedError):
        script.main()
    for name in ("NO_PROXY", "no_proxy"):
        assert os.environ[name] == ",".join(filter(None, [excepted, "127.0.0.1"]))
