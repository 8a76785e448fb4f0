"""Results as they come: what `map` and `amap` return, and both for any provider."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sized
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar, cast

import anyio
import anyio.to_thread

from vllmchat.chat.params import VLLMChatParams
from vllmchat.checking.describe import format_value, suggest
from vllmchat.checking.rules import fields_of
from vllmchat.checking.secrets import hide_secrets
from vllmchat.client.defaults import merge
from vllmchat.errors import InvalidRequestError, Problem
from vllmchat.http.event_loop import EventLoopHandle
from vllmchat.jobs.engine import Call, Engine, Extracted, Plan, Server
from vllmchat.jobs.prefix import prefix_order
from vllmchat.jobs.source import source_of
from vllmchat.jobs.width import AutoWidth, FixedWidth

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import CommonChatParams
    from vllmchat.chat.protocols import AsyncProvider, SyncProvider
    from vllmchat.jobs.result import JobProgress, Result
    from vllmchat.jobs.source import Source
    from vllmchat.server.metrics import Metrics
    from vllmchat.structured.output_type import Parsed

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")
C = TypeVar("C", bound="ChatInput")

ChatInput: TypeAlias = "Messages | Mapping[str, object]"
"""An input of a job of chats: a text, a conversation, or a mapping with `messages` and, as you like, an `id`, a `model`
and parameters of its own, which take precedence over those of the job."""

Inputs: TypeAlias = Iterable[I] | AsyncIterable[I]
"""The inputs of a job. They are read as they are needed."""

InFlight: TypeAlias = int | Literal["auto"]
"""How many inputs may be in flight at once, or `"auto"`."""

Order: TypeAlias = Literal["given", "prefix"]
"""The order in which inputs are sent."""

Progress: TypeAlias = "bool | Callable[[JobProgress], None]"
"""True for lines on stderr, or a function that is called twice a second and at the end."""

WAIT: Final = 300.0
"""How long a job waits for a server that is down, in seconds."""

RETRIES: Final = 2

_WAKE_SECONDS: Final = 0.005
"""Threads that wait for results are woken at most so often."""


# What a job sends


def chat_call(
    chat: Callable[..., Awaitable[ChatCompletion]], model: str | None, params: Mapping[str, object]
) -> Call[C, ChatCompletion]:
    """Returns the call for a job of chats."""

    def call(item: C) -> Awaitable[ChatCompletion]:
        if type(item) is str:
            return chat(item, model=model, **params)
        messages, own = chat_of(item, model, params)
        return chat(messages, **own)

    return call


def parse_call(
    parse: Callable[..., Awaitable[Parsed[T]]],
    model: str | None,
    params: Mapping[str, object],
) -> Call[C, T]:
    """Returns the call for a job of chats whose replies are parsed."""

    async def call(item: C) -> Extracted[T]:
        messages, own = chat_of(item, model, params)
        parsed = await parse(messages, **own)
        return Extracted(parsed.value, parsed.completion)

    return call


def chat_of(
    item: object, model: str | None, params: Mapping[str, object]
) -> tuple[Messages, dict[str, object]]:
    """Returns the messages of an input, and its model and parameters.

    Raises:
        InvalidRequestError: It is a mapping without messages.
    """
    if not isinstance(item, Mapping):
        return cast("Messages", item), {"model": model, **params}
    own: dict[str, object] = {"model": model, **merge(params, cast("Mapping[str, object]", item))}
    own.pop("id", None)
    if "messages" not in own:
        what = "it looks like a message: a conversation is a list of them." if "role" in own else ""
        raise InvalidRequestError(
            [
                Problem(
                    "inputs",
                    format_value(cast("object", item)),
                    "a mapping needs the key messages" + (f"; {what}" if what else "."),
                    "Write {'messages': ..., 'id': ..., 'temperature': ...}.",
                )
            ]
        )
    return cast("Messages", own.pop("messages")), own


def any_call(call: Callable[[I], Awaitable[T] | T]) -> Call[I, T]:
    """Returns the call for a job of any function. A sync function runs in worker threads."""
    if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None)):  # noqa: B004
        return cast("Callable[[I], Awaitable[T]]", call)
    threads = in_threads(call)

    async def run_in_thread(item: I) -> T:
        value = await threads(item)
        # A lambda, say, that calls an async method.
        return await cast("Awaitable[T]", value) if inspect.isawaitable(value) else value

    return run_in_thread


def in_threads(function: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    """Returns an async version of a sync function, which runs in worker threads, as many as are needed."""
    limiter: list[anyio.CapacityLimiter] = []

    async def call(*args: object, **kwargs: object) -> T:
        if not limiter:
            limiter.append(anyio.CapacityLimiter(math.inf))
        # Wrapped, because trio raises if a thread returns a coroutine.
        (value,) = await anyio.to_thread.run_sync(lambda: (function(*args, **kwargs),), limiter=limiter[0])
        return value

    return call


# How a job runs


@dataclass(frozen=True, slots=True)
class Options:
    """How a job runs. See `VLLMProvider.map` for what the values mean."""

    in_flight: InFlight = "auto"
    ordered: bool = True
    retries: int = RETRIES
    progress: Progress = False
    stop_after_errors: int | None = None
    wait: float = WAIT
    order: Order = "given"


class Job(Generic[I, T]):
    """A job that has not begun. It can run once.

    Args:
        call: Sends one input.
        inputs: The inputs.
        options: How to run it.
        server: What can be asked of the server.
        total: How many inputs there are, if they have no length.

    Raises:
        InvalidRequestError: An option is invalid.
    """

    def __init__(
        self,
        call: Call[I, T],
        inputs: Inputs[I],
        options: Options,
        server: Server,
        total: int | None = None,
    ) -> None:
        check_options(inputs, options)
        total = len(inputs) if isinstance(inputs, Sized) else total
        indexes: list[int] | None = None
        if options.order == "prefix":
            given = list(cast("Iterable[I]", inputs))
            indexes = prefix_order(given)
            inputs = [given[index] for index in indexes]
        progress = options.progress
        self._call = call
        self._source: Source[I] = source_of(inputs)
        self._plan = Plan(
            AutoWidth() if options.in_flight == "auto" else FixedWidth(options.in_flight),
            ordered=options.ordered,
            retries=options.retries,
            stop_after_errors=options.stop_after_errors,
            wait=options.wait,
            report=_print_progress if progress is True else progress or None,
            total=total,
            indexes=indexes,
            server=server,
        )

    def engine(self, notify: Callable[[], None]) -> Engine[I, T]:
        """Returns what runs it."""
        return Engine(self._call, self._source, self._plan, notify)


def check_options(inputs: object, options: Options) -> None:
    """Checks the options of a job.

    Raises:
        InvalidRequestError: One is invalid.
    """
    problems: list[Problem] = []

    def wrong(name: str, value: object, rule: str, suggestion: str | None = None) -> None:
        problems.append(Problem(name, format_value(value), rule, suggestion))

    given: object = inputs
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable | AsyncIterable):
        wrong(
            "inputs",
            given,
            "must be a list or another iterable of inputs.",
            "Write [input] for a single one.",
        )
    width = cast("object", options.in_flight)
    if width != "auto" and not _is_count(width, 1):
        wrong("in_flight", width, 'must be "auto" or a positive integer.')
    if not _is_count(options.retries, 0):
        wrong("retries", options.retries, "must be an integer of 0 or more.")
    if options.stop_after_errors is not None and not _is_count(options.stop_after_errors, 1):
        wrong("stop_after_errors", options.stop_after_errors, "must be None or a positive integer.")
    wait = cast("object", options.wait)
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < math.inf:
        wrong("wait", wait, "must be a number of seconds, 0 or more.")
    progress = cast("object", options.progress)
    if not isinstance(progress, bool) and not callable(progress):
        wrong("progress", progress, "must be True, False or a function.")
    if options.order not in ("given", "prefix"):
        wrong("order", options.order, 'must be "given" or "prefix".')
    elif options.order == "prefix" and not isinstance(inputs, Sized):
        wrong("order", "prefix", "needs all inputs at once, and these have no length.", "Pass list(inputs).")
    if problems:
        raise InvalidRequestError(problems)


MAP_OPTIONS: Final = ("kind", "call", "model", *(each.name for each in fields(Options)))
"""The arguments of `map` that are not parameters of the calls."""

_OTHER_NAMES: Final = {
    **dict.fromkeys(
        ("batch_size", "concurrency", "max_concurrency", "max_workers", "n_jobs", "num_workers", "workers"),
        "in_flight",
    ),
    **dict.fromkeys(("max_retries", "num_retries", "retry"), "retries"),
    **dict.fromkeys(("on_progress", "progress_bar", "show_progress"), "progress"),
}
"""What other libraries call the options."""


def check_names(method: str, params: Mapping[str, object], options: Collection[str]) -> None:
    """Rejects parameters that are misspelled options of a job.

    Args:
        method: The name of the function that makes the job.
        params: What it takes for parameters of the calls.
        options: Its other arguments.

    Raises:
        InvalidRequestError: There is one.
    """
    known = fields_of(VLLMChatParams)
    problems: list[Problem] = []
    for name, value in params.items():
        if name in known:
            continue
        meant = _OTHER_NAMES.get(name) or suggest(name, options)
        if meant is not None:
            rule = f"is not an argument of {method}."
            problems.append(Problem(name, format_value(value), rule, f"Did you mean `{meant}`?"))
    if problems:
        raise InvalidRequestError(problems)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _print_progress(progress: JobProgress) -> None:
    """Prints a line each ten seconds and at the end."""
    if progress.ended or (progress.seconds >= 1 and progress.seconds % 10 < 0.5):
        sys.stderr.write(f"{progress}\n")
        sys.stderr.flush()


def server_of(provider: object) -> Server:
    """Returns what can be asked of a provider's server."""
    ready = cast("Callable[[float], Awaitable[None]] | None", getattr(provider, "aready", None))
    metrics = cast("Callable[..., Awaitable[Metrics]] | None", getattr(provider, "ametrics", None))
    health = cast("Callable[..., Awaitable[bool]] | None", getattr(provider, "ahealth", None))
    return Server(
        ready=ready,
        health=None if health is None else lambda: health(timeout=5.0),
        metrics=None if metrics is None else lambda: metrics(timeout=5.0),
    )


