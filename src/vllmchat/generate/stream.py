"""Streams of `generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from vllmchat.errors import ResponseError
from vllmchat.generate.generation import Generation, decode_event
from vllmchat.http.flow import content_type
from vllmchat.http.reader import ChunkReader
from vllmchat.http.sse import MAX_EVENT_BYTES, ServerSentEvent
from vllmchat.http.stream import AsyncReplyStream, ReplyStream
from vllmchat.sampling.accumulate import ChoiceAccumulator
from vllmchat.wire.decode import ensure_built

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllmchat.client.request import JSONRequest
    from vllmchat.generate.generation import GenerationChunk

_GROWING = frozenset({"token_ids", "text", "logprobs", "sampling_mask"})
_HEAD = frozenset({"request_id", "output_mode", "prompt_token_ids", "mm_placeholders", "metrics"})


class GenerationReader(ChunkReader["GenerationChunk", "Generation"]):
    """Reads the events of `/inference/v1/generate`."""

    result_attribute = "generation"

    def __init__(self, request: JSONRequest[Generation]) -> None:
        super().__init__()
        n = cast("Mapping[str, object]", request.subject["sampling_params"]).get("n")
        wanted = max(n, 1) if isinstance(n, int) else 1
        self._pieces = ChoiceAccumulator(expected=wanted, share=wanted, growing=_GROWING, head=_HEAD)
        self._body = bytearray()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Parses bytes as they arrive. A response that is not streamed is kept for `flush`."""
        if not self._body and self.head is not None:
            self.whole = content_type(self.head).endswith("json")
        if not self.whole:
            return super().feed(data)
        self._body += data
        if len(self._body) > MAX_EVENT_BYTES:
            self.failure = ResponseError(f"the response is larger than {MAX_EVENT_BYTES:,} bytes")
        return []

    def flush(self) -> list[ServerSentEvent]:
        """Returns a response that is not streamed as one event."""
        return [ServerSentEvent(bytes(self._body))] if self.whole else super().flush()

    def decode(self, data: bytes) -> GenerationChunk | dict[str, object]:
        """Parses an event's data as a chunk, or as the body of an error."""
        return decode_event(data)

    def add(self, item: GenerationChunk) -> None:
        """Adds a chunk to the generation."""
        self._pieces.add(item, item.choices, item.usage)

    def is_complete(self) -> bool:
        """Whether every choice has its finish reason."""
        return self._pieces.finished

    def reply(self) -> Generation:
        """Returns the generation so far, even if it is empty."""
        ensure_built(Generation)
        return Generation.model_validate(self._pieces.whole())


class GenerationStream(ReplyStream["GenerationChunk", "Generation"]):
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

    Each of them has what had arrived as `partial`.
    """

    @property
    def generation(self) -> Generation:
        """The generation so far, from the chunks already yielded."""
        return self._reader.reply()


class AsyncGenerationStream(AsyncReplyStream["GenerationChunk", "Generation"]):
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

    Each of them has what had arrived as `partial`.
    """

    @property
    def generation(self) -> Generation:
        """The generation so far, from the chunks already yielded."""
        return self._reader.reply()
