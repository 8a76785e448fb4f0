"""Chat streams over real sockets: start, normal end, interruption and early exit."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import anyio
import pytest

from support.chats import answer_any, chunk, chunks, completion, models
from support.pools import async_pool, held, sync_pool, wait_until
from support.scripted import (
    DONE,
    KEEP_ALIVE,
    Gate,
    ScriptedServer,
    body,
    close,
    drip,
    forever,
    head,
    in_thread,
    never,
    reset,
    sse,
)
from vllmchat import (
    APIStatusError,
    BadRequestError,
    ContextWindowExceededError,
    Finished,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    ServiceUnavailableError,
    StreamError,
    StreamInterruptedError,
    TextDelta,
    VLLMChatError,
    VLLMProvider,
)
from vllmchat.http import reader as reader_module, stream as stream_module
from vllmchat.http.exchange import AsyncExchange, SyncExchange
from vllmchat.http.once import SyncOnce
from vllmchat.http.sse import SSEDecoder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.runners import Runner, Stream
    from vllmchat import AsyncChatStream

RECORDED = Path(__file__).parents[2] / "recorded" / "vllm-0.32.0"


@pytest.fixture
def llm(scripted: ScriptedServer) -> VLLMProvider:
    return VLLMProvider("m", base_url=scripted.base_url)


@pytest.fixture
def stream(runner: Runner, llm: VLLMProvider) -> Callable[[], Stream]:
    """Creates streams from the scripted server, sync and async."""
    return lambda: runner.stream(llm)


Make: TypeAlias = "Callable[[], Stream]"


@pytest.mark.parametrize("blank_at_the_end", [True, False])
def test_events_that_run_together(
    scripted: ScriptedServer, stream: Make, llm: VLLMProvider, runner: Runner, blank_at_the_end: bool
) -> None:
    events = [f"data: {json.dumps(each)}\n" for each in chunks("Hel", "lo")]
    sent = "".join([*events, "data: [DONE]\n", "\n" if blank_at_the_end else ""]).encode()
    scripted.stream([sent], done=False)
    with pytest.raises(ResponseError, match="run together: the server must end each with an empty line"):
        stream().until_done()
    scripted.stream([sent], done=False)
    with pytest.raises(ResponseError, match="run together"):
        runner.open(llm, "stream_complete", "Hi").until_done()


@pytest.mark.parametrize("enter", [True, False])
def test_close_ends_a_stream_that_is_opening(
    scripted: ScriptedServer, llm: VLLMProvider, enter: bool
) -> None:
    scripted.script(never)
    made = llm.stream("Hi", timeout=60)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(made.__enter__ if enter else lambda: list(made))
        assert scripted.wait_requests(1)
        made.close()
        if enter:
            with pytest.raises(StreamError, match="already been read or closed"):
                reading.result(timeout=5)
        else:
            assert reading.result(timeout=5) == []
    # It is not sent again.
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("waits_for", ["a connection", "the next attempt", "the model's name"])
def test_close_ends_a_stream_that_waits_for_anything_else(scripted: ScriptedServer, waits_for: str) -> None:
    model = None if waits_for == "the model's name" else "m"
    llm = VLLMProvider(model, base_url=scripted.base_url, max_connections=1)
    made = llm.stream("Hi", timeout=60)
    with ExitStack() as before, ThreadPoolExecutor(2) as threads:
        if waits_for == "a connection":
            scripted.stream([chunk("a"), never])
            before.enter_context(llm.stream("Ho", timeout=60))
            reading = threads.submit(list, made)
            wait_until(lambda: held(sync_pool(llm)).waiting == 1)
        elif waits_for == "the next attempt":
            scripted.busy(retry_after="50")
            reading = threads.submit(list, made)
            wait_until(lambda: held(sync_pool(llm)) == (1, 0, 0))
        else:
            scripted.script(never)
            scripted.reply(models("m"))
            reading = threads.submit(list, made)
            assert scripted.wait_requests(1)
        made.close()
        assert reading.result(timeout=5) == []
        assert len(scripted.requests) == 1
        if waits_for == "a connection":
            assert held(sync_pool(llm)) == (0, 1, 0)
            before.close()
        # Others are not affected.
        scripted.always(answer_any)
        assert llm.chat("Hu").text == "Hu"
    llm.close()


def test_a_closed_stream_does_not_fail_others_that_wait_for_the_same_name(scripted: ScriptedServer) -> None:
    scripted.script(never)
    scripted.reply(models("m"))
    scripted.always(answer_any)
    llm = VLLMProvider(base_url=scripted.base_url)
    made = llm.stream("Hi", timeout=60)
    lookup = llm._clients.sync_client.state().lookups.setdefault("model", SyncOnce())  # pyright: ignore[reportPrivateUsage] # nothing public shows who waits
    lock = _Noted(lookup.lock)
    lookup.lock = cast("threading.Lock", lock)
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(list, made)
        assert scripted.wait_requests(1)
        lock.asked.clear()
        other = threads.submit(llm.chat, "Hu")
        assert lock.asked.wait(5)
        made.close()
        assert reading.result(timeout=5) == []
        assert other.result(timeout=5).text == "Hu"
    llm.close()


class _Noted:
    """A lock that notes that somebody wants it."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self.asked = threading.Event()

    def acquire(self, timeout: float) -> bool:
        self.asked.set()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()