# Results


class AsyncMapResults(Generic[I, T]):
    """The results of a job, as they come: `async for result in llm.amap(...)`.

    Nothing is sent before you iterate. Leaving the loop ends the job: what is in flight is cancelled, and the server
    stops generating. As a context manager it always ends, even if it is kept in a variable:

        async with llm.amap(prompts) as results:
            async for result in results:
                ...

    Raises:
        JobStoppedError: The server did not come back within `wait`, an error concerns all inputs, or there were
            `stop_after_errors` errors in a row.
        Exception: What the inputs raised while they were read, after the results of those before.
    """

    def __init__(self, job: Job[I, T]) -> None:
        self._signal = _Signal()
        self._engine = job.engine(self._signal.set)
        self._loop: EventLoopHandle | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result[I, T]:
        engine = self._engine
        if self._loop is None:
            self._start()
        try:
            while self._closed or (result := engine.pop()) is None:
                if engine.ended or self._closed:
                    failure = self._failure()
                    if failure is not None:
                        raise failure
                    raise StopAsyncIteration
                engine.wanted = True
                await self._signal.wait()
        except BaseException:
            self._closed = True
            engine.cancel()
            raise
        return result

    async def aclose(self) -> None:
        """Ends the job: cancels what is in flight, and waits for that."""
        self._closed = True
        self._engine.cancel()
        if self._loop is not None:
            with anyio.CancelScope(shield=True):
                while not self._engine.ended:
                    await self._signal.wait()
        self._engine.ready.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def progress(self) -> JobProgress:
        """The state of the job."""
        return self._engine.progress(ended=self._engine.ended)

    def _start(self) -> None:
        self._loop = EventLoopHandle()
        # Leaving the loop drops this object, and nothing else says so.
        weakref.finalize(self, self._engine.cancel)
        self._loop.start(self._engine.run)

    def _failure(self) -> BaseException | None:
        failure, self._engine.failure = self._engine.failure, None
        return failure


