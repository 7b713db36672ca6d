"""Rows of any types, in batches as they came, taken by their number.

Small batches are merged with ones of their size, so that there are few, and a row is copied as
often as the logarithm of their number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.functions.function import take, taken

Int64Array = npt.NDArray[np.int64]


class RowBatches:
    """Rows of one schema, numbered from 0 in the order in which they came.

    Parameters
    ----------
    schema
        Of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return sum(int(each.nbytes) for each in self._batches)

    def append(self, rows: pa.RecordBatch) -> None:
        """Add rows, which get the next numbers."""
        if rows.num_rows == 0:
            return
        # One schema, so that batches can be put together: a tombstone is null beside its key.
        rows = pa.RecordBatch.from_arrays(rows.columns, schema=self._schema)
        self._count += rows.num_rows
        self._batches.append(rows)
        while len(self._batches) > 1 and self._batches[-2].num_rows <= 2 * rows.num_rows:
            rows = pa.concat_batches(self._batches[-2:])
            self._batches[-2:] = [rows]

    def take(self, columns: list[str], numbers: Int64Array) -> list[pa.Array]:
        """Return `columns` of the rows `numbers`; nulls where the number is -1."""
        missing = numbers < 0
        mask = missing if missing.any() else None
        if not self._batches:
            return [pa.nulls(len(numbers), self._schema.field(name).type) for name in columns]
        if len(self._batches) == 1:
            places = pa.array(numbers, mask=mask)
            return [take(self._batches[0].column(name), places) for name in columns]
        # Arrow would put a chunked array together before it takes from it.
        starts = np.cumsum([0, *(each.num_rows for each in self._batches)])
        batch_of = np.searchsorted(starts, numbers, side="right") - 1
        order = np.argsort(batch_of, kind="stable")
        ends = np.searchsorted(batch_of, np.arange(len(self._batches) + 1), sorter=order)
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order)) - ends[0]  # missing ones lie in front
        places = pa.array(back, mask=mask)
        pieces = [
            taken(batch.select(columns), numbers[order[begin:end]] - start)
            for batch, start, begin, end in zip(
                self._batches, starts[:-1], ends[:-1], ends[1:], strict=True
            )
        ]
        together = pa.concat_batches(pieces)
        return [take(together.column(name), places) for name in columns]
