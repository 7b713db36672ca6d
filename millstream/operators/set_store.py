"""Sets of numbers or times by slot: a batch is put in by one loop, whatever slots it touches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import (
    array_of,
    new_values,
    storage_dtype,
    valid_bytes_of,
    values_of,
)
from millstream.operators.kernels import value_sets as kernels
from millstream.operators.sorting import sorted_in_slots

Int64Array = npt.NDArray[np.int64]

_TABLE_FIRST = 512


class SetStore:
    """Sets by slot, for `count_distinct` and `collect_set` of a type that `has_sets` names.

    Parameters
    ----------
    argument
        Column of the input; nulls are left out.
    type_
        Of the values. Floats are compared by value: −0.0 is 0.0, and there is one NaN.
    """

    def __init__(self, argument: str, type_: pa.DataType) -> None:
        self.argument, self.type = argument, type_
        self.fields: tuple[pa.Field, ...] = (pa.field(f"{argument}.set", pa.large_list(type_)),)
        self._table = np.full((_TABLE_FIRST, 2), kernels.NONE, dtype=np.int64)
        self._heads = np.zeros((0, 3), dtype=np.int64)
        self._arena = np.zeros(_TABLE_FIRST, dtype=np.int64)
        self._free = np.full(kernels.SIZES, kernels.NONE, dtype=np.int64)
        self._meta = np.zeros(2, dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._table.nbytes + self._heads.nbytes + self._arena.nbytes

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        if len(self._heads) < capacity:
            more = np.zeros((capacity - len(self._heads), 3), dtype=np.int64)
            self._heads = np.concatenate([self._heads, more])

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        self._add(slots, batch.column(self.argument))

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return the values of `slots`, as lists, in any order."""
        offsets, values = self._values(slots)
        return [pa.LargeListArray.from_arrays(pa.array(offsets), values)]

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `take` gave of other slots into `slots`."""
        lengths = np.diff(np.asarray(columns[0].offsets))
        self._add(np.repeat(slots, lengths), columns[0].flatten())

    def clear(self, slots: Int64Array) -> None:
        """Forget what is kept of `slots`."""
        kernels.clear_sets(slots, self._table, self._heads, self._arena, self._free, self._meta)

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return the number of values of each slot, or the values, ascending; null for none."""
        if aggregate.function == "count_distinct":
            return pa.array(self._heads[slots, kernels.LENGTH])
        offsets, values = self._values(slots)
        lengths = np.diff(offsets)
        order = sorted_in_slots(np.repeat(np.arange(len(slots)), lengths), [values])
        ends = pa.array(offsets.astype(np.int32), mask=np.append(lengths == 0, False))
        return pa.ListArray.from_arrays(ends, values.take(pa.array(order)))

    def _add(self, slots: Int64Array, column: pa.Array) -> None:
        values, valid = _words(column), valid_bytes_of(column)
        done = 0
        while True:
            done = kernels.add_values(
                slots, values, valid, done, self._table, self._heads, self._arena, self._free,
                self._meta,
            )  # fmt: skip
            if done == len(slots):
                return
            self._make_room()

    def _make_room(self) -> None:
        """Double what is full: the table or the arena."""
        if 2 * (self._meta[kernels.META_LIVE] + 1) > len(self._table):
            old = self._table
            self._table = np.full((2 * len(old), 2), kernels.NONE, dtype=np.int64)
            kernels.enter_pairs(old, self._table)
        else:
            larger = np.empty(2 * len(self._arena), dtype=np.int64)
            larger[: len(self._arena)] = self._arena
            self._arena = larger

    def _values(self, slots: Int64Array) -> tuple[Int64Array, pa.Array]:
        """Return offsets (n + 1) and values of `slots`."""
        offsets = np.concatenate([[0], np.cumsum(self._heads[slots, kernels.LENGTH])]).astype(
            np.int64
        )
        words = new_values(int(offsets[-1]), np.int64)
        kernels.gather_values(slots, self._heads, self._arena, words)
        values = words.view(np.float64) if pat.is_floating(self.type) else words
        return offsets, array_of(values.astype(storage_dtype(self.type)), self.type, None)


def has_sets(type_: pa.DataType) -> bool:
    """Return `True` iff a `SetStore` keeps values of `type_`."""
    return storage_dtype(type_) is not None


def _words(column: pa.Array) -> Int64Array:
    """Return a word for each value, equal iff the values are; under nulls, any."""
    values = values_of(column)
    if values.dtype.kind != "f":
        return values.view(np.int64) if values.dtype.itemsize == 8 else values.astype(np.int64)
    with np.errstate(invalid="ignore"):  # a signalling NaN is as good as any
        floats = values.astype(np.float64) + 0.0
    floats[np.isnan(floats)] = np.nan
    return floats.view(np.int64)
