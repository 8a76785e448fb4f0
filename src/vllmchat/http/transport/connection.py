"""One connection to a server; it serves one request after another.

A plain connection speaks HTTP through `http1`. Connections through a proxy are left to httpcore, and so is everything
while httpcore's way to send requests is patched: mocks of httpx such as respx do that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpcore

from vllmchat.http.transport.async_backend import AsyncNetworkBackend
from vllmchat.http.transport.http1 import ResponseParser, encode_request
from vllmchat.http.transport.sync_backend import SyncNetworkBackend

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Send
    from vllmchat.http.transport.proxy import Proxy
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


class SyncConnection(ABC):
    """One sync connection.

    Attributes:
        backend: Its network.
        status: HTTP status of the last response.
        headers: Headers of the last response, names in lower case.
        expires: Until when it may stay idle, in monotonic seconds.
        used: Whether it has served a request.
    """

    __slots__ = ("backend", "expires", "headers", "status", "used")

    def __init__(self, route: Route) -> None:
        self.backend = SyncNetworkBackend(route.tunnel_to)
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


class AsyncConnection(ABC):
    """One async connection; for the attributes see `SyncConnection`."""

    __slots__ = ("backend", "expires", "headers", "status", "used")

    def __init__(self, route: Route) -> None:
        self.backend = AsyncNetworkBackend(route.tunnel_to)
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

    def pending_body(self) -> AsyncIterator[bytes] | None:
        """What must be exhausted after a body was abandoned halfway, if anything."""
        return None


class PlainSyncConnection(SyncConnection):
    """A direct sync connection to the server."""

    __slots__ = ("_answer", "_early", "_host", "_route", "_stream")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._route = route
        self._host = route.host
        self._stream: httpcore.NetworkStream | None = None
        self._answer: ResponseParser | None = None
        self._early = b""

    def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response."""
        writes = _writes(step, self._host)
        answer = self._answer = ResponseParser()
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
        stream = self.backend.connect_tcp(base.host, base.port, seconds)
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


class PlainAsyncConnection(AsyncConnection):
    """A direct async connection to the server."""

    __slots__ = ("_answer", "_early", "_host", "_route", "_stream")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._route = route
        self._host = route.host
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._answer: ResponseParser | None = None
        self._early = b""

    async def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response."""
        writes = _writes(step, self._host)
        answer = self._answer = ResponseParser()
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
        stream = await self.backend.connect_tcp(base.host, base.port, seconds)
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


def _writes(step: Send, host: str) -> tuple[bytes, ...]:
    """The bytes of a request: one piece, unless its body is large."""
    body = step.body
    head = encode_request(step.method, step.target, host, step.headers, body)
    if not body:
        return (head,)
    return (head + body,) if len(body) <= _SENT_AT_ONCE else (head, body)
