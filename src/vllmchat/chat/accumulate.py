"""Chunks added up to the whole reply they are pieces of.

The cost of a chunk does not depend on how many came before it, and no chunk is kept: text goes into growing
buffers, tool calls into one entry a call.
"""

from __future__ import annotations

import copy
from io import StringIO
from typing import TYPE_CHECKING, cast

from pydantic import ValidationError

from vllmchat.chat.calls import CallsSoFar
from vllmchat.chat.completion import (
    ChatCompletion,
    CompletionTokensDetails,
    Usage,
    mark_cut,
    set_request_id,
)
from vllmchat.wire import as_object, build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.chat.chunk import ChatCompletionChunk
    from vllmchat.chat.completion import ChoiceLogprobs, TokenLogprob
    from vllmchat.chat.limits import CallLimits
    from vllmchat.wire import JsonObject

_NAMES = frozenset({"id", "type", "name", "role", "index", "object", "format", "created", "expires_at"})
"""Parts of unknown delta fields that name something: sent again they replace, they are no pieces to be
joined."""

_NOISE = frozenset({"obfuscation"})
"""Unknown fields that say nothing: OpenAI pads its chunks with one."""


class Accumulator:
    """Adds up the chunks of one streamed reply.

    ::

        accumulator = Accumulator()
        for chunk in chunks:
            accumulator.add(chunk)
        reply = accumulator.completion()

    Args:
        expected: How many choices were asked for (`n`): `finished` waits for so many.
        request_id: The `X-Request-Id` of the answer, for the completion to tell.
        limits: What the request said of tool calls; None where it is not known.
    """

    __slots__ = ("_choices", "_expected", "_extra", "_fields", "_finished", "_limits", "_usage", "request_id")

    def __init__(
        self, *, expected: int = 1, request_id: str | None = None, limits: CallLimits | None = None
    ) -> None:
        self.request_id = request_id
        self._expected = expected
        self._limits = limits
        self._finished = 0
        self._choices: dict[int, _ChoiceSoFar] = {}
        self._fields: JsonObject = {}
        self._extra: JsonObject = {}
        self._usage: Usage | None = None

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Add the next chunk."""
        for piece in chunk.choices:
            choice = self._choices.get(piece.index)
            if choice is None:
                choice = self._choices[piece.index] = _ChoiceSoFar(piece.index)
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
                choice.finish_reason = piece.finish_reason
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
        """Whether every choice that was seen, and at least as many as expected, told why it ended."""
        return self._finished >= self._expected and self._finished == len(self._choices)

    def completion(self, *, ended: bool = True) -> ChatCompletion:
        """The reply so far, as the server would have answered without streaming.

        Valid at any time: it shares nothing with what comes later. A choice that has not ended has no finish
        reason, and its tool calls are not `complete` unless they have ended and a later one has begun.

        Args:
            ended: Whether no more chunks come, so that a usage that is missing will not come either.
        """
        choices = [self._choices[index] for index in sorted(self._choices)]
        known: JsonObject = {**self._fields, "usage": self._summed_usage()}
        build(ChatCompletion)
        try:
            # Of what a chunk does not know, the whole reply knows some: `refusal` for one.
            completion = ChatCompletion.model_validate(
                {**self._extra, **known, "choices": [choice.build() for choice in choices]}
            )
        except ValidationError:
            # And it came in a form that no server sends. The reply counts for more.
            completion = ChatCompletion.model_validate(
                {**known, "choices": [choice.build(unknown=False) for choice in choices]}
            )
        for choice, built in zip(choices, completion.choices, strict=True):
            for call, tool_call in zip(choice.calls.in_order(), built.message.tool_calls, strict=True):
                if choice.finish_reason is None and choice.calls.may_grow(call):
                    mark_cut(tool_call)
        if self._limits is not None:
            self._limits.mark(completion, {choice.index: choice.usage for choice in choices}, ended=ended)
        set_request_id(completion, self.request_id)
        return completion

    def _begin(self, chunk: ChatCompletionChunk) -> None:
        # Some servers begin with a chunk of their own that has no id yet.
        if chunk.id:
            self._fields["id"] = chunk.id
        if chunk.created:
            self._fields["created"] = chunk.created
        if chunk.model:
            self._fields["model"] = chunk.model

    def _add_usage(self, chunk: ChatCompletionChunk, usage: Usage) -> None:
        # Beside one choice it is that choice's so far; beside none, or several, it is that of all of them.
        if len(chunk.choices) == 1:
            self._choices[chunk.choices[0].index].usage = usage
            self._usage = None
        else:
            self._usage = usage

    def _summed_usage(self) -> Usage | None:
        if self._usage is not None:
            return self._usage
        told = [choice.usage for choice in self._choices.values() if choice.usage is not None]
        if len(told) <= 1:
            return told[0] if told else None
        # The sum did not come (the stream broke off): each choice has counted the prompt, and its own tokens.
        usage = max(told, key=lambda each: each.prompt_tokens).model_copy()
        usage.completion_tokens = sum(each.completion_tokens for each in told)
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
        details = [each.completion_tokens_details for each in told]
        counts = [each.reasoning_tokens for each in details if each is not None]
        if any(count is not None for count in counts):
            usage.completion_tokens_details = CompletionTokensDetails(
                reasoning_tokens=sum(count or 0 for count in counts)
            )
        return usage


class _ChoiceSoFar:
    """One choice as far as it came."""

    __slots__ = (
        "_reasoning",
        "_text",
        "calls",
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
        # A StringIO grows in place, so memory is that of the text and not of thousands of small strings.
        self._text = StringIO()
        self._reasoning = StringIO()
        self.write_text = self._text.write
        self.write_reasoning = self._reasoning.write
        self.index = index
        self.role = "assistant"
        self.calls = CallsSoFar()
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.token_ids: list[int] | None = None
        self.logprobs: dict[str, list[TokenLogprob] | None] | None = None
        self.usage: Usage | None = None
        self.extra: JsonObject = {}
        self.message_extra: JsonObject = {}

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

    def build(self, *, unknown: bool = True) -> JsonObject:
        """The fields of the choice so far.

        Args:
            unknown: Whether those that chunks do not know are among them.
        """
        text = self._text.getvalue()
        reasoning = self._reasoning.getvalue() or None
        calls = [call.fields() for call in self.calls.in_order()]
        if calls and not text.strip():
            # What stands between the reasoning and the calls: vLLM drops it without streaming. Kept, it would come
            # back in the next turn's prompt, where the model has never seen it.
            text = ""
        # Without streaming, a message that has nothing but reasoning or tool calls has null for its content.
        alone = not reasoning and not calls and not self.message_extra
        message: JsonObject = {
            "role": self.role,
            "content": text or ("" if alone else None),
            "reasoning": reasoning,
            "tool_calls": calls,
        }
        known: JsonObject = {
            "index": self.index,
            "message": message,
            "logprobs": self.logprobs,
            "finish_reason": self.finish_reason,
            "stop_reason": self.stop_reason,
            "token_ids": self.token_ids,
        }
        if not unknown:
            return known
        known["message"] = {
            **{name: _joined(value) for name, value in self.message_extra.items()},
            **message,
        }
        return {**self.extra, **known}


def _replace_fields(so_far: JsonObject, fields: Mapping[str, object]) -> None:
    """Unknown fields of a chunk or a choice: the last value that is not null stands."""
    so_far.update({name: value for name, value in fields.items() if value is not None and name not in _NOISE})


def _join_fields(so_far: JsonObject, fields: Mapping[str, object]) -> None:
    """Unknown fields of a delta are pieces, as the known ones are: texts and lists join, in objects too.

    Texts are kept as `StringIO` until `_joined` makes a value of them: joining each piece to a growing text
    would cost more with every chunk.
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
