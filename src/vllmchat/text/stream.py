"""The stream of a completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.http.stream import AsyncReplyStream, ChunkReader, ReplyStream
from vllmchat.post import replies_wanted
from vllmchat.text.accumulate import Pieces
from vllmchat.text.completion import TextCompletion, decode_event, set_request_id
from vllmchat.text.request import choices_wanted
from vllmchat.wire import build

if TYPE_CHECKING:
    from vllmchat.post import Post
    from vllmchat.text.completion import TextCompletionChunk

_GROWING = frozenset({"text", "logprobs", "token_ids"})
_HEAD = frozenset({"id", "created", "model", "system_fingerprint", "metrics"})


class TextReader(ChunkReader["TextCompletionChunk", "TextCompletion"]):
    """Reads the events of `/v1/completions`."""

    def __init__(self, request: Post[TextCompletion]) -> None:
        super().__init__()
        share = replies_wanted(request.params)
        self._pieces = Pieces(expected=choices_wanted(request), share=share, growing=_GROWING, head=_HEAD)

    def decode(self, data: bytes) -> TextCompletionChunk | dict[str, object]:
        """Makes a chunk of an event's data, or finds the error that it tells."""
        return decode_event(data)

    def add(self, item: TextCompletionChunk) -> None:
        """Adds the chunk to the completion."""
        self._pieces.add(item, item.choices, item.usage)

    def end_is_proven(self) -> bool:
        """Whether every choice has its finish reason."""
        return self._pieces.finished

    def reply(self) -> TextCompletion:
        """The completion so far, also an empty one."""
        build(TextCompletion)
        completion = TextCompletion.model_validate(self._pieces.whole())
        if self.head is not None:
            set_request_id(completion, self.head.request_id)
        return completion


class TextStream(ReplyStream["TextCompletionChunk", "TextCompletion"]):
    """The chunks of a completion as they come, blocking.

    Iterate over it, once. Used as a context manager it is closed in the end, also when you leave early, and the
    server stops generating:

        with llm.stream_complete("Once upon a time") as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.completion.usage)

    Nothing is sent before it is iterated over or entered. It belongs to one thread.

    Raises:
        APIStatusError: The server answered with an error, at first or inside the stream.
        APIConnectionError: No answer came, or a limit of `Timeout` passed.
        StreamInterruptedError: The bytes stopped before the end was proven, by `[DONE]` or by a finish reason for
            every choice.
        ResponseError: Something else than chunks came.

    All of them carry what had arrived as `partial`.
    """

    @property
    def completion(self) -> TextCompletion:
        """The whole completion as far as it has been handed out; at the end what it would be without streaming."""
        return self._reader.reply()


class AsyncTextStream(AsyncReplyStream["TextCompletionChunk", "TextCompletion"]):
    """The chunks of a completion as they come, awaiting.

    Iterate over it, once. Used as a context manager it is closed in the end, also when you leave early, and the
    server stops generating:

        async with llm.astream_complete("Once upon a time") as stream:
            async for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(stream.completion.usage)

    Nothing is sent before it is iterated over or entered.

    Raises:
        APIStatusError: The server answered with an error, at first or inside the stream.
        APIConnectionError: No answer came, or a limit of `Timeout` passed.
        StreamInterruptedError: The bytes stopped before the end was proven, by `[DONE]` or by a finish reason for
            every choice.
        ResponseError: Something else than chunks came.

    All of them carry what had arrived as `partial`.
    """

    @property
    def completion(self) -> TextCompletion:
        """The whole completion as far as it has been handed out; at the end what it would be without streaming."""
        return self._reader.reply()
