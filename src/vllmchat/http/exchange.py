"""One call on its way: the two drivers that do the steps of a flow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

import anyio

from vllmchat.errors import ResponseError
from vllmchat.http.call import ResponseHead
from vllmchat.http.flow import ReadBody, Send, without_secrets
from vllmchat.http.transport_errors import TransportFailure, classify

if TYPE_CHECKING:
    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Flow, Outcome, Sleep


T = TypeVar("T")


_DRAIN_SECONDS = 0.25
"""How long a finished response may take to end formally; a slower connection is not worth keeping."""


class SyncTransport(Protocol):
    """Sends requests, sync."""

    def send(self, step: Send, clock: Clock) -> SyncOpenResponse:
        """Sends a request and waits for the head of its response."""
        ...

    def close(self) -> None:
        """Closes what was opened here and is not in use."""
        ...


class AsyncTransport(Protocol):
    """Sends requests, async."""

    async def send(self, step: Send, clock: Clock) -> AsyncOpenResponse:
        """Sends a request and waits for the head of its response."""
        ...

    def close(self) -> None:
        """Closes what was opened here and is not in use. May be called from any thread."""
        ...

    def end(self) -> None:
        """Closes everything that was opened here: the event loop is ending."""
        ...


class SyncExchange:
    """One sync call in progress: runs the steps of a flow and holds the open response."""

    __slots__ = ("_transport", "answer", "clock", "head", "sent", "url")

    def __init__(self, transport: SyncTransport, clock: Clock) -> None:
        self._transport = transport
        self.clock = clock
        self.answer: SyncOpenResponse | None = None
        self.head: ResponseHead | None = None
        self.sent: Send | None = None
        self.url = ""

    def run(self, flow: Flow[T]) -> T:
        """Runs a flow to its end."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = self._do(step)
                except TransportFailure as failure:
                    step = flow.throw(failure)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            self.close()
            raise

    def _do(self, step: Send | ReadBody | Sleep) -> Outcome:
        if isinstance(step, Send):
            self.sent, self.url = step, step.safe_url
            try:
                self.answer = self._transport.send(step, self.clock)
            except Exception as error:
                _raise(error, self.clock, answering=False)
            self.head = _head(self.answer, step)
            return self.head
        if isinstance(step, ReadBody):
            return self._read_body(step)
        time.sleep(step.seconds)
        return None

    def _read_body(self, step: ReadBody) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            data = self.read()
            if not data:
                return b"".join(pieces)
            size += len(data)
            if size > step.limit:
                self.close()
                return _cut(pieces, data, step, self.head, self.sent)
            pieces.append(data)

    def read(self) -> bytes:
        """The next bytes of the open response; empty at its end.

        Raises:
            TransportFailure: They did not arrive.
        """
        assert self.answer is not None
        try:
            return self.answer.read()
        except Exception as error:
            self.close()
            _raise(error, self.clock, answering=True)

    def drain(self) -> None:
        """Reads a response whose content has ended to its formal end, so that its connection can be reused."""
        if self.answer is not None:
            self.clock.restrict(_DRAIN_SECONDS if self.answer.follows_clock else 0)
            try:
                while self.clock.total_seconds() > 0 and self.answer.read():
                    pass
            except Exception:
                # The content is complete: whatever happens now costs only the connection.
                pass
            finally:
                self.close()

    def close(self) -> None:
        """Ends the exchange and releases the connection."""
        if self.answer is not None:
            self.answer.close()
            self.answer = None


class AsyncExchange:
    """One async call in progress: runs the steps of a flow and holds the open response."""

    __slots__ = ("_transport", "answer", "clock", "head", "sent", "url")

    def __init__(self, transport: AsyncTransport, clock: Clock) -> None:
        self._transport = transport
        self.clock = clock
        self.answer: AsyncOpenResponse | None = None
        self.head: ResponseHead | None = None
        self.sent: Send | None = None
        self.url = ""

    async def run(self, flow: Flow[T]) -> T:
        """Runs a flow to its end."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = await self._do(step)
                except TransportFailure as failure:
                    step = flow.throw(failure)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            await self.aclose()
            raise

    async def _do(self, step: Send | ReadBody | Sleep) -> Outcome:
        if isinstance(step, Send):
            self.sent, self.url = step, step.safe_url
            try:
                self.answer = await self._transport.send(step, self.clock)
            except Exception as error:
                _raise(error, self.clock, answering=False)
            self.head = _head(self.answer, step)
            return self.head
        if isinstance(step, ReadBody):
            return await self._read_body(step)
        await anyio.sleep(step.seconds)
        return None

    async def _read_body(self, step: ReadBody) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            data = await self.read()
            if not data:
                return b"".join(pieces)
            size += len(data)
            if size > step.limit:
                await self.aclose()
                return _cut(pieces, data, step, self.head, self.sent)
            pieces.append(data)

    async def read(self) -> bytes:
        """The next bytes of the open response; empty at its end.

        Raises:
            TransportFailure: They did not arrive.
        """
        assert self.answer is not None
        try:
            return await self.answer.read()
        except Exception as error:
            await self.aclose()
            _raise(error, self.clock, answering=True)

    async def drain(self) -> None:
        """Reads a response whose content has ended to its formal end, so that its connection can be reused."""
        if self.answer is not None:
            self.clock.restrict(_DRAIN_SECONDS)
            try:
                while self.clock.total_seconds() > 0 and await self.answer.read():
                    pass
            except Exception:
                # The content is complete: whatever happens now costs only the connection.
                pass
            finally:
                await self.aclose()

    async def aclose(self) -> None:
        """Ends the exchange and releases the connection."""
        if self.answer is not None:
            answer, self.answer = self.answer, None
            await answer.aclose()

    def abort(self) -> None:
        """The same without waiting, for finalizers."""
        if self.answer is not None:
            answer, self.answer = self.answer, None
            answer.abort()


def _raise(error: Exception, clock: Clock, *, answering: bool) -> NoReturn:
    failure = classify(error, clock, answering=answering)
    if failure is None:
        raise error
    raise failure from error


def _head(answer: SyncOpenResponse | AsyncOpenResponse, step: Send) -> ResponseHead:
    return ResponseHead(answer.status, answer.headers, answer.headers.get("x-request-id") or step.request_id)


def _cut(
    pieces: list[bytes], data: bytes, step: ReadBody, head: ResponseHead | None, sent: Send | None
) -> bytes:
    whole = b"".join((*pieces, data))[: step.limit]
    if step.cut:
        return whole
    begin = whole[:2000]
    if head is not None and sent is not None:
        head, begin = without_secrets(sent, head, begin)
    raise ResponseError(
        f"the response has more than {step.limit:,} bytes",
        status_code=head.status if head else None,
        body=begin.decode("utf-8", "replace"),
        request_id=head.request_id if head else None,
    )


class SyncOpenResponse(Protocol):
    """A response whose head has arrived."""

    status: int
    headers: dict[str, str]
    follows_clock: bool
    """Whether each read waits as long as the clock says then; otherwise as long as it said when the body began."""

    def read(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at the end, when the connection is free again."""
        ...

    def close(self) -> None:
        """Ends the exchange. If the body was not read to its end, the connection is closed."""
        ...


class AsyncOpenResponse(Protocol):
    """A response whose head has arrived."""

    status: int
    headers: dict[str, str]

    async def read(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at the end, when the connection is free again."""
        ...

    async def aclose(self) -> None:
        """Ends the exchange. If the body was not read to its end, the connection is closed."""
        ...

    def abort(self) -> None:
        """The same without waiting, as far as possible; for finalizers."""
        ...
