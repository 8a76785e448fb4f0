"""One job for all batches of an actor.

Ray brings batches, several at a time. A job for each would find the width anew and end with few rows in flight, so all
of them feed one job. It runs on an event loop of its own: Ray's blocks while nobody takes its results.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from vllmchat.errors import JobStoppedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence

    from vllmchat.jobs.map import AsyncMapResults
    from vllmchat.jobs.result import Result

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")

Begin: TypeAlias = "Callable[[AsyncIterable[I]], AsyncMapResults[I, T]]"
"""Begins a job."""


class SharedJob(Generic[I, T]):
    """A job that batches share. It begins with the first one; after an error the next batch begins another.

    Args:
        begin: Begins a job, whose results may come in any order.
    """

    def __init__(self, begin: Begin[I, T]) -> None:
        self._begin = begin
        self._lock = threading.Lock()
        self._run: _Run[I, T] | None = None

    def send(self, inputs: Sequence[I]) -> Future[list[Result[I, T]]]:
        """Sends a batch; from any thread.

        Returns:
            The results, in the order of the inputs, or the error that stopped the job.
        """
        batch = _Batch[I, T](inputs)
        if inputs:
            with self._lock:
                if self._run is None or not self._run.add(batch):
                    self._run = _Run(self._begin)
                    self._run.add(batch)
        return batch.future

    def close(self) -> None:
        """Ends the job once the batches that it has are done."""
        with self._lock:
            if self._run is not None:
                self._run.end()
                self._run = None


class _Batch(Generic[I, T]):
    """A batch and its results so far."""

    def __init__(self, inputs: Sequence[I]) -> None:
        self.inputs = inputs
        self.future: Future[list[Result[I, T]]] = Future()
        self._results: dict[int, Result[I, T]] = {}
        if not inputs:
            self.future.set_result([])

    def put(self, place: int, result: Result[I, T]) -> bool:
        """Keeps a result; returns whether it is the last one."""
        self._results[place] = result
        if len(self._results) < len(self.inputs):
            return False
        self.future.set_result([self._results[each] for each in range(len(self.inputs))])
        return True


class _Run(Generic[I, T]):
    """One job, in a thread of its own."""

    def __init__(self, begin: Begin[I, T]) -> None:
        self._begin = begin
        self._lock = threading.Lock()
        self._batches: set[_Batch[I, T]] = set()
        self._ended = False
        self._places: dict[int, tuple[_Batch[I, T], int]] = {}
        self._queue: asyncio.Queue[_Batch[I, T] | None] = asyncio.Queue()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._main, name="vllmchat-rows", daemon=True).start()

    def add(self, batch: _Batch[I, T]) -> bool:
        """Adds a batch; returns False if the job has ended."""
        with self._lock:
            if self._ended:
                return False
            self._batches.add(batch)
            self._loop.call_soon_threadsafe(self._queue.put_nowait, batch)
        return True

    def end(self) -> None:
        """Ends the job after the batches that it has."""
        with self._lock:
            if not self._ended:
                self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._work())

    async def _work(self) -> None:
        error: Exception | None = None
        try:
            async with self._begin(self._inputs()) as results:
                async for result in results:
                    batch, place = self._places.pop(result.index)
                    if batch.put(place, result):
                        with self._lock:
                            self._batches.discard(batch)
        except Exception as raised:
            error = raised
        with self._lock:
            self._ended = True
        for batch in self._batches:
            batch.future.set_exception(_bare(error) or RuntimeError("the job has ended"))

    async def _inputs(self) -> AsyncGenerator[I, None]:
        position = 0
        while (batch := await self._queue.get()) is not None:
            for place, item in enumerate(batch.inputs):
                self._places[position] = batch, place
                position += 1
                yield item


def _bare(error: Exception | None) -> Exception | None:
    """An error without the rows that it keeps: it travels to the driver."""
    if not isinstance(error, JobStoppedError):
        return error
    bare = JobStoppedError(error.message, done=error.done, failed=error.failed)
    bare.__cause__ = error.__cause__
    return bare
