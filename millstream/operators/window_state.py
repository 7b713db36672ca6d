"""The open windows of every key: an index of (key, window start), and a row of fields a slot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.aggregate import Aggregate
from millstream.operators.key_index import KeyIndex, Slots
from millstream.operators.open_windows import OpenWindows
from millstream.operators.operator import KEY_GROUP_COLUMN, REMOVED_COLUMN
from millstream.operators.slot_aggregates import SlotAggregates
from millstream.operators.window_assigner import TIME_TYPE, bounds_of
from millstream.operators.window_change import Changes
from millstream.windows.assignment import TimeWindow
from millstream.windows.hopping import Hopping

WINDOW_START_COLUMN = "window_start"

Int64Array = npt.NDArray[np.int64]

_SNAPSHOT_PIECE_ROWS = 1_048_576


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
    window
        How time is cut.
    time_column
        Event time, for what depends on the order of rows.
    """

    def __init__(
        self,
        schema: pa.Schema,
        key_columns: Sequence[str],
        aggregates: Sequence[Aggregate],
        window: TimeWindow,
        time_column: str | None = None,
    ) -> None:
        self._window = window
        self._key_columns = tuple(key_columns)
        types = [schema.field(name).type for name in key_columns]
        self._index = KeyIndex([*types, pa.int64()])
        self.windows = OpenWindows()
        self._kept = SlotAggregates(aggregates, schema, time_column)
        self._kept.grow(self._index.capacity)
        self._last_checkpoint: int | None = None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._index.size_bytes + self._kept.size_bytes + self.windows.size_bytes

    @property
    def due_us(self) -> int | None:
        """The end of the earliest window, or less; `None` where none is open."""
        earliest_us = self.windows.earliest_us
        if earliest_us is None or isinstance(self._window, Hopping):
            return earliest_us  # a pane is part of windows that end sooner than the last of them
        return int(self._window.ends_of(np.array([earliest_us]))[0])

    def fold(self, batch: pa.RecordBatch, starts: Int64Array) -> None:
        """Fold rows, whose windows start at `starts`, into their slots."""
        keys = [batch.column(name) for name in self._key_columns]
        self._kept.fold(self._insert([*keys, pa.array(starts)]).of_rows, batch)

    def merge(self, batch: pa.RecordBatch, starts: Int64Array) -> None:
        """Merge combined rows, which `take_all` of another state gave, into their slots."""
        keys = [batch.column(name) for name in self._key_columns]
        slots = self._insert([*keys, pa.array(starts)]).of_rows
        self._kept.merge(slots, batch.columns[len(keys) + 1 :])

    def fold_changes(self, batch: pa.RecordBatch, starts: Int64Array, partial: bool) -> Changes:
        """Fold rows, or merge combined ones, and return what results were and what they are."""
        keys = [batch.column(name) for name in self._key_columns]
        slots = self._insert([*keys, pa.array(starts)])
        touched = np.unique(slots.of_rows)
        old = np.setdiff1d(touched, slots.added, assume_unique=True)
        before = self._columns(old)
        if partial:
            self._kept.merge(slots.of_rows, batch.columns[len(keys) + 1 :])
        else:
            self._kept.fold(slots.of_rows, batch)
        return Changes(old, before, touched, self._columns(touched))

    def take_all(self) -> list[pa.Array]:
        """Return keys, window starts and fields of all slots, and forget them."""
        return self._take(self.windows.take_until(None))

    def take_over(self, until_us: int) -> list[pa.Array]:
        """Return, as `take_all` does, at least all that counts in windows that end by then."""
        overlapping = isinstance(self._window, Hopping)
        # Panes that begin before such an end; few of them count only in later windows.
        last_us = until_us - 1 if overlapping else self._window.last_over(until_us)
        return self._take(self.windows.take_until(last_us))

    def _take(self, slots: Int64Array) -> list[pa.Array]:
        *keys, starts = self._index.keys(slots)
        columns = [*keys, starts.view(TIME_TYPE), *self._kept.taken(slots)]
        self.remove(slots)
        return columns

    def over(self, until_us: int | None) -> Int64Array:
        """Return the slots of windows that end by `until_us` (`None`: all), the earliest first.

        They are no longer open: the caller gives them out and removes them.
        """
        return self.windows.take_until(
            None if until_us is None else self._window.last_over(until_us)
        )

    def results(
        self, slots: Int64Array
    ) -> tuple[list[pa.Array], Int64Array, Int64Array, list[pa.Array]]:
        """Return key columns, window starts and ends, and result columns of `slots`."""
        *keys, start_column = self._index.keys(slots)
        starts = np.asarray(start_column)
        return keys, starts, self._window.ends_of(starts), self._kept.results(slots)

    def merged_results(self, slots: Int64Array) -> tuple[list[pa.Array], list[pa.Array]]:
        """Return key columns and result columns of `slots`, those of each key merged."""
        groups, firsts = self._index.grouped(slots)
        if len(firsts) == len(slots):
            return self.keys(slots), self._kept.results(slots)
        return self.keys(firsts), self._kept.merged_results(slots, groups, len(firsts))

    def keys(self, slots: Int64Array) -> list[pa.Array]:
        """Return the key columns of `slots`, without their windows."""
        return self._index.keys(slots)[:-1]

    def remove(self, slots: Int64Array) -> None:
        """Forget `slots`, which were taken out of `windows`."""
        self._index.remove(slots)
        self._kept.clear(slots)

    def snapshot(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        """Return whether it is the full state, and the rows; see `StateSnapshot`.

        A change is known only since the last snapshot; asked for another, all is returned.
        """
        full = since is None or since != self._last_checkpoint
        slots = self._index.live_slots() if full else self._index.changed_slots()
        parts = []
        if not full:
            parts += [self._rows(keys, None) for keys in self._index.removed_keys()]
        # In pieces: the strings of an Arrow array have less than 2 GiB.
        for begin in range(0, max(len(slots), 1), _SNAPSHOT_PIECE_ROWS):
            piece = slots[begin : begin + _SNAPSHOT_PIECE_ROWS]
            parts.append(self._rows(self._index.keys(piece), piece))
        self.mark_saved(checkpoint)
        return full, pa.concat_tables(parts)

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._index.mark_snapshot()
        self._last_checkpoint = checkpoint

    def restore(self, parts: Sequence[pa.Table], groups: range) -> None:
        """Apply the rows of snapshots, oldest first, whose key group is in `groups`."""
        for rows in parts:
            group = np.asarray(rows.column(KEY_GROUP_COLUMN))
            mine = (group >= groups.start) & (group < groups.stop)
            removed = np.asarray(rows.column(REMOVED_COLUMN))
            gone = self._key_arrays(rows.filter(pa.array(mine & removed)))
            slots = self._index.find(gone)
            self.remove(slots[slots >= 0])
            kept = rows.filter(pa.array(mine & ~removed))
            slots = self._insert(self._key_arrays(kept)).of_rows
            self._kept.restore(slots, kept)
        # What was inserted and removed again while snapshots were applied is not open.
        live = self._index.live_slots()
        self.windows = OpenWindows()
        self.windows.add(np.asarray(self._index.keys(live)[-1]), live)

    def _columns(self, slots: Int64Array) -> list[pa.Array]:
        keys, starts, ends, results = self.results(slots)
        return [*keys, *bounds_of(self._window, starts, ends), *results]

    def _insert(self, columns: list[pa.Array]) -> Slots:
        """Return slots for keys, the last of `columns` being the window starts."""
        slots = self._index.insert(columns)
        self._kept.grow(self._index.capacity)
        self.windows.add(self._index.numbers(slots.added, len(columns) - 1), slots.added)
        return slots

    def _key_arrays(self, rows: pa.Table) -> list[pa.Array]:
        names = [*self._key_names(), WINDOW_START_COLUMN]
        return [rows.column(name).combine_chunks() for name in names]

    def _key_names(self) -> list[str]:
        """Return names for key columns that no other column of a state file has."""
        return [f"key.{name}" for name in self._key_columns]

    def _rows(self, columns: list[pa.Array], slots: Int64Array | None) -> pa.Table:
        """Return rows of a snapshot; without `slots` they say that the keys are gone."""
        *keys, starts = columns
        count = len(starts)
        groups = np.zeros(count, dtype=np.int32)
        if keys and count:
            groups = key_groups_of(keys)
        table: dict[str, pa.Array] = {
            KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
            REMOVED_COLUMN: pa.array(np.full(count, slots is None)),
            **dict(zip(self._key_names(), keys, strict=True)),
            WINDOW_START_COLUMN: starts,
        }
        table |= self._kept.no_state(count) if slots is None else self._kept.state(slots)
        return pa.table(table)
