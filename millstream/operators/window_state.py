"""The open windows of every key: an index of (key, window start), and a row of fields a slot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.accumulator import Accumulator, Aggregate
from millstream.operators.key_index import KeyIndex

KEY_GROUP_COLUMN = "_key_group"
REMOVED_COLUMN = "_removed"
WINDOW_START_COLUMN = "window_start"

Int64Array = npt.NDArray[np.int64]


class WindowState:
    """State of a windowed aggregate, with what changed since the last snapshot.

    Parameters
    ----------
    schema
        Of the operator's input.
    key_columns
        Grouping columns.
    aggregates
        What is kept for each key and window.
    """

    def __init__(
        self, schema: pa.Schema, key_columns: Sequence[str], aggregates: Sequence[Aggregate]
    ) -> None:
        self._key_columns = tuple(key_columns)
        self._key_types = [schema.field(name).type for name in key_columns]
        self._index = KeyIndex([*self._key_types, pa.int64()])
        self._accumulators: list[Accumulator] = []
        width = 0
        for each in aggregates:
            type_ = pa.null() if each.argument is None else schema.field(each.argument).type
            accumulator = Accumulator(each, type_, width)
            self._accumulators.append(accumulator)
            width += len(accumulator.field_names)
        capacity = self._index.capacity
        self._fields = np.zeros((capacity, width), dtype=np.int64)
        self._starts = np.zeros(capacity, dtype=np.int64)
        self._dirty = np.zeros(capacity, dtype=np.bool_)
        # Slots that an earlier snapshot holds: closing one of these must be written down.
        self._snapshotted = np.zeros(capacity, dtype=np.bool_)
        self._closed: list[tuple[list[pa.Array], Int64Array]] = []
        self._last_checkpoint: int | None = None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._index.size_bytes + self._fields.nbytes + self._starts.nbytes

    def fold(self, batch: pa.RecordBatch, starts: Int64Array) -> None:
        """Fold rows, whose windows start at `starts`, into their slots."""
        keys = [batch.column(name) for name in self._key_columns]
        slots = self._slots([*keys, pa.array(starts)], starts)
        self._dirty[slots] = True
        for each in self._accumulators:
            argument = each.aggregate.argument
            column = None if argument is None else batch.column(argument)
            each.fold(slots, column, self._fields, self._dirty)

    def starts(self) -> Int64Array:
        """Return the start of the window of each live slot."""
        return self._starts[self._index.live_slots()]

    def slots_until(self, start_max_us: int | None) -> Int64Array:
        """Return the slots of windows that start by `start_max_us`, the earliest first."""
        slots = self._index.live_slots()
        starts = self._starts[slots]
        if start_max_us is not None:
            chosen = starts <= start_max_us
            slots, starts = slots[chosen], starts[chosen]
        return slots[np.argsort(starts, kind="stable")]

    def results(self, slots: Int64Array) -> tuple[list[pa.Array], Int64Array, list[pa.Array]]:
        """Return key columns, window starts and result columns of `slots`."""
        keys = self._index.keys(slots)[:-1]
        rows = self._fields[slots]
        return keys, self._starts[slots], [each.result(rows) for each in self._accumulators]

    def remove(self, slots: Int64Array) -> None:
        """Forget `slots`."""
        known = slots[self._snapshotted[slots]]
        if len(known):
            self._closed.append((self._index.keys(known)[:-1], self._starts[known]))
        self._index.remove(slots)
        self._fields[slots] = 0
        self._dirty[slots] = False
        self._snapshotted[slots] = False

    def snapshot(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        """Return whether it is the full state, and the rows; see `StateSnapshot`.

        A change is known only since the last snapshot; asked for another, all is returned.
        """
        full = since is None or since != self._last_checkpoint
        live = self._index.live_slots()
        slots = live if full else live[self._dirty[live]]
        parts = [self._rows(self._index.keys(slots)[:-1], self._starts[slots], self._fields[slots])]
        if not full:
            parts += [self._rows(keys, starts, None) for keys, starts in self._closed]
        self._closed.clear()
        self._dirty[live] = False
        self._snapshotted[live] = True
        self._last_checkpoint = checkpoint
        return full, pa.concat_tables(parts)

    def apply(self, rows: pa.Table, groups: range) -> None:
        """Apply the rows of a snapshot whose key group is in `groups`."""
        group = np.asarray(rows.column(KEY_GROUP_COLUMN).combine_chunks())
        mine = (group >= groups.start) & (group < groups.stop)
        rows = rows.filter(pa.array(mine)).combine_chunks()
        removed = np.asarray(rows.column(REMOVED_COLUMN).combine_chunks())
        gone, kept = rows.filter(pa.array(removed)), rows.filter(pa.array(~removed))
        if gone.num_rows:
            columns, starts = self._key_arrays(gone)
            slots = self._index.slots([*columns, pa.array(starts)], insert=False)
            self.remove(slots[slots >= 0])
        if kept.num_rows:
            columns, starts = self._key_arrays(kept)
            slots = self._slots([*columns, pa.array(starts)], starts)
            for column, name, is_float in self._state_columns():
                values = np.asarray(kept.column(name).combine_chunks())
                self._fields[slots, column] = values.view(np.int64) if is_float else values
            self._dirty[slots] = True

    def _slots(self, columns: list[pa.Array], starts: Int64Array) -> Int64Array:
        """Return slots for keys, the arrays grown to hold them."""
        slots = self._index.slots(columns, insert=True)
        more = self._index.capacity - len(self._fields)
        if more:
            self._fields = np.pad(self._fields, ((0, more), (0, 0)))
            self._starts = np.pad(self._starts, (0, more))
            self._dirty = np.pad(self._dirty, (0, more))
            self._snapshotted = np.pad(self._snapshotted, (0, more))
        self._starts[slots] = starts
        return slots

    def _state_columns(self) -> list[tuple[int, str, bool]]:
        """Return (field, name in a state file, whether it holds float64) of each field."""
        return [
            (each.first_field + index, f"{each.aggregate.name}.{name}", index in each.float_fields)
            for each in self._accumulators
            for index, name in enumerate(each.field_names)
        ]

    def _key_arrays(self, rows: pa.Table) -> tuple[list[pa.Array], Int64Array]:
        columns = [rows.column(name).combine_chunks() for name in self._key_names()]
        return columns, np.asarray(rows.column(WINDOW_START_COLUMN).combine_chunks())

    def _key_names(self) -> list[str]:
        """Return names for key columns that no other column of a state file has."""
        return [f"key.{name}" for name in self._key_columns]

    def _rows(
        self, keys: list[pa.Array], starts: Int64Array, fields: Int64Array | None
    ) -> pa.Table:
        """Return rows of a snapshot; without `fields` they say that the keys are gone."""
        count = len(starts)
        groups = key_groups_of(keys) if keys else np.zeros(count, dtype=np.int32)
        columns: dict[str, pa.Array] = {
            KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
            REMOVED_COLUMN: pa.array(np.full(count, fields is None)),
            **dict(zip(self._key_names(), keys, strict=True)),
            WINDOW_START_COLUMN: pa.array(starts),
        }
        for column, name, is_float in self._state_columns():
            values = np.zeros(count, np.int64) if fields is None else fields[:, column].copy()
            columns[name] = pa.array(values.view(np.float64) if is_float else values)
        return pa.table(columns)
