"""Many at once, from threads and event loops; and leaving early, which stops the server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from support.questions import questions
from vllmchat import VLLMChatParams, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.vllm import LiveServer
    from tiny_model.dialogues import Script
    from vllmchat import ChatStream

ANSWER = "The capital of France is Paris."
CAPITAL = "What is the capital of France?"
PARAMS = VLLMChatParams(temperature=0, enable_thinking=False)

LONG = VLLMChatParams(temperature=0, ignore_eos=True, max_tokens=1_900)
"""Some ten seconds of work."""

LONGER: VLLMChatParams = {**LONG, "temperature": 0.01, "n": 8}
"""Long enough that a busy server still works on it once it has told what it works on."""

SOON = 3.0
"""Seconds within which the server must have stopped; in fact it takes a few milliseconds."""


@pytest.mark.anyio
async def test_64_at_once(allm: VLLMProvider, script: Script) -> None:
    async def ask(number: int) -> None:
        question = questions(script)[number * 2]
        question.check(await allm.achat(question.messages, **question.params))

    async with anyio.create_task_group() as group:
        for number in range(64):
            group.start_soon(ask, number)


@pytest.mark.anyio
async def test_fewer_connections_than_requests(vllm_server: LiveServer) -> None:
    async with VLLMProvider(vllm_server.model, base_url=vllm_server.base_url, max_connections=3) as llm:

        async def ask() -> None:
            assert (await llm.achat(CAPITAL, **PARAMS)).text == ANSWER

        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(ask)


def told_to_threads(llm: VLLMProvider, count: int) -> list[str]:
    """What so many threads are told at once."""
    with ThreadPoolExecutor(count) as pool:
        replies = [pool.submit(llm.chat, CAPITAL, **PARAMS) for _ in range(count)]
        return [reply.result().text for reply in replies]


def test_one_provider_in_many_threads(llm: VLLMProvider) -> None:
    assert told_to_threads(llm, 48) == [ANSWER] * 48


def test_one_provider_in_loops_one_after_another(vllm_server: LiveServer) -> None:
    llm = VLLMProvider(vllm_server.model, base_url=vllm_server.base_url)

    async def ask() -> str:
        return (await llm.achat(CAPITAL, **PARAMS)).text

    async def ask_by_stream() -> str:
        return (await llm.astream(CAPITAL, **PARAMS).until_done()).text

    # Without `async with`: what was opened on a loop must be closed with it, and warnings are errors here.
    assert asyncio.run(ask()) == ANSWER
    assert asyncio.run(ask_by_stream()) == ANSWER
    assert anyio.run(ask, backend="trio") == ANSWER
    assert asyncio.run(ask()) == ANSWER
    assert llm.chat(CAPITAL, **PARAMS).text == ANSWER
    llm.close()


def test_one_provider_in_loops_side_by_side(vllm_server: LiveServer) -> None:
    llm = VLLMProvider(vllm_server.model, base_url=vllm_server.base_url)

    async def ask() -> list[str]:
        return [(await llm.achat(CAPITAL, **PARAMS)).text for _ in range(3)]

    def run(backend: str) -> list[str]:
        return anyio.run(ask, backend=backend)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, ["asyncio", "trio"] * 2)) == [[ANSWER] * 3] * 4


@pytest.mark.anyio
async def test_a_blocking_method_inside_a_running_loop(llm: VLLMProvider) -> None:
    assert llm.chat(CAPITAL, **PARAMS).text == ANSWER
    assert (await llm.achat(CAPITAL, **PARAMS)).text == ANSWER
    await llm.aclose()


def test_the_server_is_asked_for_its_model_once(vllm_server: LiveServer) -> None:
    with VLLMProvider(base_url=vllm_server.url) as llm:
        assert llm.model is None
        assert told_to_threads(llm, 4) == [ANSWER] * 4
        assert llm.model == vllm_server.model
        assert llm.with_options(timeout=30).model == vllm_server.model


# Leaving early


def running(server: LiveServer) -> float:
    """How many requests the server works on."""
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if line.startswith("vllm:num_requests_running{"):
            return float(line.rpartition(" ")[2])
    raise AssertionError("the server reports no vllm:num_requests_running")


def begins(server: LiveServer) -> bool:
    """Whether the server works on anything before long. A busy one takes seconds to say so."""
    deadline = time.monotonic() + 5 * SOON
    while running(server) == 0:
        if time.monotonic() > deadline:
            return False
    return True


def comes_to(server: LiveServer, count: int) -> bool:
    """Whether the server works on so many requests before long."""
    deadline = time.monotonic() + SOON
    while running(server) != count:
        if time.monotonic() > deadline:
            return False
    return True


def leave_by_the_block(stream: ChatStream) -> None:
    with stream:
        for _, _ in zip(stream, range(3), strict=False):
            pass


def leave_by_close(stream: ChatStream) -> None:
    next(stream)
    stream.close()


def leave_the_events(stream: ChatStream) -> None:
    with stream:
        next(stream.events())


def leave_by_error(stream: ChatStream) -> None:
    with contextlib.suppress(LookupError), stream:
        next(stream)
        raise LookupError


@pytest.mark.parametrize("leave", [leave_by_the_block, leave_by_close, leave_the_events, leave_by_error])
def test_leaving_a_stream_stops_the_server(
    llm: VLLMProvider, vllm_server: LiveServer, leave: Callable[[ChatStream], None]
) -> None:
    assert comes_to(vllm_server, 0)
    begun = time.monotonic()
    stream = llm.stream("Count from 1 to 100.", **LONG)
    leave(stream)
    assert comes_to(vllm_server, 0)
    assert time.monotonic() - begun < 2 * SOON
    assert stream.completion.finish_reason is None
    assert llm.chat(CAPITAL, **PARAMS).text == ANSWER


@pytest.mark.anyio
@pytest.mark.parametrize(
    "how",
    [
        "aclose",
        "block",
        "events",
        "cancelled stream",
        pytest.param("cancelled chat", marks=pytest.mark.needs("metrics at work")),
    ],
)
async def test_leaving_an_asynchronous_call_stops_the_server(
    allm: VLLMProvider, vllm_server: LiveServer, how: str
) -> None:
    first = anyio.Event()

    async def work() -> None:
        stream = allm.astream("Count from 1 to 100.", **(LONGER if how == "cancelled stream" else LONG))
        if how == "aclose":
            await anext(stream)
            await stream.aclose()
        elif how == "block":
            async with stream:
                await anext(stream)
        elif how == "events":
            async with stream:
                await anext(stream.events())
        elif how == "cancelled stream":
            async with stream:
                await anext(stream)
                first.set()
                await stream.until_done()
        else:
            await allm.achat("Count from 1 to 100.", **LONGER)

    assert await anyio.to_thread.run_sync(comes_to, vllm_server, 0)
    begun = time.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        if how.startswith("cancelled"):
            if how == "cancelled stream":
                await first.wait()
            else:
                assert await anyio.to_thread.run_sync(begins, vllm_server)
            begun = time.monotonic()
            group.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(comes_to, vllm_server, 0)
    assert time.monotonic() - begun < 3 * SOON
    assert (await allm.achat(CAPITAL, **PARAMS)).text == ANSWER
