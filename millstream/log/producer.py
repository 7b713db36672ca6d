"""Appends rows to a topic: fits them to its schema, and splits them by key."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from millstream.errors import OptionError, SchemaMismatchError, UnknownColumnError, nearest
from millstream.log.columns import OPERATION_FIELD
from millstream.log.key_hash import KEY_GROUPS, key_groups, split_rows
from millstream.log.partition import Partition
from millstream.log.topic_config import APPEND, TOMBSTONE, TopicConfig
from millstream.log.transactions import Writer

FRAME_ROWS_MAX = 131_072


class Producer:
    """Appends to one topic; made by `Log.producer`.

    What was appended is durable, and seen by readers of `fsync` topics, after `flush`. Leaving
    the `with` block flushes.

    Parameters
    ----------
    config
        Of the topic.
    partitions
        The topic's, in order.
    writer
        Whose rows these are; `None`: nobody's, outside of any transaction.
    fence
        Raises when the writer was superseded; called inside every append.

    Examples
    --------
    >>> with log.producer("flights") as producer:  # doctest: +SKIP
    ...     producer.append(pa.table({"flight": [1545], "origin": ["EWR"]}))
    """

    def __init__(
        self,
        config: TopicConfig,
        partitions: list[Partition],
        writer: Writer | None = None,
        fence: Callable[[], None] | None = None,
    ) -> None:
        self._config = config
        self._partitions = partitions
        self._writer = writer
        self._fence = fence
        self._sequence = 0
        self._turn = 0
        self._touched: set[int] = set()
        self.rows_appended = 0
        """Rows given to the log by this producer."""

    def append(
        self,
        rows: pa.RecordBatch | pa.Table,
        *,
        partition: int | None = None,
        transaction: int = 0,
    ) -> None:
        """Append rows, in their order within a partition.

        Parameters
        ----------
        rows
            Columns are matched by name and cast where no value is changed by it; a missing
            column is null.
        partition
            Where to; by default the hash of the key decides, and in a topic without key
            columns the partitions take turns.
        transaction
            Number of the writer's transaction that the rows belong to; 0: none.

        Raises
        ------
        SchemaMismatchError, UnknownColumnError
            Where the rows do not fit the topic; nothing was appended then.
        FencedError
            Where the writer was superseded.
        LogError
            Where the disk refused.
        """
        assert transaction == 0 or self._writer is not None, "a transaction has a writer"
        fitted = [self._fit(each) for each in _batches(rows)]
        for batch in fitted:
            self._append(self._with_operation(batch, APPEND), partition, transaction)

    def delete(self, keys: pa.RecordBatch | pa.Table, *, transaction: int = 0) -> None:
        """Append tombstones: the rows of `keys` are gone from the table.

        Parameters
        ----------
        keys
            Exactly the topic's key columns.

        Raises
        ------
        OptionError
            Where the topic is no table.
        SchemaMismatchError
            Where a column beside the key cannot be null, as it is in a tombstone.
        """
        config = self._config
        if not config.table:
            message = f"topic {config.name!r} is a stream; only a table's rows can be deleted"
            raise OptionError(message)
        for field in config.schema:
            if field.name not in config.key and not field.nullable:
                message = (
                    f"column {field.name!r} of {config.name!r} may not be null, but in a tombstone "
                    "it is; create the topic with it nullable"
                )
                raise SchemaMismatchError(message)
        for batch in _batches(keys):
            missing = [name for name in config.key if name not in batch.schema.names]
            if missing:
                message = f"a delete from {config.name!r} needs key column {missing[0]!r}"
                raise SchemaMismatchError(message)
            fitted = self._fit(batch.select(list(config.key)))
            self._append(self._with_operation(fitted, TOMBSTONE), None, transaction)

    def flush(self) -> None:
        """Return when every row appended so far is durable; one fsync a partition at most."""
        for index in sorted(self._touched):
            self._partitions[index].sync()
        self._touched.clear()

    def touched(self) -> list[int]:
        """Return the partitions that have rows which were not flushed."""
        return sorted(self._touched)

    def close(self) -> None:
        """Flush."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()

    def _append(self, batch: pa.RecordBatch, partition: int | None, transaction: int) -> None:
        count = len(self._partitions)
        if partition is not None:
            if not 0 <= partition < count:
                message = (
                    f"topic {self._config.name!r} has partitions 0 to {count - 1}; got {partition}"
                )
                raise OptionError(message)
            self._write(partition, batch, transaction)
        elif count == 1:
            self._write(0, batch, transaction)
        elif self._config.key:
            groups = key_groups([batch.column(name) for name in self._config.key])
            rows = split_rows(groups.astype(np.int64) * count // KEY_GROUPS, count)
            for index, each in enumerate(rows):
                if len(each):
                    whole = len(each) == batch.num_rows
                    piece = batch if whole else batch.take(pa.array(each))
                    self._write(index, piece, transaction)
        else:
            self._write(self._turn % count, batch, transaction)
            self._turn += 1

    def _write(self, index: int, batch: pa.RecordBatch, transaction: int) -> None:
        writer = self._writer
        self._sequence += 1
        self._partitions[index].append(
            batch,
            owner_id=0 if writer is None else writer.owner_id,
            epoch=0 if writer is None else writer.epoch,
            sequence=self._sequence,
            transaction=transaction,
            fence=self._fence,
        )
        self._touched.add(index)
        self.rows_appended += batch.num_rows

    def _with_operation(self, batch: pa.RecordBatch, operation: int) -> pa.RecordBatch:
        if not self._config.table:
            return batch
        column = pa.array(np.full(batch.num_rows, operation, dtype=np.int8))
        return batch.append_column(OPERATION_FIELD, column)

    def _fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` with the topic's columns."""
        schema = self._config.schema
        if batch.schema.equals(schema):
            return batch
        for name in batch.schema.names:
            if name not in schema.names:
                message = (
                    f"topic {self._config.name!r} has no column {name!r}"
                    f"{nearest(name, schema.names)}"
                )
                raise UnknownColumnError(message)
        columns = [self._column(batch, field) for field in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _column(self, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
        where = f"column {field.name!r} of topic {self._config.name!r}"
        if field.name not in batch.schema.names:
            if not field.nullable:
                message = f"{where} is missing and may not be null; got {batch.schema.names}"
                raise SchemaMismatchError(message)
            return pa.nulls(batch.num_rows, field.type)
        column = batch.column(field.name)
        if column.null_count and not field.nullable:
            message = f"{where} may not be null; got {column.null_count} nulls"
            raise SchemaMismatchError(message)
        if column.type == field.type:
            return column
        try:
            return column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            message = (
                f"{where} is {field.type}; got {column.type}, which does not fit: {error}; "
                "cast it before you append"
            )
            raise SchemaMismatchError(message) from error


def _batches(rows: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    """Return `rows` as batches of a frame each, none of them empty."""
    if isinstance(rows, pa.Table):
        return [
            each
            for each in rows.combine_chunks().to_batches(max_chunksize=FRAME_ROWS_MAX)
            if each.num_rows
        ]
    return [rows.slice(begin, FRAME_ROWS_MAX) for begin in range(0, rows.num_rows, FRAME_ROWS_MAX)]
