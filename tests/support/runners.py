"""The methods of a provider, sync or async as a parameter, so that one test covers both."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

from support.pools import adrop_connections, drop_connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from vllmchat import (
        AsyncChatStream,
        AsyncProvider,
        ChatCompletion,
        ChatCompletionChunk,
        ChatStream,
        Messages,
        Provider,
        VLLMProvider,
    )
    from vllmchat.chat.events import Event
    from vllmchat.chat.params import CommonChatParams

T = TypeVar("T")

Name = Literal["sync", "asyncio", "trio"]
NAMES: tuple[Name, ...] = ("sync", "asyncio", "trio")


class Runner:
    """Sync methods, or async ones on an event loop in a thread of its own.

    Attributes:
        name: Which of them.
    """

    def __init__(self, name: Name, portal: BlockingPortal | None) -> None:
        self.name: Name = name
        self.portal = portal

    def chat(
        self,
        llm: Provider,
        messages: Messages = "Hi",
        *,
        model: str | None = None,
        **params: Unpack[CommonChatParams],
    ) -> ChatCompletion:
        """Calls `chat` or `achat`."""
        if self.portal is None:
            return llm.chat(messages, model=model, **params)
        return self.portal.call(lambda: llm.achat(messages, model=model, **params))

    def stream(
        self,
        llm: Provider,
        messages: Messages = "Hi",
        *,
        model: str | None = None,
        **params: Unpack[CommonChatParams],
    ) -> Stream:
        """Calls `stream` or `astream`."""
        if self.portal is None:
            return Stream(cast("ChatStream", llm.stream(messages, model=model, **params)), None)
        stream = cast("AsyncChatStream", llm.astream(messages, model=model, **params))
        return Stream(stream, self.portal)

    def do(self, llm: object, method: str, *args: object, **params: object) -> Any:
        """Calls a method that waits, named without its `a`."""
        if self.portal is None:
            return getattr(llm, method)(*args, **params)
        return self.portal.call(partial(getattr(llm, f"a{method}"), *args, **params))

    def open(self, llm: object, method: str, *args: object, **params: object) -> Stream:
        """Calls a method that streams, named without its `a`."""
        name = method if self.portal is None else f"a{method}"
        return Stream(getattr(llm, name)(*args, **params), self.portal)

    def drop_connections(self, llm: VLLMProvider) -> None:
        """Closes the connections, but not the provider."""
        if self.portal is None:
            drop_connections(llm)
        else:
            self.portal.call(adrop_connections, llm)

    def close(self, llm: VLLMProvider | AsyncProvider) -> None:
        """Calls `close` or `aclose`."""
        if self.portal is None:
            cast("VLLMProvider", llm).close()
        else:
            self.portal.call(llm.aclose)


class Stream:
    """A sync or async stream, as a sync one."""

    def __init__(self, stream: ChatStream | AsyncChatStream, portal: BlockingPortal | None) -> None:
        self.inner = stream
        self._portal = portal

    def __iter__(self) -> Self:
        if self._portal is None:
            iter(cast("ChatStream", self.inner))
        else:
            aiter(cast("AsyncChatStream", self.inner))
        return self

    def __next__(self) -> ChatCompletionChunk:
        if self._portal is None:
            return next(cast("ChatStream", self.inner))
        return _next(self._portal, cast("AsyncChatStream", self.inner))

    def events(self) -> Iterator[Event]:
        """Calls `events`."""
        if self._portal is None:
            yield from cast("ChatStream", self.inner).events()
            return
        events = cast("AsyncChatStream", self.inner).events()
        with contextlib.suppress(StopIteration):
            while True:
                yield _next(self._portal, events)

    def until_done(self) -> ChatCompletion:
        """Calls `until_done`."""
        if self._portal is None:
            return cast("ChatStream", self.inner).until_done()
        return self._portal.call(cast("AsyncChatStream", self.inner).until_done)

    @property
    def completion(self) -> ChatCompletion:
        """The reply handed out so far."""
        return self.inner.completion

    def texts(self) -> list[str]:
        """The texts of all chunks that have one."""
        return [chunk.text for chunk in self if chunk.text]

    def close(self) -> None:
        """Calls `close` or `aclose`."""
        if self._portal is None:
            cast("ChatStream", self.inner).close()
        else:
            self._portal.call(cast("AsyncChatStream", self.inner).aclose)

    def __enter__(self) -> Self:
        if self._portal is None:
            cast("ChatStream", self.inner).__enter__()
        else:
            self._portal.call(cast("AsyncChatStream", self.inner).__aenter__)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._portal is None:
            cast("ChatStream", self.inner).__exit__(exc_type, exc, traceback)
        else:
            stream = cast("AsyncChatStream", self.inner)
            self._portal.call(stream.__aexit__, exc_type, exc, traceback)


def _next(portal: BlockingPortal, source: AsyncIterator[T]) -> T:
    async def following() -> T | None:
        return await anext(source, None)

    if (item := portal.call(following)) is None:
        raise StopIteration
    return item


@contextlib.contextmanager
def runner_of(name: Name) -> Generator[Runner]:
    """Makes sync or async methods by name; the event loop of async ones ends with the block."""
    if name == "sync":
        yield Runner(name, None)
        return
    with start_blocking_portal(name) as portal:
        yield Runner(name, portal)
