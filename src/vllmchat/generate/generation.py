"""What comes of generating from tokens, whole and in pieces."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated

from pydantic import Field, ValidationError

from vllmchat.chat.completion import MISSING_LOGPROB, FinishReason, PromptLogprob, RequestMetrics, Usage
from vllmchat.wire import (
    Items,
    JsonObject,
    Text,
    Whole,
    WireModel,
    build,
    chunk_or_error,
    decode,
    first_problem,
    not_this,
    null_as,
)


class TokenChance(WireModel):
    """How likely one token was at one place."""

    token_id: int | None = None
    """Its id; None with `output_mode="text"`."""

    token: str | None = None
    """It as text; None without `output_mode="text"`."""

    logprob: Annotated[float, null_as(lambda: MISSING_LOGPROB)] = MISSING_LOGPROB
    """Natural logarithm of its probability; -9999.0 stands for minus infinity and for "not sent"."""

    rank: int | None = None
    """Its place among all tokens, 1 the likeliest."""

    bytes: list[int] | None = None
    """Its UTF-8 bytes, with `output_mode="text"`: a token may be a part of a character."""


class GeneratedToken(TokenChance):
    """The token that came at a place, and those that could have."""

    top_logprobs: Items[TokenChance] = Field(default_factory=list[TokenChance])
    """The likeliest tokens of this place, as many as `logprobs` asked for."""


class GenerationLogprobs(WireModel):
    """Log probabilities of the generated tokens."""

    content: list[GeneratedToken] | None = None
    """One entry a token."""


class WeightVersion(WireModel):
    """Which version of the weights generated some of the tokens."""

    version: Text = ""
    """The version."""

    start: Whole = 0
    """The first of these tokens."""

    end: Whole = 0
    """The one after the last."""


class GenerationChoice(WireModel):
    """One of the continuations; there are `n` of them. In a chunk, what it adds to one."""

    index: Whole = 0
    """Its number, from 0."""

    token_ids: Items[int] = Field(default_factory=list[int])
    """Ids of the generated tokens."""

    text: Text = ""
    """What they say; empty without `output_mode="text"`. A stop text that ended it is not a part of it."""

    finish_reason: FinishReason | str | None = None
    """Why generation ended; None while a stream still runs."""

    stop_reason: int | str | None = None
    """What stopped it: the stop text, the id of the stop token, or None for the model's own end."""

    logprobs: GenerationLogprobs | None = None
    """Log probabilities, when `logprobs` asked for them."""

    routed_experts: object = None
    """Which experts of a mixture-of-experts model computed each token, with a server started to tell."""

    sampling_mask: list[list[int]] | None = None
    """Which tokens could be sampled at each place, with a server set up to tell."""

    weight_versions: list[WeightVersion] | None = None
    """Which version of the weights generated what. Since vLLM 0.32."""


class Generation(WireModel):
    """A whole answer to `generate`. `token_ids`, `text` and `finish_reason` are those of the first choice."""

    request_id: Text = ""
    """The server's name for this answer: `generate-tokens-` and the request's id."""

    model: str | None = None
    """The model's first served name. Not in streams."""

    created: int | None = None
    """When the server made it, in seconds since 1970. Not in streams."""

    output_mode: Annotated[str, null_as(lambda: "tokens")] = "tokens"
    """`"tokens"` or `"text"`."""

    choices: Items[GenerationChoice] = Field(default_factory=list[GenerationChoice])
    """The continuations, `n` of them."""

    usage: Usage | None = None
    """How many tokens it took."""

    prompt_token_ids: list[int] | None = None
    """Ids of the prompt's tokens, media included, when `return_token_ids` asked for them. Since vLLM 0.30."""

    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None
    """When `prompt_logprobs` asked for them: for each position of the prompt, log probabilities by token id (as text).
    The first position has None. Never in a stream."""

    prompt_token_id_logprobs: str | None = None
    """Log probabilities of chosen tokens at each position of the prompt, in vLLM's own encoding."""

    mm_placeholders: JsonObject | None = None
    """Where images, audio and video stand in the prompt, by kind."""

    metrics: RequestMetrics | None = None
    """How long it took in the server."""

    kv_transfer_params: JsonObject | None = None
    """For a deployment whose prefill and decode run apart; to be passed on as it is."""

    ec_transfer_params: JsonObject | None = None
    """The same for a separate encoder."""

    @property
    def token_ids(self) -> list[int]:
        """Ids of the first choice's tokens; empty when there is none."""
        return self.choices[0].token_ids if self.choices else []

    @property
    def text(self) -> str:
        """The first choice's text; empty without `output_mode="text"`."""
        return self.choices[0].text if self.choices else ""

    @property
    def finish_reason(self) -> FinishReason | str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None


class GenerationChunk(WireModel):
    """One piece of a streamed generation. It may hold several tokens, or none; that with the usage has no choices."""

    request_id: Text = ""
    """The server's name for the answer, the same in all chunks."""

    output_mode: Annotated[str, null_as(lambda: "tokens")] = "tokens"
    """`"tokens"` or `"text"`."""

    choices: Items[GenerationChoice] = Field(default_factory=list[GenerationChoice])
    """What it adds, mostly to one choice."""

    usage: Usage | None = None
    """Tokens so far of this chunk's choice, with `continuous_usage_stats`; of all when there is none here."""

    prompt_token_ids: list[int] | None = None
    """Ids of the prompt's tokens, in the first chunk, when `return_token_ids` asked for them."""

    mm_placeholders: JsonObject | None = None
    """Where images, audio and video stand in the prompt, in the first chunk."""

    metrics: RequestMetrics | None = None
    """How long it took in the server, in the usage chunk."""

    @property
    def token_ids(self) -> list[int]:
        """The tokens that the chunk adds to the first choice; empty when it adds none."""
        return [token for choice in self.choices if choice.index == 0 for token in choice.token_ids]

    @property
    def text(self) -> str:
        """What the chunk adds to the first choice's text; empty without `output_mode="text"`."""
        return "".join(choice.text for choice in self.choices if choice.index == 0)


def decode_generation(body: bytes) -> Generation:
    """Read the body of an answer to `/inference/v1/generate` that did not stream.

    Raises:
        ResponseError: The body is no generation: not JSON, or JSON of another shape.
    """
    generation = decode(Generation, body, "a generation")
    if "choices" not in generation.model_fields_set:
        raise not_this("a generation", body, "it has no choices")
    return generation


def decode_event(data: bytes) -> GenerationChunk | JsonObject:
    """Read the data of one server-sent event: a chunk, or the body of the error that it tells.

    Raises:
        ResponseError: The data is neither: not JSON, or JSON of another shape.
    """
    return chunk_or_error(data, _decode_chunk)


def _decode_chunk(data: bytes) -> GenerationChunk:
    if not GenerationChunk.__pydantic_complete__:
        build(GenerationChunk)
    try:
        chunk: GenerationChunk = GenerationChunk.__pydantic_validator__.validate_json(data)
    except ValidationError as error:
        raise not_this("a chunk of a generation", data, first_problem(error)) from error
    if "choices" not in chunk.model_fields_set:
        raise not_this("a chunk of a generation", data, "it has no choices")
    return chunk
