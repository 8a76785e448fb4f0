"""What a provider can send: something that becomes a call once the model and the limits are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from vllmchat.http.call import Call
    from vllmchat.http.timeout import Timeout

T_co = TypeVar("T_co", covariant=True)


class Request(Protocol[T_co]):
    """A request that has been checked. Each endpoint's module has its own."""

    @property
    def needs_model(self) -> bool:
        """Whether it goes to a model, so that the provider must know, or ask, which one."""
        ...

    def call(self, model: str, timeout: Timeout) -> Call[T_co]:
        """The call.

        Args:
            model: The model's name; empty when none is needed.
            timeout: The provider's limits; the request's own go before them.

        Raises:
            InvalidRequestError: Something in the request has no JSON form.
        """
        ...