class _Signal:
    """Wakes those who wait for results, on one event loop."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def set(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class MapResults(Generic[I, T]):
    """The results of a job, as they come: `for result in llm.map(...)`.

    Nothing is sent before you iterate. The job runs on an event loop in a thread of its own, and several threads may
    iterate over one object. Leaving the loop ends the job: what is in flight is cancelled, and the server stops
    generating. As a context manager it always ends, even if it is kept in a variable:

        with llm.map(prompts) as results:
            for result in results:
                ...

    Raises:
        JobStoppedError: The server did not come back within `wait`, an error concerns all inputs, or there were
            `stop_after_errors` errors in a row.
        Exception: What the inputs raised while they were read, after the results of those before.
    """

    def __init__(self, job: Job[I, T]) -> None:
        self._news = _News()
        self._engine = job.engine(self._news.set)
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pid = os.getpid()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result[I, T]:
        engine = self._engine
        if self._thread is None:
            self._start()
        elif self._pid != os.getpid():
            raise RuntimeError(
                "these results belong to the process that began the job. Start a job of its own here."
            )
        try:
            result = engine.pop()
            while result is None:
                with self._news.changed:
                    while not self._is_over_or_has_results():
                        self._news.changed.wait()
                result = engine.pop()
                if result is None and (engine.ended or self._closed) and not engine.ready:
                    failure = self._failure()
                    if failure is not None:
                        raise failure
                    raise StopIteration
        except BaseException:
            # Such as Ctrl-C, while it waits.
            self._closed = True
            engine.cancel()
            raise
        return result

    def _is_over_or_has_results(self) -> bool:
        self._engine.wanted = True
        return bool(self._engine.ready) or self._engine.ended or self._closed

    def close(self) -> None:
        """Ends the job: cancels what is in flight, and waits for that."""
        self._closed = True
        self._engine.cancel()
        self._news.tell()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join()
        self._engine.ready.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def progress(self) -> JobProgress:
        """The state of the job."""
        return self._engine.progress(ended=self._engine.ended)

    def _start(self) -> None:
        with self._news.changed:
            if self._thread is not None or self._closed:
                return
            run = contextvars.copy_context().run
            self._pid = os.getpid()
            # A daemon: a job that nobody closed must not keep the process from ending.
            self._thread = threading.Thread(
                target=run, args=(_run_engine, self._engine, self._news), name="vllmchat-job", daemon=True
            )
            weakref.finalize(self, self._engine.cancel)
            self._thread.start()

    def _failure(self) -> BaseException | None:
        failure, self._engine.failure = self._engine.failure, None
        return failure


def _run_engine(engine: Engine[I, T], news: _News) -> None:
    try:
        asyncio.run(engine.run())
    finally:
        news.tell()


class _News:
    """Wakes the threads that wait for results of a job.

    Not for each result: to wake a thread, and to hand it the interpreter's lock, costs about as much as a request.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._last = 0.0

    def set(self) -> None:
        """There is a result. On the event loop."""
        loop = asyncio.get_running_loop()
        self._last = max(loop.time(), self._last + _WAKE_SECONDS)
        loop.call_at(self._last, self.tell)

    def tell(self) -> None:
        """Wakes them; from any thread."""
        with self.changed:
            self.changed.notify_all()


