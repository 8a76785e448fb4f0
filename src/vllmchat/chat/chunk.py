"""One chunk of a streamed chat reply.

Thousands of these may arrive per second, so each is validated at most once, directly from the event's bytes, by
compiled code; `wire/repeats.py` makes those that differ in their text only. See `completion` for the meaning of the
fields.
"""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated

from pydantic import AliasChoices, Field, ValidationError

from vllmchat.chat.completion import ChoiceLogprobs
from vllmchat.chat.forms import usual_form
from vllmchat.wire.decode import (
    MAX_PARTS,
    NEEDED,
    CallIndex,
    ChoiceIndex,
    Content,
    Fallback,
    Id,
    JsonObject,
    JsonText,
    LenientInt,
    LenientStr,
    WireModel,
    as_object,
    decode,
    default_for_null,
    first_problem,
    unexpected_body,
)
from vllmchat.wire.lenient import TornCharacters
from vllmchat.wire.usage import Reason, RequestMetrics, Usage, WeightVersion


class DeltaFunction(WireModel):
    """A piece of a tool call's function."""

    name: str | None = None
    """Name of the function, in the call's first piece."""

    arguments: JsonText | None = None
    """The next piece of the arguments' JSON text. Some servers send all of it at once, or nothing if it is empty."""


class DeltaToolCall(WireModel):
    """A piece of a tool call."""

    index: CallIndex = None
    """Index of the call in the choice, from 0; None from servers that do not number calls."""

    id: Id | None = None
    """The call's id, in its first piece. Later pieces have none, an empty one, or the same one."""

    type: str | None = None
    """`"function"`, in the call's first piece."""

    function: DeltaFunction | None = None
    """What the piece adds to the function."""


class Delta(WireModel):
    """What a chunk adds to a message. It may have several of these fields, or none."""

    role: str | None = None
    """`"assistant"`, in a choice's first chunk."""

    content: Content = None
    """The next piece of the text: a token, several tokens, or part of one."""

    reasoning: Annotated[Content, Field(validation_alias=AliasChoices("reasoning", "reasoning_content"))] = (
        None
    )
    """The next piece of the reasoning. The `reasoning_content` of servers before vLLM 0.11.1 is read too."""

    tool_calls: Annotated[list[DeltaToolCall], Field(max_length=MAX_PARTS)] | None = None
    """Pieces of one or more tool calls."""

    @property
    def has_content(self) -> bool:
        """Whether it adds text, reasoning or tool calls."""
        return bool(self.content or self.reasoning or self.tool_calls)


def _delta(value: object) -> Delta:
    return Delta.model_validate(usual_form(value))


class ChunkChoice(WireModel):
    """What a chunk adds to one choice."""

    index: ChoiceIndex = 0
    """Index of the choice, from 0."""

    delta: Annotated[Delta, Fallback(_delta)] = Field(default_factory=Delta)
    """What the chunk adds to the message."""

    logprobs: ChoiceLogprobs | None = None
    """Log probabilities of this chunk's tokens."""

    finish_reason: Reason = None
    """Why generation ended, in the choice's last chunk."""

    stop_reason: int | str | None = None
    """What stopped generation, in the choice's last chunk."""

    token_ids: list[int] | None = None
    """Ids of this chunk's tokens. Since vLLM 0.10.2."""

    weight_versions: list[WeightVersion] | None = None
    """Which version of the weights generated each token of the choice, in its last chunk. Since vLLM 0.33."""


