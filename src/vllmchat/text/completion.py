"""A whole completion, and the pieces of a streamed one.

Read as leniently as chats are: null and absent are the same, what is missing has its default, unknown fields are
kept in `model_extra`.
"""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated

from pydantic import Field, PrivateAttr, ValidationError

from vllmchat.chat.completion import FinishReason, PromptLogprob, RequestMetrics, Usage
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


class TextLogprobs(WireModel):
    """Log probabilities of a completion's tokens, one entry a token in each list."""

    tokens: Items[str] = Field(default_factory=list[str])
    """The tokens as text; with `return_tokens_as_token_ids`, as `"token_id:17"`."""

    token_logprobs: Items[float | None] = Field(default_factory=list[float | None])
    """Natural logarithm of each token's probability; -9999.0 stands for minus infinity. With `echo`, None for the
    first token of the prompt."""

    top_logprobs: Items[dict[str, float] | None] = Field(default_factory=list[dict[str, float] | None])
    """The likeliest tokens of each place, as many as `logprobs` asked for."""

    text_offset: Items[int] = Field(default_factory=list[int])
    """Where each token begins in the text, in characters."""


class TextChoice(WireModel):
    """One of the completions of an answer; there are `n` of them for each prompt."""

    index: Whole = 0
    """Its number, from 0: those of the first prompt come first."""

    text: Text = ""
    """What was generated; with `echo`, after the prompt."""

    logprobs: TextLogprobs | None = None
    """Log probabilities, when `logprobs` asked for them."""

    finish_reason: FinishReason | str | None = None
    """Why generation ended; None while a stream still runs. `FinishReason` tells the known ones."""

    stop_reason: int | str | None = None
    """What stopped it: the stop string, the id of the stop token, `"repetition_detected"`, or None for the model's own
    end."""

    token_ids: list[int] | None = None
    """Ids of the generated tokens, when `return_token_ids` asked for them. Since vLLM 0.10.2."""

    prompt_token_ids: list[int] | None = None
    """Ids of the prompt's tokens, when `return_token_ids` asked for them. Since vLLM 0.10.2."""

    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None
    """When `prompt_logprobs` asked for them: for each position of the prompt, log probabilities by token id (as text).
    The first position has None. Never in a stream."""

    routed_experts: object = None
    """Which experts of a mixture-of-experts model computed each token, with a server started to tell."""


class TextCompletion(WireModel):
    """A whole answer to `complete`.

    `text` and `finish_reason` are those of the first choice, `texts` are those of all.
    """

    id: Text = ""
    """The server's name for this answer: `cmpl-` and the request's id."""

    object: Annotated[str, null_as(lambda: "text_completion")] = "text_completion"
    """Always `"text_completion"`."""

    created: Whole = 0
    """When the server made it, in seconds since 1970."""

    model: Text = ""
    """The model's first served name, or the LoRA adapter's; not always what was asked for."""

    choices: Items[TextChoice] = Field(default_factory=list[TextChoice])
    """The completions: `n` of the first prompt, `n` of the second, and so on."""

    usage: Usage | None = None
    """How many tokens it took, of all prompts and completions together."""

    service_tier: str | None = None
    """With other servers than vLLM."""

    system_fingerprint: str | None = None
    """Which server build answered. Since vLLM 0.21; None before, or with `--fingerprint-mode none`."""

    kv_transfer_params: JsonObject | None = None
    """For a deployment whose prefill and decode run apart; to be passed on as it is."""

    ec_transfer_params: JsonObject | None = None
    """The same for a separate encoder."""

    metrics: RequestMetrics | None = None
    """How long it took in the server."""

    _request_id: str | None = PrivateAttr(default=None)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer, else the one that was sent; None when it did not come over HTTP."""
        return self._request_id

    @property
    def text(self) -> str:
        """The first choice's text; empty when there is none."""
        return self.choices[0].text if self.choices else ""

    @property
    def texts(self) -> list[str]:
        """The texts of all choices, in their order."""
        return [choice.text for choice in self.choices]

    @property
    def finish_reason(self) -> FinishReason | str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None


class TextChunkChoice(WireModel):
    """What a chunk adds to one choice."""

    index: Whole = 0
    """Which choice, from 0."""

    text: Text = ""
    """The next piece of the text: a token, several, or none."""

    logprobs: TextLogprobs | None = None
    """Log probabilities of this chunk's tokens."""

    finish_reason: FinishReason | str | None = None
    """Why generation ended, in the choice's last chunk."""

    stop_reason: int | str | None = None
    """What stopped it, in the choice's last chunk."""

    token_ids: list[int] | None = None
    """Ids of this chunk's tokens."""

    prompt_token_ids: list[int] | None = None
    """Ids of the prompt's tokens, in the choice's first chunk."""


class TextCompletionChunk(WireModel):
    """One piece of a streamed completion.

    A chunk is not a token: it may hold several, or none. With several choices they interleave. The chunk that tells
    the usage has none.
    """

    id: Text = ""
    """The server's name for the answer, the same in all chunks."""

    object: Annotated[str, null_as(lambda: "text_completion")] = "text_completion"
    """Always `"text_completion"`."""

    created: Whole = 0
    """When the server began the answer, in seconds since 1970."""

    model: Text = ""
    """The model's first served name, or the LoRA adapter's."""

    choices: Items[TextChunkChoice] = Field(default_factory=list[TextChunkChoice])
    """What it adds, mostly to one choice; empty in the chunk that tells the usage."""

    usage: Usage | None = None
    """Tokens so far of this chunk's choice, with `continuous_usage_stats`; of all when there is none here."""

    system_fingerprint: str | None = None
    """Which server build answered, in the last chunk."""

    metrics: RequestMetrics | None = None
    """How long it took in the server, in the usage chunk."""

    @property
    def text(self) -> str:
        """What the chunk adds to the first choice's text; empty when it adds none."""
        return "".join(choice.text for choice in self.choices if choice.index == 0)


def set_request_id(completion: TextCompletion, request_id: str | None) -> None:
    """Tell a completion under which `X-Request-Id` it was made."""
    completion._request_id = request_id  # pyright: ignore[reportPrivateUsage] - this module alone may set it


def decode_completion(body: bytes, *, request_id: str | None = None) -> TextCompletion:
    """Read the body of an answer to a completion request that did not stream.

    Raises:
        ResponseError: The body is no completion: not JSON, or JSON of another shape.
    """
    completion = decode(TextCompletion, body, "a completion")
    if "choices" not in completion.model_fields_set:
        raise not_this("a completion", body, "it has no choices")
    set_request_id(completion, request_id)
    return completion


def decode_event(data: bytes) -> TextCompletionChunk | JsonObject:
    """Read the data of one server-sent event: a chunk, or the body of the error that it tells.

    Raises:
        ResponseError: The data is neither: not JSON, or JSON of another shape.
    """
    return chunk_or_error(data, _decode_chunk)


def _decode_chunk(data: bytes) -> TextCompletionChunk:
    if not TextCompletionChunk.__pydantic_complete__:
        build(TextCompletionChunk)
    try:
        chunk: TextCompletionChunk = TextCompletionChunk.__pydantic_validator__.validate_json(data)
    except ValidationError as error:
        raise not_this("a chunk of a completion", data, first_problem(error)) from error
    if "choices" not in chunk.model_fields_set:
        raise not_this("a chunk of a completion", data, "it has no choices")
    return chunk
