"""The caller's own clients: of httpx and httpx2, sync and async, and unknown ones."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import httpx2
import pytest

from support.chats import answer_any, chunk, completion
from support.runners import NAMES, Name, runner_of
from support.scripted import (
    Gate,
    ScriptedServer,
    close,
    forever,
    in_thread,
    never,
    refusing_origin,
    reset,
    stream,
    unanswering_origin,
)
from support.tls import Authority
from vllmchat import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    StreamInterruptedError,
    Timeout,
    VLLMProvider,
)
from vllmchat.http.clock import Clock
from vllmchat.http.flow import Send
from vllmchat.http.timeout import DEFAULT_TIMEOUT
from vllmchat.http.transport.httpx_client import AsyncHTTPClient, SyncHTTPClient, UserAsyncClient
from vllmchat.http.url import BaseURL
from vllmchat.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from support.runners import Runner

pytestmark = pytest.mark.slow


@dataclass
class Family:
    """Sync or async clients of one library."""

    module: Any
    runner: Runner
    clients: list[Any]

    def client(self, **options: Any) -> Any:
        """The caller's client."""
        options.setdefault("trust_env", False)
        cls = self.module.Client if self.runner.portal is None else self.module.AsyncClient
        self.clients.append(cls(**options))
        return self.clients[-1]

    def transport(self, **options: Any) -> Any:
        """The caller's transport."""
        if self.runner.portal is None:
            return self.module.HTTPTransport(**options)
        return self.module.AsyncHTTPTransport(**options)

    def provider(self, base_url: str, client: Any = None, **options: Any) -> VLLMProvider:
        """A provider that sends through the caller's client."""
        name = "http_client" if self.runner.portal is None else "async_http_client"
        client = self.client() if client is None else client
        options.setdefault("max_retries", 0)
        return VLLMProvider("m", base_url=base_url, **{name: client}, **options)

    def close(self) -> None:
        """The caller closes the clients."""
        for client in self.clients:
            if self.runner.portal is None:
                client.close()
            else:
                self.runner.portal.call(client.aclose)


@pytest.fixture(params=[(module, name) for module in (httpx, httpx2) for name in NAMES], ids=str)
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    module, name = request.param
    with runner_of(name) as runner:
        family = Family(module, runner, [])
        yield family
        family.close()
        gc.collect(1)


# ------------------------------------------------------------------------------------------------
# What works
# ------------------------------------------------------------------------------------------------


