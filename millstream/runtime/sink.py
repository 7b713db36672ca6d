"""Sinks as one worker fills them: a topic, in the job's transactions, or a list in memory.

Rows are gathered into frames of a decent size: nobody sees them before the checkpoint commits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from millstream.log.fitting import FRAME_ROWS_MAX
from millstream.log.producer import Producer
from millstream.log.topic_config import TOMBSTONE
from millstream.log.transactions import Unsynced
from millstream.operators.arrow_buffers import values_of
from millstream.operators.consolidate import can_consolidate, consolidated
from millstream.operators.operator import OPERATION_COLUMN, WEIGHT_COLUMN
from millstream.operators.weights import WEIGHT_FIELD, weights_of
from millstream.runtime.background import Background, Done, Pending
from millstream.runtime.graph import SinkNode

FRAME_BYTES = 8 * 1024 * 1024
FRAME_ALONE_BYTES = 2 * 1024 * 1024
"""Rows of so many bytes are a frame: to put them together with as many more copies them all."""

_OPERATION_FIELD = pa.field(OPERATION_COLUMN, pa.int8())


class Sink(Protocol):
    """Where a worker's rows end."""

    rows_written: int

    def has_room(self) -> bool:
        """Return `True` iff rows may be appended now."""
        ...

    def append(self, rows: pa.RecordBatch, transaction: int) -> None:
        """Take rows as part of a transaction."""
        ...

    def flush(self, transaction: int) -> Pending[Unsynced]:
        """Hand on what was gathered; the result is the partitions to be made durable."""
        ...


class LogSink:
    """Appends to a topic, beside the worker where the host can.

    Parameters
    ----------
    node
        What is written.
    producer
        Of the job's writer; it is used by `background` alone.
    background
        Does the appends, in order.
    """

    def __init__(self, node: SinkNode, producer: Producer, background: Background) -> None:
        self.node = node
        self.rows_written = 0
        self._producer = producer
        self._background = background
        self._appends: deque[Pending[None]] = deque()
        self._gathered: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def has_room(self) -> bool:
        """Return `True` iff not too much waits to be appended."""
        return self._background.has_room()

    def append(self, rows: pa.RecordBatch, transaction: int) -> None:
        """Gather rows; append them when they make a frame.

        Raises
        ------
        FencedError, LogError
            Where an earlier append failed.
        """
        size_bytes = rows.nbytes
        if self._rows + rows.num_rows > FRAME_ROWS_MAX:
            self._append(transaction)  # the rows beyond would make a small frame of their own
        if min(self._bytes, size_bytes) >= FRAME_ALONE_BYTES:
            self._append(transaction)
        self._gathered.append(
            _with_operations(rows, self.node) if self.node.upsert else _as_sunk(rows, self.node)
        )
        self._rows += rows.num_rows
        self._bytes += size_bytes
        self.rows_written += rows.num_rows
        if self._rows >= FRAME_ROWS_MAX or self._bytes >= FRAME_BYTES:
            self._append(transaction)

    def flush(self, transaction: int) -> Pending[Unsynced]:
        """Append what was gathered; the result is the partitions that were written to."""
        self._append(transaction)
        topic, producer = self.node.topic, self._producer
        appends = tuple(self._appends)

        def touched() -> Unsynced:
            for each in appends:
                each.result()  # a checkpoint must not be complete without the rows of one
            return {(topic, index): losses for index, losses in producer.unsynced().items()}

        return self._background.submit(touched)

    def _append(self, transaction: int) -> None:
        while self._appends and self._appends[0].done():
            self._appends.popleft().result()  # raises where it failed
        if not self._gathered:
            return
        batches, size_bytes = self._gathered, self._bytes
        self._gathered, self._rows, self._bytes = [], 0, 0
        producer, keys = self._producer, self.node.key_columns if self.node.upsert else ()

        def append() -> None:
            rows = batches[0] if len(batches) == 1 else pa.Table.from_batches(batches)
            if keys:
                _append_upserts(producer, rows, keys, transaction)
            else:
                producer.append(rows, transaction=transaction)

        self._appends.append(self._background.submit(append, size_bytes))


