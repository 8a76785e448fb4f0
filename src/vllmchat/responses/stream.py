"""The stream of a response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.errors import ResponseError
from vllmchat.http.stream import AsyncReplyStream, ErrorEvent, ReplyReader, ReplyStream
from vllmchat.responses.accumulate import ResponseSoFar
from vllmchat.responses.events import LAST, ResponseStateEvent, decode_event
from vllmchat.responses.response import set_request_id
from vllmchat.wire import as_object, find_error

if TYPE_CHECKING:
    from vllmchat.http.sse import ServerSentEvent
    from vllmchat.responses.events import ResponseEvent
    from vllmchat.responses.response import ModelResponse


class ResponseReader(ReplyReader["ResponseEvent", "ModelResponse"]):
    """Reads the events of `/v1/responses`, which end with one of the types of `LAST` and without `[DONE]`."""

    kept_in = "response"

    def __init__(self) -> None:
        super().__init__()
        self._so_far = ResponseSoFar()

    def read_event(self, event: ServerSentEvent) -> ResponseEvent | None:
        """Makes an event of the response."""
        data = event.data
        if not data.strip() or data.startswith(b"[DONE]"):
            # Some proxies keep a connection alive with empty events, or end any stream as they end chats.
            return None
        try:
            item = decode_event(data, event.event)
        except ResponseError:
            error = find_error(data) or _told_error(data, event.event)
            if error is None:
                raise
            raise ErrorEvent(error) from None
        if item.type in LAST and isinstance(item, ResponseStateEvent):
            if item.type == "response.failed":
                raise ErrorEvent({"error": item.response.error or {"message": "the response failed"}})
            self.done = True
        return item

    def add(self, item: ResponseEvent) -> None:
        """Adds the event to the response."""
        self._so_far.add(item)

    def end_is_proven(self) -> bool:
        """Never without the last event: nothing else tells that the model has ended."""
        return self._so_far.last is not None

    def reply(self) -> ModelResponse:
        """The response so far, also an empty one."""
        response = self._so_far.response()
        if self.head is not None:
            set_request_id(response, self.head.request_id)
        return response


def _told_error(data: bytes, kind: str) -> dict[str, object] | None:
    """The error of an `event: error`, in the form of others."""
    from pydantic_core import from_json

    try:
        body = as_object(from_json(data))
    except ValueError:
        return None
    if body is None or "error" not in (kind, body.get("type")):
        return None
    return {"error": body}


class ResponseStream(ReplyStream["ResponseEvent", "ModelResponse"]):
    """The events of a response as they come, blocking.

    Iterate over it, once. Used as a context manager it is closed in the end, also when you leave early, and the
    server stops generating:

        with llm.stream_respond("Tell me a story.") as stream:
            for event in stream:
                print(event.text_delta, end="", flush=True)
        print(stream.response.usage)

    Nothing is sent before it is iterated over or entered. It belongs to one thread.

    Raises:
        APIStatusError: The server answered with an error, at first or inside the stream.
        APIConnectionError: No answer came, or a limit of `Timeout` passed.
        StreamInterruptedError: The bytes stopped before the last event. vLLM breaks off so where generating fails.
        ResponseError: Something else than events of a response came.

    All of them carry what had arrived as `partial`.
    """

    @property
    def response(self) -> ModelResponse:
        """The whole response as far as it has been handed out; at the end as the server tells it."""
        return self._reader.reply()


class AsyncResponseStream(AsyncReplyStream["ResponseEvent", "ModelResponse"]):
    """The events of a response as they come, awaiting.

    Iterate over it, once. Used as a context manager it is closed in the end, also when you leave early, and the
    server stops generating:

        async with llm.astream_respond("Tell me a story.") as stream:
            async for event in stream:
                print(event.text_delta, end="", flush=True)
        print(stream.response.usage)

    Nothing is sent before it is iterated over or entered.

    Raises:
        APIStatusError: The server answered with an error, at first or inside the stream.
        APIConnectionError: No answer came, or a limit of `Timeout` passed.
        StreamInterruptedError: The bytes stopped before the last event. vLLM breaks off so where generating fails.
        ResponseError: Something else than events of a response came.

    All of them carry what had arrived as `partial`.
    """

    @property
    def response(self) -> ModelResponse:
        """The whole response as far as it has been handed out; at the end as the server tells it."""
        return self._reader.reply()
