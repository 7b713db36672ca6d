"""Distinct values by slot, in order, with how often each is there: what extremes are taken from.

Sixteen bytes a value and at most twice as much room. A change costs a search, and moves what
lies behind it in its slot's block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import new_values
from millstream.operators.kernels import value_counts as kernels

Int64Array = npt.NDArray[np.int64]

_ARENA_FIRST = 1024


class ValueCounts:
    """Counts of int64 values, by slot. A count may be negative for a while; it is no value then."""

    def __init__(self) -> None:
        self._heads = np.zeros((0, 3), dtype=np.int64)
        self._values = np.zeros(_ARENA_FIRST, dtype=np.int64)
        self._counts = np.zeros(_ARENA_FIRST, dtype=np.int64)
        self._free = np.full(kernels.SIZES, kernels.NONE, dtype=np.int64)
        self._meta = np.zeros(1, dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._heads.nbytes + self._values.nbytes + self._counts.nbytes

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        if len(self._heads) < capacity:
            more = np.zeros((capacity - len(self._heads), 3), dtype=np.int64)
            self._heads = np.concatenate([self._heads, more])

    def add(self, slots: Int64Array, values: Int64Array, weights: Int64Array) -> None:
        """Add the weight of each row to the count of its slot's value."""
        order = np.lexsort((values, slots))
        slots, values, weights = slots[order], values[order], weights[order]
        starts = np.ones(len(slots), dtype=np.bool_)
        starts[1:] = (slots[1:] != slots[:-1]) | (values[1:] != values[:-1])
        first = np.flatnonzero(starts)
        if not len(first):
            return
        sums = np.add.reduceat(weights, first)
        changed = sums != 0
        first, sums = first[changed], sums[changed]
        slots, values = slots[first], values[first]
        room = np.empty(len(slots), np.int64), np.empty(len(slots), np.int64)
        done = 0
        while True:
            done = kernels.add_counts(
                slots, values, sums, done, self._heads, self._values, self._counts, self._free,
                self._meta, *room,
            )  # fmt: skip
            if done == len(slots):
                return
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])

    def extremes(self, slots: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return the least and the greatest value of each slot; 0 where there is none."""
        least, greatest = new_values(len(slots), np.int64), new_values(len(slots), np.int64)
        kernels.write_extremes(slots, self._heads, self._values, self._counts, least, greatest)
        return least, greatest

    def clear(self, slots: Int64Array) -> None:
        """Forget all values of `slots`."""
        kernels.clear_blocks(slots, self._heads, self._values, self._free)

    def lists(self, slots: Int64Array) -> tuple[pa.Array, pa.Array]:
        """Return the values and the counts of each slot, as lists of int64."""
        lengths = self._heads[slots, kernels.LENGTH]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = new_values(int(offsets[-1]), np.int64)
        counts = new_values(int(offsets[-1]), np.int64)
        kernels.gather_blocks(slots, self._heads, self._values, self._counts, values, counts)
        ends = pa.array(offsets)
        return (
            pa.LargeListArray.from_arrays(ends, pa.array(values)),
            pa.LargeListArray.from_arrays(ends, pa.array(counts)),
        )

    def add_lists(self, slots: Int64Array, values: pa.Array, counts: pa.Array) -> None:
        """Add what `lists` gave."""
        lengths = np.diff(np.asarray(values.offsets))
        self.add(
            np.repeat(slots, lengths), np.asarray(values.flatten()), np.asarray(counts.flatten())
        )
