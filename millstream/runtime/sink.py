"""Sinks as one worker fills them: a topic, in the job's transactions, or a list in memory.

Rows are gathered into frames of a decent size: nobody sees them before the checkpoint commits.
"""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from millstream.log.producer import Producer
from millstream.log.transactions import Participant
from millstream.runtime.graph import SinkNode

FRAME_ROWS = 65_536
FRAME_BYTES = 8 * 1024 * 1024


class Sink(Protocol):
    """Where a worker's rows end."""

    rows_written: int

    def append(self, rows: pa.RecordBatch, transaction: int) -> None:
        """Take rows as part of a transaction."""
        ...

    def flush(self, transaction: int) -> tuple[Participant, ...]:
        """Hand on what was gathered; return the partitions to be made durable."""
        ...


class LogSink:
    """Appends to a topic.

    Parameters
    ----------
    node
        What is written.
    producer
        Of the job's writer.
    """

    def __init__(self, node: SinkNode, producer: Producer) -> None:
        self.node = node
        self.rows_written = 0
        self._producer = producer
        self._gathered: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def append(self, rows: pa.RecordBatch, transaction: int) -> None:
        """Gather rows; append them when they make a frame."""
        self._gathered.append(rows.select(self.node.schema.names))
        self._rows += rows.num_rows
        self._bytes += rows.nbytes
        self.rows_written += rows.num_rows
        if self._rows >= FRAME_ROWS or self._bytes >= FRAME_BYTES:
            self._append(transaction)

    def flush(self, transaction: int) -> tuple[Participant, ...]:
        """Append what was gathered; return the partitions that were written to."""
        self._append(transaction)
        return tuple((self.node.topic, index) for index in self._producer.touched())

    def _append(self, transaction: int) -> None:
        if not self._gathered:
            return
        batches, self._gathered, self._rows, self._bytes = self._gathered, [], 0, 0
        one = len(batches) == 1
        rows = batches[0] if one else pa.Table.from_batches(batches)
        self._producer.append(rows, transaction=transaction)


class MemorySink:
    """Keeps rows in the process, for `collect()`; nothing is promised across a crash."""

    def __init__(self, node: SinkNode) -> None:
        self.node = node
        self.rows_written = 0
        self._batches: list[pa.RecordBatch] = []

    def append(self, rows: pa.RecordBatch, transaction: int) -> None:
        """Keep rows."""
        columns = [rows.column(name) for name in self.node.schema.names]
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=self.node.schema))
        self.rows_written += rows.num_rows

    def flush(self, transaction: int) -> tuple[Participant, ...]:
        """Do nothing: there is nothing to make durable."""
        return ()

    def table(self) -> pa.Table:
        """Return the rows, in the order in which they came."""
        return pa.Table.from_batches(self._batches, self.node.schema)
