"""Chunks of completions added up, whatever their choices are made of.

The cost of a chunk does not depend on how many came before it, and no chunk is kept.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any, cast

from vllmchat.chat.completion import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from vllmchat.wire import JsonObject


class Pieces:
    """Adds up the chunks of an answer that consists of choices.

    Of a choice, the fields that are named as such grow; of others the last value that is not null stands.

    Args:
        expected: How many choices were asked for: `finished` waits for so many.
        share: How many of them share a prompt (`n`).
        growing: The choices' fields that come in pieces: texts, lists, or objects of lists.
        head: The fields of a chunk beside its choices that belong to the whole answer.
    """

    def __init__(self, *, expected: int, share: int, growing: frozenset[str], head: frozenset[str]) -> None:
        self._expected = expected
        self._share = share
        self._growing = growing
        self._head = head
        self._choices: dict[int, JsonObject] = {}
        self._usages: dict[int, Usage] = {}
        self._fields: JsonObject = {}

    def add(self, chunk: BaseModel, choices: Sequence[BaseModel], usage: Usage | None) -> None:
        """Add the next chunk.

        Args:
            chunk: The chunk.
            choices: Its choices.
            usage: Its usage.
        """
        for piece in choices:
            fields = vars(piece)
            index: int = fields["index"]
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = {}
            for name, value in fields.items():
                if value is None:
                    continue
                if name in self._growing:
                    choice[name] = _joined(choice.get(name), value)
                else:
                    choice[name] = value
            if piece.model_extra:
                choice.update(_told(piece.model_extra))
        if usage is not None:
            # Beside one choice it is that choice's so far; beside none it is that of all of them.
            if len(choices) == 1:
                self._usages[vars(choices[0])["index"]] = usage
            else:
                self._fields["usage"] = usage
        told = vars(chunk)
        for name in self._head:
            value = told[name]
            # Some servers begin with a chunk of their own that has no id yet.
            if value is not None and (value or name not in self._fields):
                self._fields[name] = value
        if chunk.model_extra:
            self._fields.update(_told(chunk.model_extra))

    @property
    def finished(self) -> bool:
        """Whether every choice that was seen, and at least as many as expected, told why it ended."""
        ended = sum(bool(choice.get("finish_reason")) for choice in self._choices.values())
        return ended >= self._expected and ended == len(self._choices)

    def whole(self) -> JsonObject:
        """The answer so far, as its model takes it. It shares nothing with what comes later."""
        choices: list[JsonObject] = [
            {name: _value(value) for name, value in self._choices[index].items()}
            for index in sorted(self._choices)
        ]
        return {"usage": self._summed_usage(), **self._fields, "choices": choices}

    def _summed_usage(self) -> Usage | None:
        if not self._usages:
            return None
        # The sum did not come (the stream broke off): each choice has counted its prompt, and its own tokens.
        prompts: dict[int, int] = {}
        for index, usage in self._usages.items():
            prompt = index // self._share
            prompts[prompt] = max(prompts.get(prompt, 0), usage.prompt_tokens)
        prompt_tokens = sum(prompts.values())
        completion_tokens = sum(usage.completion_tokens for usage in self._usages.values())
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )


def _told(extra: JsonObject) -> JsonObject:
    return {name: value for name, value in extra.items() if value is not None}


def _joined(so_far: object, piece: object) -> object:
    """A growing value with its next piece: a text in a `StringIO`, a list, or a dict of lists."""
    if isinstance(piece, str):
        text = so_far if isinstance(so_far, StringIO) else StringIO()
        text.write(piece)
        return text
    if isinstance(piece, list):
        items = cast("list[object]", so_far) if isinstance(so_far, list) else []
        items += cast("list[object]", piece)
        return items
    parts = cast("dict[str, object]", so_far) if isinstance(so_far, dict) else {}
    for name, value in vars(piece).items():
        if value is not None:
            parts[name] = _joined(parts.get(name), value)
    return parts


def _value(value: object) -> Any:
    """What was joined, apart from what will still be joined to it."""
    if isinstance(value, StringIO):
        return value.getvalue()
    if isinstance(value, list):
        return list(cast("list[object]", value))
    if isinstance(value, dict):
        return {name: _value(each) for name, each in cast("dict[str, object]", value).items()}
    return value
