"""Generate a dataset overnight: several conversations to train on for each topic.

Each line reaches the disk within a second. If the machine or the server restarts,
start the program again: it generates what is missing.
"""

import json
from pathlib import Path

from vllmchat import VLLMProvider, read_results, run_job

TOPICS = ["the moon", "bread", "chess"]
SAMPLES = 3

SYSTEM = "You explain things to children."
PROMPTS = Path("prompts.jsonl")
SAMPLED = Path("sampled.jsonl")
DATASET = Path("dataset.jsonl")


def write_prompts() -> None:
    """Writes the inputs, the same ones each time."""
    with PROMPTS.open("w", encoding="utf-8") as file:
        for topic in TOPICS:
            for sample in range(SAMPLES):
                row = {
                    "id": f"{topic} {sample}",
                    "prompt": f"Tell me about {topic}.",
                    # Parameters of this row; those of run_job are for all.
                    "seed": sample,
                }
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    write_prompts()
    llm = VLLMProvider()
    summary = run_job(
        llm,
        PROMPTS,
        SAMPLED,
        system=SYSTEM,
        temperature=0.8,
        max_tokens=200,
        order="prefix",
        retry_failed=True,  # what failed when it ran before
        wait=3600,  # for a server that restarts, in seconds
    )
    print(f"{summary.done} generated, {summary.skipped} there before")
    #> 9 generated, 0 there before
    seen: set[str] = set()
    with DATASET.open("w", encoding="utf-8") as file:
        for result in read_results(SAMPLED, input=PROMPTS):
            if not result.ok or result.completion.finish_reason != "stop":
                continue  # it failed, or max_tokens cut it off
            if result.text in seen:
                continue
            seen.add(result.text)
            conversation = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": result.input["prompt"]},
                {"role": "assistant", "content": result.text},
            ]
            file.write(json.dumps({"messages": conversation}) + "\n")
    print(f"{len(seen)} different conversations")
    #> … different conversations