class MemorySink:
    """Keeps rows in the process, for `collect()`; nothing is promised across a crash.

    Of rows that come with weights, those are kept that hold in the end.
    """

    def __init__(self, node: SinkNode) -> None:
        self.node = node
        self.rows_written = 0
        self._batches: list[pa.RecordBatch] = []

    def has_room(self) -> bool:
        """Return `True`: memory is the limit."""
        return True

    def append(self, rows: pa.RecordBatch, transaction: int) -> None:
        """Keep rows."""
        weight = [name for name in rows.schema.names if name == WEIGHT_COLUMN]
        self._batches.append(rows.select([*self.node.schema.names, *weight]))
        self.rows_written += rows.num_rows

    def flush(self, transaction: int) -> Pending[Unsynced]:
        """Do nothing: there is nothing to make durable."""
        return Done({})

    def table(self) -> pa.Table:
        """Return the rows, in the order in which they came."""
        schema = self.node.schema
        if not any(WEIGHT_COLUMN in each.schema.names for each in self._batches):
            return pa.Table.from_batches(
                [_as_sunk(each, self.node) for each in self._batches], schema
            )
        return rows_that_hold(self._batches, schema)


def _as_sunk(rows: pa.RecordBatch, node: SinkNode) -> pa.RecordBatch:
    """Return rows without hidden columns, in the sink's own schema.

    Streams that were united may say otherwise which columns can be null, and rows of one frame
    have one schema.
    """
    columns = [rows.column(name) for name in node.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=node.schema)


def rows_that_hold(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Return the rows of `schema` that hold after changes, which come with or without weights."""
    weighted = [
        pa.RecordBatch.from_arrays(
            [*(each.column(name) for name in schema.names), pa.array(weights_of(each))],
            schema=schema.append(WEIGHT_FIELD),
        )
        for each in batches
    ]
    rows = pa.concat_batches(weighted)
    if can_consolidate(schema):
        rows = consolidated(rows)
    counts = np.maximum(weights_of(rows), 0)
    kept = rows.select(schema.names).take(pa.array(np.repeat(np.arange(len(counts)), counts)))
    return pa.Table.from_batches([kept], schema)


def _with_operations(rows: pa.RecordBatch, node: SinkNode) -> pa.RecordBatch:
    """Return rows with `_op` last: 0 for a row that comes, 1 for one that is taken away."""
    if OPERATION_COLUMN in rows.schema.names:
        operations = rows.column(OPERATION_COLUMN)
    else:
        operations = pa.array((weights_of(rows) < 0).astype(np.int8))
    columns = [*(rows.column(name) for name in node.schema.names), operations]
    return pa.RecordBatch.from_arrays(columns, schema=node.schema.append(_OPERATION_FIELD))


def _append_upserts(
    producer: Producer, rows: pa.RecordBatch | pa.Table, keys: Sequence[str], transaction: int
) -> None:
    """Append the last row of each key, or a tombstone where that is taken away."""
    from millstream.operators.key_index import KeyIndex

    (batch,) = rows.combine_chunks().to_batches() if isinstance(rows, pa.Table) else [rows]
    columns = [batch.column(name) for name in keys]
    slots = KeyIndex([each.type for each in columns]).insert(columns).of_rows
    last = np.empty(int(slots.max()) + 1, dtype=np.int64)
    last[slots] = np.arange(len(slots))  # NumPy keeps the last assignment
    is_last = last[slots] == np.arange(len(slots))
    gone = values_of(batch.column(OPERATION_COLUMN)) == TOMBSTONE
    # No key is among both, so their order is of no matter.
    kept = batch.drop_columns([OPERATION_COLUMN]).filter(pa.array(is_last & ~gone))
    if kept.num_rows:
        producer.append(kept, transaction=transaction)
    if (is_last & gone).any():
        removed = batch.select(list(keys)).filter(pa.array(is_last & gone))
        producer.delete(removed, transaction=transaction)
