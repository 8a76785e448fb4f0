"""Transports that reach a model in memory, behind the same two protocols as the connection pool."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from vllmchat.testing.exchange import Ending, Head, Request, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Send
    from vllmchat.testing.exchange import Step
    from vllmchat.testing.model import FakeModel


# Exceptions of transports are known by their names.


class ReadTimeout(Exception):  # noqa: N818
    """A wait for bytes timed out."""


class RemoteProtocolError(Exception):
    """The connection ended too early."""


def _request(step: Send) -> Request:
    return Request(step.method, step.target, dict(step.headers), step.body or b"")


def _dropped() -> RemoteProtocolError:
    return RemoteProtocolError("the connection was closed before the response was complete")


class SyncMemoryTransport:
    """Sends to a model in memory, sync."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model

    def send(self, step: Send, clock: Clock) -> SyncMemoryResponse:
        """Sends a request and waits for the head of its response."""
        return SyncMemoryResponse(steps(self._model.handle(_request(step))), clock)

    def close(self) -> None:
        """Does nothing: nothing is open."""


class SyncMemoryResponse:
    """A response from memory."""

    follows_clock = True

    __slots__ = ("_clock", "_closed", "_steps", "headers", "status")

    def __init__(self, steps: Iterator[Step], clock: Clock) -> None:
        self._steps = steps
        self._clock = clock
        self._closed = threading.Event()
        head = self._next()
        assert isinstance(head, Head)
        clock.response_started = True
        self.status = head.status
        self.headers = head.headers

    def _next(self) -> Head | bytes:
        """The next head or bytes; empty at the end."""
        for step in self._steps:
            if isinstance(step, float | int):
                self._wait(step)
            elif step is Ending.STALL:
                self._wait(None)
            elif step is Ending.DROP:
                raise _dropped()
            elif not isinstance(step, Ending):
                return step
        return b""

    def _wait(self, seconds: float | None) -> None:
        limit = self._clock.seconds()
        expires = limit is not None and (seconds is None or limit < seconds)
        if self._closed.wait(limit if expires else seconds):
            raise _dropped()
        if expires:
            raise ReadTimeout("timed out")

    def read(self) -> bytes:
        """The next bytes of the body; empty at the end."""
        data = self._next()
        assert isinstance(data, bytes)
        return data

    def close(self) -> None:
        """Ends the exchange."""
        self._closed.set()
        self._steps = iter(())

    def interrupt(self) -> None:
        """Ends the wait of another thread in `read`."""
        self._closed.set()


class AsyncMemoryTransport:
    """Sends to a model in memory, async."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model

    async def send(self, step: Send, clock: Clock) -> AsyncMemoryResponse:
        """Sends a request and waits for the head of its response."""
        response = AsyncMemoryResponse(steps(self._model.handle(_request(step))), clock)
        await response.begin()
        return response

    def close(self) -> None:
        """Does nothing: nothing is open."""

    def end(self) -> None:
        """Does nothing: nothing is open."""


class AsyncMemoryResponse:
    """A response from memory."""

    __slots__ = ("_clock", "_steps", "headers", "status")

    def __init__(self, steps: Iterator[Step], clock: Clock) -> None:
        self._steps = steps
        self._clock = clock
        self.status = 0
        self.headers: dict[str, str] = {}

    async def begin(self) -> None:
        """Waits for the head."""
        head = await self._next()
        assert isinstance(head, Head)
        self._clock.response_started = True
        self.status = head.status
        self.headers = head.headers

    async def _next(self) -> Head | bytes:
        # Like a socket, it lets other tasks run.
        await anyio.lowlevel.checkpoint()
        for step in self._steps:
            if isinstance(step, float | int):
                await self._wait(step)
            elif step is Ending.STALL:
                await self._wait(None)
            elif step is Ending.DROP:
                raise _dropped()
            elif not isinstance(step, Ending):
                return step
        return b""

    async def _wait(self, seconds: float | None) -> None:
        limit = self._clock.seconds()
        if limit is not None and (seconds is None or limit < seconds):
            await anyio.sleep(limit)
            raise ReadTimeout("timed out")
        if seconds is None:
            await anyio.sleep_forever()
        else:
            await anyio.sleep(seconds)

    async def read(self) -> bytes:
        """The next bytes of the body; empty at the end."""
        data = await self._next()
        assert isinstance(data, bytes)
        return data

    async def aclose(self) -> None:
        """Ends the exchange."""
        self._steps = iter(())

    def abort(self) -> None:
        """Ends the exchange."""
        self._steps = iter(())
