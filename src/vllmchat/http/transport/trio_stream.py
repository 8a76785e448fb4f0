"""Connections on trio."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import trio

from vllmchat.http.transport.backend import READ_BYTES, TCP_OPTIONS, NetworkBackend, readable_check, reason
from vllmchat.http.transport.network_errors import (
    ConnectError,
    ConnectTimeout,
    ReadError,
    ReadTimeout,
    WriteTimeout,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


async def connect_trio(backend: NetworkBackend, host: str, port: int) -> TrioStream:
    """Opens a connection, to whichever address of the host answers first."""
    try:
        with trio.fail_after(_or_infinite(backend.opening_seconds())):
            stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError as error:
        raise ConnectTimeout("timed out") from error
    except OSError as error:
        raise ConnectError(str(error)) from error
    for option in TCP_OPTIONS:
        with contextlib.suppress(OSError):
            stream.setsockopt(*option)
    return TrioStream(backend, stream)


class TrioStream:
    """One connection on trio.

    Attributes:
        sock: Its socket.
    """

    def __init__(self, backend: NetworkBackend, stream: trio.SocketStream) -> None:
        self._backend = backend
        self._stream: trio.abc.Stream = stream
        self._encrypted: list[_Records] = []
        self._readable: Callable[[int], object] | None = None
        self.sock = stream.socket

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        try:
            with trio.fail_after(_or_infinite(self._backend.seconds())):
                return self._backend.note_received(await self._receive())
        except trio.TooSlowError as error:
            raise self._backend.timed_out(ReadTimeout) from error

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except _BROKEN as error:
            raise ReadError(reason(error.__cause__ or error)) from error

    async def write(self, data: memoryview, early: Callable[[bytes], bool] | None = None) -> None:
        """Sends bytes. If the server stops reading, it may have responded already, and its response says why."""
        try:
            with trio.fail_after(_or_infinite(self._backend.seconds())):
                if early is None:
                    with contextlib.suppress(*_BROKEN):
                        await self._stream.send_all(data)
                else:
                    await self._write_and_read(data, early)
        except trio.TooSlowError as error:
            raise self._backend.timed_out(WriteTimeout) from error

    async def _write_and_read(self, data: memoryview, early: Callable[[bytes], bool]) -> None:
        # Both at once: a TLS stream whose write has failed cannot be read any more.
        failures: list[Exception] = []

        async def receive() -> None:
            try:
                while not early(self._backend.note_received(await self._receive())):
                    pass
            except Exception as error:
                failures.append(error)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with contextlib.suppress(*_BROKEN):
                await self._stream.send_all(data)
                nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Goes on under TLS."""
        records = _Records(self._stream)
        encrypted = trio.SSLStream(records, context, server_hostname=host, https_compatible=True)
        try:
            with trio.fail_after(_or_infinite(self._backend.opening_seconds())):
                await encrypted.do_handshake()
        except trio.TooSlowError as error:
            raise ConnectTimeout("timed out") from error
        except _BROKEN as error:
            # trio's own exception has no text.
            raise ConnectError(reason(error.__cause__ or error)) from error
        self._stream = encrypted
        self._encrypted.append(records)

    def is_readable(self) -> bool:
        """Whether bytes, or the end of the connection, have arrived."""
        if any(records.held for records in self._encrypted):
            return True
        if self._readable is None:
            self._readable = readable_check(self.sock)
        return bool(self._readable(0))

    def is_flushed(self) -> bool:
        """Whether all that was written has been sent: trio waits for that."""
        return True

    def abort(self) -> None:
        """Closes the connection at once. Not by the stream's own `aclose`: TLS would send close_notify and wait."""
        # RuntimeError: the loop has ended, and has closed the socket.
        with contextlib.suppress(OSError, RuntimeError):
            self.sock.close()


class _Records(trio.abc.Stream):
    """What is below TLS, read by TLS one record at a time.

    TLS would take all that has arrived, and nobody could see what it holds: a response to no request would be taken for
    the next one.

    Attributes:
        held: What has arrived for later reads.
    """

    def __init__(self, below: trio.abc.Stream) -> None:
        self._below = below
        self._left = 0
        self.held = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The rest of a record, as far as it has arrived; empty at the end."""
        if self.held:
            await trio.lowlevel.checkpoint()
        while len(self.held) < (1 if self._left else _RECORD_HEAD):
            data = await self._below.receive_some(READ_BYTES)
            if not data:
                # TLS itself says what is wrong with half a record.
                self._left = _RECORD_HEAD
                break
            self.held += data
        if not self._left:
            self._left = _RECORD_HEAD + int.from_bytes(self.held[3:_RECORD_HEAD])
        data = bytes(self.held[: self._left])
        del self.held[: len(data)]
        self._left -= len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends bytes."""
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until bytes can be sent."""
        await self._below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Closes what is below."""
        await self._below.aclose()


_RECORD_HEAD = 5
"""The bytes that precede a record: its type, its version, and its length in two."""


def _or_infinite(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
