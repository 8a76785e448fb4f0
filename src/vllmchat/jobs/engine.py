"""Runs a call for each of many inputs, on an event loop.

Each input that is in flight has a worker, a task that goes on to the next input when it is done. A worker ends when it
may not begin another input: the width has shrunk, results wait for their consumer, the server is down. `pump` starts
workers again. So what is decided is decided in one place, `_next`, and a job in full flight starts no tasks.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, cast

import anyio

from vllmchat.errors import (
    APIConnectionError,
    APIStatusError,
    JobStoppedError,
    NotFoundError,
    StructuredOutputError,
    VLLMChatError,
)
from vllmchat.http.event_loop import EventLoopHandle
from vllmchat.jobs.failures import FIRST_PAUSE, LONGEST_PAUSE, Fault, fault_of, pause_before
from vllmchat.jobs.result import JobProgress, Result
from vllmchat.jobs.source import Mark
from vllmchat.jobs.width import LOOK_SECONDS, AutoWidth, ServerLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.jobs.source import Source
    from vllmchat.jobs.width import Width
    from vllmchat.server.metrics import Metrics

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")


class Extracted(Generic[T]):
    """A value that was taken from a chat's reply.

    Attributes:
        value: The value.
        completion: The reply.
    """

    __slots__ = ("completion", "value")

    def __init__(self, value: T, completion: ChatCompletion) -> None:
        self.value = value
        self.completion = completion


Call: TypeAlias = Callable[[I], Awaitable[T | Extracted[T]]]
"""Sends one input; returns its value."""

WINDOW: Final = 16
"""With `ordered`, a job is at most so many times its width ahead of the first input that is not done."""

_CANARY_SECONDS: Final = 1.0
"""A server that does not work rejects a request at once. One that is still generating after this works."""

_REPORT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Server:
    """What can be asked of a server, where a provider has it.

    Attributes:
        ready: Waits until it is ready, for a number of seconds.
        health: Whether its engine runs.
        metrics: Its metrics.
    """

    ready: Callable[[float], Awaitable[None]] | None = None
    health: Callable[[], Awaitable[bool]] | None = None
    metrics: Callable[[], Awaitable[Metrics]] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job runs. See `VLLMProvider.map` for what the values mean."""

    width: Width
    ordered: bool = True
    retries: int = 2
    stop_after_errors: int | None = None
    wait: float = 300.0
    report: Callable[[JobProgress], None] | None = None
    total: int | None = None
    indexes: Sequence[int] | None = None
    server: Server = Server()


class _Work(Generic[I]):
    """An input that was begun."""

    __slots__ = ("attempts", "begun", "index", "input", "place")

    def __init__(self, place: int, index: int, input: I) -> None:  # noqa: A002
        self.place = place
        self.index = index
        self.input = input
        self.attempts = 0
        self.begun = time.monotonic()


