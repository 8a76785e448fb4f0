"""Collect rollouts for reinforcement learning, with token ids and log probabilities."""

import asyncio
import re
from dataclasses import dataclass

from vllmchat import VLLMProvider

SAMPLES = 4
"""Per prompt: one group for GRPO and its relatives."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sample, ready for a trainer: nothing in it has to be tokenized again."""

    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    """Of each token in `token_ids`, under the policy that sampled it."""
    text: str
    truncated: bool
    reward: float


def reward(text: str, expected: int) -> float:
    numbers = re.findall(r"-?\d+", text)
    return 1.0 if numbers and int(numbers[-1]) == expected else 0.0


async def sample(llm: VLLMProvider, prompt: str, expected: int) -> list[Rollout]:
    reply = await llm.achat(
        prompt,
        n=SAMPLES,
        temperature=1.0,
        max_tokens=512,
        logprobs=True,
        return_token_ids=True,
    )
    rollouts: list[Rollout] = []
    for choice in reply.choices:
        text = choice.message.content or ""
        assert reply.prompt_token_ids is not None
        assert choice.token_ids is not None
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        rollouts.append(
            Rollout(
                prompt_ids=reply.prompt_token_ids,
                token_ids=choice.token_ids,
                logprobs=[token.logprob for token in choice.logprobs.content],
                text=text,
                truncated=choice.finish_reason == "length",
                reward=reward(text, expected),
            )
        )
    return rollouts


async def main() -> None:
    tasks = {"What is 17 times 3?": 51}
    async with VLLMProvider() as llm:
        groups = await asyncio.gather(
            *(sample(llm, prompt, answer) for prompt, answer in tasks.items())
        )
    for group in groups:
        rewards = [rollout.reward for rollout in group]
        print(f"{len(group)} samples, mean reward {sum(rewards) / len(group)}")
        #> 4 samples, mean reward 1.0
        print(all(len(rollout.token_ids) == len(rollout.logprobs) for rollout in group))
        #> True


asyncio.run(main())
