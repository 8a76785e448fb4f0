"""What the doubles receive and answer with, independent of how the bytes travel."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from vllmchat.wire.decode import as_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream; charset=utf-8"

DONE: Final = b"data: [DONE]\n\n"

GARBAGE: Final = b'\xff\xfe{"id": garb'
"""What `garbage` sends: neither JSON nor UTF-8."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that a double received.

    Attributes:
        method: For example `POST`.
        target: The path and the query, as sent.
        headers: Names in lower case. They may hold a key, and are not part of the `repr`.
        body: The bytes of the body.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def path(self) -> str:
        """The path, without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query after the question mark; empty if there is none."""
        return self.target.partition("?")[2]

    @property
    def json(self) -> dict[str, object]:
        """The body as a JSON object.

        Raises:
            ValueError: The body is not a JSON object.
        """
        body = as_object(json.loads(self.body))
        if body is None:
            raise ValueError(f"the body of {self.method} {self.path} is not a JSON object")
        return body


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with a response.

    Attributes:
        kind: `"drop"` closes the connection, `"stall"` sends nothing more, `"garbage"` sends bytes that are not JSON,
            `"hang_up"` closes the connection after the whole response, without notice.
        after: After how many pieces of the body: events of a stream. None: before the first byte of the response.
    """

    kind: Literal["drop", "stall", "garbage", "hang_up"]
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Drip:
    """Sends a body in small writes.

    Attributes:
        size: The size of each write, in bytes.
        seconds: The pause between two writes.
    """

    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Response:
    """A response of a double.

    Attributes:
        body: The bytes of a whole body, or the pieces of a stream.
        status: HTTP status.
        headers: Additional headers; `content-type` is JSON, or that of an event stream, unless it is given.
        before: Seconds before the response begins.
        between: Seconds between two pieces of a stream.
        fault: What goes wrong.
        drip: Whether the body is sent in small writes.
    """

    body: bytes | Sequence[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    before: float = 0.0
    between: float = 0.0
    fault: Fault | None = None
    drip: Drip | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a response is sent.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        length: The length of the body, or None for one that is sent in chunks.
    """

    status: int
    headers: dict[str, str]
    length: int | None


class Ending(Enum):
    """How a response ends."""

    DONE = "done"
    HANG_UP = "hang up"
    DROP = "drop"
    STALL = "stall"


Step: TypeAlias = Head | bytes | float | Ending
"""A head, a piece of the body, a pause in seconds, or an ending."""


def steps(response: Response) -> Iterator[Step]:
    """What is done for a response, in order. The last step is an ending."""
    fault = response.fault
    if response.before:
        yield response.before
    if fault is not None and fault.after is None and fault.kind in ("drop", "stall"):
        yield Ending.DROP if fault.kind == "drop" else Ending.STALL
        return
    streamed = not isinstance(response.body, bytes)
    pieces = [response.body] if isinstance(response.body, bytes) else list(response.body)
    if fault is not None and fault.kind == "garbage":
        pieces = [*pieces[: (fault.after or 0) if streamed else 0], _garbage(streamed)]
    headers = {"content-type": EVENTS if streamed else JSON, **response.headers}
    if not streamed and not pieces[0] and "content-type" not in response.headers:
        del headers["content-type"]
    yield Head(response.status, headers, None if streamed else len(pieces[0]))
    if not streamed and fault is not None and fault.kind in ("drop", "stall"):
        # Half a body, whatever the number of pieces: a whole one has only one.
        pieces = [pieces[0][: len(pieces[0]) // 2]]
    for number, piece in enumerate(pieces):
        if streamed and fault is not None and fault.after == number and fault.kind in ("drop", "stall"):
            break
        if number and response.between:
            yield response.between
        yield from _writes(piece, response.drip)
    yield _ENDINGS[fault.kind] if fault is not None else Ending.DONE


_ENDINGS: Final = {
    "drop": Ending.DROP,
    "stall": Ending.STALL,
    "garbage": Ending.DONE,
    "hang_up": Ending.HANG_UP,
}


def _garbage(streamed: bool) -> bytes:
    return b"data: " + GARBAGE + b"\n\n" if streamed else GARBAGE


def _writes(piece: bytes, drip: Drip | None) -> Iterator[Step]:
    if drip is None:
        yield piece
        return
    for start in range(0, len(piece), drip.size):
        if start:
            yield drip.seconds
        yield piece[start : start + drip.size]
