"""Distinct rows by slot with how often each is there, from which rows can be taken back.

A Z-set by slot (Budiu et al., DBSP, VLDB 2023)::

    slot 4 ─▶ ("a", 10) ×2   ("b", 12) ×1   ("c", 9) ×0     the last one has gone

About 50 bytes a distinct row and what its texts need. A change costs a look-up; rows that have
gone are dropped once they are half of a slot's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import values_of
from millstream.operators.chains import Chains
from millstream.operators.kernels import weighted_rows as kernels
from millstream.operators.key_index import KeyIndex

Int64Array = npt.NDArray[np.int64]

_GONE_KEPT = 16


class WeightedRows:
    """Rows with their counts, by slot. A count may be negative for a while; it holds nothing then.

    Parameters
    ----------
    types
        Of the columns of the rows; all can be keys.
    """

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        self.types = tuple(types)
        self._index = KeyIndex([pa.int64(), *types])
        self._chains = Chains()
        self._counts = np.zeros(self._index.capacity, dtype=np.int64)
        self._present: Int64Array = np.zeros(0, dtype=np.int64)
        self._gone: Int64Array = np.zeros(0, dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        arrays = (self._counts, self._present, self._gone)
        own = sum(each.nbytes for each in arrays)
        return own + self._index.size_bytes + self._chains.size_bytes

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        self._chains.grow(capacity)
        more = capacity - len(self._present)
        if more > 0:
            zeros = np.zeros(more, dtype=np.int64)
            self._present = np.concatenate([self._present, zeros])
            self._gone = np.concatenate([self._gone, zeros])

    def add(self, slots: Int64Array, columns: Sequence[pa.Array], weights: Int64Array) -> None:
        """Add rows, each with its weight, to their slots."""
        if len(slots) == 0:
            return
        found = self._index.insert([pa.array(slots), *columns])
        if len(self._counts) < self._index.capacity:
            more = np.zeros(self._index.capacity - len(self._counts), dtype=np.int64)
            self._counts = np.concatenate([self._counts, more])
        owners = np.ascontiguousarray(self._index.numbers(found.added, 0))
        self._chains.link(found.added, owners, self._index.capacity)
        kernels.note_new(owners, self._gone)
        kernels.add_weights(found.of_rows, slots, weights, self._counts, self._present, self._gone)
        self._drop_gone(slots)

    def counts(self, slots: Int64Array) -> Int64Array:
        """Return how many distinct rows of each slot hold."""
        return self._present[slots]

    def held(self, slots: Int64Array) -> tuple[Int64Array, list[pa.Array], Int64Array]:
        """Return places in `slots`, columns and counts of all rows that hold, slot by slot."""
        return self._of(slots, holds=True)

    def lists(self, slots: Int64Array) -> list[pa.Array]:
        """Return the columns and the counts of the rows of each slot, as lists."""
        places, columns, counts = self._of(slots, holds=False)
        ends = pa.array(offsets_of(places, len(slots)))
        return [pa.LargeListArray.from_arrays(ends, each) for each in (*columns, pa.array(counts))]

    def add_lists(self, slots: Int64Array, lists: Sequence[pa.Array]) -> None:
        """Add what `lists` gave of other slots to `slots`."""
        lengths = np.diff(np.asarray(lists[0].offsets))
        *columns, counts = (each.flatten() for each in lists)
        self.add(np.repeat(slots, lengths), columns, values_of(counts).copy())

    def clear(self, slots: Int64Array) -> None:
        """Forget the rows of `slots`."""
        slots = np.unique(slots)
        entries = self._chains.entries(slots)
        self._counts[entries] = 0
        self._present[slots] = self._gone[slots] = 0
        self._index.remove(entries)
        self._chains.clear(slots)

    def _of(
        self, slots: Int64Array, *, holds: bool
    ) -> tuple[Int64Array, list[pa.Array], Int64Array]:
        entries = self._chains.entries(slots)
        places = np.repeat(np.arange(len(slots)), self._chains.lengths[slots])
        counts = self._counts[entries]
        kept = counts > 0 if holds else counts != 0
        if not kept.all():
            entries, places, counts = entries[kept], places[kept], counts[kept]
        return places, self._index.keys(entries)[1:], counts

    def _drop_gone(self, slots: Int64Array) -> None:
        """Drop the rows that have gone where they are half of a slot's, or all."""
        gone, every = self._gone[slots], self._chains.lengths[slots]
        slots = slots[(gone == every) | (gone > _GONE_KEPT + every // 2)]
        slots = np.unique(slots)
        slots = slots[self._chains.lengths[slots] > 0]
        if len(slots) == 0:
            return
        entries = self._chains.entries(slots)
        owners = np.repeat(slots, self._chains.lengths[slots])
        kept = self._counts[entries] != 0
        self._chains.clear(slots)
        self._gone[slots] = 0
        self._index.remove(entries[~kept])
        self._chains.link(entries[kept], owners[kept], self._index.capacity)


def offsets_of(places: Int64Array, count: int) -> Int64Array:
    """Return where the rows of each of `count` places begin and end, `places` being ascending."""
    ends = np.cumsum(np.bincount(places, minlength=count))
    return np.concatenate([[0], ends]).astype(np.int64)
