"""A request, and how to read its response."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vllmchat.http.record import CallRecord
    from vllmchat.http.timeout import Timeout

T = TypeVar("T")

MAX_BODY_BYTES = 512 * 1024 * 1024
"""Size limit of a whole response. Prompt logprobs of a long prompt are the largest legitimate ones, far below this."""


@dataclass(slots=True)  # not frozen: each response has one, and it would take three times as long to make
class ResponseHead:
    """What precedes the body of a response. Nobody changes it.

    Attributes:
        status: HTTP status.
        headers: Response headers, names in lower case; the last of repeated ones.
        request_id: The `X-Request-Id` of the response, else the one that was sent.
        record: What happened during the call.
    """

    status: int
    headers: Mapping[str, str]
    request_id: str
    record: CallRecord | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response."""

    head: ResponseHead
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, independent of where it goes and how the bytes travel.

    Attributes:
        path: The route below the base URL, such as `/chat/completions`.
        read: Makes the result of a whole response with a status below 300, or one of `accepted_statuses`.
        timeout: The timeouts.
        method: HTTP method.
        body: Body, or None.
        content_type: Media type of the body.
        headers: Extra headers, names in lower case; they take precedence over the client's own.
        accept: Accepted media type.
        request_id: Prefix of the attempts' `X-Request-Id`, or None for a random one.
        outside_v1: Whether the route is outside `/v1`.
        max_retries: Number of retries; None for the client's own setting.
        max_retry_seconds: For how long to retry, in seconds; None for the client's own setting.
        route_hint: What the server needs in order to have the route, as a sentence for the error message of a server
            without it.
        accepted_statuses: Statuses from 300 on that are valid results, not errors.
        whole_too: Whether a stream may also arrive as one whole JSON response.
        fields: The fields of the body of a call to a model, for those who observe it.
    """

    path: str
    read: Callable[[Response], T]
    timeout: Timeout
    method: str = "POST"
    body: bytes | None = field(default=None, repr=False)
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    accept: str = "application/json"
    request_id: str | None = None
    outside_v1: bool = False
    max_retries: int | None = None
    max_retry_seconds: float | None = None
    route_hint: str | None = None
    accepted_statuses: frozenset[int] = frozenset()
    whole_too: bool = False
    fields: Mapping[str, object] | None = field(default=None, repr=False)
