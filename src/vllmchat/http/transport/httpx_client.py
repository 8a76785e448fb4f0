"""Sends requests through the caller's own httpx or httpx2 client.

Only plain data crosses the boundary: strings, bytes, dicts and numbers. So any client with these methods will do, and
httpx2 need not be imported here. The client's own settings apply: proxies, TLS, limits, hooks, auth. It is never closed
here.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from vllmchat.http.clock import monotonic
from vllmchat.http.timeout import Timeout
from vllmchat.lazy import LazyModule
from vllmchat.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import anyio

    from vllmchat.http import event_loop
    from vllmchat.http.clock import Clock
    from vllmchat.http.event_loop import EventLoopHandle
    from vllmchat.http.flow import Send
else:
    anyio = LazyModule("anyio")  # sync programs need neither
    event_loop = LazyModule("vllmchat.http.event_loop")

USER_AGENT = f"vllmchat/{__version__}"
"""The user agent of this library."""


class HTTPResponse(Protocol):
    """What sync and async responses have in common."""

    @property
    def status_code(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The response headers, by name in any case."""
        ...


class SyncHTTPResponse(HTTPResponse, Protocol):
    """What a `SyncHTTPClient` returns."""

    def iter_bytes(self) -> Iterator[bytes]:
        """The decompressed body as it arrives."""
        ...

    def close(self) -> None:
        """Ends the exchange, even in the middle of the body."""
        ...


class AsyncHTTPResponse(HTTPResponse, Protocol):
    """What an `AsyncHTTPClient` returns."""

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The decompressed body as it arrives."""
        ...

    async def aclose(self) -> None:
        """Ends the exchange, even in the middle of the body."""
        ...


@runtime_checkable
class SyncHTTPClient(Protocol):
    """What `http_client=` must provide; `httpx.Client` and `httpx2.Client` do."""

    # Requests have the client's own type: they are only passed on. `*args` and `**options` of type `Any` match any
    # further parameters; one of them alone would not.
    def build_request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Makes a request from `content`, `headers` and `extensions`."""
        ...

    def send(self, request: Any, *, stream: bool = False) -> SyncHTTPResponse:
        """Sends it; with `stream`, the body is read later."""
        ...


@runtime_checkable
class AsyncHTTPClient(Protocol):
    """What `async_http_client=` must provide; `httpx.AsyncClient` and `httpx2.AsyncClient` do."""

    def build_request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Makes a request from `content`, `headers` and `extensions`."""
        ...

    async def send(self, request: Any, *, stream: bool = False) -> AsyncHTTPResponse:
        """Sends it; with `stream`, the body is read later."""
        ...


def check_clients(http_client: object, async_http_client: object) -> None:
    """Checks that each client is of the right kind.

    Raises:
        TypeError: A client is of the other kind or not a client at all; the message says what to pass.
    """
    for name, client, want_async in (
        ("http_client", http_client, False),
        ("async_http_client", async_http_client, True),
    ):
        if client is None:
            continue
        kind = "an async client" if want_async else "a sync client"
        expected = f"{kind} such as httpx.{'AsyncClient' if want_async else 'Client'}(...)"
        actual = _full_name(type(client))
        if isinstance(client, type):
            raise TypeError(
                f"{name} must be {expected}, not the class {_full_name(client)}: create an instance"
            )
        if not callable(getattr(client, "send", None)) or not callable(
            getattr(client, "build_request", None)
        ):
            raise TypeError(f"{name} must be {expected}, not {actual}")
        is_async = inspect.iscoroutinefunction(cast("AsyncHTTPClient", client).send)
        if is_async != want_async:
            other = "async_http_client" if is_async else "http_client"
            raise TypeError(f"{name} must be {expected}; pass this {actual} as {other}=")


def _full_name(cls: type) -> str:
    return f"{cls.__module__.partition('.')[0]}.{cls.__name__}"


def sends_authorization(client: object) -> bool:
    """Whether a caller's client sets its own credentials."""
    return "authorization" in _headers(client)


