"""The openai package."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI, OpenAI

from benchmarks.worker import MESSAGES, prompts_of

if TYPE_CHECKING:
    from pathlib import Path


def make_async(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url, api_key="EMPTY")


def stream_sync(url: str, how: str) -> int:
    with OpenAI(base_url=url, api_key="EMPTY") as client:
        if how in ("final", "events"):
            with client.chat.completions.stream(model="bench", messages=MESSAGES) as stream:
                count = sum(event.type == "chunk" for event in stream)
                assert stream.get_final_completion().choices[0].message.content
            return count
        count, text = 0, ""
        for chunk in client.chat.completions.create(model="bench", messages=MESSAGES, stream=True):
            count += 1
            if chunk.choices:
                text = chunk.choices[0].delta.content or text
        assert text
        return count


async def streams(url: str, concurrency: int, how: str) -> int:
    async with make_async(url) as client:

        async def one() -> int:
            count = 0
            if how == "events":
                async with client.chat.completions.stream(model="bench", messages=MESSAGES) as stream:
                    async for event in stream:
                        count += event.type == "chunk"
                return count
            async for _ in await client.chat.completions.create(
                model="bench", messages=MESSAGES, stream=True
            ):
                count += 1
            return count

        return sum(await asyncio.gather(*[one() for _ in range(concurrency)]))


def replies_sync(url: str, count: int) -> int:
    with OpenAI(base_url=url, api_key="EMPTY") as client:
        for _ in range(count):
            assert client.chat.completions.create(model="bench", messages=MESSAGES).choices[0].message.content
    return count


async def replies(url: str, count: int, concurrency: int) -> int:
    async with make_async(url) as client:
        gate = asyncio.Semaphore(concurrency)

        async def one() -> None:
            async with gate:
                reply = await client.chat.completions.create(model="bench", messages=MESSAGES)
                assert reply.choices[0].message.content

        await asyncio.gather(*[one() for _ in range(count)])
    return count


async def agents(url: str, count: int, turns: int, pause: float) -> int:
    """So many agents, each of which asks, works for a while, and asks again."""
    async with make_async(url) as client:

        async def one() -> None:
            for turn in range(turns):
                if turn:
                    await asyncio.sleep(pause)
                reply = await client.chat.completions.create(model="bench", messages=MESSAGES)
                assert reply.choices[0].message.content

        await asyncio.gather(*[one() for _ in range(count)])
    return count * turns


def replies_threads(url: str, count: int, threads: int) -> int:
    with OpenAI(base_url=url, api_key="EMPTY") as client, ThreadPoolExecutor(threads) as pool:

        def one(_: int) -> str | None:
            reply = client.chat.completions.create(model="bench", messages=MESSAGES)
            return reply.choices[0].message.content

        assert all(pool.map(one, range(count)))
    return count


def job(url: str, inputs: Path, concurrency: int) -> int:
    return asyncio.run(_job(url, inputs, concurrency))


async def _job(url: str, inputs: Path, concurrency: int) -> int:
    gate = asyncio.Semaphore(concurrency)
    async with make_async(url) as client:

        async def one(prompt: str) -> None:
            async with gate:
                messages: list[Any] = [{"role": "user", "content": prompt}]
                reply = await client.chat.completions.create(model="bench", messages=messages)
                assert reply.choices[0].message.content

        return len(await asyncio.gather(*[one(prompt) for prompt in prompts_of(inputs)]))
