"""Jobs on a real vLLM server: `in_flight="auto"` against fixed widths and other clients, and the order by prefix.

`.venv-bench/bin/python -m benchmarks.jobs [PART ...] [--server BASE_URL MODEL]` starts the small server of
`scripts/vllm_server.py` unless one is given. The parts:

- `prefix`: how much of the prompts a server finds in its cache, in the file's own order and with `order="prefix"`.
- `sweep`: fixed widths from 1 to 512, then the best of them and `"auto"` in turn.
- `short`: a width of 256 and `"auto"` from their beginning.
- `blind`: the same without the server's metrics, when the climb is over.
- `cache`: the sweep with a KV cache that holds some 60 requests.
- `clients`: `map` with `"auto"` and with the best width, `achat` and the openai package with a semaphore, in turn.

On a machine that does other work too, seconds say little. So the seconds that the server's engine had to wait for a
processor are left out, where it runs on this machine: Linux counts them. Rates are medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import string
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from vllmchat import OpenAIProvider, VLLMProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (1, 8, 32, 64, 96, 128, 192, 256, 384, 512)
TOKENS = 64
"""The mean length of a reply. They differ, as those of a real job do."""

Width: TypeAlias = int | Literal["auto", "auto without metrics"]


def prompts(label: str) -> Iterator[dict[str, object]]:
    """Endless prompts whose replies have 16 to 111 tokens."""
    for number in itertools.count():
        yield {
            "messages": [{"role": "user", "content": f"Question {number} of {label}?"}],
            "max_tokens": TOKENS // 4 + number * 7919 % (TOKENS * 3 // 2),
        }


@dataclass
class Target:
    """A server.

    Attributes:
        llm: A client of it.
        engine: The process of its engine, where it runs on this machine.
    """

    llm: VLLMProvider
    base_url: str
    model: str
    engine: int | None = None

    def waited(self) -> float:
        """How many seconds the engine has waited for a processor since it started."""
        if self.engine is None:
            return 0.0
        return int(Path(f"/proc/{self.engine}/schedstat").read_text().split()[1]) / 1e9


@dataclass
class Measured:
    """One run.

    Attributes:
        rate: Tokens per second in which the engine could work.
        wall: Tokens per second.
        queued: The mean seconds of a request in the queue.
        preemptions: Per request.
        width: The last.
    """

    rate: float
    wall: float
    queued: float
    preemptions: float
    width: int = 0


def counting(target: Target) -> Callable[[], Measured]:
    """Begins to count by the server's own counters; returns what ends it."""
    before, waited, begin = target.llm.metrics(), target.waited(), time.perf_counter()

    def end() -> Measured:
        seconds, wait = time.perf_counter() - begin, target.waited() - waited
        after = target.llm.metrics()
        tokens = (after.generation_tokens or 0) - (before.generation_tokens or 0)
        finished = sum(after.requests_finished.values()) - sum(before.requests_finished.values())
        preemptions = (after.preemptions or 0) - (before.preemptions or 0)
        queued = (after.queue_time.sum if after.queue_time else 0.0) - (
            before.queue_time.sum if before.queue_time else 0.0
        )
        return Measured(
            tokens / (seconds - wait),
            tokens / seconds,
            queued / max(finished, 1),
            preemptions / max(finished, 1),
        )

    return end


def measure(target: Target, width: Width, seconds: float, warm_up: float) -> Measured:
    """Runs a job for some seconds, and counts what comes after `warm_up`."""
    inputs = prompts(f"{width} {time.monotonic()}")
    if width == "auto without metrics":
        # It does not know of any.
        blind = OpenAIProvider(target.model, base_url=target.base_url, api_key="EMPTY")
        results = blind.map(inputs, extra_body={"ignore_eos": True})
    else:
        results = target.llm.map(inputs, ignore_eos=True, in_flight=width)
    begin = time.perf_counter()
    end = counting(target)
    warm = warm_up == 0
    with results:
        for result in results:
            assert result.ok, result.error
            now = time.perf_counter() - begin
            if not warm and now > warm_up:
                warm, end = True, counting(target)
            if now > warm_up + seconds:
                break
        measured = end()
        measured.width = results.progress.width
    return measured


