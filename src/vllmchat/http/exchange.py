"""One call on its way: the two drivers that do the steps of a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from vllmchat.errors import StreamError
from vllmchat.http.call import ResponseHead
from vllmchat.http.flow import Close, Read, Send
from vllmchat.http.transport_errors import classify
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import anyio

    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Flow, Opened, Outcome
else:
    anyio = LazyModule("anyio")  # sync programs do not need it


T = TypeVar("T")
TransportT = TypeVar("TransportT", bound="SyncTransport | AsyncTransport")
AnswerT = TypeVar("AnswerT", "SyncOpenResponse", "AsyncOpenResponse")


_DRAIN_SECONDS = 0.25
"""How long a finished response may take to end formally; a slower connection is not worth keeping."""

_CLOSED = "the stream was closed before its response began"


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


class _Exchange(Generic[TransportT, AnswerT]):
    """What sync and async exchanges share.

    Attributes:
        answer: The open response, if there is one.
        clock: The clock of the call.
        head: The head of the last response.
        opened: What `open_flow` returned.
        sent: The last request.
    """

    __slots__ = ("_transport", "answer", "clock", "head", "opened", "sent")

    def __init__(self, transport: TransportT, clock: Clock) -> None:
        self._transport: TransportT = transport
        self.clock = clock
        self.answer: AnswerT | None = None
        self.head: ResponseHead | None = None
        self.opened: Opened | None = None
        self.sent: Send | None = None

    @property
    def url(self) -> str:
        """The URL of the last request, for messages."""
        return self.sent.safe_url if self.sent is not None else ""

    def _begin(self, answer: AnswerT, step: Send) -> ResponseHead:
        self.answer = answer
        request_id = answer.headers.get("x-request-id") or step.request_id
        if request_id != step.request_id:
            request_id = step.mask.text(request_id)
        self.head = ResponseHead(answer.status, answer.headers, request_id, self.clock.record)
        return self.head

    def _failure(self, error: Exception, *, answering: bool) -> Exception:
        """What to raise for an exception of the transport."""
        failure = classify(error, self.clock, answering=answering)
        if isinstance(error, StopIteration | StopAsyncIteration):
            # From a caller's client, such as a mock without more responses. It would look like the end of the flow, or
            # of the stream that a caller iterates over.
            ended = RuntimeError(f"the HTTP client raised {type(error).__name__}")
            ended.__cause__ = error
            return ended
        if failure is None:
            return error
        if self.sent is not None:
            # The error quotes the response, which may echo a key.
            mask = self.sent.mask
            error.args = tuple(mask.text(each) if isinstance(each, str) else each for each in error.args)
        failure.__cause__ = error
        return failure


class SyncExchange(_Exchange["SyncTransport", "SyncOpenResponse"]):
    """One sync call in progress: runs the steps of a flow and holds the open response."""

    __slots__ = ()

    def run(self, flow: Flow[T]) -> T:
        """Runs a flow to its end."""
        try:
            step = next(flow)
            while True:
                outcome: Outcome = None
                try:
                    if isinstance(step, Read):
                        outcome = self.read()
                    elif self.clock.interrupted:
                        raise StreamError(_CLOSED)
                    elif isinstance(step, Send):
                        outcome = self._send(step)
                    elif isinstance(step, Close):
                        self.close()
                    else:
                        self.clock.sleep(step.seconds)
                except BaseException as error:
                    # Also what ends the call, so that the flow can note why.
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            self.close()
            raise

    def _send(self, step: Send) -> ResponseHead:
        self.sent = step
        try:
            return self._begin(self._transport.send(step, self.clock), step)
        except Exception as error:
            if self.clock.interrupted:
                raise StreamError(_CLOSED) from None
            raise self._failure(error, answering=False)  # noqa: B904 - it has its cause

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
            raise self._failure(error, answering=True)  # noqa: B904 - it has its cause

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

    def interrupt(self) -> None:
        """Ends the wait of another thread that reads. That thread then closes the exchange."""
        if self.answer is not None:
            self.answer.interrupt()


class AsyncExchange(_Exchange["AsyncTransport", "AsyncOpenResponse"]):
    """One async call in progress: runs the steps of a flow and holds the open response."""

    __slots__ = ()

    async def run(self, flow: Flow[T]) -> T:
        """Runs a flow to its end."""
        try:
            step = next(flow)
            while True:
                outcome: Outcome = None
                try:
                    if isinstance(step, Read):
                        outcome = await self.read()
                    elif isinstance(step, Send):
                        # Written out: each call in flight keeps each coroutine on the way.
                        self.sent = step
                        try:
                            answer = await self._transport.send(step, self.clock)
                        except Exception as error:
                            raise self._failure(error, answering=False)  # noqa: B904 - it has its cause
                        outcome = self._begin(answer, step)
                    elif isinstance(step, Close):
                        await self.aclose()
                    else:
                        await anyio.sleep(step.seconds)
                except BaseException as error:
                    # Also what ends the call, so that the flow can note why.
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except GeneratorExit:
            # The coroutine is being closed: it cannot wait for anything any more.
            self.abort()
            raise
        except BaseException:
            await self.aclose()
            raise

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
            raise self._failure(error, answering=True)  # noqa: B904 - it has its cause

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

    def interrupt(self) -> None:
        """Ends the wait of another thread in `read`, if that is possible."""
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
