"""Embeddings: `/v1/embeddings`."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from functools import partial
from typing import TYPE_CHECKING, Final

from vllmchat.checking.validator import Validator, check_request
from vllmchat.client.request import ModelRequest
from vllmchat.errors import Problem
from vllmchat.pooling.answer import ListAnswer, read_numbers
from vllmchat.pooling.binary import check_count, packing_needs_bytes, settle_packing, wanted_format
from vllmchat.pooling.inputs import Validators, check_input
from vllmchat.pooling.params import EmbedParams, EmbedTextParams, OpenAIEmbedParams
from vllmchat.pooling.vector import Packing, Vector, stacked
from vllmchat.wire import html
from vllmchat.wire.decode import LenientInt, LenientStr, WireModel

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from vllmchat.pooling.inputs import Inputs


class Embedding(WireModel):
    """The embedding of one input."""

    index: LenientInt = 0
    """Which input, from 0."""

    object: LenientStr = "embedding"
    """Always `"embedding"`."""

    embedding: Vector
    """The numbers, densely packed. `tolist()` converts them to a list of floats, `numpy()` to a numpy array."""


class Embeddings(ListAnswer[Embedding]):
    """The embeddings of all inputs.

    `vectors` returns them as lists and `numpy()` as an array, in the order of the inputs, however they were sent.
    """

    @property
    def vectors(self) -> list[list[float]]:
        """The embeddings as lists of floats, in the order of the inputs."""
        return [each.embedding.tolist() for each in self.data]

    @property
    def vector(self) -> list[float]:
        """The first embedding as a list of floats; for a single input, the only one."""
        return self.data[0].embedding.tolist()

    def _repr_html_(self) -> str:
        """What a notebook shows: a table."""
        return html.table(
            ("index", "numbers", "first"),
            (
                (each.index, len(each.embedding), ", ".join(f"{number:.6g}" for number in each.embedding[:4]))
                for each in self.data
            ),
        )

    def numpy(self) -> "NDArray[numpy.float32]":
        """The embeddings as a numpy array of 32-bit floats, one row per embedding, in the order of the inputs.

        Raises:
            ModuleNotFoundError: numpy is not installed; install `vllmchat[numpy]`.
        """
        return stacked([each.embedding for each in self.data])


_WHAT: Final = "a list of embeddings"
_NEEDS: Final = (
    "Only embedding models have it: start the server with --runner pooling --convert embed "
    "(before 0.10.1: --task embed)."
)

_VALIDATORS: Final = Validators(
    "embed",
    EmbedParams,
    EmbedTextParams,
    {"encoding_format": packing_needs_bytes},
    {"normalize": ("was removed in vLLM 0.26.", "Write use_activation=... instead.")},
)


_OPENAI: Final = Validator("OpenAIProvider.embed", OpenAIEmbedParams, other=EmbedParams)


def openai_embed_request(inputs: "Inputs", params: OpenAIEmbedParams) -> ModelRequest[Embeddings]:
    """The request for the embeddings of the inputs from any OpenAI-compatible server.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject = check_input(inputs, batches=True)
    found = list(subject.problems)
    if subject.conversation:
        rule = "must be text or tokens: OpenAI's API embeds no conversations."
        found = [Problem("input", "", rule, "Use VLLMProvider for a vLLM server.")]
    checked = check_request(found, _OPENAI.check, params)
    read = partial(
        read_numbers,
        Embeddings,
        "embedding",
        what=_WHAT,
        packing=Packing(),
        expected=subject.expected_count(checked),
    )
    return ModelRequest("/embeddings", subject.fields, checked, read)


def embed_request(inputs: "Inputs", params: EmbedParams) -> ModelRequest[Embeddings]:
    """The request for the embeddings of the inputs.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject = check_input(inputs, batches=True)
    form = wanted_format(params, "base64", subject.count, "bytes_only")
    found = [*subject.problems, *check_count(form, subject.count, "Use bytes_only or base64.")]
    checked = check_request(found, _VALIDATORS.of(subject).check, params)
    packing = settle_packing(checked.fields, form)
    expected = subject.expected_count(checked)
    read = partial(read_numbers, Embeddings, "embedding", what=_WHAT, packing=packing, expected=expected)
    return ModelRequest("/embeddings", subject.fields, checked, read, route_hint=_NEEDS)