K = TypeVar("K")


def show(title: str, runs: Mapping[K, list[Measured]], best: K) -> None:
    """Prints a table. Rates are compared within each round, in which the machine was the same."""
    print(f"\n{title}")
    print("| | tokens/s | of the best | seconds in the queue | preemptions per request | widths at the end |")
    print("|---|---|---|---|---|---|")
    for name, found in runs.items():
        share = statistics.median(
            each.rate / other.rate for each, other in zip(found, runs[best], strict=True)
        )
        print(
            f"| {name} | {_median(found, 'rate'):.0f} | {share:.3f} | {_median(found, 'queued'):.2f} "
            f"| {_median(found, 'preemptions'):.2f} | {' '.join(str(each.width or '') for each in found)} |",
            flush=True,
        )


def _median(runs: list[Measured], name: str) -> float:
    return statistics.median(cast("float", getattr(each, name)) for each in runs)


def in_turn(
    target: Target, widths: Iterable[Width], seconds: float, rounds: int, warm_up: float
) -> dict[Width, list[Measured]]:
    """Measures some widths in turn."""
    runs: dict[Width, list[Measured]] = {width: [] for width in widths}
    for _ in range(rounds):
        for width, found in runs.items():
            found.append(measure(target, width, seconds, warm_up))
    return runs


def best_of(runs: Mapping[Width, list[Measured]]) -> int:
    """Returns the best of the fixed widths."""
    return max((each for each in runs if isinstance(each, int)), key=lambda each: _median(runs[each], "rate"))


def sweep(target: Target, rounds: int) -> None:
    """All widths once, then the best two of them and the automatic ones in turn, when the climb is over."""
    every = in_turn(target, WIDTHS, 3, 1, 1)
    show("every width, 3 s each", every, best_of(every))
    ranked = sorted(WIDTHS, key=lambda width: -_median(every[width], "rate"))
    runs = in_turn(target, (*ranked[:2], "auto"), 8, rounds, 4)
    show(f"in turn, {rounds} times 8 s", runs, best_of(runs))


def short(target: Target, rounds: int) -> None:
    """From the beginning, with the climb."""
    for seconds in (5, 12):
        runs = in_turn(target, (256, "auto"), seconds, rounds, 0)
        show(f"the first {seconds} s, {rounds} times", runs, 256)


def blind(target: Target, rounds: int) -> None:
    """Without the server's metrics, which takes longer to find the width."""
    runs: dict[Width, list[Measured]] = {256: [], "auto without metrics": []}
    for _ in range(rounds):
        runs[256].append(measure(target, 256, 8, 4))
        runs["auto without metrics"].append(measure(target, "auto without metrics", 15, 30))
    show(f"without metrics, after 30 s, {rounds} times", runs, 256)


def clients(target: Target, rounds: int, count: int = 900, width: int = 256) -> None:
    """The best that others reach."""
    import openai

    async def with_openai(inputs: list[dict[str, Any]]) -> None:
        async with openai.AsyncOpenAI(base_url=target.base_url, api_key="EMPTY", max_retries=0) as client:
            gate = asyncio.Semaphore(width)

            async def one(given: dict[str, Any]) -> None:
                async with gate:
                    reply = await client.chat.completions.create(
                        model=target.model, extra_body={"ignore_eos": True}, **given
                    )
                    assert reply.usage

            await asyncio.gather(*[one(each) for each in inputs])

    async def with_achat(inputs: list[dict[str, Any]]) -> None:
        async with VLLMProvider(target.model, base_url=target.base_url) as llm:
            gate = asyncio.Semaphore(width)

            async def one(given: dict[str, Any]) -> None:
                async with gate:
                    await llm.achat(**given, ignore_eos=True)

            await asyncio.gather(*[one(each) for each in inputs])

    def with_map(inputs: list[dict[str, Any]], in_flight: int | Literal["auto"]) -> None:
        for result in target.llm.map(inputs, ignore_eos=True, in_flight=in_flight):
            assert result.ok, result.error

    ways: dict[str, Callable[[list[dict[str, Any]]], object]] = {
        f"openai, semaphore of {width}": lambda inputs: asyncio.run(with_openai(inputs)),
        f"achat, semaphore of {width}": lambda inputs: asyncio.run(with_achat(inputs)),
        f"map, in_flight={width}": lambda inputs: with_map(inputs, width),
        'map, in_flight="auto"': lambda inputs: with_map(inputs, "auto"),
    }
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, way in ways.items():
            inputs = list(itertools.islice(prompts(f"{name} {turn}"), count))
            end = counting(target)
            way(inputs)
            runs[name].append(end())
    show(f"{count} prompts, {rounds} times", runs, max(runs, key=lambda name: _median(runs[name], "rate")))


