"""The sockets: large bodies, timeouts, addresses, endings, on asyncio, trio and without a loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from support.chats import answer_any, chunk, chunks, completion
from support.pools import adrop_connections, idle_connections, pool_of
from support.scripted import (
    Answer,
    Connection,
    Gate,
    ScriptedServer,
    close,
    half_close,
    head,
    in_thread,
    ipv6_available,
    never,
    refusing_origin,
    reply,
    reset,
    script,
    unanswering_origin,
)
from support.tls import Authority
from vllmchat import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    StreamInterruptedError,
    Timeout,
    VLLMProvider,
)
from vllmchat.http import event_loop
from vllmchat.http.clock import Clock
from vllmchat.http.transport import async_backend, asyncio_stream, backend, sync_backend
from vllmchat.http.transport.network_errors import (
    ConnectError,
    ConnectTimeout,
    ReadError,
    ReadTimeout,
    WriteTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.runners import Runner
    from support.scripted import Step

pytestmark = pytest.mark.slow

BIG = "x" * 5_000_000


def provider(server: ScriptedServer, **options: Any) -> VLLMProvider:
    return VLLMProvider("m", base_url=server.base_url, max_retries=0, **options)


# ------------------------------------------------------------------------------------------------
# Large bodies
# ------------------------------------------------------------------------------------------------


def test_large_bodies_both_ways(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = provider(scripted)
    assert runner.chat(llm, BIG).text == BIG
    assert "".join(runner.stream(llm, BIG).texts()) == BIG
    assert scripted.connections == 1
    runner.close(llm)


def test_a_server_that_reads_slowly(scripted: ScriptedServer, runner: Runner) -> None:
    gate = Gate()

    def read_late(connection: Connection) -> None:
        gate(connection)
        while len(connection.buffer) < len(BIG):
            connection.receive()

    scripted.add(Answer((read_late, *reply(completion("done")).steps), read_body=False))
    llm = provider(scripted, timeout=Timeout(first_token=5))
    threading.Timer(0.05, gate.release).start()
    assert runner.chat(llm, BIG).text == "done"
    runner.close(llm)


def test_a_server_that_does_not_read(scripted: ScriptedServer, runner: Runner) -> None:
    """The request is larger than the kernel's buffers, so writing has to wait."""
    released = threading.Event()
    # A gate would read, to notice that the client closes.
    scripted.add(Answer((lambda _: cast("None", released.wait(5)),), read_body=False))
    llm = provider(scripted, timeout=Timeout(first_token=0.1))
    with pytest.raises(APITimeoutError) as caught:
        runner.chat(llm, BIG)
    assert caught.value.limit == "first_token"
    released.set()
    assert scripted.wait_open(0)


def test_a_response_before_the_request_was_read(scripted: ScriptedServer, runner: Runner) -> None:
    refusal = reply({"error": {"message": "too large"}}, 413, {"connection": "close"})
    scripted.add(Answer(refusal.steps, read_body=False))
    # Data sent to a closed connection causes a reset, which may overtake the response.
    with pytest.raises((APIStatusError, APIConnectionError)):
        runner.chat(provider(scripted), BIG)
    assert scripted.wait_open(0)


@pytest.mark.parametrize("then", [never, half_close, close])
@pytest.mark.parametrize("encrypted", [False, True])
def test_an_early_answer_is_read(
    then: Step, encrypted: bool, scripted: ScriptedServer, runner: Runner, tmp_path: Path
) -> None:
    """A server that refuses a large request reads no more of it, whether it closes the connection or not."""
    refusal = reply({"error": {"message": "too large"}}, 413, {"connection": "close"})
    authority = Authority()
    with ScriptedServer(tls=authority.server_context("localhost")) as secure:
        server = secure if encrypted else scripted
        server.add(Answer((*refusal.steps, then), read_body=False))
        llm = VLLMProvider(
            "m",
            base_url=f"{'https' if encrypted else 'http'}://localhost:{server.port}",
            verify=authority.write(tmp_path).ca,
            max_retries=0,
            timeout=Timeout(first_token=5),
        )
        with pytest.raises(APIStatusError, match="too large") as caught:
            runner.chat(llm, "x" * 30_000_000)
        assert caught.value.status_code == 413
        runner.close(llm)
        assert server.wait_open(0)


