"""Whole answers: what they have in common beside their body."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import TypeVar

from pydantic import PrivateAttr

from vllmchat.http.call import Reply
from vllmchat.wire import WireModel, decode, not_this

A = TypeVar("A", bound="Answer")


class Answer(WireModel):
    """Base of answers that tell under which request id they came."""

    _request_id: str | None = PrivateAttr(default=None)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer, else the one that was sent; None when it did not come over HTTP."""
        return self._request_id


def read_answer(model: type[A], reply: Reply, what: str, *, holds: str) -> A:
    """Read a JSON answer.

    Args:
        model: What to make of it.
        reply: The answer.
        what: What it should be, with its article, for the error.
        holds: The key without which it is something else.

    Raises:
        ResponseError: The body is not JSON or not of this shape.
    """
    answer = decode(model, reply.body, what)
    if holds not in answer.model_fields_set:
        raise not_this(what, reply.body, f"it has no {holds}")
    return stamped(answer, reply)


def stamped(answer: A, reply: Reply) -> A:
    """The answer, told under which request id it came."""
    answer._request_id = reply.head.request_id  # pyright: ignore[reportPrivateUsage] - this module alone sets it
    return answer
