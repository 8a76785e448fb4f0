"""One provider in many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.chats import answer_any
from support.pools import drop_connections, held, sync_pool
from vllmchat import InvalidRequestError, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scripted import ScriptedServer


@pytest.fixture
def llm(scripted: ScriptedServer) -> VLLMProvider:
    scripted.always(answer_any)
    return VLLMProvider("m", base_url=scripted.base_url)


def in_threads(job: Callable[[int], None], count: int = 16) -> None:
    """Runs a job in many threads that start together."""
    together = threading.Barrier(count)

    def run(number: int) -> None:
        together.wait()
        job(number)

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(run, range(count)))


def test_calls_do_not_mix(llm: VLLMProvider, scripted: ScriptedServer) -> None:
    def job(number: int) -> None:
        for turn in range(10):
            text = f"{number}-{turn}"
            if turn % 2:
                assert llm.chat(text).text == text
            else:
                assert "".join(chunk.text for chunk in llm.stream(text)) == text

    in_threads(job)
    assert scripted.connections <= 16
    pool = sync_pool(llm)
    assert held(pool) == (scripted.connections, 0, 0)
    llm.close()
    assert scripted.wait_open(0)


def test_closing_while_others_call(llm: VLLMProvider, scripted: ScriptedServer) -> None:
    def job(number: int) -> None:
        for turn in range(10):
            if number == 0:
                # The connections only: a provider that is closed is not called any more.
                drop_connections(llm)
            else:
                assert llm.chat(str(turn)).text == str(turn)

    in_threads(job)
    llm.close()
    assert scripted.wait_open(0)
    assert held(sync_pool(llm)) == (0, 0, 0)


def test_calls_that_run_when_it_is_closed_are_answered(llm: VLLMProvider, scripted: ScriptedServer) -> None:
    def job(number: int) -> None:
        if number == 0:
            llm.close()
            return
        for turn in range(10):
            try:
                text = llm.chat(str(turn)).text
            except InvalidRequestError:
                return
            assert text == str(turn)

    in_threads(job)


def test_the_first_calls_share_one_pool(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    for turn in range(1, 11):
        llm = VLLMProvider("m", base_url=scripted.base_url, max_connections=1)
        in_threads(partial(_chat, llm), 8)
        assert scripted.connections == turn
        llm.close()


def _chat(llm: VLLMProvider, number: int) -> None:
    assert llm.chat(str(number)).text == str(number)


def test_a_stream_may_be_handed_to_another_thread(llm: VLLMProvider, scripted: ScriptedServer) -> None:
    stream = llm.stream("Hi")
    first = next(stream).text
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(lambda: [chunk.text for chunk in stream]).result()
    assert [first, *rest] == ["H", "i", ""]
    assert llm.chat("Hi").text == "Hi"
    assert scripted.connections == 1
    llm.close()
