"""What a provider can send: a request to the server itself, or a validated one to a model.

The model and the timeout are filled in later.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar, cast

from vllmchat.checking.headers import is_header_value
from vllmchat.checking.since import HARMLESS
from vllmchat.errors import InvalidRequestError
from vllmchat.http.call import Call
from vllmchat.http.timeout import Timeout
from vllmchat.versions import fit, must_ask, needs, read_version
from vllmchat.wire.encode import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vllmchat.checking.validator import CheckedParams
    from vllmchat.http.call import Response
    from vllmchat.versions import Version

T = TypeVar("T")


class ServerRequest(Generic[T]):
    """A request to the server itself, not to a model. It depends on neither model nor version.

    Attributes:
        path: The route, including its query.
        read: Makes the result of the response.
        timeout: Its own timeout; a number sets `total`.
        method: HTTP method.
        body: JSON body, or None.
        outside_v1: Whether the route is outside `/v1`, as most of these are.
        route_hint: See `Call`.
        accepted_statuses: See `Call`.
        headers: Headers of this request, in addition to the provider's.
    """

    __slots__ = (
        "accepted_statuses", "body", "headers", "method", "outside_v1", "path", "read", "route_hint", "timeout"
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        read: Callable[[Response], T],
        timeout: float | Timeout | None = None,
        method: str = "GET",
        body: bytes | None = None,
        outside_v1: bool = True,
        route_hint: str | None = None,
        accepted_statuses: frozenset[int] = frozenset(),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.read = read
        self.timeout = timeout
        self.method = method
        self.body = body
        self.outside_v1 = outside_v1
        self.route_hint = route_hint
        self.accepted_statuses = accepted_statuses
        self.headers = headers

    def limits(self, default: Timeout) -> Timeout:
        """The timeouts of the call: its own in place of the provider's."""
        return Timeout.of(self.timeout, default)

    def call(self, timeout: Timeout) -> Call[T]:
        """Makes the call.

        Args:
            timeout: The provider's timeout; the request's own takes precedence.
        """
        return Call(
            self.path,
            self.read,
            Timeout.of(self.timeout, timeout),
            method=self.method,
            body=self.body,
            headers=self.headers or {},
            outside_v1=self.outside_v1,
            route_hint=self.route_hint,
            accepted_statuses=self.accepted_statuses,
        )


def _json(fields: Mapping[str, object]) -> tuple[bytes, str]:
    return encode_json(fields), "application/json"


