"""How an answer of a script is delivered: late, in small pieces, or not to its end.

Each function here takes an answer and returns one, so they can be nested: `slow(drop("Once upon a time", after=2))`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from vllmchat.testing.exchange import DONE, Drip, Fault, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vllmchat.testing.errors import ErrorReply
    from vllmchat.testing.script import Answer

Deliverable: TypeAlias = "Answer | Mapping[str, object] | Sequence[object] | bytes | Response"
"""What can be delivered: an answer of a script, or of a route; see `FakeServer.on`."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An answer, and how it is delivered. The functions of this module make one.

    Attributes:
        answer: The answer.
        change: Changes its response.
    """

    answer: Deliverable
    change: Callable[[Response], Response]


def slow(answer: Deliverable, before: float = 0.0, between: float = 0.0) -> Delivery:
    """Delivers an answer late.

    Args:
        answer: The answer.
        before: Seconds before the response begins.
        between: Seconds between two pieces of a stream.
    """
    return Delivery(answer, lambda response: replace(response, before=before, between=between))


def drip(answer: Deliverable, size: int = 1, seconds: float = 0.0) -> Delivery:
    """Delivers the body of an answer in small writes.

    Args:
        answer: The answer.
        size: The size of each write, in bytes; at least 1.
        seconds: The pause between two writes.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    return Delivery(answer, lambda response: replace(response, drip=Drip(size, seconds)))


def drop(answer: Deliverable = "", after: int | None = None) -> Delivery:
    """Closes the connection before the answer is complete.

    Args:
        answer: The answer.
        after: After how many events of a stream; the first one has only the role. None: before the first byte. An
            answer that is not streamed is cut in the middle, whatever the number. If a connection that has served a
            request before closes without a byte, the client sends the request again, once, on a new one.
    """
    return _faulty(answer, Fault("drop", after))


def stall(answer: Deliverable = "", after: int | None = None) -> Delivery:
    """Sends nothing more, but keeps the connection open.

    Args:
        answer: The answer.
        after: See `drop`.
    """
    return _faulty(answer, Fault("stall", after))


def garbage(answer: Deliverable = "", after: int | None = None) -> Delivery:
    """Sends bytes that are neither JSON nor UTF-8, instead of the rest of the answer.

    Args:
        answer: The answer.
        after: After how many events of a stream. None: from the start.
    """
    return _faulty(answer, Fault("garbage", after))


def fail(answer: Deliverable, error: ErrorReply, after: int = 1) -> Delivery:
    """Ends a stream with an error of the server, as vLLM does when a request fails after its response began.

    Args:
        answer: The answer.
        error: The error; see `error`.
        after: After how many events. An answer that is not streamed is the error alone.
    """

    def change(response: Response) -> Response:
        if isinstance(response.body, bytes):
            return error.response()
        return replace(response, body=[*response.body[:after], error.event(), DONE])

    return Delivery(answer, change)


def hang_up(answer: Deliverable) -> Delivery:
    """Closes the connection after the answer, without notice, so that the next request must open a new one.

    Args:
        answer: The answer.
    """
    return _faulty(answer, Fault("hang_up"))


def _faulty(answer: Deliverable, fault: Fault) -> Delivery:
    if fault.after is not None and fault.after < 0:
        raise ValueError(f"after must be at least 0 or None, not {fault.after}")
    return Delivery(answer, lambda response: replace(response, fault=fault))
