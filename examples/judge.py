"""Let a model judge answers, and read how sure it is from log probabilities."""

import math

from vllmchat import VLLMProvider

PROMPT = """\
Question: {question}
Answer: {answer}
Is the answer correct? Reply yes or no."""


def probability_of_yes(llm: VLLMProvider, question: str, answer: str) -> float:
    """How sure the model is that the answer is correct, from 0 to 1."""
    reply = llm.chat(
        PROMPT.format(question=question, answer=answer),
        structured_outputs={"choice": ["yes", "no"]},
        logprobs=True,
        top_logprobs=5,
        enable_thinking=False,
        max_tokens=1,
        temperature=0,
    )
    # The words differ in their first letter, so the first token decides. A tokenizer
    # may have several tokens that begin with it: "y", "yes".
    weights = {"y": 0.0, "n": 0.0}
    for token in reply.logprobs[0].top_logprobs:
        if (letter := token.token.strip()[:1].lower()) in weights:
            weights[letter] += math.exp(token.logprob)
    return weights["y"] / (weights["y"] + weights["n"])


if __name__ == "__main__":
    llm = VLLMProvider()
    for answer in ("Paris", "Oslo"):
        score = probability_of_yes(llm, "What is the capital of France?", answer)
        print(f"{answer}: {score:.2f}")
    #> Paris: 0.…
    #> Oslo: 0.…
