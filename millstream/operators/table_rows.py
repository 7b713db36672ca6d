"""A table as an operator keeps it: the latest row of each key, without those that were deleted.

    rows, tombstones ─▶ key index ─▶ slot of the key ─▶ number of its latest row ─▶ the row

Rows lie in the order of arrival. Superseded ones are dropped when they are the greater part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.key_index import KeyIndex
from millstream.operators.operator import KEY_GROUP_COLUMN, REMOVED_COLUMN, StateSnapshot
from millstream.operators.row_store import RowStore

_SUPERSEDED_MIN = 1024
_SNAPSHOT_PIECE_ROWS = 1_048_576

Int64Array = npt.NDArray[np.int64]
BooleanArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Replaced:
    """What changed of n keys, each there once, by the numbers of rows that `TableRows.rows` gives.

    Parameters
    ----------
    before, existed
        The row of each key as it was, and whether there was one; -1 where not.
    after, exists
        The row of each key as it is, and whether there is one: if not, it is a tombstone.
    """

    before: Int64Array
    existed: BooleanArray
    after: Int64Array
    exists: BooleanArray

    def piece(self, begin: int, count: int) -> Replaced:
        """Return what changed of at most `count` keys, from key `begin` on."""
        part = slice(begin, begin + count)
        return Replaced(self.before[part], self.existed[part], self.after[part], self.exists[part])


class TableRows:
    """The rows of a table.

    Parameters
    ----------
    schema
        Of the rows.
    key
        Columns that tell one row from all others. A null is a value like any other here.
    """

    def __init__(self, schema: pa.Schema, key: Sequence[str]) -> None:
        self._schema = schema
        self._key = tuple(key)
        self._index = KeyIndex([schema.field(name).type for name in self._key])
        self._rows = RowStore(schema)
        self._row_of_slot: Int64Array = np.zeros(0, dtype=np.int64)
        self._last_checkpoint: int | None = None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def capacity(self) -> int:
        """All slots are below this; it grows as keys come."""
        return self._index.capacity

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._index.size_bytes + self._rows.size_bytes

    def replace(
        self, rows: pa.RecordBatch, removed: BooleanArray, order: str | None = None
    ) -> Replaced:
        """Apply rows and tombstones, of each key only the latest; return what was there before.

        What was superseded is kept until `drop_superseded` is called.

        Parameters
        ----------
        rows, removed
            As for `change`.
        order
            The column whose greatest value is the latest, nulls being the least; of equal ones,
            and where it is `None`, that is the last that came.
        """
        found = self._index.insert([rows.column(name) for name in self._key])
        slots = found.of_rows
        self._grow()
        is_new = np.zeros(self._index.capacity, dtype=np.bool_)
        is_new[found.added] = True
        # Where a key comes twice, NumPy keeps the last assignment.
        last = np.empty(self._index.capacity, dtype=np.int64)
        ascending = np.arange(len(slots))
        if order is not None:
            ascending = np.argsort(_order_of(rows.column(order)), kind="stable")
        last[slots[ascending]] = ascending
        chosen = np.flatnonzero(last[slots] == np.arange(len(slots)))
        if order is not None:
            numbers = np.where(is_new[slots[chosen]], -1, self._row_of_slot[slots[chosen]])
            (kept,) = self._rows.take([order], numbers)
            chosen = chosen[_order_of(rows.column(order))[chosen] >= _order_of(kept)]
        slots, rows, removed = slots[chosen], rows.take(pa.array(chosen)), removed[chosen]
        existed = ~is_new[slots]
        numbers = np.where(existed, self._row_of_slot[slots], -1)
        after = np.arange(len(self._rows), len(self._rows) + rows.num_rows)
        self._row_of_slot[slots] = after
        self._rows.append(rows)
        if removed.any():
            self._index.remove(slots[removed])
        return Replaced(numbers, existed, after, ~removed)

    def change(self, rows: pa.RecordBatch, removed: BooleanArray) -> Int64Array:
        """Apply rows and, where `removed`, tombstones; the last one of a key is what holds.

        Returns
        -------
        Array
            The slot of each row's key, int64, shape (n,). That of a key which is gone now may be
            another key's after the next change.
        """
        slots = self._index.insert([rows.column(name) for name in self._key]).of_rows
        self._grow()
        numbers = np.arange(len(self._rows), len(self._rows) + rows.num_rows)
        # Where a key comes twice, NumPy keeps the last assignment.
        self._row_of_slot[slots] = numbers
        self._rows.append(rows)
        if removed.any():
            last = self._row_of_slot[slots] == numbers
            self._index.remove(slots[last & removed])
        self.drop_superseded()
        return slots

    def find(self, columns: Sequence[pa.Array]) -> Int64Array:
        """Return the slot of each key, -1 where there is no row; int64, shape (n,)."""
        return self._index.find(columns)

    def take(self, columns: list[str], slots: Int64Array) -> list[pa.Array]:
        """Return `columns` of the rows of live `slots`; nulls where the slot is -1."""
        if not len(self._row_of_slot):
            return self._rows.take(columns, slots)
        numbers = self._row_of_slot[slots]
        missing = slots < 0
        if missing.any():
            numbers[missing] = -1
        return self._rows.take(columns, numbers)

    def rows(self, columns: list[str], numbers: Int64Array) -> list[pa.Array]:
        """Return `columns` of rows by the numbers that `replace` gave."""
        return self._rows.take(columns, numbers)

    def drop_superseded(self) -> None:
        """Forget rows that newer ones replaced, where they are the greater part."""
        if len(self._rows) > _SUPERSEDED_MIN and len(self._rows) > 2 * len(self._index):
            live = self._index.live_slots()
            self._rows.keep(self._row_of_slot[live])
            self._row_of_slot[live] = np.arange(len(live))

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot:
        """Return the latest rows, or what changed since checkpoint `since`."""
        full = since is None or since != self._last_checkpoint
        slots = self._index.live_slots() if full else self._index.changed_slots()
        numbers = np.sort(self._row_of_slot[slots])
        parts = []
        if not full:
            parts += [self._removed_rows(keys) for keys in self._index.removed_keys()]
        # In pieces: the strings of an Arrow array have less than 2 GiB.
        for begin in range(0, max(len(numbers), 1), _SNAPSHOT_PIECE_ROWS):
            piece = numbers[begin : begin + _SNAPSHOT_PIECE_ROWS]
            arrays = self._rows.take(self._schema.names, piece)
            parts.append(self._state_rows(arrays, removed=False))
        self.mark_saved(checkpoint)
        return StateSnapshot(full, pa.concat_tables(parts))

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._index.mark_snapshot()
        self._last_checkpoint = checkpoint

    def restored(
        self, snapshots: Sequence[StateSnapshot], groups: range
    ) -> list[tuple[pa.RecordBatch, BooleanArray]]:
        """Return what `snapshots` hold of key groups as changes that make a table of none."""
        names = [f"row.{name}" for name in self._schema.names]
        changes = []
        for snapshot in snapshots:
            assert snapshot.version == 1, f"state of version {snapshot.version}"
            for batch in [] if snapshot.rows is None else snapshot.rows.to_batches():
                group = np.asarray(batch.column(KEY_GROUP_COLUMN))
                mine = (group >= groups.start) & (group < groups.stop)
                if not mine.all():
                    batch = batch.filter(pa.array(mine))  # noqa: PLW2901  # a part of it
                removed = np.asarray(batch.column(REMOVED_COLUMN).cast(pa.int8())) == 1
                arrays = batch.select(names).columns
                rows = pa.RecordBatch.from_arrays(arrays, names=self._schema.names)
                changes.append((rows, removed))
        return changes

    def _grow(self) -> None:
        if len(self._row_of_slot) < self._index.capacity:
            more = np.zeros(self._index.capacity - len(self._row_of_slot), dtype=np.int64)
            self._row_of_slot = np.concatenate([self._row_of_slot, more])

    def _state_rows(self, arrays: list[pa.Array], *, removed: bool) -> pa.Table:
        """Return rows as a snapshot holds them."""
        names = self._schema.names
        keys = [arrays[names.index(name)] for name in self._key]
        count = len(keys[0])
        groups = key_groups_of(keys) if count else np.zeros(0, dtype=np.int32)
        columns: dict[str, pa.Array] = {
            KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
            REMOVED_COLUMN: pa.array(np.full(count, removed)),
        }
        for name, array in zip(names, arrays, strict=True):
            columns[f"row.{name}"] = array
        return pa.table(columns)

    def _removed_rows(self, keys: list[pa.Array]) -> pa.Table:
        """Return keys that are gone as a snapshot holds them: nulls beside the keys."""
        of_key = dict(zip(self._key, keys, strict=True))
        arrays = [
            of_key[field.name] if field.name in of_key else pa.nulls(len(keys[0]), field.type)
            for field in self._schema
        ]
        return self._state_rows(arrays, removed=True)


def _order_of(times: pa.Array) -> Int64Array:
    """Return timestamps as int64, nulls as the least."""
    return np.asarray(pc.fill_null(times.view(pa.int64()), np.iinfo(np.int64).min))
