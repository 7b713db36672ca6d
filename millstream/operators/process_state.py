"""What a user's function keeps of each key: values, timers, rows that wait; to disk and back.

A key is a row of a snapshot, whole, written again when anything of it changed::

    _key_group  _removed  key.sensor  state.count  timers          last_us  waiting
           812     false  "a7"                  3  [1700000600…]       …    [{…}, {…}]
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import CheckpointError
from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.key_index import KeyIndex
from millstream.operators.operator import KEY_GROUP_COLUMN, REMOVED_COLUMN
from millstream.operators.rows_by_time import RowsByTime

Int64Array = npt.NDArray[np.int64]

_VALUE_BYTES = 64
"""What an object is counted as, of which nothing better is known."""
_TIMERS, _LAST, _WAITING = "timers", "last_us", "waiting"


class KeyedState:
    """Values, timers and waiting rows of keys, by the slots of their index.

    Parameters
    ----------
    schema
        Of rows.
    key_columns
        The key.
    fields
        Names and types of the values.
    time_column
        Of rows that wait for their time; `None`: none does.
    """

    def __init__(
        self,
        schema: pa.Schema,
        key_columns: Sequence[str],
        fields: pa.Schema,
        time_column: str | None,
    ) -> None:
        self._key_names = [f"key.{name}" for name in key_columns]
        self.fields = fields
        self.index = KeyIndex([schema.field(name).type for name in key_columns])
        self.waiting = None if time_column is None else RowsByTime(schema, time_column)
        self.values: dict[int, dict[str, Any]] = {}
        self.last_us: dict[int, int] = {}
        """When a key was called last, by event time."""
        self._timers: dict[int, set[int]] = {}
        # Times of timers and the slots they are of; those that were cleared are still there.
        self._timer_queue: list[tuple[int, int]] = []
        self._last_queue: list[tuple[int, int]] = []
        self._last_checkpoint: int | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def size_bytes(self) -> int:
        """Memory held, as far as it can be known of Python's objects."""
        values = sum(map(len, self.values.values())) + sum(map(len, self._timers.values()))
        objects = _VALUE_BYTES * (values + len(self.last_us))
        waiting = 0 if self.waiting is None else self.waiting.size_bytes
        return self.index.size_bytes + waiting + objects

    def set_timers(self, slot: int, added: set[int], cleared: set[int]) -> None:
        """Set and clear timers of a slot."""
        if cleared and slot in self._timers:
            self._timers[slot] -= cleared
            if not self._timers[slot]:
                del self._timers[slot]
        if added:
            timers = self._timers.setdefault(slot, set())
            for time_us in added - timers:
                heapq.heappush(self._timer_queue, (time_us, slot))
            timers |= added

    def next_timer(self, slot: int) -> int | None:
        """Return the time of the first timer of a slot."""
        return min(self._timers[slot]) if slot in self._timers else None

    def take_timers(self, before_us: int) -> Iterator[tuple[int, int]]:
        """Give time and slot of each timer before a time, the first first; they are set no more.

        Those that are set meanwhile come, too.
        """
        while self._timer_queue and self._timer_queue[0][0] < before_us:
            time_us, slot = heapq.heappop(self._timer_queue)
            if self.take_timer(slot, time_us):
                yield time_us, slot

    def take_timer(self, slot: int, time_us: int) -> bool:
        """Take a timer off; return `False` where it is not set."""
        timers = self._timers.get(slot)
        if timers is None or time_us not in timers:
            return False
        timers.remove(time_us)
        if not timers:
            del self._timers[slot]
        return True

    def pending_timers(self) -> list[tuple[int, int]]:
        """Return time and slot of every timer that is set, in order."""
        return sorted((each, slot) for slot, times in self._timers.items() for each in times)

    def called(self, slot: int, time_us: int) -> None:
        """Note when a slot's key was called, for its time to live."""
        known = self.last_us.get(slot)
        if known is None:
            heapq.heappush(self._last_queue, (time_us, slot))
        self.last_us[slot] = time_us if known is None else max(known, time_us)

    def take_called(self, until_us: int) -> Iterator[int]:
        """Give the slots whose keys were called until then and not since; that is forgotten."""
        while self._last_queue and self._last_queue[0][0] <= until_us:
            time_us, slot = heapq.heappop(self._last_queue)
            last_us = self.last_us.get(slot)
            if last_us is None:
                continue
            if last_us > until_us:
                heapq.heappush(self._last_queue, (last_us, slot))
            elif last_us == time_us:
                del self.last_us[slot]
                yield slot
            else:
                heapq.heappush(self._last_queue, (last_us, slot))

    def drop_empty(self, slots: set[int]) -> None:
        """Forget those of some keys of which nothing is kept."""
        with_rows = set() if self.waiting is None else self.waiting.slots_among(slots)
        gone = [
            slot
            for slot in sorted(slots - with_rows)
            if slot not in self._timers and not self._has_values(slot)
        ]
        for slot in gone:
            self.values.pop(slot, None)
            self.last_us.pop(slot, None)
        if gone:
            self.index.remove(np.array(gone, dtype=np.int64))

    def _has_values(self, slot: int) -> bool:
        return any(each is not None for each in self.values.get(slot, {}).values())

    def snapshot(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        """Return whether all keys are in the table, or those that changed since a checkpoint."""
        full = since is None or since != self._last_checkpoint
        slots = self.index.live_slots() if full else self.index.changed_slots()
        gone = [] if full else self.index.removed_keys()
        parts = [self._rows(keys, None) for keys in gone]
        parts.append(self._rows(self.index.keys(slots), slots))
        self.index.mark_snapshot()
        self._last_checkpoint = checkpoint
        return full, pa.concat_tables(parts)

    def restore(self, tables: Sequence[pa.Table], key_groups: range) -> None:
        """Take the keys of snapshots that are in `key_groups`; later ones replace earlier ones.

        Raises
        ------
        CheckpointError
            Where other values were kept.
        """
        found: dict[int, tuple[int, int]] = {}
        kept: list[pa.Table] = []
        for number, table in enumerate(tables):
            self._check_fields(table)
            group = np.asarray(table.column(KEY_GROUP_COLUMN))
            inside = (group >= key_groups.start) & (group < key_groups.stop)
            rows = table.filter(pa.array(inside))
            removed = np.asarray(rows.column(REMOVED_COLUMN))
            slots = self.index.find(self._keys(rows.filter(pa.array(removed))))
            slots = np.unique(slots[slots >= 0])
            for slot in slots.tolist():
                del found[slot]
            if len(slots):
                self.index.remove(slots)
            rows = rows.filter(pa.array(~removed))
            slots = self.index.insert(self._keys(rows)).of_rows
            found |= {slot: (number, row) for row, slot in enumerate(slots.tolist())}
            kept.append(rows)
        for number, rows in enumerate(kept):
            own = [(slot, row) for slot, (at, row) in found.items() if at == number]
            if own:
                slots, places = (np.array(each, dtype=np.int64) for each in zip(*own, strict=True))
                self._load(slots, rows.take(pa.array(places)))

    def _check_fields(self, table: pa.Table) -> None:
        had = {
            each.name.removeprefix("state."): each.type
            for each in table.schema
            if each.name.startswith("state.")
        }
        have = {each.name: each.type for each in self.fields}
        if had != have:
            texts = [", ".join(f"{k}: {t}" for k, t in each.items()) for each in (had, have)]
            message = f"kept of a key was {texts[0] or 'nothing'}, and now is {texts[1]}"
            raise CheckpointError(message)

    def _load(self, slots: Int64Array, rows: pa.Table) -> None:
        for field in self.fields:
            values = rows.column(f"state.{field.name}").to_pylist()
            for slot, value in zip(slots.tolist(), values, strict=True):
                if value is not None:
                    self.values.setdefault(slot, {})[field.name] = value
        for slot, times in zip(slots.tolist(), rows.column(_TIMERS).to_pylist(), strict=True):
            self.set_timers(slot, set(times), set())
        for slot, last in zip(slots.tolist(), rows.column(_LAST).to_pylist(), strict=True):
            if last is not None:
                self.called(slot, last)
        if self.waiting is not None:
            lists = rows.column(_WAITING).combine_chunks()
            of_rows = np.repeat(slots, np.diff(lists.offsets.to_numpy()))
            columns = lists.flatten().flatten()
            batch = pa.RecordBatch.from_arrays(columns, schema=self.waiting.schema)
            self.waiting.add(batch, of_rows)

    def _keys(self, rows: pa.Table) -> list[pa.Array]:
        return [rows.column(name).combine_chunks() for name in self._key_names]

    def _rows(self, keys: list[pa.Array], slots: Int64Array | None) -> pa.Table:
        """Return keys as a snapshot holds them; without `slots` they are gone."""
        count = len(keys[0])
        groups = key_groups_of(keys) if count else np.zeros(0, dtype=np.int32)
        columns: dict[str, pa.Array] = {
            KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
            REMOVED_COLUMN: pa.array(np.full(count, slots is None)),
            **dict(zip(self._key_names, keys, strict=True)),
        }
        numbers = [-1] * count if slots is None else slots.tolist()
        for field in self.fields:
            kept = [self.values.get(slot, {}).get(field.name) for slot in numbers]
            columns[f"state.{field.name}"] = pa.array(kept, field.type)
        timers = [sorted(self._timers.get(slot, ())) for slot in numbers]
        columns[_TIMERS] = pa.array(timers, pa.list_(pa.int64()))
        columns[_LAST] = pa.array([self.last_us.get(slot) for slot in numbers], pa.int64())
        if self.waiting is not None:
            columns[_WAITING] = self.waiting.lists(np.array(numbers, dtype=np.int64))
        return pa.table(columns)
