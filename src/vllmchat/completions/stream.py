"""Streams of completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.client.request import replies_wanted
from vllmchat.completions.completion import TextCompletion, decode_event, set_request_id
from vllmchat.completions.request import choices_wanted
from vllmchat.http.reader import ChunkReader
from vllmchat.http.stream import AsyncReplyStream, ReplyStream
from vllmchat.sampling.accumulate import ChoiceAccumulator
from vllmchat.wire.decode import ensure_built

if TYPE_CHECKING:
    from vllmchat.client.request import JSONRequest
    from vllmchat.completions.completion import TextCompletionChunk

_GROWING = frozenset({"text", "logprobs", "token_ids"})
_HEAD = frozenset({"id", "created", "model", "system_fingerprint", "metrics"})


class TextReader(ChunkReader["TextCompletionChunk", "TextCompletion"]):
    """Reads the events of `/v1/completions`."""

    def __init__(self, request: JSONRequest[TextCompletion]) -> None:
        super().__init__()
        share = replies_wanted(request.params)
        self._pieces = ChoiceAccumulator(
            expected=choices_wanted(request), share=share, growing=_GROWING, head=_HEAD
        )

    def decode(self, data: bytes) -> TextCompletionChunk | dict[str, object]:
        """Parses an event's data as a chunk, or as the body of an error."""
        return decode_event(data)

    def add(self, item: TextCompletionChunk) -> None:
        """Adds a chunk to the completion."""
        self._pieces.add(item, item.choices, item.usage)

    def is_complete(self) -> bool:
        """Whether every choice has its finish reason."""
        return self._pieces.finished

    def reply(self) -> TextCompletion:
        """Returns the completion so far, even if it is empty."""
        ensure_built(TextCompletion)
        completion = TextCompletion.model_validate(self._pieces.whole())
        if self.head is not None:
            set_request_id(completion, self.head.request_id)
        return completion


class TextStream(ReplyStream["TextCompletionChunk", "TextCompletion"]):
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

    Each of them has what had arrived as `partial`.
    """

    @property
    def completion(self) -> TextCompletion:
        """The completion so far, from the chunks already yielded; at the end, the same as without streaming."""
        return self._reader.reply()


class AsyncTextStream(AsyncReplyStream["TextCompletionChunk", "TextCompletion"]):
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

    Each of them has what had arrived as `partial`.
    """

    @property
    def completion(self) -> TextCompletion:
        """The completion so far, from the chunks already yielded; at the end, the same as without streaming."""
        return self._reader.reply()
