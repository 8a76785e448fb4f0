"""TLS: verification, client certificates, and the errors of failed handshakes."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest

from support.chats import answer_any, completion
from support.proxy import ForwardProxy
from support.scripted import Gate, ScriptedServer, close, head, never, stream
from support.sockets import Listener
from support.tls import Authority, Files
from vllmchat import APIConnectionError, APITimeoutError, InvalidRequestError, Timeout, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.runners import Runner
    from support.sockets import Connection

T = TypeVar("T")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    return authority.write(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Iterator[ScriptedServer]:
    with ScriptedServer(tls=authority.server_context()) as server:
        server.always(answer_any)
        yield server


def test_the_environment_names_the_authority(
    server: ScriptedServer, files: Files, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    llm = VLLMProvider("m", base_url=server.base_url)
    assert runner.chat(llm).text == "Hi"
    assert runner.stream(llm).texts() == ["H", "i"]
    assert server.connections == 1
    runner.close(llm)
    assert server.wait_client_closed()


@pytest.mark.parametrize("how", ["path", "str", "context"])
def test_verify_names_the_authority(
    how: str, server: ScriptedServer, authority: Authority, files: Files, runner: Runner
) -> None:
    ways: dict[str, Path | str | ssl.SSLContext] = {
        "path": files.ca,
        "str": str(files.ca),
        "context": authority.client_context(),
    }
    llm = VLLMProvider("m", base_url=server.base_url, verify=ways[how])
    assert runner.chat(llm).text == "Hi"
    runner.close(llm)


def test_verify_names_a_directory_of_authorities(
    server: ScriptedServer,
    authority: Authority,
    tmp_path: Path,
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, object]] = []

    def create(**options: object) -> ssl.SSLContext:
        # The files of such a directory are named by a hash that only OpenSSL's own tool computes.
        asked.append(options)
        return authority.client_context()

    monkeypatch.setattr(ssl, "create_default_context", create)
    llm = VLLMProvider("m", base_url=server.base_url, verify=tmp_path)
    assert runner.chat(llm).text == "Hi"
    assert asked == [{"capath": tmp_path}]
    runner.close(llm)


def test_an_untrusted_authority(server: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=server.base_url, max_retries=2)
    with pytest.raises(
        APIConnectionError, match=r"no TLS connection to https://.*SSL_CERT_FILE.*verify="
    ) as caught:
        runner.chat(llm)
    assert "certificate verify failed" in str(caught.value)
    # Retrying does not make a certificate valid.
    assert server.wait_open(0)
    assert server.connections == 1


def test_verification_can_be_disabled(server: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=server.base_url, verify=False)
    assert runner.chat(llm).text == "Hi"
    runner.close(llm)


def test_a_certificate_for_another_name(server: ScriptedServer, files: Files, runner: Runner) -> None:
    # The certificate has 127.0.0.1 and localhost in it.
    llm = VLLMProvider("m", base_url=f"https://127.0.0.2:{server.port}", verify=files.ca, max_retries=0)
    with pytest.raises(APIConnectionError):
        runner.chat(llm)


def test_client_certificates(authority: Authority, files: Files, runner: Runner) -> None:
    with ScriptedServer(tls=authority.server_context(client_certificates=True)) as server:
        server.always(answer_any)
        without = VLLMProvider("m", base_url=server.base_url, verify=files.ca, max_retries=0)
        with pytest.raises(APIConnectionError):
            runner.chat(without)
        context = ssl.create_default_context(cafile=str(files.ca))
        context.load_cert_chain(files.certificate, files.key)
        llm = VLLMProvider("m", base_url=server.base_url, verify=context)
        assert runner.chat(llm).text == "Hi"
        runner.close(llm)


def test_a_server_without_tls(scripted: ScriptedServer, files: Files, runner: Runner) -> None:
    base_url = scripted.base_url.replace("http:", "https:")
    # To the server, the handshake does not look like a request that it could respond to.
    scripted.at_connect(close)
    llm = VLLMProvider("m", base_url=base_url, verify=files.ca, max_retries=0)
    with pytest.raises(APIConnectionError, match=r"no TLS connection|no connection"):
        runner.chat(llm)


def test_the_handshake_counts_as_connecting(authority: Authority, files: Files, runner: Runner) -> None:
    with ScriptedServer(tls=authority.server_context()) as server:
        server.at_connect(gate := Gate())
        timeout = Timeout(connect=0.1)
        llm = VLLMProvider("m", base_url=server.base_url, verify=files.ca, max_retries=0, timeout=timeout)
        with pytest.raises(APITimeoutError) as caught:
            runner.chat(llm)
        assert (caught.value.limit, caught.value.seconds) == ("connect", 0.1)
        gate.release()
        assert server.wait_open(0)


def test_leaving_a_stream_is_noticed_at_once(server: ScriptedServer, files: Files, runner: Runner) -> None:
    """A closing handshake would have to wait for the server, which is busy generating."""
    server.always(stream([{"choices": []}, never]))
    llm = VLLMProvider("m", base_url=server.base_url, verify=files.ca)
    with runner.stream(llm) as opened:
        next(iter(opened))
    assert server.wait_client_closed()


def test_a_server_that_closes_without_close_notify(
    authority: Authority, files: Files, runner: Runner
) -> None:
    # What TLS still buffers then must not be lost. The server sends as fast as it can, all at once.
    text = "x" * 5_000_000
    body = json.dumps(completion(text)).encode()
    answer = head(200, {"connection": "close", "content-length": str(len(body))}) + body

    def serve() -> None:
        for _ in range(3):
            connection, _address = listening.accept()
            with authority.server_context().wrap_socket(connection, server_side=True) as tls:
                while not tls.recv(65536).endswith(b"}"):
                    pass
                tls.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as server:
        listening.settimeout(10)
        served = server.submit(serve)
        base_url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        llm = VLLMProvider("m", base_url=base_url, verify=str(files.ca))
        for _ in range(3):
            assert runner.chat(llm).text == text
        runner.close(llm)
        served.result(10)


@pytest.mark.parametrize("through_proxy", [False, True])
def test_an_unrequested_response_is_not_the_next_answer(
    through_proxy: bool, authority: Authority, files: Files, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both arrive at once, so that whoever decrypts the first has received the second.
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    with (
        _TwoAtOnce(authority.server_context("vllm.example")) as server,
        ForwardProxy(server, tls=authority.server_context()) as proxy,
    ):
        base_url = f"https://127.0.0.1:{server.port}"
        if through_proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
            base_url = "https://vllm.example"
        llm = VLLMProvider("m", base_url=base_url)
        texts = [runner.chat(llm).text for _ in range(3)]
        assert texts == ["0.0", "1.0", "1.1"], "the connection and the number of the request on it"
        runner.close(llm)


class _TwoAtOnce(Listener):
    """Answers the first request on its first connection with two responses: two TLS records, sent in one piece."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context

    def serve(self, connection: Connection) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(incoming, outgoing, server_side=True)

        def wait_for(step: Callable[[], T]) -> T:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    connection.send(outgoing.read())
                    connection.receive(patient=True)
                    incoming.write(bytes(connection.buffer))
                    connection.buffer.clear()

        wait_for(tls.do_handshake)
        for number in itertools.count():
            while not wait_for(lambda: tls.read(65536)).endswith(b"}"):
                pass
            tls.write(_response(f"{connection.number}.{number}"))
            if connection.number == number == 0:
                tls.write(_response("not requested"))
            connection.send(outgoing.read())


