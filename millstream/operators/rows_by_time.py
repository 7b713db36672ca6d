"""Rows that wait until event time has come to them, in the order of their times.

rows, slots of their keys ─▶ kept ─▶ those before a time: by time, then source position
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import values_of
from millstream.operators.functions.function import taken
from millstream.operators.open_windows import OpenWindows
from millstream.operators.operator import POSITION_COLUMN
from millstream.operators.row_store import RowStore

Int64Array = npt.NDArray[np.int64]

_FIELD = pa.field(POSITION_COLUMN, pa.int64())
_GONE_MIN = 1_024
"""So many rows that were taken are kept with the others at least, before these are put together."""


class RowsByTime:
    """Rows by their time, each of the key of a slot.

    Parameters
    ----------
    schema
        Of the rows, without hidden columns. They are given back with `_position`, which is null
        where it is not known.
    time_column
        Event time, `timestamp[us, UTC]`.
    """

    def __init__(self, schema: pa.Schema, time_column: str) -> None:
        self.schema = schema.append(_FIELD)
        self._time_column = time_column
        self._rows = RowStore(self.schema)
        self._times: Int64Array = np.empty(0, dtype=np.int64)
        self._slots: Int64Array = np.empty(0, dtype=np.int64)
        self._queue = OpenWindows()
        self._count = 0
        self._of_slot: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._rows.size_bytes + self._times.nbytes + self._slots.nbytes

    def add(self, rows: pa.RecordBatch, slots: Int64Array) -> None:
        """Let rows wait, none of whose times is null; hidden columns but `_position` go."""
        count, times = rows.num_rows, values_of(rows.column(self._time_column))
        columns = [rows.column(name) for name in self.schema.names[:-1]]
        known = POSITION_COLUMN in rows.schema.names
        columns.append(rows.column(POSITION_COLUMN) if known else pa.nulls(count, pa.int64()))
        first = len(self._rows)
        self._rows.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        self._times = np.concatenate([self._times[:first], times])
        self._slots = np.concatenate([self._slots[:first], slots])
        self._queue.add(times, np.arange(first, first + count))
        self._count += count
        self._of_slot.update(slots.tolist())

    def take_until(self, time_us: int | None) -> tuple[pa.RecordBatch, Int64Array, Int64Array]:
        """Return the rows up to `time_us` (`None`: all), their times and slots, in order."""
        numbers = self._queue.take_until(time_us)
        names = list(self.schema.names)
        rows = pa.RecordBatch.from_arrays(self._rows.take(names, numbers), schema=self.schema)
        times, slots = self._times[numbers], self._slots[numbers]
        if len(numbers) > 1:
            position = rows.column(POSITION_COLUMN)
            # Rows of unknown places are as they came.
            order = np.lexsort((values_of(position.fill_null(-1)), times))
            rows, times, slots = taken(rows, order), times[order], slots[order]
        self._count -= len(numbers)
        self._of_slot.subtract(slots.tolist())
        for slot in set(slots.tolist()):
            if not self._of_slot[slot]:
                del self._of_slot[slot]
        if len(self._rows) - self._count > max(self._count, _GONE_MIN):
            self._put_together()
        return rows, times, slots

    def slots_among(self, slots: set[int]) -> set[int]:
        """Return those of some slots for which rows wait."""
        return {slot for slot in slots if self._of_slot[slot]} if self._count else set()

    def lists(self, slots: Int64Array) -> pa.ListArray:
        """Return the rows that wait for each of some slots, as a list a slot."""
        numbers = self._live()
        of_rows = self._slots[numbers]
        order = np.argsort(slots, kind="stable")
        places = np.searchsorted(slots[order], of_rows)
        places[places == len(slots)] = 0
        wanted = slots[order][places] == of_rows if len(slots) else np.zeros(len(of_rows), bool)
        numbers, lists = numbers[wanted], order[places[wanted]]
        numbers = numbers[np.argsort(lists, kind="stable")]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(lists, minlength=len(slots)))])
        names = list(self.schema.names)
        structs = pa.StructArray.from_arrays(
            self._rows.take(names, numbers), fields=list(self.schema)
        )
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)

    def _live(self) -> Int64Array:
        """Return the numbers of the rows that wait, in the order in which they came."""
        ends = np.iinfo(np.int64)
        return np.sort(self._queue.between(ends.min, ends.max)[1])

    def _put_together(self) -> None:
        """Forget the rows that were taken."""
        numbers = self._live()
        self._rows.keep(numbers)
        self._times, self._slots = self._times[numbers], self._slots[numbers]
        self._queue = OpenWindows()
        self._queue.add(self._times, np.arange(len(numbers)))
