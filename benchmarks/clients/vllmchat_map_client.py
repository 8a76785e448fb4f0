"""This library's `map`, without a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.worker import prompts_of
from vllmchat import VLLMProvider

if TYPE_CHECKING:
    from pathlib import Path


def job(url: str, inputs: Path, concurrency: int) -> int:
    done = 0
    with VLLMProvider("bench", base_url=url) as llm:
        for result in llm.map(prompts_of(inputs), in_flight=concurrency):
            assert result.text
            done += 1
    return done
