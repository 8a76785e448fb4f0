"""The two drivers: they run the steps of a flow, sync and async."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

import anyio
import anyio.lowlevel

from vllmchat.errors import ResponseError
from vllmchat.http.call import Head
from vllmchat.http.clock import Clock
from vllmchat.http.failure import TransportFailure, classify
from vllmchat.http.flow import ReadBody, Send, open_flow, reply_flow, without_secrets

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from vllmchat.http.call import Call
    from vllmchat.http.flow import Flow, Outcome, Sleep, Target
    from vllmchat.http.timeout import Timeout
    from vllmchat.http.transport import AsyncAnswer, SyncAnswer

T = TypeVar("T")

_DRAIN_SECONDS = 0.25
"""How long a finished response may take to end formally; a slower connection is not worth keeping."""


class SyncSender(Protocol):
    """Sends requests, sync."""

    def send(self, step: Send, clock: Clock) -> SyncAnswer:
        """Sends a request and waits for the head of its response."""
        ...

    def close(self) -> None:
        """Closes what was opened here and is not in use."""
        ...


class AsyncSender(Protocol):
    """Sends requests, async."""

    async def send(self, step: Send, clock: Clock) -> AsyncAnswer:
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

    __slots__ = ("_sender", "answer", "clock", "head", "sent", "url")

    def __init__(self, sender: SyncSender, clock: Clock) -> None:
        self._sender = sender
        self.clock = clock
        self.answer: SyncAnswer | None = None
        self.head: Head | None = None
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
            self.sent, self.url = step, step.place
            try:
                self.answer = self._sender.send(step, self.clock)
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

    __slots__ = ("_sender", "answer", "clock", "head", "sent", "url")

    def __init__(self, sender: AsyncSender, clock: Clock) -> None:
        self._sender = sender
        self.clock = clock
        self.answer: AsyncAnswer | None = None
        self.head: Head | None = None
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
            self.sent, self.url = step, step.place
            try:
                self.answer = await self._sender.send(step, self.clock)
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


class SyncClient:
    """Runs sync calls. Thread-safe.

    Each process has its own connections: those that a fork copies still belong to the parent.
    """

    def __init__(self, make_sender: Callable[[], SyncSender]) -> None:
        self._make_sender = make_sender
        self._states: dict[int, SyncState] = {}

    def run(self, target: Target, call: Call[T]) -> T:
        """Sends a call and reads the whole response."""
        return self.follow(partial(reply_flow, target, call), call.timeout)

    def follow(self, flow: Callable[[Clock], Flow[T]], timeout: Timeout) -> T:
        """Runs a flow within the timeouts of a call."""
        clock = Clock(timeout)
        return SyncExchange(self.state().sender, clock).run(flow(clock))

    def open(self, target: Target, call: Call[T]) -> SyncExchange:
        """Sends a call and leaves the response open, to be read as it arrives."""
        clock = Clock(call.timeout)
        exchange = SyncExchange(self.state().sender, clock)
        exchange.run(open_flow(target, call, clock))
        return exchange

    def close(self) -> None:
        """Closes the connections. The next call opens new ones."""
        for state in list(self._states.values()):
            state.sender.close()

    def state(self) -> SyncState:
        """The state of this client in this process."""
        pid = os.getpid()
        state = self._states.get(pid)
        if state is None:
            # Without a lock: a thread may have held it when the process was forked. Of two racing threads one wins.
            self.close()
            mine = SyncState(self._make_sender())
            state = self._states.setdefault(pid, mine)
            if state is mine:
                weakref.finalize(self, state.sender.close)
        return state


class AsyncClient:
    """Runs async calls. Each event loop has its own connections, which end with it."""

    def __init__(self, make_sender: Callable[[], AsyncSender]) -> None:
        self._make_sender = make_sender
        self._recent: tuple[asyncio.AbstractEventLoop, AsyncState] | None = None

    async def run(self, target: Target, call: Call[T]) -> T:
        """Sends a call and reads the whole response."""
        return await self.follow(partial(reply_flow, target, call), call.timeout)

    async def follow(self, flow: Callable[[Clock], Flow[T]], timeout: Timeout) -> T:
        """Runs a flow within the timeouts of a call."""
        clock = Clock(timeout)
        state = await self.state()
        return await AsyncExchange(state.sender, clock).run(flow(clock))

    async def open(self, target: Target, call: Call[T]) -> AsyncExchange:
        """Sends a call and leaves the response open, to be read as it arrives."""
        clock = Clock(call.timeout)
        state = await self.state()
        exchange = AsyncExchange(state.sender, clock)
        await exchange.run(open_flow(target, call, clock))
        return exchange

    async def aclose(self) -> None:
        """Closes the connections of the running event loop. The next call opens new ones."""
        loop = await _running_loop()
        state = loop.states.get(self)
        if state is not None:
            state.sender.close()
            # The event loop releases the sockets in its next iteration; if it ended before that, it would warn.
            await anyio.lowlevel.checkpoint()

    async def state(self) -> AsyncState:
        """The state of this client on the running event loop."""
        from asyncio import get_running_loop  # sync programs do not need it

        # Without trio it is enough to ask asyncio, which is much faster; with trio, one loop may run inside another.
        running = None if "trio" in sys.modules else get_running_loop()
        recent = self._recent
        if recent is not None and recent[0] is running:
            return recent[1]
        loop = await _running_loop()
        state = loop.states.get(self)
        if state is None:
            state = loop.states[self] = AsyncState(self._make_sender())
            state.at_end = weakref.finalize(self, state.sender.close)
            state.at_end.atexit = False
        if running is not None:
            self._recent = running, state
        return state


class _Asking:
    """Looks something up on the server once, however many callers want to know it."""

    __slots__ = ("_asked", "_failure")

    def __init__(self) -> None:
        self._asked = 0
        self._failure: Exception | None = None

    def _begin(self, asked: int) -> None:
        # Callers that waited for another one's lookup share its failure, instead of trying one by one.
        if self._asked != asked and self._failure is not None:
            raise self._failure
        self._asked += 1
        self._failure = None


class SyncQuestion(_Asking):
    """A one-time lookup on the server, sync.

    Attributes:
        lock: Held during the lookup.
    """

    __slots__ = ("lock",)

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def once(self, known: Callable[[], T | None], ask: Callable[[], T]) -> T:
        """Returns the known value, else what `ask` returns; `ask` must also make it known."""
        if (answer := known()) is not None:
            return answer
        asked = self._asked
        with self.lock:
            if (answer := known()) is not None:
                return answer
            self._begin(asked)
            try:
                return ask()
            except Exception as error:
                self._failure = error
                raise


class AsyncQuestion(_Asking):
    """A one-time lookup on the server, async; for the attributes see `SyncQuestion`."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        super().__init__()
        self.lock = anyio.Lock()

    async def once(self, known: Callable[[], T | None], ask: Callable[[], Awaitable[T]]) -> T:
        """Returns the known value, else what `ask` returns; `ask` must also make it known."""
        if (answer := known()) is not None:
            return answer
        asked = self._asked
        async with self.lock:
            if (answer := known()) is not None:
                return answer
            self._begin(asked)
            try:
                return await ask()
            except Exception as error:
                self._failure = error
                raise


