"""A local HTTP server in a thread of its own: an event loop, and a connection as a plain `asyncio.Protocol`.

It does the steps of a response, and knows nothing of what they mean.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from vllmchat.checking.secrets import Secret, is_secret
from vllmchat.testing.exchange import Ending, Head, Request, Step

if TYPE_CHECKING:
    from typing import Self

Respond: TypeAlias = Callable[[Request], "Iterator[Step] | AsyncIterator[Step]"]
"""Makes the steps of the response to a request. It runs on the event loop and must not block."""

_START_SECONDS: Final = 10.0

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class Listener:
    """Listens on 127.0.0.1. As a context manager it starts and closes.

    Args:
        respond: Makes the responses.
        port: The port; 0 for any free one.

    Attributes:
        port: The port, once it has started.
        requests: The requests so far, in order of arrival.
        abandoned: Those whose client closed the connection before the response was complete.
        open: How many responses are being sent.
    """

    def __init__(self, respond: Respond, port: int = 0) -> None:
        self.respond = respond
        self.port = port
        self.requests: list[Request] = []
        self.abandoned: list[Request] = []
        self.open = 0
        self.connections: set[Connection] = set()
        self.changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The root, such as `http://127.0.0.1:40001`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on."""
        assert self._loop is not None
        return self._loop

    def start(self) -> Self:
        """Starts to listen.

        Raises:
            OSError: The port is in use.
            RuntimeError: It has started already.
        """
        if self._thread is not None:
            raise RuntimeError("the server has started already")
        started = threading.Event()
        failures: list[BaseException] = []
        self._thread = threading.Thread(
            target=self._run, args=(started, failures), name="vllmchat-fake", daemon=True
        )
        self._thread.start()
        if not started.wait(_START_SECONDS):
            raise RuntimeError(f"the server did not start within {_START_SECONDS:g} s")
        if failures:
            self._thread.join()
            self._thread = None
            raise failures[0]
        return self

    def close(self) -> None:
        """Closes all connections and ends the thread. Does nothing if it has not started."""
        thread, loop, self._thread = self._thread, self._loop, None
        if thread is not None and loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_abandoned(self, count: int, timeout: float) -> list[Request]:
        """Waits until so many requests are in `abandoned`.

        Raises:
            AssertionError: They were not in time.
        """
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.abandoned) >= count, timeout):
                raise AssertionError(
                    f"within {timeout:g} s, {len(self.abandoned)} of {count} connections were closed early"
                )
            return list(self.abandoned)

    def _run(self, started: threading.Event, failures: list[BaseException]) -> None:
        with asyncio.Runner() as runner:
            loop = self._loop = runner.get_loop()
            try:
                server = loop.run_until_complete(
                    loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=4096)
                )
            except OSError as error:
                failures.append(error)
                started.set()
                return
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            loop.run_forever()
            server.close()
            for connection in list(self.connections):
                connection.abort()
            loop.run_until_complete(_settle())


async def _settle() -> None:
    """Lets the transports release their sockets."""
    for _ in range(3):
        await asyncio.sleep(0)


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._request: Request | None = None
        self._steps: Iterator[Step] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._chunked = False
        self._last = False
        self._continued = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whichever side."""
        self._listener.connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._request is not None:
            self._over(abandoned=True)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._buffer += data
        self._serve()

    def eof_received(self) -> bool:
        """The client will send nothing more: it has left."""
        return False

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _serve(self) -> None:
        """Responds to the requests that have arrived, one after the other."""
        while self._request is None and self._transport is not None:
            try:
                request = self._take()
            except ValueError:
                self._transport.write(
                    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                self._transport.close()
                return
            if request is None:
                return
            self._begin(request)

    def _take(self) -> Request | None:
        """The next whole request; None if it has not arrived."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = Secret(value) if is_secret(name, value) else value
        if headers.get("expect", "").lower() == "100-continue" and not self._continued and self._transport:
            self._continued = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            found = _dechunked(buffer, end + 4)
        else:
            stop = end + 4 + int(headers.get("content-length", "0"))
            found = (bytes(buffer[end + 4 : stop]), stop) if len(buffer) >= stop else None
        if found is None:
            return None
        body, used = found
        del buffer[:used]
        self._continued = False
        self._last = version == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
        return Request(method, target, headers, body)

    def _begin(self, request: Request) -> None:
        self._request = request
        self._listener.requests.append(request)
        self._listener.open += 1
        steps = self._listener.respond(request)
        if isinstance(steps, AsyncIterator):
            self._task = self._listener.loop.create_task(self._follow(steps))
        else:
            self._steps = steps
            self._go_on(again=False)

    def _go_on(self, *, again: bool = True) -> None:
        """Does steps up to the next pause; without one, the whole response is one write."""
        self._timer = None
        written = bytearray()
        assert self._steps is not None
        for step in self._steps:
            if isinstance(step, float | int):
                self._write(written)
                if self._transport is not None:
                    self._timer = self._listener.loop.call_later(step, self._go_on)
                return
            if isinstance(step, Ending):
                self._end(step, written)
                break
            self._add(step, written)
        if again:
            self._serve()

    async def _follow(self, steps: AsyncIterator[Step]) -> None:
        """Does steps that wait for something else, each with a write of its own."""
        async for step in steps:
            written = bytearray()
            if isinstance(step, float | int):
                await asyncio.sleep(step)
            elif isinstance(step, Ending):
                self._task = None
                self._end(step, written)
                self._serve()
                return
            else:
                self._add(step, written)
                self._write(written)

    def _add(self, step: Head | bytes, written: bytearray) -> None:
        if not isinstance(step, Head):
            if self._chunked:
                if step:
                    written += b"%x\r\n%b\r\n" % (len(step), step)
            else:
                written += step
            return
        self._chunked = step.length is None
        lines = [f"HTTP/1.1 {step.status} {_REASONS.get(step.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in step.headers.items()]
        lines.append(
            "transfer-encoding: chunked" if step.length is None else f"content-length: {step.length}"
        )
        if self._last:
            lines.append("connection: close")
        written += ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _write(self, data: bytearray) -> None:
        if data and self._transport is not None:
            self._transport.write(bytes(data))

    def _end(self, ending: Ending, written: bytearray) -> None:
        if ending is Ending.STALL:
            # The request stays open until the client leaves.
            self._write(written)
            return
        if self._chunked and ending is not Ending.DROP:
            written += b"0\r\n\r\n"
        self._write(written)
        self._chunked = False
        self._over(abandoned=self._transport is None)
        if (self._last or ending is not Ending.DONE) and self._transport is not None:
            self._transport.close()

    def _over(self, *, abandoned: bool) -> None:
        listener, request = self._listener, self._request
        self._request = self._steps = None
        listener.open -= 1
        if abandoned and request is not None:
            with listener.changed:
                listener.abandoned.append(request)
                listener.changed.notify_all()


def _dechunked(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """A body in chunks and where it ends; None if it is not complete."""
    body = bytearray()
    while True:
        line = buffer.find(b"\r\n", start)
        if line < 0:
            return None
        size = int(bytes(buffer[start:line]).partition(b";")[0], 16)
        start = line + 2
        if len(buffer) < start + size + 2:
            return None
        body += buffer[start : start + size]
        start += size + 2
        if not size:
            return bytes(body), start
