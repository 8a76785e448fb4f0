"""One measurement of one client, in a process of its own: prints a line of JSON.

`python -m benchmarks.worker CLIENT WORK PORT COUNT CONCURRENCY`
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


def prompts_of(inputs: Path) -> Iterator[str]:
    """The prompts of a job's file."""
    with inputs.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["prompt"]


def write_prompts(inputs: Path, count: int) -> Path:
    with inputs.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"prompt": f"Question {number}: what is the capital of France?"}) + "\n")
    return inputs


class Measured(NamedTuple):
    """CPU and wall seconds of the work, and units of work done."""

    cpu: float
    wall: float
    units: int


def timed(work: Callable[[], int]) -> Measured:
    cpu, wall = time.process_time(), time.perf_counter()
    units = work()
    return Measured(time.process_time() - cpu, time.perf_counter() - wall, units)


async def timed_async(work: Callable[[], Awaitable[int]]) -> Measured:
    cpu, wall = time.process_time(), time.perf_counter()
    units = await work()
    return Measured(time.process_time() - cpu, time.perf_counter() - wall, units)


def main() -> None:
    client, work, port, count, concurrency = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    module = importlib.import_module(f"benchmarks.clients.{client}")
    base = f"http://127.0.0.1:{port}"
    if work in ("burst", "burst_events", "burst_final", "logprobs"):
        path = "logprobs" if work == "logprobs" else "burst"
        url = f"{base}/{path}/{count}/v1"
        warm = f"{base}/{path}/50/v1"
        how = {"burst_events": "events", "burst_final": "final"}.get(work, "chunks")
        for _ in range(3):
            module.stream_sync(warm, how)
        # Short streams are repeated, so that there is something to measure.
        times = max(20_000 // count, 1)
        measured = timed(lambda: sum(module.stream_sync(url, how) for _ in range(times)))
    elif work == "growth":
        # On one connection, and without the fixed cost of a stream.
        times = max(40_000 // count, 1)
        module.streams_in_a_row(f"{base}/burst/50/v1", 10)
        single = timed(lambda: module.streams_in_a_row(f"{base}/burst/1/v1", 400))
        many = timed(lambda: module.streams_in_a_row(f"{base}/burst/{count}/v1", times))
        measured = Measured(many.cpu - single.cpu / 400 * times, many.wall, (count - 1) * times)
    elif work in ("aburst", "aburst_events"):
        how = "events" if work == "aburst_events" else "chunks"

        async def run() -> Measured:
            await module.streams(f"{base}/burst/50/v1", 1, how)
            return await timed_async(lambda: module.streams(f"{base}/burst/{count}/v1", 1, how))

        measured = asyncio.run(run())
    elif work in ("paced", "spread"):

        async def run() -> Measured:
            await module.streams(f"{base}/{work}/2/5/v1", 4, "chunks")
            return await timed_async(
                lambda: module.streams(f"{base}/{work}/{count}/50/v1", concurrency, "chunks")
            )

        measured = asyncio.run(run())
    elif work == "fanout":

        async def run() -> Measured:
            await module.replies(f"{base}/reply/0/v1", 4, 2)
            return await timed_async(lambda: module.replies(f"{base}/reply/500/v1", count, concurrency))

        measured = asyncio.run(run())
    elif work == "wave":

        async def run() -> Measured:
            url = f"{base}/closing/500/v1"
            await module.agents(url, 4, 1, 0.0)
            return await timed_async(lambda: module.agents(url, concurrency, count // concurrency, 6.0))

        measured = asyncio.run(run())
    elif work == "job":
        with tempfile.TemporaryDirectory() as folder:
            module.job(f"{base}/reply/0/v1", write_prompts(Path(folder, "warm.jsonl"), 16), 4)
            inputs = write_prompts(Path(folder, "in.jsonl"), count)
            measured = timed(lambda: module.job(f"{base}/reply/100/v1", inputs, concurrency))
    elif work == "reply":
        module.replies_sync(f"{base}/reply/0/v1", 50)
        measured = timed(lambda: module.replies_sync(f"{base}/reply/0/v1", count))
    elif work == "threads":
        url = f"{base}/reply/20/v1"
        module.replies_threads(url, concurrency, concurrency)
        measured = timed(lambda: module.replies_threads(url, count, concurrency))
    elif work == "areply":

        async def run() -> Measured:
            await module.replies(f"{base}/reply/0/v1", 50, 1)
            return await timed_async(lambda: module.replies(f"{base}/reply/0/v1", count, 1))

        measured = asyncio.run(run())
    else:
        raise SystemExit(f"no such work: {work}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"cpu": measured.cpu, "wall": measured.wall, "units": measured.units, "rss": peak}))


if __name__ == "__main__":
    main()
