"""Proxies from the environment."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from support.chats import answer_any, chunk, completion
from support.pools import held, pool_of
from support.proxy import ForwardProxy
from support.scripted import (
    ScriptedServer,
    close,
    head,
    never,
    refusing_origin,
    script,
    unanswering_origin,
)
from support.tls import Authority
from vllmchat import APIConnectionError, APIStatusError, APITimeoutError, Timeout, VLLMProvider
from vllmchat.http.transport.proxy import Proxy, proxy_for
from vllmchat.http.url import BaseURL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.runners import Runner

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def secure(authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedServer]:
    """A server with TLS whom the clients trust, for a name that does not exist."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path).ca))
    with ScriptedServer(tls=authority.server_context("vllm.example")) as server:
        server.always(answer_any)
        yield server


PLAIN = pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])


@PLAIN
def test_a_plain_server(
    variable: str, scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(answer_any)
    with ForwardProxy(scripted) as proxy:
        monkeypatch.setenv(variable, proxy.origin)
        llm = VLLMProvider("m", base_url="http://vllm.example:8000", api_key="key")
        assert runner.chat(llm).text == "Hi"
        assert runner.stream(llm).texts() == ["H", "i"]
        assert proxy.requests[0].target == "http://vllm.example:8000/v1/chat/completions"
        assert scripted.requests[0].headers["host"] == "vllm.example:8000"
        assert scripted.requests[0].headers["authorization"] == "Bearer key"
        runner.close(llm)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
def test_a_server_with_tls(
    variable: str, secure: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(secure) as proxy:
        monkeypatch.setenv(variable, proxy.origin)
        llm = VLLMProvider(
            "m", base_url="https://vllm.example", api_key="hunter2", headers={"x-key": "hunter2"}
        )
        for _ in range(3):
            assert runner.chat(llm).text == "Hi"
            assert runner.stream(llm).texts() == ["H", "i"]
        assert proxy.tunnels == ["vllm.example:443"]
        assert (proxy.connections, secure.connections) == (1, 1)
        assert held(pool_of(runner, llm)) == (1, 0, 0)
        # The proxy has seen only the target of the request.
        assert "hunter2" not in repr(proxy.requests)
        assert secure.requests[0].headers["authorization"] == "Bearer hunter2"
        runner.close(llm)
        assert proxy.wait_client_closed()
        assert secure.wait_client_closed()


def test_a_proxy_with_tls(
    authority: Authority, secure: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(secure, tls=authority.server_context()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        llm = VLLMProvider("m", base_url="https://vllm.example")
        assert runner.chat(llm).text == "Hi"
        assert proxy.tunnels == ["vllm.example:443"]
        runner.close(llm)
        assert proxy.wait_client_closed()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_credentials(
    scheme: str,
    scripted: ScriptedServer,
    secure: ScriptedServer,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = scripted if scheme == "http" else secure
    server.always(answer_any)
    with ForwardProxy(server, credentials=("u@x", "p:ü")) as proxy:
        base_url = f"{scheme}://vllm.example"
        monkeypatch.setenv("ALL_PROXY", proxy.origin)
        with pytest.raises(Exception, match="407"):
            runner.chat(VLLMProvider("m", base_url=base_url, max_retries=2))
        assert len(proxy.requests) == 1
        monkeypatch.setenv("ALL_PROXY", proxy.origin.replace("://", "://u%40x:p%3A%C3%BC@"))
        assert runner.chat(VLLMProvider("m", base_url=base_url)).text == "Hi"
        assert "proxy-authorization" not in server.requests[-1].headers


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("127.0.0.1", True),
        ("*", True),
        ("example.com,127.0.0.1", True),
        ("example.com", False),
        ("", False),
    ],
)
def test_no_proxy(
    no_proxy: str, direct: bool, scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(answer_any)
    with ForwardProxy(scripted) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        llm = VLLMProvider("m", base_url=scripted.base_url)
        assert runner.chat(llm).text == "Hi"
        assert bool(proxy.requests) is not direct
        runner.close(llm)


def test_a_callers_own_client_decides_for_itself(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    scripted.always(answer_any)
    monkeypatch.setenv("HTTP_PROXY", "nonsense://")
    with httpx.Client(trust_env=False) as client:
        assert VLLMProvider("m", base_url=scripted.base_url, http_client=client).chat("Hi").text == "Hi"


# ------------------------------------------------------------------------------------------------
# The pool is the same one
# ------------------------------------------------------------------------------------------------


def test_leaving_a_stream(secure: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy(secure) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        llm = VLLMProvider("m", base_url="https://vllm.example", max_connections=1)
        secure.stream([chunk("a"), never])
        with runner.stream(llm) as opened:
            assert next(iter(opened)).text == "a"
        assert secure.wait_client_closed()
        assert proxy.wait_client_closed()
        assert runner.chat(llm).text == "Hi"
        runner.drop_connections(llm)
        assert runner.chat(llm).text == "Hi"
        runner.close(llm)
        assert secure.wait_open(0)


def test_timeouts_apply(scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted.always(answer_any)
    with ForwardProxy(scripted) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        llm = VLLMProvider("m", base_url="http://vllm.example", max_connections=1, timeout=Timeout(idle=0.1))
        with runner.stream(llm):
            with pytest.raises(APITimeoutError) as caught:
                runner.chat(llm, timeout=0.05)
            assert caught.value.limit == "total"
        scripted.stream([chunk("a"), never])
        with pytest.raises(APITimeoutError) as caught:
            runner.stream(llm).texts()
        assert caught.value.limit == "idle"
        assert scripted.wait_open(0)


def test_a_stale_connection(secure: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy(secure) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        llm = VLLMProvider("m", base_url="https://vllm.example")
        runner.chat(llm)
        secure.script(close)
        assert runner.chat(llm).text == "Hi"
        assert secure.connections == 2
        runner.close(llm)


# ------------------------------------------------------------------------------------------------
# Failures
# ------------------------------------------------------------------------------------------------


def test_a_proxy_that_refuses(
    secure: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(secure, status=403) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        with pytest.raises(APIConnectionError, match="403"):
            runner.chat(VLLMProvider("m", base_url="https://vllm.example", max_retries=0))
        assert proxy.wait_open(0)


def test_a_proxy_that_does_not_exist(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_origin() as origin:
        monkeypatch.setenv("ALL_PROXY", origin)
        with pytest.raises(APIConnectionError, match="no connection"):
            runner.chat(VLLMProvider("m", base_url="http://vllm.example", max_retries=0))


@pytest.mark.parametrize("silent", ["proxy", "tunnel"])
def test_a_proxy_that_hangs(silent: str, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requesting a tunnel is part of connecting: it does not get 600 s."""
    with unanswering_origin() as origin, ScriptedServer() as mute:
        mute.always(lambda _: pytest.fail("no answer is asked for"))
        mute.script(never)
        monkeypatch.setenv("HTTPS_PROXY", origin if silent == "proxy" else mute.origin)
        timeout = Timeout(connect=0.1)
        llm = VLLMProvider("m", base_url="https://vllm.example", max_retries=0, timeout=timeout)
        with pytest.raises(APITimeoutError) as caught:
            runner.chat(llm)
        assert (caught.value.limit, caught.value.seconds) == ("connect", 0.1)
        assert mute.wait_open(0)


def test_connecting_ends_with_the_tunnel(
    secure: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the tunnel is open, `connect` no longer applies."""
    secure.script(never)
    with ForwardProxy(secure) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        timeout = Timeout(connect=0.5, first_token=0.8)
        llm = VLLMProvider("m", base_url="https://vllm.example", max_retries=0, timeout=timeout)
        with pytest.raises(APITimeoutError) as caught:
            runner.chat(llm)
        assert caught.value.limit == "first_token"


@pytest.mark.parametrize(
    "value", ["ftp://user:hunter2@proxy", "http://", "http://user:hunter2@proxy:port", "http://[::1"]
)
def test_what_is_not_a_proxy(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    with pytest.raises(
        ValueError, match=r"HTTP_PROXY.*is not a valid URL: write it as http://HOST:PORT"
    ) as caught:
        VLLMProvider("m", base_url="http://x")
    assert "hunter2" not in str(caught.value)


def test_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:hunter2@proxy")
    proxy = proxy_for(BaseURL.parse("http://x", add_v1=True))
    assert proxy == Proxy("socks5", "proxy", 1080, (b"user", b"hunter2"), "ALL_PROXY")
    assert repr(proxy) == "Proxy('socks5://proxy:1080')"


def test_url_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Proxy.parse("proxy:3128") == Proxy("http", "proxy", 3128)
    assert Proxy.parse("http://proxy") == Proxy("http", "proxy", 80)
    assert Proxy.parse("https://u@proxy") == Proxy("https", "proxy", 443, (b"u", b""))
    assert Proxy.parse("http://[::1]:3128").url == "http://[::1]:3128"
    base = BaseURL.parse("http://[::1]:8000", add_v1=True)
    assert proxy_for(base) is None
    monkeypatch.setenv("HTTP_PROXY", "proxy:1")
    assert proxy_for(base) == Proxy("http", "proxy", 1, None, "HTTP_PROXY")
    monkeypatch.setenv("NO_PROXY", "::1")
    assert proxy_for(base) is None


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the system's settings are asked there")
def test_nothing_is_imported_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "urllib.request", None)
    assert proxy_for(BaseURL.parse("http://x", add_v1=True)) is None


# ------------------------------------------------------------------------------------------------
# Addresses, and what nobody asked for
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no_proxy", "exempt"),
    [
        ("10.0.0.0/8", True),
        ("localhost, 10.1.0.0/16 ,::1", True),
        ("10.2.0.0/16", False),
        ("10.1.2.3", True),
        ("fd00::/8", False),
        ("nonsense/99", False),
    ],
)
def test_no_proxy_with_networks(no_proxy: str, exempt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (proxy_for(BaseURL.parse("http://10.1.2.3:8000", add_v1=True)) is None) is exempt
    assert proxy_for(BaseURL.parse("http://llm.example", add_v1=True)) is not None


def test_no_proxy_with_an_ipv6_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "[fd00::]/8,fd00::/8")
    assert proxy_for(BaseURL.parse("http://[fd00::5]:8000", add_v1=True)) is None


def test_an_ipv6_server_behind_a_proxy(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(answer_any)
    with ForwardProxy(scripted) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        llm = VLLMProvider("m", base_url="http://[fd00::5]:8000")
        assert runner.chat(llm).text == "Hi"
        assert proxy.requests[0].target == "http://[fd00::5]:8000/v1/chat/completions"
        assert proxy.requests[0].headers["host"] == "[fd00::5]:8000"
        runner.close(llm)


def test_bytes_that_nobody_asked_for_are_not_the_next_answer(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(text: str) -> bytes:
        body = json.dumps(completion(text)).encode()
        return head(200, {"content-type": "application/json", "content-length": str(len(body))}) + body

    monkeypatch.setenv("HTTP_PROXY", scripted.origin)
    scripted.script(answered("good") + answered("EVIL"))
    scripted.always(script(answered("good")))
    llm = VLLMProvider("m", base_url="http://vllm.example", max_retries=0)
    assert [runner.chat(llm).text for _ in range(3)] == ["good"] * 3
    runner.close(llm)


def test_a_407_names_what_to_check(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(scripted, credentials=("u", "p")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        with pytest.raises(APIStatusError, match=r"407: .*check the proxy's address and credentials"):
            runner.chat(VLLMProvider("m", base_url="http://vllm.example"))
