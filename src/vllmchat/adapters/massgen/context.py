"""The context size of a model, as the server reports it.

MassGen looks sizes up in a price list and assumes 128,000 tokens for a model that is not in it. Here the server's own
`max_model_len` is used; a local model costs nothing, so no price list is needed.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from massgen.token_manager.token_manager import ModelPricing, TokenCostCalculator

from vllmchat.errors import VLLMChatError
from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Generator

    from vllmchat.client.discovery import ModelList
    from vllmchat.providers.vllm import VLLMProvider

PROVIDER: Final = "vLLM"
"""The name of the backend. In lower case it must be a backend type: MassGen uses it to make more backends."""

_LIMITS = Timeout(connect=2.0, first_token=5.0, idle=5.0, total=5.0)

_lists: dict[str, ModelList | None] = {}
"""The models of each server that was asked, by base URL. None while it has not answered, and if it never does."""

_servers: WeakValueDictionary[str, VLLMProvider] = WeakValueDictionary()
"""The server of a model, for callers that know only the model's name."""

serving: ContextVar[VLLMProvider | None] = ContextVar("serving", default=None)
"""The server of the backend that MassGen is working for, where MassGen's code knows only the model's name."""


def serves(server: VLLMProvider, model: str) -> None:
    """Registers the server that reports the context size of a model."""
    _servers[model] = server


async def learn_size(server: VLLMProvider) -> None:
    """Asks a server for the context sizes of its models, once per process, whatever the answer.

    While one caller waits for the answer, others go on without.
    """
    if server.base_url not in _lists:
        with _asking(server):
            _lists[server.base_url] = await server.with_options(max_retries=0).amodels(timeout=_LIMITS)


def _learn_size_now(server: VLLMProvider) -> None:
    if server.base_url not in _lists:
        with _asking(server):
            _lists[server.base_url] = server.with_options(max_retries=0).models(timeout=_LIMITS)


@contextmanager
def _asking(server: VLLMProvider) -> Generator[None]:
    """Notes that a server is asked. A question that did not reach it may be repeated."""
    _lists[server.base_url] = None
    try:
        yield
    except VLLMChatError as error:
        # The following chat request will hit the same problem, and report it.
        if type(error.__cause__).__name__ == "ConnectError":
            del _lists[server.base_url]
    except BaseException:
        del _lists[server.base_url]
        raise


def known_size(server: VLLMProvider, model: str) -> int | None:
    """The context size of a model in tokens, if the server has reported it."""
    models = _lists.get(server.base_url)
    if models is None:
        return None
    named = [card for card in models.data if model in (card.id, card.root) and card.max_model_len]
    # An adapter has no size of its own: it has that of its base model.
    return min((card.max_model_len for card in named or models.data if card.max_model_len), default=None)


class Calculator(TokenCostCalculator):
    """MassGen's calculator, with what the servers report."""

    def __init__(self, server: VLLMProvider | None = None) -> None:
        """Makes a calculator.

        Args:
            server: The server; without one, the server of the backend that MassGen is working for.
        """
        super().__init__()
        self._server = server

    def get_model_pricing(self, provider: str, model: str) -> ModelPricing | None:
        """The price and context size of a model."""
        if provider.lower() != PROVIDER.lower():
            return super().get_model_pricing(provider, model)
        server = self._server or serving.get() or _servers.get(model)
        size = self._size(server, model) if server is not None else None
        return ModelPricing(0.0, 0.0, context_window=size, source="vLLM server")

    def _size(self, server: VLLMProvider, model: str) -> int | None:
        return known_size(server, model)


class AskingCalculator(Calculator):
    """A calculator for callers that need the size before the first request: it looks it up if necessary, blocking."""

    def _size(self, server: VLLMProvider, model: str) -> int | None:
        _learn_size_now(server)
        return super()._size(server, model)
