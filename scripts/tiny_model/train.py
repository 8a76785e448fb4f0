"""Train the tiny model: a Qwen3 of 2.6 million parameters that memorizes `dialogues.json`.

A real vLLM serves it on two CPU cores, and every answer is known in advance. Run it in the folder `scripts`,
with the interpreter of the server's environment, which has torch and transformers:

    "$(python vllm_server.py install)" -m tiny_model.train OUT_FOLDER

It ends with how many answers came back exactly, decoded greedily, and exits with 1 unless all did.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tiny_model.dialogues import Script, load

SEED = 0
VOCABULARY = 700
CONTEXT = 4096
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
"""One token each, but plain text to the tokenizer: a server's parsers look for them in the decoded text."""

LONG = 180
"""Tokens from which a sequence counts as long: these train in small batches, so that padding stays cheap."""
SHORT_BATCH, LONG_BATCH, LONG_EVERY = 12, 4, 3

IGNORED = -100
"""The label of a token that the loss skips: the model learns to answer, not to ask."""


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and its answer, as tokens."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def make_tokenizer(script: Script) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the script's own text: any text can be written, the script's is short."""
    corpus: list[str] = []
    for dialogue in script.dialogues:
        corpus += [message.get("content") or "" for message in dialogue.messages]
        corpus += [dialogue.reasoning, dialogue.written]
    corpus += ["You are a helpful assistant.", "system user assistant tool", "Tools:\nget_weather"] * 3

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=TURN_END, pad_token=END_OF_TEXT, model_max_length=CONTEXT
    )
    wrapped.chat_template = Path(__file__).with_name("template.jinja").read_text(encoding="utf-8")
    return wrapped


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained model; its vocabulary is rounded up to whole blocks of 64."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=(len(tokenizer) + 63) // 64 * 64,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            rope_theta=10000.0,
            eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
            pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
            bos_token_id=None,
        )
    )


def make_examples(script: Script, tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Every dialogue under every system prompt, with and without thinking."""
    examples: list[Example] = []
    for dialogue in script.dialogues:
        for system in script.system_prompts:
            for thinking in (True, False):
                prompt = tokenizer.apply_chat_template(
                    dialogue.with_system(system),
                    tools=list(dialogue.tools) or None,
                    add_generation_prompt=True,
                    enable_thinking=thinking,
                    tokenize=False,
                )
                thought = f"<think>\n{dialogue.reasoning}\n</think>\n\n" if thinking else ""
                answer = thought + dialogue.written + TURN_END
                examples.append(
                    Example(
                        tokenizer(prompt, add_special_tokens=False).input_ids,
                        tokenizer(answer, add_special_tokens=False).input_ids,
                    )
                )
    return examples


def loss_of(model: Qwen3ForCausalLM, batch: list[Example]) -> torch.Tensor:
    """How badly the model predicts the answers of a batch."""
    shape = len(batch), max(len(example) for example in batch)
    tokens = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, example in enumerate(batch):
        end = len(example)
        tokens[row, :end] = torch.tensor(example.prompt + example.answer)
        labels[row, len(example.prompt) : end] = torch.tensor(example.answer)
        mask[row, :end] = 1
    loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
    assert isinstance(loss, torch.Tensor)
    return loss


def train(model: Qwen3ForCausalLM, examples: list[Example], steps: int) -> None:
    """Fit the model to the examples."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    short = [example for example in examples if len(example) < LONG]
    long = [example for example in examples if len(example) >= LONG]
    begun = time.monotonic()
    model.train()
    for step in range(steps):
        batch = (
            random.sample(long, LONG_BATCH) if step % LONG_EVERY == 0 else random.sample(short, SHORT_BATCH)
        )
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.4f} after {time.monotonic() - begun:.0f} s", flush=True)


def count_known(model: Qwen3ForCausalLM, examples: list[Example]) -> int:
    """How many answers the model gives exactly, decoded greedily."""
    known = 0
    for example in examples:
        generated = model.generate(
            torch.tensor([example.prompt]), max_new_tokens=len(example.answer) + 5, do_sample=False
        )
        known += generated[0][len(example.prompt) :].tolist() == example.answer
    return known


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write what a server loads."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # The library would add sampling defaults of its own, which a server then takes for the model's wish.
    generation = {"eos_token_id": model.config.eos_token_id, "pad_token_id": model.config.pad_token_id}
    (folder / "generation_config.json").write_text(json.dumps(generation) + "\n", encoding="utf-8")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the tiny model.")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    random.seed(SEED)
    torch.manual_seed(SEED)
    torch.set_num_threads(2)  # the sums, and so the weights, depend on it

    script = load()
    tokenizer = make_tokenizer(script)
    model = make_model(tokenizer)
    examples = make_examples(script, tokenizer)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size} parameters, {len(tokenizer)} tokens, {len(examples)} examples", flush=True)
    train(model, examples, arguments.steps)
    half = model.to(torch.bfloat16).eval()  # saved, and therefore tried, at half the size
    save(half, tokenizer, arguments.out)
    known = count_known(half, examples)
    print(f"{known} of {len(examples)} answers came back exactly")
    return 0 if known == len(examples) else 1


if __name__ == "__main__":
    sys.exit(main())
