"""Columns of numbers, times and texts that grow at their end and are read by the number of a row.

Each is one piece of memory, so that a row is copied once when it comes and once whenever it is
taken::

    numbers   values │ 7 │ 0 │ 9 │                 valid │ 1 │ 0 │ 1 │   (from the first null on)
    texts     ends   │ 0 │ 3 │ 3 │ 5 │    data │ abcde │
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.arrow_buffers import (
    array_of,
    new_values,
    storage_dtype,
    strings_of,
    valid_bytes_of,
    values_of,
)
from millstream.operators.kernels import row_columns as kernels

Int64Array = npt.NDArray[np.int64]
BooleanArray = npt.NDArray[np.bool_]

_ROOM_FIRST = 64
_INT32_MAX = 2**31 - 1


class RowColumn(Protocol):
    """Values of one type, numbered from 0 in the order in which they came."""

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        ...

    def append(self, array: pa.Array) -> None:
        """Add values, which get the next numbers."""
        ...

    def take(self, numbers: Int64Array) -> pa.Array:
        """Return the values `numbers`; null where a number is -1."""
        ...


class _Validity:
    """Which values are not null; nothing is kept until one is."""

    def __init__(self) -> None:
        self.values: BooleanArray | None = None

    def append(self, valid: BooleanArray, count: int, added: int) -> None:
        """Add what `valid_bytes_of` says of `added` values behind `count` others."""
        if self.values is None:
            if not len(valid):
                return
            self.values = np.ones(count + added, dtype=np.bool_)
        self.values = with_room(self.values, count, added)
        self.values[count : count + added] = valid if len(valid) else True

    def take(self, numbers: Int64Array) -> BooleanArray | None:
        """Return which of `numbers` are not null; `None`: all."""
        if self.values is None:
            there: BooleanArray = numbers >= 0
            return None if there.all() else there
        taken: BooleanArray = new_values(len(numbers), np.bool_)
        kernels.take_values(self.values, numbers, taken)
        return taken


class NumberColumn:
    """Numbers or times, as `storage_dtype` says they lie in memory."""

    def __init__(self, type_: pa.DataType) -> None:
        dtype = storage_dtype(type_)
        assert dtype is not None, f"{type_} is not a number"
        self._type, self._dtype = type_, dtype
        # Unsigned, so that a kernel is compiled for a width and not for a type.
        self._values: npt.NDArray[Any] = np.empty(0, dtype=f"u{dtype.itemsize}")
        self._valid = _Validity()
        self._count = 0

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._values.nbytes + _size_of(self._valid)

    def append(self, array: pa.Array) -> None:
        """Add values, which get the next numbers."""
        count, added = self._count, len(array)
        self._values = with_room(self._values, count, added)
        self._values[count : count + added] = values_of(array, self._dtype).view(self._values.dtype)
        self._valid.append(valid_bytes_of(array), count, added)
        self._count += added

    def take(self, numbers: Int64Array) -> pa.Array:
        """Return the values `numbers`; null where a number is -1."""
        taken = new_values(len(numbers), self._values.dtype)
        kernels.take_values(self._values, numbers, taken)
        return array_of(taken.view(self._dtype), self._type, self._valid.take(numbers))


class TextColumn:
    """Strings or binaries."""

    def __init__(self, type_: pa.DataType) -> None:
        self._type = type_
        self._large = bool(pat.is_large_string(type_) or pat.is_large_binary(type_))
        self._ends: npt.NDArray[np.uint64] = np.zeros(1, dtype=np.uint64)
        self._data: npt.NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._valid = _Validity()
        self._count = 0

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._ends.nbytes + self._data.nbytes + _size_of(self._valid)

    def append(self, array: pa.Array) -> None:
        """Add values, which get the next numbers."""
        offsets, data = strings_of(array)
        count, added, used = self._count, len(array), int(self._ends[self._count])
        begin, end = int(offsets[0]), int(offsets[-1])
        self._ends = with_room(self._ends, count + 1, added)
        self._ends[count + 1 : count + 1 + added] = offsets[1:].astype(np.int64) + (used - begin)
        self._data = with_room(self._data, used, end - begin)
        self._data[used : used + end - begin] = data[begin:end]
        self._valid.append(valid_bytes_of(array), count, added)
        self._count += added

    def take(self, numbers: Int64Array) -> pa.Array:
        """Return the values `numbers`; null where a number is -1.

        Raises
        ------
        pyarrow.ArrowCapacityError
            Where they have more than 2 GiB and the type is not a large one.
        """
        offsets = new_values(len(numbers) + 1, np.int64)
        size = kernels.take_ends(self._ends, numbers, offsets)
        if size > _INT32_MAX and not self._large:
            message = f"{len(numbers)} rows have {size} bytes of {self._type}, more than 2 GiB"
            raise pa.ArrowCapacityError(message)
        data = new_values(size, np.uint8)
        kernels.take_bytes(self._ends, self._data, numbers, data)
        ends = offsets if self._large else offsets.astype(np.int32)
        valid = self._valid.take(numbers)
        bitmap = None
        if valid is not None and not valid.all():
            bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
        buffers = [bitmap, pa.py_buffer(ends), pa.py_buffer(data)]
        return pa.Array.from_buffers(self._type, len(numbers), buffers)


def row_column(type_: pa.DataType) -> RowColumn | None:
    """Return an empty column of `type_`; `None`: it is of another kind."""
    if storage_dtype(type_) is not None:
        return NumberColumn(type_)
    small = pat.is_string(type_) or pat.is_binary(type_)
    if small or pat.is_large_string(type_) or pat.is_large_binary(type_):
        return TextColumn(type_)
    return None


def with_room(values: npt.NDArray[Any], count: int, added: int) -> npt.NDArray[Any]:
    """Return `values`, of which `count` are used, or a larger copy with room for `added` more."""
    if count + added <= len(values):
        return values
    larger = np.empty(max(2 * len(values), count + added, _ROOM_FIRST), dtype=values.dtype)
    larger[:count] = values[:count]
    return larger


def _size_of(valid: _Validity) -> int:
    return 0 if valid.values is None else valid.values.nbytes
