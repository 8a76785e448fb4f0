"""A whole completion, and the chunks of a streamed one.

Parsing is lenient: null and absent are the same, missing fields have defaults, and unknown fields are kept in
`model_extra`.
"""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from itertools import zip_longest
from typing import Annotated

from pydantic import Field

from vllmchat.http.call import ResponseHead
from vllmchat.wire import markdown
from vllmchat.wire.decode import (
    NEEDED,
    Answer,
    ChoiceIndex,
    JsonObject,
    LenientInt,
    LenientList,
    LenientStr,
    WireModel,
    as_object,
    decode_with_choices,
    default_for_null,
    drop_empty_usage,
    requested,
    with_record,
)
from vllmchat.wire.lenient import TornCharacters
from vllmchat.wire.usage import (
    MISSING_LOGPROB,
    FinishReason,
    PromptLogprob,
    Reason,
    RequestMetrics,
    TokenLogprob,
    TopLogprob,
    Usage,
    WeightVersion,
)


class TextLogprobs(WireModel):
    """Log probabilities of a completion's tokens, with one entry per token in each list."""

    tokens: LenientList[str] = Field(default_factory=list[str])
    """The tokens as text; with `return_tokens_as_token_ids`, as `"token_id:17"`."""

    token_logprobs: LenientList[float | None] = Field(default_factory=list[float | None])
    """Natural logarithm of each token's probability; -9999.0 means minus infinity. With `echo`, None for the first
    token of the prompt."""

    top_logprobs: LenientList[dict[str, float] | None] = Field(default_factory=list[dict[str, float] | None])
    """The most likely tokens at each position, as many as `logprobs` requested."""

    text_offset: LenientList[int] = Field(default_factory=list[int])
    """The start of each token in the text, in characters."""

    def as_tokens(self) -> list[TokenLogprob]:
        """Returns the same as a list with one entry per token, in the form of chats."""
        rows = zip_longest(self.tokens, self.token_logprobs, self.top_logprobs)
        return [
            TokenLogprob(
                token or "",
                MISSING_LOGPROB if logprob is None else logprob,
                top_logprobs=[TopLogprob(name, value) for name, value in (top or {}).items()],
            )
            for token, logprob, top in rows
        ]


class TextChoice(WireModel):
    """One of the completions of a response; there are `n` of them for each prompt."""

    index: LenientInt = 0
    """Its index, from 0. The completions of the first prompt come first."""

    text: LenientStr = ""
    """The generated text; with `echo`, preceded by the prompt."""

    logprobs: TextLogprobs | None = None
    """Log probabilities, if `logprobs` requested them."""

    finish_reason: Reason = None
    """Why generation ended; None while a stream is running. See `FinishReason` for the known values."""

    stop_reason: int | str | None = None
    """What stopped generation: the stop string, the id of the stop token, `"repetition_detected"`, or None for the
    model's own end."""

    token_ids: list[int] | None = None
    """Ids of the generated tokens, if `return_token_ids` requested them. Since vLLM 0.10.2."""

    prompt_token_ids: list[int] | None = None
    """Ids of the prompt tokens, if `return_token_ids` requested them. Since vLLM 0.10.2."""

    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None
    """If `prompt_logprobs` requested them: for each position of the prompt, log probabilities by token id (as a
    string). None for the first position. Never in a stream."""

    routed_experts: object = None
    """Which experts of a mixture-of-experts model computed each token, on servers configured to return it."""

    weight_versions: list[WeightVersion] | None = None
    """Which version of the weights generated each token, if `return_weight_versions` requested it. Since vLLM 0.33."""