class Engine(Generic[I, T]):
    """One job.

    Args:
        call: Sends one input.
        source: The inputs.
        plan: How.
        notify: Called on the event loop when there is a result and one is wanted, and at the end.

    Attributes:
        ready: Results to be handed out.
        wanted: To be set before `ready` is looked at, by a consumer who will wait if there is none.
        ended: Whether there will be no more.
        failure: What to raise then, or None.
    """

    def __init__(self, call: Call[I, T], source: Source[I], plan: Plan, notify: Callable[[], None]) -> None:
        self._call = call
        self._source = source
        self._plan = plan
        self._notify = notify
        self._width = plan.width
        self._ordered = plan.ordered
        self._indexes = plan.indexes
        self.ready: deque[Result[I, T]] = deque()
        self.wanted = False
        self.ended = False
        self.failure: BaseException | None = None
        self._handle: EventLoopHandle | None = None
        self._group: TaskGroup | None = None
        self._over = False
        self._stirred: anyio.Event | None = None
        self._closed = False
        # Inputs
        self._begun = 0
        self._exhausted = False
        self._source_error: BaseException | None = None
        self._works: dict[int, _Work[I]] = {}
        self._put_back: deque[_Work[I]] = deque()
        self._active = 0
        self._full = False
        # Results
        self._held: dict[int, Result[I, T]] = {}
        self._head = 0
        self._blocked = False
        self._window_full = False
        self._done = 0
        self._failures: Counter[str] = Counter()
        self._first_errors: dict[str, str] = {}
        self._errors_in_a_row = 0
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = 0
        # The server
        self._down: Exception | None = None
        self._probing = False
        self._trouble_since: float | None = None
        self._busy_in_a_row = 0
        self._busy_until = 0.0
        self._rejected: set[int] = set()
        self._started = time.monotonic()

    # For the consumer, in any thread

    def pop(self) -> Result[I, T] | None:
        """Returns the next result, or None if there is none yet."""
        try:
            result = self.ready.popleft()
        except IndexError:
            return None
        if self._blocked and len(self.ready) <= self._most_ready() // 2:
            self._blocked = False
            self.wake()
        return result

    def pop_ready(self) -> list[Result[I, T]]:
        """Returns the results that are there."""
        # Not more than were there at first: the job adds to them meanwhile.
        results = [self.ready.popleft() for _ in range(len(self.ready))]
        if self._blocked:
            self._blocked = False
            self.wake()
        return results

    def wake(self) -> None:
        """Begins what may be begun, soon; from any thread."""
        if self._handle is not None:
            self._handle.post(self._stir)

    def cancel(self) -> None:
        """Ends the job without waiting for its end; from any thread."""
        self._closed = True
        if self._handle is not None:
            self._handle.post(self._stir)

    # On the event loop

    async def run(self) -> None:
        """Runs the job to its end. What goes wrong is kept for the consumer."""
        try:
            async with anyio.create_task_group() as group:
                self._group, self._stirred = group, anyio.Event()
                self._started = time.monotonic()
                self._handle = EventLoopHandle()
                self._source.start(group, self.wake)
                if isinstance(self._width, AutoWidth):
                    group.start_soon(self._steer, self._width)
                if self._plan.report is not None:
                    group.start_soon(self._report_often)
                while not (self._over or self._closed):
                    self._pump()
                    await self._stirred.wait()
                    self._stirred = anyio.Event()
                group.cancel_scope.cancel()
        except BaseException as error:
            if self.failure is None and not self._closed:
                self.failure = _single(error)
            if not isinstance(error, BaseExceptionGroup):
                raise
        finally:
            self._closed = True
            self._source.stop()
            self._report(ended=True)
            self.ended = True
            self._notify()

    def _stir(self) -> None:
        """Lets `run` look what is to be done. Only a task can start tasks, and what calls this may be anything."""
        if self._stirred is not None:
            self._stirred.set()

    def _pump(self) -> None:
        """Starts as many workers as there may be."""
        if self._closed or self._group is None:
            return
        while self._active < self._width.limit and (work := self._next()) is not None:
            self._active += 1
            self._group.start_soon(self._worker, work)
        self._check_end()

    def _next(self) -> _Work[I] | None:
        """Returns the next input to send, if one may be sent now."""
        if self._closed or self._down is not None or self._over:
            return None
        return self._following()

    def _following(self) -> _Work[I] | None:
        if self._put_back:
            return self._put_back.popleft()
        if self._exhausted:
            return None
        place = self._begun
        if len(self.ready) >= self._most_ready():
            self._blocked = True
            # Again: a consumer in another thread may have taken them before it could know that it has to wake this.
            if len(self.ready) > self._most_ready() // 2:
                return None
            self._blocked = False
        if self._ordered and place - self._head >= WINDOW * self._width.limit:
            self._window_full = True
            return None
        try:
            item = self._source.take()
        except BaseException as error:  # it is raised after the results of what came before it
            self._exhausted, self._source_error = True, error
            return None
        if item is Mark.END:
            self._exhausted = True
            return None
        if item is Mark.NOT_YET:
            return None
        self._begun = place + 1
        index = place if self._indexes is None else self._indexes[place]
        work = self._works[place] = _Work(place, index, item)
        return work

    def _most_ready(self) -> int:
        """How many results may wait for their consumer before no further input is begun."""
        return max(2 * self._width.limit, 16)

    async def _worker(self, first: _Work[I], settled: anyio.Event | None = None) -> None:
        """Sends inputs, one after another.

        Args:
            first: The first of them.
            settled: To be set when this has a result, or is put back.
        """
        # All of this runs for each input, so it is written for speed: each call, and each object that is made, counts.
        work: _Work[I] | None = first
        call = self._call
        try:
            while work is not None:
                if self._active >= self._width.limit:
                    self._full = True
                work.attempts += 1
                try:
                    value = await call(work.input)
                except BaseException as error:
                    if await self._is_to_be_sent_again(work, error):
                        continue
                else:
                    if self._trouble_since is not None or self._down is not None:
                        self._works_again()
                    self._errors_in_a_row = 0
                    self._finish(work, value)
                if settled is not None:
                    settled.set()
                work = self._next() if self._active <= self._width.limit else None
        except BaseException as error:
            if _is_cancellation(error):
                raise
            # A call that raises KeyboardInterrupt or SystemExit, which would end the event loop at once.
            self._end(error)
        finally:
            self._active -= 1
        self._check_end()

    def _check_end(self) -> None:
        if self._exhausted and not self._works:
            self._end(self._source_error)

    def _end(self, failure: BaseException | None) -> None:
        """Ends the job, with an error if there is one. Only the first end counts."""
        if not self._over:
            self._over = True
            self.failure = failure
            self._stir()

    # One input

    async def _is_to_be_sent_again(self, work: _Work[I], error: BaseException) -> bool:
        """Deals with an error; waits before another attempt.

        Returns:
            Whether there is to be another attempt now; otherwise the input is settled or put back.
        """
        if isinstance(error, Exception):
            pause = await self._judge(work, error)
            if pause is None:
                return False
            await anyio.sleep(pause)
            self._rejected.discard(work.place)
            if self._down is not None:
                self._put_back.append(work)
                return False
            return True
        if not _is_from_inside(error):
            raise error
        # The call was cancelled, but not by this job: on asyncio, a task inside it.
        failure = RuntimeError("the call was cancelled")
        failure.__cause__ = error
        self._finish(work, error=failure)
        return False

    async def _judge(self, work: _Work[I], error: Exception) -> float | None:
        """Decides what follows from an error.

        Returns:
            The pause before another attempt; None if this input is settled or put back.
        """
        fault = fault_of(error)
        if fault is Fault.INPUT:
            if isinstance(error, APIStatusError | StructuredOutputError):
                self._works_again()
            self._finish(work, error=error)
            return None
        if fault is Fault.JOB:
            work.attempts -= 1
            self._stop(f"an error concerns all inputs: {error}", error)
            return None
        if fault is Fault.BUSY:
            work.attempts -= 1
            return self._pause_when_busy(work, error)
        is_down = fault is Fault.DOWN
        if is_down:
            work.attempts -= 1
        elif not await self._is_healthy():
            is_down = True
        if fault is Fault.UNSURE and work.attempts > self._plan.retries:
            # Also if the server is down: this input may be what killed it.
            self._finish(work, error=error)
        elif is_down:
            self._put_back.append(work)
        else:
            return pause_before(work.attempts, error)
        if is_down:
            self._goes_down(error)
        return None

    def _finish(
        self, work: _Work[I], value: T | Extracted[T] | None = None, error: Exception | None = None
    ) -> None:
        place, item = work.place, work.input
        del self._works[place]
        completion = None
        if type(value) is Extracted:
            extracted = cast("Extracted[T]", value)
            completion, value = extracted.completion, extracted.value
        result: Result[I, T] = Result(
            work.index,
            item,
            None if type(item) is str else id_of(item),
            cast("T | None", value),
            completion,
            error,
            work.attempts,
            time.monotonic() - work.begun,
        )
        self._done += 1
        if error is not None:
            kind = type(error).__name__
            self._failures[kind] += 1
            if kind not in self._first_errors:
                self._first_errors[kind] = str(error)
            self._errors_in_a_row += 1
        elif (usage := getattr(value, "usage", None)) is not None:
            self._count_tokens(usage)
        if not self._ordered:
            self.ready.append(result)
        elif place != self._head:
            self._held[place] = result
        else:
            self.ready.append(result)
            self._head = head = place + 1
            if self._held:
                while (following := self._held.pop(head, None)) is not None:
                    self.ready.append(following)
                    head += 1
                self._head = head
            if self._window_full:
                self._window_full = False
                self._pump()
        if self.wanted:
            self.wanted = False
            self._notify()
        most = self._plan.stop_after_errors
        if error is not None and most is not None and self._errors_in_a_row >= most:
            self._stop(f"{most} errors in a row, the last one: {error}", error)

    def _count_tokens(self, usage: Any) -> None:
        self._prompt_tokens += getattr(usage, "prompt_tokens", None) or 0
        self._completion_tokens += getattr(usage, "completion_tokens", None) or 0
        details = getattr(usage, "prompt_tokens_details", None)
        if details is not None:
            self._cached_tokens += getattr(details, "cached_tokens", None) or 0

    # The server

    def _works_again(self) -> None:
        """The server has responded."""
        self._trouble_since = None
        self._busy_in_a_row = 0
        if self._down is not None:
            self._down = None
            self._pump()

    def _goes_down(self, error: Exception) -> None:
        if self._trouble_since is None:
            self._trouble_since = time.monotonic()
        self._down = error
        if not self._probing and self._group is not None:
            self._probing = True
            self._group.start_soon(self._probe)

    def _seconds_left(self) -> float:
        """How long the job still waits for the server."""
        if self._trouble_since is None:
            return self._plan.wait
        return self._plan.wait - (time.monotonic() - self._trouble_since)

    async def _probe(self) -> None:
        """Waits until the server works again, by sending it one input."""
        pause = FIRST_PAUSE
        try:
            while self._down is not None:
                left = self._seconds_left()
                if left <= 0:
                    self._stop(f"the server was down for {self._plan.wait:g} s: {self._down}", self._down)
                    return
                await anyio.sleep(min(pause, left))
                pause = min(pause * 2, LONGEST_PAUSE)
                if await self._is_ready():
                    await self._send_canary()
        except Exception as error:
            self._end(error)
        finally:
            self._probing = False

    async def _send_canary(self) -> None:
        if self._group is None or self._down is None:
            return
        error, self._down = self._down, None
        work = self._following()
        if work is None:
            # Nothing to try it with: what is left is in flight already, or there is no input yet.
            self._check_end()
            return
        self._down = error
        self._active += 1
        settled = anyio.Event()
        self._group.start_soon(self._worker, work, settled)
        with anyio.move_on_after(_CANARY_SECONDS):
            await settled.wait()
        if work.place in self._works and work not in self._put_back:
            # It is being generated. If it fails after all, the job pauses again.
            self._down = None
            self._pump()

    async def _is_ready(self) -> bool:
        ready = self._plan.server.ready
        left = self._seconds_left()
        if ready is None or left <= 0:
            return left > 0
        try:
            await ready(left)
        except APIConnectionError as error:
            self._down = error
            return False
        except VLLMChatError:
            # It works, but serves another model or wants a key: an input shows what is wrong.
            return True
        return True

    async def _is_healthy(self) -> bool:
        health = self._plan.server.health
        if health is None:
            return True
        try:
            return await health()
        except NotFoundError:
            return True  # a gateway that forwards only /v1
        except VLLMChatError:
            return False

    def _pause_when_busy(self, work: _Work[I], error: Exception) -> float | None:
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
        left = self._seconds_left()
        if left <= 0:
            self._stop(f"the server was busy for {self._plan.wait:g} s: {error}", error)
            return None
        self._rejected.add(work.place)
        if now >= self._busy_until:
            # Once for all that were rejected together.
            self._busy_in_a_row += 1
            self._width.saw_busy(self._active - len(self._rejected))
        pause = pause_before(self._busy_in_a_row, error)
        self._busy_until = max(self._busy_until, now + pause)
        return min(pause, left)

    # The end, and what is reported

    def _stop(self, message: str, cause: Exception) -> None:
        """Ends the job with an error that holds what is done and what is not."""
        if self._over:
            return
        pending: list[tuple[int, object]] = [(work.index, work.input) for work in self._works.values()]
        results = [self._held[place] for place in sorted(self._held)]
        indexes = self._plan.indexes
        for item in self._source.stop():
            place = self._begun
            self._begun += 1
            pending.append((place if indexes is None else indexes[place], item))
        total = self._plan.total
        of = f" of {total:,}" if total is not None else ""
        failure = JobStoppedError(
            f"The job stopped after {self._done:,}{of} inputs, {self._failures.total():,} of them failed: {message}",
            done=self._done,
            failed=self._failures.total(),
            results=cast("list[Result[object, object]]", results),
            pending=pending,
        )
        failure.__cause__ = cause
        self._end(failure)

    async def _report_often(self) -> None:
        while True:
            self._report()
            await anyio.sleep(_REPORT_SECONDS)

    def _report(self, *, ended: bool = False) -> None:
        report = self._plan.report
        if report is None:
            return
        try:
            report(self.progress(ended=ended))
        except Exception as error:
            self._end(error)

    def progress(self, *, ended: bool = False) -> JobProgress:
        """Returns the state of the job."""
        return JobProgress(
            done=self._done,
            failed=self._failures.total(),
            total=self._plan.total,
            in_flight=self._active,
            width=self._width.limit,
            seconds=time.monotonic() - self._started,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
            waiting_for=None if self._down is None or ended else str(self._down),
            failures=dict(self._failures),
            first_errors=dict(self._first_errors),
            ended=ended,
        )

    async def _steer(self, width: AutoWidth) -> None:
        """Lets the width follow the server."""
        metrics = self._plan.server.metrics
        done, since = self._done, time.monotonic()
        while True:
            await anyio.sleep(width.pause if metrics is not None else LOOK_SECONDS)
            if self._down is not None:
                done, since = self._done, time.monotonic()
                continue
            full = self._full
            if metrics is not None:
                try:
                    load = load_of(await metrics())
                except APIConnectionError:
                    continue  # the server is slow, or gone
                except (VLLMChatError, ImportError):
                    load = None
                now = time.monotonic()
                if load is not None:
                    width.saw_load(load, in_flight=self._active, full=full, seconds=now - since)
                    self._full = False
                else:
                    metrics = None  # there will be none later either
                done, since = self._done, now
            elif width.saw_rate(self._done - done, time.monotonic() - since, full=full):
                done, since, self._full = self._done, time.monotonic(), False
            self._pump()


