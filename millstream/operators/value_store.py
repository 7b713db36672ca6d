"""Distinct values by slot, each with how often it is there (or with the greatest of some number).

An index of (slot, value) numbers the entries, whatever the type of the values; a chain a slot says
which are a slot's. Sets of texts are this, and sketches are too: those of DDSketch count the
numbers of buckets, and those of HyperLogLog keep the greatest rank of each register.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.operators.aggregate import Aggregate
from millstream.operators.chains import Chains
from millstream.operators.kernels import slot_stores as kernels
from millstream.operators.key_index import KeyIndex
from millstream.operators.sorting import sorted_in_slots

Int64Array = npt.NDArray[np.int64]


class ValueStore:
    """Values and their counts by slot, for `count_distinct`, `collect_set` and `top_k`.

    Parameters
    ----------
    argument
        Column of the input; nulls are left out.
    type_
        Of the values.
    keeps_greatest
        Keep the greatest number given with each value, instead of their sum.
    name
        Of the columns in which it gives what it keeps.
    """

    def __init__(
        self,
        argument: str,
        type_: pa.DataType,
        name: str = "values",
        *,
        keeps_greatest: bool = False,
    ) -> None:
        self.argument, self.type, self._name = argument, type_, name
        self._keeps_greatest = keeps_greatest
        self.fields = (
            pa.field(f"{argument}.{name}", pa.large_list(type_)),
            pa.field(f"{argument}.{name}.counts", pa.large_list(pa.int64())),
        )
        self._index = KeyIndex([pa.int64(), type_])
        self._chains = Chains()
        self._counts = np.zeros(self._index.capacity, dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._index.size_bytes + self._chains.size_bytes + self._counts.nbytes

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        self._chains.grow(capacity)

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        column = batch.column(self.argument)
        if column.null_count:
            valid = pc.is_valid(column)
            column = column.filter(valid)
            slots = slots[valid.to_numpy(zero_copy_only=False)]
        self.count(slots, column, np.ones(len(slots), dtype=np.int64))

    def count(self, slots: Int64Array, values: pa.Array, numbers: Int64Array) -> None:
        """Add values, none of which is null, with a number for each."""
        if len(slots) == 0:
            return
        found = self._index.insert([pa.array(slots), values])
        if len(self._counts) < self._index.capacity:
            counts = np.zeros(self._index.capacity, dtype=np.int64)
            counts[: len(self._counts)] = self._counts
            self._counts = counts
        owners = np.ascontiguousarray(self._index.numbers(found.added, 0))
        self._chains.link(found.added, owners, self._index.capacity)
        fold = kernels.take_greatest if self._keeps_greatest else kernels.add_counts
        fold(found.of_rows, numbers, self._counts)

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return values and counts of `slots`, as lists."""
        offsets, values, counts = self.sorted(slots)
        ends = pa.array(offsets)
        return [
            pa.LargeListArray.from_arrays(ends, values),
            pa.LargeListArray.from_arrays(ends, pa.array(counts)),
        ]

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `take` gave of other slots into `slots`."""
        values, counts = columns
        lengths = np.diff(np.asarray(values.offsets))
        self.count(
            np.repeat(slots, lengths), values.flatten(), np.array(counts.flatten(), dtype=np.int64)
        )

    def clear(self, slots: Int64Array) -> None:
        """Forget what is kept of `slots`."""
        slots = np.unique(slots)
        self._drop(slots, self._chains.entries(slots))

    def sorted(self, slots: Int64Array) -> tuple[Int64Array, pa.Array, Int64Array]:
        """Return offsets (n + 1), values and counts of `slots`; values of a slot ascending."""
        lengths = self._chains.lengths[slots]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entries = self._chains.entries(slots)
        values = self._index.keys(entries)[1]
        places = np.repeat(np.arange(len(slots)), lengths)
        order = sorted_in_slots(places, [values])
        return offsets, values.take(pa.array(order)), self._counts[entries[order]]

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return the number, or the list, of the values of each slot."""
        if aggregate.function == "count_distinct":
            return pa.array(self._chains.lengths[slots].copy())
        offsets, values, counts = self.sorted(slots)
        if aggregate.function == "collect_set":
            return lists_of(offsets, values)
        return greatest_of(offsets, values, counts, int(aggregate.parameter or 0))

    def _drop(self, slots: Int64Array, entries: Int64Array) -> None:
        """Take all entries of `slots`, which are `entries`, out."""
        self._counts[entries] = 0
        self._index.remove(entries)
        self._chains.clear(slots)


class TopStore(ValueStore):
    """The greatest values by slot; others are dropped once there are many.

    Parameters
    ----------
    argument, type_
        As for `ValueStore`.
    limit
        How many are kept.
    """

    def __init__(self, argument: str, type_: pa.DataType, limit: int) -> None:
        super().__init__(argument, type_, f"top_{limit}")
        self._limit = limit

    def count(self, slots: Int64Array, values: pa.Array, numbers: Int64Array) -> None:
        """Add values with how often each is there, and drop what cannot be among the greatest."""
        super().count(slots, values, numbers)
        touched = np.unique(slots)
        full = touched[self._chains.lengths[touched] > 2 * self._limit + 32]
        if len(full) == 0:
            return
        offsets, kept, counts = self.sorted(full)
        lengths = np.diff(offsets)
        from_end = np.repeat(offsets[1:], lengths) - np.arange(len(counts))
        keep = from_end <= self._limit
        owners = np.repeat(full, lengths)[keep]
        self.clear(full)
        super().count(owners, kept.filter(pa.array(keep)), counts[keep])


def greatest_of(offsets: Int64Array, values: pa.Array, counts: Int64Array, limit: int) -> pa.Array:
    """Return the `limit` greatest values of each slot, descending, each as often as it is there."""
    slots = len(offsets) - 1
    owners = np.repeat(np.arange(slots), np.diff(offsets))
    # Of one slot the greatest come first, each as often as it is there.
    order = np.lexsort((-np.arange(len(owners)), owners))
    often = np.minimum(counts[order], limit)
    places, owners = np.repeat(order, often), np.repeat(owners[order], often)
    begins = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=slots))])
    keep = np.arange(len(places)) - begins[owners] < limit
    taken = np.bincount(owners[keep], minlength=slots)
    ends = np.concatenate([[0], np.cumsum(taken)]).astype(np.int64)
    return lists_of(ends, values.take(pa.array(places[keep])))


def lists_of(offsets: Int64Array, values: pa.Array) -> pa.Array:
    """Return lists, null where one is empty."""
    empty = np.diff(offsets) == 0
    ends = pa.array(offsets.astype(np.int32), mask=np.append(empty, False))
    return pa.ListArray.from_arrays(ends, values)
