"""Hold many streams open for minutes, against a server that fails and restarts, and count what becomes of each.

    python scripts/soak.py                            # 1,000 streams at a time, for five minutes
    python scripts/soak.py --minutes 1 --streams 200 --seed 7

Every request asks for a text of its own. The server answers with that text, or with one of the faults below, and is
killed and started again now and then. The client cancels some of its calls at random moments, in tasks on one event
loop and in threads. At the end, each call must have ended in one of three ways: answered with exactly its text, failed
with an error of the library, or canceled. Anything else counts as lost. What is still open after the last call counts
as leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from vllmchat import Timeout, VLLMChatError, VLLMProvider

FAULTS: Final = (
    "breaks",  # the connection is reset in the middle
    "ends",  # the connection is closed in the middle, as if the response had ended
    "done too early",  # [DONE] without a finish reason
    "stalls",  # nothing more arrives
    "error event",
    "garbage",  # bytes that are no event
    "no answer",  # closed without an answer
    "silent",  # no answer at all
    "500",
    "503",
    "closes after",  # a whole answer, then the connection is closed without notice
)

WORDS: Final = 20
"""In each text."""


def text_of(number: int) -> str:
    """The text that the server answers to a request."""
    rng = random.Random(number)
    return " ".join(str(rng.randrange(10**6)) for _ in range(WORDS))


# --------------------------------------------------------------------------------------------------
# The server
# --------------------------------------------------------------------------------------------------


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return _framed(json.dumps(body).encode())


def _framed(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float, rng: random.Random
) -> None:
    """Answer the requests of one connection."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        length = next(
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        request = json.loads(await reader.readexactly(length))
        text = text_of(int(request["messages"][-1]["content"]))
        fault = rng.choice(FAULTS) if rng.random() < rate else None
        if fault == "no answer":
            return
        if fault == "silent":
            await asyncio.sleep(3600)
        if fault in ("500", "503"):
            body = b'{"error":{"message":"broken for a moment","type":"x","code":500}}'
            line = b"HTTP/1.1 " + fault.encode() + b" X\r\ncontent-type: application/json\r\n"
            writer.write(line + b"retry-after: 0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            continue
        if not request.get("stream"):
            await asyncio.sleep(rng.random() * 0.5)
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            reply = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            body = json.dumps(reply).encode()
            whole = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                + body
            )
            if fault in ("breaks", "ends"):
                writer.write(whole[: rng.randrange(len(whole))])
                if fault == "breaks":
                    writer.transport.abort()
                return
            writer.write(whole)
            if fault == "closes after":
                return
            continue
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        writer.write(_chunk({"role": "assistant", "content": ""}))
        words = text.split(" ")
        at = rng.randrange(len(words)) if fault else -1
        for index, word in enumerate(words):
            if index == at:
                match fault:
                    case "breaks":
                        writer.transport.abort()
                        return
                    case "ends":
                        return
                    case "done too early":
                        writer.write(_framed(b"[DONE]") + b"0\r\n\r\n")
                        break
                    case "stalls":
                        await asyncio.sleep(3600)
                    case "error event":
                        error = (
                            b'{"error":{"message":"the engine died","type":"InternalServerError","code":500}}'
                        )
                        writer.write(_framed(error) + _framed(b"[DONE]") + b"0\r\n\r\n")
                        break
                    case "garbage":
                        writer.write(_framed(b"{garbage") + _framed(b"[DONE]") + b"0\r\n\r\n")
                        break
                    case _:
                        pass
            writer.write(_chunk({"content": word if index == 0 else f" {word}"}))
            await writer.drain()
            await asyncio.sleep(rng.random() * 0.1)
        else:
            writer.write(_chunk({}, "stop") + _framed(b"[DONE]") + b"0\r\n\r\n")
            if fault == "closes after":
                return


async def serve(port: int, rate: float, seed: int) -> None:
    """Serve until the process is killed."""
    rng = random.Random(seed)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await _answer(reader, writer, rate, rng)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=4096)
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


class RestartingServer:
    """The server in a process of its own, killed and started again now and then."""

    def __init__(self, rate: float, seed: int, every: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.restarts = 0
        self._rate, self._seed, self._every = rate, seed, every
        self._process = self._start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._restart)
        self._thread.start()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--serve", str(self.port), str(self._rate), str(self._seed)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def _restart(self) -> None:
        while not self._ended.wait(self._every):
            self._process.kill()
            self._process.communicate()
            self._seed += 1
            self._process = self._start()
            self.restarts += 1

    def stop(self) -> None:
        """End it for good."""
        self._ended.set()
        self._thread.join()
        self._process.kill()
        self._process.communicate()


