"""Streams of responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.errors import ResponseError
from vllmchat.http.reader import ErrorEvent, EventReader, marks_end
from vllmchat.http.stream import AsyncEventStream, EventStream
from vllmchat.responses.accumulate import ResponseAccumulator
from vllmchat.responses.events import LAST, ResponseStateEvent, decode_event, is_foreign
from vllmchat.wire.decode import find_error, keeps_alive
from vllmchat.wire.lenient import TornCharacters

if TYPE_CHECKING:
    from vllmchat.http.sse import ServerSentEvent
    from vllmchat.responses.events import ResponseEvent
    from vllmchat.responses.response import ModelResponse


class ResponseReader(EventReader["ResponseEvent", "ModelResponse"]):
    """Reads the events of `/v1/responses`, which end with one of the types in `LAST`, without `[DONE]`."""

    def __init__(self) -> None:
        super().__init__(ResponseAccumulator(), "response")
        self._torn = TornCharacters()

    def read_event(self, event: ServerSentEvent) -> ResponseEvent | None:
        """Parses a server-sent event as an event of the response."""
        data = event.data
        if not data.strip() or marks_end(data):
            # Some proxies send empty events as keep-alive, or end every stream with [DONE].
            return None
        try:
            item = decode_event(data, event.event, self._torn)
        except ResponseError:
            error = find_error(data, event.event)
            if error is not None:
                raise ErrorEvent(error) from None
            if keeps_alive(data, event.event) or (self._started and is_foreign(data)):
                # Gateways add events of their own.
                return None
            raise
        if item.type in LAST and isinstance(item, ResponseStateEvent):
            if item.type == "response.failed":
                raise ErrorEvent({"error": item.response.error or {"message": "the response failed"}})
            self.done = True
        return item


class ResponseStream(EventStream["ResponseEvent", "ModelResponse"]):
    """Streams the events of a response (sync).

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server
    stops generating:

        with llm.stream_respond("Tell me a story.") as stream:
            for event in stream:
                print(event.text_delta, end="", flush=True)
        print(stream.response.usage)

    Nothing is sent until you iterate over it or enter it. Use it from one thread only.

    Raises:
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before the last event. vLLM closes it if generation fails.
        ResponseError: The stream contained something other than events of a response.

    Each carries what has arrived so far as `partial`.
    """

    @property
    def response(self) -> ModelResponse:
        """The response so far, from the events already yielded; at the end, the server's own."""
        return self._reader.reply()


class AsyncResponseStream(AsyncEventStream["ResponseEvent", "ModelResponse"]):
    """Streams the events of a response (async).

    Iterate over it once. As a context manager it always closes, even if you leave early, and the server
    stops generating:

        async with llm.astream_respond("Tell me a story.") as stream:
            async for event in stream:
                print(event.text_delta, end="", flush=True)
        print(stream.response.usage)

    Nothing is sent until you iterate over it or enter it.

    Raises:
        APIStatusError: The server returned an error, at first or inside the stream.
        APIConnectionError: No response arrived, or a timeout expired.
        StreamInterruptedError: The connection ended before the last event. vLLM closes it if generation fails.
        ResponseError: The stream contained something other than events of a response.

    Each carries what has arrived so far as `partial`.
    """

    @property
    def response(self) -> ModelResponse:
        """The response so far, from the events already yielded; at the end, the server's own."""
        return self._reader.reply()