class ModelRequest(Generic[T]):
    """A validated request to a model. Its body is JSON, unless `encode` says otherwise.

    Attributes:
        path: The route.
        subject: What the request is about, such as its messages.
        params: The checked parameters.
        read: Makes the result of the response.
        stream: Whether the response is streamed.
        ask_usage: Whether to ask a stream for its usage, unless the parameters say otherwise.
        outside_v1: Whether the route is outside `/v1`.
        route_hint: See `Call`.
        whole_too: See `Call`.
        older: The parameters for servers older than certain versions, oldest first.
        encode: Makes the body and its media type of the fields. Raises `InvalidRequestError` if they cannot be sent.
    """

    __slots__ = (
        "ask_usage", "encode", "older", "outside_v1", "params", "path", "read", "route_hint", "stream", "subject",
        "whole_too",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        subject: Mapping[str, object],
        params: CheckedParams,
        read: Callable[[Response], T],
        stream: bool = False,
        ask_usage: bool = False,
        outside_v1: bool = False,
        route_hint: str | None = None,
        whole_too: bool = False,
        older: Sequence[tuple[Version, CheckedParams]] = (),
        encode: Callable[[Mapping[str, object]], tuple[bytes, str]] = _json,
    ) -> None:
        self.path = path
        self.subject = subject
        self.params = params
        self.read = read
        self.stream = stream
        self.ask_usage = ask_usage
        self.outside_v1 = outside_v1
        self.route_hint = route_hint
        self.whole_too = whole_too
        self.older = older
        self.encode = encode

    @property
    def needs_version(self) -> bool:
        """Whether it is written differently for some versions of the server, or rejected for them."""
        return bool(self.params.newer) or must_ask(self.params.fields, self.path)

    def for_version(self, version: Version) -> ModelRequest[T]:
        """Returns the request for a given server version.

        Raises:
            InvalidRequestError: The server is too old for it.
        """
        params = next((older for since, older in self.older if version < since), self.params)
        request = copy.copy(self)
        request.params, request.older = suit(params, version, self.path), ()
        return request

    def limits(self, default: Timeout) -> Timeout:
        """The timeouts of the call: its own in place of the provider's."""
        return Timeout.of(self.params.timeout, default)

    def call(self, model: str, timeout: Timeout) -> Call[T]:
        """Makes the call.

        Args:
            model: The model's name.
            timeout: The provider's timeout; the request's own takes precedence.

        Raises:
            InvalidRequestError: Something in the request cannot be sent.
        """
        body: dict[str, object] = {"model": model, **self.subject, **self.params.fields}
        rank = body.pop("data_parallel_rank", None)  # only a header
        if body.get("top_k") == 0:
            body["top_k"] = -1  # the only "off" in vLLM 0.8; later versions accept both
        if self.stream:
            body["stream"] = True
            if self.ask_usage:
                # Always explicit: the default differs between server versions.
                options = cast("Mapping[str, object]", body.get("stream_options", {}))
                set_options = {name: value for name, value in options.items() if value is not None}
                body["stream_options"] = {"include_usage": True, **set_options}
        if self.params.extra_body is not None:
            body.update(self.params.extra_body)
        raw, content_type = self.encode(body)
        request_id = body.get("request_id")
        headers = _routing_headers(body.get("session_id"), rank)
        if self.params.extra_headers:
            headers.update((name.lower(), value) for name, value in self.params.extra_headers.items())
        return Call(
            self.path,
            self.read,
            Timeout.of(self.params.timeout, timeout),
            body=raw,
            content_type=content_type,
            headers=headers,
            accept="text/event-stream" if self.stream else "application/json",
            request_id=request_id if isinstance(request_id, str) else None,
            max_retry_seconds=self.params.max_retry_seconds,
            outside_v1=self.outside_v1,
            route_hint=self.route_hint,
            whole_too=self.whole_too,
            fields=body,
        )


def _routing_headers(session: object, rank: object) -> dict[str, str]:
    """The headers by which servers and routers choose a replica."""
    headers: dict[str, str] = {}
    if isinstance(session, str) and session and is_header_value(session):
        headers["x-session-id"] = session
    if rank is not None:
        headers["x-data-parallel-rank"] = str(rank)
    return headers


Request: TypeAlias = ServerRequest[T] | ModelRequest[T]
"""What a provider can send."""


def suit(params: CheckedParams, version: Version, route: str) -> CheckedParams:
    """Returns the parameters for a given server version. Warns about parameters that it ignores harmlessly.

    Args:
        params: The parameters.
        version: The server's version.
        route: The route, below `/v1` if it is there.

    Raises:
        InvalidRequestError: The server is too old for some of them and would silently ignore them.
    """
    lacking = {
        name: needs(name, since, version)
        for name, required in params.newer.items()
        if version < (since := read_version(required))
    }
    problems = [problem for name, problem in lacking.items() if name not in HARMLESS]
    try:
        fields = fit(params.fields, version, route)
    except InvalidRequestError as error:
        problems += error.problems
        fields = params.fields
    if problems:
        raise InvalidRequestError(problems)
    if lacking:
        level = _callers_level()
        for name in lacking:
            warnings.warn(f"the server ignores {lacking[name]}", stacklevel=level)
    return params.with_fields(fields)


def _callers_level() -> int:
    """The `stacklevel` of a warning of `suit` that points at the line that called or awaited this package."""
    # From Python 3.12, `skip_file_prefixes` does this.
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith(f"{_PACKAGE}."):
        frame, level = frame.f_back, level + 1
    return level


_PACKAGE: Final = __name__.partition(".")[0]


def replies_wanted(params: CheckedParams) -> int:
    """How many replies per prompt a request asks for: its `n`."""
    n = params.fields.get("n", 1)
    if params.extra_body is not None:
        n = params.extra_body.get("n", n)
    return max(n, 1) if isinstance(n, int) else 1
