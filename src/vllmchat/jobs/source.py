"""Where inputs come from, one at a time: a list, any iterable, an async one.

A list is read where it is needed. Any other iterable is read in a thread of its own, at most `AHEAD` inputs ahead: it
may block, and the job goes on meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, Literal, Protocol, TypeVar, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.abc import TaskGroup

I = TypeVar("I")  # noqa: E741

AHEAD: Final = 64
"""How many inputs are read before they are needed."""


class Mark(Enum):
    """What a source has instead of an input."""

    NOT_YET = "not yet"
    END = "end"


class Source(Protocol[I]):
    """A source of inputs, used on an event loop."""

    def take(self) -> I | Literal[Mark.NOT_YET, Mark.END]:
        """Returns the next input. After `NOT_YET`, the job is woken once there is more.

        Raises:
            BaseException: What the iterable has raised, after all that it had given.
        """
        ...

    def start(self, group: TaskGroup, wake: Callable[[], None]) -> None:
        """Begins to read.

        Args:
            group: For tasks.
            wake: To be called when there is more, from any thread.
        """
        ...

    def stop(self) -> list[I]:
        """Stops reading; returns what was read and not taken."""
        ...


def source_of(inputs: Iterable[I] | AsyncIterable[I]) -> Source[I]:
    """Returns a source of the inputs."""
    if isinstance(inputs, list | tuple | range | deque):
        return ListSource(iter(cast("Iterable[I]", inputs)))
    if isinstance(inputs, AsyncIterable):
        return AsyncSource(inputs)
    return ThreadSource(iter(inputs))


class ListSource(Generic[I]):
    """Inputs that are there already."""

    def __init__(self, inputs: Iterator[I]) -> None:
        self._inputs = inputs

    def take(self) -> I | Literal[Mark.NOT_YET, Mark.END]:
        """See `Source`."""
        return next(self._inputs, Mark.END)

    def start(self, group: TaskGroup, wake: Callable[[], None]) -> None:
        """See `Source`."""

    def stop(self) -> list[I]:
        """See `Source`. What is in the list is not lost."""
        return []


class _Buffer(Generic[I]):
    """What was read ahead."""

    def __init__(self) -> None:
        self.items: deque[I] = deque()
        self.ended = False
        self.stopped = False
        self.error: BaseException | None = None
        self.hungry = False

    def pop(self) -> I | Literal[Mark.NOT_YET, Mark.END]:
        if self.items:
            return self.items.popleft()
        if not self.ended:
            return Mark.NOT_YET
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return Mark.END

    def rest(self) -> list[I]:
        rest: list[I] = []
        while self.items:  # another thread may add to it
            rest.append(self.items.popleft())
        return rest


class ThreadSource(Generic[I]):
    """Inputs of an iterable that may block."""

    def __init__(self, inputs: Iterator[I]) -> None:
        self._inputs: Iterator[I] | None = inputs
        self._changed = threading.Condition()
        self._buffer: _Buffer[I] = _Buffer()
        self._wake: Callable[[], None] | None = None

    def take(self) -> I | Literal[Mark.NOT_YET, Mark.END]:
        """See `Source`."""
        # Without the lock, unless there may be nothing or the reader may wait: this runs for each input.
        items = self._buffer.items
        if not items:
            with self._changed:
                self._buffer.hungry = True
                return self._buffer.pop()
        item = items.popleft()
        if len(items) == AHEAD // 2:
            with self._changed:
                self._changed.notify()
        return item

    def start(self, group: TaskGroup, wake: Callable[[], None]) -> None:
        """See `Source`."""
        self._wake = wake
        # A daemon: an iterator that blocks for ever must not keep the process from ending.
        threading.Thread(target=self._read, name="vllmchat-inputs", daemon=True).start()

    def stop(self) -> list[I]:
        """See `Source`. An iterator that blocks is left when it gives its next input."""
        with self._changed:
            self._buffer.stopped = True
            self._changed.notify()
            return self._buffer.rest()

    def _read(self) -> None:
        error: BaseException | None = None
        # Held by this frame only, so that a generator is closed where it ran.
        inputs, self._inputs = self._inputs, None
        try:
            for item in inputs or ():
                if not self._put(item):
                    break
        except BaseException as raised:  # it is raised where the results are read
            error = raised
        del inputs
        with self._changed:
            self._buffer.ended, self._buffer.error = True, error
            del error
        self._notify()

    def _put(self, item: I) -> bool:
        buffer = self._buffer
        buffer.items.append(item)
        # After it is there, as `take` sets it before it looks.
        if buffer.hungry:
            buffer.hungry = False
            self._notify()
        if len(buffer.items) >= AHEAD:
            with self._changed:
                self._changed.wait_for(lambda: buffer.stopped or len(buffer.items) <= AHEAD // 2)
        return not buffer.stopped

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake()


class AsyncSource(Generic[I]):
    """Inputs of an async iterable."""

    def __init__(self, inputs: AsyncIterable[I]) -> None:
        self._inputs = inputs
        self._buffer: _Buffer[I] = _Buffer()
        self._room: anyio.Event | None = None

    def take(self) -> I | Literal[Mark.NOT_YET, Mark.END]:
        """See `Source`."""
        item = self._buffer.pop()
        if self._room is not None and len(self._buffer.items) <= AHEAD // 2:
            self._room.set()
        return item

    def start(self, group: TaskGroup, wake: Callable[[], None]) -> None:
        """See `Source`."""
        group.start_soon(self._read, wake)

    def stop(self) -> list[I]:
        """See `Source`. Its task ends with the group."""
        return self._buffer.rest()

    async def _read(self, wake: Callable[[], None]) -> None:
        buffer = self._buffer
        iterator = aiter(self._inputs)
        try:
            async for item in iterator:
                buffer.items.append(item)
                wake()
                if len(buffer.items) >= AHEAD:
                    self._room = anyio.Event()
                    await self._room.wait()
                    self._room = None
        except Exception as raised:
            buffer.error = raised
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                # Not left to the event loop, which would close the generator some time later.
                with anyio.CancelScope(shield=True):
                    await close()
        buffer.ended = True
        wake()
