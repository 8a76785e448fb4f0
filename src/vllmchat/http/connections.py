"""Everything that one provider, and the copies made of it, hold open."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn, cast

from vllmchat.http.client import AsyncClient, SyncClient
from vllmchat.http.proxy import proxy_for
from vllmchat.http.user_client import UserAsyncClient, UserSyncClient, check_clients

if TYPE_CHECKING:
    import ssl

    import httpx

    from vllmchat.http.client import AsyncSender, SyncSender
    from vllmchat.http.url import BaseURL
    from vllmchat.http.user_client import AsyncHTTPClient, SyncHTTPClient


class Connections:
    """The blocking and the asynchronous connections to one server.

    Attributes:
        blocking: Runs calls blocking.
        awaiting: Runs calls awaiting.
        model: The model that the server said it serves, once it was asked.
    """

    def __init__(
        self,
        base: BaseURL,
        *,
        verify: bool | str | ssl.SSLContext = True,
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
        tls = _TLS(verify)
        self.model: str | None = None
        if http_client is not None:
            self.blocking = SyncClient(partial(UserSyncClient, http_client))
        elif async_http_client is not None:
            self.blocking = SyncClient(_only_async)
        else:
            self.blocking = SyncClient(partial(_sync_sender, base, tls, max_connections))
        if async_http_client is not None:
            self.awaiting = AsyncClient(partial(UserAsyncClient, async_http_client))
        elif http_client is not None:
            self.awaiting = AsyncClient(_only_sync)
        else:
            self.awaiting = AsyncClient(partial(_async_sender, base, tls, max_connections))


class _TLS:
    """Makes the TLS context when it is first needed: that takes longer than all the rest of a provider."""

    def __init__(self, verify: bool | str | ssl.SSLContext) -> None:
        self._verify = verify
        self._context: ssl.SSLContext | None = None

    def __call__(self) -> ssl.SSLContext:
        if self._context is None:
            import os
            import ssl

            import httpx

            verify = self._verify
            if isinstance(verify, str):
                folder = os.path.isdir(verify)
                verify = (
                    ssl.create_default_context(capath=verify)
                    if folder
                    else ssl.create_default_context(cafile=verify)
                )
            self._context = httpx.create_ssl_context(verify=verify)
        return self._context


def _sync_sender(base: BaseURL, tls: _TLS, max_connections: int | None) -> SyncSender:
    proxy = proxy_for(base)
    if proxy is None:
        from vllmchat.http.transport import SyncPool

        return SyncPool(base, tls, max_connections)
    import httpx

    from vllmchat.http.user_client import OwnSyncClient

    client = httpx.Client(proxy=proxy, verify=tls(), limits=_limits(max_connections), trust_env=False)
    return OwnSyncClient(cast("SyncHTTPClient", client))


def _async_sender(base: BaseURL, tls: _TLS, max_connections: int | None) -> AsyncSender:
    proxy = proxy_for(base)
    if proxy is None:
        from vllmchat.http.transport import AsyncPool

        return AsyncPool(base, tls, max_connections)
    import httpx

    from vllmchat.http.user_client import OwnAsyncClient

    client = httpx.AsyncClient(proxy=proxy, verify=tls(), limits=_limits(max_connections), trust_env=False)
    return OwnAsyncClient(cast("AsyncHTTPClient", client))


def _limits(max_connections: int | None) -> httpx.Limits:
    import httpx

    from vllmchat.http.transport import KEEP_ALIVE_SECONDS

    return httpx.Limits(max_connections=max_connections, keepalive_expiry=KEEP_ALIVE_SECONDS)


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
