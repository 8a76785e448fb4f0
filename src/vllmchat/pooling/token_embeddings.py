"""Embeddings of tokens and of chunks of them: `/v1/embeddings` of a server whose task is `token_embed`."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import Field

from vllmchat.checking.describe import as_list, format_value
from vllmchat.checking.validator import Validator, check_request
from vllmchat.client.request import ModelRequest
from vllmchat.errors import Problem
from vllmchat.http.call import Response
from vllmchat.pooling.answer import ListAnswer, read_list
from vllmchat.pooling.inputs import check_input
from vllmchat.pooling.params import EmbedTokensParams
from vllmchat.pooling.vector import Vector, stacked
from vllmchat.wire.decode import LenientInt, LenientList, LenientStr, WireModel, unexpected_body

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from vllmchat.pooling.inputs import Inputs, Subject


class LateChunk(WireModel):
    """What a vector of a chunk covers."""

    token_range: tuple[int, int]
    """The first token of the chunk, and the one after its last, counted with special tokens."""

    char_range: tuple[int, int] | None = None
    """The same in characters of the text, so that `text[slice(*char_range)]` is the chunk. None for a chunk of special
    tokens only."""


class LateChunking(WireModel):
    """The chunks of a text."""

    strategy: LenientStr = ""
    """How it was divided: `"fixed_tokens"`."""

    chunk_size: LenientInt = 0
    """The requested number of tokens per chunk."""

    input_tokens: LenientInt = 0
    """The number of tokens of the text, including special tokens."""

    chunks: LenientList[LateChunk] = Field(default_factory=list[LateChunk])
    """What each vector covers."""


class TokenEmbedding(WireModel):
    """The embeddings of one input: a vector for each of its tokens, or for each of its chunks."""

    index: LenientInt = 0
    """Which input, from 0."""

    object: LenientStr = "embedding"
    """Always `"embedding"`."""

    embedding: list[Vector]
    """The vectors, each densely packed."""

    late_chunking: LateChunking | None = None
    """What each vector covers, with `late_chunking_params`; None for one vector per token."""

    @property
    def vectors(self) -> list[list[float]]:
        """The vectors as lists of floats."""
        return [each.tolist() for each in self.embedding]

    def numpy(self) -> "NDArray[numpy.float32]":
        """The vectors as a numpy array of 32-bit floats, one row per token or chunk.

        Raises:
            ModuleNotFoundError: numpy is not installed; install `vllmchat[numpy]`.
        """
        return stacked(self.embedding)


class TokenEmbeddings(ListAnswer[TokenEmbedding]):
    """The token embeddings of all inputs, in their order."""


_WHAT: Final = "a list of token embeddings"
_NEEDS: Final = (
    "It needs vLLM 0.33 or newer and a model that embeds tokens: start the server with "
    "--runner pooling --pooler-config.task token_embed."
)
_PLAIN: Final = "late chunking needs the whole text."


def _late_chunking(fields: Mapping[str, object], stream: bool, wrong: frozenset[str]) -> "Iterable[Problem]":
    if "truncate_prompt_tokens" in fields:
        shown = format_value(fields["truncate_prompt_tokens"])
        rule = f"cannot be combined with `late_chunking_params`: {_PLAIN}"
        yield Problem("truncate_prompt_tokens", shown, rule, "Leave one of them out.")
    if fields.get("padding") == "max_length":
        rule = f"cannot be combined with `late_chunking_params`: {_PLAIN}"
        yield Problem("padding", "'max_length'", rule, "Leave one of them out.")


_VALIDATOR: Final = Validator(
    "VLLMProvider.embed_tokens",
    EmbedTokensParams,
    {"late_chunking_params": _late_chunking},
    own={
        "chunk_size": ("is a key of a parameter.", 'Write late_chunking_params={{"chunk_size": {value}}}.'),
        "late_chunking": (
            "has a different name here.",
            'Write late_chunking_params={{"chunk_size": ...}}.',
        ),
        "encoding_format": ('is always "float" for token embeddings.', "Leave it out."),
        "normalize": ("was removed in vLLM 0.26.", "Write use_activation=... instead."),
    },
)


def embed_tokens_request(inputs: "Inputs", params: EmbedTokensParams) -> ModelRequest[TokenEmbeddings]:
    """The request for the embeddings of the tokens of the inputs.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject = check_input(inputs, batches=False)
    chunked = params.get("late_chunking_params") is not None
    found = [*subject.problems, *_unsupported(subject, inputs, chunked=chunked)]
    checked = check_request(found, _VALIDATOR.check, params)
    read = partial(_read, expected=subject.expected_count(checked), chunked=chunked)
    return ModelRequest("/embeddings", subject.fields, checked, read, route_hint=_NEEDS)


def _unsupported(subject: "Subject", inputs: "Inputs", *, chunked: bool) -> "Iterable[Problem]":
    """Finds inputs that other embeddings accept."""
    if subject.problems:
        return
    if subject.conversation:
        rule = "must be texts or tokens: token embeddings do not accept conversations."
        yield Problem("input", format_value(inputs), rule)
    elif chunked:
        texts = subject.fields["input"]
        for text in [texts] if isinstance(texts, str) else as_list(texts) or []:
            if not isinstance(text, str) or not text:
                rule = "must be texts that are not empty, for late chunking."
                yield Problem("input", format_value(text), rule)
                return


def _read(reply: Response, *, expected: int | None, chunked: bool) -> TokenEmbeddings:
    answer = read_list(TokenEmbeddings, reply, _WHAT, expected=expected)
    if chunked:
        for each in answer.data:
            # Servers ignore what they do not know.
            chunks = None if each.late_chunking is None else len(each.late_chunking.chunks)
            if chunks != len(each.embedding):
                reason = f"data[{each.index}] has {len(each.embedding)} vectors and {chunks or 'no'} chunks"
                raise unexpected_body(_WHAT, reply.body, reason)
    return answer