def timeout_of(client: object) -> Timeout | None:
    """The timeouts of a client; None if they are httpx's defaults.

    httpx's default of 5 s per read is made for web pages. Callers who want it here must set it on the `Timeout`.
    """
    limits = _own_limits(client)
    if limits is None:
        return None
    return Timeout(connect=limits.get("connect"), first_token=limits.get("read"), idle=limits.get("read"))


def _own_limits(client: object) -> dict[str, float | None] | None:
    as_dict = getattr(getattr(client, "timeout", None), "as_dict", None)
    if as_dict is None:
        return None
    limits = cast("dict[str, float | None]", as_dict())
    return None if set(limits.values()) == {5.0} else limits


class UserSyncClient:
    """Sends through the caller's sync client."""

    def __init__(self, client: SyncHTTPClient) -> None:
        self._client = client

    def send(self, step: Send, clock: Clock) -> UserSyncResponse:
        """Sends a request and waits for the head of its response."""
        sending = _Sending(self._client, step, clock)
        request = sending.request({"timeout": sending.limits, "trace": sending.trace})
        try:
            response = self._client.send(request, stream=True)
        finally:
            clock.reused, clock.connect_time = sending.reused, sending.connect_time
        # All reads of the body share one timeout, which httpcore takes from here when the body begins.
        sending.limits["read"] = clock.body_seconds()
        return UserSyncResponse(response, clock)

    def close(self) -> None:
        """Leaves the client open: it belongs to the caller."""


class UserAsyncClient:
    """Sends through the caller's async client."""

    def __init__(self, client: AsyncHTTPClient) -> None:
        self._client = client
        self._event_loop = event_loop.EventLoopHandle()

    async def send(self, step: Send, clock: Clock) -> UserAsyncResponse:
        """Sends a request and waits for the head of its response."""
        sending = _Sending(self._client, step, clock)
        request = sending.request({"timeout": sending.limits, "trace": sending.atrace})
        try:
            # The client's own timeouts start over with each byte of a head.
            with anyio.fail_after(clock.seconds()):
                response = await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise ReadTimeout("timed out") from error
        except RuntimeError as error:
            # A connection of the client may belong to an event loop that has ended; httpx does not notice it.
            raise LocalProtocolError(
                f"{error}. An httpx.AsyncClient works on one event loop: create one on each, or leave out "
                "async_http_client="
            ) from error
        finally:
            clock.reused, clock.connect_time = sending.reused, sending.connect_time
        # Each read of the body has its own scope below; the client's timeout must not fire first.
        sending.limits["read"] = None
        return UserAsyncResponse(response, clock, self._event_loop)

    def close(self) -> None:
        """Leaves the client open: it belongs to the caller."""

    def end(self) -> None:
        """Leaves the client open: it belongs to the caller."""


class UserSyncResponse:
    """A response from the caller's sync client."""

    follows_clock = False

    __slots__ = ("_clock", "_pieces", "_response", "headers", "status")

    def __init__(self, response: SyncHTTPResponse, clock: Clock) -> None:
        self.status = response.status_code
        self.headers = _headers(response)
        self._response = response
        self._clock = clock
        self._pieces = response.iter_bytes()

    def read(self) -> bytes:
        """The next bytes of the body; empty at the end."""
        try:
            if self._clock.seconds() == 0:
                raise ReadTimeout("timed out")
            for data in self._pieces:
                if data:
                    return data
        except BaseException:
            self.close()
            raise
        return b""

    def close(self) -> None:
        """Ends the exchange."""
        self._response.close()

    def interrupt(self) -> None:
        """Does nothing: a client's response may be closed only by the thread that reads it."""


