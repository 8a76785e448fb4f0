"""The reply that is being read, which another task may end. Knows nothing of the MassGen package."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vllmchat.chat.stream import AsyncChatEvents, AsyncChatStream

T = TypeVar("T")


class Interrupted(Exception):  # noqa: N818 - it tells the end of a reply that somebody asked for
    """The reply was ended by `VLLMBackend.interrupt`."""


class OpenReply:
    """The place of the reply that one call of MassGen's is reading. Another task may interrupt it at any time.

    MassGen pulls each chunk in a task of its own, so nothing here may be tied to a task for longer than one wait.
    """

    def __init__(self) -> None:
        self._stream: AsyncChatStream | None = None
        self._waiting: anyio.CancelScope | None = None
        self._interrupted = False

    async def open(self, make: Callable[[], AsyncChatStream]) -> AsyncChatEvents:
        """Sends the request and waits for the head of the answer."""
        stream = self._stream = make()
        await self.wait(stream.__aenter__)
        return stream.events()

    async def wait(self, what: Callable[[], Awaitable[T]]) -> T:
        """Waits for something, until it comes or the reply is interrupted.

        Raises:
            Interrupted: It was.
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
        """Ends the reply: the connection is closed, the server stops generating."""
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
