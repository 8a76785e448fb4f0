"""TLS within TLS: to a server, through a proxy that is itself reached by TLS."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from vllmchat.http.transport.backend import READ_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class TLSInTLS:
    """A TLS connection over a TLS socket, which `SSLContext.wrap_socket` cannot do.

    The socket keeps the timeouts.
    """

    def __init__(self, sock: ssl.SSLSocket, context: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._run(self._tls.do_handshake)

    def _run(self, call: Callable[[], T]) -> T:
        """Does one thing, and sends and receives what that takes."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                self._send()
                if data := self._sock.recv(READ_BYTES):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                self._send()
                return result

    def _send(self) -> None:
        if data := self._outgoing.read():
            self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        """The next bytes; empty at the end."""
        return self._run(partial(self._tls.read, size))

    def sendall(self, data: memoryview) -> None:
        """Sends bytes."""
        while data:
            data = data[self._run(partial(self._tls.write, cast("bytes", data))) :]
