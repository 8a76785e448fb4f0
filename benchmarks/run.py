"""Measures this library and its peers side by side and writes down what came out.

`python -m benchmarks.run` takes some 35 minutes on an idle machine. `--only burst paced` measures some again.
`--only job_1000000` measures the memory of a million prompts, which takes too long for each time. `--quick` measures
this library alone, here and at another commit (`--base`, else HEAD), in turn, and prints the ratios, in two minutes.

Each measurement is a process of its own, clients take turns, and medians are told. What counts is the CPU time of the
client process, and the wall time where concurrency is the point. The server is another process that answers from
prepared bytes, so it is the same for all.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import start

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"


@dataclass(frozen=True)
class Work:
    """One kind of work.

    Attributes:
        key: Its name among the results.
        name: What the worker is told.
        title: What a reader is told.
        count: Units of work: chunks, replies.
        concurrency: How much of it at once.
        unit: What the CPU time is divided by.
        clients: Who does it.
        ideal: Wall seconds that it would take without a client, where the server sets the pace.
        fewer: Units of work for clients that would take minutes.
        once: Whether one run is enough, since what counts is memory.
        on_request: Whether it runs only if `--only` names it.
    """

    key: str
    name: str
    title: str
    count: int
    concurrency: int
    unit: str
    clients: tuple[str, ...]
    ideal: float | None = None
    fewer: Mapping[str, int] = field(default_factory=dict[str, int])
    once: bool = False
    on_request: bool = False


OURS = ("vllmchat",)
THREADS = ("vllmchat", "openai", "httpx")
SYNC = ("vllmchat", "openai", "litellm", "httpx")
ASYNC = ("vllmchat", "openai", "openai_aiohttp", "litellm", "httpx", "aiohttp")
WORK = [
    Work("burst", "burst", "One stream of 20,000 chunks, sent at once", 20_000, 1, "chunk", SYNC),
    Work("aburst", "aburst", "The same, async", 20_000, 1, "chunk", ASYNC),
    Work(
        "burst_events",
        "burst_events",
        "The same, as events and with the final completion",
        20_000,
        1,
        "chunk",
        ("vllmchat", "openai"),
    ),
    Work(
        "aburst_events",
        "aburst_events",
        "As events, async",
        20_000,
        1,
        "chunk",
        ("vllmchat", "openai"),
    ),
    Work("logprobs", "logprobs", "5,000 chunks with top-5 logprobs and token ids", 5_000, 1, "chunk", SYNC),
    Work("paced", "paced", "256 streams in step, one chunk every 50 ms", 100, 256, "chunk", ASYNC, 5.0),
    Work(
        "spread",
        "spread",
        "The same, spread over the 50 ms",
        100,
        256,
        "chunk",
        ("vllmchat", "openai", "openai_aiohttp", "aiohttp"),
        5.0,
    ),
    Work("fanout_512", "fanout", "512 replies in flight, 0.5 s each", 1_536, 512, "reply", ASYNC, 1.5),
    Work(
        "fanout_2000",
        "fanout",
        "2,000 replies in flight, 0.5 s each",
        6_000,
        2_000,
        "reply",
        ("vllmchat", "openai", "openai_aiohttp", "aiohttp"),
        1.5,
    ),
    Work(
        "wave",
        "wave",
        "1,024 agents, 2 turns of 0.5 s, 6 s apart, so that all reconnect",
        2_048,
        1_024,
        "turn",
        ("vllmchat", "openai", "aiohttp"),
        7.0,
    ),
    Work("reply", "reply", "Whole replies, one after another", 1_000, 1, "reply", SYNC),
    Work("areply", "areply", "The same, async", 1_000, 1, "reply", ASYNC),
    Work(
        "threads",
        "threads",
        "64 threads, replies of 20 ms",
        1_920,
        64,
        "reply",
        ("vllmchat", "openai", "httpx"),
        0.6,
    ),
    Work("long", "burst", "One stream of 200,000 chunks", 200_000, 1, "chunk", ("vllmchat", "openai")),
    # How the cost grows: only ours, since it is a promise of ours.
    *(
        Work(f"growth_{count}", "growth", f"A chunk of a stream of {count:,}", count, 1, "chunk", OURS)
        for count in (100, 2_000, 20_000, 200_000)
    ),
    Work(
        "job",
        "job",
        "20,000 prompts, 512 in flight, 0.1 s each",
        20_000,
        512,
        "prompt",
        ("vllmchat", "vllmchat_map", "vllmchat_achat", "flexllm", "litellm", "openai"),
        fewer={"flexllm": 5_000, "litellm": 2_000, "openai": 2_000},
    ),
    *(
        Work(
            f"job_{count}",
            "job",
            f"{count:,} prompts",
            count,
            512,
            "prompt",
            ("vllmchat", "vllmchat_map"),
            once=True,
            on_request=count == 1_000_000,
        )
        for count in (1_000, 60_000, 1_000_000)
    ),
    Work("fanout_64", "fanout", "64 replies in flight, 0.5 s each", 192, 64, "reply", OURS, 1.5),
]
QUICK = ("burst", "aburst", "aburst_events", "logprobs", "fanout_512", "reply", "areply")


@contextmanager
def server() -> Iterator[str]:
    """The port of a server that ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def measure(client: str, work: Work, port: str, source: Path | None = None) -> dict[str, float]:
    """One run of one client."""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.worker",
            f"{client}_client",
            work.name,
            port,
            str(work.fewer.get(client, work.count)),
            str(work.concurrency),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{client} failed at {work.key}:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


