"""Connections that httpcore keeps: through a proxy, and while a mock has replaced httpcore's methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import httpcore

from vllmchat.http.transport.connection import AsyncConnection, Route, SyncConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Send


class HttpcoreSyncConnection(SyncConnection):
    """A sync connection kept by httpcore."""

    __slots__ = ("_connection", "_pieces", "_response", "_route")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._route = route
        self._connection: httpcore.HTTPConnection | httpcore.ConnectionPool
        if route.proxy is None:
            self._connection = httpcore.HTTPConnection(
                route.origin, ssl_context=route.context, network_backend=self.backend
            )
        else:
            # Only httpcore's pools support proxies; one connection per pool keeps them cheap.
            self._connection = httpcore.ConnectionPool(
                ssl_context=route.context,
                proxy=route.proxy_for_httpcore(route.proxy),
                max_connections=1,
                network_backend=self.backend,
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


class HttpcoreAsyncConnection(AsyncConnection):
    """An async connection kept by httpcore."""

    __slots__ = ("_connection", "_pieces", "_response", "_route")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._route = route
        self._connection: httpcore.AsyncHTTPConnection | httpcore.AsyncConnectionPool
        if route.proxy is None:
            self._connection = httpcore.AsyncHTTPConnection(
                route.origin, ssl_context=route.context, network_backend=self.backend
            )
        else:
            self._connection = httpcore.AsyncConnectionPool(
                ssl_context=route.context,
                proxy=route.proxy_for_httpcore(route.proxy),
                max_connections=1,
                network_backend=self.backend,
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

    def pending_body(self) -> AsyncIterator[bytes] | None:
        """The generators that read the body."""
        return self._pieces


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
