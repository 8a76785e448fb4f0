"""One connection to a server, direct or through a proxy; it serves one request after another.

How a connection is opened is decided once, in a generator of network steps. The two classes at the end do the steps.
They also send and read: that is done for each request and each chunk, so it is written out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vllmchat.http.clock import monotonic
from vllmchat.http.transport.backend import Connect, NetworkStep, NetworkSteps, StartTLS, Write
from vllmchat.http.transport.http1 import ResponseParser, encode_request
from vllmchat.http.transport.network_errors import ReadError
from vllmchat.http.transport.sync_backend import SyncNetworkBackend
from vllmchat.http.transport.tunnel import proxy_headers, tunnel_steps
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Send
    from vllmchat.http.transport import async_backend
    from vllmchat.http.transport.async_backend import AsyncNetworkBackend, AsyncStream
    from vllmchat.http.transport.proxy import Proxy
    from vllmchat.http.transport.sync_backend import SyncStream
    from vllmchat.http.url import BaseURL
else:
    async_backend = LazyModule("vllmchat.http.transport.async_backend")  # sync programs do not need it

_SENT_AT_ONCE = 64 * 1024
"""Bodies up to this size are sent together with their head: copying is cheaper than a second write."""


class Route(NamedTuple):
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
    def forwarding_proxy(self) -> Proxy | None:
        """The proxy, if it reads the requests itself instead of opening a tunnel for them."""
        proxy = self.proxy
        return proxy if proxy is not None and proxy.is_http and self.base.scheme == "http" else None

    def opening_steps(self, clock: Clock) -> NetworkSteps:
        """Opens a connection."""
        base, proxy = self.base, self.proxy
        # First, since it may fail.
        context = self.tls() if base.scheme == "https" else None
        if proxy is None:
            yield Connect(base.host, base.port)
        else:
            clock.proxy = proxy.source
            yield Connect(proxy.host, proxy.port)
            if proxy.is_tls:
                yield StartTLS(self.tls(), proxy.host)
            if self.forwarding_proxy is None:
                yield from tunnel_steps(proxy, base.host, base.port)
            clock.proxy = None
        if context is not None:
            yield StartTLS(context, base.host)


class _Connection:
    """What sync and async connections share.

    Attributes:
        host: The server's host and port.
        status: HTTP status of the last response.
        headers: Headers of the last response, names in lower case.
        idle_since: When it became idle, in monotonic seconds.
        used: Whether it has served a request.
    """

    __slots__ = ("_early", "_open", "_response", "_route", "headers", "host", "idle_since", "status", "used")

    def __init__(self, route: Route) -> None:
        self._route = route
        self.host = route.base.origin.partition("://")[2]
        self._open = False
        self._response = ResponseParser()
        self._early = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.idle_since = 0.0
        self.used = False

    def _opening(self, clock: Clock, backend: SyncNetworkBackend | AsyncNetworkBackend) -> NetworkSteps:
        """Opens the connection."""
        began = monotonic()
        backend.begin_opening(clock.connect_seconds())
        yield from self._route.opening_steps(clock)
        backend.end_opening()
        self._open = True
        clock.connect_time = monotonic() - began

    def _writes(self, step: Send) -> list[Write]:
        """The bytes of a request: one piece, unless its body is large."""
        target, headers, body = step.target, step.headers, step.body
        if self._route.proxy is not None and (proxy := self._route.forwarding_proxy) is not None:
            target, headers = self._route.base.origin + target, {**headers, **proxy_headers(proxy)}
        head = encode_request(step.method, target, self.host, headers, body)
        if not body:
            return [Write(head)]
        if len(body) <= _SENT_AT_ONCE:
            return [Write(head + body)]
        return [Write(head), Write(body, self._take_early)]

    def _take_early(self, data: bytes) -> bool:
        """Takes what arrives before the request is sent: a server may refuse it before it has read everything."""
        if not self._response.ended:
            self._early += self._response.feed(data)
        return self._response.ended

    def _take(self) -> bytes:
        """What arrived together with the head."""
        data, self._early = self._early, b""
        return data

    @property
    def is_connected(self) -> bool:
        """Whether it was opened."""
        return self._open

    def is_idle(self) -> bool:
        """Whether it can take another request."""
        return self._response.reusable and not self._early


class SyncConnection(_Connection):
    """One sync connection.

    Attributes:
        backend: Its network.
    """

    __slots__ = ("_stream", "backend")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self.backend = SyncNetworkBackend()
        self._stream: SyncStream | None = None

    def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response: `status` and `headers`."""
        response = self._response = ResponseParser()
        writes = self._writes(step)
        if not self._open and not clock.interrupted:
            self._run(self._opening(clock, self.backend))
        if clock.interrupted:
            raise ReadError("interrupted")
        while writes:  # not kept while the server computes
            self._do(writes.pop(0))
        stream = self._stream
        assert stream is not None
        early = b""
        while not response.status:
            early = response.feed(stream.read())
        self._early += early
        self.status, self.headers = response.status, response.headers

    def _run(self, steps: NetworkSteps) -> None:
        try:
            action = next(steps)
            while True:
                action = steps.send(self._do(action))
        except StopIteration:
            return

    def _do(self, action: NetworkStep) -> bytes:
        if isinstance(action, Connect):
            self._stream = self.backend.connect(action.host, action.port)
            return b""
        stream = self._stream
        assert stream is not None
        if isinstance(action, Write):
            stream.write(action.data, action.early)
        elif isinstance(action, StartTLS):
            stream.start_tls(action.context, action.host)
        else:
            return stream.read()
        return b""

    def read(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at its end."""
        response, stream = self._response, self._stream
        assert stream is not None
        if self._early:
            return self._take()
        while not response.ended:
            if response.failure is not None:
                raise response.failure
            if data := response.feed(stream.read()):
                return data
        return b""

    def is_open(self) -> bool:
        """Whether nothing arrived while it was idle: that would be its end, or something unrequested."""
        return self._stream is not None and not self._stream.is_readable()


class AsyncConnection(_Connection):
    """One async connection; for the attributes see `SyncConnection`."""

    __slots__ = ("_stream", "backend")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self.backend: AsyncNetworkBackend = async_backend.AsyncNetworkBackend()
        self._stream: AsyncStream | None = None

    async def send(self, step: Send, clock: Clock) -> None:
        """Sends a request and waits for the head of its response: `status` and `headers`."""
        response = self._response = ResponseParser()
        writes = self._writes(step)
        if not self._open:
            await self._run(self._opening(clock, self.backend))
        while writes:  # not kept while the server computes
            await self._do(writes.pop(0))
        stream = self._stream
        assert stream is not None
        early = b""
        while not response.status:
            early = response.feed(await stream.read())
        self._early += early
        self.status, self.headers = response.status, response.headers

    async def _run(self, steps: NetworkSteps) -> None:
        try:
            action = next(steps)
            while True:
                action = steps.send(await self._do(action))
        except StopIteration:
            return

    async def _do(self, action: NetworkStep) -> bytes:
        if isinstance(action, Connect):
            self._stream = await self.backend.connect(action.host, action.port)
            return b""
        stream = self._stream
        assert stream is not None
        if isinstance(action, Write):
            await stream.write(action.data, action.early)
        elif isinstance(action, StartTLS):
            await stream.start_tls(action.context, action.host)
        else:
            return await stream.read()
        return b""

    async def read(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at its end."""
        response, stream = self._response, self._stream
        assert stream is not None
        if self._early:
            return self._take()
        while not response.ended:
            if response.failure is not None:
                raise response.failure
            if data := response.feed(await stream.read()):
                return data
        return b""

    def is_idle(self) -> bool:
        """Whether it can take another request."""
        response, stream = self._response, self._stream
        return response.reusable and not self._early and stream is not None and stream.is_flushed()

    def is_open(self) -> bool:
        """Whether nothing arrived while it was idle: that would be its end, or something unrequested."""
        return self._stream is not None and not self._stream.is_readable()
