"""Chains of entries by slot: which entries of a store belong to a slot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millstream.operators.arrow_buffers import new_values
from millstream.operators.kernels import slot_stores as kernels

Int64Array = npt.NDArray[np.int64]


class Chains:
    """The entries of each slot, in any order."""

    def __init__(self) -> None:
        self._head = np.full(0, kernels.NONE, dtype=np.int64)
        self.lengths = np.zeros(0, dtype=np.int64)
        """How many entries each slot has."""
        self._following = np.full(256, kernels.NONE, dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._head.nbytes + self.lengths.nbytes + self._following.nbytes

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        more = capacity - len(self._head)
        if more > 0:
            self._head = np.concatenate([self._head, np.full(more, kernels.NONE)])
            self.lengths = np.concatenate([self.lengths, np.zeros(more, dtype=np.int64)])

    def link(self, entries: Int64Array, slots: Int64Array, capacity: int) -> None:
        """Add entries, which are below `capacity`, to their slots."""
        if len(self._following) < capacity:
            following = np.full(2 * capacity, kernels.NONE, dtype=np.int64)
            following[: len(self._following)] = self._following
            self._following = following
        kernels.link(entries, slots, self._head, self._following, self.lengths)

    def entries(self, slots: Int64Array) -> Int64Array:
        """Return the entries of `slots`, one slot's behind the other's."""
        found = new_values(int(self.lengths[slots].sum()), np.int64)
        kernels.gather(slots, self._head, self._following, found)
        return found

    def clear(self, slots: Int64Array) -> None:
        """Take all entries from `slots`."""
        self._head[slots] = kernels.NONE
        self.lengths[slots] = 0
