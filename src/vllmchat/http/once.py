"""What a server is asked once, whoever wants to know it."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, TypeVar

from vllmchat.errors import VLLMChatError
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import anyio

    from vllmchat.http.clock import Clock
else:
    anyio = LazyModule("anyio")  # sync programs do not need it


T = TypeVar("T")


class Once:
    """Looks something up on the server once, however many callers want to know it."""

    __slots__ = ("_ended", "_failure")

    def __init__(self) -> None:
        self._ended = 0
        self._failure: Exception | None = None

    def _begin(self, ended: int) -> None:
        # Callers that waited for another one's lookup share its failure, instead of trying one by one. Each gets its
        # own copy: raising an exception changes it.
        failure = self._failure
        if self._ended != ended and failure is not None:
            raise copy.copy(failure) if isinstance(failure, VLLMChatError) else failure
        self._failure = None

    def _failed(self, error: Exception) -> None:
        self._ended += 1
        # Without its traceback, which would keep the frames of one caller alive for all.
        self._failure = copy.copy(error) if isinstance(error, VLLMChatError) else error


class SyncOnce(Once):
    """A one-time lookup on the server, sync.

    Attributes:
        lock: Held during the lookup.
    """

    __slots__ = ("lock",)

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def once(self, known: Callable[[], T | None], ask: Callable[[], T], clock: Clock) -> T:
        """Returns the known value, else what `ask` returns; `ask` must also make it known.

        Raises:
            APITimeoutError: The lookup of another caller took longer than `total` allows this one.
        """
        if (answer := known()) is not None:
            return answer
        ended = self._ended
        if not self.lock.acquire(timeout=min(clock.total_seconds(), threading.TIMEOUT_MAX)):
            raise clock.expired()
        try:
            if (answer := known()) is not None:
                return answer
            self._begin(ended)
            try:
                return ask()
            except Exception as error:
                if not clock.interrupted:
                    self._failed(error)
                raise
        finally:
            self.lock.release()


class AsyncOnce(Once):
    """A one-time lookup on the server, async; for the attributes see `SyncOnce`."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        super().__init__()
        self.lock = anyio.Lock()

    async def once(self, known: Callable[[], T | None], ask: Callable[[], Awaitable[T]], clock: Clock) -> T:
        """Returns the known value, else what `ask` returns; see `SyncOnce.once`."""
        if (answer := known()) is not None:
            return answer
        ended = self._ended
        try:
            with anyio.fail_after(clock.total_seconds()):
                await self.lock.acquire()
        except TimeoutError:
            raise clock.expired() from None
        try:
            if (answer := known()) is not None:
                return answer
            self._begin(ended)
            try:
                return await ask()
            except Exception as error:
                self._failed(error)
                raise
        finally:
            self.lock.release()
