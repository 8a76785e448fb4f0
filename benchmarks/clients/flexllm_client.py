"""flexllm, whose batches also write what is done to a file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flexllm import LLMClient

from benchmarks.worker import prompts_of

if TYPE_CHECKING:
    from pathlib import Path


def job(url: str, inputs: Path, concurrency: int) -> int:
    return asyncio.run(_job(url, inputs, concurrency))


async def _job(url: str, inputs: Path, concurrency: int) -> int:
    # Without its own limit of 1,000 requests per second.
    client = LLMClient(
        base_url=url, api_key="EMPTY", model="bench", concurrency_limit=concurrency, max_qps=1_000_000
    )
    batch = await client.chat_batch(
        [[{"role": "user", "content": prompt}] for prompt in prompts_of(inputs)],
        show_progress=False,
        output_jsonl=str(inputs.with_suffix(".out.jsonl")),
    )
    assert not batch.failed_count, batch.errors
    return batch.success_count
