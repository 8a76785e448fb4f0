"""Jobs run in every way, and a provider whose server does what a test wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from support.chats import completion
from vllmchat import APIConnectionError, ChatCompletion
from vllmchat.jobs.engine import Server
from vllmchat.jobs.map import AsyncMapResults, Job, MapResults, Options, any_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.runners import Runner
    from vllmchat import Result


def job(
    call: Callable[[Any], Any], inputs: Any, *, server: Server | None = None, **options: Any
) -> Job[Any, Any]:
    """A job of a function."""
    return Job(any_call(call), inputs, Options(**options), server or Server())


def run(runner: Runner, job: Job[Any, Any]) -> list[Result[Any, Any]]:
    """Runs a job to its end."""
    if runner.portal is None:
        with MapResults(job) as results:
            return list(results)

    async def collect() -> list[Result[Any, Any]]:
        async with AsyncMapResults(job) as results:
            return [result async for result in results]

    return runner.portal.call(collect)


def refused() -> APIConnectionError:
    """The error of a server that is not there."""
    error = APIConnectionError("no connection: refused", url="http://s")
    error.kind = "refused"
    return error


def reply(text: str) -> ChatCompletion:
    """A reply."""
    return ChatCompletion.model_validate(completion(text))


class Recorder:
    """A call that counts, and lets a test decide about each input.

    Attributes:
        running: How many run now.
        most: The most that ran at once.
        begun: The inputs, in order.
        cancelled: The inputs whose calls were cancelled.
    """

    def __init__(self, answer: Callable[[Any], Any] = lambda item: item) -> None:
        self.running = self.most = 0
        self.begun: list[Any] = []
        self.cancelled: list[Any] = []
        self._answer = answer

    async def __call__(self, item: Any) -> Any:
        self.begun.append(item)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await anyio.lowlevel.checkpoint()
            answer = self._answer(item)
            return await answer if hasattr(answer, "__await__") else answer
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(item)
            raise
        finally:
            self.running -= 1
