"""One provider on many event loops: what was opened on a loop ends with it, without warnings."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from support.chats import answer_any, chunk
from support.pools import async_pool, held
from support.scripted import ScriptedServer, in_thread, never, stream
from support.tls import Authority
from vllmchat import AsyncChatStream, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scripted import Answer, Request

pytestmark = pytest.mark.slow

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def nothing_complains(caplog: pytest.LogCaptureFixture) -> Any:
    """No ResourceWarning (they are errors here, also unraisable ones), and nothing in asyncio's log."""
    yield
    gc.collect()
    records = (record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio")
    assert [text for text in records if not text.startswith("Executing <")] == []


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=["http", "https"])
def server(
    request: pytest.FixtureRequest, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """A server that responds to anything, with and without TLS."""
    secure = request.param == "https"
    if secure:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path).ca))
    with ScriptedServer(tls=authority.server_context() if secure else None) as server:
        server.always(answer_any)
        yield server


# ------------------------------------------------------------------------------------------------
# One loop after another
# ------------------------------------------------------------------------------------------------


def test_loops_one_after_another(server: ScriptedServer) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)

    async def main() -> None:
        for _ in range(2):
            assert (await llm.achat("Hi")).text == "Hi"
            assert [chunk.text async for chunk in llm.astream("Hi")] == ["H", "i", ""]

    for number, backend in enumerate(["asyncio", "asyncio", "trio", "asyncio", "trio", "trio"], 1):
        anyio.run(main, backend=backend)
        assert server.wait_open(0)
        assert server.connections == number


def test_a_loop_that_has_ended_is_freed(server: ScriptedServer) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await llm.achat("Hi")

    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None, None, None]


def test_a_loop_that_goes_on_after_its_generators_were_closed(server: ScriptedServer) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(llm.achat("Hi")).text == "Hi"
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert server.wait_open(0)
        assert loop.run_until_complete(llm.achat("Ho")).text == "Ho"
        loop.run_until_complete(llm.aclose())
        assert server.wait_open(0)
    finally:
        loop.close()


def test_asyncio_run_in_debug_mode(server: ScriptedServer) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)
    for _ in range(2):
        assert asyncio.run(llm.achat("Hi"), debug=True).text == "Hi"
    assert server.wait_open(0)


@BACKENDS
def test_closing_on_a_loop_other_than_the_connections(server: ScriptedServer, backend: str) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)
    anyio.run(llm.achat, "Hi", backend=backend)
    anyio.run(llm.achat, "Hi", backend=backend)
    anyio.run(llm.aclose, backend=backend)
    assert server.wait_open(0)


def test_two_loops_taking_turns_in_one_thread(server: ScriptedServer) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)
    with asyncio.Runner() as one, asyncio.Runner() as two:
        for runner in (one, two, one, two):
            assert runner.run(llm.achat("Hi")).text == "Hi"
        assert server.connections == 2
        one.run(llm.aclose())
        assert server.wait_open(1)
    assert server.wait_open(0)


def test_trio_as_a_guest_of_asyncio(server: ScriptedServer) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)

    async def main() -> None:
        assert (await llm.achat("Hi")).text == "Hi"
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            llm.achat,
            "Hi",
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        assert (await ended).unwrap().text == "Hi"
        assert (await llm.achat("Hi")).text == "Hi"

    asyncio.run(main())
    assert server.wait_open(0)
    assert server.connections == 2


def test_trio_within_a_task_of_asyncio(server: ScriptedServer) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)

    async def main() -> None:
        assert (await llm.achat("Hi")).text == "Hi"
        assert trio.run(llm.achat, "Hi").text == "Hi"
        assert (await llm.achat("Hi")).text == "Hi"

    asyncio.run(main())
    assert server.wait_open(0)
    assert server.connections == 2


