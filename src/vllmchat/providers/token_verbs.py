"""The verbs about tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.later import later
from vllmchat.providers.base import ProviderBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from vllmchat.chat.messages import Messages
    from vllmchat.tokens import (
        CountTokensParams,
        DetokenizeParams,
        Tokenizable,
        Tokenization,
        TokenizeParams,
        count_request,
        detokenize_request,
        tokenize_request,
    )
else:
    count_request = later("vllmchat.tokens", "count_request")
    detokenize_request = later("vllmchat.tokens", "detokenize_request")
    tokenize_request = later("vllmchat.tokens", "tokenize_request")


class TokenVerbs(ProviderBase):
    """What a vLLM server's tokenizer does."""

    def tokenize(
        self, prompt: Tokenizable, *, model: str | None = None, **params: Unpack[TokenizeParams]
    ) -> Tokenization:
        """Splits a text, or the prompt of a conversation, into the model's tokens.

        A text is taken as it is. A conversation becomes a prompt by the model's chat template, with tools and
        template variables as in `chat`.

        Args:
            prompt: A text, or a list of messages.
            model: The model whose tokenizer is asked.
            **params: See `TokenizeParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no list of tokens.
        """
        return self._run(tokenize_request(prompt, params), model)

    async def atokenize(
        self, prompt: Tokenizable, *, model: str | None = None, **params: Unpack[TokenizeParams]
    ) -> Tokenization:
        """Splits a text, or the prompt of a conversation, into tokens, awaiting. See `tokenize`."""
        return await self._arun(tokenize_request(prompt, params), model)

    def count_tokens(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CountTokensParams]
    ) -> int:
        """Counts the tokens of the prompt that `chat` would make of a conversation.

        With the same `tools`, `enable_thinking` and template variables it is the `usage.prompt_tokens` of the reply.

        Args:
            messages: A text, which is one message of the user as in `chat`, or the conversation so far.
            model: The model whose tokenizer and chat template are asked.
            **params: See `CountTokensParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no list of tokens.
        """
        return self._run(count_request(messages, params), model)

    async def acount_tokens(
        self, messages: Messages, *, model: str | None = None, **params: Unpack[CountTokensParams]
    ) -> int:
        """Counts the tokens of a conversation's prompt, awaiting. See `count_tokens`."""
        return await self._arun(count_request(messages, params), model)

    def detokenize(
        self, tokens: Sequence[int], *, model: str | None = None, **params: Unpack[DetokenizeParams]
    ) -> str:
        """Puts tokens together to the text that they are, special tokens included.

        Args:
            tokens: The token ids.
            model: The model whose tokenizer is asked.
            **params: See `DetokenizeParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            APIStatusError: The server answered with an error.
            APIConnectionError: No answer came.
            ResponseError: The answer is no text.
        """
        return self._run(detokenize_request(tokens, params), model)

    async def adetokenize(
        self, tokens: Sequence[int], *, model: str | None = None, **params: Unpack[DetokenizeParams]
    ) -> str:
        """Puts tokens together to the text that they are, awaiting. See `detokenize`."""
        return await self._arun(detokenize_request(tokens, params), model)
