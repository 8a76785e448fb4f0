"""What a provider is, for code that works with any.

The protocols are structural: a class that never heard of this library satisfies them by having the methods. Ask for
the colour that you use: `SyncProvider` or `AsyncProvider`; `Provider` is both.
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
    """What `SyncProvider.stream` gives; `ChatStream` is one."""

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
        """The whole reply as far as it has come."""
        ...

    def events(self) -> Iterator[Event]:
        """The stream as events."""
        ...

    def until_done(self) -> ChatCompletion:
        """Reads the rest and gives the whole reply."""
        ...

    def close(self) -> None:
        """Ends the stream; the server stops."""
        ...


@runtime_checkable
class AsyncChunks(Protocol):
    """What `AsyncProvider.astream` gives; `AsyncChatStream` is one."""

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
        """The whole reply as far as it has come."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """The stream as events."""
        ...

    async def until_done(self) -> ChatCompletion:
        """Reads the rest and gives the whole reply."""
        ...

    async def aclose(self) -> None:
        """Ends the stream; the server stops."""
        ...


@runtime_checkable
class SyncProvider(Protocol):
    """Chats, blocking."""

    @property
    def name(self) -> str:
        """What kind of server it talks to, such as `"vllm"`."""
        ...

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and gives the whole reply."""
        ...

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> SyncChunks:
        """Sends a conversation and gives the reply in pieces."""
        ...

    def close(self) -> None:
        """Closes its connections."""
        ...


@runtime_checkable
class AsyncProvider(Protocol):
    """Chats, awaiting."""

    @property
    def name(self) -> str:
        """What kind of server it talks to, such as `"vllm"`."""
        ...

    async def achat(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> ChatCompletion:
        """Sends a conversation and gives the whole reply."""
        ...

    def astream(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CommonChatParams]
    ) -> AsyncChunks:
        """Sends a conversation and gives the reply in pieces."""
        ...

    async def aclose(self) -> None:
        """Closes its connections."""
        ...


@runtime_checkable
class Provider(SyncProvider, AsyncProvider, Protocol):
    """Chats in both colours."""