def test_a_loop_in_each_thread_at_once(server: ScriptedServer) -> None:
    llm = VLLMProvider("m", base_url=server.base_url)
    texts: list[str] = []
    together = threading.Barrier(6)

    async def main() -> None:
        await in_thread(together.wait)
        async with anyio.create_task_group() as group:

            async def chat(number: int) -> None:
                texts.append((await llm.achat(str(number))).text)

            for number in range(5):
                group.start_soon(chat, number)

    threads = [
        threading.Thread(target=anyio.run, args=(main,), kwargs={"backend": backend})
        for backend in ("asyncio", "trio") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == sorted("01234" * 6)
    assert server.wait_open(0)


@pytest.mark.anyio
async def test_a_sync_method_on_a_loop(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        assert llm.chat("Hi").text == "Hi"
        assert (await llm.achat("Hi")).text == "Hi"
        assert [chunk.text for chunk in llm.stream("Hi")] == ["H", "i", ""]
        await llm.aclose()
    assert scripted.connections == 2


# ------------------------------------------------------------------------------------------------
# Loops that end in the middle of something
# ------------------------------------------------------------------------------------------------


def endless(_: Request) -> Answer:
    return stream([chunk("a"), never])


@BACKENDS
@pytest.mark.parametrize("kept", [True, False])
def test_a_loop_that_ends_with_an_open_stream(server: ScriptedServer, backend: str, kept: bool) -> None:
    server.always(endless)
    llm = VLLMProvider("m", base_url=server.base_url)
    streams: list[AsyncChatStream] = []

    async def main() -> None:
        opened = llm.astream("Hi")
        if kept:
            streams.append(opened)
        async for first in opened:
            assert first.text == "a"
            break

    anyio.run(main, backend=backend)
    assert server.wait_open(0)
    if kept:
        assert streams[0].completion.text == "a"
        # A stream of a loop that has ended is dropped on another one.
        anyio.run(streams[0].aclose, backend=backend)
    streams.clear()
    server.always(answer_any)
    assert anyio.run(llm.achat, "Hi", backend=backend).text == "Hi"


@BACKENDS
def test_a_loop_that_ends_while_tasks_wait(server: ScriptedServer, backend: str) -> None:
    server.always(endless)
    llm = VLLMProvider("m", base_url=server.base_url, max_connections=2)

    class StopError(Exception):
        pass

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(llm.astream("Hi").until_done)
            assert await in_thread(lambda: server.wait_requests(2))
            raise StopError

    with pytest.raises(ExceptionGroup) as caught:
        anyio.run(main, backend=backend)
    assert caught.group_contains(StopError)
    assert server.wait_open(0)


@BACKENDS
def test_a_stream_that_is_collected_while_its_loop_runs(server: ScriptedServer, backend: str) -> None:
    server.always(endless)
    llm = VLLMProvider("m", base_url=server.base_url)

    async def main() -> None:
        for events in (False, True):
            opened: Any = llm.astream("Hi").events() if events else llm.astream("Hi")
            await anext(opened)
            del opened
            gc.collect()
            assert await in_thread(server.wait_client_closed)
        assert held(await async_pool(llm)) == (0, 0, 0)
        # A separate task ends the generators; it has ended, too.
        await anyio.wait_all_tasks_blocked()

    anyio.run(main, backend=backend)


@BACKENDS
def test_a_stream_that_is_collected_in_another_thread(server: ScriptedServer, backend: str) -> None:
    server.always(endless)
    llm = VLLMProvider("m", base_url=server.base_url)

    async def main() -> None:
        streams = [llm.astream("Hi")]
        await anext(streams[0])
        await in_thread(streams.clear)
        assert await in_thread(server.wait_client_closed)
        assert held(await async_pool(llm)) == (0, 0, 0)
        await anyio.wait_all_tasks_blocked()

    anyio.run(main, backend=backend)


@BACKENDS
def test_a_stream_that_is_collected_after_its_loop(server: ScriptedServer, backend: str) -> None:
    server.always(endless)
    llm = VLLMProvider("m", base_url=server.base_url)
    streams = [llm.astream("Hi")]

    async def main() -> None:
        await anext(streams[0])

    async def other() -> None:
        streams.clear()
        gc.collect()
        await anyio.lowlevel.checkpoint()

    anyio.run(main, backend=backend)
    assert server.wait_open(0)
    anyio.run(other, backend=backend)


# ------------------------------------------------------------------------------------------------
# Providers that end before their loop
# ------------------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_provider_that_is_collected_while_a_loop_runs(
    server: ScriptedServer, backend: str, elsewhere: bool
) -> None:
    async def main() -> None:
        providers = [VLLMProvider("m", base_url=server.base_url)]
        await providers[0].achat("Hi")
        gone = weakref.ref(providers[0])
        if elsewhere:
            await in_thread(providers.clear)
        else:
            providers.clear()
        gc.collect()
        assert gone() is None
        assert await in_thread(lambda: server.wait_open(0))

    anyio.run(main, backend=backend)


def test_a_provider_that_is_collected_after_its_loop(server: ScriptedServer) -> None:
    for backend in ("asyncio", "trio"):
        llm = VLLMProvider("m", base_url=server.base_url)
        anyio.run(llm.achat, "Hi", backend=backend)
        del llm
        gc.collect()
    assert server.wait_open(0)


# ------------------------------------------------------------------------------------------------
# Loops that are not ended properly, and the end of the interpreter
# ------------------------------------------------------------------------------------------------


def test_a_loop_that_is_closed_abruptly(server: ScriptedServer) -> None:
    """Such a loop only needs an `aclose` before it."""
    for _ in range(2):
        llm = VLLMProvider("m", base_url=server.base_url)
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(llm.achat("Hi")).text == "Hi"
        loop.run_until_complete(llm.aclose())
        loop.close()
        assert server.wait_open(0)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_with_connections(scripted: ScriptedServer) -> None:
    """Nothing signals such an end. The connections are closed when they are garbage-collected, and asyncio warns."""
    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    for _ in range(2):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(llm.achat("Hi")).text == "Hi"
        loop.close()
        del loop
    gc.collect()
    asyncio.run(llm.aclose())
    del llm
    gc.collect()
    assert scripted.wait_open(0)


SCRIPTS = {
    "sync": """
        llm.chat("Hi")
        print(llm.chat("Hi").text)
    """,
    "sync stream left open": """
        stream = llm.stream("Hi")
        print(next(stream).text + "i")
    """,
    "asyncio": """
        import asyncio
        print(asyncio.run(llm.achat("Hi")).text)
    """,
    "asyncio twice": """
        import asyncio
        asyncio.run(llm.achat("Hi"))
        print(asyncio.run(llm.achat("Hi")).text)
    """,
    "asyncio stream left open": """
        import asyncio
        async def main():
            global stream
            stream = llm.astream("Hi")
            async for chunk in stream:
                print(chunk.text + "i")
                break
        asyncio.run(main())
    """,
    "trio": """
        import trio
        print(trio.run(llm.achat, "Hi").text)
    """,
    "trio stream left open": """
        import trio
        async def main():
            global stream
            stream = llm.astream("Hi")
            async for chunk in stream:
                print(chunk.text + "i")
                break
        trio.run(main)
    """,
    "a daemon thread in the middle of a call": """
        import threading, time
        started = threading.Event()
        def run():
            with llm.stream("Hi") as stream:
                print(next(stream).text + "i", flush=True)
                started.set()
                time.sleep(10)
        threading.Thread(target=run, daemon=True).start()
        started.wait()
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_end_of_the_interpreter(name: str, scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    code = f"from vllmchat import VLLMProvider\nllm = VLLMProvider('m', base_url={scripted.base_url!r})\n"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code + textwrap.dedent(SCRIPTS[name])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    # asyncio's debug mode reports that the first call took long: it imports modules.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.stdout, complaints, done.returncode) == ("Hi\n", [], 0)
    assert scripted.wait_open(0)


def test_threads_of_a_pool_that_outlive_the_provider(scripted: ScriptedServer) -> None:
    """A running call keeps its provider alive; its connection is closed after the last use."""
    scripted.always(answer_any)
    results: list[str] = []

    def run(chat: Callable[[str], Any]) -> None:
        results.append(chat("Hi").text)

    llm = VLLMProvider("m", base_url=scripted.base_url)
    thread = threading.Thread(target=run, args=(llm.chat,))
    del llm
    thread.start()
    thread.join()
    del thread
    gc.collect()
    assert results == ["Hi"]
    assert scripted.wait_open(0)
