"""The stream of a transcription or translation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.audio.transcription import AudioUsage, Transcription, decode_chunk
from vllmchat.http.reader import ChunkReader
from vllmchat.http.stream import AsyncEventStream, EventStream
from vllmchat.wire.decode import ChunkDecoder, ensure_built, with_record

if TYPE_CHECKING:
    from vllmchat.audio.transcription import TranscriptionChunk
    from vllmchat.http.call import ResponseHead
    from vllmchat.wire.usage import Usage


def transcription_reader() -> ChunkReader[TranscriptionChunk, Transcription]:
    """Returns a reader of the events of `/v1/audio/transcriptions` and `/v1/audio/translations`."""
    return ChunkReader(ChunkDecoder(decode_chunk), _TranscriptionAccumulator(), "transcription")


class _TranscriptionAccumulator:
    """Accumulates chunks of text."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._usage: Usage | None = None
        self._running: bool | None = None
        self.finished = False

    def add(self, item: TranscriptionChunk) -> None:
        if item.text:
            self._pieces.append(item.text)
        for choice in item.choices:
            # It ends only one segment of the audio.
            self._running = choice.finish_reason is None
        if item.usage is not None:
            self._usage = item.usage
            # Only the usage by itself is the end.
            self.finished = not item.choices

    def shortfall(self) -> str | None:
        if self._running is None:
            return "it has no choices"
        return "it has no finish reason" if self._running else None

    def reply(self, *, head: ResponseHead | None, ended: bool) -> Transcription:
        ensure_built(AudioUsage)
        ensure_built(Transcription)
        usage = self._usage.model_dump(include=_TOKEN_COUNTS) if self._usage is not None else None
        transcription = Transcription.model_validate({"text": "".join(self._pieces), "usage": usage})
        return with_record(transcription, head)


_TOKEN_COUNTS = {"prompt_tokens", "completion_tokens", "total_tokens"}


class TranscriptionStream(EventStream["TranscriptionChunk", "Transcription"]):
    """Streams the chunks of a transcription or translation (sync).

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server stops
    generating:

        with llm.stream_transcribe("speech.mp3") as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.transcription.usage)

    The file is read and sent when you iterate over it or enter it. Use it from one thread only.

    Raises:
        InvalidRequestError: The file cannot be read.
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before the end was marked by `[DONE]` or the final usage.
        ResponseError: The stream contained something other than chunks.

    All but the first carry what has arrived so far as `partial`.
    """

    @property
    def transcription(self) -> Transcription:
        """The transcription so far, from the chunks already yielded."""
        return self._reader.reply()


class AsyncTranscriptionStream(AsyncEventStream["TranscriptionChunk", "Transcription"]):
    """Streams the chunks of a transcription or translation (async).

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server stops
    generating:

        async with llm.astream_transcribe("speech.mp3") as stream:
            async for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.transcription.usage)

    The file is read, in a thread, and sent when you iterate over it or enter it.

    Raises:
        InvalidRequestError: The file cannot be read.
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before the end was marked by `[DONE]` or the final usage.
        ResponseError: The stream contained something other than chunks.

    All but the first carry what has arrived so far as `partial`.
    """

    @property
    def transcription(self) -> Transcription:
        """The transcription so far, from the chunks already yielded."""
        return self._reader.reply()
