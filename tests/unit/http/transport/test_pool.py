"""The connection pools: reuse, expiry, max_connections and its queue, forks and garbage collection."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from support.chats import answer_any, chunk, chunks, completion
from support.pools import async_pool, held, hold_locks, idle_connections, pool_of, sync_pool, wait_until
from support.scripted import Answer, Gate, ScriptedServer, close, head, in_thread, never, reply, script
from vllmchat import APIConnectionError, APITimeoutError, ChatCompletion, Timeout, VLLMProvider
from vllmchat.http.clock import Clock, monotonic
from vllmchat.http.flow import Send
from vllmchat.http.transport import pool
from vllmchat.http.transport.connection import AsyncConnection, SyncConnection
from vllmchat.http.transport.pool import KEEP_ALIVE_SECONDS, LONGEST_KEEP_ALIVE, SyncPool
from vllmchat.http.url import BaseURL

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from support.runners import Runner


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return monotonic() + self.ahead


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The pools' clock."""
    time = Time()
    monkeypatch.setattr(pool, "monotonic", time)
    return time


# ------------------------------------------------------------------------------------------------
# Reuse
# ------------------------------------------------------------------------------------------------


def test_sequential_calls_share_a_connection(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    for _ in range(5):
        assert runner.chat(llm).text == "Hi"
        assert runner.stream(llm).texts() == ["H", "i"]
    scripted.reply({"error": {"message": "no"}}, 400)
    with pytest.raises(Exception, match="no"):
        runner.chat(llm)
    runner.chat(llm)
    assert scripted.connections == 1
    assert held(pool_of(runner, llm)) == (1, 0, 0)
    runner.close(llm)
    assert scripted.wait_client_closed()


@pytest.mark.anyio
async def test_concurrent_calls_have_a_connection_each(scripted: ScriptedServer) -> None:
    gate = Gate()
    scripted.always(_held(gate))
    async with VLLMProvider("m", base_url=scripted.base_url) as llm:
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(llm.achat, "Hi")
            assert await in_thread(lambda: scripted.wait_requests(12))
            gate.release()
        assert scripted.connections == 12
        pool = await async_pool(llm)
        assert held(pool) == (12, 0, 0)
        for _ in range(5):
            await llm.achat("Hi")
        assert scripted.connections == 12


def _held(gate: Gate) -> Answer:
    """A response that begins when the gate opens."""
    return script(gate, *reply(completion("Hi")).steps)


def test_threads_have_a_connection_each(scripted: ScriptedServer) -> None:
    gate = Gate()
    scripted.always(_held(gate))
    with VLLMProvider("m", base_url=scripted.base_url) as llm, ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(llm.chat, "Hi") for _ in range(8)]
        assert scripted.wait_requests(8)
        gate.release()
        assert [call.result().text for call in calls] == ["Hi"] * 8
        assert scripted.connections == 8
        assert held(sync_pool(llm)) == (8, 0, 0)


def test_the_newest_connection_is_reused_and_old_ones_are_dropped(
    scripted: ScriptedServer, time: Time
) -> None:
    gate = Gate()
    scripted.always(_held(gate))
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        with ThreadPoolExecutor(3) as threads:
            calls = [threads.submit(llm.chat, "Hi") for _ in range(3)]
            assert scripted.wait_requests(3)
            gate.release()
            assert all(call.result() for call in calls)
        time.ahead = LONGEST_KEEP_ALIVE - 1
        llm.chat("Hi")
        taken = scripted.requests[-1].connection
        llm.chat("Hi")
        assert scripted.requests[-1].connection == taken
        assert held(sync_pool(llm))[0] == 3
        # The other two have expired in the meantime; the one that was used has not.
        time.ahead = LONGEST_KEEP_ALIVE + 0.5
        llm.chat("Hi")
        assert scripted.requests[-1].connection == taken
        assert scripted.connections == 3
        assert held(sync_pool(llm))[0] == 1
        assert scripted.wait_open(1)


def test_a_server_that_keeps_connections_is_asked_on_the_same_one(
    scripted: ScriptedServer, runner: Runner, time: Time
) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    runner.chat(llm)
    for pause in (3.0, 7.0, 50.0, LONGEST_KEEP_ALIVE - 1):
        time.ahead += pause
        runner.chat(llm)
        assert scripted.connections == 1
    time.ahead += LONGEST_KEEP_ALIVE + 0.01
    runner.chat(llm)
    assert scripted.connections == 2
    assert scripted.wait_open(1)
    runner.close(llm)


