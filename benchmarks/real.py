"""Streams of a real vLLM server: time to the first token and tokens per second, by client.

`python -m benchmarks.real [BASE_URL MODEL]` starts the small server of `scripts/vllm_server.py` unless one is given.
The clients take turns, each in this process except for curl, which is one process per stream. The results are added to
`results.json`. They mostly measure the server: the point is that the client adds next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from openai import AsyncOpenAI

from vllmchat import VLLMProvider

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
TOKENS = 128
PROMPT = "Count from one to a hundred."
ROUNDS = 7

Stream = Callable[[], Awaitable[tuple[float, int]]]
"""Runs one stream; returns the seconds to the first token, and the number of tokens."""


def ours(base_url: str, model: str) -> Stream:
    llm = VLLMProvider(model, base_url=base_url)

    async def one() -> tuple[float, int]:
        begin, first = time.perf_counter(), 0.0
        async with llm.astream(PROMPT, max_tokens=TOKENS, ignore_eos=True) as stream:
            async for chunk in stream:
                if not first and chunk.text:
                    first = time.perf_counter() - begin
        usage = stream.completion.usage
        return first, usage.completion_tokens if usage else 0

    return one


def openai(base_url: str, model: str) -> Stream:
    client = AsyncOpenAI(base_url=base_url, api_key="EMPTY")

    async def one() -> tuple[float, int]:
        begin, first, tokens = time.perf_counter(), 0.0, 0
        async for chunk in await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": PROMPT}],
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        ):
            if not first and chunk.choices and chunk.choices[0].delta.content:
                first = time.perf_counter() - begin
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        return first, tokens

    return one


def curl(base_url: str, model: str) -> Stream:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    command = ["curl", "--silent", "--no-buffer", "--json", body, f"{base_url}/chat/completions"]

    async def one() -> tuple[float, int]:
        begin, first, tokens = time.perf_counter(), 0.0, 0
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async for line in process.stdout:
            if not first and b'"content":"' in line and b'"content":""' not in line:
                first = time.perf_counter() - begin
            if b'"completion_tokens":' in line:
                tokens = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
        await process.wait()
        return first, tokens

    return one


async def measure(base_url: str, model: str) -> dict[str, dict[str, dict[str, float]]]:
    clients = {"vllmchat": ours, "openai": openai, "curl": curl}
    streams = {name: make(base_url, model) for name, make in clients.items()}
    results: dict[str, dict[str, dict[str, float]]] = {}
    for concurrency in (1, 16):
        firsts: dict[str, list[float]] = {name: [] for name in streams}
        rates: dict[str, list[float]] = {name: [] for name in streams}
        for turn in range(ROUNDS + 1):
            for name, one in streams.items():
                begin = time.perf_counter()
                done = await asyncio.gather(*[one() for _ in range(concurrency)])
                if turn:  # the first one is the warm-up
                    firsts[name] += [first for first, _ in done]
                    rates[name].append(sum(tokens for _, tokens in done) / (time.perf_counter() - begin))
        results[str(concurrency)] = {
            name: {
                "first_ms": round(statistics.median(firsts[name]) * 1000, 1),
                "tokens_per_second": round(statistics.median(rates[name])),
            }
            for name in streams
        }
    return results


def main() -> None:
    if len(sys.argv) > 2:
        found = asyncio.run(measure(sys.argv[1], sys.argv[2]))
    else:
        sys.path.insert(0, str(ROOT / "scripts"))
        import vllm_server  # type: ignore[import-not-found]  # it is not in a package

        options = vllm_server.Options(name="bench")
        with vllm_server.running(options) as server:
            found = asyncio.run(measure(server.base_url, options.served_model_name))
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["real"] = found
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