def test_a_server_that_closes_during_a_write(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.add(Answer((reset,), read_body=False))
    with pytest.raises(APIConnectionError):
        runner.chat(provider(scripted), BIG)
    assert scripted.wait_open(0)


@pytest.mark.anyio
async def test_a_slow_reader_stops_the_server(scripted: ScriptedServer) -> None:
    """Data that the caller does not read is not buffered here: the kernel's buffers fill up, and the server waits."""
    sent = 0

    def count(connection: Connection) -> None:
        nonlocal sent
        for _ in range(400):
            connection.send_body(b": %s\n\n" % (b"x" * 100_000))
            sent += 1

    scripted.stream([chunk("a"), count, chunk("b", "stop")])
    async with provider(scripted) as llm, llm.astream("Hi") as stream:
        assert (await anext(stream)).text == "a"
        before = -1
        while before != sent:
            before = sent
            await anyio.sleep(0.05)
        assert sent < 350
        assert [chunk.text async for chunk in stream] == ["b"]
        assert sent == 400


# ------------------------------------------------------------------------------------------------
# Timeouts
# ------------------------------------------------------------------------------------------------


def test_timeouts_change_during_a_connection(scripted: ScriptedServer, runner: Runner) -> None:
    llm = provider(scripted, timeout=Timeout(first_token=5, idle=0.1))
    scripted.stream([chunk("a"), never])
    with runner.stream(llm) as stream, pytest.raises(APITimeoutError) as caught:
        stream.texts()
    assert caught.value.limit == "idle"
    scripted.stream([chunk("a"), never])
    with runner.stream(llm, timeout=Timeout(total=0.1)) as stream, pytest.raises(APITimeoutError) as caught:
        stream.texts()
    assert caught.value.limit == "total"
    assert scripted.wait_open(0)


def test_a_connection_without_timeouts(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = provider(scripted, timeout=Timeout(connect=None, first_token=None, idle=None, total=None))
    assert runner.chat(llm).text == "Hi"
    assert runner.stream(llm).texts() == ["H", "i"]
    runner.close(llm)


def test_an_address_that_does_not_respond(runner: Runner) -> None:
    with unanswering_origin() as origin:
        llm = VLLMProvider("m", base_url=origin, max_retries=0, timeout=Timeout(connect=0.1))
        with pytest.raises(APITimeoutError) as caught:
            runner.chat(llm)
        assert (caught.value.limit, caught.value.seconds) == ("connect", 0.1)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio's own streams have no timers
async def test_one_timer_serves_many_reads(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    set_timers: list[float] = []
    call_at = loop.call_at

    def counting(when: float, callback: Any, *args: Any, **options: Any) -> Any:
        if getattr(callback, "__name__", "") == "_on_timer":
            set_timers.append(when)
        return call_at(when, callback, *args, **options)

    monkeypatch.setattr(loop, "call_at", counting)
    gates = [Gate() for _ in range(20)]
    events: list[Any] = [event for gate in gates for event in (gate, chunk("a"))]
    scripted.stream([*events, chunk(finish="stop")])
    async with provider(scripted) as llm:
        stream = llm.astream("Hi")
        async with stream:
            for gate in gates:
                await in_thread(gate.wait_reached)
                waiting = asyncio.ensure_future(anext(stream))
                await anyio.wait_all_tasks_blocked()
                gate.release()
                await waiting
    # One for the first token, one for the shorter idle limit that follows.
    assert len(set_timers) <= 2


@pytest.mark.anyio
async def test_a_timer_that_fires_early_is_set_again(scripted: ScriptedServer) -> None:
    """Deadlines move while bytes arrive; the timer of the first one must not end the later ones."""
    gates = [Gate() for _ in range(4)]
    events: list[Any] = [event for gate in gates for event in (chunk("a"), gate)]
    scripted.stream([*events, chunk(finish="stop")])

    async def release() -> None:
        for gate in gates:
            await in_thread(gate.wait_reached)
            await anyio.sleep(0.1)
            gate.release()

    llm = provider(scripted, timeout=Timeout(idle=0.2))
    async with llm, llm.astream("Hi") as stream, anyio.create_task_group() as group:
        group.start_soon(release)
        assert "".join([chunk.text async for chunk in stream]) == "aaaa"


@pytest.mark.anyio
async def test_a_timer_that_fires_between_two_calls_is_harmless(scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    async with provider(scripted, timeout=Timeout(first_token=0.1, idle=0.1)) as llm:
        await llm.achat("Hi")
        await anyio.sleep(0.15)
        await llm.achat("Hi")
        assert scripted.connections == 1


# ------------------------------------------------------------------------------------------------
# Addresses
# ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not ipv6_available(), reason="this machine has no ::1")
def test_ipv6(runner: Runner) -> None:
    with ScriptedServer("ipv6") as server:
        server.always(answer_any)
        llm = provider(server)
        assert runner.chat(llm).text == "Hi"
        assert server.requests[0].headers["host"] == f"[::1]:{server.port}"
        runner.close(llm)


@pytest.fixture
def name_service(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes names resolve to the given addresses, in that order."""
    asked = socket.getaddrinfo

    def resolve(*addresses: str) -> None:
        def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            if name != "server.test":
                return asked(host, port, *args, **options)
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            found: list[Any] = []
            for address in addresses:
                found += asked(address, port, type=socket.SOCK_STREAM)
            return found

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve


def test_name_resolution_respects_the_timeout(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    asked = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        answered.wait(10)
        return asked("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    llm = VLLMProvider("m", base_url="http://server.test/v1", timeout=Timeout(connect=0.05), max_retries=0)
    try:
        with pytest.raises(APITimeoutError, match=r"within 0.05 s \(Timeout.connect\)"):
            runner.chat(llm)
    finally:
        answered.set()
    runner.close(llm)


def test_the_second_address_of_a_name_is_tried(
    scripted: ScriptedServer, runner: Runner, name_service: Callable[..., None]
) -> None:
    scripted.always(answer_any)
    # Nothing listens on that port of 127.0.0.2.
    name_service("127.0.0.2", "127.0.0.1")
    llm = VLLMProvider("m", base_url=f"http://server.test:{scripted.port}")
    assert runner.chat(llm).text == "Hi"
    assert scripted.requests[0].headers["host"] == f"server.test:{scripted.port}"
    runner.close(llm)


def test_no_address_of_a_name_works(
    scripted: ScriptedServer, runner: Runner, name_service: Callable[..., None]
) -> None:
    name_service("127.0.0.2", "127.0.0.3")
    llm = VLLMProvider("m", base_url=f"http://server.test:{scripted.port}", max_retries=0)
    with pytest.raises(APIConnectionError, match=r"refused|Connect call failed|all attempts"):
        runner.chat(llm)


def test_an_address_that_hangs_leaves_time_for_the_next(
    scripted: ScriptedServer,
    runner: Runner,
    name_service: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted.always(answer_any)
    monkeypatch.setattr(asyncio_stream, "_HEAD_START", 0.01)
    with unanswering_at("127.0.0.2", scripted.port):
        name_service("127.0.0.2", "127.0.0.1")
        llm = VLLMProvider("m", base_url=f"http://server.test:{scripted.port}", max_retries=0)
        assert runner.chat(llm, timeout=Timeout(connect=0.8)).text == "Hi"
        runner.close(llm)


def test_an_address_that_hangs_and_one_that_refuses(
    runner: Runner, name_service: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio_stream, "_HEAD_START", 0.01)
    with refusing_origin() as origin:
        port = int(origin.rpartition(":")[2])
        with unanswering_at("127.0.0.2", port):
            name_service("127.0.0.2", "127.0.0.1")
            llm = VLLMProvider("m", base_url=f"http://server.test:{port}", max_retries=0)
            with pytest.raises(APIConnectionError, match=r"refused|within 0\.2 s"):
                runner.chat(llm, timeout=Timeout(connect=0.2))


@contextlib.contextmanager
def unanswering_at(address: str, port: int) -> Any:
    """An address where connecting neither succeeds nor fails."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield


def test_an_unknown_host(runner: Runner, name_service: Callable[..., None]) -> None:
    name_service()
    llm = VLLMProvider("m", base_url="http://server.test:1", max_retries=0)
    with pytest.raises(APIConnectionError, match="Name or service not known"):
        runner.chat(llm)


@pytest.mark.anyio
async def test_cancelled_while_several_addresses_are_tried(
    scripted: ScriptedServer, name_service: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio_stream, "_HEAD_START", 0.01)
    with unanswering_at("127.0.0.2", scripted.port), unanswering_at("127.0.0.3", scripted.port):
        name_service("127.0.0.2", "127.0.0.3")
        llm = VLLMProvider("m", base_url=f"http://server.test:{scripted.port}", max_retries=0)
        with anyio.move_on_after(0.05) as scope:
            await llm.achat("Hi")
        assert scope.cancelled_caught
        await llm.aclose()


def test_the_loser_of_a_race_is_closed(
    scripted: ScriptedServer, name_service: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two addresses that both respond: one connection is used, the other does not stay open."""
    scripted.always(answer_any)
    monkeypatch.setattr(asyncio_stream, "_HEAD_START", 0.0)
    name_service("127.0.0.1", "127.0.0.1")

    async def main() -> None:
        llm = VLLMProvider("m", base_url=f"http://server.test:{scripted.port}")
        for _ in range(10):
            assert (await llm.achat("Hi")).text == "Hi"
            await anyio.wait_all_tasks_blocked()
            assert await in_thread(lambda: scripted.wait_open(1))
            await adrop_connections(llm)

    asyncio.run(main())
    assert scripted.wait_open(0)


def test_two_addresses_that_respond_at_the_same_time() -> None:
    first: Any = getattr(asyncio_stream, "_first")  # noqa: B009 - it is private
    aborted: list[str] = []

    async def main() -> str:
        both = asyncio.Event()

        async def connect(address: str) -> Any:
            if address == "two":
                both.set()
            await both.wait()
            return SimpleNamespace(name=address, abort=lambda: aborted.append(address))

        chosen = await first(connect, ["one", "two"])
        await asyncio.sleep(0)
        return cast("str", chosen.name)

    assert {asyncio.run(main()), *aborted} == {"one", "two"}


def test_without_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio", raising=False)
    assert not event_loop.on_trio()


def test_refused(runner: Runner) -> None:
    with refusing_origin() as origin:
        llm = VLLMProvider("m", base_url=origin, max_retries=0)
        with pytest.raises(APIConnectionError, match="vllm serve MODEL --port"):
            runner.chat(llm)


# ------------------------------------------------------------------------------------------------
# The socket
# ------------------------------------------------------------------------------------------------


def test_keep_alive_is_on(scripted: ScriptedServer, runner: Runner) -> None:
    scripted.always(answer_any)
    llm = provider(scripted)
    runner.chat(llm)
    (line,) = idle_connections(pool_of(runner, llm))
    sock = cast("Any", line)._stream.sock
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    if sys.platform == "linux":
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    runner.close(llm)


# ------------------------------------------------------------------------------------------------
# Endings
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [close, reset, half_close])
def test_a_server_that_closes_instead_of_responding(
    ending: Any, scripted: ScriptedServer, runner: Runner
) -> None:
    scripted.script(ending)
    with pytest.raises(APIConnectionError, match=r"broke|closed"):
        runner.chat(provider(scripted))
    assert scripted.wait_open(0)


@pytest.mark.parametrize("ending", [close, reset, half_close])
def test_a_server_that_closes_in_the_middle(ending: Any, scripted: ScriptedServer, runner: Runner) -> None:
    scripted.stream([chunk("a"), gate := Gate(), ending])
    with runner.stream(provider(scripted)) as stream:
        texts = iter(stream)
        assert next(texts).text == "a"
        gate.release()
        with pytest.raises(StreamInterruptedError) as caught:
            next(texts)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "a"
    assert scripted.wait_open(0)


@pytest.mark.parametrize("runner", ["asyncio"], indirect=True)
def test_a_server_that_stops_reading_may_have_responded(scripted: ScriptedServer, runner: Runner) -> None:
    # The request is larger than what the sockets hold, so that writing it waits for a server that has stopped reading.
    refusal = head(413, {"content-type": "application/json", "content-length": "33"})
    scripted.script(refusal + b'{"error":{"message":"too large"}}', half_close, read_body=False)
    with pytest.raises(APIStatusError, match="too large") as caught:
        runner.chat(provider(scripted, timeout=5), "x" * 30_000_000)
    assert caught.value.status_code == 413
    assert scripted.wait_open(0)


def test_data_before_a_reset_is_read(scripted: ScriptedServer, runner: Runner) -> None:
    def send_and_reset(connection: Connection) -> None:
        gate(connection)
        reset(connection)

    gate = Gate()
    scripted.stream([*chunks("a", "b"), send_and_reset], done=False)
    with runner.stream(provider(scripted)) as stream:
        texts = iter(stream)
        assert next(texts).text == "a"
        gate.release()
        assert scripted.wait_open(0)
        # Every choice had its finish reason, so the end is proven anyway.
        assert "".join(chunk.text for chunk in texts) == "b"


@pytest.mark.anyio
async def test_closed_by_another_task(scripted: ScriptedServer) -> None:
    scripted.stream([chunk("a"), never])
    async with provider(scripted) as llm:
        stream = llm.astream("Hi")
        assert (await anext(stream)).text == "a"
        failures: list[Exception] = []

        async def read() -> None:
            try:
                await anext(stream)
            except Exception as error:
                failures.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
        assert len(failures) == 1
        assert isinstance(failures[0], StreamInterruptedError | StopAsyncIteration)
        assert await in_thread(scripted.wait_client_closed)


@pytest.fixture
def opening() -> async_backend.AsyncNetworkBackend:
    """A network that may take a second to connect."""
    network = async_backend.AsyncNetworkBackend()
    network.abort()
    network.begin_opening(1.0)
    return network


def test_the_stream_of_asyncio_alone(
    scripted: ScriptedServer, opening: async_backend.AsyncNetworkBackend
) -> None:
    """What a connection never does: using a closed stream."""
    gate = Gate()
    scripted.script(b"x" * 1000, gate, b"y", close)

    async def main() -> None:
        stream = await opening.connect("127.0.0.1", scripted.port)
        await stream.write(memoryview(b"GET / HTTP/1.1\r\n\r\n"))
        assert await stream.read() == b"x" * 1000
        assert not stream.is_readable()
        gate.release()
        assert await stream.read() == b"y"
        assert await stream.read() == b""
        assert stream.is_readable()
        await stream.write(memoryview(b"z"))
        stream.abort()
        stream.abort()
        await asyncio.sleep(0)
        assert await stream.read() == b""

    asyncio.run(main())


def test_a_stream_that_was_closed_here(
    scripted: ScriptedServer, opening: async_backend.AsyncNetworkBackend
) -> None:
    scripted.script(never)

    async def main() -> None:
        stream = await opening.connect("127.0.0.1", scripted.port)
        reading = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        stream.abort()
        with pytest.raises(ReadError, match="closed here"):
            await reading
        with pytest.raises(ReadError, match="closed here"):
            await stream.read()
        await stream.write(memoryview(b"x"))
        await asyncio.sleep(0)

    asyncio.run(main())


def test_timeouts_of_the_sync_stream_alone(scripted: ScriptedServer) -> None:
    """A timeout that has expired before the wait begins. A socket would take 0 s for "do not wait"."""
    scripted.always(script(never))
    backend = sync_backend.SyncNetworkBackend()
    backend.abort()
    backend.begin_opening(1.0)
    opened = backend.connect("127.0.0.1", scripted.port)
    backend.end_opening()
    backend.clock = Clock(Timeout(total=1e-9))
    with pytest.raises(ReadTimeout):
        opened.read()
    with pytest.raises(WriteTimeout):
        opened.write(memoryview(b"x"))
    backend.begin_opening(0.0)
    with pytest.raises(ConnectTimeout):
        opened.start_tls(ssl.create_default_context(), "server.test")
    opened.close()
    assert scripted.wait_client_closed()


def test_a_connection_that_is_lost_as_its_handshake_ends(
    scripted: ScriptedServer,
    opening: async_backend.AsyncNetworkBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted.always(script(never))

    async def main() -> None:
        async def start_tls(*_: object, **__: object) -> None:
            return None

        opened = await opening.connect("127.0.0.1", scripted.port)
        monkeypatch.setattr(asyncio.get_running_loop(), "start_tls", start_tls)
        with pytest.raises(ConnectError, match="closed the connection during the TLS handshake"):
            await opened.start_tls(ssl.create_default_context(), "server.test")
        opened.abort()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_stream_before_its_connection() -> None:
    async def main() -> None:
        unconnected = asyncio_stream.AsyncioStream(
            async_backend.AsyncNetworkBackend(), asyncio.get_running_loop()
        )
        assert unconnected.sock is None
        assert unconnected.is_readable()
        assert not unconnected.is_flushed()
        unconnected.set_options(backend.TCP_OPTIONS)

    asyncio.run(main())


def test_socket_options_that_the_platform_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    options: Any = getattr(backend, "_keep_alive_options")  # noqa: B009 - it is private
    assert len(options()) > 2
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(socket, name, raising=False)
    assert len(options()) == 2


# ------------------------------------------------------------------------------------------------
# Event loops
# ------------------------------------------------------------------------------------------------


def test_uvloop(scripted: ScriptedServer) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    scripted.always(answer_any)

    async def main() -> None:
        llm = VLLMProvider("m", base_url=f"http://localhost:{scripted.port}")
        assert (await llm.achat(BIG)).text == BIG
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(llm.achat, "Hi")
        assert "".join([chunk.text async for chunk in llm.astream("Hi")]) == "Hi"
        scripted.stream([chunk("a"), never])
        async for _ in llm.astream("Hi"):
            break

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert scripted.wait_open(0)


def test_trio_as_a_guest_of_asyncio(scripted: ScriptedServer) -> None:
    """An asyncio loop runs in the thread, but the calls are made in trio."""
    trio = pytest.importorskip("trio")
    scripted.always(answer_any)
    llm = provider(scripted)

    async def guest() -> str:
        return (await llm.achat("Hi")).text

    async def host() -> str:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        outcome = await done
        return cast("str", outcome.unwrap())

    assert asyncio.run(host()) == "Hi"
    assert scripted.wait_open(0)
