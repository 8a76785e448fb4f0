"""Whether the environment says that a server is reached through a proxy."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmchat.http.url import BaseURL


def proxy_for(base: BaseURL) -> str | None:
    """The proxy for a server, from `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`; None for none."""
    named = any(name.lower().endswith("_proxy") for name in os.environ)
    if not named and sys.platform not in ("darwin", "win32"):
        # Spares the import below, which most processes do not need.
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(base.scheme) or proxies.get("all")
    host = f"[{base.host}]" if ":" in base.host else base.host
    if not proxy or proxy_bypass(f"{host}:{base.port}") or proxy_bypass(base.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
