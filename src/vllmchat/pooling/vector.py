"""Numbers as a server sends them: packed, in one of five types, or as JSON."""

# No `from __future__ import annotations`: pydantic would have to evaluate every annotation again.

import base64
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Self

    import numpy
    from numpy.typing import NDArray

    _Numbers = array[float]
else:
    _Numbers = array

EmbedDtype: TypeAlias = Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"]
"""The type of packed numbers."""

Endianness: TypeAlias = Literal["native", "big", "little"]
"""The byte order of packed numbers; `native` is the machine's."""

SIZES: Final[dict[str, int]] = {"float32": 4, "float16": 2, "bfloat16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}
"""Bytes of one number."""


class Vector(_Numbers):
    """Densely packed numbers: an `array.array`, so a sequence of floats that supports the buffer protocol.

    `tolist()` converts it to a list and `numpy()` to a numpy array. Packed numbers are stored as 32-bit floats, which
    hold every type that vLLM sends exactly; numbers from JSON are stored as 64-bit floats.
    """

    if TYPE_CHECKING:

        def __new__(cls, typecode: str, numbers: bytes | Iterable[float] = ...) -> "Self":
            """The array's own, which is declared to return plain arrays."""
            ...

    def numpy(self) -> "NDArray[numpy.float32]":
        """A numpy array of 32-bit floats; it shares the memory of a packed vector.

        Raises:
            ModuleNotFoundError: numpy is not installed; install `vllmchat[numpy]`.
        """
        np = _numpy()
        array: NDArray[numpy.float32] = np.frombuffer(self, dtype=self.typecode)
        return array.astype(np.float32, copy=False)

    def __copy__(self) -> "Vector":
        return Vector(self.typecode, self)

    def __deepcopy__(self, memo: object) -> "Vector":
        return Vector(self.typecode, self)

    def __repr__(self) -> str:
        shown = ", ".join(f"{number:.6g}" for number in self[:3])
        return f"<{len(self)} numbers: {shown}, ...>" if len(self) > 3 else f"<{len(self)} numbers: {shown}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._read, serialization=core_schema.plain_serializer_function_ser_schema(cls.tolist)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "array", "items": {"type": "number"}}

    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> "Vector":
        if isinstance(value, Vector):
            return value
        if isinstance(value, str):
            packing = info.context if isinstance(info.context, Packing) else Packing()
            return packing.unpack(base64.b64decode(value, validate=True))
        if isinstance(value, list):
            return vector_of(cast("list[float]", value))
        raise ValueError("neither numbers nor base64")


def vector_of(numbers: Iterable[float]) -> Vector:
    """Makes a vector of numbers.

    Raises:
        ValueError: They are not numbers.
    """
    try:
        return Vector("d", numbers)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None


def stacked(vectors: Sequence[Vector]) -> "NDArray[numpy.float32]":
    """Stacks vectors of the same length into the rows of a numpy array.

    Raises:
        ModuleNotFoundError: numpy is not installed; install `vllmchat[numpy]`.
    """
    np = _numpy()
    rows: NDArray[numpy.float32] = (
        np.stack([vector.numpy() for vector in vectors]) if vectors else np.empty((0, 0), np.float32)
    )
    return rows


@dataclass(frozen=True, slots=True)
class Packing:
    """How numbers are packed into bytes.

    Attributes:
        dtype: Their type.
        endianness: Their byte order.
    """

    dtype: EmbedDtype = "float32"
    endianness: Endianness = "little"

    @property
    def size(self) -> int:
        """Bytes of one number."""
        return SIZES[self.dtype]

    def unpack(self, data: bytes | memoryview) -> Vector:
        """Unpacks the numbers.

        Raises:
            ValueError: The length is not a multiple of the size of a number.
        """
        if len(data) % self.size:
            raise ValueError(f"{len(data)} bytes cannot hold {self.dtype} numbers")
        order = sys.byteorder if self.endianness == "native" else self.endianness
        if self.dtype == "float16":
            sign = "<" if order == "little" else ">"
            return Vector("f", struct.unpack(f"{sign}{len(data) // 2}e", data))
        if self.dtype == "float32":
            vector = Vector("f", bytes(data))
            if order != sys.byteorder:
                vector.byteswap()
            return vector
        if self.dtype == "bfloat16":
            # The upper half of a 32-bit float.
            raw = bytes(data)
            lower, upper = (raw[0::2], raw[1::2]) if order == "little" else (raw[1::2], raw[0::2])
            return _from_byte_tables(len(raw) // 2, {1: upper, 2: lower})
        raw = bytes(data)
        planes = _byte_tables(self.dtype)
        return _from_byte_tables(len(raw), {place: raw.translate(plane) for place, plane in planes.items()})


def _from_byte_tables(count: int, planes: dict[int, bytes]) -> Vector:
    """Builds 32-bit floats from their byte planes: 1 is the highest byte, 4 the lowest, 0 if missing."""
    packed = bytearray(4 * count)
    for place, plane in planes.items():
        packed[(4 - place if sys.byteorder == "little" else place - 1) :: 4] = plane
    return Vector("f", bytes(packed))


@cache
def _byte_tables(dtype: str) -> dict[int, bytes]:
    """For each byte of a 32-bit float, its value for each of the 256 one-byte numbers."""
    value = _e4m3 if dtype == "fp8_e4m3" else _e5m2
    floats = [struct.pack(">f", value(code)) for code in range(256)]
    return {place: bytes(packed[place - 1] for packed in floats) for place in (1, 2)}


def _e4m3(code: int) -> float:
    """One sign bit, four exponent bits, three mantissa bits; no infinity, one NaN per sign."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = (code >> 3) & 0xF, code & 7
    if code & 0x7F == 0x7F:
        return float("nan")
    if exponent == 0:
        return float(sign * mantissa * 2.0**-9)
    return float(sign * (8 + mantissa) * 2.0 ** (exponent - 10))


def _e5m2(code: int) -> float:
    """The upper half of a 16-bit float."""
    number: float = struct.unpack(">e", bytes([code, 0]))[0]
    return number


def _numpy() -> "ModuleType | Any":
    try:
        import numpy
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "numpy is not installed: pip install 'vllmchat[numpy]'", name="numpy"
        ) from None
    return numpy
