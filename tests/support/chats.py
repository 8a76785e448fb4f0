"""Small chats as a server returns them, for tests of the transport."""

from __future__ import annotations

from typing import Any

from support.scripted import Answer, Request, reply, stream

Object = dict[str, Any]


def completion(text: str = "hi", **fields: Any) -> Object:
    """The body of a whole reply."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **fields}


def chunk(text: str = "", finish: str | None = None) -> Object:
    """One chunk of a stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def chunks(*texts: str) -> list[Object]:
    """The chunks of a stream to its finish reason."""
    return [*(chunk(text) for text in texts), chunk(finish="stop")]


def models(*names: str) -> Object:
    """The response of `/v1/models`."""
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


def answer_any(request: Request) -> Answer:
    """Responds to any request of a provider, streamed or not; the reply is the last message's text."""
    if request.path.endswith("/models"):
        return reply(models("served"))
    if not request.body:
        return reply({"detail": "Not Found"}, 404)  # a job asks for metrics
    body: Object = request.json()
    text: str = body["messages"][-1]["content"]
    return stream(chunks(text[:1], text[1:])) if body.get("stream") else reply(completion(text))
