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

from millstream.operators.arrow_buffers import values_of
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

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return the latest rows, or what changed of them since checkpoint `since`."""
        return self._rows.snapshot(since, checkpoint)

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the rows of `snapshots` whose keys are in `key_groups`."""
        for rows, removed in self._rows.restored(snapshots, key_groups):
            self._rows.change(rows, removed)
        self.counters.state_keys = len(self._rows)
        self.counters.state_bytes = self._rows.size_bytes

    def _changes(self, replaced: Replaced) -> pa.RecordBatch:
        before, after = replaced.before, replaced.after
        count = before.num_rows
        same = replaced.existed & replaced.exists
        if same.any():
            same &= _equal(before, after)
        wanted = np.empty(2 * count, dtype=np.bool_)
        wanted[0::2] = replaced.existed & ~same
        wanted[1::2] = replaced.exists & ~same
        places = np.empty(2 * count, dtype=np.int64)
        places[0::2] = np.arange(count)
        places[1::2] = np.arange(count, 2 * count)
        weights = np.tile(np.array([-1, 1]), count)
        # The schemas may differ in which columns can be null.
        after = pa.RecordBatch.from_arrays(after.columns, schema=before.schema)
        rows = pa.concat_batches([before, after]).take(pa.array(places[wanted]))
        columns = [*rows.columns, pa.array(weights[wanted])]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _equal(before: pa.RecordBatch, after: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return which rows are the same; those with lists and structs are taken to differ."""
    same = np.ones(before.num_rows, dtype=np.bool_)
    for old, new in zip(before.columns, after.columns, strict=True):
        if pat.is_nested(old.type) and not pat.is_dictionary(old.type):
            return np.zeros(before.num_rows, dtype=np.bool_)
        one, other = (
            each.dictionary_decode() if pat.is_dictionary(each.type) else each
            for each in (old, new)
        )
        equal = pc.fill_null(pc.equal(one, other), False)
        # Neither a null nor a NaN equals itself there.
        neither = pc.and_(pc.is_null(one, nan_is_null=True), pc.is_null(other, nan_is_null=True))
        alike = pc.and_(neither, pc.equal(pc.is_null(one), pc.is_null(other)))
        same &= pc.or_(equal, alike).to_numpy(zero_copy_only=False)
    return same
