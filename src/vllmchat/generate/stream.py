"""Streams of `generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from vllmchat.generate.generation import Generation, decode_chunk
from vllmchat.generate.request import generations_wanted
from vllmchat.http.reader import ChunkReader
from vllmchat.http.stream import AsyncEventStream, EventStream
from vllmchat.sampling.accumulate import ChoiceAccumulator
from vllmchat.wire.decode import ChunkDecoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.client.request import ModelRequest
    from vllmchat.generate.generation import GenerationChunk

_GROWING = frozenset({"token_ids", "text", "logprobs", "sampling_mask"})
_HEAD = frozenset({"request_id", "output_mode", "prompt_token_ids", "mm_placeholders", "metrics"})


def generation_reader(request: ModelRequest[Generation]) -> ChunkReader[GenerationChunk, Generation]:
    """Returns a reader of the events of `/inference/v1/generate`."""
    count = generations_wanted(cast("Mapping[str, object]", request.subject["sampling_params"]))
    accumulator = ChoiceAccumulator(Generation, expected=count, share=count, growing=_GROWING, head=_HEAD)
    return ChunkReader(ChunkDecoder(decode_chunk), accumulator, "generation")


class GenerationStream(EventStream["GenerationChunk", "Generation"]):
    """Streams the chunks of a generation (sync).

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server
    stops generating:

        with llm.stream_generate(prompt, max_tokens=100) as stream:
            for chunk in stream:
                tokens += chunk.token_ids
        print(stream.generation.usage)

    Nothing is sent until you iterate over it or enter it. Use it from one thread only.

    Raises:
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before `[DONE]` or a finish reason for every choice arrived.
        ResponseError: The stream contained something other than chunks.

    Each carries what has arrived so far as `partial`.
    """

    @property
    def generation(self) -> Generation:
        """The generation so far, from the chunks already yielded."""
        return self._reader.reply()


class AsyncGenerationStream(AsyncEventStream["GenerationChunk", "Generation"]):
    """Streams the chunks of a generation (async).

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server
    stops generating:

        async with llm.astream_generate(prompt, max_tokens=100) as stream:
            async for chunk in stream:
                tokens += chunk.token_ids
        print(stream.generation.usage)

    Nothing is sent until you iterate over it or enter it.

    Raises:
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before `[DONE]` or a finish reason for every choice arrived.
        ResponseError: The stream contained something other than chunks.

    Each carries what has arrived so far as `partial`.
    """

    @property
    def generation(self) -> Generation:
        """The generation so far, from the chunks already yielded."""
        return self._reader.reply()
