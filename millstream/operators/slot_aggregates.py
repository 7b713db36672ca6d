"""Everything that is kept of each slot: a row of fixed fields, and stores beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.accumulator import AnyAccumulator, accumulators_of
from millstream.operators.aggregate import Aggregate
from millstream.operators.arrow_buffers import values_of
from millstream.operators.families import is_stored
from millstream.operators.kernels.key_index import clear_rows
from millstream.operators.key_index import taken_rows
from millstream.operators.slot_stores import SlotStores

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
        self._stores = SlotStores(aggregates, schema, time_column)
        self.width = sum(each.width for each in self._accumulators)
        self.fields = np.zeros((0, self.width), dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self.fields.nbytes + self._stores.size_bytes

    def grow(self, capacity: int) -> None:
        """Let slots be below `capacity`."""
        if len(self.fields) < capacity:
            fields = np.zeros((capacity, self.width), dtype=np.int64)
            fields[: len(self.fields)] = self.fields
            self.fields = fields
            self._stores.grow(capacity)

    def fold(self, slots: Int64Array, batch: pa.RecordBatch) -> None:
        """Fold rows into their slots."""
        for each in self._accumulators:
            column = None if each.argument is None else batch.column(each.argument)
            each.fold(slots, column, self.fields)
        self._stores.fold(slots, batch)

    def taken(self, slots: Int64Array) -> list[pa.Array]:
        """Return all that is known of `slots` as columns, for `merge`."""
        columns = [pa.array(each) for each in taken_rows(self.fields, slots)]
        return [*columns, *self._stores.take(slots)]

    def merge(self, slots: Int64Array, columns: Sequence[pa.Array]) -> None:
        """Merge what `taken` gave of other slots, a row each, into `slots`."""
        if self.width:
            fixed = [values_of(each) for each in columns[: self.width]]
            rows = np.ascontiguousarray(np.stack(fixed, axis=1))
            for each in self._accumulators:
                each.merge(slots, rows, self.fields)
        self._stores.add(slots, columns[self.width :])

    def move(self, sources: Int64Array, targets: Int64Array) -> None:
        """Merge what is known of `sources` into `targets`, and forget it there."""
        rows = self.fields[sources]
        clear_rows(self.fields, sources)
        for each in self._accumulators:
            each.merge(targets, rows, self.fields)
        self._stores.move(sources, targets)

    def results(self, slots: Int64Array) -> list[pa.Array]:
        """Return the result columns of `slots`."""
        stored = self._stores.results(slots)
        return self._results(taken_rows(self.fields, slots).T, stored)

    def merged_results(self, slots: Int64Array, groups: Int64Array, count: int) -> list[pa.Array]:
        """Return the result columns of `count` groups, each of which merges some of `slots`."""
        rows = self.fields[slots]
        merged = np.zeros((count, self.width), dtype=np.int64)
        for each in self._accumulators:
            each.merge(groups, rows, merged)
        return self._results(merged, self._stores.merged_results(slots, groups, count))

    def clear(self, slots: Int64Array) -> None:
        """Forget what is known of `slots`."""
        clear_rows(self.fields, slots)
        self._stores.clear(slots)

    def state(self, slots: Int64Array) -> dict[str, pa.Array]:
        """Return all that is known of `slots` as columns of a state file."""
        table = {}
        for column, name, is_float in self._state_columns():
            values = self.fields[slots, column]
            table[name] = pa.array(values.view(np.float64) if is_float else values)
        return table | self._stores.state(slots)

    def no_state(self, count: int) -> dict[str, pa.Array]:
        """Return `count` rows of the columns of a state file that say nothing."""
        none = np.zeros(count, dtype=np.int64)
        table = {
            name: pa.array(none.view(np.float64) if is_float else none)
            for _, name, is_float in self._state_columns()
        }
        return table | self._stores.no_state(count)

    def restore(self, slots: Int64Array, rows: pa.Table | Mapping[str, pa.Array]) -> None:
        """Put what a state file says into distinct `slots`, in the place of what is there."""
        for column, name, is_float in self._state_columns():
            values = np.asarray(rows[name])
            self.fields[slots, column] = values.view(np.int64) if is_float else values
        self._stores.restore(slots, rows)

    def _results(self, rows: Int64Array, stored: Mapping[str, pa.Array]) -> list[pa.Array]:
        return [
            self._accumulator_of[each.name].result(each, rows)
            if each.name in self._accumulator_of
            else stored[each.name]
            for each in self._aggregates
        ]

    def _state_columns(self) -> list[tuple[int, str, bool]]:
        """Return (field, name in a state file, whether it holds float64) of each field."""
        return [
            (each.first_field + index, f"value.{name}", index in each.float_fields)
            for each in self._accumulators
            for index, name in enumerate(each.field_names)
        ]
