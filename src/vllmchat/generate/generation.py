"""The result of `generate`, whole and in chunks."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated

from pydantic import Field

from vllmchat.chat.completion import ChatMessage, mark_truncated
from vllmchat.wire import markdown
from vllmchat.wire.decode import (
    NEEDED,
    ChoiceIndex,
    JsonObject,
    LenientList,
    LenientStr,
    Received,
    WireModel,
    decode_with_choices,
    default_for_null,
    drop_empty_usage,
    requested,
    unexpected_body,
)
from vllmchat.wire.lenient import TornCharacters
from vllmchat.wire.usage import (
    MISSING_LOGPROB,
    FinishReason,
    PromptLogprob,
    Reason,
    RequestMetrics,
    Usage,
    WeightVersion,
    truncates,
)


class GenerationTokenLogprob(WireModel):
    """The log probability of a token at a position."""

    token_id: int | None = None
    """The token's id; None unless the `output_mode` is `"tokens"`."""

    token: str | None = None
    """The token as text; None if the `output_mode` is `"tokens"`."""

    logprob: Annotated[float, default_for_null(lambda: MISSING_LOGPROB)] = MISSING_LOGPROB
    """Natural logarithm of its probability; -9999.0 means minus infinity or "not sent"."""

    rank: int | None = None
    """Its rank among all tokens; 1 is the most likely."""

    bytes: list[int] | None = None
    """Its UTF-8 bytes, if it has a text. A token may be part of a character."""


class GeneratedToken(GenerationTokenLogprob):
    """The token generated at a position, and the most likely ones."""

    top_logprobs: LenientList[GenerationTokenLogprob] = Field(default_factory=list[GenerationTokenLogprob])
    """The most likely tokens at this position, as many as `logprobs` requested."""


class GenerationLogprobs(WireModel):
    """Log probabilities of the generated tokens."""

    content: list[GeneratedToken] | None = None
    """One entry per token."""


class GenerationChoice(WireModel):
    """One of the `n` continuations. In a chunk, what the chunk adds to one."""

    index: ChoiceIndex = 0
    """Its index, from 0."""

    token_ids: LenientList[int] = Field(default_factory=list[int])
    """Ids of the generated tokens."""

    text: LenientStr = ""
    """The tokens as text, without a stop string that ended it; empty without `output_mode="text"`."""

    message: ChatMessage | None = None
    """The tokens as the message of an assistant, with `output_mode="derender"`. Since vLLM 0.33."""

    finish_reason: Reason = None
    """Why generation ended; None while a stream is running."""

    stop_reason: int | str | None = None
    """What stopped generation: the stop string, the id of the stop token, or None for the model's own end."""

    logprobs: GenerationLogprobs | None = None
    """Log probabilities, if `logprobs` requested them."""

    routed_experts: object = None
    """Which experts of a mixture-of-experts model computed each token, on servers configured to return it."""

    sampling_mask: list[list[int]] | None = None
    """Which tokens could be sampled at each position, on servers configured to return it."""

    weight_versions: list[WeightVersion] | None = None
    """Which version of the weights generated each token. Since vLLM 0.32."""


