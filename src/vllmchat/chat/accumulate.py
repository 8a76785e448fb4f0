"""Accumulates the chunks of a stream into the whole reply.

The cost of a chunk does not depend on the number of chunks before it, and no chunk is kept: text goes into growing
buffers, tool calls into one entry per call.
"""

from __future__ import annotations

import copy
from io import StringIO
from typing import TYPE_CHECKING, cast

from vllmchat.chat.chunk import Delta
from vllmchat.chat.completion import ChatCompletion, lacks_calls, mark_truncated, no_calls
from vllmchat.chat.tool_calls import PartialToolCalls
from vllmchat.sampling.accumulate import summed_usage
from vllmchat.sampling.whole import shortfall
from vllmchat.wire.decode import as_object, build, with_record
from vllmchat.wire.usage import final_reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllmchat.chat.chunk import ChatCompletionChunk, ChunkChoice
    from vllmchat.chat.completion import ChoiceLogprobs
    from vllmchat.chat.limits import CallLimits
    from vllmchat.chat.tool_calls import PartialToolCall
    from vllmchat.http.call import ResponseHead
    from vllmchat.wire.decode import JsonObject
    from vllmchat.wire.usage import TokenLogprob, Usage

_NAMES = frozenset({"id", "type", "name", "role", "index", "object", "format", "created", "expires_at"})
"""Keys in unknown delta fields whose values are replaced, not concatenated, if they are sent again."""

_NOISE = frozenset({"obfuscation"})
"""Unknown fields to ignore: padding that OpenAI adds to its chunks."""


