"""A call that is cancelled at any point: no connection stays open, and the provider keeps working."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from support.chats import answer_any, chunk, chunks
from support.pools import adrop_connections, async_pool, drop_connections, held, sync_pool
from support.scripted import (
    DONE,
    Gate,
    ScriptedServer,
    in_thread,
    never,
    reply,
    script,
    stream,
    unanswering_origin,
)
from support.tls import Authority
from vllmchat import VLLMProvider
from vllmchat.http import exchange
from vllmchat.http.clock import Clock
from vllmchat.http.transport import sync_backend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.scripted import Answer, Request

pytestmark = pytest.mark.slow

Method = Callable[[VLLMProvider], Coroutine[Any, Any, object]]


async def chat(llm: VLLMProvider) -> object:
    return await llm.achat("Hi")


async def read_stream(llm: VLLMProvider) -> object:
    return await llm.astream("Hi").until_done()


async def read_events(llm: VLLMProvider) -> object:
    return [event async for event in llm.astream("Hi").events()]


async def leave_stream(llm: VLLMProvider) -> object:
    async with llm.astream("Hi") as opened:
        return await anext(opened)


METHODS = pytest.mark.parametrize("method", [chat, read_stream, read_events, leave_stream])


@pytest.fixture(autouse=True)
def nothing_complains(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is left behind that asyncio would report, such as an exception that was never retrieved."""
    yield
    gc.collect(1)
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=["http", "https"])
def server(
    request: pytest.FixtureRequest, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ScriptedServer]:
    secure = request.param == "https"
    if secure:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path).ca))
    with ScriptedServer(tls=authority.server_context() if secure else None) as server:
        server.always(answer_any)
        yield server


async def check_usable(llm: VLLMProvider, server: ScriptedServer) -> None:
    """No connection is in use, the open ones are idle, and another call works."""
    await anyio.wait_all_tasks_blocked()
    pool = await async_pool(llm)
    idle = held(pool).idle
    assert held(pool) == (idle, 0, 0)
    assert await in_thread(lambda: server.wait_open(idle))
    server.always(answer_any)
    assert (await llm.achat("again")).text == "again"


# ------------------------------------------------------------------------------------------------
# At a point that the test chooses
# ------------------------------------------------------------------------------------------------


def busy_for_ever(_: Request) -> Answer:
    return reply({"error": {"message": "busy"}}, 503, {"retry-after": "50"})


POINTS: dict[str, Any] = {
    "waiting for the head": script(never),
    "in the middle of the head": script(b"HTTP/1.1 200 OK\r\ncontent-", never),
    "in the body": stream([chunk("a"), never]),
    "in the body of a reply": script(
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b'{"choices"', never
    ),
    "in the body of an error": script(b"HTTP/1.1 400 No\r\ncontent-length: 100\r\n\r\n{", never),
    "in a pause between attempts": busy_for_ever,
}


AT_POINTS = pytest.mark.parametrize(
    ("method", "point"),
    [
        (method, point)
        for method in (chat, read_stream, read_events, leave_stream)
        for point in POINTS
        # This one has finished already.
        if (method, point) != (leave_stream, "in the body")
    ],
)


async def reach(server: ScriptedServer, count: int = 1) -> None:
    assert await in_thread(lambda: server.wait_requests(count))
    await anyio.wait_all_tasks_blocked()


@AT_POINTS
@pytest.mark.anyio
async def test_a_scope_is_cancelled(method: Method, point: str, scripted: ScriptedServer) -> None:
    scripted.always(POINTS[point])
    async with VLLMProvider("m", base_url=scripted.base_url) as llm:
        async with anyio.create_task_group() as group:
            group.start_soon(method, llm)
            await reach(scripted)
            group.cancel_scope.cancel()
        await check_usable(llm, scripted)


@AT_POINTS
@pytest.mark.parametrize("times", [1, 2])
def test_a_task_is_cancelled(method: Method, point: str, times: int, scripted: ScriptedServer) -> None:
    scripted.always(POINTS[point])

    async def main() -> None:
        async with VLLMProvider("m", base_url=scripted.base_url) as llm:
            task = asyncio.ensure_future(method(llm))
            await reach(scripted)
            for _ in range(times):
                task.cancel()
                # The second time while the first cancellation is being handled.
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            await check_usable(llm, scripted)

    asyncio.run(main())


