"""The memory of Arrow arrays as NumPy arrays: slices with offsets, nulls, writable, not copied."""

from __future__ import annotations

import gc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.operators import arrow_buffers as buffers

NUMBER_TYPES = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float32(), pa.float64()),
    *(pa.date32(), pa.date64(), pa.time32("ms"), pa.time64("us")),
    *(pa.timestamp("s"), pa.timestamp("us", "UTC"), pa.duration("ns")),
]
TEXT_TYPES = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]


@st.composite
def sliced(draw: st.DrawFn, values: st.SearchStrategy[object], type_: pa.DataType) -> pa.Array:
    """An array that begins and ends inside its buffers."""
    made = draw(st.lists(st.none() | values, max_size=70))
    begin = draw(st.integers(0, len(made)))
    return pa.array(made, type_).slice(begin, draw(st.integers(0, len(made) - begin)))


def bits(bitmap: buffers.Bitmap, count: int) -> list[bool]:
    array, first = bitmap
    return [bool(array[(first + i) >> 3] >> ((first + i) & 7) & 1) for i in range(count)]


@pytest.mark.parametrize("type_", NUMBER_TYPES, ids=str)
@given(data=st.data())
def test_numbers_are_seen_in_place(type_: pa.DataType, data: st.DataObject) -> None:
    day = 86_400_000 if type_ == pa.date64() else 1
    numbers = data.draw(sliced(st.integers(0, 100).map(lambda n: n * day), pa.int64()))
    array = (numbers.cast(pa.int32()) if type_.bit_width == 32 else numbers).cast(type_)
    values = buffers.values_of(array)
    integers = array.cast(pa.int32() if type_.bit_width == 32 else pa.int64(), safe=False)
    for number, value in zip(integers.to_pylist(), values.tolist(), strict=True):
        assert number is None or number == value
    assert values.flags.writeable
    if len(array):
        assert values.ctypes.data >= array.buffers()[1].address


@given(array=sliced(st.booleans(), pa.bool_()))
def test_booleans_and_validity_are_bits(array: pa.Array) -> None:
    valid = [each is not None for each in array.to_pylist()]
    assert buffers.valid_bytes_of(array).tolist() == ([] if all(valid) else valid)
    if not all(valid):
        assert bits(buffers.validity_of(array), len(array)) == valid
    else:
        assert buffers.validity_of(array) == buffers.NO_BITMAP
    if len(array):
        found = bits(buffers.bits_of(array), len(array))
        assert [f for f, ok in zip(found, valid, strict=True) if ok] == [
            each for each in array.to_pylist() if each is not None
        ]


@pytest.mark.parametrize("type_", TEXT_TYPES, ids=str)
@given(data=st.data())
def test_strings_are_offsets_and_bytes(type_: pa.DataType, data: st.DataObject) -> None:
    array = data.draw(sliced(st.text(max_size=5), pa.string())).cast(type_)
    offsets, content = buffers.strings_of(array)
    assert len(offsets) == len(array) + 1
    for index, each in enumerate(array.cast(pa.binary()).to_pylist()):
        found = content[offsets[index] : offsets[index + 1]].tobytes()
        assert found == (each or b"")


@pytest.mark.parametrize("type_", NUMBER_TYPES, ids=str)
@given(rows=st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=20))
def test_arrays_come_back(type_: pa.DataType, rows: list[tuple[int, bool]]) -> None:
    dtype = buffers.storage_dtype(type_)
    assert dtype is not None
    day = 86_400_000 if type_ == pa.date64() else 1
    values = np.array([value * day for value, _ in rows], dtype=dtype)
    valid = np.array([ok for _, ok in rows], dtype=np.bool_)
    array = buffers.array_of(values, type_, valid)
    array.validate(full=True)
    assert array.type == type_
    assert array.null_count == np.count_nonzero(~valid)
    assert array.is_valid().to_pylist() == valid.tolist()
    assert buffers.values_of(array).tolist() == values.tolist()
    whole = buffers.array_of(values, type_, None)
    assert whole.null_count == 0
    if len(rows):
        assert buffers.values_of(whole).ctypes.data == values.ctypes.data


@given(rows=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_booleans_come_back_from_bytes(rows: list[tuple[bool, bool]]) -> None:
    values, valid = (np.array([row[i] for row in rows], dtype=np.bool_) for i in range(2))
    array = buffers.array_of(values, pa.bool_(), valid)
    array.validate(full=True)
    assert array.to_pylist() == [value if ok else None for value, ok in rows]


def test_memory_outlives_the_array_it_was_seen_in() -> None:
    array = pa.array(np.arange(100_000))
    values = buffers.values_of(array)
    del array
    gc.collect()
    assert values.sum() == sum(range(100_000))


@pytest.mark.parametrize("count", [0, 1, 100_000])
@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.float32])
def test_new_memory_is_writable(count: int, dtype: type) -> None:
    values = buffers.new_values(count, dtype)
    values[:] = 1
    assert (len(values), values.sum()) == (count, count)
    assert values.dtype == dtype


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.decimal128(5), pa.bool_(), pa.list_(pa.int8()), pa.float16()]
)
def test_what_is_no_number_has_no_dtype(type_: pa.DataType) -> None:
    assert buffers.storage_dtype(type_) is None


def test_no_array_has_no_nulls() -> None:
    assert len(buffers.valid_bytes_of(None)) == 0
