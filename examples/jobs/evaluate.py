"""Ask a model the questions of a file, and count how many it gets right.

Stop it when you like: started again, it goes on where it was.
"""

import json
from pathlib import Path

from vllmchat import VLLMProvider, read_results, run_job

QUESTIONS = Path("questions.jsonl")
ANSWERS = Path("answers.jsonl")

SAMPLE = [
    {"id": "france", "question": "What is the capital of France?", "answer": "Paris"},
    {"id": "product", "question": "What is 17 times 3?", "answer": "51"},
    {"id": "hello", "question": "Hello", "answer": "42"},
]


def is_right(reply: str, answer: str) -> bool:
    return answer.lower() in reply.lower()


if __name__ == "__main__":
    if not QUESTIONS.exists():
        lines = [json.dumps(row) + "\n" for row in SAMPLE]
        QUESTIONS.write_text("".join(lines), encoding="utf-8")
    llm = VLLMProvider()
    run_job(
        llm, QUESTIONS, ANSWERS, prompt="{question}", temperature=0, max_tokens=200
    )
    right = failed = total = 0
    for result in read_results(ANSWERS, input=QUESTIONS):
        total += 1
        if not result.ok:
            failed += 1
        elif is_right(result.text, str(result.input["answer"])):
            right += 1
        else:
            print(f"{result.id}: expected {result.input['answer']}, got {result.text}")
            #> hello: expected 42, got Hello! How can I help you today?
    print(f"{right} of {total} right ({right / total:.0%}), {failed} failed")
    #> 2 of 3 right (67%), 0 failed
