"""A server that sends prepared bytes, so that a benchmark measures clients.

The first part of the path selects the response; every client gets it as part of its base URL::

    /burst/N/v1          N one-token chunks, all at once
    /logprobs/N/v1       the same, each with five logprobs and a token id
    /paced/N/MS/v1       N chunks, one each MS milliseconds: streams that begin together are all in step
    /spread/N/MS/v1      the same, but the streams are spread evenly over the MS milliseconds
    /reply/MS/v1         one whole reply after MS milliseconds
    /closing/MS/v1       the same, and a connection that was idle for 5 seconds is closed, as uvicorn does

`python -m benchmarks.server` prints the port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import sys

IDLE_SECONDS = 5.0

ID = '"id":"chatcmpl-8a4e3ae35d7eba52","object":"chat.completion.chunk","created":1795447419,"model":"bench"'
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def framed(payload: str) -> bytes:
    data = f"data: {payload}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def token(index: int, extra: str = '"logprobs":null,"finish_reason":null,"token_ids":null') -> bytes:
    return framed(f'{{{ID},"choices":[{{"index":0,"delta":{{"content":" tok{index % 1000}"}},{extra}}}]}}')


@functools.cache
def logprobs() -> str:
    def one(text: str, value: float) -> dict[str, object]:
        return {"token": text, "logprob": value, "bytes": list(text.encode())}

    best = [one(f" tok{rank}", -0.01 - rank) for rank in range(5)]
    content = [{**one(" tok0", -0.01), "top_logprobs": best}]
    text = json.dumps({"content": content}, separators=(",", ":"))
    return f'"logprobs":{text},"finish_reason":null,"token_ids":[1234]'


FIRST = framed(
    f'{{{ID},"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,'
    '"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}'
)
LAST = framed(
    f'{{{ID},"choices":[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop","stop_reason":null,'
    '"token_ids":null}],"system_fingerprint":"vllm-bench"}'
)
USAGE = framed(
    f'{{{ID},"choices":[],"usage":{{"prompt_tokens":9,"total_tokens":109,"completion_tokens":100}}}}'
)
END = LAST + USAGE + framed("[DONE]") + b"0\r\n\r\n"


@functools.cache
def burst(count: int, *, with_logprobs: bool) -> bytes:
    extra = (logprobs(),) if with_logprobs else ()
    return HEAD + FIRST + b"".join(token(index, *extra) for index in range(count)) + END


def whole_reply() -> bytes:
    message = {
        "role": "assistant",
        "content": "The capital of France is Paris.",
        "refusal": None,
        "reasoning": None,
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    body = json.dumps(
        {
            "id": "chatcmpl-8a4e3ae35d7eba52",
            "object": "chat.completion",
            "created": 1795447419,
            "model": "bench",
            "choices": [choice],
            "usage": {"prompt_tokens": 9, "total_tokens": 16, "completion_tokens": 7},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


REPLY = whole_reply()


# Numbers whose fractions are spread evenly, however many are taken: multiples of the golden ratio.
PLACES = (number * 0.6180339887498949 % 1 for number in itertools.count())


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closing is not None:
            self.closing.cancel()
        for task in self.tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self.closing is not None:
            self.closing.cancel()
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(self.buffer) < end + 4 + length:
                return
            del self.buffer[: end + 4 + length]
            self.answer(head.split(b" ", 2)[1].decode())

    def answer(self, path: str) -> None:
        assert self.transport is not None
        kind, *rest = path.strip("/").split("/")
        if kind in ("burst", "logprobs"):
            self.transport.write(burst(int(rest[0]), with_logprobs=kind == "logprobs"))
        elif kind == "reply":
            delay = int(rest[0]) / 1000
            if delay:
                asyncio.get_running_loop().call_later(delay, self.transport.write, REPLY)
            else:
                self.transport.write(REPLY)
        elif kind == "closing":
            asyncio.get_running_loop().call_later(int(rest[0]) / 1000, self.reply_and_close)
        elif kind in ("paced", "spread"):
            pause = int(rest[1]) / 1000
            late = next(PLACES) * pause if kind == "spread" else 0.0
            task = asyncio.create_task(self.paced(int(rest[0]), pause, late))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        else:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def reply_and_close(self) -> None:
        assert self.transport is not None
        self.transport.write(REPLY)
        self.closing = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.transport.close)

    async def paced(self, count: int, pause: float, late: float) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        begin = loop.time() + late
        self.transport.write(HEAD + FIRST)
        for index in range(count):
            await asyncio.sleep(begin + (index + 1) * pause - loop.time())
            self.transport.write(token(index))
        self.transport.write(END)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Session, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.create_future()
    # Whoever started this process holds its input: when that closes, the work is done.
    loop.add_reader(sys.stdin, lambda: ended.done() or ended.set_result(None))
    await ended
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
