from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from support.proxy import ForwardProxy
from support.scripted import DONE, KEEP_ALIVE, Gate, ScriptedServer, close, forever, never, reply, reset, sse
from support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def secure(authority: Authority) -> Iterator[ScriptedServer]:
    with ScriptedServer(tls=authority.server_context("vllm.example")) as server:
        yield server


def test_tls(secure: ScriptedServer, authority: Authority) -> None:
    assert secure.base_url.startswith("https://127.0.0.1:")
    secure.stream([{"n": 1}, gate := Gate(), {"n": "x" * 1_000_000}])
    secure.reply({})
    with httpx.Client(verify=authority.client_context(), trust_env=False) as client:
        with client.stream("POST", secure.url("/x"), content=b"y" * 300_000) as answer:
            pieces = answer.iter_raw()
            assert next(pieces) == sse({"n": 1})
            gate.release()
            assert b"".join(pieces) == sse({"n": "x" * 1_000_000}) + DONE
        assert client.get(secure.url("/y")).status_code == 200
    assert secure.connections == 1
    assert secure.requests[0].body == b"y" * 300_000
    assert secure.wait_client_closed()


def test_tls_a_client_that_closes_is_noticed(secure: ScriptedServer, authority: Authority) -> None:
    secure.stream([forever(KEEP_ALIVE)])
    secure.script(never)
    with httpx.Client(verify=authority.client_context(), trust_env=False) as client:
        with client.stream("GET", secure.url("/x")) as answer:
            next(answer.iter_raw())
        assert secure.wait_client_closed()
        with pytest.raises(httpx.ReadTimeout):
            client.get(secure.url("/x"), timeout=0.1)
        assert secure.wait_client_closed()


def test_tls_reset(secure: ScriptedServer, authority: Authority) -> None:
    secure.script(reset)
    with httpx.Client(verify=authority.client_context(), trust_env=False) as client:
        # OpenSSL may hide a reset and report the end of the connection instead.
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            client.get(secure.url("/x"))
        assert secure.connection().closed_by == "server"
        secure.at_connect(close)
        with pytest.raises(httpx.ConnectError):
            client.get(secure.url("/x"))


def test_tls_refused_by_the_client(secure: ScriptedServer) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(secure.url("/x"), trust_env=False)
    assert secure.wait_open(0)
    assert isinstance(secure.connection().tls_error, ssl.SSLError)


def test_tls_client_certificates(authority: Authority, tmp_path: Path) -> None:
    files = authority.write(tmp_path)
    with ScriptedServer(tls=authority.server_context(client_certificates=True)) as server:
        server.reply({})
        trusting = ssl.create_default_context(cafile=str(files.ca))
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url("/x"), verify=trusting, trust_env=False)
        trusting.load_cert_chain(files.certificate, files.key)
        assert httpx.get(server.url("/x"), verify=trusting, trust_env=False).status_code == 200
    assert len(server.requests) == 1


def test_proxy_absolute_form(scripted: ScriptedServer) -> None:
    scripted.stream([{"n": 1}, gate := Gate()])
    with ForwardProxy(scripted) as proxy, httpx.Client(proxy=proxy.origin) as client:
        with client.stream("POST", "http://vllm.example/v1/x?y=1", json={"a": 1}) as answer:
            pieces = answer.iter_raw()
            assert next(pieces) == sse({"n": 1})
            gate.release()
            assert b"".join(pieces) == DONE
        assert proxy.requests[0].target == "http://vllm.example/v1/x?y=1"
    seen = scripted.requests[0]
    assert (seen.target, seen.headers["host"], seen.json()) == ("/v1/x?y=1", "vllm.example", {"a": 1})


def test_proxy_connect(secure: ScriptedServer, authority: Authority) -> None:
    secure.always(lambda request: reply({"path": request.path}))
    with (
        ForwardProxy(secure) as proxy,
        httpx.Client(proxy=proxy.origin, verify=authority.client_context()) as client,
    ):
        for path in ("/a", "/b"):
            assert client.get(f"https://vllm.example{path}").json() == {"path": path}
        assert proxy.tunnels == ["vllm.example:443"]
    assert secure.wait_open(0)
    assert secure.connections == 1


def test_proxy_forwards_that_the_client_closed(scripted: ScriptedServer) -> None:
    scripted.stream([never])
    with ForwardProxy(scripted) as proxy, httpx.Client(proxy=proxy.origin) as client:
        with client.stream("GET", "http://vllm.example/x"):
            assert scripted.open_connections == 1
        assert scripted.wait_client_closed()
        assert proxy.wait_client_closed()


def test_proxy_stops_while_a_tunnel_is_open(scripted: ScriptedServer) -> None:
    scripted.stream([never])
    with ForwardProxy(scripted) as proxy:
        client = httpx.Client(proxy=proxy.origin)
        streaming = client.stream("GET", "http://vllm.example/x")
        streaming.__enter__()
    assert scripted.wait_client_closed()
    streaming.__exit__(None, None, None)
    client.close()


def test_proxy_credentials(scripted: ScriptedServer) -> None:
    scripted.reply({})
    with ForwardProxy(scripted, credentials=("u", "p")) as proxy:
        assert httpx.get("http://vllm.example/x", proxy=proxy.origin).status_code == 407
        known = proxy.origin.replace("http://", "http://u:p@")
        assert httpx.get("http://vllm.example/x", proxy=known).status_code == 200
    assert "proxy-authorization" not in scripted.requests[0].headers


def test_proxy_that_refuses(scripted: ScriptedServer) -> None:
    with ForwardProxy(scripted, status=403) as proxy, pytest.raises(httpx.ProxyError, match="403"):
        httpx.get("https://vllm.example/x", proxy=proxy.origin)


def test_proxy_without_a_server() -> None:
    with ScriptedServer() as server:
        pass
    with ForwardProxy(server) as proxy:
        assert httpx.get("http://vllm.example/x", proxy=proxy.origin).status_code == 502
