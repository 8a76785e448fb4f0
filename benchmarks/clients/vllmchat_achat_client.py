"""Bare `achat`, by a fixed number of tasks: what `map` is measured against."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.worker import prompts_of
from vllmchat import VLLMProvider

if TYPE_CHECKING:
    from pathlib import Path


def job(url: str, inputs: Path, concurrency: int) -> int:
    return asyncio.run(_job(url, inputs, concurrency))


async def _job(url: str, inputs: Path, concurrency: int) -> int:
    done = 0
    prompts = prompts_of(inputs)
    async with VLLMProvider("bench", base_url=url) as llm:

        async def worker() -> None:
            nonlocal done
            for prompt in prompts:
                assert (await llm.achat(prompt)).text
                done += 1

        await asyncio.gather(*[worker() for _ in range(concurrency)])
    return done
