"""Finds the proxy for a server in the environment."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from urllib import parse

    from vllmchat.http.url import BaseURL
else:
    parse = LazyModule("urllib.parse")

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class Proxy(NamedTuple):
    """A proxy.

    Attributes:
        scheme: `http`, `https`, `socks5` or `socks5h`.
        host: Its host.
        port: Its port.
        credentials: User and password for it, or None.
        variable: The environment variable that it comes from; empty if the system's settings name it.
    """

    scheme: str
    host: str
    port: int
    credentials: tuple[bytes, bytes] | None = None
    variable: str = ""

    @classmethod
    def parse(cls, text: str, variable: str = "") -> Proxy:
        """Parses a proxy's URL. `http://` may be missing.

        Raises:
            ValueError: It is not valid; the message does not contain the credentials.
        """
        try:
            parts = parse.urlsplit(text if "://" in text else f"http://{text}")
            port = parts.port
        except ValueError:
            parts, port = parse.urlsplit(""), None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(
                "the proxy in the environment (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) is not a valid URL: write it "
                "as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, or exempt the server with "
                "NO_PROXY"
            )
        credentials = None
        if parts.username is not None:
            credentials = parse.unquote_to_bytes(parts.username), parse.unquote_to_bytes(parts.password or "")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], credentials, variable)

    @property
    def is_http(self) -> bool:
        """Whether it is an HTTP proxy, with or without TLS."""
        return self.scheme.startswith("http")

    @property
    def is_tls(self) -> bool:
        """Whether the connection to it is encrypted."""
        return self.scheme == "https"

    @property
    def url(self) -> str:
        """Its URL without the credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def source(self) -> str:
        """What it is, for messages: its URL and where that comes from."""
        return f"the proxy {self.url} (from {self.variable or 'the system settings'})"

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"


def proxy_for(base: BaseURL) -> Proxy | None:
    """The proxy for a server, from `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, or None.

    Raises:
        ValueError: The environment has an invalid one.
    """
    named = any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in os.environ)
    if not named and sys.platform not in ("darwin", "win32"):
        # Avoids the import below, which most processes do not need.
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    name = base.scheme if proxies.get(base.scheme) else "all"
    proxy = proxies.get(name)
    host = f"[{base.host}]" if ":" in base.host else base.host
    if not proxy or proxy_bypass(f"{host}:{base.port}") or proxy_bypass(base.host) or _in_network(base.host):
        return None
    variable = f"{name}_proxy"
    return Proxy.parse(
        proxy, next((each for each in (variable, variable.upper()) if os.environ.get(each)), "")
    )


def _in_network(host: str) -> bool:
    """Whether `NO_PROXY` names a network, such as `10.0.0.0/8`, that an address is in."""
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(","):
        with contextlib.suppress(ValueError):
            if address in ipaddress.ip_network(entry.strip().strip("[]"), strict=False):
                return True
    return False
