"""A look into the connection pools of a provider."""

# Private attributes, which only the tests may read.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple, cast

from vllmchat.http.once import SyncOnce

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Generator

    from support.runners import Runner
    from vllmchat import VLLMProvider
    from vllmchat.http.transport.connection import AsyncConnection, SyncConnection
    from vllmchat.http.transport.pool import AsyncPool, SyncPool


class Held(NamedTuple):
    """The connections of a pool.

    Attributes:
        idle: Connections that wait for a request.
        in_use: Connections that serve one, and permissions to open one.
        waiting: Callers that wait for a permission.
    """

    idle: int
    in_use: int
    waiting: int


def held(pool: SyncPool | AsyncPool) -> Held:
    """The connections of the pool now."""
    return Held(len(pool._idle), len(pool._held), len(pool._waiting))


def idle_connections(pool: SyncPool | AsyncPool) -> deque[SyncConnection | AsyncConnection]:
    """The pool's own stack."""
    return cast("deque[SyncConnection | AsyncConnection]", pool._idle._connections)


def drop_connections(llm: VLLMProvider) -> None:
    """Closes the connections of sync calls, but not the provider."""
    llm._clients.sync_client.close()


async def adrop_connections(llm: VLLMProvider) -> None:
    """Closes the connections of the running event loop, but not the provider."""
    await llm._clients.async_client.aclose()


def sync_pool(llm: VLLMProvider) -> SyncPool:
    """The pool of sync calls."""
    return cast("SyncPool", llm._clients.sync_client.state().transport)


async def async_pool(llm: VLLMProvider) -> AsyncPool:
    """The pool of the running event loop."""
    return cast("AsyncPool", (await llm._clients.async_client.state()).transport)


def pool_of(runner: Runner, llm: VLLMProvider) -> SyncPool | AsyncPool:
    """The pool of sync or async calls."""
    return sync_pool(llm) if runner.portal is None else runner.portal.call(async_pool, llm)


@contextlib.contextmanager
def hold_locks(llm: VLLMProvider) -> Generator[None]:
    """Makes another thread hold every lock that sync calls use, as may happen when a process is forked."""
    lookup = llm._clients.sync_client.state().lookups.setdefault("model", SyncOnce())
    locks = (sync_pool(llm)._lock, lookup.lock)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with locks[0], locks[1]:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        release.set()
        thread.join()


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for something that another thread does without notification, by polling."""
    tick = threading.Event()
    for _ in range(5000):
        if condition():
            return
        tick.wait(0.001)
    raise AssertionError("it did not happen")