class Generation(Received):
    """The result of `generate`. `token_ids`, `text` and `finish_reason` are those of the first choice."""

    request_id: LenientStr = ""
    """The id of the generation: `generate-tokens-` and the request's id."""

    model: str | None = None
    """The model's first served name. Not in streams."""

    created: int | None = None
    """When the server created it, in seconds since 1970. Not in streams."""

    output_mode: Annotated[str, default_for_null(lambda: "tokens")] = "tokens"
    """`"tokens"`, `"text"` or `"derender"`."""

    choices: LenientList[GenerationChoice] = Field(default_factory=list[GenerationChoice])
    """The `n` continuations."""

    usage: Usage | None = None
    """The token usage."""

    prompt_token_ids: list[int] | None = None
    """Ids of the prompt tokens, including media, if `return_token_ids` requested them. Since vLLM 0.30."""

    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None
    """If `prompt_logprobs` requested them: for each position of the prompt, log probabilities by token id (as a
    string). None for the first position. Never in a stream."""

    prompt_token_id_logprobs: str | None = None
    """Log probabilities of selected tokens at each position of the prompt, in vLLM's own encoding."""

    mm_placeholders: JsonObject | None = None
    """Positions of images, audio and video in the prompt, by modality."""

    metrics: RequestMetrics | None = None
    """Timings measured by the server."""

    kv_transfer_params: JsonObject | None = None
    """For disaggregated prefill and decode; pass it on unchanged."""

    ec_transfer_params: JsonObject | None = None
    """The same for a disaggregated encoder."""

    @property
    def token_ids(self) -> list[int]:
        """Ids of the first choice's tokens; empty if there is none."""
        return self.choices[0].token_ids if self.choices else []

    @property
    def text(self) -> str:
        """The first choice's text; empty without `output_mode="text"`."""
        return self.choices[0].text if self.choices else ""

    @property
    def message(self) -> ChatMessage | None:
        """The first choice's message; None without `output_mode="derender"`."""
        return self.choices[0].message if self.choices else None

    @property
    def finish_reason(self) -> FinishReason | str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None

    def _repr_markdown_(self) -> str | None:
        """What a notebook shows: the texts or messages, if they were requested."""
        return markdown.joined(
            markdown.reply(choice.text)
            if (message := choice.message) is None
            else markdown.reply(message.content, message.reasoning, message.tool_calls)
            for choice in self.choices
        )

    @property
    def logprobs(self) -> list[GeneratedToken]:
        """Log probabilities of the first choice's tokens, one entry per token.

        Raises:
            ResponseError: The server did not return them: they need `logprobs=1`.
        """
        logprobs = self.choices[0].logprobs if self.choices else None
        return requested(None if logprobs is None else logprobs.content, "log probabilities", "logprobs=1")


class GenerationChunk(WireModel):
    """One chunk of a streamed generation.

    It may contain several tokens, or none. The chunk with the usage has no choices.
    """

    request_id: LenientStr = ""
    """The id of the generation, the same in all chunks."""

    output_mode: Annotated[str, default_for_null(lambda: "tokens")] = "tokens"
    """`"tokens"` or `"text"`."""

    choices: LenientList[GenerationChoice] = Field(default_factory=list[GenerationChoice])
    """What the chunk adds, usually to one choice."""

    usage: Usage | None = None
    """The usage of all choices, in the chunk without choices. With `continuous_usage_stats`, the usage so far of this
    chunk's choice."""

    prompt_token_ids: list[int] | None = None
    """Ids of the prompt tokens, in the first chunk, if `return_token_ids` requested them."""

    mm_placeholders: JsonObject | None = None
    """Positions of images, audio and video in the prompt, in the first chunk."""

    metrics: RequestMetrics | None = None
    """Timings measured by the server, in the chunk with the usage."""

    @property
    def token_ids(self) -> list[int]:
        """The tokens that the chunk adds to the first choice; empty if none."""
        return [token for choice in self.choices if choice.index == 0 for token in choice.token_ids]

    @property
    def text(self) -> str:
        """What the chunk adds to the first choice's text; empty without `output_mode="text"`."""
        return "".join(choice.text for choice in self.choices if choice.index == 0)


def decode_generation(body: bytes, mode: object = None) -> Generation:
    """Parses the body of a response of `/inference/v1/generate` without streaming.

    Args:
        body: The body.
        mode: The `output_mode` that it should have; None for any.

    Raises:
        ResponseError: The body is not a generation: not JSON, JSON of another shape, or of another mode.
    """
    generation = decode_with_choices(Generation, body, _WHAT, _NEEDED)
    drop_empty_usage(generation)
    generation.choices.sort(key=lambda choice: choice.index)
    derendered = [choice for choice in generation.choices if choice.message is not None]
    if mode is not None and mode != generation.output_mode:
        # Servers ignore what they do not know.
        raise unexpected_body(_WHAT, body, f"its output_mode is {generation.output_mode!r}, not {mode!r}")
    if mode == "derender" and len(derendered) < len(generation.choices):
        raise unexpected_body(_WHAT, body, "a choice has no message")
    for choice in derendered:
        # Tokens are generated in order, so only the last call can be truncated.
        if choice.message is not None and choice.message.tool_calls and truncates(choice.finish_reason):
            mark_truncated(choice.message.tool_calls[-1])
    return generation


_WHAT = "a generation"


def decode_chunk(data: bytes, torn: TornCharacters | None = None) -> GenerationChunk:
    """Parses the data of a server-sent event that is a chunk.

    Args:
        data: The data.
        torn: The torn characters of the stream.

    Raises:
        ResponseError: The data is not a chunk: not JSON, or JSON of another shape.
    """
    return decode_with_choices(GenerationChunk, data, "a chunk of a generation", needed=_NEEDED, torn=torn)


_NEEDED = NEEDED | {"token_ids"}