OTHER_IMPORTS = {"import openai": "import openai", "import litellm": "import litellm"}


def first_replies(url: str) -> dict[str, str]:
    """Programs that get one reply, by client, where the other clients are installed."""
    return {
        **start.first_replies(url),
        "openai": f"""
from openai import OpenAI
client = OpenAI(base_url={url!r}, api_key="EMPTY")
messages = [{{"role": "user", "content": "Hello"}}]
print(client.chat.completions.create(model="bench", messages=messages).choices[0].message.content)""",
    }


def full(repeats: int, only: list[str]) -> None:
    """Everything, or only some of it; the rest stays as it was measured before. Each result is written at once."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    packages = ("vllmchat", "openai", "litellm", "flexllm", "httpx", "aiohttp", "pydantic")
    results |= {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "repeats": repeats,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    figures: dict[str, dict[str, dict[str, float]]] = results.setdefault("work", {})

    def save() -> None:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")

    with server() as port:
        for work in WORK:
            if work.key not in only if only else work.on_request:
                continue
            runs: dict[str, list[dict[str, float]]] = {client: [] for client in work.clients}
            for _ in range(1 if work.once else repeats):
                for client, each in runs.items():
                    each.append(measure(client, work, port))
            figures[work.key] = {client: summary(each) for client, each in runs.items()}
            save()
            print(work.title, flush=True)
            for client, figure in figures[work.key].items():
                print(
                    f"  {client:16} {figure['cpu']:9.1f} µs/{work.unit}  wall {figure['wall']:6.2f} s  "
                    f"{figure['rss'] / 1e6:5.0f} MB",
                    flush=True,
                )
        if not only or "start" in only:
            url = f"http://127.0.0.1:{port}/reply/0/v1"
            results["import_ms"] = start.starts({**start.IMPORTS, **OTHER_IMPORTS}, repeats)
            results["first_reply_ms"] = start.starts(first_replies(url), repeats)
            results["start"] = start.measure(url, repeats)
            save()
            print(
                json.dumps(
                    {name: results[name] for name in ("import_ms", "first_reply_ms", "start")}, indent=1
                )
            )


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Medians: CPU in µs a unit, wall in seconds, units per second, memory in bytes."""
    return {
        "cpu": round(statistics.median(run["cpu"] / run["units"] * 1e6 for run in runs), 2),
        "wall": round(statistics.median(run["wall"] for run in runs), 3),
        "rate": round(statistics.median(run["units"] / run["wall"] for run in runs), 1),
        "rss": statistics.median(run["rss"] for run in runs),
    }


def quick(base: str, repeats: int) -> None:
    """This tree against another commit."""
    with tempfile.TemporaryDirectory() as folder, server() as port:
        archive = subprocess.run(["git", "archive", base, "src"], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        sources = {"base": Path(folder) / "src", "here": ROOT / "src"}
        for work in WORK:
            if work.key not in QUICK:
                continue
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
            for _ in range(repeats):
                for name, source in sources.items():
                    runs[name].append(measure("vllmchat", work, port, source))
            here, there = summary(runs["here"]), summary(runs["base"])
            ratio = here["cpu"] / there["cpu"]
            print(
                f"{work.key:16} {there['cpu']:9.1f} -> {here['cpu']:9.1f} µs/{work.unit}   x {ratio:.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="this tree against another commit, under two minutes"
    )
    parser.add_argument("--base", default="HEAD", help="the other commit (default: HEAD)")
    parser.add_argument("--repeats", type=int, default=0, help="runs of each (default: 5, quick 3)")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORK", help="of the full run, only these")
    arguments = parser.parse_args()
    if arguments.quick:
        quick(arguments.base, arguments.repeats or 3)
    else:
        full(arguments.repeats or 5, arguments.only)
        print(f"written to {RESULTS.relative_to(ROOT)}; now: python -m benchmarks.page")


if __name__ == "__main__":
    main()
