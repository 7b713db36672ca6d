"""Joins a stream's rows with the latest row of a table that has the same key.

input 1: table rows, tombstones ─▶ key index ─▶ slot ─▶ number of the latest row
input 0: stream rows ──────────────────▲ look up, gather ─▶ stream columns + table columns
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.arrow_buffers import valid_bytes_of, values_of
from millstream.operators.operator import (
    HIDDEN_COLUMNS,
    KEY_GROUP_COLUMN,
    OUTPUT_ROWS_MAX,
    REMOVED_COLUMN,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.row_store import RowStore

OPERATION_COLUMN = "_op"
TOMBSTONE = 1

_SUPERSEDED_MIN = 1024
_SNAPSHOT_PIECE_ROWS = 1_048_576

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TableJoinConfig:
    """Adds the columns of a table's row to each row of a stream.

    Parameters
    ----------
    stream_schema, table_schema
        Columns of the two inputs, without hidden ones and `_op`.
    stream_keys, table_keys
        Columns that must be equal, pairwise of one type. A null equals nothing.
    how
        `"inner"` drops rows without a match, `"left"` keeps them with nulls.
    suffix
        Put behind a table column's name that the stream has too.
    """

    stream_schema: pa.Schema
    table_schema: pa.Schema
    stream_keys: tuple[str, ...]
    table_keys: tuple[str, ...]
    how: Literal["inner", "left"] = "inner"
    suffix: str = "_right"

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
        """Columns that the table adds: all but its keys."""
        return tuple(name for name in self.table_schema.names if name not in self.table_keys)

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The stream's columns, then the table's without its keys."""
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
        return f"{self.how} join with table on {on}"


class TableJoin(Stateless):
    """The running operator; see `TableJoinConfig`.

    Rows of the table lie in the order of arrival; the slot of a key says which is its latest.
    Superseded rows are dropped when they are the greater part.
    """

    def __init__(self, config: TableJoinConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.key_index import KeyIndex

        self.config = config
        self.counters = OperatorCounters()
        schema = config.table_schema
        self._index = KeyIndex([schema.field(name).type for name in config.table_keys])
        self._rows = RowStore(schema)
        self._row_of_slot: Int64Array = np.zeros(0, dtype=np.int64)
        self._last_checkpoint: int | None = None
        self._table_columns = list(config.table_columns)
        self._schema = config.output_schemas[0]

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Join rows of the stream (input 0), or take changes of the table (input 1)."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if input_index == 1:
            self._change(
                batch.select(self.config.table_schema.names),
                values_of(batch.column(OPERATION_COLUMN)) == TOMBSTONE,
            )
            return
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            joined = self._join(batch.slice(begin, OUTPUT_ROWS_MAX))
            if joined.num_rows:
                self.counters.rows_out += joined.num_rows
                yield Emit(0, joined)

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
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
            arrays = self._rows.take(self.config.table_schema.names, piece)
            parts.append(self._state_rows(arrays, removed=False))
        self._index.mark_snapshot()
        self._last_checkpoint = checkpoint
        return StateSnapshot(full, pa.concat_tables(parts))

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the rows of `snapshots`; all of them, since every worker has the whole table."""
        schema = self.config.table_schema
        names = [f"row.{name}" for name in schema.names]
        for snapshot in snapshots:
            assert snapshot.version == 1, f"state of version {snapshot.version}"
            for batch in [] if snapshot.rows is None else snapshot.rows.to_batches():
                removed = np.asarray(batch.column(REMOVED_COLUMN).cast(pa.int8())) == 1
                arrays = batch.select(names).columns
                self._change(pa.RecordBatch.from_arrays(arrays, names=schema.names), removed)

    def _change(self, rows: pa.RecordBatch, removed: npt.NDArray[np.bool_]) -> None:
        """Apply rows and tombstones of the table; the last of a key is what holds."""
        slots = self._index.insert(self._key_arrays(rows, self.config.table_keys)).of_rows
        if len(self._row_of_slot) < self._index.capacity:
            more = np.zeros(self._index.capacity - len(self._row_of_slot), dtype=np.int64)
            self._row_of_slot = np.concatenate([self._row_of_slot, more])
        numbers = np.arange(len(self._rows), len(self._rows) + rows.num_rows)
        # Where a key comes twice, NumPy keeps the last assignment.
        self._row_of_slot[slots] = numbers
        self._rows.append(rows)
        if removed.any():
            last = self._row_of_slot[slots] == numbers
            self._index.remove(slots[last & removed])
        if len(self._rows) > _SUPERSEDED_MIN and len(self._rows) > 2 * len(self._index):
            live = self._index.live_slots()
            self._rows.keep(self._row_of_slot[live])
            self._row_of_slot[live] = np.arange(len(live))
        self.counters.state_keys = len(self._index)
        self.counters.state_bytes = self._index.size_bytes + self._rows.size_bytes

    def _join(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` with the table's columns, without rows that an inner join drops."""
        config = self.config
        keys = self._key_arrays(batch, config.stream_keys)
        slots = self._index.find(keys)
        for key in keys:
            if key.null_count:
                slots[~valid_bytes_of(key)] = -1
        matched = slots >= 0
        every = bool(matched.all())
        if not every and config.how == "inner":
            batch = batch.filter(pa.array(matched))
            slots = slots[matched]
        if self._table_columns or not every:
            self.counters.rows_arrow += len(matched)
        hidden = [name for name in HIDDEN_COLUMNS if name in batch.schema.names]
        columns = batch.select(config.stream_schema.names).columns
        if self._table_columns:
            numbers = self._row_of_slot[slots] if len(self._row_of_slot) else slots
            if not every and config.how == "left":
                numbers = np.where(matched, numbers, -1)
            columns += self._rows.take(self._table_columns, numbers)
        fields = [*self._schema, *(batch.schema.field(name) for name in hidden)]
        columns += [batch.column(name) for name in hidden]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    @staticmethod
    def _key_arrays(rows: pa.RecordBatch, names: Sequence[str]) -> list[pa.Array]:
        return [rows.column(name) for name in names]

    def _state_rows(self, arrays: list[pa.Array], *, removed: bool) -> pa.Table:
        """Return rows of the table as a snapshot holds them."""
        names = self.config.table_schema.names
        keys = [arrays[names.index(name)] for name in self.config.table_keys]
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
        of_key = dict(zip(self.config.table_keys, keys, strict=True))
        arrays = [
            of_key[field.name] if field.name in of_key else pa.nulls(len(keys[0]), field.type)
            for field in self.config.table_schema
        ]
        return self._state_rows(arrays, removed=True)
