"""litellm, as people call a vLLM server through it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import litellm

from benchmarks.worker import MESSAGES, prompts_of

if TYPE_CHECKING:
    from pathlib import Path

litellm.suppress_debug_info = True


def options(url: str) -> dict[str, object]:
    return {"model": "hosted_vllm/bench", "messages": MESSAGES, "api_base": url, "api_key": "EMPTY"}


def stream_sync(url: str, how: str) -> int:
    return sum(1 for _ in litellm.completion(stream=True, **options(url)))


async def streams(url: str, concurrency: int, how: str) -> int:
    async def one() -> int:
        count = 0
        async for _ in await litellm.acompletion(stream=True, **options(url)):
            count += 1
        return count

    return sum(await asyncio.gather(*[one() for _ in range(concurrency)]))


def replies_sync(url: str, count: int) -> int:
    for _ in range(count):
        assert litellm.completion(**options(url)).choices[0].message.content
    return count


async def replies(url: str, count: int, concurrency: int) -> int:
    gate = asyncio.Semaphore(concurrency)

    async def one() -> None:
        async with gate:
            assert (await litellm.acompletion(**options(url))).choices[0].message.content

    await asyncio.gather(*[one() for _ in range(count)])
    return count


def replies_threads(url: str, count: int, threads: int) -> int:
    with ThreadPoolExecutor(threads) as pool:
        assert all(
            pool.map(lambda _: litellm.completion(**options(url)).choices[0].message.content, range(count))
        )
    return count


def job(url: str, inputs: Path, concurrency: int) -> int:
    return asyncio.run(_job(url, inputs, concurrency))


async def _job(url: str, inputs: Path, concurrency: int) -> int:
    gate = asyncio.Semaphore(concurrency)

    async def one(prompt: str) -> None:
        async with gate:
            asked = {**options(url), "messages": [{"role": "user", "content": prompt}]}
            assert (await litellm.acompletion(**asked)).choices[0].message.content

    return len(await asyncio.gather(*[one(prompt) for prompt in prompts_of(inputs)]))
