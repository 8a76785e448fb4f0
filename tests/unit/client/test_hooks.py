"""Hooks see what is sent, tried again, and received, and may add headers."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from support.chats import chunks, completion
from support.scripted import close, never
from vllmchat import (
    APITimeoutError,
    BadRequestError,
    RequestInfo,
    ResponseInfo,
    RetryInfo,
    ServiceUnavailableError,
    StreamError,
    StreamInterruptedError,
    Timeout,
    Usage,
    VLLMProvider,
)
from vllmchat.http import flow as flows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.runners import Runner
    from support.scripted import ScriptedServer

KEY = "the-key-of-hooks-1"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def short_pause(_: int) -> float:
    """In place of `backoff`."""
    return 0.001


class Seen:
    """Everything that hooks were called with."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self.events: list[RequestInfo | RetryInfo | ResponseInfo] = []
        self.headers = headers

    def on_request(self, event: RequestInfo) -> Mapping[str, str] | None:
        self.events.append(event)
        event.state["attempts"] = event.attempt
        return self.headers

    def on_retry(self, event: RetryInfo) -> None:
        self.events.append(event)

    def on_response(self, event: ResponseInfo) -> None:
        self.events.append(event)

    @property
    def end(self) -> ResponseInfo:
        [event] = [each for each in self.events if isinstance(each, ResponseInfo)]
        return event


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def llm(scripted: ScriptedServer, runner: Runner, seen: Seen) -> Iterator[VLLMProvider]:
    provider = VLLMProvider(
        "m", base_url=scripted.base_url, api_key=KEY,
        on_request=seen.on_request, on_retry=seen.on_retry, on_response=seen.on_response,
    )  # fmt: skip
    yield provider
    runner.close(provider)


def test_a_call_with_a_retry(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, seen: Seen) -> None:
    scripted.busy(1, retry_after="0")
    scripted.reply(completion(usage=USAGE), headers={"set-cookie": "a=b", "x-gpu": "7", "x-echo": KEY})
    reply = runner.chat(llm)
    first, retry, second, end = seen.events
    assert isinstance(first, RequestInfo)
    assert (first.method, first.url, first.attempt, first.model) == (
        "POST", f"{scripted.base_url}/chat/completions", 1, "m",
    )  # fmt: skip
    assert first.headers["content-type"] == "application/json"
    assert first.headers["authorization"] == "***"
    assert isinstance(retry, RetryInfo)
    assert retry.request == first
    assert isinstance(retry.error, ServiceUnavailableError)
    assert 0 <= retry.seconds < 1
    assert isinstance(second, RequestInfo)
    assert second.attempt == 2
    assert [first.request_id, second.request_id] == [
        each.headers["x-request-id"] for each in scripted.requests
    ]
    assert isinstance(end, ResponseInfo)
    assert end.request.request_id == second.request_id
    assert (end.status, end.attempts, end.error, end.complete) == (200, 2, None, True)
    assert (end.headers["x-gpu"], end.headers["set-cookie"], end.headers["x-echo"]) == ("7", "***", "***")
    assert end.usage == Usage.model_validate(USAGE)
    assert end.reply is reply
    assert end.timings == reply.timings
    assert first.state is end.request.state
    assert end.request.state == {"attempts": 2}
    assert KEY not in repr(seen.events)


