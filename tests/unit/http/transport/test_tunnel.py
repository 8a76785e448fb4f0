"""How a proxy is asked for a connection, driven by hand; and SOCKS over real sockets."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from support.chats import answer_any
from support.sockets import Connection, Listener
from vllmchat import APIConnectionError, VLLMProvider
from vllmchat.http.transport.backend import Read, Write
from vllmchat.http.transport.network_errors import ProxyError, RemoteProtocolError
from vllmchat.http.transport.proxy import Proxy
from vllmchat.http.transport.tunnel import tunnel_steps

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

HTTP = Proxy("http", "proxy", 3128)
SOCKS = Proxy("socks5", "proxy", 1080)


def ask(proxy: Proxy, *answers: bytes, host: str = "llm.example", port: int = 443) -> list[bytes]:
    """Returns what was sent to a proxy that answers this."""
    sent: list[bytes] = []
    waiting = list(answers)
    steps = tunnel_steps(proxy, host, port)
    with contextlib.suppress(StopIteration):
        step = next(steps)
        while True:
            if isinstance(step, Write):
                sent.append(bytes(step.data))
                step = steps.send(b"")
            else:
                assert isinstance(step, Read)
                step = steps.send(waiting.pop(0))
    assert not waiting
    return sent


@pytest.mark.parametrize(("host", "shown"), [("llm.example", b"llm.example"), ("fd00::5", b"[fd00::5]")])
def test_connect(host: str, shown: bytes) -> None:
    (sent,) = ask(HTTP, b"HTTP/1.1 200 Connection", b" established\r\n\r\n", host=host, port=8443)
    assert sent == b"CONNECT %b:8443 HTTP/1.1\r\nHost: %b:8443\r\n\r\n" % (shown, shown)
    proxy = HTTP._replace(credentials=(b"u", b"p"))
    assert b"\r\nProxy-Authorization: Basic dTpw\r\n" in ask(proxy, b"HTTP/1.1 200 OK\r\n\r\n")[0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", "407 Proxy Authentication Required"),
        (b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n", "502 Bad Gateway"),
        (b"HTTP/1.1 599 No\r\ncontent-length: 0\r\n\r\n", "599"),
    ],
)
def test_a_proxy_that_refuses(answer: bytes, reason: str) -> None:
    with pytest.raises(ProxyError) as caught:
        ask(HTTP, answer)
    assert str(caught.value) == reason


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nearly", b""])
def test_what_is_no_proxy(answer: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ask(HTTP, answer)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("llm.example", b"\3\x0bllm.example"),
        ("10.0.0.1", b"\1\x0a\0\0\1"),
        ("::1", b"\4" + b"\0" * 15 + b"\1"),
    ],
)
@pytest.mark.parametrize("bound", [b"\1\0\0\0\0", b"\4" + b"\0" * 16, b"\3\2ab"])
def test_socks(host: str, address: bytes, bound: bytes) -> None:
    answer = b"\5\0\0" + bound + b"\0\0"
    sent = ask(SOCKS, b"\5\0", *(bytes((byte,)) for byte in answer), host=host, port=258)
    assert sent == [b"\5\1\0", b"\5\1\0" + address + b"\1\2"]


def test_socks_with_a_password() -> None:
    proxy = SOCKS._replace(credentials=(b"user", b"pw"))
    sent = ask(proxy, b"\5\2", b"\1\0", b"\5\0\0\1\0\0\0\0\0\0")
    assert sent[:2] == [b"\5\1\2", b"\1\4user\2pw"]
    with pytest.raises(ProxyError, match="401 wrong user or password"):
        ask(proxy, b"\5\2", b"\1\1")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ((b"\5\xff",), "401 it does not accept this way to authenticate"),
        ((b"\5\0", b"\5\5\0\1"), "connection refused"),
        ((b"\5\0", b"\5\x63\0\1"), "SOCKS error 99"),
    ],
)
def test_a_socks_proxy_that_refuses(answers: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(ProxyError, match=reason):
        ask(SOCKS, *answers)
    with pytest.raises(RemoteProtocolError, match="closed the connection"):
        ask(SOCKS, b"\5", b"")


class SocksProxy(Listener):
    """A SOCKS proxy that connects everything to one server."""

    def __init__(self, upstream: Listener) -> None:
        super().__init__()
        self._upstream = upstream
        self.targets: list[bytes] = []

    def serve(self, connection: Connection) -> None:
        while len(connection.buffer) < 3:
            connection.receive()
        del connection.buffer[:3]
        connection.send(b"\5\0")
        while len(connection.buffer) < 5 or len(connection.buffer) < 7 + connection.buffer[4]:
            connection.receive()
        self.targets.append(bytes(connection.buffer[5 : 5 + connection.buffer[4]]))
        connection.buffer.clear()
        with contextlib.closing(socket.create_connection(self._upstream.address)) as upstream:
            connection.send(b"\5\0\0\1\0\0\0\0\0\0")
            connection.relay(upstream)


@pytest.mark.slow
def test_a_call_through_socks(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(answer_any)
    with SocksProxy(scripted) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.origin.replace("http://", "socks5h://"))
        llm = VLLMProvider("m", base_url="http://vllm.example")
        for _ in range(2):
            assert runner.chat(llm).text == "Hi"
            assert runner.stream(llm).texts() == ["H", "i"]
        assert proxy.targets == [b"vllm.example"]
        # The request is not meant for the proxy.
        assert scripted.requests[0].target == "/v1/chat/completions"
        runner.close(llm)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_down_is_named(scheme: str, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("HTTP_PROXY", url)
        with pytest.raises(APIConnectionError) as caught:
            runner.chat(VLLMProvider("m", base_url="http://vllm.example", max_retries=0))
    assert f"no connection to the proxy {url} (from HTTP_PROXY)" in str(caught.value)
    assert "NO_PROXY" in str(caught.value)
