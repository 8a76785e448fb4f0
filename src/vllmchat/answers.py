"""What whole responses have in common apart from their bodies."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Protocol, TypeVar

from pydantic import PrivateAttr

from vllmchat.http.call import Reply
from vllmchat.wire import WireModel, decode, not_this

A = TypeVar("A", bound="Answer")
P = TypeVar("P", bound="Indexed")


class Answer(WireModel):
    """Base of responses that know their request ID."""

    _request_id: str | None = PrivateAttr(default=None)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the response, else the one that was sent; None if it did not come over HTTP."""
        return self._request_id


class Indexed(Protocol):
    """A part of a response that says which input it belongs to."""

    index: int


def read_answer(model: type[A], reply: Reply, what: str, *, holds: str, context: object | None = None) -> A:
    """Decodes a JSON response.

    Args:
        model: The model to make of it.
        reply: The response.
        what: What it should be, with its article, for the error message.
        holds: A key that it must have.
        context: What the model's validators need to know.

    Raises:
        ResponseError: The body is not JSON or does not match the model.
    """
    answer = decode(model, reply.body, what, context=context)
    if holds not in answer.model_fields_set:
        raise not_this(what, reply.body, f"it has no {holds}")
    return stamped(answer, reply)


def stamped(answer: A, reply: Reply) -> A:
    """Returns the result with the response's request ID."""
    answer._request_id = reply.head.request_id  # pyright: ignore[reportPrivateUsage] - this module alone sets it
    return answer


def put_in_order(parts: list[P], wanted: int | None, what: str, reply: Reply) -> None:
    """Sorts the parts of a response into the order of the inputs.

    Args:
        parts: The parts.
        wanted: The expected number of parts; None if unknown.
        what: What the response is, with its article, for the error message.
        reply: The response.

    Raises:
        ResponseError: The number is wrong, so parts could be assigned to the wrong inputs.
    """
    if wanted is not None and len(parts) != wanted:
        raise not_this(what, reply.body, f"it has {len(parts)} results for {wanted} inputs")
    parts.sort(key=lambda part: part.index)
