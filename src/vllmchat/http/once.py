"""What a server is asked once, whoever wants to know it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


T = TypeVar("T")


class Once:
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


class SyncOnce(Once):
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


class AsyncOnce(Once):
    """A one-time lookup on the server, async; for the attributes see `SyncOnce`."""

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
