"""Label the rows of a CSV file, and write a CSV file with the labels."""

import csv
from pathlib import Path
from typing import Literal

from vllmchat import VLLMProvider, read_results, run_job

REVIEWS = Path("reviews.csv")
RESULTS = Path("labels.jsonl")
LABELLED = Path("labelled.csv")

Sentiment = Literal["positive", "negative", "neutral"]

PROMPT = """\
Review of {product}: {review}
Is it positive, negative or neutral?"""

SAMPLE = """\
id,product,review
r1,lamp,"Bright, cheap, lovely."
r2,chair,"It broke on the first day, and
nobody answered my letters."
"""

if __name__ == "__main__":
    if not REVIEWS.exists():
        REVIEWS.write_text(SAMPLE, encoding="utf-8")
    llm = VLLMProvider()
    # Replies are one of the labels: the server generates nothing else.
    summary = run_job(
        llm,
        REVIEWS,
        RESULTS,
        prompt=PROMPT,
        kind=Sentiment,
        temperature=0,
        enable_thinking=False,
    )
    if summary.failed:
        print(f"{summary}; run again with retry_failed=True")
    with LABELLED.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "review"])
        for result in read_results(RESULTS, Sentiment, input=REVIEWS):
            label = result.value if result.ok else ""
            writer.writerow([result.id, label, result.input["review"]])
            print(result.id, label in ("positive", "negative", "neutral"))
            #> r1 True
            #> r2 True
