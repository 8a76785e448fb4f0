"""A caller's own httpx or httpx2 client under this library.

Only plain data crosses: strings, bytes, dicts and numbers. So any client with these methods will do, and an httpx2
client needs no import of httpx2 here. The client's own settings hold: proxies, TLS, limits, hooks, auth. It is never
closed here.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import anyio

from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Send


@runtime_checkable
class SyncHTTPClient(Protocol):
    """What a client given as `http_client=` must offer; `httpx.Client` and `httpx2.Client` do."""

    # Requests and responses are the client's own types: they only pass through.
    def build_request(self, method: str, url: str, **options: Any) -> Any:
        """Makes a request of `content`, `headers` and `extensions`."""
        ...

    def send(self, request: Any, *, stream: bool = False) -> Any:
        """Sends it; with `stream`, the body is read later."""
        ...


@runtime_checkable
class AsyncHTTPClient(Protocol):
    """What a client given as `async_http_client=` must offer; `httpx.AsyncClient` and `httpx2.AsyncClient` do."""

    def build_request(self, method: str, url: str, **options: Any) -> Any:
        """Makes a request of `content`, `headers` and `extensions`."""
        ...

    async def send(self, request: Any, *, stream: bool = False) -> Any:
        """Sends it; with `stream`, the body is read later."""
        ...


def check_clients(http_client: object, async_http_client: object) -> None:
    """Tells a blocking client from an asynchronous one.

    Raises:
        TypeError: An argument is the other kind or no client at all; the message says what to pass.
    """
    for name, client, want_async in (
        ("http_client", http_client, False),
        ("async_http_client", async_http_client, True),
    ):
        if client is None:
            continue
        wanted = (
            "an asynchronous client such as httpx.AsyncClient"
            if want_async
            else ("a blocking client such as httpx.Client")
        )
        given = f"{type(client).__module__.partition('.')[0]}.{type(client).__name__}"
        if (
            isinstance(client, type)
            or not callable(getattr(client, "send", None))
            or not callable(getattr(client, "build_request", None))
        ):
            raise TypeError(f"{name} must be {wanted}, not {given}")
        is_async = inspect.iscoroutinefunction(cast("AsyncHTTPClient", client).send)
        if is_async != want_async:
            other = "async_http_client" if is_async else "http_client"
            raise TypeError(f"{name} must be {wanted}; pass this {given} as {other}=")


def timeout_of(client: object) -> Timeout | None:
    """The limits that a client was made with; None when they are httpx's own defaults.

    httpx's default of 5 s for each read is made for web pages. Whoever wants it here must say so.
    """
    as_dict = getattr(getattr(client, "timeout", None), "as_dict", None)
    if as_dict is None:
        return None
    limits = cast("dict[str, float | None]", as_dict())
    if set(limits.values()) == {5.0}:
        return None
    return Timeout(connect=limits.get("connect"), first_token=limits.get("read"), idle=limits.get("read"))


class UserSyncClient:
    """Sends through a caller's blocking client."""

    def __init__(self, client: SyncHTTPClient) -> None:
        self._client = client

    def send(self, step: Send, clock: Clock) -> UserSyncAnswer:
        """Sends a request and waits for the head of its answer."""
        connections = _Connections()
        clock.reused = False
        limits = _limits(clock)
        extensions = {"timeout": limits, "trace": connections.trace}
        request = self._client.build_request(
            step.method, step.url, headers=dict(step.headers), content=step.body, extensions=extensions
        )
        try:
            response = self._client.send(request, stream=True)
        except Exception:
            clock.reused = connections.reused
            raise
        # The body's reads wait under one limit, which httpcore takes from here when the body begins.
        limits["read"] = clock.body_seconds()
        return UserSyncAnswer(response)

    def close(self) -> None:
        """Leaves the client open: it is the caller's."""


class UserAsyncClient:
    """Sends through a caller's asynchronous client."""

    def __init__(self, client: AsyncHTTPClient) -> None:
        self._client = client

    async def send(self, step: Send, clock: Clock) -> UserAsyncAnswer:
        """Sends a request and waits for the head of its answer."""
        connections = _Connections()
        clock.reused = False
        limits = _limits(clock)
        extensions = {"timeout": limits, "trace": connections.atrace}
        request = self._client.build_request(
            step.method, step.url, headers=dict(step.headers), content=step.body, extensions=extensions
        )
        try:
            response = await self._client.send(request, stream=True)
        except Exception:
            clock.reused = connections.reused
            raise
        # Each read of the body has a scope of its own below; the client's limit must not come before it.
        limits["read"] = None
        return UserAsyncAnswer(response, clock)

    async def aclose(self) -> None:
        """Leaves the client open: it is the caller's."""

    def abort(self) -> None:
        """Leaves the client open: it is the caller's."""


class OwnSyncClient(UserSyncClient):
    """The same with a client that was made here."""

    def close(self) -> None:
        """Closes the client."""
        self._client.close()  # type: ignore[attr-defined]


class OwnAsyncClient(UserAsyncClient):
    """The same with a client that was made here."""

    async def aclose(self) -> None:
        """Closes the client."""
        await self._client.aclose()  # type: ignore[attr-defined]


class UserSyncAnswer:
    """An answer that came through a caller's blocking client."""

    follows_clock = False

    __slots__ = ("_pieces", "_response", "headers", "status")

    def __init__(self, response: Any) -> None:
        self.status: int = response.status_code
        self.headers = _headers(response)
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_bytes()

    def read(self) -> bytes:
        """The next bytes of the body; empty at the end."""
        try:
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


class UserAsyncAnswer:
    """An answer that came through a caller's asynchronous client."""

    __slots__ = ("_clock", "_pieces", "_response", "headers", "status")

    def __init__(self, response: Any, clock: Clock) -> None:
        self.status: int = response.status_code
        self.headers = _headers(response)
        self._response = response
        self._clock = clock
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()

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
        except BaseException:
            await self.aclose()
            raise
        return b""

    async def aclose(self) -> None:
        """Ends the exchange."""
        with anyio.CancelScope(shield=True):
            await self._response.aclose()

    def abort(self) -> None:
        """Nothing: a caller's client closes by awaiting only."""


class ReadTimeout(Exception):  # noqa: N818 - the name by which transports' timeouts are known
    """A wait for bytes ended here, not in the client."""


class _Connections:
    """Learns from httpcore's trace whether a request opened a connection or took one that had been used."""

    __slots__ = ("_opened", "_sent")

    def __init__(self) -> None:
        self._opened = False
        self._sent = False

    @property
    def reused(self) -> bool:
        return self._sent and not self._opened

    def trace(self, name: str, _info: object) -> None:
        if name.startswith("connection.connect"):
            self._opened = True
        elif "send_request_headers.started" in name:
            self._sent = True

    async def atrace(self, name: str, info: object) -> None:
        self.trace(name, info)


def _limits(clock: Clock) -> dict[str, float | None]:
    waiting = clock.seconds()
    connect = clock.connect_seconds()
    # A pool of the caller's is bounded as the caller wished; only `total` ends the wait for it.
    total = clock.total_seconds()
    pool = None if total == float("inf") else total
    return {"connect": connect, "read": waiting, "write": waiting, "pool": pool}


def _headers(response: Any) -> dict[str, str]:
    with contextlib.suppress(AttributeError):
        return {str(name).lower(): str(value) for name, value in response.headers.items()}
    return {}
