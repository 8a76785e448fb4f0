"""What makes it fast. Asserts the causes, not the times."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pydantic_core
import pytest

from support.chats import chunks, completion
from vllmchat import VLLMProvider
from vllmchat.chat.chunk import ChatCompletionChunk
from vllmchat.http.transport import asyncio_stream, http1, sync_backend, trio_stream
from vllmchat.wire import decode, lenient, repeats

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from support.runners import Runner
    from support.scripted import ScriptedServer


class _Validator:
    """A model's validator that counts."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator
        self.count = 0

    def validate_json(self, data: bytes, **options: Any) -> Any:
        self.count += 1
        return self._validator.validate_json(data, **options)


def _counting(function: Callable[..., Any], calls: list[object]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return function(*args, **options)

    return call


def test_a_chunk_is_parsed_once(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.stream(chunks(*"abcdefgh"))
    decode.ensure_built(ChatCompletionChunk)
    validator = _Validator(ChatCompletionChunk.__pydantic_validator__)
    monkeypatch.setattr(ChatCompletionChunk, "__pydantic_validator__", validator)
    texts: list[object] = []
    monkeypatch.setattr(repeats, "from_json", _counting(pydantic_core.from_json, texts))
    others: list[object] = []
    for owner, name in ((lenient, "parse"), (decode, "parse"), (json, "loads")):
        monkeypatch.setattr(owner, name, _counting(getattr(owner, name), others))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    assert runner.stream(llm).texts() == list("abcdefgh")
    runner.close(llm)
    # Once as a whole, or only its text; and once for what the chunks have in common.
    assert validator.count + len(texts) == len(chunks(*"abcdefgh")) + 1
    assert texts
    assert others == []


def test_a_chunk_is_decoded_when_it_is_requested(
    scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other events of the same read wait as bytes: many models at once would keep the garbage collector busy.
    block = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks(*"abcdefgh"))
    scripted.stream([block])
    decode.ensure_built(ChatCompletionChunk)
    validator = _Validator(ChatCompletionChunk.__pydantic_validator__)
    monkeypatch.setattr(ChatCompletionChunk, "__pydantic_validator__", validator)
    texts: list[object] = []
    monkeypatch.setattr(repeats, "from_json", _counting(pydantic_core.from_json, texts))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    with runner.stream(llm) as stream:
        for count, _ in enumerate(stream, 1):
            assert count <= validator.count + len(texts) <= count + 1
    runner.close(llm)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_connections_share_a_receive_buffer(scripted: ScriptedServer) -> None:
    for _ in range(20):
        scripted.reply(completion())
    before = len(asyncio_stream._SPARE)  # pyright: ignore[reportPrivateUsage] - what is counted is hidden
    async with VLLMProvider("m", base_url=scripted.base_url) as llm, anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(llm.achat, "Hello")
    assert scripted.connections > 1
    assert len(asyncio_stream._SPARE) <= before + 1  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_request_is_one_write(
    size: int, scripted: ScriptedServer, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[object] = []
    streams: tuple[tuple[object, str], ...] = (
        (sync_backend, "SyncStream"),
        (asyncio_stream, "AsyncioStream"),
        (trio_stream, "TrioStream"),
    )
    for home, name in streams:
        stream: Any = getattr(home, name)
        monkeypatch.setattr(stream, "write", _counting(stream.write, writes))
    llm = VLLMProvider("m", base_url=scripted.base_url)
    for _ in range(3):
        scripted.reply(completion())
        runner.chat(llm, messages="x" * size)
    runner.close(llm)
    # A large body is not copied behind its head.
    assert len(writes) == (3 if size == 1 else 6)
    assert scripted.connections == 1


@pytest.mark.parametrize("count", [2, 200])
def test_observing_costs_nothing_when_nobody_does(count: int, scripted: ScriptedServer) -> None:
    """One question for each call, and nothing for each chunk."""
    scripted.stream(chunks("first"))
    scripted.stream(chunks(*"x" * count))
    calls: list[str] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        home = str(frame.f_globals.get("__name__"))
        if event == "call" and home in ("logging", "vllmchat.http.observe", "vllmchat.http.logs"):
            calls.append(frame.f_code.co_name)

    with VLLMProvider("m", base_url=scripted.base_url) as llm:
        llm.stream("Hi").until_done()  # opens the connection, and imports what is needed
        sys.setprofile(profile)
        try:
            llm.stream("Hi").until_done()
        finally:
            sys.setprofile(None)
    assert calls == ["is_on", "isEnabledFor", "isEnabledFor"]


def test_all_chunks_of_a_read_are_decoded_together() -> None:
    events = [b"data: {%d}\n\n" % number for number in range(1000)]
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
    assert http1.ResponseParser().feed(head + body) == b"".join(events)
