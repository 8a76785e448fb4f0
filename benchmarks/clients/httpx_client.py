"""Bare httpx and json, with its own pool and no limit on connections."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import httpx

from benchmarks.worker import MESSAGES

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)


def body(*, stream: bool) -> dict[str, object]:
    return {"model": "bench", "messages": MESSAGES, **({"stream": True} if stream else {})}


def count_events(rest: bytes, data: bytes) -> tuple[int, bytes]:
    *events, rest = (rest + data).split(b"\n\n")
    count = 0
    for event in events:
        payload = event[6:]
        if payload != b"[DONE]":
            json.loads(payload)
            count += 1
    return count, rest


def stream_sync(url: str, how: str) -> int:
    total, rest = 0, b""
    with (
        httpx.Client(timeout=None, limits=LIMITS) as client,
        client.stream("POST", f"{url}/chat/completions", json=body(stream=True)) as response,
    ):
        for data in response.iter_raw():
            count, rest = count_events(rest, data)
            total += count
    return total


async def streams(url: str, concurrency: int, how: str) -> int:
    async with httpx.AsyncClient(timeout=None, limits=LIMITS) as client:

        async def one() -> int:
            total, rest = 0, b""
            async with client.stream("POST", f"{url}/chat/completions", json=body(stream=True)) as response:
                async for data in response.aiter_raw():
                    count, rest = count_events(rest, data)
                    total += count
            return total

        return sum(await asyncio.gather(*[one() for _ in range(concurrency)]))


def replies_sync(url: str, count: int) -> int:
    with httpx.Client(timeout=None, limits=LIMITS) as client:
        for _ in range(count):
            response = client.post(f"{url}/chat/completions", json=body(stream=False))
            assert response.json()["choices"][0]["message"]["content"]
    return count


async def replies(url: str, count: int, concurrency: int) -> int:
    async with httpx.AsyncClient(timeout=None, limits=LIMITS) as client:
        gate = asyncio.Semaphore(concurrency)

        async def one() -> None:
            async with gate:
                response = await client.post(f"{url}/chat/completions", json=body(stream=False))
                assert response.json()["choices"][0]["message"]["content"]

        await asyncio.gather(*[one() for _ in range(count)])
    return count


def replies_threads(url: str, count: int, threads: int) -> int:
    with httpx.Client(timeout=None, limits=LIMITS) as client, ThreadPoolExecutor(threads) as pool:

        def one(_: int) -> str:
            response = client.post(f"{url}/chat/completions", json=body(stream=False))
            text: str = response.json()["choices"][0]["message"]["content"]
            return text

        assert all(pool.map(one, range(count)))
    return count
