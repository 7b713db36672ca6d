"""Which rows of a table a stream's row matches: all of those with its values in some columns.

    key of a row of the table ─▶ slot of the row ─┐ in the chain of
    join columns ─▶ key index ─▶ slot of the key ─┘

It is kept up with every change of the table; a row whose join columns change moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import new_values, valid_bytes_of
from millstream.operators.kernels import match_index as kernels
from millstream.operators.key_index import KeyIndex
from millstream.operators.operator import OUTPUT_ROWS_MAX

OUTPUT_BYTES_MAX = 8 * 1024 * 1024
"""The most that matches of one piece take, but for the one row that takes more."""

Int64Array = npt.NDArray[np.int64]


class MatchIndex:
    """The rows of a table by their join columns, of the given types; a null matches nothing."""

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        self._index = KeyIndex(types)
        self._heads = _longer(np.empty(0, dtype=np.int64), self._index.capacity, kernels.NONE)
        self._keys = self._before = self._after = self._bytes = np.empty(0, dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        arrays = (self._heads, self._keys, self._before, self._after, self._bytes)
        return self._index.size_bytes + sum(each.nbytes for each in arrays)

    def change(
        self,
        rows: Int64Array,
        columns: Sequence[pa.Array],
        sizes: Int64Array,
        removed: npt.NDArray[np.bool_],
        capacity: int,
    ) -> None:
        """Take note of rows that came, came again with other values, or went, in this order.

        Parameters
        ----------
        rows
            Their slots, int64, shape (n,).
        columns
            Their join columns.
        sizes
            How many bytes each adds to a row of output.
        removed
            `True` where the row is gone.
        capacity
            All slots of rows are below.
        """
        if len(self._keys) < capacity:
            self._keys = _longer(self._keys, capacity, kernels.NONE)
            self._before = _longer(self._before, capacity, kernels.NONE)
            self._after = _longer(self._after, capacity, kernels.NONE)
            self._bytes = _longer(self._bytes, capacity, 0)
        # Where a row comes twice, NumPy keeps the last assignment, and it moves twice.
        self._bytes[rows] = sizes
        linked = _complete(columns, len(rows)) & ~removed
        if not linked.all():
            columns = [each.filter(pa.array(linked)) for each in columns]
        targets = np.full(len(rows), kernels.NONE, dtype=np.int64)
        targets[linked] = self._index.insert(columns).of_rows
        self._heads = _longer(self._heads, self._index.capacity, kernels.NONE)
        left = new_values(len(rows), np.int64)
        count = kernels.move_rows(
            rows, targets, self._keys, self._heads, self._before, self._after, left
        )
        if count:
            keys = np.unique(left[:count])
            self._index.remove(keys[self._heads[keys] == kernels.NONE])

    def matches(
        self, columns: Sequence[pa.Array], sizes: Int64Array, *, unmatched: bool
    ) -> Iterator[tuple[Int64Array, Int64Array]]:
        """Yield which rows of a stream match which rows of the table, in bounded pieces.

        The index may not change before the last one.

        Parameters
        ----------
        columns
            Join columns of the stream's rows.
        sizes
            How many bytes each of them takes, int64.
        unmatched
            Whether rows without a match are to come, too.

        Yields
        ------
        tuple
            Numbers of the stream's rows, ascending, and the slot of the row of the table that
            each matches, -1 where none does; int64, shape (m,), 0 < m <= `OUTPUT_ROWS_MAX`.
        """
        targets = self._index.find(columns)  # where one is null there is no such key
        place = np.array([0, kernels.NONE], dtype=np.int64)
        while place[kernels.PLACE_STREAM_ROW] < len(targets):
            stream_rows = new_values(OUTPUT_ROWS_MAX, np.int64)
            table_rows = new_values(OUTPUT_ROWS_MAX, np.int64)
            count = kernels.match_rows(
                targets, self._heads, self._after, sizes, self._bytes, OUTPUT_BYTES_MAX,
                unmatched, place, stream_rows, table_rows,
            )  # fmt: skip
            if count:
                yield stream_rows[:count], table_rows[:count]


def _complete(columns: Sequence[pa.Array], count: int) -> npt.NDArray[np.bool_]:
    """Return which of `count` rows have no null in `columns`."""
    complete = np.ones(count, dtype=np.bool_)
    for each in columns:
        if each.null_count:
            complete &= valid_bytes_of(each)
    return complete


def _longer(array: npt.NDArray[Any], length: int, filler: int) -> npt.NDArray[Any]:
    """Return `array` with `filler` behind it up to `length`."""
    if len(array) >= length:
        return array
    return np.concatenate([array, np.full(length - len(array), filler, dtype=array.dtype)])
