"""What slots keep beside their fields, of any number and type: sets, lists, sketches, rows.

A slot is a row of fixed fields, which most aggregates need no more than. What does not fit into
fields lies in stores beside them, by the same slots::

    slot ─┬▶ fields       count │ sum │ max            one cache line, folded in one loop
          ├▶ set store    {7, 9}                       count_distinct, collect_set of numbers, times
          ├▶ value store  {a: 3, b: 1}                 the same of other types, sketches, top_k
          ├▶ best row     (rank, time, position) + row first, last, arg_min, min of a text
          └▶ all rows     [(time, position, value) …]  collect_list

Whatever a store keeps of slots it gives as Arrow columns, a row a slot, and takes it in again:
so a snapshot is written and restored by key group, combined rows cross to another worker, panes
and sessions are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.aggregate import Aggregate

Int64Array = npt.NDArray[np.int64]


class Store(Protocol):
    """Values by slot, which some aggregates of one argument share."""

    fields: tuple[pa.Field, ...]
    """Names and types of the columns in which it gives what it keeps."""

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        ...

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        ...

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        ...

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return what is kept of `slots`, as columns of `fields`."""
        ...

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `take` gave of other slots, a row each, into `slots`."""
        ...

    def clear(self, slots: Int64Array) -> None:
        """Forget what is kept of `slots`, which may be there more than once."""
        ...

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return a result column."""
        ...