def load_of(metrics: Metrics) -> ServerLoad | None:
    """Returns the load of a server, or None if it does not report it."""
    running, waiting = metrics.requests_running, metrics.requests_waiting
    if running is None or waiting is None:
        return None
    usage = metrics.kv_cache_usage
    return ServerLoad(
        running,
        waiting,
        metrics.preemptions or 0,
        usage if usage is not None and math.isfinite(usage) else 0.0,
        sum(metrics.requests_finished.values()),
    )


def id_of(item: object) -> str | None:
    """Returns the `id` of an input, if it is a mapping that has one."""
    if not isinstance(item, Mapping):
        return None
    given: object = cast("Mapping[str, object]", item).get("id")
    return None if given is None else str(given)


def _is_cancellation(error: BaseException) -> bool:
    return type(error).__name__ in ("CancelledError", "Cancelled")


def _is_from_inside(error: BaseException) -> bool:
    """Whether a cancellation is one that a call raised on its own, while nothing cancels this task."""
    if type(error).__name__ != "CancelledError":
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


def _single(error: BaseException) -> BaseException:
    """The one error in groups of one."""
    whole: BaseException = error
    if isinstance(error, BaseExceptionGroup):
        inner: Sequence[BaseException] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        if len(inner) == 1:
            return _single(inner[0])
    return whole