class TextCompletion(Answer):
    """A whole completion.

    `text` and `finish_reason` are those of the first choice; `texts` has the texts of all choices.
    """

    id: LenientStr = ""
    """The id of the completion: `cmpl-` and the request's id."""

    object: Annotated[str, default_for_null(lambda: "text_completion")] = "text_completion"
    """Always `"text_completion"`."""

    created: LenientInt = 0
    """When the server created it, in seconds since 1970."""

    model: LenientStr = ""
    """The model's first served name, or the LoRA adapter's name. May differ from the requested name."""

    choices: LenientList[TextChoice] = Field(default_factory=list[TextChoice])
    """The completions: `n` for the first prompt, `n` for the second, and so on."""

    usage: Usage | None = None
    """The token usage of all prompts and completions together."""

    service_tier: str | None = None
    """Only from servers other than vLLM."""

    system_fingerprint: str | None = None
    """The server build. Since vLLM 0.21; None before, or with `--fingerprint-mode none`."""

    kv_transfer_params: JsonObject | None = None
    """For disaggregated prefill and decode; pass it on unchanged."""

    ec_transfer_params: JsonObject | None = None
    """The same for a disaggregated encoder."""

    metrics: RequestMetrics | None = None
    """Timings measured by the server."""

    @property
    def text(self) -> str:
        """The first choice's text; empty if there is none."""
        return self.choices[0].text if self.choices else ""

    @property
    def texts(self) -> list[str]:
        """The texts of all choices, in order."""
        return [choice.text for choice in self.choices]

    @property
    def finish_reason(self) -> FinishReason | str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None

    def _repr_markdown_(self) -> str | None:
        """What a notebook shows: the texts."""
        return markdown.joined(markdown.reply(text) for text in self.texts)

    @property
    def token_ids(self) -> list[int]:
        """Ids of the first choice's tokens.

        Raises:
            ResponseError: The server did not return them: they need `return_token_ids=True`.
        """
        return requested(
            self.choices[0].token_ids if self.choices else None, "token ids", "return_token_ids=True"
        )

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Log probabilities of the first choice's tokens, one entry per token, in the form of chats.

        Raises:
            ResponseError: The server did not return them: they need `logprobs=1`.
        """
        logprobs = self.choices[0].logprobs if self.choices else None
        return requested(
            None if logprobs is None else logprobs.as_tokens(), "log probabilities", "logprobs=1"
        )


class TextChunkChoice(WireModel):
    """What a chunk adds to one choice."""

    index: ChoiceIndex = 0
    """Index of the choice, from 0."""

    text: LenientStr = ""
    """The next piece of the text: a token, several tokens, or nothing."""

    logprobs: TextLogprobs | None = None
    """Log probabilities of this chunk's tokens."""

    finish_reason: Reason = None
    """Why generation ended, in the choice's last chunk."""

    stop_reason: int | str | None = None
    """What stopped generation, in the choice's last chunk."""

    token_ids: list[int] | None = None
    """Ids of this chunk's tokens."""

    prompt_token_ids: list[int] | None = None
    """Ids of the prompt tokens, in the choice's first chunk."""

    weight_versions: list[WeightVersion] | None = None
    """Which version of the weights generated each token of the choice, in its last chunk. Since vLLM 0.33."""


class TextCompletionChunk(WireModel):
    """One chunk of a streamed completion.

    A chunk is not a token: it may contain several, or none. The chunks of several choices interleave. The chunk with
    the usage has no choices.
    """

    id: LenientStr = ""
    """The id of the completion, the same in all chunks."""

    object: Annotated[str, default_for_null(lambda: "text_completion")] = "text_completion"
    """Always `"text_completion"`."""

    created: LenientInt = 0
    """When the server began the completion, in seconds since 1970."""

    model: LenientStr = ""
    """The model's first served name, or the LoRA adapter's name."""

    choices: LenientList[TextChunkChoice] = Field(default_factory=list[TextChunkChoice])
    """What the chunk adds, usually to one choice; empty in the chunk with the usage."""

    usage: Usage | None = None
    """The usage of all choices, in the chunk without choices. With `continuous_usage_stats`, the usage so far of this
    chunk's choice."""

    system_fingerprint: str | None = None
    """The server build, in the last chunk."""

    kv_transfer_params: JsonObject | None = None
    """For disaggregated prefill and decode, in the last chunk. Since vLLM 0.33."""

    metrics: RequestMetrics | None = None
    """Timings measured by the server, in the chunk with the usage."""

    @property
    def text(self) -> str:
        """What the chunk adds to the first choice's text; empty if nothing."""
        return "".join(choice.text for choice in self.choices if choice.index == 0)


def decode_completion(body: bytes, *, head: ResponseHead | None = None) -> TextCompletion:
    """Parses the body of a response to a completion request without streaming.

    Raises:
        ResponseError: The body is not a completion: not JSON, or JSON of another shape.
    """
    completion = decode_with_choices(TextCompletion, body, "a completion")
    for choice in completion.choices:
        if choice.__pydantic_extra__:
            _take_message(choice)
    completion.choices.sort(key=lambda choice: choice.index)
    drop_empty_usage(completion)
    return with_record(completion, head)


def decode_chunk(data: bytes, torn: TornCharacters | None = None) -> TextCompletionChunk:
    """Parses the data of a server-sent event that is a chunk.

    Args:
        data: The data.
        torn: The torn characters of the stream.

    Raises:
        ResponseError: The data is not a chunk: not JSON, or JSON of another shape.
    """
    chunk = decode_with_choices(TextCompletionChunk, data, "a chunk of a completion", NEEDED, torn)
    for choice in chunk.choices:
        if choice.__pydantic_extra__:
            _take_message(choice)
    return chunk


def _take_message(choice: TextChoice | TextChunkChoice) -> None:
    """Takes the text from where servers put it that answer in the form of chats."""
    for name in ("delta", "message"):
        text = (as_object((choice.__pydantic_extra__ or {}).get(name)) or {}).get("content")
        if isinstance(text, str) and not choice.text:
            choice.text = text
