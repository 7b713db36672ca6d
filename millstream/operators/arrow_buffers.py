"""The memory of Arrow arrays as NumPy arrays, and back, without copying.

Kernels get every input as a writable array, although none writes to one: Numba would compile
each kernel twice, for read-only and for writable memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

Bitmap = tuple[npt.NDArray[np.uint8], int]
"""Bytes of a bitmap, least significant bit first, and the position of the first bit."""

NO_BITMAP: Bitmap = (np.zeros(0, dtype=np.uint8), 0)


class _Memory:
    """An address that NumPy takes for an array; keeps the owner of the memory alive."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: Any, address: int, count: int, dtype: np.dtype[Any]) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": (count,),
            "typestr": dtype.str,
        }


def view_of(buffer: pa.Buffer, dtype: npt.DTypeLike, start: int, count: int) -> npt.NDArray[Any]:
    """Return `count` items of `dtype` from item `start` of `buffer`."""
    type_ = np.dtype(dtype)
    if count == 0:
        return np.empty(0, dtype=type_)
    memory = _Memory(buffer, buffer.address + start * type_.itemsize, count, type_)
    return np.asarray(memory)


def new_values(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of `count` arbitrary items, from Arrow's memory pool.

    The pool hands out memory again that was touched before. `numpy.empty` asks the system for
    every array of 128 KiB and more, whose pages the kernel then clears one by one: filling
    512 KiB took 160 µs that way and 10 µs this way.
    """
    type_ = np.dtype(dtype)
    if count == 0:
        return np.empty(0, dtype=type_)
    return np.frombuffer(pa.allocate_buffer(count * type_.itemsize), dtype=type_)


def storage_dtype(type_: pa.DataType) -> np.dtype[Any] | None:
    """Return how a value of `type_` lies in memory, or `None` where it is not one number.

    Times, dates and durations are their integers. Booleans are bits and have none.
    """
    if pat.is_float16(type_) or pat.is_decimal(type_):
        return None
    if pat.is_integer(type_) or pat.is_floating(type_):
        return np.dtype(type_.to_pandas_dtype())
    if pat.is_temporal(type_) and not pat.is_interval(type_):
        return np.dtype(np.int32 if type_.bit_width == 32 else np.int64)
    return None


def values_of(array: pa.Array, dtype: np.dtype[Any] | None = None) -> npt.NDArray[Any]:
    """Return the values of an array of numbers or times; what lies under nulls is arbitrary.

    Parameters
    ----------
    dtype
        What `storage_dtype` says of the array's type, where it is known.
    """
    dtype = storage_dtype(array.type) if dtype is None else dtype
    assert dtype is not None, f"{array.type} is not a number"
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), dtype=dtype)
    return view_of(buffer, dtype, array.offset, len(array))


def bits_of(array: pa.Array) -> Bitmap:
    """Return the values of a boolean array."""
    return _bitmap(array.buffers()[1], array.offset, len(array))


def validity_of(array: pa.Array) -> Bitmap:
    """Return which values are not null; `NO_BITMAP` where none is null."""
    if array.null_count == 0:
        return NO_BITMAP
    return _bitmap(array.buffers()[0], array.offset, len(array))


def valid_bytes_of(array: pa.Array | None) -> npt.NDArray[np.bool_]:
    """Return which values are not null, a byte each; empty where none is null."""
    if array is None or array.null_count == 0:
        return np.empty(0, dtype=np.bool_)
    bitmap, first = validity_of(array)
    bits = np.unpackbits(bitmap, bitorder="little")[first : first + len(array)]
    return bits.view(np.bool_)


def strings_of(array: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """Return offsets (n + 1, int32 or int64) and bytes of a string or binary array."""
    _, offsets, data = array.buffers()
    large = pat.is_large_string(array.type) or pat.is_large_binary(array.type)
    dtype = np.int64 if large else np.int32
    if offsets is None or len(array) == 0:
        return np.zeros(len(array) + 1, dtype=dtype), np.empty(0, dtype=np.uint8)
    found = view_of(offsets, dtype, array.offset, len(array) + 1)
    size = 0 if data is None else data.size
    return found, np.empty(0, np.uint8) if data is None else view_of(data, np.uint8, 0, size)


def array_of(
    values: npt.NDArray[Any], type_: pa.DataType, valid: npt.NDArray[np.bool_] | None
) -> pa.Array:
    """Return `values` as an Arrow array of `type_`, which shares their memory.

    Parameters
    ----------
    values
        Numbers as `storage_dtype` says, or bytes of 0 and 1 for booleans.
    valid
        `False` where the value is null; `None`: nothing is null.
    """
    count = len(values)
    bitmap, null_count = None, 0
    if valid is not None:
        null_count = count - int(np.count_nonzero(valid))
        if null_count:
            bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
    if pat.is_boolean(type_):
        data = pa.py_buffer(np.packbits(values.view(np.bool_), bitorder="little"))
    else:
        data = pa.py_buffer(values)
    return pa.Array.from_buffers(type_, count, [bitmap, data], null_count=null_count)


def _bitmap(buffer: pa.Buffer | None, offset: int, count: int) -> Bitmap:
    if buffer is None or count == 0:
        return NO_BITMAP
    first_byte, first_bit = divmod(offset, 8)
    size = (first_bit + count + 7) // 8
    return view_of(buffer, np.uint8, first_byte, size), first_bit