class Accumulator:
    """Accumulates the chunks of one streamed reply.

    ::

        accumulator = Accumulator()
        for chunk in chunks:
            accumulator.add(chunk)
        reply = accumulator.reply()

    Args:
        expected: How many choices were requested (`n`); `finished` waits for that many.
        limits: What the request says about tool calls; None if unknown.
    """

    __slots__ = ("_choices", "_expected", "_extra", "_fields", "_finished", "_limits", "_usage")

    def __init__(self, *, expected: int = 1, limits: CallLimits | None = None) -> None:
        self._expected = expected
        self._limits = limits
        self._finished = 0
        self._choices: dict[int, _ChoiceAccumulator] = {}
        self._fields: JsonObject = {}
        self._extra: JsonObject = {}
        self._usage: Usage | None = None

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Adds the next chunk."""
        for piece in chunk.choices:
            choice = self._choices.get(piece.index)
            if choice is None:
                choice = self._choices[piece.index] = _ChoiceAccumulator(piece.index)
            if piece.__pydantic_extra__:
                choice.take_message(piece, piece.__pydantic_extra__)
            delta = piece.delta
            if delta.content:
                choice.write_text(delta.content)
            if delta.reasoning:
                choice.write_reasoning(delta.reasoning)
            if delta.tool_calls:
                choice.calls.add(delta.tool_calls)
            if delta.role:
                choice.role = delta.role
            if delta.__pydantic_extra__:
                _join_fields(choice.message_extra, delta.__pydantic_extra__)
            if piece.token_ids is not None:
                choice.add_token_ids(piece.token_ids)
            if piece.logprobs is not None:
                choice.add_logprobs(piece.logprobs)
            if piece.stop_reason is not None:
                choice.stop_reason = piece.stop_reason
            if piece.finish_reason:
                self._finished += choice.finish_reason is None
                choice.finish_reason = final_reason(choice.finish_reason, piece.finish_reason)
                if len(choice.calls):
                    choice.calls.end(choice.finish_reason, self._limits)
                if piece.weight_versions is not None:
                    choice.extra["weight_versions"] = piece.weight_versions
            if piece.__pydantic_extra__:
                _replace_fields(choice.extra, piece.__pydantic_extra__)
        if chunk.usage is not None:
            self._add_usage(chunk, chunk.usage)
        fields = self._fields
        if "id" not in fields:
            self._begin(chunk)
        if chunk.system_fingerprint is not None:
            fields["system_fingerprint"] = chunk.system_fingerprint
        if chunk.service_tier is not None:
            fields["service_tier"] = chunk.service_tier
        if chunk.prompt_token_ids is not None:
            fields["prompt_token_ids"] = chunk.prompt_token_ids
        if chunk.prompt_text is not None:
            fields["prompt_text"] = chunk.prompt_text
        if chunk.kv_transfer_params is not None:
            fields["kv_transfer_params"] = chunk.kv_transfer_params
        if chunk.metrics is not None:
            fields["metrics"] = chunk.metrics
        if chunk.__pydantic_extra__:
            _replace_fields(self._extra, chunk.__pydantic_extra__)

    @property
    def finished(self) -> bool:
        """Whether all choices so far have a finish reason, and there are as many as expected."""
        if self._finished < self._expected or self._finished < len(self._choices):
            return False
        return self.shortfall() is None

    def shortfall(self) -> str | None:
        """What the reply lacks although the server has marked the end of the stream; None if it is complete.

        A choice without a finish reason is complete if it has tool calls whose arguments are all complete.
        """
        choices = self._choices.values()
        lacking = shortfall(((choice.index, choice.has_ended) for choice in choices), self._expected)
        for choice in choices:
            if lacking is None and lacks_calls(choice.finish_reason, choice.calls):
                lacking = no_calls(choice.index, choice.finish_reason)
        return lacking

    def reply(self, *, head: ResponseHead | None = None, ended: bool = False) -> ChatCompletion:
        """Returns the reply so far, in the form that the server would return without streaming.

        Can be called at any time; later chunks do not change the result. A choice that has not ended has no finish
        reason, and its tool calls are not `complete` unless they have ended and a later one has started.

        Args:
            head: The head of the response.
            ended: Whether the stream has ended properly, so that nothing will follow.
        """
        choices = [self._choices[index] for index in sorted(self._choices)]
        calls = [choice.calls.in_order() for choice in choices]
        known: JsonObject = {**self._fields, "usage": self._summed_usage()}
        completion = build(
            ChatCompletion,
            {
                **self._extra,
                **known,
                "choices": [choice.build(own) for choice, own in zip(choices, calls, strict=True)],
            },
        )
        for choice, own, built in zip(choices, calls, completion.choices, strict=True):
            if choice.finish_reason is not None or (ended and choice.has_ended):
                continue
            for call, tool_call in zip(own, built.message.tool_calls, strict=True):
                if choice.calls.may_grow(call):
                    mark_truncated(tool_call)
        if self._limits is not None:
            self._limits.mark(completion, {choice.index: choice.usage for choice in choices}, ended=ended)
        return with_record(completion, head)

    def _begin(self, chunk: ChatCompletionChunk) -> None:
        # Some servers begin with a chunk that has no id yet.
        if chunk.id:
            self._fields["id"] = chunk.id
        if chunk.created:
            self._fields["created"] = chunk.created
        if chunk.model:
            self._fields["model"] = chunk.model

    def _add_usage(self, chunk: ChatCompletionChunk, usage: Usage) -> None:
        # With one choice, it is the usage so far of that choice; with none or several, that of all choices.
        if not usage.model_fields_set:
            return
        if len(chunk.choices) == 1:
            self._choices[chunk.choices[0].index].usage = usage
            self._usage = None
        else:
            self._usage = usage

    def _summed_usage(self) -> Usage | None:
        if self._usage is not None:
            return self._usage
        usages = {choice.index: choice.usage for choice in self._choices.values() if choice.usage is not None}
        return summed_usage(usages, max(self._expected, len(self._choices)))


class _ChoiceAccumulator:
    """One choice so far."""

    __slots__ = (
        "_reasoning",
        "_text",
        "calls",
        "comes_as_messages",
        "extra",
        "finish_reason",
        "index",
        "logprobs",
        "message_extra",
        "role",
        "stop_reason",
        "token_ids",
        "usage",
        "write_reasoning",
        "write_text",
    )

    def __init__(self, index: int) -> None:
        # A StringIO grows in place, so it needs memory for the text only, not for thousands of small strings.
        self._text = StringIO()
        self._reasoning = StringIO()
        self.write_text = self._text.write
        self.write_reasoning = self._reasoning.write
        self.index = index
        self.comes_as_messages = False
        self.role = "assistant"
        self.calls = PartialToolCalls()
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.token_ids: list[int] | None = None
        self.logprobs: dict[str, list[TokenLogprob] | None] | None = None
        self.usage: Usage | None = None
        self.extra: JsonObject = {}
        self.message_extra: JsonObject = {}

    @property
    def has_content(self) -> bool:
        """Whether any text, reasoning or tool calls have arrived."""
        return bool(self._text.tell() or self._reasoning.tell() or len(self.calls))

    @property
    def has_ended(self) -> bool:
        """Whether the choice is complete if no more follows: it has a finish reason, or complete tool calls."""
        return self.finish_reason is not None or self.calls.are_whole

    def take_message(self, piece: ChunkChoice, extra: JsonObject) -> None:
        """Drops a whole message that only repeats what the deltas were, as some servers send at the end."""
        came_whole = "message" in extra or "text" in extra
        extra.pop("message", None)
        extra.pop("text", None)
        if not came_whole or not piece.delta.has_content:
            return
        if not self.has_content:
            self.comes_as_messages = True
        elif not self.comes_as_messages:
            message = piece.delta
            piece.delta = Delta(
                content=None if self._text.tell() else message.content,
                reasoning=None if self._reasoning.tell() else message.reasoning,
                tool_calls=None if len(self.calls) else message.tool_calls,
            )

    def add_token_ids(self, token_ids: list[int]) -> None:
        if self.token_ids is None:
            self.token_ids = list(token_ids)
        else:
            self.token_ids += token_ids

    def add_logprobs(self, piece: ChoiceLogprobs) -> None:
        if self.logprobs is None:
            self.logprobs = {"content": None, "refusal": None}
        for kind, tokens in (("content", piece.content), ("refusal", piece.refusal)):
            if tokens is not None:
                so_far = self.logprobs[kind]
                if so_far is None:
                    self.logprobs[kind] = list(tokens)
                else:
                    so_far += tokens

    def build(self, own_calls: Sequence[PartialToolCall]) -> JsonObject:
        """Returns the fields of the choice so far.

        Args:
            own_calls: Its calls, in order.
        """
        text = self._text.getvalue()
        reasoning = self._reasoning.getvalue() or None
        calls = [call.fields() for call in own_calls]
        if calls and not text.strip():
            # White space between the reasoning and the calls. vLLM drops it without streaming; if kept, it would
            # appear in the prompt of the next turn, where the model does not expect it.
            text = ""
        # Without streaming, the content of a message with only reasoning or tool calls is null.
        alone = not reasoning and not calls and not self.message_extra
        return {
            **self.extra,
            "index": self.index,
            "message": {
                **{name: _joined(value) for name, value in self.message_extra.items()},
                "role": self.role,
                "content": text or ("" if alone else None),
                "reasoning": reasoning,
                "tool_calls": calls,
            },
            "logprobs": self.logprobs,
            "finish_reason": self.finish_reason,
            "stop_reason": self.stop_reason,
            "token_ids": self.token_ids,
        }


def _replace_fields(so_far: JsonObject, fields: Mapping[str, object]) -> None:
    """Adds unknown fields of a chunk or a choice: the last value that is not null is kept."""
    so_far.update({name: value for name, value in fields.items() if value is not None and name not in _NOISE})


def _join_fields(so_far: JsonObject, fields: Mapping[str, object]) -> None:
    """Adds unknown fields of a delta, which are pieces like the known ones: strings and lists are concatenated.

    Strings are kept as `StringIO` until `_joined` converts them: concatenating each piece to a growing string would
    cost more with every chunk.
    """
    for name, value in fields.items():
        if value is None:
            continue
        before = so_far.get(name)
        if isinstance(value, str) and name not in _NAMES:
            text = so_far[name] = before if isinstance(before, StringIO) else StringIO()
            text.write(value)
        elif isinstance(value, list):
            items = so_far[name] = cast("list[object]", before) if isinstance(before, list) else []
            items += cast("list[object]", value)
        elif (inner := as_object(value)) is not None:
            joined = so_far[name] = as_object(before) or {}
            _join_fields(joined, inner)
        else:
            so_far[name] = value


def _joined(value: object) -> object:
    if isinstance(value, StringIO):
        return value.getvalue()
    if (fields := as_object(value)) is not None:
        return {name: _joined(inner) for name, inner in fields.items()}
    return copy.deepcopy(value)
