"""Running aggregates by key that need more than fixed fields: sets, lists, sketches, best rows.

It is one window that never ends: each batch gives what it changes of the keys that it touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millstream.operators.aggregate import Aggregate
from millstream.operators.operator import (
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.weights import WEIGHT_FIELD
from millstream.windows.tumbling import Tumbling


@dataclass(frozen=True, slots=True)
class StoredGroupsConfig:
    """Running aggregates by key.

    Parameters
    ----------
    input_schema
        Columns of the input, without hidden ones.
    key_columns
        Group by these; none: one group. Nulls are a group.
    aggregates
        The result columns.
    time_column
        Event time, for what depends on the order of rows; `None`: there is none.
    """

    input_schema: pa.Schema
    key_columns: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    time_column: str | None

    @property
    def consumes(self) -> ChangeMode:
        """Facts only."""
        return ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Changes: a key's result replaces the one before it."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """No row is late: the key's result is of all rows."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """State belongs to the worker that owns the key group."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """Keys, then aggregates."""
        fields = [self.input_schema.field(name) for name in self.key_columns]
        fields += [
            pa.field(each.name, each.result_type(self.input_schema)) for each in self.aggregates
        ]
        return (pa.schema(fields),)

    def build(self) -> Operator:
        """Return the operator with no key."""
        return StoredGroups(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        keys = ", ".join(self.key_columns)
        what = ", ".join(each.describe() for each in self.aggregates)
        return f"running aggregates {f'by {keys}' if keys else 'over all rows'}: {what}"


class StoredGroups(Stateless):
    """The running operator; see `StoredGroupsConfig`."""

    def __init__(self, config: StoredGroupsConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.window_state import WindowState

        self.config = config
        self.counters = OperatorCounters()
        self._state = WindowState(
            config.input_schema,
            config.key_columns,
            config.aggregates,
            Tumbling(1),
            config.time_column,
        )
        self._schema = config.output_schemas[0].append(WEIGHT_FIELD)

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Fold the rows, and emit the results that are other ones now, with the old ones."""
        from millstream.operators.window_changes import changed_rows, pieces_of_changes

        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if batch.num_rows == 0:
            return
        starts = np.zeros(batch.num_rows, dtype=np.int64)
        slots, columns = changed_rows(self._state.fold_changes(batch, starts, partial=False))
        keys = len(self.config.key_columns)
        del columns[keys : keys + 2]  # the bounds of the window that never ends
        result = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        for piece in pieces_of_changes(slots, result):
            self.counters.rows_out += piece.num_rows
            yield Emit(0, piece)
        self._count_state()

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return all keys, or those that changed since checkpoint `since`."""
        full, rows = self._state.snapshot(since, checkpoint)
        return StateSnapshot(full, rows)

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._state.mark_saved(checkpoint)

    def due_us(self) -> int | None:
        """Return `None`: nothing waits for a time."""
        return None

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the keys of `snapshots` that are in `key_groups`."""
        parts = [each.rows for each in snapshots if each.rows is not None]
        self._state.restore(parts, key_groups)
        self._count_state()

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._state)
        self.counters.state_bytes = self._state.size_bytes
