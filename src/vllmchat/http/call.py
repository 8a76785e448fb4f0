"""One request, and how to read its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllmchat.http.timeout import Timeout

T = TypeVar("T")

MAX_BODY_BYTES = 512 * 1024 * 1024
"""What a whole reply may hold. Prompt logprobs of a long prompt are the largest honest ones, far below this."""


@dataclass(frozen=True, slots=True)
class Head:
    """What precedes the body of an answer.

    Attributes:
        status: HTTP status.
        headers: Response headers, names in lower case; of repeated ones the last.
        request_id: The `X-Request-Id` of the answer, else the one that was sent.
    """

    status: int
    headers: Mapping[str, str]
    request_id: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    head: Head
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, independent of where it goes and of how bytes travel.

    Attributes:
        path: Route below the base URL, such as `/chat/completions`.
        read: Makes the result of a whole answer with a status below 300, or one of `answers`.
        timeout: Limits on waiting.
        method: HTTP method.
        body: Body, or None.
        content_type: Media type of the body.
        headers: Extra headers; they win over the client's own.
        accept: Media type that is asked for.
        request_id: What the attempts' `X-Request-Id` begins with, or None for a random one.
        outside_v1: Whether the route stands beside `/v1`, not below it.
        max_body: Bytes that the answer may hold.
        max_retries: How often to try again; None is the client's own number.
        needs: What a server must be or be started with to have the route, as a sentence for the error of one that
            has not.
        answers: Statuses from 300 on that are answers to this question, not errors.
        whole_too: Whether a stream may come as one whole answer in JSON.
    """

    path: str
    read: Callable[[Reply], T]
    timeout: Timeout
    method: str = "POST"
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    accept: str = "application/json"
    request_id: str | None = None
    outside_v1: bool = False
    max_body: int = MAX_BODY_BYTES
    max_retries: int | None = None
    needs: str | None = None
    answers: frozenset[int] = frozenset()
    whole_too: bool = False
