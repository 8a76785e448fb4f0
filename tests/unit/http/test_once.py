"""What a server is asked once: limits of those who wait, and what they get."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import pytest

from support.chats import completion
from support.pools import wait_until
from support.scripted import Gate, ScriptedServer, close, never, reply, script
from vllmchat import APIConnectionError, APITimeoutError, Timeout, VLLMProvider
from vllmchat.http.clock import Clock
from vllmchat.http.once import AsyncOnce, SyncOnce

if TYPE_CHECKING:
    from support.runners import Runner

MODELS = {"object": "list", "data": [{"id": "m"}]}


def test_a_timeout_covers_the_question_before_the_call(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.script(never)
    with pytest.raises(APITimeoutError) as caught:
        runner.chat(VLLMProvider(base_url=scripted.base_url), timeout=0.5)
    assert (caught.value.limit, caught.value.seconds) == ("total", 0.5)
    assert scripted.wait_requests(1)
    assert scripted.wait_client_closed()


def test_a_question_and_its_call_share_one_limit(scripted: ScriptedServer, runner: Runner) -> None:
    def slow(_: object) -> None:
        threading.Event().wait(0.15)

    scripted.add(script(slow, *reply(MODELS).steps), script(slow, slow, *reply(completion("late")).steps))
    with pytest.raises(APITimeoutError) as caught:
        runner.chat(VLLMProvider(base_url=scripted.base_url), timeout=0.3)
    assert caught.value.limit == "total"


def test_a_timeout_covers_the_wait_for_anothers_question(scripted: ScriptedServer) -> None:
    gate = Gate()
    scripted.add(script(gate, *reply(MODELS).steps), reply(completion("Hi")))
    llm = VLLMProvider(base_url=scripted.base_url)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(llm.chat, "Hi")
        gate.wait_reached()
        with pytest.raises(APITimeoutError, match="its model or version") as caught:
            llm.chat("Ho", timeout=0.05)
        assert caught.value.limit == "total"
        gate.release()
        assert first.result().text == "Hi"
    llm.close()


def test_each_thread_gets_an_exception_of_its_own(scripted: ScriptedServer) -> None:
    gate = Gate()
    scripted.script(gate, close)
    llm = VLLMProvider(base_url=scripted.base_url, max_retries=0)
    errors: list[APIConnectionError] = []
    lookup = SyncOnce()
    llm._clients.sync_client.state().lookups["model"] = lookup  # pyright: ignore[reportPrivateUsage]
    waiting = 0
    acquire = lookup.lock.acquire

    class Counting:
        def acquire(self, timeout: float = -1) -> bool:
            nonlocal waiting
            waiting += 1
            return acquire(timeout=timeout)

        release = lookup.lock.release

    lookup.lock = Counting()  # type: ignore[assignment] # it is used like one

    def ask() -> None:
        try:
            llm.chat("Hi")
        except APIConnectionError as error:
            errors.append(error)

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask) for _ in range(4)]
        gate.wait_reached()
        wait_until(lambda: waiting == 4)
        gate.release()
        assert all(each.result() is None for each in asked)
    assert len({id(error) for error in errors}) == 4
    assert len({str(error) for error in errors}) == 1
    assert len(scripted.requests) == 1


@pytest.mark.anyio
async def test_each_task_gets_an_exception_of_its_own() -> None:
    once: AsyncOnce = AsyncOnce()
    errors: list[Exception] = []
    asked = 0
    release = anyio.Event()

    async def fail() -> str:
        nonlocal asked
        asked += 1
        await release.wait()
        raise APIConnectionError("no", url="u")

    async def ask() -> None:
        try:
            await once.once(lambda: None, fail, Clock(Timeout()))
        except APIConnectionError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert (asked, len({id(error) for error in errors})) == (1, 50)
    for error in errors:
        frames = 0
        trace = error.__traceback__
        while trace is not None:
            frames, trace = frames + 1, trace.tb_next
        assert frames < 8


@pytest.mark.anyio
async def test_a_task_that_waits_too_long() -> None:
    once: AsyncOnce = AsyncOnce()
    async with anyio.create_task_group() as group:
        group.start_soon(once.once, lambda: None, anyio.sleep_forever, Clock(Timeout()))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(APITimeoutError):
            await once.once(lambda: None, anyio.sleep_forever, Clock(Timeout(total=0.01)))
        group.cancel_scope.cancel()