# --------------------------------------------------------------------------------------------------
# The client
# --------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of the calls.

    Attributes:
        sent: Calls made.
        answered: Calls answered with their text.
        canceled: Calls that the client gave up.
        failed: Calls that failed, by the class of the error.
        lost: What must not happen, as sentences.
        memory: Seconds since the start and the resident memory in MB.
    """

    sent: int = 0
    answered: int = 0
    canceled: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    lost: list[str] = field(default_factory=list[str])
    memory: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def number(self) -> int:
        """The number of the next call."""
        with self.lock:
            self.sent += 1
            return self.sent

    def reply(self, number: int, text: str) -> None:
        """Count a reply."""
        with self.lock:
            if text == text_of(number):
                self.answered += 1
            else:
                self.lost.append(f"call {number} returned {text!r} as a whole reply")

    def failure(self, number: int, error: Exception) -> None:
        """Count an error."""
        with self.lock:
            if not isinstance(error, VLLMChatError):
                self.lost.append(f"call {number}: " + "".join(traceback.format_exception(error)))
                return
            self.failed[type(error).__name__] += 1
            partial = getattr(error, "partial", None)
            if partial is not None and not text_of(number).startswith(partial.text or ""):
                self.lost.append(
                    f"call {number} failed with the partial text {partial.text!r} of another one"
                )

    def cancel(self) -> None:
        """Count a canceled call."""
        with self.lock:
            self.canceled += 1


async def call_async(llm: VLLMProvider, tally: Tally, rng: random.Random) -> None:
    """Make one call, which is canceled in one of five cases."""
    number = tally.number()

    async def call() -> str:
        if rng.random() < 0.3:
            return (await llm.achat(str(number))).text
        async with llm.astream(str(number)) as stream:
            async for _ in stream:
                pass
            return stream.completion.text

    try:
        if rng.random() < 0.2:
            async with asyncio.timeout(rng.random() * 2):
                text = await call()
        else:
            text = await call()
    except TimeoutError:
        tally.cancel()
    except Exception as error:
        tally.failure(number, error)
    else:
        tally.reply(number, text)


def call_sync(llm: VLLMProvider, tally: Tally, rng: random.Random) -> None:
    """Make one call, which is left early in one of five cases."""
    number = tally.number()
    leave_after = rng.randrange(WORDS) if rng.random() < 0.2 else None
    try:
        if leave_after is None and rng.random() < 0.3:
            text = llm.chat(str(number)).text
        else:
            with llm.stream(str(number)) as stream:
                for count, _ in enumerate(stream):
                    if count == leave_after:
                        tally.cancel()
                        return
                text = stream.completion.text
    except Exception as error:
        tally.failure(number, error)
    else:
        tally.reply(number, text)


def memory() -> float:
    """The resident memory of this process in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_sockets() -> int:
    """The sockets that this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


async def run(llm: VLLMProvider, tally: Tally, streams: int, seconds: float, seed: int) -> None:
    """Keep that many calls going, nine of ten as tasks and the others in threads."""
    begin = time.monotonic()
    end = begin + seconds

    async def worker(index: int) -> None:
        rng = random.Random(f"{seed}:task:{index}")
        while time.monotonic() < end:
            await call_async(llm, tally, rng)

    def thread(index: int) -> None:
        rng = random.Random(f"{seed}:thread:{index}")
        while time.monotonic() < end:
            call_sync(llm, tally, rng)

    in_threads = min(streams // 10, 100)
    threads = [threading.Thread(target=thread, args=(index,)) for index in range(in_threads)]
    for each in threads:
        each.start()
    tasks = [asyncio.create_task(worker(index)) for index in range(streams - in_threads)]
    while time.monotonic() < end:
        tally.memory.append((time.monotonic() - begin, memory()))
        await asyncio.sleep(min(1.0, seconds / 50))
    await asyncio.gather(*tasks)
    for each in threads:
        await asyncio.to_thread(each.join)
    await llm.aclose()


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """How memory grew in the second half, in MB a minute, by least squares."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return 0.0
    middle = sum(seconds for seconds, _ in half) / len(half)
    mean = sum(used for _, used in half) / len(half)
    spread = sum((seconds - middle) ** 2 for seconds, _ in half)
    return 60 * sum((seconds - middle) * (used - mean) for seconds, used in half) / spread


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="soak.py", description="Many streams against a server that fails.")
    parser.add_argument("--minutes", type=float, default=5, help="how long (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=1000, help="how many at a time (default: %(default)s)")
    parser.add_argument(
        "--faults", type=float, default=0.2, help="share of faulty answers (default: %(default)s)"
    )
    parser.add_argument(
        "--restart", type=float, default=20, help="seconds between restarts (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a random one")
    options = parser.parse_args(argv)
    sockets = open_sockets()
    server = RestartingServer(options.faults, options.seed, options.restart)
    tally = Tally()
    print(f"seed {options.seed}, {options.streams} streams at a time, {options.minutes:g} min", flush=True)
    try:
        llm = VLLMProvider(
            "m",
            base_url=f"http://127.0.0.1:{server.port}/v1",
            timeout=Timeout(connect=10, first_token=5, idle=5, total=30),
        )
        asyncio.run(run(llm, tally, options.streams, options.minutes * 60, options.seed))
        llm.close()
    finally:
        server.stop()
    gc.collect()
    leaked = open_sockets() - sockets
    for sentence in tally.lost:
        print(f"lost: {sentence}")
    open_ended = tally.sent - tally.answered - tally.canceled - tally.failed.total() - len(tally.lost)
    print(f"{tally.sent:10,}  sent, {server.restarts} restarts of the server")
    print(f"{tally.answered:10,}  answered")
    print(f"{tally.canceled:10,}  canceled")
    for name, count in tally.failed.most_common():
        print(f"{count:10,}  failed: {name}")
    print(f"{len(tally.lost) + open_ended:10,}  lost")
    print(f"{leaked:10,}  sockets leaked")
    print(f"{slope(tally.memory):10.2f}  MB a minute, the growth of memory in the second half")
    return 1 if tally.lost or open_ended or leaked > 0 else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        asyncio.run(serve(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
    else:
        sys.exit(main())
