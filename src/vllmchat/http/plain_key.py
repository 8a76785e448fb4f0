"""Warns of keys that anybody on the way can read."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Mapping

    from vllmchat.http.url import BaseURL
else:
    ipaddress = LazyModule("ipaddress")

_warned: set[str] = set()


def warn_of_plain_key(base: BaseURL, headers: Mapping[str, str], default_key: str | None) -> None:
    """Warns, once for each host, of a key that goes over plain http to another machine.

    Args:
        base: The server.
        headers: What is sent with each request.
        default_key: The key that is sent if none is set.
    """
    sent = headers.get("authorization", "")
    if not sent or sent == f"Bearer {default_key}" or base.scheme == "https" or is_local(base.host):
        return
    if base.host not in _warned:
        _warned.add(base.host)
        warnings.warn(
            f"the key for {base.origin} goes over plain http, where others can read it: use https://, or a tunnel",
            stacklevel=4,
        )


def is_local(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
