"""The output of pooling models, and the classes of classifiers: `/pooling` and `/classify`."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from vllmchat.checking.validator import check_request
from vllmchat.client.request import ModelRequest
from vllmchat.pooling.answer import ListAnswer, read_list, read_numbers
from vllmchat.pooling.binary import check_count, packing_needs_bytes, settle_packing, wanted_format
from vllmchat.pooling.inputs import RENAMED, Validators, check_input
from vllmchat.pooling.params import ClassifyParams, ClassifyTextParams, PoolParams, PoolTextParams
from vllmchat.pooling.vector import Vector, stacked
from vllmchat.wire import html
from vllmchat.wire.decode import LenientInt, LenientStr, WireModel

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from vllmchat.pooling.inputs import Inputs


class PoolingOutput(WireModel):
    """The model's output for one input."""

    index: LenientInt = 0
    """Which input, from 0."""

    object: LenientStr = "pooling"
    """Always `"pooling"`."""

    data: Annotated[Vector | list[Vector], Field(union_mode="left_to_right")]
    """The numbers, densely packed: a single row, or a list with one row per token for token tasks."""

    def tolist(self) -> list[float] | list[list[float]]:
        """The numbers as a list of floats, or as a list of rows for token tasks."""
        if isinstance(self.data, Vector):
            return self.data.tolist()
        return [row.tolist() for row in self.data]

    def numpy(self) -> "NDArray[numpy.float32]":
        """The numbers as a numpy array of 32-bit floats, with one dimension, or two for token tasks.

        Raises:
            ModuleNotFoundError: numpy is not installed; install `vllmchat[numpy]`.
        """
        return self.data.numpy() if isinstance(self.data, Vector) else stacked(self.data)


class PoolingOutputs(ListAnswer[PoolingOutput]):
    """The model's output for all inputs."""


class Classification(WireModel):
    """The class of one input."""

    index: LenientInt = 0
    """Which input, from 0."""

    label: str | None = None
    """The name of the most likely class, if the model's configuration has one."""

    probs: Vector = Field(default_factory=lambda: Vector("d"))
    """The probability of each class, densely packed; with `use_activation=False`, the logits."""

    num_classes: LenientInt = 0
    """The number of classes."""


class Classifications(ListAnswer[Classification]):
    """The classes of all inputs."""

    @property
    def labels(self) -> list[str | None]:
        """The names of the most likely classes, in the order of the inputs."""
        return [each.label for each in self.data]

    def _repr_html_(self) -> str:
        """What a notebook shows: a table."""
        return html.table(
            ("index", "label", "probability"),
            ((each.index, each.label, max(each.probs, default=None)) for each in self.data),
        )


_POOLED: Final = "a pooling response"
_POOL_NEEDS: Final = "Only pooling models have it: start the server with --runner pooling."
_POOL_VALIDATORS: Final = Validators(
    "pool",
    PoolParams,
    PoolTextParams,
    {"encoding_format": packing_needs_bytes},
    {
        "dimensions": ("is not accepted here.", "Call .embed(...) instead."),
        "normalize": ("was removed in vLLM 0.26.", "Write use_activation=... instead."),
        **RENAMED,
    },
)

_CLASSES: Final = "a list of classes"
_CLASSIFY_NEEDS: Final = (
    "Only classifiers have it, since vLLM 0.9: start the server with --runner pooling and such a model, or with "
    "--convert classify."
)
_CLASSIFY_VALIDATORS: Final = Validators(
    "classify",
    ClassifyParams,
    ClassifyTextParams,
    own=RENAMED,
)


def pool_request(inputs: "Inputs", params: PoolParams) -> ModelRequest[PoolingOutputs]:
    """The request for the output of a pooling model.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject = check_input(inputs, batches=False)
    form = wanted_format(params, "float", subject.count, "bytes")
    hint = "Use float, or make several calls."
    found = [*subject.problems, *check_count(form, subject.count, hint)]
    checked = check_request(found, _POOL_VALIDATORS.of(subject).check, params)
    packing = settle_packing(checked.fields, form)
    expected = subject.expected_count(checked)
    read = partial(read_numbers, PoolingOutputs, "data", what=_POOLED, packing=packing, expected=expected)
    return ModelRequest("/pooling", subject.fields, checked, read, outside_v1=True, route_hint=_POOL_NEEDS)


def classify_request(inputs: "Inputs", params: ClassifyParams) -> ModelRequest[Classifications]:
    """The request for the classes of the inputs.

    Raises:
        InvalidRequestError: With every problem found.
    """
    subject = check_input(inputs, batches=False)
    checked = check_request(subject.problems, _CLASSIFY_VALIDATORS.of(subject).check, params)
    expected = subject.expected_count(checked)
    read = partial(read_list, Classifications, what=_CLASSES, expected=expected)
    return ModelRequest(
        "/classify", subject.fields, checked, read, outside_v1=True, route_hint=_CLASSIFY_NEEDS
    )
