"""Joins a stream's rows with the latest row of a table that has the same key.

input 1: table rows, tombstones ─▶ key index ─▶ slot ─▶ latest row
input 0: stream rows ──────────────────▲ look up, gather ─▶ stream columns + table columns
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.log.key_hash import key_groups as key_groups_of
from millstream.operators.key_index import KeyIndex
from millstream.operators.operator import (
    HIDDEN_COLUMNS,
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.window_state import KEY_GROUP_COLUMN, REMOVED_COLUMN

OPERATION_COLUMN = "_op"
TOMBSTONE = 1

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

    Rows of the table lie in a growing table in the order of arrival; the slot of a key says
    where its latest one is. Superseded rows are dropped when they are the greater part.
    """

    def __init__(self, config: TableJoinConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()
        schema = config.table_schema
        self._index = KeyIndex([schema.field(name).type for name in config.table_keys])
        self._rows = schema.empty_table()
        self._added: list[pa.RecordBatch] = []
        self._row_of_slot: Int64Array = np.zeros(0, dtype=np.int64)
        self._row_count = 0
        # What changed since the last snapshot: rows from this number on, and removed keys.
        self._snapshot_row = 0
        self._removed: list[list[pa.Array]] = []
        self._last_checkpoint: int | None = None

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Join rows of the stream (input 0), or take changes of the table (input 1)."""
        self.counters.rows_in += batch.num_rows
        self.counters.rows_arrow += batch.num_rows
        if input_index == 1:
            self._change(batch)
            return
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            joined = self._join(batch.slice(begin, OUTPUT_ROWS_MAX))
            if joined.num_rows:
                self.counters.rows_out += joined.num_rows
                yield Emit(0, joined)

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return the latest rows, or what changed since checkpoint `since`."""
        full = since is None or since != self._last_checkpoint
        rows = self._latest(0 if full else self._snapshot_row)
        parts = [self._state_rows(rows, removed=False)]
        if not full:
            parts = [*(self._removed_rows(keys) for keys in self._removed), *parts]
        self._removed.clear()
        self._snapshot_row = self._row_count
        self._last_checkpoint = checkpoint
        return StateSnapshot(full, pa.concat_tables(parts))

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the rows of `snapshots`; all of them, since every worker has the whole table."""
        schema = self.config.table_schema
        for snapshot in snapshots:
            assert snapshot.version == 1, f"state of version {snapshot.version}"
            assert snapshot.rows is not None
            for batch in snapshot.rows.to_batches():
                operation = batch.column(REMOVED_COLUMN).cast(pa.int8())
                columns = [batch.column(f"row.{name}") for name in schema.names]
                fields = [*schema, pa.field(OPERATION_COLUMN, pa.int8())]
                self._change(
                    pa.RecordBatch.from_arrays([*columns, operation], schema=pa.schema(fields))
                )
        self._removed.clear()

    def _change(self, batch: pa.RecordBatch) -> None:
        """Apply rows and tombstones of the table, in their order."""
        names = self.config.table_schema.names
        operation = np.asarray(batch.column(OPERATION_COLUMN))
        # Runs of rows and of tombstones, one after the other: order within a key matters.
        edges = np.flatnonzero(np.diff(operation)) + 1
        for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(operation)], strict=True):
            piece = batch.slice(begin, end - begin).select(names)
            if piece.num_rows == 0:
                continue
            if operation[begin] == TOMBSTONE:
                self._forget(piece)
            else:
                self._keep(piece)
        self.counters.state_keys = len(self._index)
        self.counters.state_bytes = self._index.size_bytes + self._table().nbytes

    def _keep(self, rows: pa.RecordBatch) -> None:
        slots = self._index.slots(self._table_key_arrays(rows), insert=True)
        more = self._index.capacity - len(self._row_of_slot)
        self._row_of_slot = np.pad(self._row_of_slot, (0, more))
        # Where a key comes twice, NumPy keeps the last assignment: the latest row.
        self._row_of_slot[slots] = np.arange(self._row_count, self._row_count + len(slots))
        self._row_count += len(slots)
        self._added.append(rows)
        if self._row_count > 1024 and self._row_count > 2 * len(self._index):
            self._drop_superseded()

    def _forget(self, keys: pa.RecordBatch) -> None:
        arrays = self._table_key_arrays(keys)
        slots = self._index.slots(arrays, insert=False)
        known = np.unique(slots[slots >= 0])
        if len(known):
            self._removed.append(self._index.keys(known))
            self._index.remove(known)

    def _drop_superseded(self) -> None:
        """Keep the latest rows only; the next snapshot is then a full one."""
        slots = self._index.live_slots()
        rows = self._table().take(pa.array(self._row_of_slot[slots])).combine_chunks()
        self._rows, self._added = rows, []
        self._row_of_slot[slots] = np.arange(len(slots))
        self._row_count = len(slots)
        self._last_checkpoint = None

    def _table(self) -> pa.Table:
        """Return the rows kept, as one contiguous table."""
        if self._added:
            added = pa.Table.from_batches(self._added, self.config.table_schema)
            self._rows = pa.concat_tables([self._rows, added]).combine_chunks()
            self._added = []
        return self._rows

    def _latest(self, first_row: int) -> pa.Table:
        """Return the latest row of each key, of those that came as `first_row` or later."""
        rows = np.sort(self._row_of_slot[self._index.live_slots()])
        return self._table().take(pa.array(rows[rows >= first_row]))

    def _join(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` with the table's columns, without rows that an inner join drops."""
        config = self.config
        keys = [batch.column(name) for name in config.stream_keys]
        slots = self._index.slots(keys, insert=False)
        for key in keys:
            if key.null_count:
                slots[pc.is_null(key).to_numpy(zero_copy_only=False)] = -1
        matched = slots >= 0
        every = bool(matched.all())
        if not every and config.how == "inner":
            batch = batch.filter(pa.array(matched))
            slots = slots[matched]
        table = self._table()
        if every or config.how == "inner":
            places = pa.array(self._row_of_slot[slots])
        else:
            row_of_slot = self._row_of_slot if len(self._row_of_slot) else np.zeros(1, np.int64)
            places = pa.array(row_of_slot[np.maximum(slots, 0)], mask=~matched)
        taken = [table.column(name).take(places).combine_chunks() for name in config.table_columns]
        hidden = [name for name in HIDDEN_COLUMNS if name in batch.schema.names]
        schema = config.output_schemas[0]
        columns = [batch.column(name) for name in config.stream_schema.names]
        fields = [*schema, *(batch.schema.field(name) for name in hidden)]
        columns += [*taken, *(batch.column(name) for name in hidden)]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    def _table_key_arrays(self, rows: pa.RecordBatch) -> list[pa.Array]:
        return [rows.column(name) for name in self.config.table_keys]

    def _state_rows(self, rows: pa.Table, removed: bool) -> pa.Table:
        """Return `rows` as a snapshot holds them."""
        keys = [rows.column(name).combine_chunks() for name in self.config.table_keys]
        columns: dict[str, pa.Array] = {
            KEY_GROUP_COLUMN: pa.array(key_groups_of(keys), pa.int32()),
            REMOVED_COLUMN: pa.array(np.full(rows.num_rows, removed)),
        }
        for name in self.config.table_schema.names:
            columns[f"row.{name}"] = rows.column(name)
        return pa.table(columns)

    def _removed_rows(self, keys: list[pa.Array]) -> pa.Table:
        """Return keys that are gone as a snapshot holds them: nulls beside the keys."""
        of_key = dict(zip(self.config.table_keys, keys, strict=True))
        columns = [
            of_key.get(field.name, pa.nulls(len(keys[0]), field.type))
            for field in self.config.table_schema
        ]
        return self._state_rows(
            pa.table(columns, names=self.config.table_schema.names), removed=True
        )
