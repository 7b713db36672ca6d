"""Upserts as a changelog: each row together with the one that it replaces.

rows, tombstones ─▶ the latest of each key in the batch ─▶ -1 the row before, +1 the row now
                                │
                           table rows (state)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.operators.arrow_buffers import storage_dtype, values_of
from millstream.operators.operator import (
    OPERATION_COLUMN,
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.table_join import TOMBSTONE
from millstream.operators.weights import WEIGHT_FIELD

if TYPE_CHECKING:
    from millstream.operators.table_rows import Replaced

PIECE_KEYS_MAX = OUTPUT_ROWS_MAX // 2

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LatestRowsConfig:
    """Keeps the latest row of each key, and says what it replaces.

    Parameters
    ----------
    schema
        Columns of the input, without hidden ones and `_op`.
    key_columns
        Of which each row that holds has another value. A null is a value.
    order
        The column whose greatest value is the latest, a timestamp; `None`: the last that came.
    """

    schema: pa.Schema
    key_columns: tuple[str, ...]
    order: str | None = None

    @property
    def consumes(self) -> ChangeMode:
        """Upserts, with or without tombstones."""
        return ChangeMode.UPSERT

    @property
    def produces(self) -> ChangeMode:
        """Changes."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """No row is late, though it may be older than the one that is kept."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """State belongs to the worker that owns the key group."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The input's columns."""
        return (self.schema,)

    def build(self) -> Operator:
        """Return the operator with no row."""
        return LatestRows(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        by = "" if self.order is None else f", the latest by {self.order}"
        return f"keep the latest row by {', '.join(self.key_columns)}{by}; upsert → changelog"


class LatestRows(Stateless):
    """The running operator; see `LatestRowsConfig`."""

    def __init__(self, config: LatestRowsConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.table_rows import TableRows

        self.config = config
        self.counters = OperatorCounters()
        self._rows = TableRows(config.schema, config.key_columns)
        self._schema = config.schema.append(WEIGHT_FIELD)
        # Those that tell most rows apart at the least cost first: numbers behind the key.
        keys = set(config.key_columns)
        texts = {each.name for each in config.schema if storage_dtype(each.type) is None}
        self._columns = sorted(config.schema.names, key=lambda name: (name in texts, name in keys))

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit, for each key whose row is another one now, the old row and the new one."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_arrow += batch.num_rows
        if batch.num_rows == 0:
            return
        removed = np.zeros(batch.num_rows, dtype=np.bool_)
        if OPERATION_COLUMN in batch.schema.names:
            removed = values_of(batch.column(OPERATION_COLUMN)) == TOMBSTONE
        rows = batch.select(self.config.schema.names)
        replaced = self._rows.replace(rows, removed, self.config.order)
        self.counters.state_keys = len(self._rows)
        self.counters.state_bytes = self._rows.size_bytes
        for begin in range(0, len(replaced.existed), PIECE_KEYS_MAX):
            changes = self._changes(replaced.piece(begin, PIECE_KEYS_MAX))
            if changes.num_rows:
                self.counters.rows_out += changes.num_rows
                yield Emit(0, changes)
        self._rows.drop_superseded()

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return the latest rows, or what changed of them since checkpoint `since`."""
        return self._rows.snapshot(since, checkpoint)

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._rows.mark_saved(checkpoint)

    def due_us(self) -> int | None:
        """Return `None`: nothing waits for a time."""
        return None

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the rows of `snapshots` whose keys are in `key_groups`."""
        for rows, removed in self._rows.restored(snapshots, key_groups):
            self._rows.change(rows, removed)
        self.counters.state_keys = len(self._rows)
        self.counters.state_bytes = self._rows.size_bytes

    def _changes(self, replaced: Replaced) -> pa.RecordBatch:
        count = len(replaced.before)
        differ = ~(replaced.existed & replaced.exists)
        both = np.flatnonzero(~differ)
        differ[both] = self._differ(replaced.before[both], replaced.after[both])
        wanted = np.empty(2 * count, dtype=np.bool_)
        wanted[0::2] = replaced.existed & differ
        wanted[1::2] = replaced.exists & differ
        numbers = np.empty(2 * count, dtype=np.int64)
        numbers[0::2], numbers[1::2] = replaced.before, replaced.after
        weights = np.tile(np.array([-1, 1]), count)
        columns = self._rows.rows(self.config.schema.names, numbers[wanted])
        return pa.RecordBatch.from_arrays(
            [*columns, pa.array(weights[wanted])], schema=self._schema
        )

    def _differ(self, before: Int64Array, after: Int64Array) -> npt.NDArray[np.bool_]:
        """Return which rows of two lists are not the same, by their numbers."""
        same = np.arange(len(before))
        for name in self._columns:
            one, other = (self._rows.rows([name], each[same])[0] for each in (before, after))
            same = same[_equal(one, other)]
        differ = np.ones(len(before), dtype=np.bool_)
        differ[same] = False
        return differ


def _equal(one: pa.Array, other: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which values are the same; lists and structs are taken to differ."""
    if pat.is_nested(one.type) and not pat.is_dictionary(one.type):
        return np.zeros(len(one), dtype=np.bool_)
    if pat.is_dictionary(one.type):
        one, other = one.dictionary_decode(), other.dictionary_decode()
    equal = pc.fill_null(pc.equal(one, other), False)
    # Neither a null nor a NaN equals itself there.
    neither = pc.and_(pc.is_null(one, nan_is_null=True), pc.is_null(other, nan_is_null=True))
    alike = pc.and_(neither, pc.equal(pc.is_null(one), pc.is_null(other)))
    found: npt.NDArray[np.bool_] = pc.or_(equal, alike).to_numpy(zero_copy_only=False)
    return found
