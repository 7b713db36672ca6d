"""Everything that is kept of each slot: a row of fixed fields, and stores beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.accumulator import AnyAccumulator, accumulators_of
from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import values_of
from millstream.operators.families import is_stored, store_key, store_of
from millstream.operators.kernels.key_index import clear_rows
from millstream.operators.key_index import taken_rows
from millstream.operators.stores import Store

Int64Array = npt.NDArray[np.int64]


class SlotAggregates:
    """What aggregates know, by slot.

    Parameters
    ----------
    aggregates
        The result columns.
    schema
        Of the input.
    time_column
        Event time, for what depends on the order of rows; `None`: there is none.
    """

    def __init__(
        self, aggregates: Sequence[Aggregate], schema: pa.Schema, time_column: str | None
    ) -> None:
        self._aggregates = tuple(aggregates)
        fixed = [each for each in aggregates if not is_stored(each, schema)]
        self._accumulators: Sequence[AnyAccumulator]
        self._accumulators, own = accumulators_of(fixed, schema)
        self._accumulator_of = dict(zip((each.name for each in fixed), own, strict=True))
        self._stores: dict[tuple[object, ...], Store] = {}
        self._store_of: dict[str, Store] = {}
        for each in aggregates:
            if is_stored(each, schema):
                key = store_key(each)
                if key not in self._stores:
                    self._stores[key] = store_of(each, schema, time_column)
                self._store_of[each.name] = self._stores[key]
        self.width = sum(each.width for each in self._accumulators)
        self.fields = np.zeros((0, self.width), dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self.fields.nbytes + sum(each.size_bytes for each in self._stores.values())

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        if len(self.fields) < capacity:
            fields = np.zeros((capacity, self.width), dtype=np.int64)
            fields[: len(self.fields)] = self.fields
            self.fields = fields
            for each in self._stores.values():
                each.grow(capacity)

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        for each in self._accumulators:
            column = None if each.argument is None else batch.column(each.argument)
            each.fold(slots, column, self.fields)
        for store in self._stores.values():
            store.fold(slots, batch)

    def taken(self, slots: Int64Array) -> list[pa.Array]:
        """Return all that is known of `slots` as columns, for `merge`."""
        columns = [pa.array(each) for each in taken_rows(self.fields, slots)]
        for store in self._stores.values():
            columns += store.take(slots)
        return columns

    def merge(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `taken` gave of other slots, a row each, into `slots`."""
        if self.width:
            fixed = [values_of(each) for each in columns[: self.width]]
            rows = np.ascontiguousarray(np.stack(fixed, axis=1))
            for each in self._accumulators:
                each.merge(slots, rows, self.fields)
        rest = list(columns[self.width :])
        for store in self._stores.values():
            store.add(slots, rest[: len(store.fields)])
            rest = rest[len(store.fields) :]

    def move(self, sources: Int64Array, targets: Int64Array) -> None:
        """Merge what is known of `sources` into `targets`, and forget it there."""
        rows = self.fields[sources]
        clear_rows(self.fields, sources)
        for each in self._accumulators:
            each.merge(targets, rows, self.fields)
        for store in self._stores.values():
            columns = store.take(sources)
            store.clear(sources)
            store.add(targets, columns)

    def results(self, slots: Int64Array) -> list[pa.Array]:
        """Return the result columns of `slots`."""
        rows = taken_rows(self.fields, slots).T
        return [
            self._accumulator_of[each.name].result(each, rows)
            if each.name in self._accumulator_of
            else self._store_of[each.name].result(each, slots)
            for each in self._aggregates
        ]

    def merged_results(self, slots: Int64Array, groups: Int64Array, count: int) -> list[pa.Array]:
        """Return the result columns of `count` groups, each of which merges some of `slots`."""
        rows = self.fields[slots]
        merged = np.zeros((count, self.width), dtype=np.int64)
        for each in self._accumulators:
            each.merge(groups, rows, merged)
        stores: dict[int, Store] = {}
        for store in self._stores.values():
            own = stores[id(store)] = store.empty()
            own.grow(count)
            own.add(groups, store.take(slots))
        every = np.arange(count)
        return [
            self._accumulator_of[each.name].result(each, merged)
            if each.name in self._accumulator_of
            else stores[id(self._store_of[each.name])].result(each, every)
            for each in self._aggregates
        ]

    def clear(self, slots: Int64Array) -> None:
        """Forget what is known of `slots`."""
        clear_rows(self.fields, slots)
        for store in self._stores.values():
            store.clear(slots)

    def state(self, slots: Int64Array) -> dict[str, pa.Array]:
        """Return all that is known of `slots` as columns of a state file."""
        table = {}
        for column, name, is_float in self._state_columns():
            values = self.fields[slots, column]
            table[name] = pa.array(values.view(np.float64) if is_float else values)
        for store in self._stores.values():
            for field, taken in zip(store.fields, store.take(slots), strict=True):
                table[f"value.{field.name}"] = taken
        return table

    def no_state(self, count: int) -> dict[str, pa.Array]:
        """Return `count` rows of the columns of a state file that say nothing."""
        none = np.zeros(count, dtype=np.int64)
        table = {
            name: pa.array(none.view(np.float64) if is_float else none)
            for _, name, is_float in self._state_columns()
        }
        for store in self._stores.values():
            for field in store.fields:
                table[f"value.{field.name}"] = pa.nulls(count, field.type)
        return table

    def restore(self, slots: Int64Array, rows: pa.Table | Mapping[str, pa.Array]) -> None:
        """Put what a state file says into distinct `slots`, in the place of what is there."""
        for column, name, is_float in self._state_columns():
            values = np.asarray(rows[name])
            self.fields[slots, column] = values.view(np.int64) if is_float else values
        for store in self._stores.values():
            store.clear(slots)
            columns = [rows[f"value.{field.name}"] for field in store.fields]
            store.add(slots, [each.combine_chunks() for each in columns])

    def _state_columns(self) -> list[tuple[int, str, bool]]:
        """Return (field, name in a state file, whether it holds float64) of each field."""
        return [
            (each.first_field + index, f"value.{name}", index in each.float_fields)
            for each in self._accumulators
            for index, name in enumerate(each.field_names)
        ]
