"""Streams of completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.client.request import replies_wanted
from vllmchat.completions.completion import TextCompletion, decode_chunk
from vllmchat.completions.request import choices_wanted
from vllmchat.http.reader import ChunkReader
from vllmchat.http.stream import AsyncEventStream, EventStream
from vllmchat.sampling.accumulate import ChoiceAccumulator
from vllmchat.wire.decode import ChunkDecoder

if TYPE_CHECKING:
    from vllmchat.client.request import ModelRequest
    from vllmchat.completions.completion import TextCompletionChunk

_GROWING = frozenset({"text", "logprobs", "token_ids"})
_HEAD = frozenset({"id", "created", "model", "system_fingerprint", "kv_transfer_params", "metrics"})


def text_reader(
    request: ModelRequest[TextCompletion],
) -> ChunkReader[TextCompletionChunk, TextCompletion]:
    """Returns a reader of the events of `/v1/completions`."""
    return ChunkReader(
        ChunkDecoder(decode_chunk),
        ChoiceAccumulator(
            TextCompletion,
            expected=choices_wanted(request.subject, request.params),
            share=replies_wanted(request.params),
            growing=_GROWING,
            head=_HEAD,
        ),
    )


class TextStream(EventStream["TextCompletionChunk", "TextCompletion"]):
    """Streams the chunks of a completion (sync).

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server
    stops generating:

        with llm.stream_complete("Once upon a time") as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.completion.usage)

    Nothing is sent until you iterate over it or enter it. Use it from one thread only.

    Raises:
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before `[DONE]` or a finish reason for every choice arrived.
        ResponseError: The stream contained something other than chunks.

    Each carries what has arrived so far as `partial`.
    """

    @property
    def completion(self) -> TextCompletion:
        """The completion so far, from the chunks already yielded; at the end, the same as without streaming."""
        return self._reader.reply()


class AsyncTextStream(AsyncEventStream["TextCompletionChunk", "TextCompletion"]):
    """Streams the chunks of a completion (async).

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server
    stops generating:

        async with llm.astream_complete("Once upon a time") as stream:
            async for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.completion.usage)

    Nothing is sent until you iterate over it or enter it.

    Raises:
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before `[DONE]` or a finish reason for every choice arrived.
        ResponseError: The stream contained something other than chunks.

    Each carries what has arrived so far as `partial`.
    """

    @property
    def completion(self) -> TextCompletion:
        """The completion so far, from the chunks already yielded; at the end, the same as without streaming."""
        return self._reader.reply()
