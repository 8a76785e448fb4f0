"""The request parameters of transcriptions and translations, as TypedDicts for `**params: Unpack[...]`."""

# No `from __future__ import annotations` here: the annotations are read at run time.
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from typing_extensions import TypedDict

from vllmchat.checking.call_params import CallBase
from vllmchat.checking.rules import Bounds, Default, Length, Since
from vllmchat.sampling.params import INT64_MAX, INT64_MIN

__all__ = [
    "AudioBase",
    "AudioStreamBase",
    "BeamBase",
    "OpenAITranscribeParams",
    "OpenAITranslateParams",
    "StreamTranscribeParams",
    "StreamTranslateParams",
    "TranscribeParams",
    "TranslateParams",
]


class AudioBase(CallBase, total=False):
    """Accepted by transcriptions and translations. A base."""

    language: str | None
    """The spoken language as a two-letter code, such as `en`. It improves the result."""
    to_language: Annotated[str | None, Since("0.10.2")]
    """The language of the output, for models that support several. Whisper translates to English only.

    Since: vLLM 0.10.2.
    """
    prompt: Annotated[str | None, Default("none")]
    """Text that precedes the speech, or that shows the expected style and names.

    Default: none.
    """
    hotwords: Annotated[str | None, Since("0.20")]
    """Words to expect, for models that support such a list.

    Since: vLLM 0.20.
    """
    max_completion_tokens: Annotated[int | None, Bounds(ge=1), Since("0.14")]
    """Longest text, in tokens, for each segment that the server splits the audio into.

    Range: at least 1. Since: vLLM 0.14.
    """
    temperature: Annotated[float | None, Bounds(ge=0, le=2), Default("0.0")]
    """Sampling temperature: 0 always chooses the most likely token.

    Range: between 0 and 2. Default: 0.0.
    """
    top_p: Annotated[float | None, Bounds(gt=0, le=1), Default("1.0, or the model's generation config")]
    """Sample from the most likely tokens whose probabilities add up to this. For translations since vLLM 0.27.

    Range: greater than 0 and at most 1. Default: 1.0, or the model's generation config.
    """
    top_k: Annotated[int | None, Bounds(ge=-1), Default("0, or the model's generation config")]
    """Sample from this many of the most likely tokens; -1 and 0 mean all. For translations since vLLM 0.27.

    Range: at least -1. Default: 0, or the model's generation config.
    """
    min_p: Annotated[float | None, Bounds(ge=0, le=1), Default("0.0, or the model's generation config")]
    """Drop tokens less likely than this fraction of the highest probability. For translations since vLLM 0.27.

    Range: between 0 and 1. Default: 0.0, or the model's generation config.
    """
    seed: Annotated[int | None, Bounds(ge=INT64_MIN, le=INT64_MAX), Default("random")]
    """Sampling seed. For translations since vLLM 0.10.2.

    Range: between `-2**63` and `2**63 - 1`. Default: random.
    """
    frequency_penalty: Annotated[float | None, Bounds(ge=-2, le=2), Default("0.0")]
    """Make a token less likely the more often it has appeared. For translations since vLLM 0.27.

    Range: between -2 and 2. Default: 0.0.
    """
    presence_penalty: Annotated[float | None, Bounds(ge=-2, le=2), Default("0.0")]
    """Make a token less likely once it has appeared. For translations since vLLM 0.27.

    Range: between -2 and 2. Default: 0.0.
    """
    repetition_penalty: Annotated[
        float | None, Bounds(gt=0), Default("1.0, or the model's generation config")
    ]
    """Above 1: make tokens that have appeared less likely. For translations since vLLM 0.27.

    Range: greater than 0. Default: 1.0, or the model's generation config.
    """
    watermarking: Annotated[bool | None, Default("the server's setting"), Since("0.32")]
    """Watermark the text, on servers that are configured for it.

    Default: the server's setting. Since: vLLM 0.32.
    """
    vllm_xargs: Annotated[
        Mapping[
            str,
            str
            | Annotated[int, Bounds(ge=INT64_MIN, lt=2**64)]
            | float
            | Sequence[str | Annotated[int, Bounds(ge=INT64_MIN, lt=2**64)] | float],
        ]
        | None,
        Since("0.9.2"),
    ]
    """Arguments for server extensions. For translations since vLLM 0.27.

    Range: each at least `-2**63` and less than `2**64`. Since: vLLM 0.9.2.
    """


