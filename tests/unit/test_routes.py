"""Every method sends its request to the route in the table; other tests compare the table with real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.routes import ASKED, Asked
from vllmchat import BadRequestError, VLLMProvider

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

SENDS_NOTHING = {"base_url", "close", "map", "model", "name", "timeout", "with_options"}
"""Attributes of a provider other than its methods, and `map`, which calls these."""


def do(runner: Runner, llm: VLLMProvider, asked: Asked) -> None:
    params = dict(asked.params)
    if asked.method.startswith("stream"):
        with runner.open(llm, asked.method, *asked.arguments, **params) as stream:
            stream.until_done()
    else:
        runner.do(llm, asked.method, *asked.arguments, **params)


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.method)
def test_each_method_uses_its_route(asked: Asked, scripted: ScriptedServer, runner: Runner) -> None:
    if asked.method == "choose":  # written differently for old servers, so the version is looked up
        scripted.reply({"version": "0.32.0"})
    scripted.reply({"error": {"message": "no", "code": 400}}, 400)
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    with pytest.raises(BadRequestError):
        do(runner, llm, asked)
    runner.close(llm)
    request = scripted.requests[-1]
    assert f"{request.method} {request.path}" == asked.route


def test_every_method_is_in_the_table() -> None:
    public = {name for name in dir(VLLMProvider) if not name.startswith("_")}
    async_methods = {f"a{name}" for name in public} & public
    assert public - async_methods - SENDS_NOTHING == {asked.method for asked in ASKED}
    assert len({asked.method for asked in ASKED}) == len(ASKED)
