"""Mocks of httpx, such as respx, see a provider's requests too.

They replace httpcore's way to send requests, which a provider does not use. So while they do, the requests go through a
plain httpx client. That is asked for each request, which takes at most a fifth of a microsecond: a provider that was
used before the mock began must not reach a real server.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from vllmchat.http.transport.httpx_client import UserAsyncClient, UserSyncClient

if TYPE_CHECKING:
    import ssl

    from vllmchat.http.transport.connection import Route


def is_mocked() -> bool:
    """Whether httpcore's way to send requests is replaced. Whoever replaces it has imported it."""
    httpcore: Any = sys.modules.get("httpcore")
    if httpcore is None:
        return False
    for function in (
        httpcore.HTTPConnection.handle_request,
        httpcore.AsyncHTTPConnection.handle_async_request,
    ):
        if function not in _OWN:
            if not _is_own(function):
                return True
            _OWN.add(function)
    return False


_OWN: set[object] = set()
"""The functions that have been found to be httpcore's."""


def _is_own(function: object) -> bool:
    # Not compared with what it was at import: a mock may have been active then.
    return str(getattr(function, "__globals__", {}).get("__name__")).startswith("httpcore.")


def mocked_sync_client(route: Route) -> UserSyncClient:
    """Sends what a mock is to see, and what it lets through."""
    import httpx

    return UserSyncClient(
        httpx.Client(verify=_verify(route), limits=httpx.Limits(max_keepalive_connections=0))
    )


def mocked_async_client(route: Route) -> UserAsyncClient:
    """The same, async."""
    import httpx

    limits = httpx.Limits(max_keepalive_connections=0)
    return UserAsyncClient(httpx.AsyncClient(verify=_verify(route), limits=limits))


def _verify(route: Route) -> ssl.SSLContext | bool:
    # Without TLS no certificates are loaded: that takes long.
    return route.base.scheme == "https" and route.tls()