@pytest.mark.parametrize("point", ["waiting for the head", "in the body", "in a pause between attempts"])
def test_asyncio_timeout(point: str, scripted: ScriptedServer) -> None:
    scripted.always(POINTS[point])

    async def main() -> None:
        async with VLLMProvider("m", base_url=scripted.base_url) as llm:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await read_stream(llm)
            await check_usable(llm, scripted)

    asyncio.run(main())


@pytest.mark.anyio
async def test_cancelled_while_it_connects() -> None:
    with unanswering_origin() as origin:
        llm = VLLMProvider("m", base_url=origin)
        async with anyio.create_task_group() as group:
            group.start_soon(llm.achat, "Hi")
            await anyio.wait_all_tasks_blocked()
            assert held(await async_pool(llm)) == (0, 1, 0)
            group.cancel_scope.cancel()
        assert held(await async_pool(llm)) == (0, 0, 0)


@pytest.mark.anyio
async def test_cancelled_in_a_tls_handshake(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path).ca))
    with ScriptedServer(tls=authority.server_context()) as server:
        server.at_connect(gate := Gate())
        async with VLLMProvider("m", base_url=server.base_url) as llm:
            async with anyio.create_task_group() as group:
                group.start_soon(llm.achat, "Hi")
                await in_thread(gate.wait_reached)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            await check_usable(llm, server)


