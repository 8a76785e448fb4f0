"""How much a model can read, told to MassGen by the server instead of guessed.

MassGen looks sizes up in a price list and takes 128,000 tokens for a model that is not in it. Here the server's own
`max_model_len` is used, and a local model costs nothing: no price list is asked for it.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from massgen.token_manager.token_manager import ModelPricing, TokenCostCalculator

from vllmchat.errors import VLLMChatError
from vllmchat.http.timeout import Timeout

if TYPE_CHECKING:
    from vllmchat.models import ModelList
    from vllmchat.providers.vllm import VLLMProvider

PROVIDER: Final = "vLLM"
"""What the backend calls itself. In lower case it must be a backend type: MassGen makes further backends by it."""

_LIMITS = Timeout(connect=2.0, first_token=5.0, idle=5.0, total=5.0)

_sizes: dict[tuple[str, str], int] = {}
"""Context sizes by base URL and model."""

_servers: WeakValueDictionary[str, VLLMProvider] = WeakValueDictionary()
"""The server of a model, for those who know no more than the model's name."""

serving: ContextVar[VLLMProvider | None] = ContextVar("serving", default=None)
"""The server of the backend that MassGen is at work for, where MassGen's own code knows the model's name only."""


def serves(server: VLLMProvider, model: str) -> None:
    """Says that this server is to be asked for the context size of a model."""
    _servers[model] = server


async def learn_size(server: VLLMProvider, model: str) -> None:
    """Asks a server for the context size of a model, once. Without an answer the size stays unknown."""
    if (server.base_url, model) not in _sizes:
        # The chat request that follows meets the same trouble, and reports it.
        with suppress(VLLMChatError):
            _note(server, model, await server.with_options(max_retries=0).amodels(timeout=_LIMITS))


def _learn_size_now(server: VLLMProvider, model: str) -> None:
    if (server.base_url, model) not in _sizes:
        with suppress(VLLMChatError):
            _note(server, model, server.with_options(max_retries=0).models(timeout=_LIMITS))


def _note(server: VLLMProvider, model: str, models: ModelList) -> None:
    named = [card for card in models.data if model in (card.id, card.root) and card.max_model_len]
    # An adapter has no size of its own: it has that of the model it adapts.
    sizes = [card.max_model_len for card in named or models.data if card.max_model_len]
    if sizes:
        _sizes[server.base_url, model] = min(sizes)


class Calculator(TokenCostCalculator):
    """MassGen's calculator, with what the servers said."""

    def __init__(self, server: VLLMProvider | None = None) -> None:
        """Makes a calculator.

        Args:
            server: The server that is meant; without one, the server of the backend that MassGen is at work for.
        """
        super().__init__()
        self._server = server

    def get_model_pricing(self, provider: str, model: str) -> ModelPricing | None:
        """Price and context size of a model."""
        if provider.lower() != PROVIDER.lower():
            return super().get_model_pricing(provider, model)
        server = self._server or serving.get() or _servers.get(model)
        size = self._size(server, model) if server is not None else None
        return ModelPricing(0.0, 0.0, context_window=size, source="vLLM server")

    def _size(self, server: VLLMProvider, model: str) -> int | None:
        return _sizes.get((server.base_url, model))


class AskingCalculator(Calculator):
    """The same, for those who ask before the first request: it asks the server if need be, and waits for it."""

    def _size(self, server: VLLMProvider, model: str) -> int | None:
        _learn_size_now(server, model)
        return super()._size(server, model)
