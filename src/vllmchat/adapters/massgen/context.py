"""How much a model can read, told to MassGen by the server instead of guessed.

MassGen looks sizes up in a price list and takes 128,000 tokens for a model that is not in it. Here the server's own
`max_model_len` is used, and a local model costs nothing: no price list is asked for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from massgen.token_manager.token_manager import ModelPricing, TokenCostCalculator

from vllmchat.errors import VLLMChatError
from vllmchat.http.timeout import Timeout
from vllmchat.models import models_call
from vllmchat.providers.vllm import VLLMProvider

if TYPE_CHECKING:
    from vllmchat.http.call import Call
    from vllmchat.models import ModelList

PROVIDER: Final = "vLLM"
"""What the backend calls itself. In lower case it must be a backend type: MassGen makes helpers of the name."""

_ASK_TIMEOUT = Timeout(connect=2.0, first_token=5.0, idle=5.0, total=5.0)

_sizes: dict[str, int] = {}
"""Context sizes by model. MassGen asks by name alone, so of two servers the smaller size counts."""

_servers: WeakValueDictionary[str, Server] = WeakValueDictionary()


class Server(VLLMProvider):
    """A vLLM server that also tells how long a context it serves."""

    async def learn_size(self, model: str) -> None:
        """Asks for the context size, once; without an answer the size stays unknown."""
        if model not in _sizes:
            try:
                self._note(model, await self._connections.awaiting.run(self._target, _question()))
            except VLLMChatError:
                # The chat request that follows meets the same trouble, and reports it.
                return

    def learn_size_now(self, model: str) -> None:
        """The same, blocking."""
        if model not in _sizes:
            try:
                self._note(model, self._connections.blocking.run(self._target, _question()))
            except VLLMChatError:
                return

    def serves(self, model: str) -> None:
        """Says that this server is asked for the size of a model."""
        _servers[model] = self

    def _note(self, model: str, models: ModelList) -> None:
        named = [card for card in models.data if model in (card.id, card.root) and card.max_model_len]
        # An adapter has no size of its own: it has that of the model it adapts.
        sizes = [card.max_model_len for card in named or models.data if card.max_model_len]
        if sizes:
            _sizes[model] = min(sizes)


def _question() -> Call[ModelList]:
    return replace(models_call(_ASK_TIMEOUT), max_retries=0)


class Calculator(TokenCostCalculator):
    """MassGen's calculator, with what the servers said."""

    def get_model_pricing(self, provider: str, model: str) -> ModelPricing | None:
        """Price and context size of a model."""
        if provider.lower() != PROVIDER.lower():
            return super().get_model_pricing(provider, model)
        return ModelPricing(0.0, 0.0, context_window=_sizes.get(model), source="vLLM server")


class AskingCalculator(Calculator):
    """The same, for those who ask before the first request: it asks the server if need be, and waits for it."""

    def get_model_pricing(self, provider: str, model: str) -> ModelPricing | None:
        """Price and context size of a model."""
        if provider.lower() == PROVIDER.lower() and (server := _servers.get(model)) is not None:
            server.learn_size_now(model)
        return super().get_model_pricing(provider, model)
