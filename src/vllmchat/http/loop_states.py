"""What all providers keep on one event loop, until it ends."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from vllmchat.http.client import AsyncClient, AsyncState


class LoopStates:
    """The states of all clients on one event loop. It is closed when the loop ends.

    Attributes:
        states: The state of each client.
    """

    def __init__(self) -> None:
        self.states: weakref.WeakKeyDictionary[AsyncClient, AsyncState] = weakref.WeakKeyDictionary()
        self._guard: AsyncGenerator[None, None] | None = None

    async def begin(self) -> None:
        """Makes sure that the end of the loop will be noticed."""
        self._guard = self._until_the_loop_ends()
        await anext(self._guard)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # Event loops close the async generators that are still open when they end. This one waits for just that:
        # nothing else signals a loop's end.
        try:
            yield
        finally:
            for client, state in list(self.states.items()):
                state.end()
                client.forget(state)
            # This object is kept for the loop as long as the loop lives, and the states refer to the loop.
            self.states.clear()
            self._guard = None
            with anyio.CancelScope(shield=True):
                await release_sockets()


async def release_sockets() -> None:
    """Lets the event loop release the sockets of closed connections, which it does in its next iteration."""
    await anyio.lowlevel.checkpoint()


_STATES: anyio.lowlevel.RunVar[LoopStates] = anyio.lowlevel.RunVar("vllmchat")


async def of_running_loop() -> LoopStates:
    """The states on the running event loop."""
    try:
        return _STATES.get()
    except LookupError:
        states = LoopStates()
        _STATES.set(states)
        await states.begin()
        return states
