"""Accumulates chunks of choices, for completions and `generate`.

The cost of a chunk does not depend on the number of chunks before it, and no chunk is kept.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from vllmchat.sampling.whole import shortfall
from vllmchat.wire.decode import build, with_record
from vllmchat.wire.usage import CompletionTokensDetails, Usage, truncates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from vllmchat.http.call import ResponseHead
    from vllmchat.wire.decode import JsonObject, Received

M = TypeVar("M", bound="Received")


class Chunk(Protocol):
    """A chunk of a response with choices."""

    @property
    def choices(self) -> Sequence[BaseModel]:
        """What it adds to each choice."""
        ...

    @property
    def usage(self) -> Usage | None:
        """Its usage."""
        ...

    @property
    def model_extra(self) -> JsonObject | None:
        """Its unknown fields."""
        ...


class ChoiceAccumulator(Generic[M]):
    """Accumulates the chunks of a response with choices.

    The growing fields of a choice are concatenated; for other fields, the last value that is not null is kept.

    Args:
        model: What the chunks add up to.
        expected: How many choices were requested; `finished` waits for that many.
        share: How many choices there are per prompt (`n`).
        growing: The fields of a choice that come in pieces: strings, lists, or objects of lists.
        head: The fields of a chunk, other than its choices, that belong to the response.
    """

    def __init__(
        self, model: type[M], *, expected: int, share: int, growing: frozenset[str], head: frozenset[str]
    ) -> None:
        self._model = model
        self._expected = expected
        self._share = share
        self._growing = growing
        self._head = head
        self._choices: dict[int, JsonObject] = {}
        self._usages: dict[int, Usage] = {}
        self._fields: JsonObject = {}

    def add(self, chunk: Chunk) -> None:
        """Adds the next chunk."""
        choices, usage = chunk.choices, chunk.usage
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
                elif name != "finish_reason":
                    choice[name] = value
                elif not (value == "stop" and truncates(cast("str | None", choice.get(name)))):
                    # Some servers end each stream with a stop.
                    choice[name] = value
            if piece.model_extra:
                choice.update(_not_null(piece.model_extra))
        if usage is not None and usage.model_fields_set:
            # With one choice, it is the usage so far of that choice; with none, that of all choices.
            if len(choices) == 1:
                self._usages[vars(choices[0])["index"]] = usage
            else:
                self._fields["usage"] = usage
        received = vars(chunk)
        for name in self._head:
            value = received[name]
            # Some servers begin with a chunk that has no id yet.
            if value is not None and (value or name not in self._fields):
                self._fields[name] = value
        if chunk.model_extra:
            self._fields.update(_not_null(chunk.model_extra))

    @property
    def finished(self) -> bool:
        """Whether all choices so far have a finish reason, and there are as many as expected."""
        return self.shortfall() is None

    def shortfall(self) -> str | None:
        """What the reply lacks although the server has marked the end of the stream; None if it is complete."""
        choices = self._choices.items()
        return shortfall(
            ((index, bool(choice.get("finish_reason"))) for index, choice in choices), self._expected
        )

    def reply(self, *, head: ResponseHead | None, ended: bool) -> M:
        """Returns the response so far, even if it is empty. Later chunks do not change it."""
        choices: list[JsonObject] = [
            {name: _value(value) for name, value in self._choices[index].items()}
            for index in sorted(self._choices)
        ]
        reply = build(
            self._model,
            {"usage": summed_usage(self._usages, self._share), **self._fields, "choices": choices},
        )
        return with_record(reply, head)


def summed_usage(usages: Mapping[int, Usage], share: int) -> Usage | None:
    """Returns the usage of a stream that broke off before the total: each choice has counted its prompt and its tokens.

    Args:
        usages: The usage of each choice, by index.
        share: How many choices there are per prompt.
    """
    if len(usages) <= 1:
        return next(iter(usages.values()), None)
    prompts: dict[int, int] = {}
    for index, usage in usages.items():
        prompt = index // share
        prompts[prompt] = max(prompts.get(prompt, 0), usage.prompt_tokens)
    total = max(usages.values(), key=lambda each: each.prompt_tokens).model_copy()
    total.prompt_tokens = sum(prompts.values())
    total.completion_tokens = sum(usage.completion_tokens for usage in usages.values())
    total.total_tokens = total.prompt_tokens + total.completion_tokens
    details = [usage.completion_tokens_details for usage in usages.values()]
    counts = [each.reasoning_tokens for each in details if each is not None]
    if any(count is not None for count in counts):
        reasoning = sum(count or 0 for count in counts)
        total.completion_tokens_details = CompletionTokensDetails(reasoning_tokens=reasoning)
    return total


def _not_null(extra: JsonObject) -> JsonObject:
    return {name: value for name, value in extra.items() if value is not None}


def _joined(so_far: object, piece: object) -> object:
    """Adds a piece to a growing value: a string in a `StringIO`, a list, or a dict of lists."""
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
    """Returns a copy of a growing value, as a plain value."""
    if isinstance(value, StringIO):
        return value.getvalue()
    if isinstance(value, list):
        return list(cast("list[object]", value))
    if isinstance(value, dict):
        return {name: _value(each) for name, each in cast("dict[str, object]", value).items()}
    return value