class UserAsyncResponse:
    """A response from the caller's async client."""

    __slots__ = ("_clock", "_event_loop", "_open", "_pieces", "_response", "headers", "status")

    def __init__(self, response: AsyncHTTPResponse, clock: Clock, event_loop: EventLoopHandle) -> None:
        self.status = response.status_code
        self.headers = _headers(response)
        self._response = response
        self._clock = clock
        self._event_loop = event_loop
        self._pieces = response.aiter_bytes()
        self._open = True

    async def read(self) -> bytes:
        """The next bytes of the body; empty at the end."""
        try:
            with anyio.fail_after(self._clock.seconds()):
                async for data in self._pieces:
                    if data:
                        return data
        except TimeoutError as error:
            await self.aclose()
            raise ReadTimeout("timed out") from error
        except GeneratorExit:
            # The coroutine is being closed: it cannot wait for anything any more.
            self.abort()
            raise
        except BaseException:
            await self.aclose()
            raise
        self._open = False
        return b""

    async def aclose(self) -> None:
        """Ends the exchange."""
        if not self._open:
            return
        self._open = False
        with anyio.CancelScope(shield=True):
            await _leave(self._response, self._pieces)

    def abort(self) -> None:
        """The same soon, on the client's event loop."""
        if self._open:
            self._open = False
            response, pieces = self._response, self._pieces
            self._event_loop.run(lambda: self._event_loop.start(_leave, response, pieces))

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.abort()


class ReadTimeout(Exception):  # noqa: N818 - the name by which transports' timeouts are known
    """A wait for bytes timed out here, not in the client."""


class LocalProtocolError(Exception):
    """The client cannot send this; named like httpx's."""


async def _leave(response: AsyncHTTPResponse, pieces: AsyncIterator[bytes]) -> None:
    """Closes a response in the middle of its body."""
    try:
        await response.aclose()
    finally:
        # The body is read through several nested generators. Cancelling what one of them waits for ends them all; left
        # alone, the inner ones would end when they are garbage-collected, and trio would complain.
        with anyio.CancelScope(shield=True) as scope, contextlib.suppress(Exception):
            scope.cancel()
            for _ in range(_LEFT_OVER):
                await anext(pieces)


_LEFT_OVER = 1000
"""Pieces of a body that may be left after it was closed; only a body that never waits for anything has more."""


class _Sending:
    """One request in progress through a caller's client.

    Attributes:
        limits: The timeouts of the client's waits, by httpcore's names. The client reads them when a wait begins.
    """

    def __init__(self, client: SyncHTTPClient | AsyncHTTPClient, step: Send, clock: Clock) -> None:
        waiting = clock.seconds()
        self.limits: dict[str, float | None] = {
            "connect": clock.connect_seconds(),
            "read": waiting,
            "write": waiting,
            "pool": _pool_seconds(client, clock),
        }
        self._client = client
        self._step = step
        self._opened: float | None = None
        self._sent: float | None = None

    def request(self, extensions: dict[str, object]) -> Any:
        """The client's own request."""
        step = self._step
        headers = dict(step.headers)
        agent = _headers(self._client).get("user-agent", "")
        if headers.get("user-agent") == USER_AGENT and agent and not agent.startswith("python-http"):
            # The caller gave the client a name.
            del headers["user-agent"]
        if step.default_key and sends_authorization(self._client):
            # The caller's client has its own credentials, and no other key was passed in.
            headers.pop("authorization", None)
        return self._client.build_request(
            step.method, step.url, headers=headers, content=step.body, extensions=extensions
        )

    @property
    def reused(self) -> bool:
        """Whether the request used a connection that had been used before, according to httpcore's trace."""
        return self._sent is not None and self._opened is None

    @property
    def connect_time(self) -> float | None:
        """How long opening the connection took, in seconds; None if it was open."""
        return None if self._sent is None or self._opened is None else self._sent - self._opened

    def trace(self, name: str, _info: object) -> None:
        """Receives httpcore's trace events."""
        if name.startswith("connection.connect") and self._opened is None:
            self._opened = monotonic()
        elif "send_request_headers.started" in name:
            # The last one: the first may be that of a proxy's tunnel.
            self._sent = monotonic()

    async def atrace(self, name: str, info: object) -> None:
        """The same for an async client."""
        self.trace(name, info)


def _pool_seconds(client: object, clock: Clock) -> float | None:
    """How long the client may wait for a connection from its pool: its own timeout, but not beyond `total`."""
    own = (_own_limits(client) or {}).get("pool")
    limit = min(math.inf if own is None else own, clock.total_seconds())
    return None if limit == math.inf else limit


def _headers(holder: Any) -> dict[str, str]:
    with contextlib.suppress(AttributeError):
        return {str(name).lower(): str(value) for name, value in holder.headers.items()}
    return {}
