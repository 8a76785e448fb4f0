"""What the responses of pooling models share: one result for each input."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

from typing import Any, Generic, TypeVar

from pydantic import Field

from vllmchat.http.call import Response
from vllmchat.pooling.binary import is_packed, read_packed
from vllmchat.pooling.vector import Packing
from vllmchat.wire.decode import (
    Answer,
    LenientInt,
    LenientList,
    LenientStr,
    WireModel,
    ensure_built,
    read_answer,
    sort_by_index,
    with_record,
)
from vllmchat.wire.usage import Usage

W = TypeVar("W", bound=WireModel)
L = TypeVar("L", bound="ListAnswer[Any]")


class ListAnswer(Answer, Generic[W]):
    """A response with one result for each input."""

    id: LenientStr = ""
    """The response ID: a prefix such as `embd-`, plus the request ID. Empty with `bytes_only`."""

    object: LenientStr = "list"
    """Always `"list"`."""

    created: LenientInt = 0
    """When the response was created, in seconds since 1970."""

    model: LenientStr = ""
    """The model's first served name, or the LoRA adapter's name."""

    data: LenientList[W] = Field(default_factory=list[W])
    """The results, in the order of the inputs, or of the pairs to compare."""

    usage: Usage | None = None
    """The number of tokens in all inputs. None with `bytes_only`."""


def read_list(
    model: type[L], reply: Response, what: str, *, expected: int | None, context: object | None = None
) -> L:
    """Decodes a JSON response, and sorts its results into the order of the inputs.

    Args:
        model: The model to make of it.
        reply: The response.
        what: What it should be, with its article, for the error message.
        expected: The expected number of results; None if unknown.
        context: What the model's validators need to know.

    Raises:
        ResponseError: The body is not JSON or does not match the model, or the number of results is wrong.
    """
    answer = read_answer(model, reply, what, required_key="data", context=context)
    sort_by_index(answer.data, expected, what, reply)
    return answer


def read_numbers(
    model: type[L], key: str, reply: Response, what: str, *, packing: Packing, expected: int | None
) -> L:
    """Decodes a response with numbers for each input, as JSON or packed; see `read_list`.

    Args:
        model: The model to make of it.
        key: The field of a result that has the numbers.
        reply: The response.
        what: What it should be, with its article, for the error message.
        packing: How the numbers are packed.
        expected: The expected number of results; None if unknown.

    Raises:
        ResponseError: The body does not match the model, or the number of results is wrong.
    """
    if not is_packed(reply):
        return read_list(model, reply, what, expected=expected, context=packing)
    chunks, fields = read_packed(reply, packing, expected, what)
    ensure_built(model)
    data = [{"index": each.index, key: each.data} for each in chunks]
    answer = with_record(model.model_validate({**fields, "data": data}), reply.head)
    sort_by_index(answer.data, expected, what, reply)
    return answer
