"""Responses with packed numbers: which format to request, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from pydantic_core import from_json

from vllmchat.checking.describe import format_value
from vllmchat.errors import Problem
from vllmchat.pooling.vector import Packing, Vector
from vllmchat.wire.decode import as_object, unexpected_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vllmchat.http.call import Response
    from vllmchat.pooling.vector import EmbedDtype, Endianness

MOST_IN_BYTES: Final = 512
"""The most inputs for `bytes`: its response describes each in a header, and headers have a size limit."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The numbers of one input.

    Attributes:
        index: Which input.
        data: The numbers, in rows if they have rows.
    """

    index: int
    data: Vector | list[Vector]


def wanted_format(params: Mapping[str, object], plain: str, count: int, most: str) -> object:
    """The format in which the numbers are sent.

    Args:
        params: The parameters of the call, not yet checked.
        plain: The default format.
        count: The number of inputs.
        most: The format for more inputs than `bytes` accepts.
    """
    encoding = params.get("encoding_format")
    if encoding is not None:
        return encoding
    if params.get("embed_dtype") in (None, "float32") and params.get("endianness") != "big":
        return plain
    # Versions that do not know the type or byte order would silently send something else, but they reject these
    # formats.
    return "bytes" if count <= MOST_IN_BYTES else most


def settle_packing(fields: dict[str, object], encoding_format: object) -> Packing:
    """Adds the format to the checked fields, and returns how to read the numbers."""
    fields["encoding_format"] = encoding_format
    if encoding_format != "float":
        fields.setdefault("endianness", "little")
    return Packing(
        cast("EmbedDtype", fields.get("embed_dtype", "float32")),
        cast("Endianness", fields.get("endianness", "little")),
    )


def packing_needs_bytes(
    fields: Mapping[str, object], stream: bool, wrong: frozenset[str]
) -> Iterable[Problem]:
    """The rule of `encoding_format`: numbers in JSON have neither a type nor a byte order."""
    if fields["encoding_format"] != "float":
        return
    for name in ("embed_dtype", "endianness"):
        if name in fields:
            rule = 'has no effect with encoding_format="float".'
            yield Problem(name, format_value(fields[name]), rule, "Leave one of them out.")


def check_count(encoding_format: object, count: int, hint: str) -> list[Problem]:
    """What is wrong with this number of inputs in this format."""
    if encoding_format != "bytes" or count <= MOST_IN_BYTES:
        return []
    rule = f"accepts at most {MOST_IN_BYTES} inputs, not {count}."
    return [Problem("encoding_format", format_value(encoding_format), rule, hint)]


def is_packed(reply: Response) -> bool:
    """Whether a response is binary, not JSON."""
    return reply.head.headers.get("content-type", "").startswith("application/octet-stream")


def read_packed(
    reply: Response, packing: Packing, count: int | None, what: str
) -> tuple[list[Chunk], dict[str, object]]:
    """Reads a binary response.

    Args:
        reply: The response.
        packing: How the numbers are packed.
        count: The number of inputs; None if unknown.
        what: What the response should be, with its article, for the error message.

    Returns:
        The numbers of each input, and the other fields of the response.

    Raises:
        ResponseError: The bytes are not as expected.
    """
    header = reply.head.headers.get("metadata")
    try:
        if header is not None:
            return _with_metadata(reply.body, header)
        return _evenly(reply.body, packing, count), {}
    except (ValueError, TypeError, KeyError) as error:
        raise unexpected_body(what, reply.body, str(error)) from error


def _with_metadata(body: bytes, header: str) -> tuple[list[Chunk], dict[str, object]]:
    metadata = as_object(from_json(header))
    if metadata is None:
        raise ValueError("its metadata is not an object")
    chunks: list[Chunk] = []
    for item in cast("list[object]", metadata.pop("data")):
        each = as_object(item) or {}
        start, end = cast("int", each["start"]), cast("int", each["end"])
        if not 0 <= start <= end <= len(body):
            raise ValueError(f"its metadata refers to bytes {start} to {end} of {len(body)}")
        packing = Packing(cast("EmbedDtype", each["embed_dtype"]), cast("Endianness", each["endianness"]))
        shape = cast("list[int]", each["shape"])
        chunks.append(Chunk(cast("int", each["index"]), _shaped(body[start:end], packing, shape)))
    return chunks, metadata


def _shaped(data: bytes, packing: Packing, shape: list[int]) -> Vector | list[Vector]:
    expected = packing.size
    for length in shape:
        expected *= length
    if expected != len(data):
        raise ValueError(f"{len(data)} bytes do not have the shape {shape}")
    if len(shape) != 2:
        return packing.unpack(data)
    step = shape[1] * packing.size
    return [packing.unpack(data[start : start + step]) for start in range(0, shape[0] * step, step or 1)]


def _evenly(body: bytes, packing: Packing, count: int | None) -> list[Chunk]:
    if not count:
        raise ValueError("its metadata is missing")
    if not body or len(body) % (count * packing.size):
        raise ValueError(f"{len(body)} bytes are not {count} equal parts of {packing.dtype} numbers")
    size = len(body) // count
    return [Chunk(place, packing.unpack(body[place * size :][:size])) for place in range(count)]
