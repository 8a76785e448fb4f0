"""Transcriptions, whole or streamed."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated

from pydantic import Field

from vllmchat.http.call import Response
from vllmchat.wire import markdown
from vllmchat.wire.decode import (
    NEEDED,
    Answer,
    LenientInt,
    LenientList,
    LenientStr,
    WireModel,
    as_object,
    decode,
    default_for_null,
    ensure_built,
    read_answer,
    unexpected_body,
    with_record,
)
from vllmchat.wire.lenient import TornCharacters
from vllmchat.wire.usage import Reason, Usage


class AudioUsage(WireModel):
    """What a transcription consumed."""

    type: str | None = None
    """`"duration"` for vLLM. None in a stream."""

    seconds: float | None = None
    """The length of the audio in seconds, rounded up."""

    prompt_tokens: int | None = None
    """In a stream: tokens of the audio and the prompt."""

    completion_tokens: int | None = None
    """In a stream: tokens of the text."""

    total_tokens: int | None = None
    """In a stream: the sum of both."""


class TranscriptionSegment(WireModel):
    """A segment of the speech."""

    id: int | str | None = None
    """Its number; with `diarized_json`, a name such as `seg_0`."""

    start: float = 0.0
    """When it starts, in seconds."""

    end: float = 0.0
    """When it ends, in seconds."""

    text: LenientStr = ""
    """Its text."""

    speaker: str | None = None
    """The speaker, with `diarized_json`."""

    avg_logprob: float | None = None
    """Mean log probability of its tokens. Values below -1 are unreliable."""

    compression_ratio: float | None = None
    """Compression ratio of its text. Above 2.4, the model probably repeats itself."""

    no_speech_prob: float | None = None
    """The probability that nobody speaks. None for vLLM."""

    seek: int | None = None
    """Where the model looked for it in the audio."""

    temperature: float | None = None
    """The sampling temperature."""

    tokens: LenientList[int] = Field(default_factory=list[int])
    """Its token IDs."""


class TranscriptionWord(WireModel):
    """A single word. vLLM returns none."""

    word: LenientStr = ""
    """The word."""

    start: float = 0.0
    """When it starts, in seconds."""

    end: float = 0.0
    """When it ends, in seconds."""


class Transcription(Answer):
    """A transcription or a translation."""

    text: LenientStr = ""
    """The whole text."""

    language: str | None = None
    """The language, with `verbose_json`, as given in the request."""

    duration: float | None = None
    """The length of the audio in seconds, with `verbose_json` and `diarized_json`."""

    segments: list[TranscriptionSegment] | None = None
    """Its segments, with `verbose_json` and `diarized_json`."""

    words: list[TranscriptionWord] | None = None
    """Its words, from servers that return them."""

    usage: AudioUsage | None = None
    """What it consumed: a duration, or in a stream tokens. None for translations, with `verbose_json`, and before vLLM
    0.10.2."""

    def _repr_markdown_(self) -> str | None:
        """What a notebook shows: the text."""
        return markdown.reply(self.text)


class TranscriptionDelta(WireModel):
    """What a chunk adds."""

    content: str | None = None
    """The text."""


class TranscriptionChoice(WireModel):
    """The one choice of a chunk."""

    delta: Annotated[TranscriptionDelta, default_for_null(TranscriptionDelta)] = Field(
        default_factory=TranscriptionDelta
    )
    """What it adds."""

    finish_reason: Reason = None
    """Why the text of one segment ended. The server splits long audio into segments, so there may be several."""

    stop_reason: int | str | None = None
    """The stop token or text that ended it, if any."""


class TranscriptionChunk(WireModel):
    """A chunk of a streamed transcription or translation."""

    id: LenientStr = ""
    """The response ID."""

    object: LenientStr = "transcription.chunk"
    """`"transcription.chunk"` or `"translation.chunk"`."""

    created: LenientInt = 0
    """When the response was started, in seconds since 1970."""

    model: LenientStr = ""
    """The model."""

    choices: LenientList[TranscriptionChoice] = Field(default_factory=list[TranscriptionChoice])
    """What it adds; empty in the last chunk, which has the usage."""

    usage: Usage | None = None
    """The usage so far, if the server reports it."""

    @property
    def text(self) -> str:
        """The text that it adds; may be empty."""
        return "".join(choice.delta.content or "" for choice in self.choices)


_WHAT = "a transcription"
_CHUNK = "a transcription chunk"


def read_transcription(reply: Response) -> Transcription:
    """Reads a whole response.

    Raises:
        ResponseError: It is not a transcription.
    """
    if reply.head.headers.get("content-type", "").startswith("text/plain"):
        # OpenAI's own format for `text`.
        ensure_built(Transcription)
        return with_record(Transcription(text=reply.body.decode("utf-8", "replace")), reply.head)
    return read_answer(Transcription, reply, _WHAT, required_key="text")


def decode_chunk(data: bytes, torn: TornCharacters | None = None) -> TranscriptionChunk:
    """Decodes the data of an event that is a chunk.

    Args:
        data: The data.
        torn: The torn characters of the stream.

    Raises:
        ResponseError: The data is not a chunk.
    """
    chunk = decode(TranscriptionChunk, data, _CHUNK, needed=NEEDED, torn=torn)
    if not {"choices", "usage"} & chunk.model_fields_set:
        raise unexpected_body(_CHUNK, data, "it has no choices")
    for choice in chunk.choices:
        if choice.delta.content is None and (extra := choice.__pydantic_extra__):
            # Where servers put the text that only pretend to stream.
            text = (as_object(extra.get("message")) or {}).get("content", extra.get("text"))
            choice.delta.content = text if isinstance(text, str) else None
    return chunk
