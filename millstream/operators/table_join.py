"""Joins a stream's rows with the latest rows of a table that have the same values in some columns.

input 1: table rows, tombstones ─▶ table rows, match index
input 0: stream rows ──────────────────▲ look up, gather ─▶ stream columns + table columns

Joined by the table's key, a row matches one row or none. By other columns it matches any number,
and goes out as often, in bounded pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import valid_bytes_of, values_of
from millstream.operators.operator import (
    HIDDEN_COLUMNS,
    OPERATION_COLUMN,
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.row_bytes import row_bytes

if TYPE_CHECKING:
    from millstream.operators.match_index import MatchIndex

TOMBSTONE = 1

Int64Array = npt.NDArray[np.int64]
BooleanArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TableJoinConfig:
    """Adds the columns of a table's rows to each row of a stream.

    Parameters
    ----------
    stream_schema, table_schema
        Columns of the two inputs, without hidden ones and `_op`.
    stream_keys, table_keys
        Columns that must be equal, pairwise of one type. A null equals nothing.
    unique_key
        The columns of which the table has one row for each value.
    how
        `"inner"` drops rows without a match, `"left"` keeps them with nulls.
    suffix
        Put behind a table column's name that the stream has too.
    added
        Columns of the table that go out; `None`: all but its join columns.
    """

    stream_schema: pa.Schema
    table_schema: pa.Schema
    stream_keys: tuple[str, ...]
    table_keys: tuple[str, ...]
    unique_key: tuple[str, ...]
    how: Literal["inner", "left"] = "inner"
    suffix: str = "_right"
    added: tuple[str, ...] | None = None

    @property
    def by_unique_key(self) -> bool:
        """`True` iff just the table's key is joined: what is looked up is one row or none."""
        return set(self.table_keys) == set(self.unique_key)

    @property
    def spill_keys(self) -> tuple[tuple[str, ...], ...]:
        """By which columns of each input state may be cut: what matches is kept together.

        The rows of a table that is joined by other columns than its key are not kept by those.
        """
        return (self.stream_keys, self.table_keys) if self.by_unique_key else ()

    @property
    def many_matches(self) -> bool:
        """`True` iff a row of the stream may match several rows of the table."""
        return not set(self.table_keys).issuperset(self.unique_key)

    @property
    def consumes(self) -> ChangeMode:
        """Weights pass with the stream's rows."""
        return ChangeMode.CHANGELOG

    @property
    def produces(self) -> ChangeMode:
        """What the stream is: a later change of the table does not take rows back."""
        return ChangeMode.CHANGELOG

    @property
    def timed(self) -> bool:
        """The table has a single version: time decides nothing."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """Every worker reads the whole table."""
        return True

    @property
    def table_columns(self) -> tuple[str, ...]:
        """Columns that the table adds, in its order."""
        if self.added is not None:
            return tuple(name for name in self.table_schema.names if name in self.added)
        return tuple(name for name in self.table_schema.names if name not in self.table_keys)

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The stream's columns, then those that the table adds."""
        fields = list(self.stream_schema)
        taken = set(self.stream_schema.names)
        for name in self.table_columns:
            field = self.table_schema.field(name).with_nullable(True)
            fields.append(field.with_name(name + self.suffix) if name in taken else field)
        return (pa.schema(fields),)

    def build(self) -> Operator:
        """Return the operator with an empty table."""
        return TableJoin(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        pairs = zip(self.stream_keys, self.table_keys, strict=True)
        on = ", ".join(a if a == b else f"{a} = {b}" for a, b in pairs)
        return f"{self.how} join with table on {on}{', many matches' if self.many_matches else ''}"


class TableJoin(Stateless):
    """The running operator; see `TableJoinConfig`."""

    def __init__(self, config: TableJoinConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.match_index import MatchIndex
        from millstream.operators.table_rows import TableRows

        self.config = config
        self.counters = OperatorCounters()
        schema = config.table_schema
        key = config.table_keys if config.by_unique_key else config.unique_key
        self._table = TableRows(schema, key)
        self._match_index: MatchIndex | None = None
        if not config.by_unique_key:
            self._match_index = MatchIndex([schema.field(each).type for each in config.table_keys])
        self._table_columns = list(config.table_columns)
        self._schema = config.output_schemas[0]

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Join rows of the stream (input 0), or take changes of the table (input 1)."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if input_index == 1:
            removed = values_of(batch.column(OPERATION_COLUMN)) == TOMBSTONE
            self._change(batch.select(self.config.table_schema.names), removed)
            return
        if self._match_index is not None:
            joined_pieces = self._join_all_matches(batch, self._match_index)
        else:
            joined_pieces = self._join_by_unique_key(batch)
        for joined in joined_pieces:
            self.counters.rows_out += joined.num_rows
            yield Emit(0, joined)

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return the table's latest rows, or what changed of them since checkpoint `since`."""
        return self._table.snapshot(since, checkpoint)

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._table.mark_saved(checkpoint)

    def due_us(self) -> int | None:
        """Return `None`: nothing waits for a time."""
        return None

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the rows of `snapshots` in `key_groups`: of all, where it has the whole table."""
        for rows, removed in self._table.restored(snapshots, key_groups):
            self._change(rows, removed)

    def _change(self, rows: pa.RecordBatch, removed: BooleanArray) -> None:
        """Apply rows and tombstones of the table."""
        slots = self._table.change(rows, removed)
        self.counters.state_keys = len(self._table)
        self.counters.state_bytes = self._table.size_bytes
        if self._match_index is not None:
            sizes = row_bytes(_columns(rows, self._table_columns), rows.num_rows)
            keys = _columns(rows, self.config.table_keys)
            self._match_index.change(slots, keys, sizes, removed, self._table.capacity)
            self.counters.state_bytes += self._match_index.size_bytes

    def _join_by_unique_key(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            joined = self._join_piece(batch.slice(begin, OUTPUT_ROWS_MAX))
            if joined.num_rows:
                yield joined

    def _join_piece(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` with the columns of the one row that each of its rows matches."""
        keys = _columns(batch, self.config.stream_keys)
        slots = self._table.find(keys)
        for key in keys:
            if key.null_count:
                slots[~valid_bytes_of(key)] = -1
        matched = slots >= 0
        every = bool(matched.all())
        if not every and self.config.how == "inner":
            batch = batch.filter(pa.array(matched))
            slots = slots[matched]
        if self._table_columns or not every:
            self.counters.rows_arrow += len(matched)
        return self._with_table_columns(batch, slots)

    def _join_all_matches(
        self, batch: pa.RecordBatch, matches: MatchIndex
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of `batch`, each with the columns of every row that it matches."""
        self.counters.rows_arrow += batch.num_rows
        found = matches.matches(
            _columns(batch, self.config.stream_keys),
            row_bytes(batch.columns, batch.num_rows),
            unmatched=self.config.how == "left",
        )
        for numbers, slots in found:
            yield self._with_table_columns(batch.take(pa.array(numbers)), slots)

    def _with_table_columns(self, batch: pa.RecordBatch, slots: Int64Array) -> pa.RecordBatch:
        """Return `batch` with the table's columns of the rows at `slots`, before hidden ones."""
        hidden = [name for name in HIDDEN_COLUMNS if name in batch.schema.names]
        columns = _columns(batch, self.config.stream_schema.names)
        if self._table_columns:
            columns += self._table.take(self._table_columns, slots)
        columns += _columns(batch, hidden)
        fields = [*self._schema, *(batch.schema.field(name) for name in hidden)]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _columns(rows: pa.RecordBatch, names: Sequence[str]) -> list[pa.Array]:
    return [rows.column(name) for name in names]
