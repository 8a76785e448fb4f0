"""A forward proxy for tests: plain requests in absolute form, and CONNECT."""

from __future__ import annotations

import base64
import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from support.scripted import Request, head, read_body, read_head
from support.sockets import Listener

if TYPE_CHECKING:
    import ssl

    from support.sockets import Connection


class ForwardProxy(Listener):
    """Passes everything on to one server, whatever host the client names.

    So a client may request a host that does not exist: if it gets a response, it went through the proxy. The
    proxy's URL is `origin`. Each connection of a client serves one request or one tunnel.

    Attributes:
        requests: The requests of clients to the proxy, in order: method, target and headers.
        tunnels: The `host:port` of each CONNECT that was accepted.
    """

    def __init__(
        self,
        upstream: Listener,
        *,
        credentials: tuple[str, str] | None = None,
        status: int = 200,
        tls: ssl.SSLContext | None = None,
        patience: float = 10.0,
    ) -> None:
        """Listens at once; accepts from the start of the `with` block.

        Args:
            upstream: The server behind it, listening on IPv4.
            credentials: User and password that a client must send; otherwise it gets a 407.
            status: The status for a CONNECT; anything but 200 is a rejection.
            tls: The proxy's own TLS context, for an https proxy.
            patience: See `ScriptedServer`.
        """
        super().__init__(tls=tls, patience=patience)
        self.requests: list[Request] = []
        self.tunnels: list[str] = []
        self._upstream = upstream
        self._status = status
        self._authorization: str | None = None
        if credentials is not None:
            self._authorization = "Basic " + base64.b64encode(":".join(credentials).encode()).decode()

    def serve(self, connection: Connection) -> None:
        request = read_head(connection, 0)
        tunnel = request.method == "CONNECT"
        if not tunnel:
            request = replace(request, body=read_body(connection, request.headers))
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        if (
            self._authorization is not None
            and request.headers.get("proxy-authorization") != self._authorization
        ):
            refusal = {"proxy-authenticate": "Basic", "content-length": "0", "connection": "close"}
            connection.send(head(407, refusal))
            return
        if tunnel and self._status != 200:
            connection.send(head(self._status, {"content-length": "0", "connection": "close"}))
            return
        try:
            upstream = socket.create_connection(self._upstream.address)
        except OSError:
            connection.send(head(502, {"content-length": "0", "connection": "close"}))
            return
        with contextlib.closing(upstream):
            if tunnel:
                self.tunnels.append(request.target)
                connection.send(head(200))
            else:
                upstream.sendall(_origin_form(request))
            connection.relay(upstream)


def _origin_form(request: Request) -> bytes:
    """The request as the proxy forwards it: for the server itself, once, without the proxy's own headers."""
    assert request.target.startswith("http://"), f"not in absolute form: {request.target}"
    path = "/" + request.target.removeprefix("http://").partition("/")[2]
    dropped = ("connection", "content-length", "transfer-encoding")
    lines = [f"{request.method} {path} HTTP/1.1"]
    lines += [
        f"{name}: {value}"
        for name, value in request.raw_headers
        if name.lower() not in dropped and not name.lower().startswith("proxy-")
    ]
    lines += [f"Content-Length: {len(request.body)}", "Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body