def part(index: int, content: str = "", finish: str | None = None) -> dict[str, Any]:
    """Returns a chunk of one of several choices."""
    made = chunk(content, finish)
    made["choices"][0]["index"] = index
    return made


def failed(stream: Stream) -> VLLMChatError:
    with pytest.raises(VLLMChatError) as caught:
        stream.until_done()
    return caught.value


def partial_text(error: VLLMChatError) -> str | None:
    return None if error.partial is None else error.partial.text


# ------------------------------------------------------------------------------------------------
# Normal ends
# ------------------------------------------------------------------------------------------------


def test_chunks_and_completion(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(chunks("Hel", "lo"), headers={"x-request-id": "from-server"})
    talk = stream()
    assert talk.texts() == ["Hel", "lo"]
    assert (talk.completion.text, talk.completion.finish_reason) == ("Hello", "stop")
    assert talk.completion.request_id == talk.inner.request_id == "from-server"
    request = scripted.requests[0].json()
    assert (request["stream"], request["stream_options"]) == (True, {"include_usage": True})


def test_nothing_is_sent_until_it_is_iterated_over_or_entered(scripted: ScriptedServer, stream: Make) -> None:
    talk = stream()
    assert talk.inner.request_id is None
    assert talk.completion.text == ""
    iter(talk)
    talk.close()
    assert scripted.connections == 0


def test_entering_sends_the_request(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([gate := Gate(), *chunks("a")])
    with stream() as talk:
        assert scripted.wait_requests(1)
        assert talk.inner.request_id == scripted.requests[0].headers["x-request-id"]
        gate.release()
        assert talk.until_done().text == "a"


def test_the_completion_grows_with_the_chunks(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(chunks("a", "b", "c"))
    talk = stream()
    seen = [(each.text, talk.completion.text) for each in talk if each.text]
    assert seen == [("a", "a"), ("b", "ab"), ("c", "abc")]
    assert talk.completion == talk.completion


def test_events_end_with_the_whole_reply(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(chunks("a", "b"))
    talk = stream()
    *pieces, end = talk.events()
    assert pieces == [TextDelta("a"), TextDelta("b")]
    assert isinstance(end, Finished)
    assert end.completion == talk.completion


def test_until_done_reads_the_rest(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(chunks("a", "b", "c"))
    talk = stream()
    next(talk)
    assert talk.until_done().text == "abc"
    with pytest.raises(StopIteration):
        next(talk)


@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "text/plain; charset=utf-8", "application/octet-stream", None]
)
def test_similar_content_types_are_accepted(
    scripted: ScriptedServer, stream: Make, content_type: str | None
) -> None:
    scripted.stream(chunks("a"), headers={"content-type": content_type})
    assert stream().until_done().text == "a"


@pytest.mark.parametrize("options", [{"chunked": False}, {"gzip": True}])
def test_other_framings(scripted: ScriptedServer, stream: Make, options: dict[str, bool]) -> None:
    scripted.stream(chunks("ä", "€"), **options)  # type: ignore[arg-type] # of its many options these are bools
    assert stream().until_done().text == "ä€"


def test_a_character_split_across_packets(scripted: ScriptedServer, stream: Make) -> None:
    event = b"data: " + json.dumps(chunk("€\u2028\u0085"), ensure_ascii=False).encode() + b"\n\n"
    at = event.index("€".encode()) + 1
    scripted.stream([event[:at], gate := Gate(), event[at:], *chunks()])
    with stream() as talk:
        gate.wait_reached()
        gate.release()
        assert talk.until_done().text == "€\u2028\u0085"


@pytest.mark.parametrize("kind", [[], {}, 1])
def test_a_type_that_is_not_a_text_is_no_chunk(scripted: ScriptedServer, stream: Make, kind: object) -> None:
    scripted.stream([chunk("a"), {"choices": {}, "type": kind}])
    with pytest.raises(ResponseError, match="not a chat completion chunk"):
        stream().until_done()


def test_comments_and_empty_events_are_skipped(scripted: ScriptedServer, stream: Make) -> None:
    noise = [
        KEEP_ALIVE,
        b"\n\n",
        b"event: message\nid: 1\nretry: 5\n",
        b"data:\n\n",
        b"data: \n\n",
        b"\r\n\r\n",
    ]
    scripted.stream([*noise, chunk("a"), *noise, chunk("b", "stop"), *noise])
    assert stream().until_done().text == "ab"


def test_one_byte_at_a_time(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(
        [drip(b"data: " + json.dumps(each).encode() + b"\r\n\r\n", 7) for each in chunks("a", "b")]
    )
    assert stream().until_done().text == "ab"


@pytest.mark.parametrize(
    "end", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE] \n\n", b"data:[DONE]\r\r"]
)
def test_the_last_event_without_its_blank_line(scripted: ScriptedServer, stream: Make, end: bytes) -> None:
    scripted.stream([chunk("a", "stop"), end], done=False)
    assert stream().until_done().text == "a"


def test_the_last_chunk_without_its_blank_line(scripted: ScriptedServer, stream: Make) -> None:
    last = b"data: " + json.dumps(chunk("b", "stop")).encode()
    scripted.stream([chunk("a"), last], done=False)
    assert stream().until_done().text == "ab"


@pytest.mark.parametrize(
    "ending",
    [{"done": False}, {"done": False, "then": [close]}, {"done": False, "end": False, "then": [close]}],
)
def test_a_finish_reason_completes_the_stream(
    scripted: ScriptedServer, stream: Make, ending: dict[str, Any]
) -> None:
    scripted.stream(chunks("a"), **ending)
    talk = stream()
    assert [each.text for each in talk] == ["a", ""]
    assert talk.completion.finish_reason == "stop"


def test_a_finish_reason_completes_a_truncated_stream(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([*chunks("a"), b'data: {"id": "c", "cho'], done=False, end=False, then=[close])
    assert stream().until_done().text == "a"
    scripted.stream([*chunks("b"), b'data: {"id": "c", "cho'], done=False)
    assert stream().until_done().text == "b"


def test_every_choice_must_finish(scripted: ScriptedServer, runner: Runner, llm: VLLMProvider) -> None:
    both = [part(0, "a"), part(1, "b"), part(1, "", "stop"), part(0, "", "length")]
    scripted.stream(both, done=False)
    talk = runner.stream(llm, n=2)
    assert [choice.message.content for choice in talk.until_done().choices] == ["a", "b"]


# ------------------------------------------------------------------------------------------------
# After the end
# ------------------------------------------------------------------------------------------------


def test_streams_share_a_connection(scripted: ScriptedServer, stream: Make) -> None:
    for _ in range(3):
        scripted.stream(chunks("a"))
        assert stream().until_done().text == "a"
    scripted.stream(chunks("a"))
    assert len(list(stream().events())) == 2
    scripted.stream(chunks("a"))
    with stream() as talk:
        assert talk.texts() == ["a"]
    assert scripted.connections == 1


def test_events_after_done_are_ignored(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([*chunks("a"), DONE, chunk("more"), b"data: rubbish\n\n"])
    talk = stream()
    assert talk.texts() == ["a"]
    assert talk.completion.text == "a"


def test_a_server_that_keeps_sending_after_done(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([*chunks("a"), DONE, forever(KEEP_ALIVE)], done=False)
    assert stream().until_done().text == "a"
    assert scripted.wait_client_closed()


def test_a_server_that_is_silent_after_done(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(chunks("a"), end=False, then=[never])
    assert stream().until_done().text == "a"
    assert scripted.wait_client_closed()


def test_a_connection_that_breaks_after_done(scripted: ScriptedServer, stream: Make) -> None:
    gate = Gate()
    scripted.stream(chunks("a"), end=False, then=[gate, reset])
    talk = stream()
    assert next(talk).text == "a"
    gate.wait_reached()
    gate.release()
    assert talk.until_done().text == "a"


def test_a_stream_can_be_read_once(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(chunks("a"))
    talk = stream()
    talk.until_done()
    with pytest.raises(StopIteration):
        next(talk)
    assert talk.until_done().text == "a"
    for again in (lambda: list(talk), lambda: list(talk.events()), talk.__enter__):
        with pytest.raises(StreamError, match="once") as caught:
            again()
        assert not isinstance(caught.value, StreamInterruptedError)
        assert partial_text(caught.value) == "a"
        assert caught.value.request_id == scripted.requests[0].headers["x-request-id"]
    assert len(scripted.requests) == 1


def test_a_stream_closed_before_it_starts(scripted: ScriptedServer, stream: Make) -> None:
    talk = stream()
    talk.close()
    talk.close()
    with pytest.raises(StopIteration):
        next(talk)
    with pytest.raises(StreamError) as caught:
        iter(talk)
    assert (caught.value.partial, caught.value.request_id) == (None, None)
    assert scripted.connections == 0


# ------------------------------------------------------------------------------------------------
# Leaving early
# ------------------------------------------------------------------------------------------------


def test_leaving_the_block_closes_the_connection(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([*chunks("a", "b")[:2], never])
    with stream() as talk:
        assert next(talk).text == "a"
    assert scripted.wait_client_closed()
    with pytest.raises(StopIteration):
        next(talk)
    assert talk.completion.text == "a"
    assert talk.completion.finish_reason is None


def test_leaving_before_the_first_chunk(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([never])
    with stream():
        pass
    assert scripted.wait_client_closed()


def test_an_error_in_the_block_closes_the_connection(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a"), never])

    def leave() -> None:
        with stream() as talk:
            next(talk)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        leave()
    assert scripted.wait_client_closed()


def test_closing_while_iterating_ends_the_iteration(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a"), never])
    talk = stream()
    for _ in talk:
        talk.close()
    assert talk.completion.text == "a"
    assert scripted.wait_client_closed()


def test_closing_while_iterating_over_events_sends_no_finished(
    scripted: ScriptedServer, stream: Make
) -> None:
    scripted.stream([chunk("a"), never])
    talk = stream()
    events = talk.events()
    assert next(events) == TextDelta("a")
    talk.close()
    assert list(events) == []


def test_closing_drops_a_pending_error(scripted: ScriptedServer, stream: Make) -> None:
    event = b"data: " + json.dumps(chunk("a")).encode() + b"\n\n"
    scripted.stream([event + b'data: {"error": {"message": "no", "code": 500}}\n\n', never])
    talk = stream()
    next(talk)
    talk.close()
    with pytest.raises(StopIteration):
        next(talk)


def test_closing_the_events_closes_a_sync_stream(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.stream([chunk("a"), never])
    talk = llm.stream("Hi")
    for _ in talk.events():
        break
    assert scripted.wait_client_closed()


@pytest.mark.anyio
async def test_closing_the_events_closes_an_async_stream(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.stream([chunk("a"), never])
    events = llm.astream("Hi").events()
    async for _ in events:
        break
    await events.aclose()
    assert scripted.wait_client_closed()


def test_a_garbage_collected_stream_closes(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a"), never])
    talk = stream()
    next(talk)
    del talk
    gc.collect()
    assert scripted.wait_client_closed()


def test_an_interrupt_while_waiting_closes_the_connection(
    scripted: ScriptedServer, llm: VLLMProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: SyncExchange) -> bytes:
        raise KeyboardInterrupt

    scripted.stream([chunk("a"), never])
    talk = llm.stream("Hi")
    next(talk)
    monkeypatch.setattr(SyncExchange, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(talk)
    assert scripted.wait_client_closed()
    with pytest.raises(StreamInterruptedError, match="KeyboardInterrupt from outside"):
        next(talk)


@pytest.mark.anyio
async def test_cancellation_while_waiting_closes_the_connection(
    scripted: ScriptedServer, llm: VLLMProvider
) -> None:
    scripted.stream([chunk("a"), never])
    talk = llm.astream("Hi")
    await anext(talk)
    with anyio.move_on_after(0.01) as scope:
        await anext(talk)
    assert scope.cancelled_caught
    assert await in_thread(scripted.wait_client_closed)
    with pytest.raises(StreamInterruptedError, match="from outside") as caught:
        await anext(talk)
    # What had arrived is not the whole reply.
    assert partial_text(caught.value) == "a"


# ------------------------------------------------------------------------------------------------
# Interrupted streams
# ------------------------------------------------------------------------------------------------

BREAKS: dict[str, dict[str, Any]] = {
    "the body ends": {"events": [chunk("a")], "done": False},
    "the connection ends": {"events": [chunk("a")], "chunked": False, "done": False},
    "the connection ends in a chunked body": {"events": [chunk("a"), close], "done": False},
    "in the middle of an event": {"events": [chunk("a"), b'data: {"id": "c", "choi', close]},
    "the body ends in the middle of an event": {
        "events": [chunk("a"), b'data: {"id": "c", "choi'],
        "done": False,
    },
    "the framing breaks": {"events": [chunk("a")], "done": False, "end": False, "then": [b"zz\r\n", close]},
    "one of two choices is unfinished": {"events": [part(0, "a", "stop"), part(1, "b")], "done": False},
}


@pytest.mark.parametrize("how", BREAKS)
def test_an_interrupted_stream_is_not_a_short_reply(scripted: ScriptedServer, stream: Make, how: str) -> None:
    scripted.stream(**BREAKS[how])
    talk = stream()
    error = failed(talk)
    assert type(error) is StreamInterruptedError
    assert partial_text(error) == "a"
    assert error.partial == talk.completion
    assert error.request_id == scripted.requests[0].headers["x-request-id"]
    assert str(error).startswith(f"the stream from {scripted.base_url}/chat/completions ended too early")
    # It stays interrupted.
    with pytest.raises(StreamInterruptedError):
        next(talk)


def test_a_stream_that_is_reset(scripted: ScriptedServer, stream: Make) -> None:
    gate = Gate()
    scripted.stream([chunk("a"), gate, reset])
    talk = stream()
    next(talk)
    gate.release()
    error = failed(talk)
    assert type(error) is StreamInterruptedError
    assert partial_text(error) == "a"
    assert error.__cause__ is not None


def test_a_stream_that_ends_before_the_first_chunk(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([b": comment\n\n"], done=False)
    error = failed(stream())
    assert type(error) is StreamInterruptedError
    assert error.partial is None


def test_an_empty_response_is_not_a_stream(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(done=False)
    error = failed(stream())
    assert type(error) is ResponseError
    assert "is empty" in str(error)
    assert error.partial is None


def test_missing_choices_interrupt_the_stream(
    scripted: ScriptedServer, runner: Runner, llm: VLLMProvider
) -> None:
    scripted.stream(chunks("a"), done=False)
    with pytest.raises(StreamInterruptedError):
        runner.stream(llm, n=2).until_done()


def test_an_interrupted_stream_has_no_finished_event(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a")], done=False)
    events = stream().events()
    assert next(events) == TextDelta("a")
    with pytest.raises(StreamInterruptedError):
        next(events)
    assert list(events) == []


@pytest.mark.anyio
async def test_interrupted_events_stay_interrupted(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.stream([chunk("a")], done=False)
    events = llm.astream("Hi").events()
    assert await anext(events) == TextDelta("a")
    for _ in range(2):
        with pytest.raises(StreamInterruptedError):
            await anext(events)


@pytest.mark.parametrize(
    "event", [b"data: rubbish\n\n", b"data: []\n\n", b'data: {"object": "list"}\n\n', b"data: \xff\xfe\n\n"]
)
def test_events_that_are_not_chunks(scripted: ScriptedServer, stream: Make, event: bytes) -> None:
    scripted.stream([chunk("a"), event, chunk("b"), never])
    error = failed(stream())
    assert isinstance(error, ResponseError)
    assert partial_text(error) == "a"
    assert error.status_code == 200
    assert error.request_id == scripted.requests[0].headers["x-request-id"]
    assert scripted.wait_client_closed()


@pytest.mark.parametrize("flushed", [False, True])
def test_an_event_that_is_too_large(
    scripted: ScriptedServer, stream: Make, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    monkeypatch.setattr(reader_module, "SSEDecoder", lambda: SSEDecoder(1000))
    small = b"data: " + json.dumps(chunk("a")).encode() + b"\n\n"
    scripted.stream(
        [small + b"data: " + b"x" * (994 if flushed else 2000), *([] if flushed else [never])], done=False
    )
    error = failed(stream())
    if flushed:
        # Only the last byte exceeded the limit, which may also mean that the stream was truncated.
        assert isinstance(error, StreamInterruptedError)
    else:
        assert isinstance(error, ResponseError)
        assert "1,000 bytes" in str(error)
        assert scripted.wait_client_closed()
    assert partial_text(error) == "a"


# ------------------------------------------------------------------------------------------------
# Errors inside a stream
# ------------------------------------------------------------------------------------------------

IN_BAND: list[tuple[dict[str, Any], type[APIStatusError], int]] = [
    ({"error": {"message": "m", "type": "BadRequestError", "param": "p", "code": 400}}, BadRequestError, 400),
    (
        {"error": {"object": "error", "message": "m", "type": "BadRequestError", "param": "p", "code": 400}},
        BadRequestError,
        400,
    ),
    (
        {"object": "error", "message": "m", "type": "NotFoundError", "param": "p", "code": 404},
        NotFoundError,
        404,
    ),
    (
        {"error": {"message": "m", "type": "InternalServerError", "param": "p", "code": 503}},
        ServiceUnavailableError,
        503,
    ),
    ({"error": {"message": "m", "type": "x", "param": "p", "code": "429"}}, RateLimitError, 429),
    (
        {"error": {"message": "m", "type": "x", "param": "p", "code": "server_error"}},
        InternalServerError,
        500,
    ),
    ({"error": {"message": "m", "type": "x", "param": "p", "code": None}}, InternalServerError, 500),
    ({"error": {"message": "m", "type": "x", "param": "p", "code": 200}}, InternalServerError, 500),
    (
        {"error": {"message": "m", "type": "x", "param": "p", "code": "context_length_exceeded"}},
        ContextWindowExceededError,
        400,
    ),
    (
        {**chunk("z"), "error": {"message": "m", "type": "x", "param": "p", "code": 500}},
        InternalServerError,
        500,
    ),
]


@pytest.mark.parametrize("before", [[], [chunk("a")]], ids=["first", "later"])
@pytest.mark.parametrize(("event", "kind", "status"), IN_BAND)
def test_an_error_inside_the_stream(
    scripted: ScriptedServer,
    stream: Make,
    event: dict[str, Any],
    kind: type[APIStatusError],
    status: int,
    before: list[dict[str, Any]],
) -> None:
    scripted.stream([*before, event, chunk("never taken")])
    talk = stream()
    error = failed(talk)
    assert type(error) is kind
    assert error.status_code == status
    assert error.param == "p"
    assert error.body == event
    assert error.response.status_code == 200
    assert error.request_id == scripted.requests[0].headers["x-request-id"]
    assert str(error) == f"{status} (inside the stream): m"
    assert partial_text(error) == ("a" if before else None)
    assert talk.completion.text == ("a" if before else "")


def test_an_error_in_the_same_packet_as_a_chunk(scripted: ScriptedServer, stream: Make) -> None:
    event = b"data: " + json.dumps(chunk("a")).encode() + b"\n\n"
    scripted.stream([event + b'data: {"error": {"message": "no", "code": 500}}\n\n'])
    talk = stream()
    assert next(talk).text == "a"
    for _ in range(2):
        with pytest.raises(InternalServerError) as caught:
            next(talk)
        assert partial_text(caught.value) == "a"


def test_an_error_without_its_blank_line(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a"), b'data: {"error": {"message": "no", "code": 503}}'], done=False)
    error = failed(stream())
    assert type(error) is ServiceUnavailableError
    assert partial_text(error) == "a"


def test_an_error_after_the_finish_reason_is_raised(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([*chunks("a"), {"error": {"message": "no", "code": 500}}])
    assert type(failed(stream())) is InternalServerError


def test_the_recorded_error_inside_a_stream(scripted: ScriptedServer, stream: Make) -> None:
    recorded = json.loads((RECORDED / "error_bad_grammar_stream.json").read_text("utf-8"))["response"]
    scripted.stream([recorded["body"].encode()], done=False)
    error = failed(stream())
    assert type(error) is BadRequestError
    assert "Invalid grammar specification" in str(error)


# ------------------------------------------------------------------------------------------------
# Something other than a stream
# ------------------------------------------------------------------------------------------------


def test_an_error_status_instead_of_a_stream(scripted: ScriptedServer, stream: Make) -> None:
    scripted.reply({"error": {"message": "no such model", "type": "NotFoundError", "code": 404}}, 404)
    talk = stream()
    error = failed(talk)
    assert type(error) is NotFoundError
    assert error.partial is None
    with pytest.raises(StreamError):
        iter(talk)
    scripted.stream(chunks("a"))
    assert stream().until_done().text == "a"
    assert scripted.connections == 1


def test_a_whole_reply_instead_of_a_stream(scripted: ScriptedServer, stream: Make) -> None:
    scripted.reply(completion("Hello"))
    error = failed(stream())
    assert isinstance(error, ResponseError)
    assert "application/json" in str(error)
    assert error.body is not None
    assert error.body.startswith('{"id": "c"')
    assert error.status_code == 200
    assert error.request_id == scripted.requests[0].headers["x-request-id"]


def test_a_page_instead_of_a_stream(scripted: ScriptedServer, stream: Make) -> None:
    page = "<html><title>Sign in</title>" + "x" * 5000
    scripted.reply(page, headers={"content-type": "Text/HTML; charset=utf-8"})
    error = failed(stream())
    assert isinstance(error, ResponseError)
    assert error.body == page[:2000]
    assert len(str(error)) < 500


def test_an_empty_response_instead_of_a_stream(scripted: ScriptedServer, stream: Make) -> None:
    scripted.reply(b"")
    error = failed(stream())
    assert isinstance(error, ResponseError)
    assert "it is empty" in str(error)


def test_an_error_with_status_200_instead_of_a_stream(scripted: ScriptedServer, stream: Make) -> None:
    scripted.reply({"error": {"message": "slow down", "code": 429}})
    error = failed(stream())
    assert type(error) is RateLimitError
    assert str(error) == "429 (in a response with status 200): slow down"


def test_an_interrupted_page_instead_of_a_stream(scripted: ScriptedServer, stream: Make) -> None:
    scripted.script(head(200, {"content-type": "text/html", "content-length": "999"}), body(b"<html>"), close)
    assert isinstance(failed(stream()), ResponseError)


def test_a_redirect_is_not_followed(scripted: ScriptedServer, stream: Make) -> None:
    with ScriptedServer() as other:
        scripted.reply(b"", 307, {"location": f"{other.base_url}/chat/completions?key=1"})
        error = failed(stream())
        assert other.connections == 0
    assert type(error) is APIStatusError
    assert error.status_code == 307
    assert f"redirects to {other.base_url}/chat/completions. " in str(error)


# ------------------------------------------------------------------------------------------------
# Async only
# ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_events_stop_after_the_end(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.stream(chunks("a"))
    talk = llm.astream("Hi")
    events = talk.events()
    assert [event async for event in events] == [TextDelta("a"), Finished(talk.completion)]
    with pytest.raises(StopAsyncIteration):
        await anext(events)


@pytest.mark.anyio
async def test_cancellation_after_the_last_chunk_closes_the_connection(
    scripted: ScriptedServer, llm: VLLMProvider
) -> None:
    scripted.stream([sse(chunk("a", "stop")) + DONE, never], done=False)
    talk = llm.astream("Hi")
    async for _ in talk:
        break
    with anyio.move_on_after(0) as scope:
        await talk.until_done()
    assert scope.cancelled_caught
    # It is cancelled while it waits for the end of a finished response, and gives up immediately.
    exchange = talk._exchange  # pyright: ignore[reportPrivateUsage] # not visible from outside until later
    assert exchange is not None
    assert exchange.answer is None
    assert await in_thread(scripted.wait_client_closed)


# ------------------------------------------------------------------------------------------------
# What other tasks and threads do
# ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("opened", [False, True])
async def test_only_one_task_reads(scripted: ScriptedServer, llm: VLLMProvider, opened: bool) -> None:
    gate = Gate()
    scripted.stream([gate, *chunks("a", "b")])
    talk = llm.astream("Hi")
    texts: list[str] = []
    failures: list[StreamError] = []

    async def read() -> None:
        try:
            texts.extend([each.text async for each in talk])
        except StreamError as error:
            failures.append(error)
            gate.release()

    if opened:
        await talk.__aenter__()
    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(read)
    assert [str(error)[:57] for error in failures] == [
        "this stream is being read by another task or thread: only"
    ]
    assert "".join(texts) == "ab"
    assert len(scripted.requests) == 1
    await llm.aclose()


@pytest.mark.anyio
async def test_a_stream_that_is_closed_while_it_opens(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.script(never)
    talk = llm.astream("Hi")
    texts: list[str] = []

    async def read() -> None:
        texts.extend([each.text async for each in talk])

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        assert await in_thread(lambda: scripted.wait_requests(1))
        await talk.aclose()
    assert await in_thread(scripted.wait_client_closed)
    assert texts == []
    scripted.script(never)
    other = llm.astream("Hi")
    async with anyio.create_task_group() as group:
        group.start_soon(_enter_closed, other)
        assert await in_thread(lambda: scripted.wait_requests(2))
        await other.aclose()
    assert await in_thread(scripted.wait_client_closed)


@pytest.mark.anyio
@pytest.mark.parametrize("enter", [True, False])
async def test_a_stream_that_is_closed_as_its_response_begins(
    scripted: ScriptedServer, llm: VLLMProvider, enter: bool
) -> None:
    scripted.script(head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}), never)
    talk = llm.astream("Hi")
    open_exchange: Callable[[], Awaitable[AsyncExchange]] = talk._open_exchange  # pyright: ignore[reportPrivateUsage] # the moment is inside

    async def open_and_close() -> AsyncExchange:
        exchange = await open_exchange()
        await talk.aclose()
        return exchange

    talk._open_exchange = open_and_close  # pyright: ignore[reportPrivateUsage] # as above
    with anyio.fail_after(5):
        if enter:
            await _enter_closed(talk)
        else:
            assert [each async for each in talk] == []
    assert await in_thread(scripted.wait_client_closed)
    assert held(await async_pool(llm)) == (0, 0, 0)
    await llm.aclose()


async def _enter_closed(talk: AsyncChatStream) -> None:
    with pytest.raises(StreamError, match="already been read or closed"):
        await talk.__aenter__()


def test_a_stream_that_another_thread_closes(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.stream([chunk("a"), never])
    talk = llm.stream("Hi")
    texts = iter(talk)
    assert next(texts).text == "a"
    waiting = threading.Event()
    read = SyncExchange.read

    def noted(exchange: SyncExchange) -> bytes:
        waiting.set()
        return read(exchange)

    with pytest.MonkeyPatch.context() as patched, ThreadPoolExecutor(1) as threads:
        patched.setattr(SyncExchange, "read", noted)
        rest = threads.submit(list, texts)
        assert waiting.wait(5)
        talk.close()
        assert rest.result(5) == []
    assert scripted.wait_client_closed()
    llm.close()


@pytest.mark.parametrize("events", [False, True])
def test_an_outside_timeout_does_not_look_like_an_end(
    scripted: ScriptedServer, llm: VLLMProvider, events: bool
) -> None:
    scripted.stream([chunk("a"), never])

    async def main() -> None:
        async with llm.astream("Hi") as talk:
            items = aiter(talk.events()) if events else aiter(talk)
            await anext(items)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(items), 0.01)
            for _ in range(2):
                with pytest.raises(StreamInterruptedError, match="CancelledError from outside") as caught:
                    await anext(items)
                assert partial_text(caught.value) == "a"

    asyncio.run(main())
    assert scripted.wait_client_closed()


def test_a_coroutine_that_is_closed_while_it_reads(scripted: ScriptedServer, llm: VLLMProvider) -> None:
    scripted.stream([chunk("a"), never])

    async def main() -> None:
        talk = llm.astream("Hi")
        await anext(talk)
        reading = talk.__anext__()
        reading.send(None)
        reading.close()
        assert await in_thread(scripted.wait_client_closed)

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------
# What proxies send
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        b"data: null\n\n",
        b"data: {}\n\n",
        b"event: ping\ndata: {}\n\n",
        b"event: keepalive\ndata: 1\n\n",
        b"data: ping\n\n",
        b'data: "Keep-Alive"\n\n',
        b'data: {"type": "ping"}\n\n',
        b'data: {"type":"keepalive","sequence_number":3}\n\n',
    ],
)
def test_events_that_keep_the_connection_alive(scripted: ScriptedServer, stream: Make, event: bytes) -> None:
    scripted.stream([event, chunk("a"), event, chunk("b", "stop")])
    assert stream().texts() == ["a", "b"]


def test_an_event_of_the_type_error(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a"), b'event: error\ndata: {"message": "too long", "code": 400}\n\n'])
    error = failed(stream())
    assert type(error) is BadRequestError
    assert partial_text(error) == "a"


def test_a_stream_that_is_labelled_as_json(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream(chunks("a", "b"), headers={"content-type": "application/json"})
    assert stream().texts() == ["a", "b"]


@pytest.mark.parametrize("kind", [None, "text/plain"])
def test_an_empty_response_without_a_type(scripted: ScriptedServer, stream: Make, kind: str | None) -> None:
    scripted.script(
        head(200, {"content-type": kind, "content-length": "0"} if kind else {"content-length": "0"})
    )
    error = failed(stream())
    assert type(error) is ResponseError
    assert "empty" in str(error)
    assert "Check base_url" in str(error)


# ------------------------------------------------------------------------------------------------
# Too much
# ------------------------------------------------------------------------------------------------


def test_a_stream_has_a_bound(
    scripted: ScriptedServer, stream: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_STREAM_BYTES", 100_000)
    scripted.stream([forever(sse(chunk("a")))])
    error = failed(stream())
    assert type(error) is ResponseError
    assert "the stream has more than 100,000 bytes" in str(error)
    assert (partial_text(error) or "").startswith("aaaa")
    assert scripted.wait_client_closed()


@pytest.mark.parametrize("inside", ['"choices": [%s]', '"choices": [], "x": [[%s]]'])
def test_tiny_objects_are_not_decoded(scripted: ScriptedServer, stream: Make, inside: str) -> None:
    scripted.stream([b"data: {" + (inside % ",".join(["{}"] * 40_000)).encode() + b"}\n\n"])
    error = failed(stream())
    assert type(error) is ResponseError
    assert "objects in" in str(error)


def test_braces_in_a_text_do_not_count(scripted: ScriptedServer, stream: Make) -> None:
    text = '{"a": {}}' * 20_000
    scripted.stream([chunk(text, "stop")])
    assert stream().texts() == [text]


# ------------------------------------------------------------------------------------------------
# Markers, errors and lines that are almost right
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        b"data:  [DONE]\n\n",
        b"data: \t[DONE]\t \n\n",
        b'data: "[DONE]"\n\n',
        b"data: '[DONE]'\n\n",
        b"data: [done]\n\n",
        b"data: [DONE]\ndata: [DONE]\n\n",
    ],
)
def test_other_spellings_of_done(scripted: ScriptedServer, stream: Make, end: bytes) -> None:
    scripted.stream([chunk("a", "stop"), end, chunk("more")], done=False)
    talk = stream()
    assert talk.texts() == ["a"]


def test_what_only_starts_like_done_is_not_the_end(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a", "stop"), b"data: [DONE] or not\n\n"], done=False)
    error = failed(stream())
    assert isinstance(error, ResponseError)
    assert "[DONE] or not" in str(error)
    assert partial_text(error) == "a"


def test_nothing_is_read_after_an_early_done(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([sse(chunk("a")) + DONE + sse(chunk("b", "stop")) + DONE], done=False)
    error = failed(stream())
    assert isinstance(error, StreamInterruptedError)
    assert partial_text(error) == "a"


_BUSY = b'{"error": {"message": "too busy", "code": 429}}'


@pytest.mark.parametrize(
    "line",
    [
        _BUSY,
        _BUSY + b"\n",
        _BUSY + b"\n\n",
        b"\n".join(json.dumps(json.loads(_BUSY), indent=1).encode().splitlines()) + b"\n",
        b'{"ignored": 1}\n' + _BUSY,
    ],
)
@pytest.mark.parametrize("ending", [{}, {"done": True}, {"end": False, "then": [close]}])
def test_an_error_without_data_in_front_of_it(
    scripted: ScriptedServer, stream: Make, line: bytes, ending: dict[str, Any]
) -> None:
    if ending.get("done") and not line.endswith(b"\n"):
        line += b"\n"
    options: dict[str, Any] = {"done": False, **ending}
    scripted.stream([chunk("a"), line], **options)
    error = failed(stream())
    assert isinstance(error, RateLimitError)
    assert "too busy" in str(error)
    assert partial_text(error) == "a"


def test_an_error_event_whose_blank_line_was_cut_off(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a"), b"data: " + _BUSY], done=False, end=False, then=[close])
    assert isinstance(failed(stream()), RateLimitError)


def test_a_line_without_data_does_not_lose_a_complete_reply(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a"), b'{"note": 1}\n\n', b"Internal\n\n", chunk("b", "stop"), _BUSY], done=False)
    assert stream().until_done().text == "ab"


def test_an_interruption_names_the_line_before_it(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([chunk("a"), b"Internal Server Error"], done=False)
    error = failed(stream())
    assert isinstance(error, StreamInterruptedError)
    assert "Internal Server Error" in str(error)
    assert partial_text(error) == "a"


def test_lines_of_json_instead_of_events(scripted: ScriptedServer, stream: Make) -> None:
    scripted.stream([json.dumps({"response": "a"}).encode() + b"\n"] * 3, done=False)
    error = failed(stream())
    assert isinstance(error, ResponseError)
    assert 'starts with: {"response": "a"}' in str(error)


def test_a_line_outside_the_events_is_masked(scripted: ScriptedServer, runner: Runner) -> None:
    llm = VLLMProvider("m", base_url=scripted.base_url, api_key="sk-very-secret-key")
    for line in (b"bad key sk-very-secret-key", b'{"error": "bad key sk-very-secret-key"}'):
        scripted.stream([chunk("a"), line], done=False)
        error = failed(runner.stream(llm))
        assert "bad key" in str(error)
        assert "very-secret" not in f"{error!r}{error}{getattr(error, 'body', '')}"


def test_two_chunks_in_one_event(scripted: ScriptedServer, stream: Make) -> None:
    both = f"{json.dumps(chunk('b'))}{json.dumps(chunk('c', 'stop'))}"
    scripted.stream([chunk("a"), f"data: {both}\n\n".encode()])
    error = failed(stream())
    assert isinstance(error, ResponseError)
    assert "trailing characters" in str(error)
    assert partial_text(error) == "a"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"message": "too busy", "code": 429}, RateLimitError),
        ({"message": "too busy", "code": "429"}, RateLimitError),
        ({"message": "too busy", "status": 429}, RateLimitError),
        ({"detail": "too busy", "status_code": 429}, RateLimitError),
        ({"detail": "too busy"}, InternalServerError),
        ({"detail": [{"loc": ["body", "n"], "msg": "too busy"}]}, InternalServerError),
        ({"detail": {"error": {"message": "too busy", "code": 429}}}, RateLimitError),
    ],
)
def test_errors_without_the_key_error(
    scripted: ScriptedServer, stream: Make, event: dict[str, object], kind: type[VLLMChatError]
) -> None:
    scripted.stream([chunk("a"), event])
    error = failed(stream())
    assert type(error) is kind
    assert "too busy" in str(error)
    assert partial_text(error) == "a"