class BeamBase(TypedDict, total=False):
    """Beam search. Not for streams. A base."""

    use_beam_search: Annotated[bool | None, Default("False"), Since("0.18")]
    """Use beam search instead of sampling.

    Default: False. Since: vLLM 0.18.
    """
    n: Annotated[int | None, Bounds(ge=1), Default("1"), Since("0.18")]
    """The beam width. Only with `use_beam_search=True`.

    Range: at least 1. Default: 1. Since: vLLM 0.18.
    """
    length_penalty: Annotated[float | None, Default("1.0"), Since("0.18")]
    """How the search scores length: the sum of log probabilities is divided by length to this power.

    Only with `use_beam_search=True`.

    Default: 1.0. Since: vLLM 0.18.
    """
    include_stop_str_in_output: Annotated[bool | None, Default("False"), Since("0.18")]
    """Keep the stop text. Only with `use_beam_search=True`.

    Default: False. Since: vLLM 0.18.
    """


class AudioStreamBase(TypedDict, total=False):
    """Accepted by streams. A base."""

    stream_include_usage: Annotated[bool | None, Default("True")]
    """Send the usage at the end of the stream. The server's own default is False.

    Default: True.
    """
    stream_continuous_usage_stats: Annotated[bool | None, Default("False")]
    """Send the usage so far with each chunk. Only together with `stream_include_usage`.

    Default: False.
    """


class TranscribeParams(AudioBase, BeamBase, total=False, closed=True):
    """Parameters of `VLLMProvider.transcribe`."""

    response_format: Annotated[
        Literal["json", "text", "verbose_json", "diarized_json"] | None, Default('`"json"`')
    ]
    """What to return in addition to the text.

    `"verbose_json"`: the language, the duration and segments with timestamps, for models that support them (Whisper).
    `"diarized_json"`: who speaks when, since vLLM 0.27, for models that distinguish speakers. vLLM treats `"text"` like
    `"json"` and rejects the subtitle formats of OpenAI's API (`srt`, `vtt`).

    Default: `"json"`.
    """
    timestamp_granularities: Annotated[Sequence[Literal["word", "segment"]] | None, Length(1)]
    """Which timestamps to return. Only with `response_format="verbose_json"`; vLLM returns those of segments anyway.

    `"word"` is rejected here: vLLM accepts it but returns no word timestamps.

    Range: not empty.
    """


class TranslateParams(AudioBase, BeamBase, total=False, closed=True):
    """Parameters of `VLLMProvider.translate`."""

    response_format: Annotated[Literal["json", "text", "verbose_json"] | None, Default('`"json"`')]
    """What to return in addition to the text. `"verbose_json"`: the language, the duration and segments with
    timestamps, for models that support them (Whisper). vLLM treats `"text"` like `"json"`.

    Default: `"json"`.
    """


class OpenAITranslateParams(CallBase, total=False, closed=True):
    """Parameters of `OpenAIProvider.translate`."""

    prompt: str | None
    """English text that precedes the speech, or that shows the expected style and names."""
    temperature: Annotated[float | None, Bounds(ge=0, le=1), Default("0.0")]
    """Sampling temperature: 0 always chooses the most likely token.

    Range: between 0 and 1. Default: 0.0.
    """
    response_format: Annotated[Literal["json", "verbose_json"] | None, Default('`"json"`')]
    """What to return in addition to the text. `"verbose_json"`: the language, the duration and segments with
    timestamps.

    Default: `"json"`.
    """


class OpenAITranscribeParams(CallBase, total=False, closed=True):
    """Parameters of `OpenAIProvider.transcribe`."""

    language: str | None
    """The spoken language as a two-letter code, such as `en`. It improves the result."""
    prompt: str | None
    """Text that precedes the speech, or that shows the expected style and names."""
    temperature: Annotated[float | None, Bounds(ge=0, le=1), Default("0.0")]
    """Sampling temperature: 0 always chooses the most likely token.

    Range: between 0 and 1. Default: 0.0.
    """
    response_format: Annotated[Literal["json", "verbose_json", "diarized_json"] | None, Default('`"json"`')]
    """What to return in addition to the text. `"verbose_json"`: the language, the duration and timestamps.
    `"diarized_json"`: who speaks when.

    Default: `"json"`.
    """
    timestamp_granularities: Annotated[Sequence[Literal["word", "segment"]] | None, Length(1)]
    """Which timestamps to return. Only with `response_format="verbose_json"`.

    Range: not empty.
    """


class StreamTranscribeParams(AudioBase, AudioStreamBase, total=False, closed=True):
    """Parameters of `VLLMProvider.stream_transcribe`."""


class StreamTranslateParams(AudioBase, AudioStreamBase, total=False, closed=True):
    """Parameters of `VLLMProvider.stream_translate`."""
