"""The two drivers: they run the steps of a flow, sync and async."""

from __future__ import annotations

import os
import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from vllmchat.http.exchange import AsyncExchange, AsyncTransport, SyncExchange, SyncTransport
from vllmchat.http.flow import open_flow, reply_flow
from vllmchat.http.once import AsyncOnce, SyncOnce
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from vllmchat.http import event_loop, loop_states
    from vllmchat.http.call import Call
    from vllmchat.http.clock import Clock
    from vllmchat.http.flow import Flow, Target
else:
    # Sync programs do not need them.
    event_loop = LazyModule("vllmchat.http.event_loop")
    loop_states = LazyModule("vllmchat.http.loop_states")

T = TypeVar("T")


class SyncClient:
    """Runs sync calls. Thread-safe.

    Each process has its own connections: those that a fork copies still belong to the parent.
    """

    def __init__(self, make_transport: Callable[[], SyncTransport]) -> None:
        self._make_transport = make_transport
        self._states: dict[int, SyncState] = {}

    def run(self, target: Target, call: Call[T], clock: Clock) -> T:
        """Sends a call and reads the whole response."""
        return SyncExchange(self.state().transport, clock).run(reply_flow(target, call, clock))

    def follow(self, flow: Callable[[Clock], Flow[T]], clock: Clock) -> T:
        """Runs a flow within the timeouts of a call."""
        return SyncExchange(self.state().transport, clock).run(flow(clock))

    def open(self, target: Target, call: Call[T], clock: Clock) -> SyncExchange:
        """Sends a call and leaves the response open, to be read as it arrives."""
        exchange = SyncExchange(self.state().transport, clock)
        exchange.opened = exchange.run(open_flow(target, call, clock))
        return exchange

    def once(self, name: str, known: Callable[[], T | None], ask: Callable[[], T], clock: Clock) -> T:
        """Looks something up on the server, once in this process; see `SyncOnce.once`."""
        return self.state().lookups.setdefault(name, SyncOnce()).once(known, ask, clock)

    def close(self) -> None:
        """Closes the connections. The next call opens new ones."""
        for state in list(self._states.values()):
            state.transport.close()

    def state(self) -> SyncState:
        """The state of this client in this process."""
        pid = os.getpid()
        state = self._states.get(pid)
        if state is None:
            # Without a lock: a thread may have held it when the process was forked. Of two racing threads one wins.
            self.close()
            mine = SyncState(self._make_transport())
            state = self._states.setdefault(pid, mine)
            if state is mine:
                weakref.finalize(self, state.transport.close)
        return state


class AsyncClient:
    """Runs async calls. Each event loop has its own connections, which end with it."""

    def __init__(self, make_transport: Callable[[], AsyncTransport]) -> None:
        self._make_transport = make_transport
        self._recent: tuple[asyncio.AbstractEventLoop, AsyncState] | None = None

    def run(self, target: Target, call: Call[T], clock: Clock) -> Awaitable[T]:
        """Sends a call and reads the whole response."""
        # Not a coroutine of its own: each call in flight keeps each one on the way, and garbage collection visits it.
        state = self._known_state()
        if state is None:
            return self.follow(partial(reply_flow, target, call), clock)
        return AsyncExchange(state.transport, clock).run(reply_flow(target, call, clock))

    async def follow(self, flow: Callable[[Clock], Flow[T]], clock: Clock) -> T:
        """Runs a flow within the timeouts of a call."""
        state = await self.state()
        return await AsyncExchange(state.transport, clock).run(flow(clock))

    async def open(self, target: Target, call: Call[T], clock: Clock) -> AsyncExchange:
        """Sends a call and leaves the response open, to be read as it arrives."""
        state = await self.state()
        exchange = AsyncExchange(state.transport, clock)
        exchange.opened = await exchange.run(open_flow(target, call, clock))
        return exchange

    async def once(
        self, name: str, known: Callable[[], T | None], ask: Callable[[], Awaitable[T]], clock: Clock
    ) -> T:
        """Looks something up on the server, once on this event loop; see `AsyncOnce.once`."""
        state = await self.state()
        return await state.lookups.setdefault(name, AsyncOnce()).once(known, ask, clock)

    async def aclose(self) -> None:
        """Closes the connections of the running event loop. The next call opens new ones."""
        loop = await loop_states.of_running_loop()
        state = loop.states.get(self)
        if state is not None:
            state.transport.close()
            # If the event loop ended before that, it would warn.
            await loop_states.release_sockets()

    async def state(self) -> AsyncState:
        """The state of this client on the running event loop."""
        state = self._known_state()
        if state is not None:
            return state
        loop = await loop_states.of_running_loop()
        state = loop.states.get(self)
        if state is None:
            state = loop.states[self] = AsyncState(self._make_transport())
            state.at_end = weakref.finalize(self, state.transport.close)
            state.at_end.atexit = False
        running = _asyncio_loop()
        if running is not None:
            self._recent = running, state
        return state

    def forget(self, state: AsyncState) -> None:
        """Forgets a state whose event loop has ended, and with it the loop."""
        recent = self._recent
        if recent is not None and recent[1] is state:
            self._recent = None

    def _known_state(self) -> AsyncState | None:
        """The state on the running event loop if that is known without waiting."""
        recent = self._recent
        return recent[1] if recent is not None and recent[0] is _asyncio_loop() else None


class SyncState:
    """The state of a `SyncClient` in one process.

    Attributes:
        transport: The connections.
        lookups: What is looked up on the server only once, by name.
    """

    __slots__ = ("lookups", "transport")

    def __init__(self, transport: SyncTransport) -> None:
        self.transport = transport
        self.lookups: dict[str, SyncOnce] = {}


class AsyncState:
    """The state of an `AsyncClient` on one event loop; for the attributes see `SyncState`.

    Attributes:
        at_end: Closes the connections when the client is gone.
    """

    __slots__ = ("at_end", "lookups", "transport")

    def __init__(self, transport: AsyncTransport) -> None:
        self.transport = transport
        self.at_end: weakref.finalize[..., AsyncClient] | None = None
        self.lookups: dict[str, AsyncOnce] = {}

    def end(self) -> None:
        """Closes all connections: their event loop is ending."""
        self.transport.end()
        if self.at_end is not None:
            # It would keep the connections, and with them the loop, alive as long as the client lives.
            self.at_end.detach()


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The running event loop if it is asyncio's. One may run inside another: then the inner one counts."""
    asyncio_module = sys.modules.get("asyncio")
    return None if asyncio_module is None or event_loop.on_trio() else asyncio_module.get_running_loop()
