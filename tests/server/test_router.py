"""Behind vLLM's router, with two servers: conversations stay where they are, and everything passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from cached_env import InstallError
from router_env import RouterError, running
from support.chats import chunk, chunks, completion
from support.scripted import ScriptedServer, forever, in_thread, reply, sse, stream
from support.vllm import is_required
from vllmchat import BadRequestError, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.scripted import Answer, Request
    from support.vllm import LiveServer

CHATS = "/v1/chat/completions"


class Backend:
    """One of the servers behind the router.

    Attributes:
        server: It.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        server.always(self.answer)

    def answer(self, request: Request) -> Answer:
        """Answers like a vLLM server; the last message says how."""
        if request.path != CHATS:
            return reply({"data": [{"id": "m"}]} if request.path == "/v1/models" else {})
        body: dict[str, Any] = cast("Any", request.json())
        text = body["messages"][-1]["content"]
        if text == "bad":
            return reply(
                {"error": {"message": "no", "type": "BadRequestError", "param": "x", "code": 400}}, 400
            )
        if text == "endless":
            return stream([chunk("a"), forever(sse(chunk("b")))])
        return stream(chunks(*"abc")) if body.get("stream") else reply(completion("abc"))

    def chats(self) -> list[Request]:
        """The chats that arrived."""
        return [each for each in self.server.requests if each.path == CHATS]


@pytest.fixture(scope="module")
def backends() -> Iterator[list[Backend]]:
    with ScriptedServer() as first, ScriptedServer() as second:
        yield [Backend(first), Backend(second)]


@pytest.fixture(scope="module")
def router(backends: list[Backend], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a router in front of both."""
    log = tmp_path_factory.mktemp("router") / "router.log"
    servers = [each.server.origin for each in backends]
    yield from _router(servers, log)


def _router(servers: list[str], log: object) -> Iterator[str]:
    try:
        with running(servers, policy="consistent_hash", log=cast("Path", log)) as url:
            yield url
    except (InstallError, RouterError) as error:
        if is_required():
            pytest.fail(f"no router: {error}", pytrace=False)
        pytest.skip(f"no router: {str(error).splitlines()[0]}")


@pytest.fixture
def llm(router: str) -> Iterator[VLLMProvider]:
    with VLLMProvider("m", base_url=router, max_retries=0) as llm:
        yield llm


def places(backends: list[Backend]) -> dict[str, set[int]]:
    """Which servers got each session."""
    found: dict[str, set[int]] = {}
    for number, backend in enumerate(backends):
        for request in backend.chats():
            session = cast("dict[str, str]", request.json()).get("session_id")
            if session is not None:
                found.setdefault(session, set()).add(number)
    return found


def test_a_conversation_stays_on_one_server(llm: VLLMProvider, backends: list[Backend]) -> None:
    for turn in range(3):
        for number in range(12):
            llm.chat(f"turn {turn}", session_id=f"conversation-{number}")
            llm.stream(f"turn {turn}", session_id=f"conversation-{number}").until_done()
    found = places(backends)
    assert len(found) == 12
    assert all(len(each) == 1 for each in found.values())
    assert set[int]().union(*found.values()) == {0, 1}


def test_streams_and_errors_pass(llm: VLLMProvider) -> None:
    llm.ready(10)
    assert llm.stream("Hi").until_done().text == "abc"
    with pytest.raises(BadRequestError, match="no") as caught:
        llm.chat("bad")
    assert caught.value.param == "x"
    with pytest.raises(BadRequestError, match="no"):
        llm.stream("bad").until_done()


@pytest.mark.anyio
async def test_a_cancelled_stream_ends_at_the_server(llm: VLLMProvider, backends: list[Backend]) -> None:
    async with llm.astream("endless", session_id="cancelled") as stream:
        async for each in stream:
            if each.text == "b":
                break
    [place] = places(backends)["cancelled"]
    backend = backends[place]
    connection = backend.chats()[-1].connection
    assert await in_thread(lambda: backend.server.wait_client_closed(5, connection=connection))
    await llm.aclose()


def test_a_real_server_behind_it(vllm_server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("router") / "router.log"
    for url in _router([vllm_server.url], log):
        with VLLMProvider(base_url=url) as llm:
            llm.ready(30)
            assert llm.model is None
            whole = llm.chat("Hello", temperature=0, session_id="a", structured_outputs={"regex": "Hel+o"})
            assert whole.text.startswith("Hel")
            assert llm.stream("Hello", temperature=0).until_done().text.strip().startswith("Hello")
            assert llm.model == vllm_server.model
