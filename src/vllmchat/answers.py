"""Whole answers: what they have in common beside their body."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Protocol, TypeVar

from pydantic import PrivateAttr

from vllmchat.http.call import Reply
from vllmchat.wire import WireModel, decode, not_this

A = TypeVar("A", bound="Answer")
P = TypeVar("P", bound="Indexed")


class Answer(WireModel):
    """Base of answers that tell under which request id they came."""

    _request_id: str | None = PrivateAttr(default=None)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer, else the one that was sent; None when it did not come over HTTP."""
        return self._request_id


class Indexed(Protocol):
    """A part of an answer that tells which input it belongs to."""

    index: int


def read_answer(model: type[A], reply: Reply, what: str, *, holds: str, context: object | None = None) -> A:
    """Read a JSON answer.

    Args:
        model: What to make of it.
        reply: The answer.
        what: What it should be, with its article, for the error.
        holds: The key without which it is something else.
        context: What the model's validators must know.

    Raises:
        ResponseError: The body is not JSON or not of this shape.
    """
    answer = decode(model, reply.body, what, context=context)
    if holds not in answer.model_fields_set:
        raise not_this(what, reply.body, f"it has no {holds}")
    return stamped(answer, reply)


def stamped(answer: A, reply: Reply) -> A:
    """The answer, told under which request id it came."""
    answer._request_id = reply.head.request_id  # pyright: ignore[reportPrivateUsage] - this module alone sets it
    return answer


def put_in_order(parts: list[P], wanted: int | None, what: str, reply: Reply) -> None:
    """Puts the parts of an answer into the order of the inputs.

    Args:
        parts: The parts.
        wanted: How many there must be; None when that is not known.
        what: What the answer is, with its article, for the error.
        reply: The answer.

    Raises:
        ResponseError: There are more or fewer: they could be taken for those of other inputs.
    """
    if wanted is not None and len(parts) != wanted:
        raise not_this(what, reply.body, f"it has {len(parts)} results for {wanted} inputs")
    parts.sort(key=lambda part: part.index)
