"""Methods for tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from vllmchat.chat.messages import Messages
    from vllmchat.tokens import tokenize
    from vllmchat.tokens.tokenize import (
        CountTokensParams,
        DetokenizeParams,
        Tokenizable,
        Tokenization,
        TokenizeParams,
    )
else:
    tokenize = LazyModule("vllmchat.tokens.tokenize")


class TokenMethods(ProviderBase):
    """The tokenizer of a vLLM server."""

    def tokenize(
        self, prompt: Tokenizable, *, model: str | None = None, **params: Unpack[TokenizeParams]
    ) -> Tokenization:
        """Converts a string, or the prompt of a conversation, to tokens.

        A string is tokenized unchanged. A conversation is rendered with the model's chat template, with tools and
        template variables as in `chat`.

        Args:
            prompt: A string, or a list of messages.
            model: The model whose tokenizer to use.
            **params: See `TokenizeParams`.

        Raises:
            InvalidRequestError: A parameter is invalid; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list of tokens.
        """
        return self._run(tokenize.tokenize_request(prompt, params), model)

    async def atokenize(
        self, prompt: Tokenizable, *, model: str | None = None, **params: Unpack[TokenizeParams]
    ) -> Tokenization:
        """Async version of `tokenize`."""
        return await self._arun(tokenize.tokenize_request(prompt, params), model)

    def count_tokens(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CountTokensParams]
    ) -> int:
        """Counts the tokens of the prompt that `chat` would send for a conversation.

        With the same `tools`, `enable_thinking` and template variables, it equals the `usage.prompt_tokens` of a reply.

        Args:
            messages: The conversation so far; a string is one user message.
            model: The model whose tokenizer and chat template to use.
            **params: See `CountTokensParams`.

        Raises:
            InvalidRequestError: A parameter is invalid; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list of tokens.
        """
        return self._run(tokenize.count_request(messages, params), model)

    async def acount_tokens(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CountTokensParams]
    ) -> int:
        """Async version of `count_tokens`."""
        return await self._arun(tokenize.count_request(messages, params), model)

    def detokenize(
        self, tokens: Sequence[int], *, model: str | None = None, **params: Unpack[DetokenizeParams]
    ) -> str:
        """Converts tokens to text, including special tokens.

        Args:
            tokens: The token ids.
            model: The model whose tokenizer to use.
            **params: See `DetokenizeParams`.

        Raises:
            InvalidRequestError: A parameter is invalid; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not text.
        """
        return self._run(tokenize.detokenize_request(tokens, params), model)

    async def adetokenize(
        self, tokens: Sequence[int], *, model: str | None = None, **params: Unpack[DetokenizeParams]
    ) -> str:
        """Async version of `detokenize`."""
        return await self._arun(tokenize.detokenize_request(tokens, params), model)
