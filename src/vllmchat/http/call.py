"""A request, and how to read its response."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from vllmchat.http.record import CallRecord
    from vllmchat.http.timeout import Timeout

T = TypeVar("T")

MAX_BODY_BYTES = 512 * 1024 * 1024
"""Size limit of a whole response. Prompt logprobs of a long prompt are the largest legitimate ones, far below this."""


# Plain classes, here and in what else every call needs: a dataclass takes a third of a millisecond to import, and a
# frozen one three times as long to make. Nobody changes their objects.

_NO_HEADERS: Final[Mapping[str, str]] = {}


class ResponseHead:
    """What precedes the body of a response.

    Attributes:
        status: HTTP status.
        headers: Response headers, names in lower case; the last of repeated ones.
        request_id: The `X-Request-Id` of the response, else the one that was sent.
        record: What happened during the call.
    """

    __slots__ = ("headers", "record", "request_id", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], request_id: str, record: CallRecord | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self.request_id = request_id
        self.record = record

    def with_headers(self, headers: Mapping[str, str]) -> ResponseHead:
        """A copy with other headers."""
        return ResponseHead(self.status, headers, self.request_id, self.record)


class Response:
    """A whole response.

    Attributes:
        head: Its head.
        body: Its body.
    """

    __slots__ = ("body", "head")

    def __init__(self, head: ResponseHead, body: bytes) -> None:
        self.head = head
        self.body = body


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

    __slots__ = (
        "accept", "accepted_statuses", "body", "content_type", "fields", "headers", "max_retries", "max_retry_seconds",
        "method", "outside_v1", "path", "read", "request_id", "route_hint", "timeout", "whole_too",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        read: Callable[[Response], T],
        timeout: Timeout,
        *,
        method: str = "POST",
        body: bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] = _NO_HEADERS,
        accept: str = "application/json",
        request_id: str | None = None,
        outside_v1: bool = False,
        max_retries: int | None = None,
        max_retry_seconds: float | None = None,
        route_hint: str | None = None,
        accepted_statuses: frozenset[int] = frozenset(),
        whole_too: bool = False,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        self.path = path
        self.read = read
        self.timeout = timeout
        self.method = method
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.accept = accept
        self.request_id = request_id
        self.outside_v1 = outside_v1
        self.max_retries = max_retries
        self.max_retry_seconds = max_retry_seconds
        self.route_hint = route_hint
        self.accepted_statuses = accepted_statuses
        self.whole_too = whole_too
        self.fields = fields

    def without_retries(self) -> Self:
        """A copy that is sent once."""
        call = copy.copy(self)
        call.max_retries = 0
        return call