class ChatCompletionChunk(WireModel):
    """One chunk of a streamed reply.

    A chunk is not a token: it may contain several, or none. With `n` > 1, each chunk belongs to one choice, and the
    choices interleave. The chunk with the usage has no choices.
    """

    id: LenientStr = ""
    """The id of the reply, the same in all chunks."""

    object: Annotated[str, default_for_null(lambda: "chat.completion.chunk")] = "chat.completion.chunk"
    """Always `"chat.completion.chunk"`."""

    created: LenientInt = 0
    """When the server began the reply, in seconds since 1970."""

    model: LenientStr = ""
    """The model's first served name, or the LoRA adapter's name."""

    choices: Annotated[
        list[ChunkChoice], Field(max_length=MAX_PARTS), default_for_null(list[ChunkChoice])
    ] = Field(default_factory=list[ChunkChoice])
    """What the chunk adds, usually to one choice; empty in the chunk with the usage."""

    usage: Usage | None = None
    """The usage of all choices, in the chunk without choices. With `continuous_usage_stats`, the usage so far of this
    chunk's choice."""

    service_tier: str | None = None
    """Only from servers other than vLLM."""

    system_fingerprint: str | None = None
    """The server build, in the last chunk. Since vLLM 0.21."""

    prompt_token_ids: list[int] | None = None
    """The prompt's token ids, in the first chunk. Since vLLM 0.10.2."""

    prompt_text: str | None = None
    """The rendered prompt, in the first chunk. Since vLLM 0.21."""

    kv_transfer_params: JsonObject | None = None
    """See `ChatCompletion`. In streams since vLLM 0.33, in a choice's last chunk."""

    metrics: RequestMetrics | None = None
    """Timings measured by the server, in the chunk with the usage. Since vLLM 0.25."""

    @property
    def text(self) -> str:
        """What the chunk adds to the first choice's text; empty if nothing."""
        text = ""
        for choice in self.choices:
            if choice.index == 0 and choice.delta.content:
                text += choice.delta.content
        return text

    @property
    def reasoning(self) -> str | None:
        """What the chunk adds to the first choice's reasoning, or None."""
        reasoning = None
        for choice in self.choices:
            if choice.index == 0 and choice.delta.reasoning:
                reasoning = (reasoning or "") + choice.delta.reasoning
        return reasoning


def decode_chunk(data: bytes, torn: TornCharacters | None = None) -> ChatCompletionChunk:
    """Parses the data of a server-sent event that is a chunk.

    Args:
        data: The data.
        torn: The torn characters of the stream.

    Raises:
        ResponseError: The data is not a chunk: not JSON, or JSON of another shape.
    """
    chunk = decode(ChatCompletionChunk, data, _WHAT, NEEDED, torn)
    if not chunk.choices and not _says_it_is_one(chunk):
        raise unexpected_body(_WHAT, data, "it has no choices")
    for choice in chunk.choices:
        if choice.__pydantic_extra__:
            _take_message(choice, data)
        if choice.delta.__pydantic_extra__:
            _take_old_fields(choice.delta, choice.delta.__pydantic_extra__)
    return chunk


_WHAT = "a chat completion chunk"


def _says_it_is_one(chunk: ChatCompletionChunk) -> bool:
    fields = chunk.model_fields_set
    # Some servers send the usage by itself.
    return (
        "choices" in fields
        or "usage" in fields
        or ("object" in fields and chunk.object == "chat.completion.chunk")
    )


def _take_message(choice: ChunkChoice, data: bytes) -> None:
    """Takes the delta from where servers put it that only pretend to stream: a whole message, or a text."""
    extra = choice.__pydantic_extra__ or {}
    if extra.get("error"):
        raise unexpected_body(_WHAT, data, "it has an error")
    if not ("message" in extra or "text" in extra):
        return
    if choice.delta.has_content:
        extra.pop("message", None)
        extra.pop("text", None)
        return
    # They stay among the unknown fields: the accumulator decides whether they repeat what the deltas were.
    message = extra.get("message") or {"content": extra.get("text")}
    try:
        choice.delta = _delta(message)
    except ValidationError as error:
        raise unexpected_body(_WHAT, data, first_problem(error)) from error
    except ValueError as error:
        raise unexpected_body(_WHAT, data, str(error)) from error


def _take_old_fields(delta: Delta, extra: JsonObject) -> None:
    # vLLM 0.11.1 to 0.15 send the same text under both names, of which one must go; others send nothing in one.
    old = extra.pop("reasoning_content", None)
    if not delta.reasoning and isinstance(old, str):
        delta.reasoning = old
    # It stays among the unknown fields, from which the message gets its own.
    call = as_object(extra.get("function_call"))
    if call and (call.get("name") or call.get("arguments")) and not delta.tool_calls:
        delta.tool_calls = [DeltaToolCall.model_validate({"index": 0, "function": call})]