def _response(text: str) -> bytes:
    body = json.dumps(completion(text)).encode()
    return head(200, {"content-length": str(len(body))}) + body


def test_timeouts_apply(server: ScriptedServer, files: Files, runner: Runner) -> None:
    server.always(stream([{"choices": []}, never]))
    llm = VLLMProvider("m", base_url=server.base_url, verify=files.ca, timeout=Timeout(idle=0.1))
    with pytest.raises(APITimeoutError) as caught:
        runner.stream(llm).texts()
    assert caught.value.limit == "idle"
    assert server.wait_client_closed()


def test_no_context_without_tls(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer to make than everything else in a provider."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a TLS context was made")

    scripted.always(answer_any)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with monkeypatch.context() as patched:
        patched.setattr(ssl, "create_default_context", fail)
        patched.setattr("httpx.create_ssl_context", fail)
        assert runner.chat(llm).text == "Hi"
    runner.close(llm)


def test_one_context_for_many_connections(
    server: ScriptedServer, files: Files, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    create = ssl.create_default_context

    def counting(cafile: str | None = None) -> ssl.SSLContext:
        made.append(cafile)
        return create(cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", counting)
    llm = VLLMProvider("m", base_url=server.base_url, verify=files.ca)
    for _ in range(3):
        runner.chat(llm)
        runner.drop_connections(llm)
    assert server.connections == 3
    assert made == [files.ca]


@pytest.mark.parametrize("kind", ["missing", "folder", "no certificate"])
def test_certificates_of_the_environment_that_cannot_be_used(
    kind: str, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    value = {"missing": tmp_path / "gone.pem", "folder": tmp_path, "no certificate": empty}[kind]
    monkeypatch.setenv("SSL_CERT_FILE", str(value))
    with pytest.raises(InvalidRequestError, match=r"^SSL_CERT_FILE='.*' cannot be used: ") as caught:
        runner.chat(VLLMProvider("m", base_url="https://127.0.0.1:9"))
    assert str(value) in str(caught.value)
