"""Jobs on a real vLLM server: the widths of a sweep against `in_flight="auto"`, and the order by prefix.

`python -m benchmarks.jobs [BASE_URL MODEL]` starts the small server of `scripts/vllm_server.py` unless one is given,
and prints what the page Many prompts has.
"""

from __future__ import annotations

import random
import string
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from vllmchat import VLLMProvider

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = 2000
TOKENS = 16
WIDTHS: tuple[int | Literal["auto"], ...] = (1, 8, 32, 64, 128, 256, 512, "auto")


class Watch(threading.Thread):
    """Looks at the server's queue twice a second."""

    def __init__(self, llm: VLLMProvider) -> None:
        super().__init__(daemon=True)
        self._llm = llm
        self._ended = threading.Event()
        self.most_waiting: list[int] = []

    def run(self) -> None:
        while not self._ended.wait(0.5):
            self.most_waiting.append(self._llm.metrics().requests_waiting or 0)

    def end(self) -> int:
        self._ended.set()
        self.join()
        return max(self.most_waiting, default=0)


def sweep(llm: VLLMProvider) -> None:
    print(f"{PROMPTS} prompts of {TOKENS} tokens each")
    print("| in flight | prompts per second | most waiting | preemptions | width at the end |")
    print("|---|---|---|---|---|")
    list(llm.map(["warm up"] * 64, max_tokens=TOKENS, ignore_eos=True, in_flight=64))
    for width in WIDTHS:
        count = PROMPTS if width == "auto" or width >= 64 else PROMPTS // 8
        before = llm.metrics().preemptions or 0
        watch = Watch(llm)
        watch.start()
        begin = time.perf_counter()
        results = llm.map(
            [f"Question {number} of {width}?" for number in range(count)],
            max_tokens=TOKENS,
            ignore_eos=True,
            in_flight=width,
        )
        assert all(result.ok for result in results)
        rate = count / (time.perf_counter() - begin)
        after = llm.metrics().preemptions or 0
        waiting = watch.end()
        print(
            f"| {width} | {rate:.0f} | {waiting} | {after - before} | {results.progress.width} |", flush=True
        )


def prefixes(llm: VLLMProvider) -> None:
    """A mixed file: questions about documents, in random order, more than the cache holds."""
    choice = random.Random(7)
    documents = ["".join(choice.choices(string.ascii_lowercase + "     ", k=1200)) for _ in range(DOCUMENTS)]
    print(f"{QUESTIONS} questions about {DOCUMENTS} documents, in random order")
    print("| order | hit rate | seconds |")
    print("|---|---|---|")
    for order in ("given", "prefix"):
        # Other documents for each, so that neither finds the other's in the cache.
        inputs = [f"{order} {choice.choice(documents)} Question {number}?" for number in range(QUESTIONS)]
        before = llm.metrics()
        begin = time.perf_counter()
        if order == "given":
            results = llm.map(inputs, max_tokens=2, in_flight=8)
        else:
            results = llm.map(inputs, max_tokens=2, in_flight=8, order="prefix")
        for result in results:
            assert result.ok, result.error
        seconds = time.perf_counter() - begin
        after = llm.metrics()
        queries = (after.prefix_cache_queries or 0) - (before.prefix_cache_queries or 0)
        hits = (after.prefix_cache_hits or 0) - (before.prefix_cache_hits or 0)
        print(f"| {order} | {hits / queries:.3f} | {seconds:.1f} |", flush=True)


DOCUMENTS = 300
QUESTIONS = 1200


def main() -> None:
    if len(sys.argv) == 3:
        run(sys.argv[1], sys.argv[2])
        return
    sys.path.insert(0, str(ROOT / "scripts"))
    from vllm_server import Options, running

    # A cache that holds a fraction of the documents, as that of a real model does.
    small = Options(
        name="bench-jobs-small", extra_args=("--block-size", "32", "--num-gpu-blocks-override", "1250")
    )
    for part, options in ((prefixes, small), (sweep, Options(name="bench-jobs"))):
        with running(options) as server, VLLMProvider(server.model, base_url=f"{server.url}/v1") as llm:
            part(llm)


def run(base_url: str, model: str) -> None:
    with VLLMProvider(model, base_url=base_url) as llm:
        prefixes(llm)
        sweep(llm)


if __name__ == "__main__":
    main()
