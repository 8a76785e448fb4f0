"""One connection to a server; it serves one request after another.

A plain connection speaks HTTP through `http1`. Connections through a proxy are left to httpcore, and so is everything
while httpcore's way to send requests is patched: mocks of httpx such as respx do that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import httpcore

from vllmchat.http.http1 import AnswerReader, encode_request
from vllmchat.http.network import AsyncWire, SyncWire

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Send
    from vllmchat.http.proxy import Proxy
    from vllmchat.http.url import BaseURL

_READ = 64 * 1024
_SENT_AT_ONCE = 64 * 1024
"""Bodies up to this size are sent together with their head: copying is cheaper than a second write."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a server.

    Attributes:
        base: Its URL.
        tls: Makes the TLS context; called for `https` only.
        proxy: The proxy, if any.
    """

    base: BaseURL
    tls: Callable[[], ssl.SSLContext]
    proxy: Proxy | None = None

    @property
    def host(self) -> str:
        """The `Host` of requests."""
        return self.base.origin.partition("://")[2]

    @property
    def origin(self) -> httpcore.Origin:
        """The server, for httpcore."""
        base = self.base
        return httpcore.Origin(base.scheme.encode(), base.host.encode("ascii"), base.port)

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context for the server; None for plain HTTP."""
        return self.tls() if self.base.scheme == "https" else None

    @property
    def tunnel_to(self) -> str | None:
        """The host that is reached through a tunnel, if any."""
        tunnel = self.proxy is not None and self.proxy.is_http and self.base.scheme == "https"
        return self.base.host if tunnel else None

    def proxy_for_httpcore(self, proxy: Proxy) -> httpcore.Proxy:
        """The proxy, for httpcore."""
        return httpcore.Proxy(
            proxy.url, auth=proxy.credentials, ssl_context=self.tls() if proxy.is_tls else None
        )


class SyncLine(ABC):
    """One sync connection.

    Attributes:
        wire: Its network.
        status: HTTP status of the last response.
        headers: Headers of the last response, names in lower case.
        expires: Until when it may stay idle, in monotonic seconds.
        used: Whether it has served a request.
    """

    __slots__ = ("expires", "headers", "status", "used", "wire")

    def __init__(self, route: Route) -> None:
        self.wire = SyncWire(route.tunnel_to)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.expires = 0.0
        self.used = False

    @abstractmethod
    def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response: `status` and `headers`."""

    @abstractmethod
    def read(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at its end."""

    @abstractmethod
    def is_idle(self) -> bool:
        """Whether it can take another request."""

    @abstractmethod
    def is_open(self) -> bool:
        """Whether an idle connection is still open, as far as can be seen."""


class AsyncLine(ABC):
    """One async connection; for the attributes see `SyncLine`."""

    __slots__ = ("expires", "headers", "status", "used", "wire")

    def __init__(self, route: Route) -> None:
        self.wire = AsyncWire(route.tunnel_to)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.expires = 0.0
        self.used = False

    @abstractmethod
    async def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response: `status` and `headers`."""

    @abstractmethod
    async def read(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at its end."""

    @abstractmethod
    def is_idle(self) -> bool:
        """Whether it can take another request."""

    @abstractmethod
    def is_open(self) -> bool:
        """Whether an idle connection is still open, as far as can be seen."""

    def left_over(self) -> AsyncIterator[bytes] | None:
        """What must be exhausted after a body was abandoned halfway, if anything."""
        return None


