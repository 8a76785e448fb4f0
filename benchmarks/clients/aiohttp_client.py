"""Bare aiohttp and json: what the work costs without a client library."""

from __future__ import annotations

import asyncio
import json

import aiohttp

from benchmarks.worker import MESSAGES


def session(concurrency: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    )


async def streams(url: str, concurrency: int, how: str) -> int:
    async with session(concurrency) as client:

        async def one() -> int:
            count = 0
            body = {"model": "bench", "messages": MESSAGES, "stream": True}
            async with client.post(f"{url}/chat/completions", json=body) as response:
                rest = b""
                async for data in response.content.iter_any():
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        payload = event[6:]
                        if payload != b"[DONE]":
                            json.loads(payload)
                            count += 1
            return count

        return sum(await asyncio.gather(*[one() for _ in range(concurrency)]))


async def replies(url: str, count: int, concurrency: int) -> int:
    async with session(concurrency) as client:
        gate = asyncio.Semaphore(concurrency)

        async def one() -> None:
            async with gate:
                body = {"model": "bench", "messages": MESSAGES}
                async with client.post(f"{url}/chat/completions", json=body) as response:
                    assert json.loads(await response.read())["choices"][0]["message"]["content"]

        await asyncio.gather(*[one() for _ in range(count)])
    return count


async def agents(url: str, count: int, turns: int, pause: float) -> int:
    """So many agents, each of which asks, works for a while, and asks again."""
    async with session(count) as client:

        async def one() -> None:
            for turn in range(turns):
                if turn:
                    await asyncio.sleep(pause)
                body = {"model": "bench", "messages": MESSAGES}
                async with client.post(f"{url}/chat/completions", json=body) as response:
                    assert json.loads(await response.read())["choices"][0]["message"]["content"]

        await asyncio.gather(*[one() for _ in range(count)])
    return count * turns
