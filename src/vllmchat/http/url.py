"""The URL of the server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from urllib import parse
else:
    parse = LazyModule("urllib.parse")

_PORTS = {"http": 80, "https": 443}
_BROKEN_SCHEME = r"(https?)(?::/*|/+)"

_ROUTES = ("/chat/completions", "/completions", "/models", "/v1/chat", "/v1/embeddings", "/v1/responses")
"""Routes that a base URL must not include."""


class BaseURL(NamedTuple):
    """A parsed base URL.

    Attributes:
        scheme: `http` or `https`.
        host: Host name or address; an IPv6 address without brackets.
        port: TCP port.
        prefix: The path before every route, without a trailing slash: `/v1`, `/team-a/v1` or empty.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, text: str, *, add_v1: bool) -> BaseURL:
        """Parses a base URL.

        Args:
            text: Such as `http://localhost:8000/v1`. A trailing slash is ignored.
            add_v1: Whether to append `/v1` to a path that does not end with it. vLLM's routes are always below `/v1`;
                those of other servers may be elsewhere.

        Raises:
            ValueError: The URL cannot be used; the message says what to write.
        """
        value = cast("object", text)  # not all callers use a type checker
        if not isinstance(value, str):
            raise TypeError(f"base_url must be a str, not {type(value).__name__}")
        # Quotes come from files of environment variables.
        text = text.strip().strip("\"'").strip()
        shown = _shown(text)
        try:
            parts = parse.urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            # The reason might quote a password.
            reason = "" if "@" in text else f": {error}"
            raise ValueError(f"base_url={shown!r} is not a URL{reason}") from None
        scheme = parts.scheme.lower()
        if "://" not in text:
            # Also after a scheme that lost its colon or a slash.
            begun = re.match(_BROKEN_SCHEME, shown, re.IGNORECASE)
            known_scheme, rest = (
                (begun[1].lower(), shown[begun.end() :]) if begun else ("http", shown.lstrip("/"))
            )
            raise ValueError(
                f"base_url={shown!r} has no scheme: write '{known_scheme}://{rest or 'HOST:PORT'}'"
            )
        if scheme not in _PORTS:
            hint = (
                " For a unix socket, pass http_client=httpx.Client(transport=httpx.HTTPTransport(uds=PATH))."
            )
            raise ValueError(
                f"base_url={shown!r} must start with http:// or https://, not {scheme}://."
                f"{hint if 'unix' in scheme else ''}"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "base_url must not contain a user or password, since URLs are logged: use api_key=, "
                "or headers={'Authorization': ...}"
            )
        if not host:
            raise ValueError(f"base_url={shown!r} has no host")
        if parts.query or parts.fragment:
            raise ValueError(
                "base_url must not contain a query or a fragment, since URLs are logged: pass what a gateway needs in "
                "headers="
            )
        if any(ord(char) <= 32 or ord(char) == 127 for char in text):
            raise ValueError(f"base_url={shown!r} contains white space or control characters")
        path = parts.path.rstrip("/")
        for route in _ROUTES:
            if path.endswith(route):
                route = route.removeprefix("/v1")
                raise ValueError(
                    f"base_url={shown!r} includes a route: remove {route!r}, each method adds its own"
                )
        if add_v1 and not path.endswith("/v1"):
            path += "/v1"
        if ":" not in host and not _is_plain(host):
            try:
                host = host.encode("idna").decode("ascii")
            except UnicodeError as error:
                raise ValueError(f"base_url={shown!r} has no valid host: {error}") from None
        path = parse.quote(path, safe="/%:@!$&'()*+,;=~")
        known: Literal["http", "https"] = "https" if scheme == "https" else "http"
        return cls(known, host, port if port is not None else _PORTS[known], path)

    @property
    def origin(self) -> str:
        """Scheme, host and port, such as `http://localhost:8000`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == _PORTS[self.scheme]:
            return f"{self.scheme}://{host}"
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def root(self) -> str:
        """The prefix without `/v1`, for the routes that vLLM has outside it."""
        return self.prefix.removesuffix("/v1")

    def __str__(self) -> str:
        return self.origin + self.prefix


def _is_plain(host: str) -> bool:
    """Whether a host is written as it is sent. To encode it anyway would import tables of Unicode."""
    return host.isascii() and all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))


def _shown(text: str) -> str:
    """The text without anything that may be secret."""
    head, at, tail = text.rpartition("@")
    if at:
        scheme, sep, _ = head.rpartition("://")
        text = f"{scheme}{sep}***@{tail}"
    return text.split("?", 1)[0].split("#", 1)[0]