def test_replies_and_streams(family: Family, scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    llm = family.provider(scripted.base_url)
    assert family.runner.chat(llm).text == "Hi"
    assert family.runner.stream(llm).texts() == ["H", "i"]
    assert family.runner.chat(llm).text == "Hi"
    # A sync client has one timeout for the whole body, so the end of a stream is not waited for.
    assert scripted.connections == (2 if family.runner.portal is None else 1)


def test_the_client_is_not_closed(family: Family, scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    client = family.client()
    llm = family.provider(scripted.base_url, client)
    family.runner.chat(llm)
    family.runner.close(llm)
    assert not client.is_closed
    assert scripted.open_connections == 1
    another = family.provider(scripted.base_url, client)
    family.runner.chat(another)
    del llm, another
    gc.collect(1)
    assert not client.is_closed
    assert scripted.connections == 1


def test_the_clients_settings_apply(family: Family, scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    seen: list[str] = []

    def hook(request: Any) -> None:
        seen.append(str(request.url))

    async def ahook(request: Any) -> None:
        hook(request)

    client = family.client(
        headers={"x-mine": "1", "user-agent": "mine/1", "authorization": "Bearer mine"},
        cookies={"c": "d"},
        params={"api-version": "3"},
        event_hooks={"request": [hook if family.runner.portal is None else ahook]},
    )
    family.runner.chat(family.provider(scripted.base_url, client))
    request = scripted.requests[0]
    assert request.headers["x-mine"] == "1"
    assert request.headers["user-agent"] == "mine/1"
    assert request.headers["authorization"] == "Bearer mine"
    assert request.headers["cookie"] == "c=d"
    assert request.query == "api-version=3"
    assert seen == [f"{scripted.base_url}/chat/completions?api-version=3"]


def test_the_providers_settings_take_precedence(family: Family, scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    client = family.client(headers={"user-agent": "mine/1", "authorization": "Bearer mine", "x-a": "client"})
    llm = family.provider(
        scripted.base_url, client, api_key="ours", headers={"X-A": "provider", "User-Agent": "ours/1"}
    )
    family.runner.chat(llm)
    headers = scripted.requests[0].headers
    assert (headers["authorization"], headers["x-a"], headers["user-agent"]) == (
        "Bearer ours",
        "provider",
        "ours/1",
    )


@pytest.mark.parametrize("variable", ["VLLM_API_KEY", None])
def test_a_client_with_credentials_takes_precedence_over_a_key_from_the_environment(
    variable: str | None, family: Family, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv(variable, "from-the-environment")
    scripted.always(answer_any)
    client = family.client(headers={"authorization": "Bearer gateway"})
    llm = family.provider(scripted.base_url, client)
    family.runner.chat(llm)
    family.runner.chat(llm, extra_headers={"authorization": "Bearer this-call"})
    family.runner.chat(llm.with_options(api_key="given"))
    sent = [request.headers["authorization"] for request in scripted.requests]
    assert sent == ["Bearer gateway", "Bearer this-call", "Bearer given"]


def test_a_plain_client_changes_nothing(family: Family, scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    family.runner.chat(family.provider(scripted.base_url))
    headers = scripted.requests[0].headers
    assert headers["authorization"] == "Bearer EMPTY"
    assert headers["user-agent"] == f"vllmchat/{__version__}"
    assert headers["accept-encoding"] == "identity"


def test_the_clients_auth_applies(family: Family, scripted: ScriptedServer) -> None:
    scripted.always(answer_any)
    client = family.client(auth=("user", "password"))
    family.runner.chat(family.provider(scripted.base_url, client))
    assert scripted.requests[0].headers["authorization"].startswith("Basic ")


def test_mock_transports(family: Family) -> None:
    def handler(request: Any) -> Any:
        if b'"stream":true' in request.content:
            texts = "".join(f"data: {text}\n\n" for text in (json.dumps(chunk("a", "stop")), "[DONE]"))
            return family.module.Response(200, headers={"content-type": "text/event-stream"}, text=texts)
        return family.module.Response(200, json=completion("mocked"))

    client = family.client(transport=family.module.MockTransport(handler))
    llm = family.provider("http://nowhere.test", client)
    assert family.runner.chat(llm).text == "mocked"
    assert family.runner.stream(llm).texts() == ["a"]


def test_a_unix_socket(family: Family) -> None:
    with ScriptedServer("unix") as server:
        server.always(answer_any)
        client = family.client(transport=family.transport(uds=server.unix_path))
        llm = family.provider("http://localhost", client)
        assert family.runner.chat(llm).text == "Hi"
        assert server.requests[0].path == "/v1/chat/completions"
        family.close()
        family.clients.clear()


def test_the_clients_tls_settings_apply(family: Family) -> None:
    authority = Authority()
    with ScriptedServer(tls=authority.server_context()) as server:
        server.always(answer_any)
        llm = family.provider(server.base_url, family.client(verify=authority.client_context()))
        assert family.runner.chat(llm).text == "Hi"
        with pytest.raises(APIConnectionError, match="no TLS connection"):
            family.runner.chat(family.provider(server.base_url))
        family.close()
        family.clients.clear()


def test_redirects_are_the_clients_choice(family: Family, scripted: ScriptedServer) -> None:
    target = {"location": scripted.url("/elsewhere/v1/chat/completions")}
    scripted.reply(None, 307, target)
    with pytest.raises(Exception, match="Redirects are not followed"):
        family.runner.chat(family.provider(scripted.base_url))
    scripted.reply(None, 307, target)
    scripted.always(answer_any)
    following = family.client(follow_redirects=True)
    assert family.runner.chat(family.provider(scripted.base_url, following)).text == "Hi"


def test_compressed_responses(family: Family, scripted: ScriptedServer) -> None:
    scripted.reply(completion("small"), gzip=True)
    assert family.runner.chat(family.provider(scripted.base_url)).text == "small"


# ------------------------------------------------------------------------------------------------
# Timeouts
# ------------------------------------------------------------------------------------------------


def test_the_clients_timeouts_apply_unless_others_are_given(family: Family) -> None:
    own = family.client(timeout=family.module.Timeout(7, connect=3))
    given = Timeout(first_token=9)
    for timeout, expected in (
        (None, Timeout(connect=3, first_token=7, idle=7)),
        (given, given),
        (4, Timeout(total=4)),
    ):
        llm = family.provider("http://x", own, timeout=timeout)
        assert _timeout(family, llm) == expected
    assert _timeout(family, family.provider("http://x")) == DEFAULT_TIMEOUT
    unlimited = family.provider("http://x", family.client(timeout=None))
    assert _timeout(family, unlimited) == Timeout(connect=None, first_token=None, idle=None)


def _timeout(family: Family, llm: VLLMProvider) -> Timeout:
    runner = "_sync_timeout" if family.runner.portal is None else "_async_timeout"
    timeout: Timeout = getattr(llm, runner)
    return timeout


def test_first_token(family: Family, scripted: ScriptedServer) -> None:
    scripted.script(never)
    llm = family.provider(scripted.base_url, timeout=Timeout(first_token=0.05))
    with pytest.raises(APITimeoutError) as caught:
        family.runner.chat(llm)
    assert caught.value.limit == "first_token"
    assert scripted.wait_client_closed()


@pytest.mark.parametrize("limit", ["idle", "total"])
def test_in_the_body(limit: str, family: Family, scripted: ScriptedServer) -> None:
    scripted.stream([chunk("a"), never])
    # A sync client has one timeout for all reads of a body: the longer of first_token and idle.
    timeout = Timeout(first_token=0.5, idle=0.5) if limit == "idle" else Timeout(total=0.5)
    llm = family.provider(scripted.base_url, timeout=timeout)
    with pytest.raises(APITimeoutError) as caught:
        family.runner.stream(llm).texts()
    assert caught.value.limit == limit
    assert caught.value.partial is not None
    assert scripted.wait_client_closed()


def test_connect(family: Family) -> None:
    with unanswering_origin() as origin:
        llm = family.provider(origin, timeout=Timeout(connect=0.05))
        with pytest.raises(APITimeoutError) as caught:
            family.runner.chat(llm)
        assert caught.value.limit == "connect"


@pytest.mark.parametrize("bound", ["pool", "total"])
def test_waiting_for_the_clients_pool(bound: str, family: Family, scripted: ScriptedServer) -> None:
    scripted.always(stream([chunk("a"), never]))
    limits = family.module.Limits(max_connections=1)
    timeout = family.module.Timeout(20, pool=0.05 if bound == "pool" else 20)
    llm = family.provider(scripted.base_url, family.client(limits=limits, timeout=timeout))
    with family.runner.stream(llm):
        if bound == "pool":
            with pytest.raises(APIConnectionError, match="no connection to"):
                family.runner.chat(llm)
        else:
            with pytest.raises(APITimeoutError) as caught:
                family.runner.chat(llm, timeout=0.05)
            assert caught.value.limit == "total"
    assert len(scripted.requests) == 1


# ------------------------------------------------------------------------------------------------
# Failures
# ------------------------------------------------------------------------------------------------


def test_refused(family: Family) -> None:
    with refusing_origin() as origin, pytest.raises(APIConnectionError, match="vllm serve MODEL") as caught:
        family.runner.chat(family.provider(origin))
    assert type(caught.value.__cause__).__module__.partition(".")[0] == family.module.__name__


@pytest.mark.parametrize("ending", [close, reset])
def test_broken(ending: Any, family: Family, scripted: ScriptedServer) -> None:
    scripted.script(ending)
    with pytest.raises(APIConnectionError, match="broke"):
        family.runner.chat(family.provider(scripted.base_url))
    scripted.stream([chunk("a"), ending])
    with pytest.raises(StreamInterruptedError):
        family.runner.stream(family.provider(scripted.base_url)).texts()


def test_status(family: Family, scripted: ScriptedServer) -> None:
    scripted.reply({"error": {"message": "no such thing"}}, 400, {"X-Request-Id": "abc"})
    with pytest.raises(BadRequestError, match="no such thing") as caught:
        family.runner.chat(family.provider(scripted.base_url))
    assert caught.value.request_id == "abc"


def test_a_stale_connection_is_retried(family: Family) -> None:
    """The server closes a connection during the request: detected through httpcore's trace."""
    with ScriptedServer() as server:
        server.reply(completion("one"))
        server.script(close)
        server.reply(completion("two"))
        llm = family.provider(server.base_url, max_retries=0)
        assert family.runner.chat(llm).text == "one"
        assert family.runner.chat(llm).text == "two"
        assert [request.index for request in server.requests] == [0, 1, 0]
        family.close()
        family.clients.clear()


def test_a_new_connection_that_breaks_is_not_retried(family: Family, scripted: ScriptedServer) -> None:
    scripted.script(close)
    with pytest.raises(APIConnectionError):
        family.runner.chat(family.provider(scripted.base_url, max_retries=3))
    assert len(scripted.requests) == 1


# ------------------------------------------------------------------------------------------------
# Leaving early
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "collect"])
def test_leaving_a_stream(how: str, family: Family, scripted: ScriptedServer) -> None:
    scripted.stream([chunk("a"), never])
    llm = family.provider(scripted.base_url)
    opened = family.runner.stream(llm)
    chunks = iter(opened)
    assert next(chunks).text == "a"
    if how == "close":
        opened.close()
    del chunks, opened
    gc.collect()
    assert scripted.wait_client_closed()
    scripted.always(answer_any)
    assert family.runner.chat(llm).text == "Hi"


def test_leaving_a_stream_that_never_pauses(family: Family, scripted: ScriptedServer) -> None:
    scripted.stream([forever(b"data: %s\n\n" % json.dumps(chunk("a")).encode())])
    with family.runner.stream(family.provider(scripted.base_url)) as opened:
        assert next(iter(opened)).text == "a"
    assert scripted.wait_client_closed()


@pytest.mark.anyio
@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio warns; nothing can be done about it
async def test_leaving_an_endless_body_that_never_waits(module: Any) -> None:
    """Only a mock has such a body; it must not be read to its end, since there is none."""

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield f"data: {json.dumps(chunk('a'))}\n\n".encode()

    def handler(_: Any) -> Any:
        return module.Response(200, headers={"content-type": "text/event-stream"}, content=body())

    async with module.AsyncClient(transport=module.MockTransport(handler)) as client:
        llm = VLLMProvider("m", base_url="http://x", async_http_client=client)
        async with llm.astream("Hi") as opened:
            assert (await anext(opened)).text == "a"


@pytest.mark.anyio
@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_cancelled(module: Any, scripted: ScriptedServer) -> None:
    scripted.script(never)
    scripted.stream([chunk("a"), never])
    async with module.AsyncClient(trust_env=False) as client:
        llm = VLLMProvider("m", base_url=scripted.base_url, async_http_client=client)
        for number in range(1, 3):
            async with anyio.create_task_group() as group:
                group.start_soon(llm.astream("Hi").until_done)
                assert await in_thread(partial(scripted.wait_requests, number))
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            assert await in_thread(scripted.wait_client_closed)
        scripted.always(answer_any)
        assert (await llm.achat("Hi")).text == "Hi"


@pytest.mark.anyio
@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_a_discarded_response(module: Any, scripted: ScriptedServer) -> None:
    scripted.stream([chunk("a"), never])
    async with module.AsyncClient(trust_env=False) as client:
        step = Send("GET", BaseURL.parse(scripted.base_url, add_v1=True), "/v1/x", {}, None, "r")
        answer = await UserAsyncClient(client).send(step, Clock(Timeout()))
        assert await answer.read()
        del answer
        gc.collect(1)
        assert await in_thread(scripted.wait_client_closed)
        scripted.reply({})
        answer = await UserAsyncClient(client).send(step, Clock(Timeout()))
        await answer.aclose()
        answer.abort()
        await answer.aclose()


def test_the_formal_end_of_a_finished_stream_is_not_awaited_long(
    family: Family, scripted: ScriptedServer
) -> None:
    scripted.stream([chunk("a", "stop")], end=False, then=[gate := Gate()])
    assert family.runner.stream(family.provider(scripted.base_url)).texts() == ["a"]
    gate.release()
    assert scripted.wait_client_closed()


# ------------------------------------------------------------------------------------------------
# Any client will do
# ------------------------------------------------------------------------------------------------


class MinimalResponse:
    """A minimal response."""

    def __init__(self, body: bytes, *, headers: bool = True) -> None:
        self.status_code = 200
        if headers:
            self.headers = {"Content-Type": "application/json", "X-Request-Id": "r1"}
        self.closed = 0
        self._body = body

    def iter_bytes(self) -> Iterator[bytes]:
        yield b""
        yield self._body

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        yield b""
        yield self._body

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class MinimalClient:
    """A minimal sync client."""

    def __init__(self, answer: Callable[[], MinimalResponse]) -> None:
        self._answer = answer
        self.requests: list[dict[str, Any]] = []

    def build_request(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        return {"method": method, "url": url, **options}

    def send(self, request: dict[str, Any], *, stream: bool = False) -> MinimalResponse:
        assert stream
        self.requests.append(request)
        return self._answer()


class MinimalAsyncClient(MinimalClient):
    """A minimal async client."""

    async def send(self, request: dict[str, Any], *, stream: bool = False) -> MinimalResponse:  # type: ignore[override] # sync elsewhere
        return MinimalClient.send(self, request, stream=stream)


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_minimal_client(name: Name, headers: bool) -> None:
    body = json.dumps(completion("minimal")).encode()
    answers = [MinimalResponse(body, headers=headers) for _ in range(2)]
    left = iter(answers)
    client: Any = (MinimalClient if name == "sync" else MinimalAsyncClient)(lambda: next(left))
    for protocol in (SyncHTTPClient, AsyncHTTPClient):
        assert issubclass(type(client), protocol)
    option: dict[str, Any] = {"http_client" if name == "sync" else "async_http_client": client}
    llm = VLLMProvider("m", base_url="http://x", **option)
    with runner_of(name) as runner:
        reply = runner.chat(llm)
        assert reply.text == "minimal"
        assert reply.request_id == ("r1" if headers else client.requests[0]["headers"]["x-request-id"])
        runner.close(llm)
    (request,) = client.requests
    assert (request["method"], request["url"]) == ("POST", "http://x/v1/chat/completions")
    assert isinstance(request["content"], bytes)
    assert isinstance(request["headers"], dict)


def test_a_client_with_unknown_errors(family: Family) -> None:
    def handler(_: Any) -> Any:
        raise ZeroDivisionError("mine")

    client = family.client(transport=family.module.MockTransport(handler))
    with pytest.raises(ZeroDivisionError, match="mine"):
        family.runner.chat(family.provider("http://x", client))


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_has_no_more_responses(name: Name, streamed: bool) -> None:
    """As mocks raise it. It must not end the call or the loop over its stream as if all were well."""

    class Exhausted(MinimalClient):
        def send(self, request: dict[str, Any], *, stream: bool = False) -> MinimalResponse:
            raise StopIteration

    class AsyncExhausted(MinimalAsyncClient):
        async def send(self, request: dict[str, Any], *, stream: bool = False) -> MinimalResponse:  # type: ignore[override] # sync elsewhere
            raise StopAsyncIteration

    def unused() -> MinimalResponse:
        raise AssertionError

    option: dict[str, Any] = (
        {"http_client": Exhausted(unused)}
        if name == "sync"
        else {"async_http_client": AsyncExhausted(unused)}
    )
    llm = VLLMProvider("m", base_url="http://x", **option)
    with (
        runner_of(name) as runner,
        pytest.raises(RuntimeError, match=r"the HTTP client raised Stop\w*Iteration"),
    ):
        runner.stream(llm).texts() if streamed else runner.chat(llm)


def test_timeouts_of_a_client_that_has_none() -> None:
    class Odd(MinimalClient):
        timeout = 30

    llm = VLLMProvider("m", base_url="http://x", http_client=Odd(lambda: MinimalResponse(b"")))
    assert llm.timeout == DEFAULT_TIMEOUT


@pytest.mark.parametrize("limit", ["total", "first_token"])
def test_a_head_that_drips_does_not_forestall_a_limit(limit: str, scripted: ScriptedServer) -> None:
    """httpx starts its timeout again with each byte."""
    scripted.script(b"HTTP/1.1 200 OK\r\n", forever(b"x"))

    async def main() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            llm = VLLMProvider("m", base_url=scripted.base_url, async_http_client=client)
            with pytest.raises(APITimeoutError) as caught:
                await llm.achat("Hi", timeout=Timeout(**{limit: 0.1}))
            assert caught.value.limit == limit

    anyio.run(main)


# httpx leaves the connections of the loops that ended.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_on_another_event_loop(scripted: ScriptedServer) -> None:
    for _ in range(4):
        scripted.reply(completion("Hi"))

    async def ask(llm: VLLMProvider) -> str:
        try:
            return (await llm.achat("Hi")).text
        except APIConnectionError as error:
            return str(error)

    def ask_on_three_loops() -> list[str]:
        client = httpx.AsyncClient(trust_env=False)
        llm = VLLMProvider("m", base_url=scripted.base_url, async_http_client=client, max_retries=0)
        return [asyncio.run(ask(llm)) for _ in range(3)]

    texts = ask_on_three_loops()
    assert texts[0] == "Hi"
    assert all(text == "Hi" or "works on one event loop" in text for text in texts)
    gc.collect()
