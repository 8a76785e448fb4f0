"""What a reply knows of the call that brought it: timings, attempts, headers."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from support.chats import chunks, completion
from support.routes import ASKED
from support.scripted import DONE, Gate, close
from vllmchat import StreamInterruptedError, Timings, VLLMProvider
from vllmchat.chat.completion import decode_completion
from vllmchat.http import record as records
from vllmchat.http.call import ResponseHead
from vllmchat.http.record import CallRecord
from vllmchat.wire.decode import record_of

if TYPE_CHECKING:
    from support.runners import Runner
    from support.scripted import ScriptedServer

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def test_a_reply_knows_how_long_it_took(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply(completion(usage=USAGE))
    scripted.reply(completion())
    first = runner.chat(llm).timings
    assert first.total is not None
    assert first.connect is not None
    assert 0 < first.connect < first.total
    assert first.tokens_per_second is not None
    assert first.tokens_per_second > 5 / first.total
    assert (first.first_token, first.queued) == (None, None)
    second = runner.chat(llm).timings
    assert second.connect is None, "the connection was open"
    assert second.tokens_per_second is None, "there is no usage"


def test_a_stream_knows_when_its_first_chunk_arrived(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer
) -> None:
    gate = Gate()
    usage: dict[str, Any] = {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    scripted.stream([*chunks("a")[:1], gate, *chunks("b"), usage])
    with runner.stream(llm) as stream:
        inner = stream.inner
        assert (inner.timings.first_token, inner.timings.total) == (None, None)
        next(stream)
        begun = inner.timings
        assert begun.first_token is not None
        assert begun.total is None
        part = stream.completion
        gate.release()
        assert stream.texts() == ["b"]
        whole = stream.completion.timings
        assert whole.first_token == begun.first_token
        assert whole.total is not None
        assert whole.first_token is not None
        assert whole.total > whole.first_token
        assert whole.tokens_per_second == pytest.approx(4 / (whole.total - whole.first_token))
        assert inner.timings == whole
        assert part.timings == begun, "what came later does not change it"
        assert inner.attempts == 1
        assert inner.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_a_stream_that_is_not_open_knows_nothing(llm: VLLMProvider, runner: Runner) -> None:
    inner = runner.stream(llm).inner
    assert (inner.timings, inner.attempts, inner.headers) == (Timings(), 0, {})


def test_the_part_of_a_broken_stream_is_timed(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer
) -> None:
    scripted.stream([*chunks("a")[:1], close])
    stream = runner.stream(llm)
    with pytest.raises(StreamInterruptedError) as caught:
        stream.texts()
    assert caught.value.partial is not None
    assert caught.value.partial.attempts == 1
    assert stream.inner.timings.total is not None


def test_attempts_are_counted(llm: VLLMProvider, runner: Runner, scripted: ScriptedServer) -> None:
    scripted.busy(2, retry_after="0")
    scripted.reply(completion(usage=USAGE))
    reply = runner.chat(llm)
    assert reply.attempts == 3
    timings = reply.timings
    assert timings.total is not None
    assert timings.tokens_per_second is not None
    assert timings.tokens_per_second > 5 / timings.total, "the pauses do not count"
    scripted.busy(1, retry_after="0")
    scripted.stream(chunks("a"))
    with runner.stream(llm) as stream:
        assert stream.until_done().attempts == 2


def test_what_the_server_measured_is_there(runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply(completion(usage=USAGE, metrics={"queue_time_ms": 250.0, "tokens_per_second": 17.5}))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    timings = runner.chat(llm).timings
    assert (timings.queued, timings.tokens_per_second) == (0.25, 17.5)
    runner.close(llm)


def test_the_headers_are_there_without_keys_and_cookies(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer, secret: str
) -> None:
    echoed = {
        "X-Served-By": "gpu-7",
        "X-Echo": f"Bearer {secret}",
        "Set-Cookie": "id=abc",
        "X-Api-Key": "other",
    }
    scripted.reply(completion(), headers=echoed)
    reply = runner.chat(llm)
    assert reply.headers["x-served-by"] == "gpu-7"
    assert reply.headers["x-echo"] == "Bearer ***"
    assert reply.headers["set-cookie"] == "***"
    assert reply.headers["x-api-key"] == "***"
    dumped = pickle.dumps(reply)
    assert secret.encode() not in dumped
    assert b"id=abc" not in dumped
    again = pickle.loads(dumped)
    assert (again, again.headers, again.timings) == (reply, reply.headers, reply.timings)


def test_it_does_not_change_what_a_reply_is(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer
) -> None:
    body = completion(usage=USAGE)
    scripted.reply(body, headers={"x-request-id": "r"})
    reply = runner.chat(llm)
    bare = decode_completion(json.dumps(body).encode())
    assert reply.model_dump() == bare.model_dump()
    assert repr(reply) == repr(bare)
    assert (bare.timings, bare.attempts, bare.headers) == (Timings(), 0, {})
    # The same answer to the same request is equal, whenever and wherever it came from.
    same = decode_completion(json.dumps(body).encode(), head=ResponseHead(200, {"other": "header"}, "r"))
    assert reply == same
    assert reply != bare, "only the request id counts, as it does without a record"
    for each in (copy.copy(reply), copy.deepcopy(reply), reply.model_copy(deep=True)):
        assert (each, each.timings, each.attempts) == (reply, reply.timings, 1)


def test_it_keeps_neither_the_request_nor_the_response(
    llm: VLLMProvider, runner: Runner, scripted: ScriptedServer
) -> None:
    scripted.reply(completion())
    reply = runner.chat(llm, "x" * 1_000_000)
    seen: set[int] = set()
    waiting: list[object] = [record_of(reply)]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and not isinstance(each, type):
            seen.add(id(each))
            assert not isinstance(each, str | bytes) or len(each) < 10_000
            waiting += gc.get_referents(each)
    assert len(seen) < 200


WITH_RECORD: dict[str, dict[str, Any]] = {
    "chat": completion(),
    "complete": {"choices": [{"text": "a", "finish_reason": "stop"}]},
    "generate": {"choices": [{"index": 0, "token_ids": [1], "finish_reason": "stop"}]},
    "respond": {"output": [], "status": "completed"},
    "embed": {"data": [{"index": 0, "embedding": [0.5]}]},
    "tokenize": {"tokens": [1], "count": 1, "max_model_len": 8},
    "transcribe": {"text": "a"},
    "render": {"token_ids": [1]},
    "classify": {"data": [{"index": 0, "label": "a", "probs": [1.0], "num_classes": 1}]},
}


@pytest.mark.parametrize("method", WITH_RECORD)
def test_every_reply_knows(method: str, runner: Runner, scripted: ScriptedServer) -> None:
    scripted.reply(WITH_RECORD[method], headers={"x-served-by": "gpu-7"})
    llm = VLLMProvider("m", base_url=scripted.base_url)
    [asked] = [each for each in ASKED if each.method == method]
    reply = runner.do(llm, method, *asked.arguments, **dict(asked.params))
    runner.close(llm)
    assert reply.attempts == 1
    assert reply.timings.total > 0
    assert reply.headers["x-served-by"] == "gpu-7"


def test_a_record_made_of_a_response_alone_has_no_times() -> None:
    record = CallRecord.of(ResponseHead(200, {"a": "b"}, "r"))
    assert record.timings(tokens=5) == Timings()
    assert (record.attempts, record.headers, record.request_id) == (0, {"a": "b"}, "r")


def test_no_rate_of_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "monotonic", lambda: 1.0)
    record = CallRecord(1.0)
    record.attempts = 1
    record.note_end()
    assert record.timings(tokens=5).tokens_per_second is None
    record.first = 1.0
    assert record.timings(tokens=1).tokens_per_second is None


def test_done_is_not_part_of_the_time(runner: Runner, scripted: ScriptedServer) -> None:
    # The server keeps the response open after its end, and the client waits a little for its formal end.
    gate = Gate()
    scripted.stream([*chunks("a"), DONE, gate], done=False)
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with runner.stream(llm) as stream:
        total = stream.until_done().timings.total
    gate.release()
    runner.close(llm)
    assert total is not None
    assert total < 0.2