def prefix(target: Target, rounds: int) -> None:
    """A mixed file: questions about documents, in random order, more than the cache holds."""
    choice = random.Random(7)
    documents = ["".join(choice.choices(string.ascii_lowercase + "     ", k=1200)) for _ in range(DOCUMENTS)]
    print(f"\n{QUESTIONS} questions about {DOCUMENTS} documents, in random order")
    print("| order | hit rate | seconds |")
    print("|---|---|---|")
    for order in ("given", "prefix"):
        # Other documents for each, so that neither finds the other's in the cache.
        inputs = [f"{order} {choice.choice(documents)} Question {number}?" for number in range(QUESTIONS)]
        before = target.llm.metrics()
        begin = time.perf_counter()
        if order == "given":
            results = target.llm.map(inputs, max_tokens=2, in_flight=8)
        else:
            results = target.llm.map(inputs, max_tokens=2, in_flight=8, order="prefix")
        for result in results:
            assert result.ok, result.error
        seconds = time.perf_counter() - begin
        after = target.llm.metrics()
        queries = (after.prefix_cache_queries or 0) - (before.prefix_cache_queries or 0)
        hits = (after.prefix_cache_hits or 0) - (before.prefix_cache_hits or 0)
        print(f"| {order} | {hits / queries:.3f} | {seconds:.1f} |", flush=True)


DOCUMENTS = 300
QUESTIONS = 1200

PARTS: dict[str, tuple[Callable[[Target, int], None], tuple[str, ...]]] = {
    # A cache that holds a fraction of the documents, as that of a real model does.
    "prefix": (prefix, ("--block-size", "32", "--num-gpu-blocks-override", "1250")),
    "sweep": (sweep, ()),
    "short": (short, ()),
    "blind": (blind, ()),
    "clients": (clients, ()),
    # One that holds some 60 requests.
    "cache": (sweep, ("--block-size", "32", "--num-gpu-blocks-override", "200")),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--server", nargs=2, metavar=("BASE_URL", "MODEL"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        part, extra_args = PARTS[name]
        if arguments.server is not None:
            run(part, arguments.rounds, *arguments.server)
            continue
        sys.path.insert(0, str(ROOT / "scripts"))
        from vllm_server import Options, running

        with running(Options(name=f"bench-jobs-{name}", extra_args=extra_args)) as server:
            run(part, arguments.rounds, server.base_url, server.model, engine_of(server.pid))


def engine_of(group: int) -> int | None:
    """The process of a server's engine, where the system says."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            _, rest = status.read_text().rsplit(")", 1)
            if int(rest.split()[2]) == group and "EngineCore" in (status.parent / "cmdline").read_text():
                return int(status.parent.name)
    return None


def run(
    part: Callable[[Target, int], None], rounds: int, base_url: str, model: str, engine: int | None = None
) -> None:
    with VLLMProvider(model, base_url=base_url) as llm:
        list(llm.map(["warm up"] * 128, max_tokens=TOKENS, ignore_eos=True, in_flight=64))
        part(Target(llm, base_url, model, engine), rounds)


if __name__ == "__main__":
    main()
