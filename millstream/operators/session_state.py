"""The open sessions of every key: an index of keys, a chain of sessions a key, fields a session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import new_values, values_of
from millstream.operators.kernels import sessions as kernels
from millstream.operators.key_index import KeyIndex
from millstream.operators.open_windows import OpenWindows
from millstream.operators.operator import KEY_GROUP_COLUMN, REMOVED_COLUMN
from millstream.operators.slot_aggregates import SlotAggregates
from millstream.operators.window_assigner import TIME_TYPE
from millstream.operators.window_change import Changes

Int64Array = npt.NDArray[np.int64]

_SESSIONS_FIRST = 256
_SNAPSHOT_PIECE_ROWS = 1_048_576
_START, _END = "window_start", "window_end"


class SessionState:
    """State of an aggregate by session, with the keys whose sessions changed.

    Parameters
    ----------
    schema
        Of the operator's input.
    key_columns
        Grouping columns; none: one group of all rows.
    aggregates
        What is kept for each session.
    gap_us
        How long the session of one row is.
    time_column
        Event time, for what depends on the order of rows.
    """

    def __init__(
        self,
        schema: pa.Schema,
        key_columns: Sequence[str],
        aggregates: Sequence[Aggregate],
        gap_us: int,
        time_column: str | None = None,
    ) -> None:
        self._gap_us = gap_us
        self._key_columns = tuple(key_columns)
        # Without a key all rows have the same one.
        types = [schema.field(name).type for name in key_columns] or [pa.int64()]
        self._index = KeyIndex(types)
        self._kept = SlotAggregates(aggregates, schema, time_column)
        self._kept.grow(_SESSIONS_FIRST)
        self._head = np.full(self._index.capacity, kernels.NONE, dtype=np.int64)
        self._sessions = np.zeros((6, _SESSIONS_FIRST), dtype=np.int64)
        self._meta = np.zeros(4, dtype=np.int64)
        # By the end that each had when it was last looked at; it may have moved on since.
        self._queue = OpenWindows()
        self._live = 0
        self._last_checkpoint: int | None = None

    def __len__(self) -> int:
        return self._live

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        own = self._head.nbytes + self._sessions.nbytes
        return self._index.size_bytes + own + self._kept.size_bytes + self._queue.size_bytes

    @property
    def due_us(self) -> int | None:
        """The least end of a session, or less; `None` where none is open."""
        return self._queue.earliest_us

    def fold(self, batch: pa.RecordBatch, starts: Int64Array) -> None:
        """Fold rows, each at first a session of its own, into the sessions of their keys."""
        self._kept.fold(self._put(self._keys_of(batch), starts, starts + self._gap_us), batch)

    def merge(self, batch: pa.RecordBatch, starts: Int64Array) -> None:
        """Merge combined rows, which `take_all` of another state gave, into the sessions."""
        ends = values_of(batch.column(_END))
        sessions = self._put(self._keys_of(batch), starts, ends)
        self._kept.merge(sessions, batch.columns[len(self._key_columns) + 2 :])

    def fold_changes(self, batch: pa.RecordBatch, starts: Int64Array, partial: bool) -> Changes:
        """Fold rows, or merge combined ones, and return what results were and what they are.

        Of each key of the batch all sessions are returned, as any may have become part of another.
        """
        keys = self._keys_of(batch)
        slots = self._index.find(keys)
        old = self._sessions_of(np.unique(slots[slots >= 0]))
        before = self._columns(old)
        if partial:
            self.merge(batch, starts)
        else:
            self.fold(batch, starts)
        touched = self._sessions_of(np.unique(self._index.find(keys)))
        return Changes(old, before, touched, self._columns(touched))

    def take_all(self) -> list[pa.Array]:
        """Return keys, starts, ends and fields of all sessions, and forget them."""
        sessions = self.over(None)
        bounds = [pa.array(each).view(TIME_TYPE) for each in self._bounds(sessions)]
        columns = [*self.keys(sessions), *bounds, *self._kept.taken(sessions)]
        self.remove(sessions)
        return columns

    def over(self, until_us: int | None) -> Int64Array:
        """Return the sessions that end by `until_us` (`None`: all), the earliest first.

        They are no longer waited for: the caller gives them out and removes them.
        """
        waiting = self._queue.take_until(until_us)
        _, ends, _, _, into, _ = self._sessions
        gone = into[waiting] != kernels.NONE
        self._free_up(waiting[gone])
        over = waiting[~gone]
        if until_us is not None:
            later = ends[over] > until_us
            self._queue.add(ends[over[later]], over[later])
            over = over[~later]
        return over[np.argsort(ends[over], kind="stable")]

    def keys(self, sessions: Int64Array) -> list[pa.Array]:
        """Return the key columns of sessions."""
        return self._index.keys(self._sessions[3, sessions]) if self._key_columns else []

    def results(
        self, sessions: Int64Array
    ) -> tuple[list[pa.Array], Int64Array, Int64Array, list[pa.Array]]:
        """Return key columns, starts, ends and result columns of sessions."""
        results = self._kept.results(sessions)
        return self.keys(sessions), *self._bounds(sessions), results

    def remove(self, sessions: Int64Array) -> None:
        """Forget sessions that `over` gave, and keys that have no other."""
        _, _, before, owner, _, _ = self._sessions
        emptied = new_values(len(sessions), np.int64)
        count = kernels.unlink(sessions, self._head, before, owner, emptied)
        self._index.mark_changed(owner[sessions])
        self._index.remove(emptied[:count])
        self._live -= len(sessions)
        self._free_up(sessions)

    def snapshot(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        """Return whether it is the full state, and the rows; see `StateSnapshot`.

        Of a key whose sessions changed since `since` all sessions are there.
        """
        full = since is None or since != self._last_checkpoint
        slots = self._index.live_slots() if full else self._index.changed_slots()
        sessions = self._sessions_of(slots)
        parts = [] if full else [self._removed_rows(keys) for keys in self._index.removed_keys()]
        # In pieces: the strings of an Arrow array have less than 2 GiB.
        begins = range(0, max(len(sessions), 1), _SNAPSHOT_PIECE_ROWS)
        parts += [self._rows(sessions[begin : begin + _SNAPSHOT_PIECE_ROWS]) for begin in begins]
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
            mine = rows.filter(pa.array((group >= groups.start) & (group < groups.stop)))
            # What is there of a key takes the place of all that was known of it.
            slots = self._index.find(self._key_arrays(mine))
            known = self._sessions_of(np.unique(slots[slots >= 0]))
            self.remove(known)
            kept = mine.filter(pa.array(~np.asarray(mine.column(REMOVED_COLUMN))))
            starts, ends = (np.array(kept.column(name)) for name in (_START, _END))
            sessions = self._put(self._key_arrays(kept), starts, ends)
            self._kept.restore(sessions, kept)
            self._queue = OpenWindows()
            sessions = self._sessions_of(self._index.live_slots())
            self._queue.add(self._sessions[1, sessions], sessions)

    def _put(self, keys: list[pa.Array], starts: Int64Array, ends: Int64Array) -> Int64Array:
        """Return the session of each row, after all of them were put in."""
        slots = self._index.insert(keys)
        if len(self._head) < self._index.capacity:
            head = np.full(self._index.capacity, kernels.NONE, dtype=np.int64)
            head[: len(self._head)] = self._head
            self._head = head
        self._head[slots.added] = kernels.NONE
        count = len(starts)
        sessions, added = new_values(count, np.int64), new_values(count, np.int64)
        # A row merges what was there, or what rows before it added.
        merged = new_values(count + self._live, np.int64)
        self._meta[kernels.META_ADDED] = self._meta[kernels.META_MERGED] = 0
        done = 0
        while True:
            done = kernels.put_rows(
                slots.of_rows, starts, ends, done, self._head, *self._sessions, self._meta,
                sessions, added, merged,
            )  # fmt: skip
            if done == count:
                break
            self._grow()
        added = added[: self._meta[kernels.META_ADDED]]
        merged = merged[: self._meta[kernels.META_MERGED]]
        self._live += len(added) - len(merged)
        into = self._sessions[4]
        if len(merged):
            kernels.follow(sessions, into)
            self._merge_fields(merged)
            gone = into[added] != kernels.NONE
            self._free_up(added[gone])  # nobody waits for them yet
            added = added[~gone]
        self._queue.add(self._sessions[1, added], added)
        return sessions

    def _merge_fields(self, merged: Int64Array) -> None:
        """Move the fields of sessions into those that they became part of."""
        target = merged.copy()
        kernels.follow(target, self._sessions[4])
        self._kept.move(merged, target)

    def _free_up(self, sessions: Int64Array) -> None:
        """Let sessions that nothing names any more be used again."""
        self._kept.clear(sessions)
        free, count = self._sessions[5], int(self._meta[kernels.META_FREE])
        free[count : count + len(sessions)] = sessions
        self._meta[kernels.META_FREE] = count + len(sessions)

    def _grow(self) -> None:
        self._sessions = np.concatenate([self._sessions, np.zeros_like(self._sessions)], axis=1)
        self._kept.grow(self._sessions.shape[1])

    def _columns(self, sessions: Int64Array) -> list[pa.Array]:
        keys, starts, ends, results = self.results(sessions)
        return [*keys, *(pa.array(each).view(TIME_TYPE) for each in (starts, ends)), *results]

    def _bounds(self, sessions: Int64Array) -> tuple[Int64Array, Int64Array]:
        return self._sessions[0, sessions], self._sessions[1, sessions]

    def _sessions_of(self, slots: Int64Array) -> Int64Array:
        """Return all sessions of keys."""
        sessions = new_values(self._live, np.int64)
        count = kernels.list_sessions(slots, self._head, self._sessions[2], sessions)
        return sessions[:count]

    def _keys_of(self, batch: pa.RecordBatch) -> list[pa.Array]:
        if not self._key_columns:
            return [pa.array(np.zeros(batch.num_rows, dtype=np.int64))]
        return [batch.column(name) for name in self._key_columns]

    def _key_arrays(self, rows: pa.Table) -> list[pa.Array]:
        if not self._key_columns:
            return [pa.array(np.zeros(rows.num_rows, dtype=np.int64))]
        return [rows.column(f"key.{name}").combine_chunks() for name in self._key_columns]

    def _rows(self, sessions: Int64Array) -> pa.Table:
        """Return sessions as rows of a snapshot."""
        starts, ends = self._bounds(sessions)
        table = self._head_columns(self.keys(sessions), starts, ends, removed=False)
        return pa.table(table | self._kept.state(sessions))

    def _removed_rows(self, keys: list[pa.Array]) -> pa.Table:
        """Return keys that are gone as rows of a snapshot."""
        none = np.zeros(len(keys[0]), dtype=np.int64)
        keys = keys if self._key_columns else []
        table = self._head_columns(keys, none, none, removed=True)
        return pa.table(table | self._kept.no_state(len(none)))

    def _head_columns(
        self, keys: list[pa.Array], starts: Int64Array, ends: Int64Array, *, removed: bool
    ) -> dict[str, pa.Array]:
        groups = key_groups_of(keys) if keys and len(starts) else np.zeros(len(starts), np.int32)
        names = [f"key.{name}" for name in self._key_columns]
        return {
            KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
            REMOVED_COLUMN: pa.array(np.full(len(starts), removed)),
            **dict(zip(names, keys, strict=True)),
            _START: pa.array(starts),
            _END: pa.array(ends),
        }
