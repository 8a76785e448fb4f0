"""What a provider can send: something that becomes a call once the model and the limits are known."""

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
    """A request that has been checked. Each endpoint's module has its own."""

    needs_model: ClassVar[bool]
    """Whether it goes to a model, so that the provider must know, or ask, which one."""

    def call(self, model: str, timeout: Timeout) -> Call[T]:
        """The call.

        Args:
            model: The model's name; empty when none is needed.
            timeout: The provider's limits; the request's own go before them.

        Raises:
            InvalidRequestError: Something in the request has no JSON form.
        """
        ...


class VersionedRequest(Request[T], Protocol[T]):
    """A request that may have to be written differently for some versions of the server."""

    @property
    def needs_version(self) -> bool:
        """Whether it has to be."""
        ...

    def for_version(self, version: tuple[int, int, int]) -> Request[T]:
        """The request as a server of a version reads it.

        Raises:
            InvalidRequestError: That server is too old for it.
        """
        ...


def asks_version(request: Request[T]) -> TypeGuard[VersionedRequest[T]]:
    """Whether the server's version must be known before a request is sent."""
    return getattr(request, "needs_version", False) is True


@dataclass(frozen=True, slots=True)
class PlainRequest(Generic[T]):
    """A request to the server itself, not to a model. What it says is known before the server is.

    Attributes:
        path: The route, with its query.
        read: Makes the result of the answer.
        timeout: Its own limits; a number sets `total`.
        method: HTTP method.
        body: Body, in JSON, or None.
        outside_v1: Whether the route stands beside `/v1`, as most of these do.
        needs: As of `Call`.
        answers: As of `Call`.
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
        """The call; the model is of no interest."""
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
