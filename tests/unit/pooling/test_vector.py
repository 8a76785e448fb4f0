"""Packed numbers: five types, two byte orders, and conversion to lists and arrays."""

from __future__ import annotations

import copy
import math
import pickle
import struct
import sys
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from hypothesis import given, strategies as st
from pydantic import TypeAdapter, ValidationError

from vllmchat.pooling.vector import EmbedDtype, Packing, Vector, stacked, vector_of

if TYPE_CHECKING:
    from vllmchat.pooling.vector import Endianness

FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=20)


def bits(values: list[float], form: str) -> bytes:
    return struct.pack(f"{form[0]}{len(values)}{form[1]}", *values)


@given(FLOATS)
def test_float32_is_exact(values: list[float]) -> None:
    signs: dict[Endianness, str] = {"little": "<", "big": ">", "native": "="}
    for order, sign in signs.items():
        packing = Packing("float32", order)
        assert packing.unpack(bits(values, f"{sign}f")).tolist() == values


@given(st.lists(st.floats(width=16, allow_nan=False), max_size=20))
def test_float16_is_exact(values: list[float]) -> None:
    assert Packing("float16", "little").unpack(bits(values, "<e")).tolist() == values
    assert Packing("float16", "big").unpack(bits(values, ">e")).tolist() == values


@given(FLOATS)
def test_bfloat16_is_the_upper_half_of_float32(values: list[float]) -> None:
    whole = [bits([value], ">f") for value in values]
    big = b"".join(each[:2] for each in whole)
    little = b"".join(each[1::-1] for each in whole)
    expected = [struct.unpack(">f", each[:2] + b"\0\0")[0] for each in whole]
    assert Packing("bfloat16", "big").unpack(big).tolist() == expected
    assert Packing("bfloat16", "little").unpack(little).tolist() == expected


def test_fp8_e4m3() -> None:
    known = {
        0: 0.0,
        1: 2**-9,
        7: 7 * 2**-9,
        8: 2**-6,
        0x38: 1.0,
        0x3C: 1.5,
        0x7E: 448.0,
        0xB8: -1.0,
        0xFE: -448.0,
    }
    assert Packing("fp8_e4m3").unpack(bytes(known)).tolist() == list(known.values())
    assert all(math.isnan(number) for number in Packing("fp8_e4m3").unpack(b"\x7f\xff"))


def test_fp8_e5m2_is_the_upper_half_of_float16() -> None:
    codes = [code for code in range(256) if code & 0x7C != 0x7C or not code & 3]
    expected = [struct.unpack(">e", bytes([code, 0]))[0] for code in codes]
    assert Packing("fp8_e5m2").unpack(bytes(codes)).tolist() == expected
    assert expected[-1] == -math.inf
    assert math.isnan(Packing("fp8_e5m2").unpack(b"\x7d")[0])


def test_the_machine_may_have_the_other_order() -> None:
    """The `byteswap` code path, on any machine."""
    foreign: Endianness = "big" if sys.byteorder == "little" else "little"
    sign = {"little": "<", "big": ">"}[foreign]
    assert Packing("float32", foreign).unpack(bits([1.5, -2.0], f"{sign}f")).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_half_a_number_raises(dtype: EmbedDtype) -> None:
    with pytest.raises(ValueError, match=f"1 bytes cannot hold {dtype} numbers"):
        Packing(dtype).unpack(b"x")


@pytest.mark.parametrize("dtype", get_args(EmbedDtype))
def test_no_bytes_are_no_numbers(dtype: EmbedDtype) -> None:
    assert list(Packing(dtype).unpack(b"")) == []


# Vectors


def test_a_vector_is_a_sequence_of_floats() -> None:
    vector = Packing().unpack(bits([0.5, 1.0, 2.0, 4.0], "<f"))
    assert (len(vector), vector[1], vector.tolist(), list(vector)) == (4, 1.0, [0.5, 1, 2, 4], [0.5, 1, 2, 4])
    assert repr(vector) == "<4 numbers: 0.5, 1, 2, ...>"
    assert repr(vector_of([1, 2.25])) == "<2 numbers: 1, 2.25>"


def test_copies_are_vectors() -> None:
    vector = vector_of([1, 2])
    for other in (copy.copy(vector), copy.deepcopy(vector), pickle.loads(pickle.dumps(vector))):
        assert type(other) is Vector
        assert other == vector
        assert other is not vector


def test_numpy_shares_the_memory_of_packed_numbers() -> None:
    vector = Packing().unpack(bits([0.5, 1.0], "<f"))
    array = vector.numpy()
    assert array.dtype == np.float32
    assert array.tolist() == [0.5, 1.0]
    vector[0] = 3.0
    assert array[0] == 3.0
    plain = vector_of([0.1, 2])
    assert plain.numpy().dtype == np.float32
    assert plain.tolist() == [0.1, 2.0]


def test_vectors_become_rows() -> None:
    rows = stacked([vector_of([1, 2]), vector_of([3, 4])])
    assert rows.dtype == np.float32
    assert rows.tolist() == [[1, 2], [3, 4]]
    assert stacked([]).shape == (0, 0)


def test_without_numpy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vllmchat\[numpy\]'"):
        vector_of([1]).numpy()
    with pytest.raises(ModuleNotFoundError):
        stacked([])


# In models


def test_what_a_field_accepts() -> None:
    adapter = TypeAdapter(Vector)
    assert adapter.validate_json("[1, 2.5]").tolist() == [1, 2.5]
    assert adapter.validate_python("AACAPw==").tolist() == [1.0]
    assert adapter.validate_python("PAA=", context=Packing("float16", "big")).tolist() == [1.0]
    vector = vector_of([1])
    assert adapter.validate_python(vector) is vector
    assert adapter.dump_json(vector) == b"[1.0]"
    assert adapter.json_schema() == {"type": "array", "items": {"type": "number"}}


@pytest.mark.parametrize("value", ["AAA=", "not base64!", ["x"], [[1]], 3, None, {"a": 1}, [10**400]])
def test_what_a_field_rejects(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Vector).validate_python(value)
