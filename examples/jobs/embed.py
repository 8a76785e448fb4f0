"""Embed the lines of a file, and find the ones that are closest to a text."""

from collections.abc import Iterable
from pathlib import Path

from vllmchat import Embeddings, VLLMProvider, read_results, run_job

TEXTS = Path("texts.txt")
VECTORS = Path("vectors.jsonl")

SAMPLE = """\
A recipe for bread
How to win at chess
Why the moon has phases
"""


def similarity(one: Iterable[float], other: Iterable[float]) -> float:
    """The cosine of the angle between two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    if not TEXTS.exists():
        TEXTS.write_text(SAMPLE, encoding="utf-8")
    llm = VLLMProvider()
    run_job(llm, TEXTS, VECTORS, url="/v1/embeddings")
    query = llm.embed("How to win at chess").vector
    found: list[tuple[float, object]] = []
    for result in read_results(VECTORS, Embeddings, input=TEXTS):
        if result.ok:
            vector = result.value.vector
            found.append((similarity(query, vector), result.input["text"]))
    for score, text in sorted(found, reverse=True)[:1]:
        print(f"{score:.2f} {text}")
        #> 1.00 How to win at chess
