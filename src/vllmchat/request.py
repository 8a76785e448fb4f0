"""What a provider can send: a validated request; the model and timeout are filled in later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeGuard, TypeVar

from vllmchat.http.call import Call
from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllmchat.http.call import Reply

T = TypeVar("T")


class Request(Protocol[T]):
    """A validated request. Each endpoint's module has its own."""

    needs_model: ClassVar[bool]
    """Whether it goes to a model, so that the provider must know or look up which one."""

    def call(self, model: str, timeout: Timeout) -> Call[T]:
        """Makes the call.

        Args:
            model: The model's name; empty if none is needed.
            timeout: The provider's timeout; the request's own takes precedence.

        Raises:
            InvalidRequestError: Something in the request is not JSON-serializable.
        """
        ...


class VersionedRequest(Request[T], Protocol[T]):
    """A request that may have to be written differently for some versions of the server."""

    @property
    def needs_version(self) -> bool:
        """Whether the server's version matters."""
        ...

    def for_version(self, version: tuple[int, int, int]) -> Request[T]:
        """Returns the request for a given server version.

        Raises:
            InvalidRequestError: The server is too old for it.
        """
        ...


def asks_version(request: Request[T]) -> TypeGuard[VersionedRequest[T]]:
    """Whether the server's version must be known before a request is sent."""
    return getattr(request, "needs_version", False) is True


@dataclass(frozen=True, slots=True)
class PlainRequest(Generic[T]):
    """A request to the server itself, not to a model. It depends on neither model nor version.

    Attributes:
        path: The route, including its query.
        read: Makes the result of the response.
        timeout: Its own timeout; a number sets `total`.
        method: HTTP method.
        body: JSON body, or None.
        outside_v1: Whether the route is outside `/v1`, as most of these are.
        needs: See `Call`.
        answers: See `Call`.
    """

    path: str
    read: Callable[[Reply], T]
    timeout: float | Timeout | None = None
    method: str = "GET"
    body: bytes | None = None
    outside_v1: bool = True
    needs: str | None = None
    answers: frozenset[int] = frozenset()

    needs_model: ClassVar[bool] = False

    def call(self, model: str, timeout: Timeout) -> Call[T]:
        """Makes the call; the model is ignored."""
        return Call(
            self.path,
            self.read,
            Timeout.of(self.timeout, timeout),
            method=self.method,
            body=self.body,
            outside_v1=self.outside_v1,
            needs=self.needs,
            answers=self.answers,
        )
