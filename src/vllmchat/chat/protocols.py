"""Protocols for code that works with any provider.

They are structural: a class satisfies them by having the methods, and needs no import of this library. Depend on
`SyncProvider` or `AsyncProvider`, whichever you use; `Provider` is both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from vllmchat.chat.chunk import ChatCompletionChunk
    from vllmchat.chat.completion import ChatCompletion
    from vllmchat.chat.events import Event
    from vllmchat.chat.messages import Messages
    from vllmchat.chat.params import CommonChatParams


@runtime_checkable
class SyncChunks(Protocol):
    """What `SyncProvider.stream` returns, such as a `ChatStream`."""

    def __iter__(self) -> Iterator[ChatCompletionChunk]: ...

    def __next__(self) -> ChatCompletionChunk: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    @property
    def completion(self) -> ChatCompletion:
        """The reply so far."""
        ...

    def events(self) -> Iterator[Event]:
        """Yields the stream as events."""
        ...

    def until_done(self) -> ChatCompletion:
        """Reads the rest of the stream and returns the whole reply."""
        ...

    def close(self) -> None:
        """Closes the stream. The server stops generating."""
        ...


@runtime_checkable
class AsyncChunks(Protocol):
    """What `AsyncProvider.astream` returns, such as an `AsyncChatStream`."""

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]: ...

    async def __anext__(self) -> ChatCompletionChunk: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    @property
    def completion(self) -> ChatCompletion:
        """The reply so far."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Yields the stream as events."""
        ...

    async def until_done(self) -> ChatCompletion:
        """Reads the rest of the stream and returns the whole reply."""
        ...

    async def aclose(self) -> None:
        """Closes the stream. The server stops generating."""
        ...


@runtime_checkable
class SyncProvider(Protocol):
    """Chats, sync."""

    @property
    def name(self) -> str:
        """The kind of server, such as `"vllm"`."""
        ...

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and returns the whole reply."""
        ...

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> SyncChunks:
        """Sends a conversation and streams the reply."""
        ...

    def close(self) -> None:
        """Closes its connections."""
        ...


@runtime_checkable
class AsyncProvider(Protocol):
    """Chats, async."""

    @property
    def name(self) -> str:
        """The kind of server, such as `"vllm"`."""
        ...

    async def achat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and returns the whole reply."""
        ...

    def astream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> AsyncChunks:
        """Sends a conversation and streams the reply."""
        ...

    async def aclose(self) -> None:
        """Closes its connections."""
        ...


@runtime_checkable
class Provider(SyncProvider, AsyncProvider, Protocol):
    """Chats, sync and async."""