@pytest.mark.anyio
async def test_cancelled_in_the_drain(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is complete, but the formal end of the response does not arrive."""
    monkeypatch.setattr(exchange, "_DRAIN_SECONDS", 50)
    scripted.stream([*chunks("a"), DONE, gate := Gate()], done=False)
    async with VLLMProvider("m", base_url=scripted.base_url) as llm:
        async with anyio.create_task_group() as group:
            group.start_soon(read_stream, llm)
            await in_thread(gate.wait_reached)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        await check_usable(llm, scripted)


@pytest.mark.anyio
async def test_many_are_cancelled_at_once(scripted: ScriptedServer) -> None:
    scripted.always(stream([chunk("a"), never]))
    async with VLLMProvider("m", base_url=scripted.base_url, max_connections=6) as llm:
        for turn in range(1, 6):
            async with anyio.create_task_group() as group:
                for _ in range(14):
                    group.start_soon(read_stream, llm)
                await reach(scripted, 6 * turn)
                group.cancel_scope.cancel()
            assert held(await async_pool(llm)) == (0, 0, 0)
        await check_usable(llm, scripted)


# ------------------------------------------------------------------------------------------------
# At every possible point
# ------------------------------------------------------------------------------------------------


class CancelAt:
    """Runs a coroutine step by step, and cancels the task that runs it after some of its steps."""

    def __init__(self, coroutine: Any, step: int, cancel: Callable[[], object]) -> None:
        self._coroutine = coroutine
        self._step = step
        self._cancel = cancel

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        inner = self._coroutine.__await__()
        while True:
            try:
                waiting = inner.send(value) if error is None else inner.throw(error)
            except StopIteration as stop:
                return stop.value
            self._step -= 1
            if self._step == 0:
                self._cancel()
            value = error = None
            try:
                value = yield waiting
            except BaseException as caught:
                error = caught


STEPS = 200
"""More than any call here takes."""


@METHODS
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.anyio
async def test_cancelled_after_every_step(method: Method, fresh: bool, server: ScriptedServer) -> None:
    """Loops over all steps of a call; it is cancelled at each of them in turn."""
    async with VLLMProvider("m", base_url=server.base_url, max_connections=1) as llm:
        for step in range(1, STEPS):
            if fresh:
                await adrop_connections(llm)
            scope = anyio.CancelScope()
            with scope:
                await CancelAt(method(llm), step, scope.cancel)
            await check_usable(llm, server)
            if not scope.cancel_called:
                assert step > 1
                return
    raise AssertionError("the call never ended")


@METHODS
@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_task_is_cancelled_after_every_step(method: Method, times: int, server: ScriptedServer) -> None:
    """The same with asyncio's own cancellation, which ignores shields; then repeatedly."""

    async def attempt(llm: VLLMProvider, step: int) -> bool:
        """Whether the call ended before it could be cancelled."""
        task = asyncio.current_task()
        assert task is not None
        called = False

        def cancel(left: int = times) -> None:
            nonlocal called
            called = True
            task.cancel()
            if left > 1:
                asyncio.get_running_loop().call_soon(cancel, left - 1)

        await CancelAt(method(llm), step, lambda: asyncio.get_running_loop().call_soon(cancel))
        return not called

    async def main() -> None:
        async with VLLMProvider("m", base_url=server.base_url, max_connections=1) as llm:
            for step in range(1, STEPS):
                await adrop_connections(llm)
                task = asyncio.ensure_future(attempt(llm, step))
                await asyncio.wait([task])
                await check_usable(llm, server)
                if not task.cancelled() and task.result():
                    assert step > 2
                    return
        raise AssertionError("the call never ended")

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------
# Ctrl-C in a sync call
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["chat", "stream"])
def test_keyboard_interrupt_at_every_step(
    method: str, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes while the call connects, writes, reads, or sleeps between two attempts."""
    left = 0

    def interrupting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return function(*args, **options)

        return call

    for owner, name in (
        (sync_backend.SyncNetworkBackend, "connect"),
        (sync_backend.SyncStream, "read"),
        (sync_backend.SyncStream, "write"),
    ):
        monkeypatch.setattr(owner, name, interrupting(getattr(owner, name)))
    monkeypatch.setattr(Clock, "sleep", interrupting(_no_sleep))
    with VLLMProvider("m", base_url=scripted.base_url, max_connections=1) as llm:
        for step in range(1, STEPS):
            drop_connections(llm)
            scripted.busy(1)
            scripted.always(answer_any)
            interrupted = False
            left = step
            try:
                if method == "chat":
                    assert llm.chat("Hi").text == "Hi"
                else:
                    assert "".join(chunk.text for chunk in llm.stream("Hi")) == "Hi"
            except KeyboardInterrupt:
                interrupted = True
            left = 0
            idle = held(sync_pool(llm)).idle
            assert held(sync_pool(llm)) == (idle, 0, 0)
            assert scripted.wait_open(idle)
            if not interrupted:
                assert step > 2
                return
            _empty(scripted)
    raise AssertionError("the call never ended")


def _no_sleep(_clock: Clock, _seconds: float) -> None: ...


def _empty(server: ScriptedServer) -> None:
    """Removes responses that were queued but not requested."""
    queue: Any = getattr(server, "_answers")  # noqa: B009 - it is private
    queue.clear()


def test_a_generator_over_a_stream_is_closed(scripted: ScriptedServer) -> None:
    scripted.stream([chunk("a"), never])
    llm = VLLMProvider("m", base_url=scripted.base_url)

    def words() -> Generator[str]:
        with llm.stream("Hi") as opened:
            for each in opened:
                yield each.text

    generator = words()
    assert next(generator) == "a"
    generator.close()
    assert scripted.wait_client_closed()
    scripted.stream([chunk("a"), never])
    events = llm.stream("Hi").events()
    next(events)
    del events
    gc.collect()
    assert scripted.wait_client_closed()
    llm.close()


@pytest.mark.anyio
async def test_an_async_generator_over_a_stream_is_closed(scripted: ScriptedServer) -> None:
    scripted.always(stream([chunk("a"), never]))
    async with VLLMProvider("m", base_url=scripted.base_url) as llm:

        async def words() -> AsyncGenerator[str, None]:
            async with llm.astream("Hi") as opened:
                async for each in opened:
                    yield each.text

        generator = words()
        assert await anext(generator) == "a"
        await generator.aclose()
        assert await in_thread(scripted.wait_client_closed)
        events = llm.astream("Hi").events()
        await anext(events)
        await events.aclose()
        assert await in_thread(scripted.wait_client_closed)
        await check_usable(llm, scripted)
