"""The connections of one provider and of the copies made from it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from vllmchat.errors import InvalidRequestError
from vllmchat.http.client import AsyncClient, SyncClient
from vllmchat.http.transport.httpx_client import UserAsyncClient, UserSyncClient, check_clients
from vllmchat.http.transport.proxy import proxy_for
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import ssl

    from vllmchat.http.exchange import AsyncTransport, SyncTransport
    from vllmchat.http.transport import connection, pool
    from vllmchat.http.transport.httpx_client import AsyncHTTPClient, SyncHTTPClient
    from vllmchat.http.transport.proxy import Proxy
    from vllmchat.http.url import BaseURL
else:
    connection = LazyModule("vllmchat.http.transport.connection")
    pool = LazyModule("vllmchat.http.transport.pool")

Verify: TypeAlias = "bool | str | os.PathLike[str] | ssl.SSLContext"
"""True for the usual certificates, a path to others, an `ssl.SSLContext`, or False to accept any certificate."""


class ClientPair:
    """The sync and async connections to one server.

    Attributes:
        sync_client: Runs sync calls.
        async_client: Runs async calls.
        closed: Whether the provider has been closed.
        only_sync: Whether the caller's own client is for sync calls only.
        has_own: Whether the caller has passed a client.
        verify: As given.
        max_connections: As given.
    """

    def __init__(
        self,
        base: BaseURL,
        *,
        verify: Verify = True,
        max_connections: int | None = None,
        http_client: SyncHTTPClient | None = None,
        async_http_client: AsyncHTTPClient | None = None,
    ) -> None:
        self.closed = False
        check_clients(http_client, async_http_client)
        self.only_sync = http_client is not None and async_http_client is None
        self.has_own = has_own = http_client is not None or async_http_client is not None
        self.verify = verify
        self.max_connections = max_connections
        for name, is_set in (
            ("verify", verify is not True),
            ("max_connections", max_connections is not None),
        ):
            if has_own and is_set:
                raise TypeError(f"{name}= has no effect on your own client: set it on that client")
        _check_verify(verify)
        if http_client is not None:
            self.sync_client = SyncClient(partial(UserSyncClient, http_client))
        elif async_http_client is not None:
            self.sync_client = SyncClient(_only_async)
        if async_http_client is not None:
            self.async_client = AsyncClient(partial(UserAsyncClient, async_http_client))
        elif http_client is not None:
            self.async_client = AsyncClient(_only_sync)
        if not has_own:
            proxy, tls = proxy_for(base), _TLS(verify)
            self.sync_client = SyncClient(partial(_sync_pool, base, tls, proxy, max_connections))
            self.async_client = AsyncClient(partial(_async_pool, base, tls, proxy, max_connections))


def _check_verify(verify: Verify) -> None:
    if isinstance(verify, bool):
        return
    import ssl  # needed before the first connection only if verify is set

    if isinstance(verify, ssl.SSLContext):
        return
    try:
        path = os.fspath(verify)
    except TypeError:
        kind = type(verify).__name__
        raise TypeError(f"verify must be a bool, a path or an ssl.SSLContext, not {kind}") from None
    if not os.path.exists(path):
        raise ValueError(f"verify={path!r}: no such certificate file or directory")


class _TLS:
    """Makes the TLS context when it is first needed: it takes longer than everything else in a provider."""

    def __init__(self, verify: Verify) -> None:
        self._verify = verify
        self._context: ssl.SSLContext | None = None

    def __call__(self) -> ssl.SSLContext:
        if self._context is None:
            import ssl

            verify = self._verify
            if isinstance(verify, ssl.SSLContext):
                self._context = verify
            elif isinstance(verify, bool):
                self._context = _default_context(verify)
            elif os.path.isdir(verify):
                self._context = ssl.create_default_context(capath=verify)
            else:
                self._context = ssl.create_default_context(cafile=verify)
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context


def _default_context(verify: bool) -> ssl.SSLContext:
    """The same certificates as httpx, including `SSL_CERT_FILE` and `SSL_CERT_DIR`.

    Raises:
        InvalidRequestError: They cannot be used.
    """
    import httpx

    try:
        return httpx.create_ssl_context(verify=verify)
    except OSError as error:
        names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        shown = " and ".join(f"{name}={os.environ[name]!r}" for name in names) or "the usual certificates"
        raise InvalidRequestError(
            f"{shown} cannot be used: {error.strerror or error}. Correct or unset it, or pass verify="
        ) from error


def _sync_pool(base: BaseURL, tls: _TLS, proxy: Proxy | None, max_connections: int | None) -> SyncTransport:
    return pool.SyncPool(connection.Route(base, tls, proxy), max_connections)


def _async_pool(base: BaseURL, tls: _TLS, proxy: Proxy | None, max_connections: int | None) -> AsyncTransport:
    return pool.AsyncPool(connection.Route(base, tls, proxy), max_connections)


def _only_async() -> NoReturn:
    raise TypeError(
        "this provider has only an async client, so its sync methods (chat, stream) cannot send anything: pass "
        "http_client= too, such as httpx.Client(...), or use achat and astream"
    )


def _only_sync() -> NoReturn:
    raise TypeError(
        "this provider has only a sync client, so its async methods (achat, astream) cannot send anything: pass "
        "async_http_client= too, such as httpx.AsyncClient(...), or use chat and stream"
    )
