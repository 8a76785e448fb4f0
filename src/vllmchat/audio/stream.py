"""The stream of a transcription or translation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vllmchat.audio.transcription import AudioUsage, Transcription, decode_event
from vllmchat.http.reader import ChunkReader
from vllmchat.http.stream import AsyncReplyStream, ReplyStream
from vllmchat.wire.decode import ensure_built

if TYPE_CHECKING:
    from vllmchat.audio.transcription import TranscriptionChunk
    from vllmchat.wire.usage import Usage


class TranscriptionReader(ChunkReader["TranscriptionChunk", "Transcription"]):
    """Reads the events of `/v1/audio/transcriptions` and `/v1/audio/translations`."""

    result_attribute: ClassVar[str] = "transcription"

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []
        self._usage: Usage | None = None
        self._last = False

    def decode(self, data: bytes) -> TranscriptionChunk | dict[str, object]:
        """Decodes an event's data: a chunk, or the body of the error that it reports."""
        return decode_event(data)

    def add(self, item: TranscriptionChunk) -> None:
        """Adds the chunk to the transcription."""
        if item.text:
            self._pieces.append(item.text)
        if item.usage is not None:
            self._usage = item.usage
            self._last = not item.choices

    def is_complete(self) -> bool:
        """Whether the usage-only chunk has arrived. A finish reason ends only one segment of the audio."""
        return self._last

    def reply(self) -> Transcription:
        """The transcription so far; it may be empty."""
        ensure_built(AudioUsage)
        ensure_built(Transcription)
        usage = self._usage.model_dump(include=_TOLD) if self._usage is not None else None
        return Transcription.model_validate({"text": "".join(self._pieces), "usage": usage})


_TOLD = {"prompt_tokens", "completion_tokens", "total_tokens"}


class TranscriptionStream(ReplyStream["TranscriptionChunk", "Transcription"]):
    """The chunks of a transcription or translation as they arrive; sync.

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server stops
    generating:

        with llm.stream_transcribe("speech.mp3") as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.transcription.usage)

    The file is read and sent when the stream is first iterated over or entered. It must stay in one thread.

    Raises:
        InvalidRequestError: The file cannot be read.
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before the end was marked by `[DONE]` or the final usage.
        ResponseError: The stream contained something other than chunks.

    All but the first have what had arrived in `partial`.
    """

    @property
    def transcription(self) -> Transcription:
        """The text handed out so far."""
        return self._reader.reply()


class AsyncTranscriptionStream(AsyncReplyStream["TranscriptionChunk", "Transcription"]):
    """The chunks of a transcription or translation as they arrive; async.

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server stops
    generating:

        async with llm.astream_transcribe("speech.mp3") as stream:
            async for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.transcription.usage)

    The file is read, in a thread, and sent when the stream is first iterated over or entered.

    Raises:
        InvalidRequestError: The file cannot be read.
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before the end was marked by `[DONE]` or the final usage.
        ResponseError: The stream contained something other than chunks.

    All but the first have what had arrived in `partial`.
    """

    @property
    def transcription(self) -> Transcription:
        """The text handed out so far."""
        return self._reader.reply()
