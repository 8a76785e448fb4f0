from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from support.scripted import (
    DONE,
    KEEP_ALIVE,
    Answer,
    Connection,
    Gate,
    Request,
    ScriptedServer,
    close,
    drip,
    forever,
    half_close,
    head,
    in_thread,
    ipv6_available,
    never,
    refusing_origin,
    reply,
    reset,
    script,
    sse,
    stream,
    unanswering_origin,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow


@pytest.fixture
def client(scripted: ScriptedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=scripted.base_url, timeout=5, trust_env=False) as client:
        yield client


def test_requests_are_recorded(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.reply({"a": "ü"})
    scripted.reply({"b": 2}, 404, {"x-one": "1"})
    first = client.post("/chat/completions?x=1", json={"q": 1}, headers=[("X-Two", "a"), ("x-two", "b")])
    second = client.get("/models")
    assert first.json() == {"a": "ü"}
    assert (second.status_code, second.json(), second.headers["x-one"]) == (404, {"b": 2}, "1")
    one, two = scripted.requests
    assert (one.method, one.path, one.query, one.version) == (
        "POST",
        "/v1/chat/completions",
        "x=1",
        "HTTP/1.1",
    )
    assert one.json() == {"q": 1}
    assert one.headers["x-two"] == "a, b"
    assert [pair for pair in one.raw_headers if pair[0].lower() == "x-two"] == [
        ("X-Two", "a"),
        ("x-two", "b"),
    ]
    assert (one.connection, one.index, two.connection, two.index) == (0, 0, 0, 1)
    assert two.body == b""
    assert (scripted.connections, scripted.open_connections) == (1, 1)
    client.close()
    assert scripted.wait_client_closed()
    assert scripted.open_connections == 0


def test_chunked_request(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.always(reply({}))
    client.post("/x", content=iter([b"one", b"two" * 5000]))
    client.post("/y", content=b"z")
    assert [request.body for request in scripted.requests] == [b"one" + b"two" * 5000, b"z"]


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("gzip", [True, False])
def test_stream(scripted: ScriptedServer, client: httpx.Client, chunked: bool, gzip: bool) -> None:
    scripted.stream([{"n": "é"}, "text", KEEP_ALIVE], chunked=chunked, gzip=gzip)
    answer = client.get("/x")
    assert answer.content == 'data: {"n":"é"}\n\ndata: text\n\n'.encode() + KEEP_ALIVE + DONE
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    if chunked:
        scripted.reply({})
        client.get("/y")
        assert scripted.connections == 1
    else:
        assert scripted.wait_open(0)
        assert scripted.connection().closed_by == "server"


def test_gate_holds_a_stream(scripted: ScriptedServer, client: httpx.Client) -> None:
    gate = Gate()
    scripted.stream([{"n": 1}, gate, {"n": 2}])
    with client.stream("GET", "/x") as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == sse({"n": 1})
        gate.wait_reached()
        gate.release()
        assert b"".join(pieces) == sse({"n": 2}) + DONE


@pytest.mark.parametrize("endless", [False, True])
def test_a_client_that_closes_is_noticed(
    scripted: ScriptedServer, client: httpx.Client, endless: bool
) -> None:
    scripted.stream([{"n": 1}, forever(KEEP_ALIVE) if endless else never])
    with client.stream("GET", "/x") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        assert scripted.open_connections == 1
    assert scripted.wait_client_closed(1)


def test_a_client_that_stays_is_not_reported_as_gone(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.reply({})
    client.get("/x")
    assert not scripted.wait_client_closed(0.01)


def test_a_connection_closed_by_the_server_is_not_attributed_to_the_client(
    scripted: ScriptedServer, client: httpx.Client
) -> None:
    scripted.reply({}, then=[close])
    client.get("/x")
    assert not scripted.wait_client_closed()


def test_reused_connection_ends_before_any_byte(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.reply({})
    scripted.script(close)
    client.get("/x")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending"):
        client.get("/y")
    assert [(request.connection, request.index) for request in scripted.requests] == [(0, 0), (0, 1)]


def test_reset(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.script(reset)
    with pytest.raises(httpx.ReadError):
        client.get("/x")


def test_broken_stream(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.stream([{"n": 1}, close])
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        client.get("/x")


def test_idle_connection_closed_by_the_server(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.reply({}, then=[gate := Gate(), close])
    scripted.reply({})
    client.get("/x")
    gate.release()
    assert scripted.wait_open(0)
    client.get("/y")
    assert scripted.connections == 2


def test_requests_per_connection() -> None:
    with ScriptedServer(requests_per_connection=2) as server, httpx.Client(trust_env=False) as client:
        server.always(reply({}))
        for number in range(4):
            client.get(server.url("/x"))
            if number == 1:
                assert server.wait_open(0)
    assert [request.connection for request in server.requests] == [0, 0, 1, 1]


def test_half_close(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.reply({"a": 1}, headers={"content-length": None, "connection": "close"}, then=[half_close])
    assert client.get("/x").json() == {"a": 1}
    assert scripted.wait_client_closed()


def test_no_response(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.script(never)
    with pytest.raises(httpx.ReadTimeout):
        client.get("/x", timeout=0.05)
    assert scripted.wait_client_closed()


def test_drip_sends_every_byte(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.stream([drip(sse("drop"))])
    scripted.script(head(200, {"content-length": "3"}), drip(b"abc", 2))
    assert client.get("/x").content == sse("drop") + DONE
    assert client.get("/y").content == b"abc"


@pytest.mark.parametrize("length", ["1", "999"])
def test_wrong_length(scripted: ScriptedServer, client: httpx.Client, length: str) -> None:
    scripted.reply("abc", headers={"content-length": length}, then=[close])
    if length == "1":
        assert client.get("/x").text == "a"
    else:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/x")


def test_broken_chunks(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.script(head(headers={"transfer-encoding": "chunked"}), b"zz\r\n", close)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/x")


def test_http_1_0_without_length(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.reply("old", http="1.0", headers={"content-length": None})
    answer = client.get("/x")
    assert (answer.http_version, answer.text) == ("HTTP/1.0", "old")


def test_huge_headers(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.reply({}, headers={"x-big": "a" * 300_000})
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/x")


def test_redirect_to_another_host(scripted: ScriptedServer, client: httpx.Client) -> None:
    with ScriptedServer() as other:
        scripted.reply({}, 307, {"location": other.url("/elsewhere")})
        other.reply({"here": True})
        answer = client.get("/x", headers={"authorization": "Bearer k"}, follow_redirects=True)
        assert answer.json() == {"here": True}
        assert "authorization" not in other.requests[0].headers


def test_gzip_reply(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.reply({"a": 1}, gzip=True)
    assert client.get("/x").json() == {"a": 1}


def test_busy(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.busy(retry_after="7")
    scripted.busy()
    scripted.reply({})
    answers = [client.get("/x") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert [answer.headers.get("retry-after") for answer in answers] == ["7", None, None]


def test_response_without_reading_the_body(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.script(head(413, {"content-length": "0"}), read_body=False)
    assert client.post("/x", content=b"body").status_code == 413
    assert scripted.requests[0].body == b""
    assert scripted.wait_open(0)


def test_responses_made_from_requests(scripted: ScriptedServer, client: httpx.Client) -> None:
    def echo(request: Request) -> Answer:
        return reply({"path": request.path})

    scripted.always(echo)
    assert client.get("/x").json() == {"path": "/v1/x"}


def test_at_connect(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.at_connect(reset)
    scripted.always(reply({}))
    with pytest.raises(httpx.TransportError):
        client.get("/x")
    assert client.get("/x").status_code == 200
    assert [request.connection for request in scripted.requests] == [1]


def test_connection_close_of_the_client_is_honoured(scripted: ScriptedServer, client: httpx.Client) -> None:
    scripted.always(reply({}))
    client.get("/x", headers={"connection": "close"})
    assert scripted.wait_open(0)


def test_many_connections_held_by_one_gate(scripted: ScriptedServer) -> None:
    gate = Gate()
    scripted.always(script(gate, *reply({}).steps))
    answers: list[int] = []

    def get() -> None:
        answers.append(httpx.get(scripted.url("/x"), trust_env=False).status_code)

    threads = [threading.Thread(target=get) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert scripted.wait_requests(5)
    assert scripted.open_connections == 5
    assert answers == []
    gate.release()
    for thread in threads:
        thread.join()
    assert answers == [200] * 5


@pytest.mark.anyio
async def test_from_an_event_loop(scripted: ScriptedServer) -> None:
    scripted.stream([{"n": 1}, gate := Gate(), {"n": 2}])
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", scripted.url("/x")) as answer,
    ):
        pieces = answer.aiter_raw()
        assert await anext(pieces) == sse({"n": 1})
        await in_thread(gate.wait_reached)
        gate.release()
        assert b"".join([piece async for piece in pieces]) == sse({"n": 2}) + DONE
    assert await in_thread(scripted.wait_client_closed)


def test_a_request_without_a_response_fails_the_test() -> None:
    server = ScriptedServer()
    server.__enter__()
    assert httpx.get(server.url("/x"), trust_env=False).status_code == 500
    with pytest.raises(AssertionError, match="no response was scripted for request 1: GET /x"):
        server.__exit__(None, None, None)


def test_a_failing_step_fails_the_test() -> None:
    def fail(connection: Connection) -> None:
        raise LookupError(f"step on connection {connection.number}")

    server = ScriptedServer()
    server.always(script(fail))
    server.__enter__()
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(server.url("/x"), trust_env=False)
    with pytest.raises(ExceptionGroup) as caught:
        server.__exit__(None, None, None)
    assert [str(error) for error in caught.value.exceptions] == [
        "step on connection 0",
        "step on connection 1",
    ]


def test_a_failure_of_the_test_comes_first() -> None:
    server = ScriptedServer()
    server.failures.append(LookupError("mine"))
    with pytest.raises(KeyError) as caught, server:
        raise KeyError("test")
    assert caught.value.__notes__ == ["The test server failed, too: LookupError('mine')"]


@pytest.mark.parametrize("step", [never, Gate(), forever(KEEP_ALIVE)])
def test_patience_runs_out(step: Callable[[Connection], None]) -> None:
    server = ScriptedServer(patience=0.05)
    server.stream([step])
    server.__enter__()
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(server.url("/x"), trust_env=False)
    with pytest.raises(AssertionError, match=r"waited 0.05 s for"):
        server.__exit__(None, None, None)


def test_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    with ScriptedServer() as server:
        server.add(stream([never]), stream([Gate()]), script(never), stream([b"x" * 50_000_000]), reply({}))
        peers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
        for peer in peers[:5]:
            peer.sendall(b"GET /x HTTP/1.1\r\n\r\n")
        assert server.wait_requests(5)
        assert server.wait_open(6)
    assert set(threading.enumerate()) == before
    assert server.open_connections == 0
    for peer in peers:
        peer.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


@pytest.mark.skipif(not ipv6_available(), reason="no IPv6 here")
def test_ipv6() -> None:
    with ScriptedServer("ipv6") as server:
        server.reply({})
        assert server.base_url.startswith("http://[::1]:")
        assert httpx.get(server.url("/x"), trust_env=False).status_code == 200


def test_unix_socket() -> None:
    with ScriptedServer("unix") as server:
        server.reply({})
        with httpx.Client(transport=httpx.HTTPTransport(uds=server.unix_path)) as client:
            assert client.get(server.url("/x")).status_code == 200


def test_refusing_origin() -> None:
    with refusing_origin() as origin, pytest.raises(httpx.ConnectError):
        httpx.get(origin, trust_env=False)


def test_unresponsive_origin() -> None:
    with unanswering_origin() as origin, pytest.raises(httpx.ConnectTimeout):
        httpx.get(origin, trust_env=False, timeout=0.1)
