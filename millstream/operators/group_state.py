"""What a running aggregate knows of every key: a key index, a row of fields a slot, and stores.

batch ─▶ slots ─▶ those it touches, fields before ─▶ folded ─▶ fields after ─▶ what changed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.accumulator import AnyAccumulator, SlotFields, accumulators_of
from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import new_values, values_of
from millstream.operators.families import is_stored
from millstream.operators.kernels import group_aggregate as kernels
from millstream.operators.kernels.key_index import clear_rows
from millstream.operators.key_index import KeyIndex, taken_rows
from millstream.operators.operator import KEY_GROUP_COLUMN, REMOVED_COLUMN
from millstream.operators.retraction import AnyRetracting, retracting_accumulators_of
from millstream.operators.slot_stores import SlotStores
from millstream.operators.weights import weights_of

Int64Array = npt.NDArray[np.int64]
BooleanArray = npt.NDArray[np.bool_]

_LISTS = ("values", "counts")
_SNAPSHOT_PIECE_ROWS = 1_048_576


@dataclass(frozen=True, slots=True)
class Touched:
    """The keys of a batch, each once, and what was and is known of them.

    Parameters
    ----------
    slots
        int64, shape (n,), in the order in which the keys came.
    existed, exists
        Whether there were rows of the key before the batch, and are after it.
    fields
        int64, shape (2 n, fields): of slot i before in row 2 i, after in row 2 i + 1.
    stored
        Results of what has a store, by name, in the same order.
    """

    slots: Int64Array
    existed: BooleanArray
    exists: BooleanArray
    fields: Int64Array
    stored: Mapping[str, pa.Array]

    def piece(self, begin: int, count: int) -> Touched:
        """Return the keys from `begin` on, at most `count` of them."""
        end = begin + count
        return Touched(
            self.slots[begin:end],
            self.existed[begin:end],
            self.exists[begin:end],
            self.fields[2 * begin : 2 * end],
            {name: each.slice(2 * begin, 2 * count) for name, each in self.stored.items()},
        )


class GroupState:
    """State of a running aggregate, with what changed since the last snapshot.

    Parameters
    ----------
    schema
        Of the operator's input.
    key_columns
        Grouping columns; none: one group of all rows.
    aggregates
        What is kept for each key.
    takes_changes
        Whether rows come with weights, and may take earlier ones back.
    time_column
        The time of rows, for what depends on their order; `None`: there is none.
    newest_of
        A time column, of facts, whose greatest value is kept, too.
    """

    def __init__(
        self,
        schema: pa.Schema,
        key_columns: Sequence[str],
        aggregates: Sequence[Aggregate],
        *,
        takes_changes: bool,
        time_column: str | None = None,
        newest_of: str | None = None,
    ) -> None:
        self._key_columns = tuple(key_columns)
        self.key_types = [schema.field(name).type for name in key_columns]
        # Without a key all rows have the same one.
        self._index = KeyIndex(self.key_types or [pa.int64()])
        self._aggregates = tuple(aggregates)
        self._newest_field = 0
        own: Sequence[SlotFields]
        self._folding: list[AnyAccumulator] = []
        self._retracting: list[AnyRetracting] = []
        fixed = [each for each in aggregates if not is_stored(each, schema)]
        if takes_changes:
            self._retracting, own = retracting_accumulators_of(fixed, schema)
        else:
            hidden = [] if newest_of is None else [Aggregate("", "max", newest_of)]
            found = accumulators_of([*fixed, *hidden], schema)
            self._folding, own = found
            if newest_of is not None:
                newest = own[-1]
                names = newest.field_names
                self._newest_field = newest.first_field + names.index(f"{newest_of}.max")
        self._accumulator_of = dict(zip((each.name for each in fixed), own, strict=False))
        self._stores = SlotStores(aggregates, schema, time_column, takes_changes=takes_changes)
        self._accumulators: Sequence[SlotFields] = self._retracting or self._folding
        self._takes_changes = takes_changes
        self.width = sum(each.width for each in self._accumulators)
        self._fields = np.zeros((self._index.capacity, self.width), dtype=np.int64)
        self._marks = np.zeros(self._index.capacity, dtype=np.uint8)
        self._grow()
        self._last_checkpoint: int | None = None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        values = (each.values.size_bytes for each in self._retracting if each.values is not None)
        kept = self._index.size_bytes + self._fields.nbytes + self._marks.nbytes
        return kept + self._stores.size_bytes + sum(values)

    def fold(self, batch: pa.RecordBatch) -> Touched:
        """Fold rows into their keys' slots; return what they changed."""
        return self.fold_at(batch, *self.insert(batch))

    def insert(self, batch: pa.RecordBatch) -> tuple[Int64Array, Int64Array]:
        """Return the slots of the rows' keys, and of those that are new."""
        return self._insert(self._keys_of(batch))

    def fold_at(self, batch: pa.RecordBatch, slots: Int64Array, new: Int64Array) -> Touched:
        """Fold rows into `slots`, of which `new` had no rows; return what they changed."""
        touched, existed, fields = self._touch(slots, new)
        before = self._stores.results(touched)
        if self._takes_changes:
            weights = weights_of(batch)
            for each in self._retracting:
                column = None if each.argument is None else batch.column(each.argument)
                each.fold_weighted(slots, weights, column, self._fields)
                each.write_extremes(touched, self._fields)
        else:
            for other in self._folding:
                column = None if other.argument is None else batch.column(other.argument)
                other.fold(slots, column, self._fields)
        self._stores.fold(slots, batch)
        return self._after(touched, existed, fields, before)

    def merge(self, batch: pa.RecordBatch) -> Touched:
        """Merge combined rows, which `take_all` of another state gave, into their slots."""
        slots, added = self._insert(self._keys_of(batch))
        touched, existed, fields = self._touch(slots, added)
        before = self._stores.results(touched)
        first = len(self._key_columns)
        columns = [values_of(each) for each in batch.columns[first : first + self.width]]
        if columns:
            rows = np.ascontiguousarray(np.stack(columns, axis=1))
            for each in self._accumulators:
                each.merge(slots, rows, self._fields)
        self._stores.add(slots, batch.columns[first + self.width :])
        return self._after(touched, existed, fields, before)

    def expire(self, slots: Int64Array) -> Touched:
        """Forget the rows of distinct `slots`, which stay; return what that changed."""
        fields = np.zeros((2 * len(slots), self.width), dtype=np.int64)
        fields[0::2] = self._fields[slots]
        before = self._stores.results(slots)
        clear_rows(self._fields, slots)
        self._stores.clear(slots)
        existed = np.ones(len(slots), dtype=np.bool_)
        stored = _side_by_side(before, self._stores.results(slots), len(slots))
        return Touched(slots, existed, ~existed, fields, stored)

    def newest(self) -> tuple[Int64Array, Int64Array]:
        """Return all slots, and the greatest time of each."""
        slots = self._index.live_slots()
        return slots, self._fields[slots, self._newest_field]

    def take_all(self) -> tuple[list[pa.Array], list[pa.Array]]:
        """Return the keys, and what is kept of all slots, as columns; forget them."""
        slots = self._index.live_slots()
        keys = self.keys(slots)
        fields = [pa.array(each) for each in taken_rows(self._fields, slots)]
        fields += self._stores.take(slots)
        self.remove(slots)
        return keys, fields

    def keys(self, slots: Int64Array) -> list[pa.Array]:
        """Return the key columns of `slots`, which may be there more than once."""
        return self._index.keys(slots) if self._key_columns else []

    def results(self, touched: Touched) -> list[pa.Array]:
        """Return the result columns of keys before and after, in the order of their fields."""
        return [
            self._accumulator_of[each.name].result(each, touched.fields)
            if each.name in self._accumulator_of
            else touched.stored[each.name]
            for each in self._aggregates
        ]

    def remove(self, slots: Int64Array) -> None:
        """Forget `slots`."""
        self._index.remove(slots)
        clear_rows(self._fields, slots)
        self._stores.clear(slots)
        for each in self._retracting:
            if each.values is not None:
                each.values.clear(slots)

    def snapshot(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        """Return whether it is the full state, and the rows; see `StateSnapshot`.

        A change is known only since the last snapshot; asked for another, all is returned.
        """
        full = since is None or since != self._last_checkpoint
        slots = self._index.live_slots() if full else self._index.changed_slots()
        parts = []
        if not full:
            parts += [self._removed_rows(keys) for keys in self._index.removed_keys()]
        # In pieces: the strings of an Arrow array have less than 2 GiB.
        for begin in range(0, max(len(slots), 1), _SNAPSHOT_PIECE_ROWS):
            parts.append(self._rows(slots[begin : begin + _SNAPSHOT_PIECE_ROWS]))
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
            slots = self._index.find(self._key_arrays(rows.filter(pa.array(mine & removed))))
            self.remove(slots[slots >= 0])
            kept = rows.filter(pa.array(mine & ~removed))
            slots, _ = self._insert(self._key_arrays(kept))
            for column, name, is_float in self._state_columns():
                values = np.asarray(kept.column(name))
                self._fields[slots, column] = values.view(np.int64) if is_float else values
            for each in self._retracting:
                if each.values is not None and len(slots):
                    lists = [kept.column(f"{name}.{each.argument}") for name in _LISTS]
                    each.values.clear(slots)
                    each.values.add_lists(slots, *(one.combine_chunks() for one in lists))
            self._stores.restore(slots, kept)

    def _keys_of(self, batch: pa.RecordBatch) -> list[pa.Array]:
        if not self._key_columns:
            return [pa.array(np.zeros(batch.num_rows, dtype=np.int64))]
        return [batch.column(name) for name in self._key_columns]

    def _insert(self, columns: list[pa.Array]) -> tuple[Int64Array, Int64Array]:
        """Return the slots of keys, and of those that are new."""
        slots = self._index.insert(columns)
        self._grow()
        return slots.of_rows, slots.added

    def _grow(self) -> None:
        capacity = self._index.capacity
        if len(self._fields) < capacity:
            fields = np.zeros((capacity, self.width), dtype=np.int64)
            fields[: len(self._fields)] = self._fields
            self._fields = fields
            self._marks = np.zeros(capacity, dtype=np.uint8)
        self._stores.grow(capacity)
        for each in self._retracting:
            if each.values is not None:
                each.values.grow(capacity)

    def _touch(
        self, slots: Int64Array, added: Int64Array
    ) -> tuple[Int64Array, BooleanArray, Int64Array]:
        """Return the slots of a batch, each once, whether each is old, and room for fields."""
        self._marks[added] = kernels.NEW
        count = min(len(slots), len(self._index))
        touched = new_values(count, np.int64)
        existed = new_values(count, np.bool_)
        fields = new_values(2 * count * self.width, np.int64).reshape(2 * count, self.width)
        found = kernels.touch_slots(slots, self._marks, self._fields, touched, existed, fields)
        return touched[:found], existed[:found], fields[: 2 * found]

    def _after(
        self,
        touched: Int64Array,
        existed: BooleanArray,
        fields: Int64Array,
        before: Mapping[str, pa.Array],
    ) -> Touched:
        kernels.write_after(touched, self._marks, self._fields, fields)
        stored = _side_by_side(before, self._stores.results(touched), len(touched))
        if not self._takes_changes:
            return Touched(touched, existed, np.ones(len(touched), dtype=np.bool_), fields, stored)
        # The first accumulator counts rows.
        return Touched(touched, fields[0::2, 0] > 0, fields[1::2, 0] > 0, fields, stored)

    def _state_columns(self) -> list[tuple[int, str, bool]]:
        """Return (field, name in a state file, whether it holds float64) of each field."""
        return [
            (each.first_field + index, f"value.{name}", index in each.float_fields)
            for each in self._accumulators
            for index, name in enumerate(each.field_names)
        ]

    def _key_arrays(self, rows: pa.Table) -> list[pa.Array]:
        if not self._key_columns:
            return [pa.array(np.zeros(rows.num_rows, dtype=np.int64))]
        return [rows.column(name).combine_chunks() for name in self._key_names()]

    def _key_names(self) -> list[str]:
        """Return names for key columns that no other column of a state file has."""
        return [f"key.{name}" for name in self._key_columns]

    def _rows(self, slots: Int64Array) -> pa.Table:
        """Return `slots` as rows of a snapshot."""
        table = self._head(self.keys(slots), len(slots), removed=False)
        for column, name, is_float in self._state_columns():
            values = self._fields[slots, column]
            table[name] = pa.array(values.view(np.float64) if is_float else values)
        for each in self._retracting:
            if each.values is not None:
                for name, lists in zip(_LISTS, each.values.lists(slots), strict=True):
                    table[f"{name}.{each.argument}"] = lists
        return pa.table(table | self._stores.state(slots))

    def _removed_rows(self, keys: list[pa.Array]) -> pa.Table:
        """Return keys that are gone as rows of a snapshot."""
        count = len(keys[0])
        table = self._head(keys if self._key_columns else [], count, removed=True)
        for _, name, is_float in self._state_columns():
            table[name] = pa.array(np.zeros(count), pa.float64() if is_float else pa.int64())
        for each in self._retracting:
            if each.values is not None:
                for name in _LISTS:
                    table[f"{name}.{each.argument}"] = pa.nulls(count, pa.large_list(pa.int64()))
        return pa.table(table | self._stores.no_state(count))

    def _head(self, keys: list[pa.Array], count: int, *, removed: bool) -> dict[str, pa.Array]:
        groups = key_groups_of(keys) if keys and count else np.zeros(count, dtype=np.int32)
        return {
            KEY_GROUP_COLUMN: pa.array(groups, pa.int32()),
            REMOVED_COLUMN: pa.array(np.full(count, removed)),
            **dict(zip(self._key_names(), keys, strict=True)),
        }


def _side_by_side(
    before: Mapping[str, pa.Array], after: Mapping[str, pa.Array], count: int
) -> dict[str, pa.Array]:
    """Return columns of 2 n values: that of slot i before in row 2 i, after in row 2 i + 1."""
    if not before:
        return {}
    order = pa.array(np.arange(2 * count).reshape(2, count).T.ravel())
    return {name: pa.concat_arrays([before[name], after[name]]).take(order) for name in before}
