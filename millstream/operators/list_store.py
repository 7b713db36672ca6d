"""All values by slot, in the order of event time and source position: what `collect_list` gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.operators.aggregate import Aggregate
from millstream.operators.chains import Chains
from millstream.operators.operator import POSITION_COLUMN
from millstream.operators.row_store import RowStore
from millstream.operators.sorting import sorted_in_slots

Int64Array = npt.NDArray[np.int64]

_ROWS_KEPT_MIN = 4096
_VALUE, _TIME, _POSITION = "value", "time", "position"
_COLUMNS = [_VALUE, _TIME, _POSITION]


class ListStore:
    """The values of each slot.

    Parameters
    ----------
    argument
        Column of the input; nulls are left out.
    type_
        Of the values.
    time_column
        Event time; `None`: there is none.
    """

    def __init__(self, argument: str, type_: pa.DataType, time_column: str | None) -> None:
        self._argument, self._type, self._time = argument, type_, time_column
        types = (type_, pa.int64(), pa.int64())
        self.fields = tuple(
            pa.field(f"{argument}.list.{name}", pa.large_list(each))
            for name, each in zip(_COLUMNS, types, strict=True)
        )
        self._rows = RowStore(pa.schema(list(zip(_COLUMNS, types, strict=True))))
        self._chains = Chains()
        self._capacity = self._used = 0

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._rows.size_bytes + self._chains.size_bytes

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        self._capacity = capacity
        self._chains.grow(capacity)

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        zeros = pa.array(np.zeros(batch.num_rows, dtype=np.int64))
        time = zeros if self._time is None else batch.column(self._time).cast(pa.int64())
        names = batch.schema.names
        position = batch.column(POSITION_COLUMN) if POSITION_COLUMN in names else zeros
        column = batch.column(self._argument)
        rows = pa.RecordBatch.from_arrays([column, time, position], _COLUMNS)
        if column.null_count:
            valid = pc.is_valid(column)
            rows, slots = rows.filter(valid), slots[valid.to_numpy(zero_copy_only=False)]
        self._append(slots, rows)

    def take(self, slots: Int64Array) -> list[pa.Array]:
        """Return the values of `slots` with their times and positions, as lists."""
        offsets = np.concatenate([[0], np.cumsum(self._chains.lengths[slots])]).astype(np.int64)
        columns = self._rows.take(_COLUMNS, self._chains.entries(slots))
        return [pa.LargeListArray.from_arrays(pa.array(offsets), each) for each in columns]

    def add(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `take` gave of other slots into `slots`."""
        lengths = np.diff(np.asarray(columns[0].offsets))
        rows = pa.RecordBatch.from_arrays([each.flatten() for each in columns], _COLUMNS)
        self._append(np.repeat(slots, lengths), rows)

    def clear(self, slots: Int64Array) -> None:
        """Forget the values of `slots`."""
        slots = np.unique(slots)
        self._used -= int(self._chains.lengths[slots].sum())
        self._chains.clear(slots)
        if len(self._rows) < max(_ROWS_KEPT_MIN, 4 * self._used):
            return
        kept = np.flatnonzero(self._chains.lengths)
        entries, lengths = self._chains.entries(kept), self._chains.lengths[kept]
        self._rows.keep(entries)
        self._chains = Chains()
        self._chains.grow(self._capacity)
        self._chains.link(np.arange(len(entries)), np.repeat(kept, lengths), len(entries))

    def result(self, aggregate: Aggregate, slots: Int64Array) -> pa.Array:
        """Return the values of each slot in their order; null where there is none."""
        lengths = self._chains.lengths[slots]
        values, times, positions = self._rows.take(_COLUMNS, self._chains.entries(slots))
        places = np.repeat(np.arange(len(slots)), lengths)
        order = sorted_in_slots(places, [times, positions, values])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ends = pa.array(offsets.astype(np.int32), mask=np.append(lengths == 0, False))
        return pa.ListArray.from_arrays(ends, values.take(pa.array(order)))

    def _append(self, slots: Int64Array, rows: pa.RecordBatch) -> None:
        first = len(self._rows)
        self._rows.append(rows)
        self._used += rows.num_rows
        entries = np.arange(first, first + rows.num_rows)
        self._chains.link(entries, slots, len(self._rows))
