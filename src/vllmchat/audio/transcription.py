"""What a model has heard, whole or in pieces."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Annotated

from pydantic import Field

from vllmchat.answers import Answer, read_answer, stamped
from vllmchat.chat.completion import Usage
from vllmchat.http.call import Reply
from vllmchat.wire import (
    Items,
    JsonObject,
    Text,
    Whole,
    WireModel,
    build,
    chunk_or_error,
    decode,
    not_this,
    null_as,
)


class AudioUsage(WireModel):
    """What a transcription took."""

    type: str | None = None
    """`"duration"` with vLLM. None in a stream."""

    seconds: float | None = None
    """How long the audio is, in seconds, rounded up."""

    prompt_tokens: int | None = None
    """In a stream: tokens of the audio and of the prompt."""

    completion_tokens: int | None = None
    """In a stream: tokens of the text."""

    total_tokens: int | None = None
    """In a stream: the sum of both."""


class TranscriptionSegment(WireModel):
    """A stretch of what was said."""

    id: int | str | None = None
    """Its number; with `diarized_json` a name such as `seg_0`."""

    start: float = 0.0
    """When it begins, in seconds."""

    end: float = 0.0
    """When it ends, in seconds."""

    text: Text = ""
    """What was said."""

    speaker: str | None = None
    """Who said it, with `diarized_json`."""

    avg_logprob: float | None = None
    """Mean log probability of its tokens. Below -1 it is hardly to be trusted."""

    compression_ratio: float | None = None
    """How well its text can be compressed. Above 2.4 the model probably repeats itself."""

    no_speech_prob: float | None = None
    """How likely nobody speaks. None with vLLM."""

    seek: int | None = None
    """Where the model looked for it."""

    temperature: float | None = None
    """The temperature that it was made with."""

    tokens: Items[int] = Field(default_factory=list[int])
    """Its token ids."""


class TranscriptionWord(WireModel):
    """One word. vLLM tells none."""

    word: Text = ""
    """The word."""

    start: float = 0.0
    """When it begins, in seconds."""

    end: float = 0.0
    """When it ends, in seconds."""


class Transcription(Answer):
    """What was said, or its translation."""

    text: Text = ""
    """All of it."""

    language: str | None = None
    """The language, with `verbose_json`, as it was named in the request."""

    duration: float | None = None
    """How long the audio is, in seconds, with `verbose_json` and `diarized_json`."""

    segments: list[TranscriptionSegment] | None = None
    """Its stretches, with `verbose_json` and `diarized_json`."""

    words: list[TranscriptionWord] | None = None
    """Its words, with servers that tell them."""

    usage: AudioUsage | None = None
    """What it took: a duration, in a stream tokens. None for translations, with `verbose_json`, and before vLLM
    0.10.2."""


class TranscriptionDelta(WireModel):
    """What a chunk adds."""

    content: str | None = None
    """Text."""


class TranscriptionChoice(WireModel):
    """The one choice of a chunk."""

    delta: Annotated[TranscriptionDelta, null_as(TranscriptionDelta)] = Field(
        default_factory=TranscriptionDelta
    )
    """What it adds."""

    finish_reason: str | None = None
    """Why the text of one piece of audio ended. The server cuts long audio into pieces, so there may be several."""

    stop_reason: int | str | None = None
    """The stop token or text, if one ended it."""


class TranscriptionChunk(WireModel):
    """A piece of a streamed transcription or translation."""

    id: Text = ""
    """The server's name for the answer."""

    object: Text = "transcription.chunk"
    """`"transcription.chunk"` or `"translation.chunk"`."""

    created: Whole = 0
    """When the server began, in seconds since 1970."""

    model: Text = ""
    """The model."""

    choices: Items[TranscriptionChoice] = Field(default_factory=list[TranscriptionChoice])
    """What it adds; empty in the last chunk, which tells the usage."""

    usage: Usage | None = None
    """How many tokens it took so far, where the server tells."""

    @property
    def text(self) -> str:
        """The text that it adds; may be empty."""
        return "".join(choice.delta.content or "" for choice in self.choices)


_WHAT = "a transcription"
_CHUNK = "a transcription chunk"


def read_transcription(reply: Reply) -> Transcription:
    """Reads a whole answer.

    Raises:
        ResponseError: It is no transcription.
    """
    if reply.head.headers.get("content-type", "").startswith("text/plain"):
        # OpenAI's own form of `text`.
        build(Transcription)
        return stamped(Transcription(text=reply.body.decode("utf-8", "replace")), reply)
    return read_answer(Transcription, reply, _WHAT, holds="text")


def decode_event(data: bytes) -> TranscriptionChunk | JsonObject:
    """Reads the data of one event: a chunk, or the body of the error that it tells.

    Raises:
        ResponseError: The data is neither.
    """
    return chunk_or_error(data, _decode_chunk)


def _decode_chunk(data: bytes) -> TranscriptionChunk:
    chunk = decode(TranscriptionChunk, data, _CHUNK)
    if not {"choices", "usage"} & chunk.model_fields_set:
        raise not_this(_CHUNK, data, "it has no choices")
    return chunk