# For any provider


def map_chat(
    provider: SyncProvider | AsyncProvider,
    inputs: Inputs[C],
    *,
    model: str | None = None,
    in_flight: InFlight = "auto",
    ordered: bool = True,
    retries: int = RETRIES,
    progress: Progress = False,
    stop_after_errors: int | None = None,
    wait: float = WAIT,
    order: Order = "given",
    **params: Unpack[CommonChatParams],
) -> MapResults[C, ChatCompletion]:
    """Chats with any provider about each of many inputs. See `VLLMProvider.map`.

    If the provider has async methods, the job uses these; otherwise it calls `chat` in threads, and ending it waits
    for the replies in flight.

    Args:
        provider: Any provider.
        inputs: Texts, conversations, or mappings with `messages`.
        model: The model, for inputs that do not name their own.
        in_flight: How many at once.
        ordered: Whether results come in the order of the inputs.
        retries: How often an input is sent again after an error that may pass.
        progress: True for lines on stderr, or a function for `JobProgress`.
        stop_after_errors: After how many errors in a row to stop.
        wait: How long to wait for a server that is down, in seconds.
        order: `"prefix"` to send inputs with the same beginning together.
        **params: Those of `chat`.

    Raises:
        InvalidRequestError: An argument is invalid. Other errors are raised by the results.
    """
    options = Options(in_flight, ordered, retries, progress, stop_after_errors, wait, order)
    return MapResults(_chat_job(provider, inputs, options, model, hide_secrets(params)))


def amap_chat(
    provider: SyncProvider | AsyncProvider,
    inputs: Inputs[C],
    *,
    model: str | None = None,
    in_flight: InFlight = "auto",
    ordered: bool = True,
    retries: int = RETRIES,
    progress: Progress = False,
    stop_after_errors: int | None = None,
    wait: float = WAIT,
    order: Order = "given",
    **params: Unpack[CommonChatParams],
) -> AsyncMapResults[C, ChatCompletion]:
    """Async version of `map_chat`."""
    options = Options(in_flight, ordered, retries, progress, stop_after_errors, wait, order)
    return AsyncMapResults(_chat_job(provider, inputs, options, model, hide_secrets(params)))


def _chat_job(
    provider: SyncProvider | AsyncProvider,
    inputs: Inputs[C],
    options: Options,
    model: str | None,
    params: Mapping[str, object],
) -> Job[C, ChatCompletion]:
    chat = getattr(provider, "achat", None) or in_threads(cast("SyncProvider", provider).chat)
    return Job(chat_call(chat, model, params), inputs, options, server_of(provider))