class SyncState:
    """The state of a `SyncClient` in one process.

    Attributes:
        sender: The connections.
        model: The lookup of the model that the server serves.
        version: The lookup of its version.
    """

    __slots__ = ("model", "sender", "version")

    def __init__(self, sender: SyncSender) -> None:
        self.sender = sender
        self.model = SyncQuestion()
        self.version = SyncQuestion()


class AsyncState:
    """The state of an `AsyncClient` on one event loop; for the attributes see `SyncState`.

    Attributes:
        at_end: Closes the connections when the client is gone.
    """

    __slots__ = ("at_end", "model", "sender", "version")

    def __init__(self, sender: AsyncSender) -> None:
        self.sender = sender
        self.at_end: weakref.finalize[..., AsyncClient] | None = None
        self.model = AsyncQuestion()
        self.version = AsyncQuestion()

    def end(self) -> None:
        """Closes all connections: their event loop is ending."""
        self.sender.end()
        if self.at_end is not None:
            # It would keep the connections, and with them the loop, alive as long as the client lives.
            self.at_end.detach()


class _Loop:
    """The states of all clients on one event loop. It is closed when the loop ends."""

    def __init__(self) -> None:
        self.states: weakref.WeakKeyDictionary[AsyncClient, AsyncState] = weakref.WeakKeyDictionary()
        self.guard: AsyncGenerator[None, None] | None = None

    async def begin(self) -> None:
        """Makes sure that the end of the loop will be noticed."""
        self.guard = self._until_the_loop_ends()
        await anext(self.guard)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # Event loops close the async generators that are still open when they end. This one waits for just that:
        # nothing else signals a loop's end.
        try:
            yield
        finally:
            for state in list(self.states.values()):
                state.end()
            # This object is kept for the loop as long as the loop lives, and the states refer to the loop.
            self.states.clear()
            self.guard = None
            with anyio.CancelScope(shield=True):
                # The event loop releases the sockets in its next iteration.
                await anyio.lowlevel.checkpoint()


_LOOP: anyio.lowlevel.RunVar[_Loop] = anyio.lowlevel.RunVar("vllmchat")


async def _running_loop() -> _Loop:
    try:
        return _LOOP.get()
    except LookupError:
        loop = _Loop()
        _LOOP.set(loop)
        await loop.begin()
        return loop


def _raise(error: Exception, clock: Clock, *, answering: bool) -> NoReturn:
    failure = classify(error, clock, answering=answering)
    if failure is None:
        raise error
    raise failure from error


def _head(answer: SyncAnswer | AsyncAnswer, step: Send) -> Head:
    return Head(answer.status, answer.headers, answer.headers.get("x-request-id") or step.request_id)


def _cut(pieces: list[bytes], data: bytes, step: ReadBody, head: Head | None, sent: Send | None) -> bytes:
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
