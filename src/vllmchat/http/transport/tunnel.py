"""How a proxy is asked for a connection to a server: CONNECT of HTTP, or SOCKS5. No I/O."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from typing import TYPE_CHECKING

from vllmchat.http.transport.backend import READ, Read, Write, is_address
from vllmchat.http.transport.http1 import ResponseParser, encode_request
from vllmchat.http.transport.network_errors import ProxyError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Generator

    from vllmchat.http.transport.proxy import Proxy

_SOCKS_REASONS = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "it took too long",
    7: "command not supported",
    8: "address type not supported",
}


def tunnel_steps(proxy: Proxy, host: str, port: int) -> Generator[Write | Read, bytes, None]:
    """Asks a proxy for a connection to a server, over an open connection to the proxy.

    Raises:
        ProxyError: It refuses; the message begins with its status, if it gave one.
        RemoteProtocolError: Its answer is not understood.
    """
    return _connect(proxy, host, port) if proxy.is_http else _socks5(proxy, host, port)


def proxy_headers(proxy: Proxy) -> dict[str, str]:
    """The headers with which an HTTP proxy is asked."""
    if proxy.credentials is None:
        return {}
    return {"proxy-authorization": f"Basic {b64encode(b':'.join(proxy.credentials)).decode()}"}


def _connect(proxy: Proxy, host: str, port: int) -> Generator[Write | Read, bytes, None]:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    yield Write(encode_request("CONNECT", target, target, proxy_headers(proxy), None))
    response = ResponseParser()
    rest = b""
    while not response.status:
        rest = response.feed((yield READ))
    if response.status >= 300:
        from http import HTTPStatus  # slow, and rarely needed

        known = response.status in set(HTTPStatus)
        phrase = f" {HTTPStatus(response.status).phrase}" if known else ""
        raise ProxyError(f"{response.status}{phrase}")
    if rest:
        raise RemoteProtocolError("the proxy sent bytes before the TLS handshake")


def _socks5(proxy: Proxy, host: str, port: int) -> Generator[Write | Read, bytes, None]:
    answer = _Answer()
    method = 0 if proxy.credentials is None else 2
    yield Write(bytes((5, 1, method)))
    if (yield from answer.take(2)) != bytes((5, method)):
        raise ProxyError("401 it does not accept this way to authenticate")
    if proxy.credentials is not None:
        yield Write(b"\1" + b"".join(bytes((len(each),)) + each for each in proxy.credentials))
        if (yield from answer.take(2))[1]:
            raise ProxyError("401 wrong user or password")
    yield Write(b"\5\1\0" + _address(host) + port.to_bytes(2, "big"))
    _, code, _, kind = yield from answer.take(4)
    if code:
        raise ProxyError(_SOCKS_REASONS.get(code, f"SOCKS error {code}"))
    # The address of the proxy's own end, which is of no use.
    length = {1: 4, 4: 16}.get(kind) or (yield from answer.take(1))[0]
    yield from answer.take(length + 2)


def _address(host: str) -> bytes:
    if not is_address(host):
        return b"\3" + bytes((len(host),)) + host.encode("ascii")
    address = ipaddress.ip_address(host)
    return (b"\1" if address.version == 4 else b"\4") + address.packed


class _Answer:
    """The bytes that a SOCKS proxy answers."""

    def __init__(self) -> None:
        self._held = b""

    def take(self, count: int) -> Generator[Read, bytes, bytes]:
        while len(self._held) < count:
            data = yield READ
            if not data:
                raise RemoteProtocolError("the proxy closed the connection without answering")
            self._held += data
        taken, self._held = self._held[:count], self._held[count:]
        return taken