def test_how_long_a_server_keeps_connections_is_learned(
    scripted: ScriptedServer, runner: Runner, time: Time
) -> None:
    """It closes them after five seconds, as vLLM's does. The margin comes back once that was seen."""
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    gate = Gate()
    scripted.reply(completion())
    scripted.reply(completion(), then=[gate, close])
    runner.chat(llm)
    time.ahead += 4.5
    runner.chat(llm)
    assert scripted.connections == 1
    gate.release()
    assert scripted.wait_open(0)
    time.ahead += 6.0
    scripted.always(answer_any)
    runner.chat(llm)
    assert scripted.connections == 2
    time.ahead += 4.5
    runner.chat(llm)
    assert scripted.connections == 3
    time.ahead += 3.5
    runner.chat(llm)
    assert scripted.connections == 3
    assert KEEP_ALIVE_SECONDS < 5.0
    runner.close(llm)


def test_a_server_that_restarts_says_nothing_about_how_long_it_keeps_connections(
    scripted: ScriptedServer, runner: Runner, time: Time
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    gate = Gate()
    scripted.reply(completion())
    scripted.reply(completion(), then=[gate, close])
    runner.chat(llm)
    time.ahead += 30.0
    runner.chat(llm)
    gate.release()
    assert scripted.wait_open(0)
    time.ahead += 1.0
    scripted.always(answer_any)
    runner.chat(llm)
    time.ahead += 30.0
    runner.chat(llm)
    assert scripted.connections == 2
    runner.close(llm)


@pytest.mark.parametrize(
    ("header", "longest"),
    [
        ("timeout=20", 19.0),
        ("max=100, Timeout = 75", 74.0),
        ("timeout=1", 0.5),
        ("timeout=99999", 300.0),
        ("timeout=soon", LONGEST_KEEP_ALIVE),
    ],
)
def test_the_keep_alive_header_says_how_long(
    header: str, longest: float, scripted: ScriptedServer, runner: Runner, time: Time
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url)
    for _ in range(3):
        scripted.reply(completion(), headers={"keep-alive": header})
    runner.chat(llm)
    time.ahead += longest - 0.1
    runner.chat(llm)
    assert scripted.connections == 1
    time.ahead += longest + 0.1
    runner.chat(llm)
    assert scripted.connections == 2
    runner.close(llm)


def test_a_connection_that_the_server_closed_is_not_used(scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    gate = Gate()
    scripted.reply(completion(), then=[gate, close])
    runner.chat(llm)
    gate.release()
    assert scripted.wait_open(0)
    if runner.portal is not None:
        # The event loop must have noticed it.
        runner.portal.call(anyio.wait_all_tasks_blocked)
    scripted.reply(completion("two"))
    assert runner.chat(llm).text == "two"
    assert scripted.connections == 2
    runner.close(llm)


@pytest.mark.parametrize("header", [{"connection": "close"}, {"content-length": None}])
def test_a_server_that_does_not_keep_connections(
    header: dict[str, str | None], scripted: ScriptedServer, runner: Runner
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    for number in range(1, 3):
        scripted.reply(completion(), headers=header)
        runner.chat(llm)
        assert scripted.connections == number
        assert held(pool_of(runner, llm))[1:] == (0, 0)
    assert scripted.wait_open(0)
    runner.close(llm)


def test_a_call_costs_the_same_however_many_connections_are_idle(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    runner.chat(llm)
    pool = pool_of(runner, llm)
    idle_connections(pool).extendleft(cast("Any", [_Idle() for _ in range(500)]))
    looked: list[object] = []
    for cls in (SyncConnection, AsyncConnection):
        for name in ("is_idle", "is_open"):
            monkeypatch.setattr(cls, name, _counting(getattr(cls, name), looked))
    runner.chat(llm)
    assert scripted.connections == 1
    # Once when it is taken and once when it is returned, and never another one.
    assert len(looked) == 2
    assert len(set(looked)) == 1
    assert all(line.asked == 0 for line in cast("Any", list(idle_connections(pool))[:500]))
    runner.close(llm)


class _Idle:
    """Stands in for an idle connection deep in the stack."""

    idle_since = float("inf")

    def __init__(self) -> None:
        self.asked = 0
        self.backend = self

    def is_open(self) -> bool:
        self.asked += 1
        return True

    def abort(self) -> None: ...


def _counting(method: Callable[..., bool], looked: list[object]) -> Callable[..., bool]:
    def counting(self: object) -> bool:
        looked.append(self)
        return method(self)

    return counting


# ------------------------------------------------------------------------------------------------
# max_connections
# ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_max_connections_is_enforced(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    async with VLLMProvider("m", base_url=scripted.base_url, max_connections=2) as llm:
        pool = await async_pool(llm)
        texts: list[str] = []

        async def chat(text: str) -> None:
            texts.append((await llm.achat(text)).text)

        async with llm.astream("Hi"), llm.astream("Hi"), anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(chat, str(number))
            await anyio.wait_all_tasks_blocked()
            assert held(pool) == (0, 2, 20)
            assert scripted.connections == 2
            group.cancel_scope.cancel()
        assert texts == []
        assert held(pool) == (0, 0, 0)
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(chat, str(number))
        assert sorted(texts, key=int) == [str(number) for number in range(20)]
        assert scripted.connections == 4
        assert held(pool) == (2, 0, 0)


def test_a_new_connection_takes_the_place_of_an_idle_one(scripted: ScriptedServer, runner: Runner) -> None:
    """An attempt that must not reuse a connection follows a pause, in which others have returned theirs."""
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url, max_connections=2)
    pool = pool_of(runner, llm)
    with runner.stream(llm) as stream:
        runner.chat(llm)
        stream.until_done()
    assert held(pool) == (2, 0, 0)
    clock = Clock(Timeout())
    clock.force_new = True
    step = Send("GET", BaseURL.parse(scripted.base_url, add_v1=True), "/v1/x", {}, None, "r")
    scripted.reply(completion())
    if isinstance(pool, SyncPool):
        answer = pool.send(step, clock)
        assert held(pool) == (1, 1, 0)
        answer.close()
    else:

        async def send() -> None:
            answer = await pool.send(step, clock)
            assert held(pool) == (1, 1, 0)
            await answer.aclose()

        assert runner.portal is not None
        runner.portal.call(send)
    assert scripted.wait_open(1)
    runner.close(llm)


@pytest.mark.anyio
async def test_the_queue_is_fair(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    async with VLLMProvider("m", base_url=scripted.base_url, max_connections=1) as llm:
        async with anyio.create_task_group() as group, llm.astream("Hi") as stream:
            for number in range(6):
                group.start_soon(llm.achat, str(number))
                await anyio.wait_all_tasks_blocked()
            # A caller that was denied a turn must not precede those that wait: neither here nor at the next turns.
            await stream.until_done()
            group.start_soon(llm.achat, "6")
        sent = [cast("Any", request.json()["messages"])[0]["content"] for request in scripted.requests]
        assert sent == ["Hi", *"0123456"]
        assert scripted.connections == 1


def test_max_connections_is_enforced_across_threads(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    with (
        VLLMProvider("m", base_url=scripted.base_url, max_connections=3) as llm,
        ThreadPoolExecutor(16) as threads,
    ):
        texts = [str(number) for number in range(100)]
        assert [reply.text for reply in threads.map(llm.chat, texts)] == texts
        assert scripted.connections == 3
        assert held(sync_pool(llm))[1:] == (0, 0)


def test_threads_wait_in_order(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    with (
        VLLMProvider("m", base_url=scripted.base_url, max_connections=1) as llm,
        ThreadPoolExecutor(4) as threads,
    ):
        pool = sync_pool(llm)
        with llm.stream("Hi"):
            calls: list[Future[ChatCompletion]] = []
            for number in range(4):
                calls.append(threads.submit(llm.chat, str(number)))
                wait_until(lambda: held(pool).waiting == len(calls))
        assert [call.result().text for call in calls] == list("0123")
    sent = [cast("Any", request.json()["messages"])[0]["content"] for request in scripted.requests]
    assert sent == ["Hi", *"0123"]


def test_waiting_for_a_connection_ends_at_total(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url, max_connections=1)
    with runner.stream(llm) as stream:
        with pytest.raises(APITimeoutError) as caught:
            runner.chat(llm, timeout=0.05)
        assert (caught.value.limit, caught.value.seconds) == ("total", 0.05)
        assert held(pool_of(runner, llm)) == (0, 1, 0)
        assert stream.texts() == ["H", "i"]
    assert runner.chat(llm).text == "Hi"
    assert len(scripted.requests) == 2
    runner.close(llm)


@pytest.mark.anyio
async def test_leaving_the_queue(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    texts: list[str] = []
    async with VLLMProvider("m", base_url=scripted.base_url, max_connections=1) as llm:
        pool = await async_pool(llm)
        async with anyio.create_task_group() as group, llm.astream("Hi") as stream:
            scopes = [anyio.CancelScope() for _ in range(3)]

            async def chat(number: int) -> None:
                with scopes[number]:
                    texts.append((await llm.achat(str(number))).text)

            for number in range(3):
                group.start_soon(chat, number)
                await anyio.wait_all_tasks_blocked()
            scopes[1].cancel()
            await anyio.wait_all_tasks_blocked()
            assert held(pool) == (0, 1, 2)
            await stream.until_done()
            # The turn has just been given to the first one, which leaves before it can take it.
            scopes[0].cancel()
        assert texts == ["2"]
        assert held(pool)[1:] == (0, 0)


def test_a_task_that_is_cancelled_with_its_turn(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)

    async def main() -> None:
        async with VLLMProvider("m", base_url=scripted.base_url, max_connections=1) as llm:
            pool = await async_pool(llm)
            async with llm.astream("Hi") as stream:
                tasks = [asyncio.ensure_future(llm.achat(str(number))) for number in range(2)]
                await anyio.wait_all_tasks_blocked()
                assert held(pool) == (0, 1, 2)
                await stream.until_done()
                assert held(pool) == (1, 1, 1)
                tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
            assert (await tasks[1]).text == "1"
            assert held(pool) == (1, 0, 0)
        assert scripted.connections == 1

    asyncio.run(main())


def test_a_thread_that_is_interrupted_in_the_queue(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(answer_any)
    with VLLMProvider("m", base_url=scripted.base_url, max_connections=1) as llm:
        pool = sync_pool(llm)
        for granted in (False, True):
            with llm.stream("Hi") as stream:
                with monkeypatch.context() as patched:
                    _queue_with(_Interrupted(stream.close if granted else None), patched)
                    with pytest.raises(KeyboardInterrupt):
                        llm.chat("Ho")
                assert held(pool)[1:] == (0 if granted else 1, 0)
        assert llm.chat("Hu").text == "Hu"
        assert held(pool)[1:] == (0, 0)


class _Interrupted:
    """A lock; Ctrl-C comes while a caller waits for it."""

    def __init__(self, meanwhile: Callable[[], None] | None) -> None:
        self._meanwhile = meanwhile

    def acquire(self, timeout: float | None = None) -> bool:
        if timeout is None:
            return True
        if self._meanwhile is not None:
            self._meanwhile()
        raise KeyboardInterrupt

    def release(self) -> None: ...


def _queue_with(lock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the pool's next caller wait for this lock."""
    module = SimpleNamespace(Lock=lambda: lock, TIMEOUT_MAX=threading.TIMEOUT_MAX)
    monkeypatch.setattr(pool, "threading", module)


def test_a_turn_that_comes_as_the_wait_ends_is_used(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(answer_any)
    with VLLMProvider("m", base_url=scripted.base_url, max_connections=1) as llm:
        stream = llm.stream("Hi")
        stream.__enter__()

        class Late(_Interrupted):
            def acquire(self, timeout: float | None = None) -> bool:
                if timeout is not None:
                    stream.close()
                return timeout is None

        with monkeypatch.context() as patched:
            _queue_with(Late(None), patched)
            assert llm.chat("Ho").text == "Ho"
        assert held(sync_pool(llm))[1:] == (0, 0)


def test_a_connection_that_cannot_be_made(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, max_connections=1)

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(pool, "SyncConnection", fail)
        patched.setattr(pool, "AsyncConnection", fail)
        with pytest.raises(MemoryError):
            runner.chat(llm)
    assert held(pool_of(runner, llm)) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------
# Closing
# ------------------------------------------------------------------------------------------------


def test_a_pool_is_usable_after_its_close(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    runner.drop_connections(llm)
    for number in range(1, 3):
        runner.chat(llm)
        assert scripted.connections == number
        runner.drop_connections(llm)
        runner.drop_connections(llm)
        assert scripted.wait_open(0)


def test_closed_while_in_use(scripted: ScriptedServer, runner: Runner) -> None:
    gate = Gate()
    scripted.stream([chunk("a"), gate, chunk("b", "stop")])
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with runner.stream(llm) as stream:
        chunks = iter(stream)
        assert next(chunks).text == "a"
        runner.close(llm)
        assert scripted.open_connections == 1
        gate.release()
        assert [chunk.text for chunk in chunks] == ["b"]
    assert scripted.wait_client_closed()
    assert held(pool_of(runner, llm)) == (0, 0, 0)


def test_an_unread_response_is_garbage_collected(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.stream([chunk("a"), never])
    llm = VLLMProvider("m", base_url=scripted.base_url, max_connections=1)
    stream = runner.stream(llm)
    chunks = iter(stream)
    assert next(chunks).text == "a"
    del chunks, stream
    gc.collect()
    assert scripted.wait_client_closed()
    scripted.reply(completion("next"))
    assert runner.chat(llm, timeout=5).text == "next"
    runner.close(llm)


def test_a_response_is_garbage_collected_while_a_caller_joins_the_queue(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.stream([chunk("a"), never])
    llm = VLLMProvider("m", base_url=scripted.base_url, max_connections=1)
    held_by_itself: list[object] = [runner.stream(llm)]
    next(cast("Any", held_by_itself[0]))
    held_by_itself.append(held_by_itself)
    del held_by_itself

    def collecting(make: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            gc.collect()
            return make()

        return call

    scripted.reply(completion("next"))
    with monkeypatch.context() as patched:
        module = SimpleNamespace(Lock=collecting(threading.Lock), TIMEOUT_MAX=threading.TIMEOUT_MAX)
        patched.setattr(pool, "threading", module)
        patched.setattr(anyio, "Event", collecting(anyio.Event))
        assert runner.chat(llm, timeout=5).text == "next"
    runner.close(llm)


def test_a_provider_is_garbage_collected(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    runner.chat(llm)
    del llm
    gc.collect()
    assert scripted.wait_client_closed()


# ------------------------------------------------------------------------------------------------
# Fork
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def in_child() -> Callable[[Callable[[], bool]], bool]:
    """Runs something in a forked process and returns whether it was true there."""
    if not hasattr(os, "fork"):
        pytest.skip("this platform cannot fork")

    def run(job: Callable[[], bool]) -> bool:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if job() else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return run


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_process_has_its_own_connections(
    scripted: ScriptedServer, in_child: Callable[[Callable[[], bool]], bool]
) -> None:
    scripted.always(answer_any)
    with VLLMProvider("m", base_url=scripted.base_url, max_connections=2) as llm:
        assert llm.chat("one").text == "one"
        stream = llm.stream("Hi")
        stream.__enter__()
        pool = sync_pool(llm)

        def child() -> bool:
            stream.close()
            one, two = llm.chat("three").text, llm.chat("four").text
            pool.close()
            llm.close()
            return (one, two) == ("three", "four") and held(sync_pool(llm)) == (0, 0, 0)

        with hold_locks(llm):
            assert in_child(child)
        assert llm.chat("two").text == "two"
        assert stream.until_done().text == "Hi"
    used = {
        cast("Any", request.json()["messages"])[0]["content"]: request.connection
        for request in scripted.requests
    }
    assert used["one"] == used["Hi"]
    assert used["three"] == used["four"]
    assert len({used["one"], used["two"], used["three"]}) == 3


def test_connections_of_the_parent_process_are_dropped(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, seen from inside: the pool of another process takes nothing back, and waits for no lock."""
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    stream = llm.stream("Hi")
    stream.__enter__()
    pool = sync_pool(llm)
    with hold_locks(llm):
        monkeypatch.setattr(os, "getpid", lambda: -1)
        stream.close()
        assert scripted.wait_client_closed()
        assert llm.chat("Ho").text == "Ho"
        pool.close()
        assert held(pool) == (0, 0, 0)
        assert held(sync_pool(llm)) == (1, 0, 0)
        llm.close()
        assert scripted.wait_open(0)


def test_a_discarded_response(scripted: ScriptedServer) -> None:
    scripted.script(head(200), never)
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        step = Send("GET", BaseURL.parse(scripted.base_url, add_v1=True), "/v1/x", {}, None, "r")
        answer = sync_pool(llm).send(step, Clock(Timeout()))
        assert answer.status == 200
        del answer
        gc.collect(1)
        assert scripted.wait_client_closed()
        assert held(sync_pool(llm)) == (0, 0, 0)


def test_a_finished_response_returns_nothing_more(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.reply(completion())
    llm = VLLMProvider("m", base_url=scripted.base_url)
    pool = pool_of(runner, llm)
    step = Send("GET", BaseURL.parse(scripted.base_url, add_v1=True), "/v1/x", {}, None, "r")
    if isinstance(pool, SyncPool):
        answer = pool.send(step, Clock(Timeout()))
        while answer.read():
            pass
        assert answer.read() == b""
        answer.close()
    else:

        async def main() -> None:
            answer = await pool.send(step, Clock(Timeout()))
            while await answer.read():
                pass
            assert await answer.read() == b""
            answer.abort()
            await answer.aclose()

        assert runner.portal is not None
        runner.portal.call(main)
    assert held(pool) == (1, 0, 0)
    runner.close(llm)


def test_a_connection_that_fails_is_not_kept(scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0, timeout=Timeout(first_token=0.05))
    scripted.script(never)
    with pytest.raises(APITimeoutError):
        runner.chat(llm)
    assert scripted.wait_client_closed()
    scripted.script(close)
    with pytest.raises(APIConnectionError):
        runner.chat(llm)
    assert held(pool_of(runner, llm)) == (0, 0, 0)


def test_a_connection_whose_end_lies_in_the_kernel_is_not_used(
    scripted: ScriptedServer, runner: Runner
) -> None:
    """The event loop has not read the end yet when the next call begins."""
    llm = VLLMProvider("m", base_url=scripted.base_url, max_retries=0)
    for number in range(1, 6):
        scripted.stream([*chunks("a"), close])
        assert runner.stream(llm).texts() == ["a"]
        assert scripted.wait_open(0)
        assert len(scripted.requests) == number
    assert scripted.connections == 5
    runner.close(llm)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["sync", "trio"], indirect=True)
def test_idle_connections_are_let_go_of_without_another_call(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "KEEP_ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(pool, "LONGEST_KEEP_ALIVE", 0.1)
    gate = Gate()
    scripted.always(_held(gate))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with ThreadPoolExecutor(5) as threads:
        calls = [threads.submit(runner.chat, llm) for _ in range(5)]
        assert scripted.wait_requests(5)
        gate.release()
        assert all(call.result() for call in calls)
    assert scripted.wait_open(0)
    assert held(pool_of(runner, llm)) == (0, 0, 0)
    runner.close(llm)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_loses_no_permission(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    inside = {"pool.py", "connection.py"}
    with VLLMProvider("m", base_url=scripted.base_url, max_connections=1) as llm:
        llm.chat("Hi")
        lines = 0
        for place in range(1, 1000):
            lines, interrupted = 0, False

            def trace(frame: FrameType, event: str, _: object, place: int = place) -> Any:
                nonlocal lines
                if os.path.basename(frame.f_code.co_filename) not in inside:
                    return None
                if event == "line":
                    lines += 1
                    if lines == place:
                        raise KeyboardInterrupt
                return trace

            before = sys.gettrace()  # of coverage
            sys.settrace(trace)
            try:
                llm.chat("Hi")
            except KeyboardInterrupt:
                interrupted = True
            finally:
                sys.settrace(before)
            if not interrupted:
                break
            assert held(sync_pool(llm))[1:] == (0, 0), place
        assert lines > 25
        assert llm.chat("Hi").text == "Hi"
    # A connection that was in nobody's hands is closed with its socket, which warns.
    gc.collect()
