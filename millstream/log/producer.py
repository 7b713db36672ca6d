"""Appends rows to a topic: fits them to its schema, and splits them by key."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from millstream.errors import OptionError, SchemaMismatchError, UnknownColumnError
from millstream.log.columns import OPERATION_FIELD, OPTIONAL_COLUMNS, is_system
from millstream.log.fitting import compacted, fit, frames_of
from millstream.log.key_hash import KEY_GROUPS, key_groups, split_rows
from millstream.log.partition import Partition
from millstream.log.row_extras import Headers, Timestamps, with_extras
from millstream.log.topic_config import APPEND, TOMBSTONE, TopicConfig
from millstream.log.transactions import Writer


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
    refresh
        Returns the configuration as it is now; `None`: it does not change.

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
        refresh: Callable[[], TopicConfig] | None = None,
    ) -> None:
        self._config = config
        self._refresh = refresh or (lambda: config)
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
        timestamps: Timestamps | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Append rows, in their order within a partition.

        Parameters
        ----------
        rows
            Columns are matched by name and cast where no value is changed by it; a missing
            column is null. They may have the columns `_timestamp` and `_headers`.
        partition
            Where to; by default the hash of the key decides, and in a topic without key
            columns the partitions take turns.
        transaction
            Number of the writer's transaction that the rows belong to; 0: none.
        timestamps
            Each row's own time, in a topic without a time column: an array of timestamps, or
            `datetime`s, or microseconds since 1970 UTC; null: that of the append.
        headers
            Each row's: a mapping or pairs of text and bytes, or `None`; or an Arrow array of
            `list<struct<key: string, value: binary>>`.

        Raises
        ------
        SchemaMismatchError, UnknownColumnError, OversizedRowError
            Where the rows do not fit the topic; nothing was appended then.
        FencedError
            Where the writer was superseded.
        LogError
            Where the disk refused.
        """
        assert transaction == 0 or self._writer is not None, "a transaction has a writer"
        rows = with_extras(rows, self._config.name, timestamps, headers)
        fitted = [each for batch in _batches(rows) for each in self._fit(batch)]
        for batch in fitted:
            self._append(self._with_operation(batch, APPEND), partition, transaction)

    def delete(self, keys: pa.RecordBatch | pa.Table, *, transaction: int = 0) -> None:
        """Append tombstones: the rows of `keys` are gone from the table.

        Parameters
        ----------
        keys
            The topic's key columns; others are left out, but for `_timestamp` and `_headers`.

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
            extras = [name for name in batch.schema.names if name in OPTIONAL_COLUMNS]
            for fitted in self._fit(batch.select([*config.key, *extras])):
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
                    piece = batch if whole else compacted(batch.take(pa.array(each)))
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
        users = sum(not is_system(name) for name in batch.schema.names)
        column = pa.array(np.full(batch.num_rows, operation, dtype=np.int8))
        return batch.add_column(users, OPERATION_FIELD, column)

    def _fit(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Return `batch` with the topic's columns, as rows of one frame after another."""
        try:
            fitted = fit(batch, self._config)
        except UnknownColumnError:
            known, self._config = self._config, self._refresh()
            if self._config.schema.equals(known.schema):
                raise
            fitted = fit(batch, self._config)  # somebody added the column
        return frames_of(fitted, self._config)


def _batches(rows: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    """Return `rows` as batches, none of them empty."""
    batches = rows.combine_chunks().to_batches() if isinstance(rows, pa.Table) else [rows]
    return [each for each in batches if each.num_rows]