class PlainSyncLine(SyncLine):
    """A direct sync connection to the server."""

    __slots__ = ("_answer", "_early", "_host", "_route", "_stream")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._route = route
        self._host = route.host
        self._stream: httpcore.NetworkStream | None = None
        self._answer: AnswerReader | None = None
        self._early = b""

    def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response."""
        writes = _writes(step, self._host)
        answer = self._answer = AnswerReader()
        stream = self._stream
        if stream is None:
            stream = self._stream = self._connect(clock.connect_seconds())
        try:
            for data in writes:
                stream.write(data)
        except httpcore.WriteError:
            # A server may respond before it has read everything, and close. Then its response says why.
            pass
        early = b""
        while not answer.status:
            early = answer.feed(stream.read(_READ))
        self._early = early
        self.status, self.headers = answer.status, answer.headers

    def _connect(self, seconds: float | None) -> httpcore.NetworkStream:
        base, context = self._route.base, self._route.context
        stream = self.wire.connect_tcp(base.host, base.port, seconds)
        if context is None:
            return stream
        context.set_alpn_protocols(["http/1.1"])
        return stream.start_tls(context, base.host, seconds)

    def read(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        answer, stream = self._answer, self._stream
        assert answer is not None
        assert stream is not None
        if self._early:
            data, self._early = self._early, b""
            return data
        while not answer.ended:
            if answer.failure is not None:
                raise answer.failure
            if data := answer.feed(stream.read(_READ)):
                return data
        return b""

    def is_idle(self) -> bool:
        """Whether it can take another request."""
        return self._answer is not None and self._answer.reusable and not self._early

    def is_open(self) -> bool:
        """Whether nothing arrived while it was idle: that would be its end, or something unrequested."""
        return self._stream is not None and not self._stream.get_extra_info("is_readable")


class PlainAsyncLine(AsyncLine):
    """A direct async connection to the server."""

    __slots__ = ("_answer", "_early", "_host", "_route", "_stream")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._route = route
        self._host = route.host
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._answer: AnswerReader | None = None
        self._early = b""

    async def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response."""
        writes = _writes(step, self._host)
        answer = self._answer = AnswerReader()
        stream = self._stream
        if stream is None:
            stream = self._stream = await self._connect(clock.connect_seconds())
        try:
            for data in writes:
                await stream.write(data)
        except httpcore.WriteError:
            # A server may respond before it has read everything, and close. Then its response says why.
            pass
        early = b""
        while not answer.status:
            early = answer.feed(await stream.read(_READ))
        self._early = early
        self.status, self.headers = answer.status, answer.headers

    async def _connect(self, seconds: float | None) -> httpcore.AsyncNetworkStream:
        base, context = self._route.base, self._route.context
        stream = await self.wire.connect_tcp(base.host, base.port, seconds)
        if context is None:
            return stream
        context.set_alpn_protocols(["http/1.1"])
        return await stream.start_tls(context, base.host, seconds)

    async def read(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        answer, stream = self._answer, self._stream
        assert answer is not None
        assert stream is not None
        if self._early:
            data, self._early = self._early, b""
            return data
        while not answer.ended:
            if answer.failure is not None:
                raise answer.failure
            if data := answer.feed(await stream.read(_READ)):
                return data
        return b""

    def is_idle(self) -> bool:
        """Whether it can take another request."""
        return self._answer is not None and self._answer.reusable and not self._early

    def is_open(self) -> bool:
        """Whether nothing arrived while it was idle: that would be its end, or something unrequested."""
        return self._stream is not None and not self._stream.get_extra_info("is_readable")


class HttpcoreSyncLine(SyncLine):
    """A sync connection kept by httpcore."""

    __slots__ = ("_connection", "_pieces", "_response", "_route")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._route = route
        self._connection: httpcore.HTTPConnection | httpcore.ConnectionPool
        if route.proxy is None:
            self._connection = httpcore.HTTPConnection(
                route.origin, ssl_context=route.context, network_backend=self.wire
            )
        else:
            # Only httpcore's pools support proxies; one connection per pool keeps them cheap.
            self._connection = httpcore.ConnectionPool(
                ssl_context=route.context,
                proxy=route.proxy_for_httpcore(route.proxy),
                max_connections=1,
                network_backend=self.wire,
            )
        self._response: httpcore.Response | None = None
        self._pieces: Iterator[bytes] | None = None

    @property
    def _http(self) -> httpcore.ConnectionInterface | None:
        if isinstance(self._connection, httpcore.ConnectionPool):
            return next(iter(self._connection.connections), None)
        return self._connection

    def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response."""
        response = self._response = self._connection.handle_request(_request(self._route, step, clock))
        self.status, self.headers = response.status, _headers(response)
        self._pieces = iter(cast("Iterable[bytes]", response.stream))

    def read(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        assert self._response is not None
        assert self._pieces is not None
        # Mocks may send empty pieces; they are not the end.
        data = next(filter(None, self._pieces), b"")
        if not data:
            self._response.close()
        return data

    def is_idle(self) -> bool:
        """Whether it can take another request."""
        http = self._http
        return http is not None and http.is_idle()

    def is_open(self) -> bool:
        """Whether it is still open, as far as can be seen."""
        http = self._http
        return http is not None and not http.has_expired()


class HttpcoreAsyncLine(AsyncLine):
    """An async connection kept by httpcore."""

    __slots__ = ("_connection", "_pieces", "_response", "_route")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._route = route
        self._connection: httpcore.AsyncHTTPConnection | httpcore.AsyncConnectionPool
        if route.proxy is None:
            self._connection = httpcore.AsyncHTTPConnection(
                route.origin, ssl_context=route.context, network_backend=self.wire
            )
        else:
            self._connection = httpcore.AsyncConnectionPool(
                ssl_context=route.context,
                proxy=route.proxy_for_httpcore(route.proxy),
                max_connections=1,
                network_backend=self.wire,
            )
        self._response: httpcore.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    @property
    def _http(self) -> httpcore.AsyncConnectionInterface | None:
        if isinstance(self._connection, httpcore.AsyncConnectionPool):
            return next(iter(self._connection.connections), None)
        return self._connection

    async def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response."""
        request = _request(self._route, step, clock)
        response = self._response = await self._connection.handle_async_request(request)
        self.status, self.headers = response.status, _headers(response)
        self._pieces = aiter(cast("AsyncIterable[bytes]", response.stream))

    async def read(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        assert self._response is not None
        assert self._pieces is not None
        # Mocks may send empty pieces; they are not the end.
        async for data in self._pieces:
            if data:
                return data
        await self._response.aclose()
        return b""

    def is_idle(self) -> bool:
        """Whether it can take another request."""
        http = self._http
        return http is not None and http.is_idle()

    def is_open(self) -> bool:
        """Whether it is still open, as far as can be seen."""
        http = self._http
        return http is not None and not http.has_expired()

    def left_over(self) -> AsyncIterator[bytes] | None:
        """The generators that read the body."""
        return self._pieces


def sync_line(route: Route) -> SyncLine:
    """A new connection, which opens with its first request."""
    return PlainSyncLine(route) if route.proxy is None and not is_mocked() else HttpcoreSyncLine(route)


def async_line(route: Route) -> AsyncLine:
    """A new connection, which opens with its first request."""
    return PlainAsyncLine(route) if route.proxy is None and not is_mocked() else HttpcoreAsyncLine(route)


def is_mocked() -> bool:
    """Whether httpcore's way to send requests is patched: mocks do that, and expect to see all requests."""
    return not (
        _is_own(httpcore.HTTPConnection.handle_request)
        and _is_own(httpcore.AsyncHTTPConnection.handle_async_request)
    )


def _is_own(function: object) -> bool:
    # Not compared with what it was at import: a mock may have been active then.
    return str(getattr(function, "__globals__", {}).get("__name__")).startswith("httpcore.")


def _writes(step: Send, host: str) -> tuple[bytes, ...]:
    """The bytes of a request: one piece, unless its body is large."""
    body = step.body
    head = encode_request(step.method, step.target, host, step.headers, body)
    if not body:
        return (head,)
    return (head + body,) if len(body) <= _SENT_AT_ONCE else (head, body)


def _request(route: Route, step: Send, clock: Clock) -> httpcore.Request:
    base = route.base
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in step.headers]
    if not any(name == b"host" for name, _ in headers):
        headers.insert(0, (b"host", route.host.encode("ascii")))
    if step.body is not None:
        headers.append((b"content-length", str(len(step.body)).encode()))
    return httpcore.Request(
        step.method,
        httpcore.URL(
            scheme=base.scheme.encode(),
            host=base.host.encode("ascii"),
            port=base.port,
            target=step.target.encode("ascii"),
        ),
        headers=headers,
        content=_Body(step.body or b""),
        extensions={"timeout": {"connect": clock.connect_seconds()}},
    )


class _Body:
    """The body of a request, in one piece, to be read once, sync or async.

    httpcore's own is an async generator that nobody closes if the request breaks off; trio then complains.
    """

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body or b""

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        body, self._body = self._body, None
        if body is None:
            raise StopAsyncIteration
        return body


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