def test_a_stream(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, seen: Seen) -> None:
    usage: dict[str, Any] = {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    scripted.stream([*chunks("a", "b"), usage])
    with runner.stream(llm) as stream:
        assert len(seen.events) == 0 or isinstance(seen.events[-1], RequestInfo)
        whole = stream.until_done()
    assert seen.end.reply == whole
    assert seen.end.timings.first_token is not None
    assert seen.end.usage == whole.usage
    assert seen.end.complete


def test_a_stream_that_is_left(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, seen: Seen
) -> None:
    scripted.stream([*chunks("a")[:1], never])
    with runner.stream(llm) as stream:
        next(stream)
    assert (seen.end.error, seen.end.complete) == (None, False)
    assert getattr(seen.end.reply, "text", None) == "a"


def test_a_stream_that_another_thread_closes_while_it_waits(scripted: ScriptedServer, seen: Seen) -> None:
    scripted.script(never)
    llm = VLLMProvider("m", base_url=scripted.base_url, on_retry=seen.on_retry, on_response=seen.on_response)
    stream = llm.stream("Hi")
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(list, stream)
        assert scripted.wait_requests(1)
        stream.close()
        assert reading.result(timeout=5) == []
    assert len(seen.events) == 1
    assert isinstance(seen.end.error, StreamError)
    assert "closed before its response began" in str(seen.end.error)
    llm.close()


def test_a_stream_that_is_closed_as_its_response_begins(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.stream([*chunks("a")[:1], never])
    # The moment is inside the stream, where nothing public reaches.
    if runner.portal is None:
        sync = llm.stream("Hi")
        open_sync: Any = getattr(sync, "_open_exchange")  # noqa: B009 - it is private

        def opened_and_closed(begin: Any) -> Any:
            exchange = open_sync(begin)
            sync.close()
            return exchange

        monkeypatch.setattr(sync, "_open_exchange", opened_and_closed)
        assert list(sync) == []
    else:
        talk = llm.astream("Hi")
        open_async: Any = getattr(talk, "_open_exchange")  # noqa: B009 - it is private

        async def aopened_and_closed() -> Any:
            exchange = await open_async()
            await talk.aclose()
            return exchange

        async def read() -> list[object]:
            return [each async for each in talk]

        monkeypatch.setattr(talk, "_open_exchange", aopened_and_closed)
        assert runner.portal.call(read) == []
    assert (seen.end.status, seen.end.error, seen.end.complete) == (200, None, False)


def test_failures(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, seen: Seen) -> None:
    scripted.reply({"error": {"message": "no", "code": 400}}, 400)
    with pytest.raises(BadRequestError) as status:
        runner.chat(llm)
    assert (seen.end.error, seen.end.status, seen.end.reply) == (status.value, 400, None)
    seen.events.clear()
    scripted.script(never)
    with pytest.raises(APITimeoutError) as timeout:
        runner.chat(llm, timeout=Timeout(first_token=0.05))
    assert (seen.end.error, seen.end.status) == (timeout.value, None)
    seen.events.clear()
    scripted.stream([*chunks("a")[:1], close])
    with pytest.raises(StreamInterruptedError) as broken:
        runner.stream(llm).until_done()
    assert (seen.end.error, seen.end.complete) == (broken.value, False)


def test_headers_can_be_added(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, seen: Seen
) -> None:
    seen.headers = {"Traceparent": "00-a-b-01", "User-Agent": "mine"}
    scripted.reply(completion())
    runner.chat(llm)
    [request] = scripted.requests
    assert request.headers["traceparent"] == "00-a-b-01"
    assert request.headers["user-agent"] == "mine"


def test_added_headers_take_precedence(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over the credentials of a caller's client, which only a key from the environment gives way to."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    seen = Seen({"Authorization": "Bearer fresh-1", "X-Request-ID": "mine"})
    with httpx.Client(headers={"Authorization": "Bearer client"}) as client:
        llm = VLLMProvider(
            "m", base_url=scripted.base_url, http_client=client,
            on_request=seen.on_request, on_response=seen.on_response,
        )  # fmt: skip
        scripted.reply(completion())
        assert llm.chat("Hi").request_id == "mine"
    [request] = scripted.requests
    assert request.headers["authorization"] == "Bearer fresh-1"
    assert request.headers["x-request-id"] == seen.end.request.request_id == "mine"


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\r\nc: d"}, {"content-length": "1"}])
def test_wrong_headers_end_the_call(
    headers: dict[str, str], llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, seen: Seen
) -> None:
    seen.headers = headers
    with pytest.raises(ValueError, match="header"):
        runner.chat(llm)
    assert not scripted.requests
    assert isinstance(seen.end.error, ValueError)


def test_what_on_request_raises_ends_the_call(runner: Runner, scripted: ScriptedServer) -> None:
    def refuse(event: RequestInfo) -> None:
        raise PermissionError(event.url)

    llm = VLLMProvider("m", base_url=scripted.base_url, on_request=refuse)
    with pytest.raises(PermissionError):
        runner.chat(llm)
    runner.close(llm)
    assert not scripted.requests


def test_what_the_others_raise_does_not(
    runner: Runner, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(event: object) -> None:
        raise ZeroDivisionError(type(event).__name__)

    reported: list[str] = []

    def report(args: Any) -> None:
        reported.append(f"{args.err_msg}: {args.exc_value}")

    monkeypatch.setattr(sys, "unraisablehook", report)
    monkeypatch.setattr(flows, "backoff", short_pause)
    scripted.busy(1)
    scripted.reply(completion("hi"))
    llm = VLLMProvider("m", base_url=scripted.base_url, on_retry=fail, on_response=fail)
    assert runner.chat(llm).text == "hi"
    runner.close(llm)
    assert reported == [
        "Exception ignored in a hook of vllmchat: RetryInfo",
        "Exception ignored in a hook of vllmchat: ResponseInfo",
    ]


def test_a_copy_has_the_hooks_and_may_replace_them(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, seen: Seen
) -> None:
    other = Seen()
    copy = llm.with_options(on_response=other.on_response, max_retries=0)
    scripted.reply(completion())
    runner.chat(copy)
    assert [type(each) for each in seen.events] == [RequestInfo]
    assert [type(each) for each in other.events] == [ResponseInfo]
    scripted.reply(completion())
    runner.chat(llm)
    assert len(other.events) == 1


async def later(event: object) -> None:
    """A hook that cannot be one."""


@pytest.mark.parametrize("name", ["on_request", "on_retry", "on_response"])
@pytest.mark.parametrize(
    ("hook", "message"), [(later, "must be a plain function"), ("x", "must be a function, not str")]
)
def test_a_hook_is_a_plain_function(name: str, hook: Any, message: str) -> None:
    options: dict[str, Any] = {name: hook}
    with pytest.raises(TypeError, match=f"{name} {message}"):
        VLLMProvider("m", **options)
    with pytest.raises(TypeError, match=f"{name} {message}"):
        VLLMProvider("m").with_options(**options)
