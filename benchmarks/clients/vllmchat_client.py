"""This library."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks.worker import MESSAGES
from vllmchat import VLLMProvider, run_job

if TYPE_CHECKING:
    from pathlib import Path


def stream_sync(url: str, how: str) -> int:
    with VLLMProvider("bench", base_url=url) as llm:
        stream = llm.stream(MESSAGES)
        count = sum(1 for _ in (stream.events() if how == "events" else stream))
        # Accumulated on the way in any case; made here, since that is what the others are asked for.
        assert stream.completion.text
        return count


def streams_in_a_row(url: str, times: int) -> int:
    with VLLMProvider("bench", base_url=url) as llm:
        return sum(1 for _ in range(times) for _ in llm.stream(MESSAGES))


async def streams(url: str, concurrency: int, how: str) -> int:
    async with VLLMProvider("bench", base_url=url) as llm:

        async def one() -> int:
            stream = llm.astream(MESSAGES)
            count = 0
            async for _ in stream.events() if how == "events" else stream:
                count += 1
            assert stream.completion.text
            return count

        return sum(await asyncio.gather(*[one() for _ in range(concurrency)]))


def replies_sync(url: str, count: int) -> int:
    with VLLMProvider("bench", base_url=url) as llm:
        for _ in range(count):
            assert llm.chat(MESSAGES).text
    return count


async def replies(url: str, count: int, concurrency: int) -> int:
    async with VLLMProvider("bench", base_url=url) as llm:
        gate = asyncio.Semaphore(concurrency)

        async def one() -> None:
            async with gate:
                assert (await llm.achat(MESSAGES)).text

        await asyncio.gather(*[one() for _ in range(count)])
    return count


async def agents(url: str, count: int, turns: int, pause: float) -> int:
    """So many agents, each of which asks, works for a while, and asks again."""
    async with VLLMProvider("bench", base_url=url) as llm:

        async def one() -> None:
            for turn in range(turns):
                if turn:
                    await asyncio.sleep(pause)
                assert (await llm.achat(MESSAGES)).text

        await asyncio.gather(*[one() for _ in range(count)])
    return count * turns


def replies_threads(url: str, count: int, threads: int) -> int:
    with VLLMProvider("bench", base_url=url) as llm, ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(lambda _: llm.chat(MESSAGES).text, range(count)))
    return count


def job(url: str, inputs: Path, concurrency: int) -> int:
    with VLLMProvider("bench", base_url=url) as llm:
        summary = run_job(llm, inputs, inputs.with_suffix(".out"), in_flight=concurrency)
    assert summary.ok
    return summary.done
