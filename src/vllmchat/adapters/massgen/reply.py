"""The reply that is being read, which another task may end. Does not depend on the MassGen package."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vllmchat.chat.stream import AsyncChatEvents, AsyncChatStream

T = TypeVar("T")


class Interrupted(Exception):  # noqa: N818 - not an error: the caller asked for it
    """The reply was ended by `VLLMBackend.interrupt`."""


class OpenReply:
    """Holds the reply that one MassGen call is reading. Another task may interrupt it at any time.

    MassGen pulls each chunk in a separate task, so nothing here may be tied to a task for longer than one wait.
    """

    def __init__(self) -> None:
        self._stream: AsyncChatStream | None = None
        self._waiting: anyio.CancelScope | None = None
        self._interrupted = False

    async def open(self, make: Callable[[], AsyncChatStream]) -> AsyncChatEvents:
        """Sends the request and waits for the head of the response."""
        stream = self._stream = make()
        await self.wait(stream.__aenter__)
        return stream.events()

    async def wait(self, what: Callable[[], Awaitable[T]]) -> T:
        """Waits for something, until it is done or the reply is interrupted.

        Raises:
            Interrupted: The reply was interrupted.
        """
        if self._interrupted:
            raise Interrupted
        try:
            with anyio.CancelScope() as self._waiting:
                return await what()
        finally:
            self._waiting = None
        raise Interrupted

    async def interrupt(self) -> None:
        """Ends the reply: closes the connection, so that the server stops generating."""
        self._interrupted = True
        if self._waiting is not None:
            self._waiting.cancel()
        else:
            await self.aclose()

    async def aclose(self) -> None:
        """Ends the reply if it is open."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()
