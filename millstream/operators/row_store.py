"""Rows that are appended in batches and taken by their number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.row_batches import RowBatches
from millstream.operators.row_columns import RowColumn, row_column

Int64Array = npt.NDArray[np.int64]


class RowStore:
    """Rows of one schema, numbered from 0 in the order in which they came.

    Parameters
    ----------
    schema
        Of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._forget()

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._others.size_bytes + sum(each.size_bytes for each in self._columns.values())

    def append(self, rows: pa.RecordBatch) -> None:
        """Add rows, which get the next numbers."""
        if rows.num_rows == 0:
            return
        self._count += rows.num_rows
        for name, column in self._columns.items():
            column.append(rows.column(name))
        if self._other_names:
            self._others.append(rows.select(self._other_names))

    def take(self, columns: list[str], numbers: Int64Array) -> list[pa.Array]:
        """Return `columns` of the rows `numbers`; nulls where the number is -1."""
        names = [each for each in columns if each not in self._columns]
        others = dict(zip(names, self._others.take(names, numbers), strict=True)) if names else {}
        return [
            others[each] if each in others else self._columns[each].take(numbers)
            for each in columns
        ]

    def keep(self, numbers: Int64Array) -> None:
        """Forget all rows but `numbers`, which are numbered anew in this order."""
        arrays = self.take(list(self._schema.names), numbers)
        self._forget()
        self.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _forget(self) -> None:
        self._count = 0
        self._columns: dict[str, RowColumn] = {}
        others = []
        for field in self._schema:
            column = row_column(field.type)
            if column is None:
                others.append(field)
            else:
                self._columns[field.name] = column
        self._other_names = [each.name for each in others]
        self._others = RowBatches(pa.schema(others))
