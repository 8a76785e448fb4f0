"""The openai package over its aiohttp transport; asynchronous only."""

from __future__ import annotations

from openai import AsyncOpenAI, DefaultAioHttpClient

from benchmarks.clients import openai_client


def make_async(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url, api_key="EMPTY", http_client=DefaultAioHttpClient())


openai_client.make_async = make_async
streams = openai_client.streams
replies = openai_client.replies
