"""The dialogues that the tiny model has memorized, with their replies, from `dialogues.json`.

That file is the one source: the model is trained on it, and tests and demo compare with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIALOGUES_FILE = Path(__file__).with_name("dialogues.json")

Message = dict[str, Any]
Tool = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KnownCall:
    """A tool call that the model answers with."""

    name: str
    arguments: dict[str, Any]

    @property
    def arguments_json(self) -> str:
        """The arguments as the model writes them."""
        return json.dumps(self.arguments)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation up to the model's turn, and what the model then says at temperature 0."""

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    """Empty: the request must have no tools."""
    reasoning: str
    """What it thinks first, where thinking is on."""
    answer: str
    """Empty where it answers with tool calls."""
    tool_calls: tuple[KnownCall, ...]

    @property
    def written(self) -> str:
        """The answer as the model writes it, before a server takes tool calls out of it."""
        blocks = [
            f'<tool_call>\n{{"name": "{call.name}", "arguments": {call.arguments_json}}}\n</tool_call>'
            for call in self.tool_calls
        ]
        return "\n".join(blocks) or self.answer

    def content(self, *, thinking: bool) -> str | None:
        """The `content` of the server's reply: its parsers leave the blank line after the thoughts in it."""
        if self.tool_calls:
            return None
        return f"\n\n{self.answer}" if thinking else self.answer

    def thoughts(self, *, thinking: bool) -> str | None:
        """The `reasoning` of the server's reply."""
        return f"\n{self.reasoning}\n" if thinking else None

    def with_system(self, prompt: str | None) -> list[Message]:
        """The messages after a system prompt, or without one."""
        system: list[Message] = [] if prompt is None else [{"role": "system", "content": prompt}]
        return [*system, *self.messages]


@dataclass(frozen=True, slots=True)
class Script:
    """All that the model knows: every dialogue under every system prompt, with and without thinking."""

    system_prompts: tuple[str | None, ...]
    """None, a request without one, is the first."""
    dialogues: tuple[Dialogue, ...]

    def __getitem__(self, name: str) -> Dialogue:
        """The dialogue of that name."""
        for dialogue in self.dialogues:
            if dialogue.name == name:
                return dialogue
        raise KeyError(name)


def load(path: Path = DIALOGUES_FILE) -> Script:
    """Read the dialogues."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    tools: dict[str, Tool] = data["tools"]
    return Script(
        system_prompts=(None, *data["system_prompts"]),
        dialogues=tuple(
            Dialogue(
                name=entry["name"],
                messages=tuple(entry["messages"]),
                tools=tuple(tools[name] for name in entry.get("tools", ())),
                reasoning=entry["reasoning"],
                answer=entry.get("answer", ""),
                tool_calls=tuple(KnownCall(**call) for call in entry.get("tool_calls", ())),
            )
            for entry in data["dialogues"]
        ),
    )
