"""The methods for speech models."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from vllmchat.audio import request as requests, stream as streams
    from vllmchat.audio.params import (
        OpenAITranscribeParams,
        OpenAITranslateParams,
        StreamTranscribeParams,
        StreamTranslateParams,
        TranscribeParams,
        TranslateParams,
    )
    from vllmchat.audio.request import (
        Upload,
    )
    from vllmchat.audio.stream import AsyncTranscriptionStream, TranscriptionStream
    from vllmchat.audio.transcription import Transcription
    from vllmchat.audio.upload import AudioFile
    from vllmchat.http.clock import Clock
    from vllmchat.http.exchange import AsyncExchange, SyncExchange
else:
    requests = LazyModule("vllmchat.audio.request")
    streams = LazyModule("vllmchat.audio.stream")


class AudioMethods(ProviderBase):
    """The methods for a speech model on a vLLM server."""

    def transcribe(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[TranscribeParams]
    ) -> Transcription:
        """Transcribes an audio file.

        Args:
            file: A path, the bytes of a file, or a file opened for reading bytes; the last two optionally in a tuple
                with a file name: `("speech.mp3", data)`. Formats: flac, mp3, m4a, ogg, wav and whatever else the server
                can read.
            model: The model, for this call.
            **params: See `TranscribeParams`.

        Raises:
            InvalidRequestError: The file cannot be read or a parameter is wrong; nothing was sent.
            NotFoundError: The model does not accept audio.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a transcription.
        """
        return self._run(requests.upload("transcribe", file, params).read(), model)

    async def atranscribe(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[TranscribeParams]
    ) -> Transcription:
        """Async version of `transcribe`."""
        return await self._arun(await requests.upload("transcribe", file, params).aread(), model)

    def translate(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[TranslateParams]
    ) -> Transcription:
        """Translates the speech in an audio file; Whisper translates to English. Since vLLM 0.9.2.

        Args:
            file: A path, the bytes of a file, or a file opened for reading bytes; the last two optionally in a tuple
                with a file name: `("speech.mp3", data)`.
            model: The model, for this call.
            **params: See `TranslateParams`.

        Raises:
            InvalidRequestError: The file cannot be read or a parameter is wrong; nothing was sent.
            NotFoundError: The model does not accept audio.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a translation.
        """
        return self._run(requests.upload("translate", file, params).read(), model)

    async def atranslate(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[TranslateParams]
    ) -> Transcription:
        """Async version of `translate`."""
        return await self._arun(await requests.upload("translate", file, params).aread(), model)

    def stream_transcribe(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[StreamTranscribeParams]
    ) -> TranscriptionStream:
        """Transcribes an audio file and streams the text as it is generated.

        The file is read and sent when the stream is iterated over or entered. The stream ends with the usage,
        unless `stream_include_usage` says otherwise.

        Args:
            file: See `transcribe`.
            model: The model, for this call.
            **params: See `StreamTranscribeParams`.

        Raises:
            InvalidRequestError: A parameter is wrong. All other errors are raised by the stream.
        """
        return self._stream_audio(requests.upload("stream_transcribe", file, params), model)

    def astream_transcribe(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[StreamTranscribeParams]
    ) -> AsyncTranscriptionStream:
        """Async version of `stream_transcribe`."""
        return self._astream_audio(requests.upload("stream_transcribe", file, params), model)

    def stream_translate(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[StreamTranslateParams]
    ) -> TranscriptionStream:
        """Translates the speech in an audio file and streams the text as it is generated. Since vLLM 0.9.2.

        The file is read and sent when the stream is iterated over or entered. The stream ends with the usage,
        unless `stream_include_usage` says otherwise.

        Args:
            file: See `translate`.
            model: The model, for this call.
            **params: See `StreamTranslateParams`.

        Raises:
            InvalidRequestError: A parameter is wrong. All other errors are raised by the stream.
        """
        return self._stream_audio(requests.upload("stream_translate", file, params), model)

    def astream_translate(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[StreamTranslateParams]
    ) -> AsyncTranscriptionStream:
        """Async version of `stream_translate`."""
        return self._astream_audio(requests.upload("stream_translate", file, params), model)

    def _stream_audio(self, upload: Upload, model: str | None) -> TranscriptionStream:
        return streams.TranscriptionStream(
            streams.transcription_reader(), partial(self._open_audio, upload, model)
        )

    def _astream_audio(self, upload: Upload, model: str | None) -> AsyncTranscriptionStream:
        return streams.AsyncTranscriptionStream(
            streams.transcription_reader(), partial(self._aopen_audio, upload, model)
        )

    def _open_audio(self, upload: Upload, model: str | None, begin: Callable[[Clock], None]) -> SyncExchange:
        return self._open(upload.read(), model, begin)

    async def _aopen_audio(self, upload: Upload, model: str | None) -> AsyncExchange:
        return await self._aopen(await upload.aread(), model)


class OpenAIAudioMethods(ProviderBase):
    """The methods for a speech model on any OpenAI-compatible server."""

    def transcribe(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[OpenAITranscribeParams]
    ) -> Transcription:
        """Transcribes an audio file.

        Args:
            file: A path, the bytes of a file, or a file opened for reading bytes; the last two optionally in a tuple
                with a file name: `("speech.mp3", data)`.
            model: The model, for this call.
            **params: See `OpenAITranscribeParams`.

        Raises:
            InvalidRequestError: The file cannot be read or a parameter is wrong; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a transcription.
        """
        return self._run(requests.upload("openai_transcribe", file, params).read(), model)

    async def atranscribe(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[OpenAITranscribeParams]
    ) -> Transcription:
        """Async version of `transcribe`."""
        return await self._arun(await requests.upload("openai_transcribe", file, params).aread(), model)

    def translate(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[OpenAITranslateParams]
    ) -> Transcription:
        """Translates the speech in an audio file to English.

        Args:
            file: See `transcribe`.
            model: The model, for this call.
            **params: See `OpenAITranslateParams`.

        Raises:
            InvalidRequestError: The file cannot be read or a parameter is wrong; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a translation.
        """
        return self._run(requests.upload("openai_translate", file, params).read(), model)

    async def atranslate(
        self, file: AudioFile, *, model: str | None = None, **params: Unpack[OpenAITranslateParams]
    ) -> Transcription:
        """Async version of `translate`."""
        return await self._arun(await requests.upload("openai_translate", file, params).aread(), model)
