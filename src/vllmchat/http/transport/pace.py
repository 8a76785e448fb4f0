"""How fast connections are opened when many are needed at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from vllmchat.http.event_loop import EventLoopHandle

AT_ONCE: Final = 64
"""A third of the shortest queue for new connections that servers commonly have, which is asyncio's."""


class Pace:
    """Opens a few connections in each iteration of an event loop.

    A server has a short queue for new connections. When a thousand agents wake up together, most of what they open
    would not fit, and the kernel tries those again only after a second. Between two iterations the loop sends the
    requests of the connections that are open, and the server empties its queue. It costs nothing where the network is
    slow: the next ones do not wait until the others are open.

    Args:
        event_loop: The loop.
    """

    def __init__(self, event_loop: EventLoopHandle) -> None:
        self._event_loop = event_loop
        self._begun = 0
        self._waiting: deque[anyio.Event] = deque()

    async def turn(self) -> None:
        """Waits until a connection may be opened."""
        if self._begun < AT_ONCE:
            self._begun += 1
            if self._begun == 1:
                self._event_loop.post(self._go_on)
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        await turn.wait()

    def _go_on(self) -> None:
        self._begun = min(len(self._waiting), AT_ONCE)
        for _ in range(self._begun):
            self._waiting.popleft().set()
        if self._begun:
            self._event_loop.post(self._go_on)
