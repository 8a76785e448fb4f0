"""The methods for pooling models, which return numbers instead of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmchat.client.base import ProviderBase
from vllmchat.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from typing_extensions import Unpack

    from vllmchat.pooling import embeddings, outputs, scores, token_embeddings
    from vllmchat.pooling.embeddings import Embeddings
    from vllmchat.pooling.inputs import Inputs
    from vllmchat.pooling.outputs import Classifications, PoolingOutputs
    from vllmchat.pooling.params import (
        ClassifyParams,
        EmbedParams,
        EmbedTokensParams,
        OpenAIEmbedParams,
        PoolParams,
        RerankParams,
        ScoreParams,
    )
    from vllmchat.pooling.scores import Ranking, Scorable, Scores

    OpenAIInputs: TypeAlias = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
    from vllmchat.pooling.token_embeddings import TokenEmbeddings
else:
    embeddings = LazyModule("vllmchat.pooling.embeddings")
    outputs = LazyModule("vllmchat.pooling.outputs")
    scores = LazyModule("vllmchat.pooling.scores")
    token_embeddings = LazyModule("vllmchat.pooling.token_embeddings")


class PoolingMethods(ProviderBase):
    """The methods for a pooling model on a vLLM server."""

    def embed(
        self,
        input: Inputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[EmbedParams],
    ) -> Embeddings:
        """Embeds texts, tokens or conversations: returns a vector for each.

        Args:
            input: A text, a list of texts, the tokens of a text, a list of these, a conversation, or a list of
                conversations (vLLM 0.24 or newer).
            model: The model, for this call.
            **params: See `EmbedParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server's model is not an embedding model.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list with one embedding per input.
        """
        return self._run(embeddings.embed_request(input, params), model)

    async def aembed(
        self,
        input: Inputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[EmbedParams],
    ) -> Embeddings:
        """Async version of `embed`."""
        return await self._arun(embeddings.embed_request(input, params), model)

    def embed_tokens(
        self,
        input: Inputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[EmbedTokensParams],
    ) -> TokenEmbeddings:
        """Embeds each token of texts: returns a vector for each token, or for each chunk of tokens. Since vLLM 0.33.

        Args:
            input: A text, a list of texts, the tokens of a text, or a list of these. With `late_chunking_params`, only
                texts.
            model: The model, for this call.
            **params: See `EmbedTokensParams`.

        Raises:
            InvalidRequestError: The input or a parameter is wrong; nothing was sent.
            NotFoundError: The server has no embeddings.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list with the vectors of each input, such as that of a server whose
                task is not `token_embed`.
        """
        return self._run(token_embeddings.embed_tokens_request(input, params), model)

    async def aembed_tokens(
        self,
        input: Inputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[EmbedTokensParams],
    ) -> TokenEmbeddings:
        """Async version of `embed_tokens`."""
        return await self._arun(token_embeddings.embed_tokens_request(input, params), model)

    def pool(
        self,
        input: Inputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[PoolParams],
    ) -> PoolingOutputs:
        """Returns the output of the model's pooler: for each input, one row of numbers, or one row per token.

        Args:
            input: A text, a list of texts, the tokens of a text, a list of these, or a conversation.
            model: The model, for this call.
            **params: See `PoolParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server's model is not a pooling model.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list with one output per input.
        """
        return self._run(outputs.pool_request(input, params), model)

    async def apool(
        self,
        input: Inputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[PoolParams],
    ) -> PoolingOutputs:
        """Async version of `pool`."""
        return await self._arun(outputs.pool_request(input, params), model)

    def classify(
        self,
        input: Inputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[ClassifyParams],
    ) -> Classifications:
        """Classifies texts, tokens or a conversation: returns a label and class probabilities for each. Since vLLM 0.9.

        Args:
            input: A text or a list of texts; since vLLM 0.15 also the tokens of a text, a list of these, or a
                conversation.
            model: The model, for this call.
            **params: See `ClassifyParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server's model is not a classifier.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list with one class per input.
        """
        return self._run(outputs.classify_request(input, params), model)

    async def aclassify(
        self,
        input: Inputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[ClassifyParams],
    ) -> Classifications:
        """Async version of `classify`."""
        return await self._arun(outputs.classify_request(input, params), model)

    def score(
        self,
        data_1: Scorable | Sequence[Scorable],
        data_2: Scorable | Sequence[Scorable],
        *,
        model: str | None = None,
        **params: Unpack[ScoreParams],
    ) -> Scores:
        """Scores how well pairs match: one item with each of many, or two lists pair by pair.

        Args:
            data_1: A text, such as a query, or a list of them. Vision models also accept mappings with `content`.
            data_2: A text, such as a document, or a list of them; as many as `data_1`, unless that is a single item.
            model: The model, for this call.
            **params: See `ScoreParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server's model does not support scoring.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list with one score per pair.
        """
        return self._run(scores.score_request(data_1, data_2, params), model)

    async def ascore(
        self,
        data_1: Scorable | Sequence[Scorable],
        data_2: Scorable | Sequence[Scorable],
        *,
        model: str | None = None,
        **params: Unpack[ScoreParams],
    ) -> Scores:
        """Async version of `score`."""
        return await self._arun(scores.score_request(data_1, data_2, params), model)

    def rerank(
        self,
        query: Scorable,
        documents: Sequence[Scorable],
        *,
        model: str | None = None,
        **params: Unpack[RerankParams],
    ) -> Ranking:
        """Ranks documents by their relevance to a query, most relevant first.

        Args:
            query: A text; vision models also accept a mapping with `content`.
            documents: The documents, texts or such mappings.
            model: The model, for this call.
            **params: See `RerankParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            NotFoundError: The server's model does not support scoring.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a ranking.
        """
        return self._run(scores.rerank_request(query, documents, params), model)

    async def arerank(
        self,
        query: Scorable,
        documents: Sequence[Scorable],
        *,
        model: str | None = None,
        **params: Unpack[RerankParams],
    ) -> Ranking:
        """Async version of `rerank`."""
        return await self._arun(scores.rerank_request(query, documents, params), model)


class OpenAIEmbeddingMethods(ProviderBase):
    """Embeddings from any OpenAI-compatible server."""

    def embed(
        self,
        input: OpenAIInputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[OpenAIEmbedParams],
    ) -> Embeddings:
        """Embeds texts or tokens: returns a vector for each.

        Args:
            input: A text, a list of texts, the tokens of a text, or a list of these.
            model: The model, for this call.
            **params: See `OpenAIEmbedParams`.

        Raises:
            InvalidRequestError: A parameter is wrong; nothing was sent.
            APIStatusError: The server returned an error.
            APIConnectionError: No response arrived.
            ResponseError: The response is not a list with one embedding per input.
        """
        return self._run(embeddings.openai_embed_request(input, params), model)

    async def aembed(
        self,
        input: OpenAIInputs,  # noqa: A002 - the wire's own name
        *,
        model: str | None = None,
        **params: Unpack[OpenAIEmbedParams],
    ) -> Embeddings:
        """Async version of `embed`."""
        return await self._arun(embeddings.openai_embed_request(input, params), model)
