"""Everything that one provider, and the copies made of it, hold open."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from vllmchat.http.client import AsyncClient, SyncClient
from vllmchat.http.proxy import proxy_for
from vllmchat.http.user_client import UserAsyncClient, UserSyncClient, check_clients

if TYPE_CHECKING:
    import ssl

    from vllmchat.http.client import AsyncSender, SyncSender
    from vllmchat.http.proxy import Proxy
    from vllmchat.http.url import BaseURL
    from vllmchat.http.user_client import AsyncHTTPClient, SyncHTTPClient


Verify: TypeAlias = "bool | str | os.PathLike[str] | ssl.SSLContext"
"""Whom to trust: True for the usual authorities, a path to others, a context of the caller's, False for anybody."""


class Connections:
    """The blocking and the asynchronous connections to one server.

    Attributes:
        blocking: Runs calls blocking.
        awaiting: Runs calls awaiting.
        model: The model that the server said it serves, once it was asked.
        version: The version that it said it is, or counts as, once it was asked.
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
        check_clients(http_client, async_http_client)
        given = http_client is not None or async_http_client is not None
        for name, is_set in (
            ("verify", verify is not True),
            ("max_connections", max_connections is not None),
        ):
            if given and is_set:
                raise TypeError(f"{name}= has no effect on a client of your own: set it on that client")
        _check_verify(verify)
        self.model: str | None = None
        self.version: tuple[int, int, int] | None = None
        if http_client is not None:
            self.blocking = SyncClient(partial(UserSyncClient, http_client))
        elif async_http_client is not None:
            self.blocking = SyncClient(_only_async)
        if async_http_client is not None:
            self.awaiting = AsyncClient(partial(UserAsyncClient, async_http_client))
        elif http_client is not None:
            self.awaiting = AsyncClient(_only_sync)
        if not given:
            proxy, tls = proxy_for(base), _TLS(verify)
            self.blocking = SyncClient(partial(_sync_pool, base, tls, proxy, max_connections))
            self.awaiting = AsyncClient(partial(_async_pool, base, tls, proxy, max_connections))


def _check_verify(verify: Verify) -> None:
    if isinstance(verify, bool):
        return
    import ssl  # only those who set it need it before the first connection

    if isinstance(verify, ssl.SSLContext):
        return
    try:
        path = os.fspath(verify)
    except TypeError:
        kind = type(verify).__name__
        raise TypeError(f"verify must be a bool, a path or an ssl.SSLContext, not {kind}") from None
    if not os.path.exists(path):
        raise ValueError(f"verify={path!r}: there is no such file or folder of certificates")


class _TLS:
    """Makes the TLS context when it is first needed: that takes longer than all the rest of a provider."""

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
                import httpx

                # With the certificates that httpx would take, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.
                self._context = httpx.create_ssl_context(verify=verify)
            elif os.path.isdir(verify):
                self._context = ssl.create_default_context(capath=verify)
            else:
                self._context = ssl.create_default_context(cafile=verify)
        return self._context


def _sync_pool(base: BaseURL, tls: _TLS, proxy: Proxy | None, max_connections: int | None) -> SyncSender:
    from vllmchat.http.line import Route
    from vllmchat.http.transport import SyncPool

    return SyncPool(Route(base, tls, proxy), max_connections)


def _async_pool(base: BaseURL, tls: _TLS, proxy: Proxy | None, max_connections: int | None) -> AsyncSender:
    from vllmchat.http.line import Route
    from vllmchat.http.transport import AsyncPool

    return AsyncPool(Route(base, tls, proxy), max_connections)


def _only_async() -> NoReturn:
    raise TypeError(
        "this provider was given an asynchronous client only, so its blocking verbs (chat, stream) have nothing to "
        "send with: pass http_client= too, such as httpx.Client(...), or use achat and astream"
    )


def _only_sync() -> NoReturn:
    raise TypeError(
        "this provider was given a blocking client only, so its asynchronous verbs (achat, astream) have nothing to "
        "send with: pass async_http_client= too, such as httpx.AsyncClient(...), or use chat and stream"
    )
