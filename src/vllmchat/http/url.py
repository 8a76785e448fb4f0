"""Where the server is."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast
from urllib.parse import quote, urlsplit

_PORTS = {"http": 80, "https": 443}


class BaseURL(NamedTuple):
    """A base URL, taken apart.

    Attributes:
        scheme: `http` or `https`.
        host: Host name or address, an IPv6 address without its brackets.
        port: TCP port.
        prefix: Path in front of every route, without a slash at its end: `/v1`, `/team-a/v1` or empty.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, text: str, *, add_v1: bool) -> BaseURL:
        """Takes a base URL apart.

        Args:
            text: Such as `http://localhost:8000/v1`. A slash at the end is ignored.
            add_v1: Whether `/v1` is appended to a path that does not end with it. vLLM's routes are always below
                `/v1`; other servers put theirs elsewhere.

        Raises:
            ValueError: The text is no URL that requests can be sent to; the message says what to write.
        """
        given = cast("object", text)  # type checkers rule the rest out, but URLs come from configurations too
        if not isinstance(given, str):
            raise TypeError(f"base_url must be a str, not {type(given).__name__}")
        text = text.strip()
        shown = _shown(text)
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            # The reason may quote a password.
            reason = "" if "@" in text else f": {error}"
            raise ValueError(f"base_url={shown!r} is not a URL{reason}") from None
        scheme = parts.scheme.lower()
        if "://" not in text:
            raise ValueError(f"base_url={shown!r} has no scheme: write 'http://{shown.lstrip('/')}'")
        if scheme not in _PORTS:
            hint = (
                " For a unix socket, pass http_client=httpx.Client(transport=httpx.HTTPTransport(uds=PATH))."
            )
            raise ValueError(
                f"base_url={shown!r} must begin with http:// or https://, not {scheme}://."
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
                "base_url must not contain a query or a fragment, since URLs are logged: what a gateway wants to "
                "know of each request goes into headers="
            )
        if any(ord(char) <= 32 or ord(char) == 127 for char in text):
            raise ValueError(f"base_url={shown!r} contains white space or control characters")
        path = parts.path.rstrip("/")
        for route in ("/chat/completions", "/completions", "/models"):
            if path.endswith(route):
                raise ValueError(
                    f"base_url={shown!r} names a route: leave {route!r} away, each verb adds its own"
                )
        if add_v1 and not path.endswith("/v1"):
            path += "/v1"
        if ":" not in host:
            try:
                host = host.encode("idna").decode("ascii")
            except UnicodeError as error:
                raise ValueError(f"base_url={shown!r} has no valid host: {error}") from None
        path = quote(path, safe="/%:@!$&'()*+,;=~")
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
        """The prefix without `/v1`: in front of the routes that vLLM keeps outside it."""
        return self.prefix.removesuffix("/v1")

    def __str__(self) -> str:
        return self.origin + self.prefix


def _shown(text: str) -> str:
    """The text without what may be secret in it."""
    head, at, tail = text.rpartition("@")
    if at:
        scheme, sep, _ = head.rpartition("://")
        text = f"{scheme}{sep}***@{tail}"
    return text.split("?", 1)[0].split("#", 1)[0]
