"""Appends rows to a topic: fits them to its schema, and splits them by key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import (
    LostRowsError,
    MillstreamError,
    OptionError,
    PartitionClosedError,
    SchemaMismatchError,
    UnknownColumnError,
)
from millstream.log.columns import OPERATION_FIELD, OPTIONAL_COLUMNS, is_system
from millstream.log.dictionaries import compacted
from millstream.log.fitting import RowFitter
from millstream.log.numbering import Numbering
from millstream.log.partition import sync_together
from millstream.log.row_buffer import RowHeaders
from millstream.log.row_extras import Headers, Timestamps, with_extras
from millstream.log.sender import Gathering, Sender, fail, succeed
from millstream.log.splitting import Splitter
from millstream.log.topic import Topic
from millstream.log.topic_config import APPEND, TOMBSTONE, TopicConfig
from millstream.log.transactions import Writer


class Producer:
    """Appends to one topic; made by `Log.producer`.

    What was appended is durable, and seen by readers of `fsync` topics, after `flush`. Leaving
    the `with` block flushes. One thread at a time.

    Parameters
    ----------
    topic
        Where to.
    clock
        Of the log.
    writer
        Whose rows these are; `None`: nobody's, outside of any transaction.
    fence
        Raises when the writer was superseded; called inside every append.
    is_named
        Number the appends of the writer, so that each is stored once.
    gathering
        Options of a `Sender`.

    Examples
    --------
    >>> with log.producer("flights") as producer:  # doctest: +SKIP
    ...     producer.append(pa.table({"flight": [1545], "origin": ["EWR"]}))
    ...     producer.send({"flight": 1714, "origin": "LGA"})
    """

    def __init__(
        self,
        topic: Topic,
        clock: Clock,
        writer: Writer | None = None,
        fence: Callable[[], None] | None = None,
        *,
        is_named: bool = False,
        **gathering: Unpack[Gathering],
    ) -> None:
        self._topic = topic
        self._config = topic.config
        self._fitter = RowFitter(topic.config)
        self._generation = topic.config.generation
        self._partitions = topic.partitions_of(self._generation)
        self._writer = writer
        self._fence = fence
        self._sequence = 0
        self._turn = 0
        self._splitter = Splitter()
        self._touched: dict[int, int | None] = {}
        self._numbering: Numbering | None = None
        if is_named:
            assert writer is not None, "a named producer has a writer"
            self._numbering = Numbering(writer.owner_id, topic)
        append, sync = self._append_sent, self._sync_touched
        self._sender = Sender(topic.config, clock, append, sync, **gathering)
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
        sequence: int | None = None,
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
        sequence
            Of a named producer: the number of this append, of the user's own counting, that
            grows from one append to the next. The same number again is the same append: what of
            its rows is in the log is left as it is, also in another life of the producer. By
            default the next one, or that of the append that failed, where `rows` is the very
            same object.

        Raises
        ------
        SchemaMismatchError, UnknownColumnError, OversizedRowError
            Where the rows do not fit the topic; nothing was appended then.
        SequenceError
            Where `sequence` is below one that was appended, or rows before it were lost.
        FencedError
            Where the writer was superseded.
        LogError
            Where the disk refused.
        """
        assert transaction == 0 or self._writer is not None, "a transaction has a writer"
        all_rows = with_extras(rows, self._config.name, timestamps, headers)
        batches = [
            self._with_operation(each, APPEND)
            for batch in _batches(all_rows)
            for each in self._fit(batch)
        ]
        self._append_all(batches, rows, partition, transaction, sequence)

    def send(
        self,
        row: Mapping[str, Any] | None = None,
        /,
        *,
        partition: int | None = None,
        timestamp: Any = None,
        headers: RowHeaders | None = None,
        **values: Any,
    ) -> Future[None]:
        """Append one row, soon: it is gathered with others into a batch.

        Parameters
        ----------
        row
            Values by column; or they are given by keywords. A column that is missing is null.
        partition
            As for `append`.
        timestamp
            Of the row, in a topic without a time column: a `datetime`, or microseconds since 1970.
        headers
            Of the row: bytes by text.

        Returns
        -------
        concurrent.futures.Future
            Done when the row is durable, or has the error. Rows of a batch share one.

        Raises
        ------
        UnknownColumnError
            Where the topic has no such column; the row was not taken.
        SchemaMismatchError
            Where a row of the batch that is full now does not fit; none of it was appended.
        MillstreamError
            What went wrong with rows sent before, where nobody was told yet.
        """
        given = values if row is None else row
        try:
            return self._sender.send(given, partition, timestamp, headers)
        except UnknownColumnError:
            if not self._find_columns():
                raise
            self._sender.adopt(self._config)  # somebody added the column
            return self._sender.send(given, partition, timestamp, headers)

    def delete(
        self,
        keys: pa.RecordBatch | pa.Table,
        *,
        transaction: int = 0,
        sequence: int | None = None,
    ) -> None:
        """Append tombstones: the rows of `keys` are gone from the table.

        Parameters
        ----------
        keys
            The topic's key columns; others are left out, but for `_timestamp` and `_headers`.
        transaction, sequence
            As for `append`.

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
        batches = []
        for batch in _batches(keys):
            missing = [name for name in config.key if name not in batch.schema.names]
            if missing:
                message = f"a delete from {config.name!r} needs key column {missing[0]!r}"
                raise SchemaMismatchError(message)
            extras = [name for name in batch.schema.names if name in OPTIONAL_COLUMNS]
            fitted = self._fit(batch.select([*config.key, *extras]))
            batches += [self._with_operation(each, TOMBSTONE) for each in fitted]
        self._append_all(batches, keys, None, transaction, sequence)

    def flush(self) -> None:
        """Return when every row appended or sent so far is durable; one fsync a partition at most.

        Raises
        ------
        MillstreamError
            Where the disk refused, or what went wrong with rows sent before, if nobody was told.
        """
        sender = self._sender
        with sender.guard:
            try:
                sender.append_gathered()
            finally:
                unsynced = sender.take_unsynced()
                try:
                    self._sync_touched()
                except BaseException as error:
                    fail(unsynced, error)
                    raise
                succeed(unsynced)
            self._touched.clear()
            sender.tell()

    @property
    def config(self) -> TopicConfig:
        """What the topic is."""
        return self._config

    @property
    def is_named(self) -> bool:
        """Whether its appends are numbered, and each stored once."""
        return self._numbering is not None

    @property
    def sequence(self) -> int:
        """The number of the last append; at first the highest that any partition has of it.

        Where a named producer goes on: after a kill with this one again, which may be stored in
        part; after a power cut with the one after the last that was flushed.
        """
        return self._named().last

    def stored_sequences(self) -> list[int]:
        """Return for each partition the number of the last append that has rows there; 0: none."""
        return self._named().stored()

    def touched(self) -> list[int]:
        """Return the partitions that have rows which were not flushed."""
        return sorted(self._touched)

    def unsynced(self) -> dict[int, int | None]:
        """Return what `touched` does, each with its `losses`; see `Partition.sync`."""
        return dict(self._touched)

    def close(self) -> None:
        """Flush."""
        try:
            self.flush()
        finally:
            self._sender.close()

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
            return
        if self._sender.is_used:
            # What was sent is on its way, whatever happened here; this error is the one to tell.
            with suppress(MillstreamError):
                self.close()

    def _named(self) -> Numbering:
        if self._numbering is None:
            message = "only a named producer numbers its appends: log.producer(topic, name=…)"
            raise OptionError(message)
        return self._numbering

    def _sync_touched(self) -> None:
        touched = sorted(self._touched.items())
        try:
            sync_together([(self._partitions[index], losses) for index, losses in touched])
        except MillstreamError as error:
            if isinstance(error, LostRowsError):
                self._touched.clear()  # it is told; and what is there is durable
            if self._numbering is not None:
                self._numbering.lost()
            raise

    def _append_sent(self, batch: pa.RecordBatch, partition: int | None) -> None:
        """Append rows that were sent, which have the topic's columns."""
        frames = [self._with_operation(each, APPEND) for each in self._fitter.frames_of(batch)]
        self._append_numbered(frames, batch, partition, 0, None)

    def _append_all(
        self,
        batches: Iterable[pa.RecordBatch],
        rows: object,
        partition: int | None,
        transaction: int,
        sequence: int | None,
    ) -> None:
        with self._sender.guard:
            self._sender.append_gathered()  # they came first
            self._append_numbered(batches, rows, partition, transaction, sequence)

    def _append_numbered(
        self,
        batches: Iterable[pa.RecordBatch],
        rows: object,
        partition: int | None,
        transaction: int,
        sequence: int | None,
    ) -> None:
        numbering = self._numbering
        if numbering is None:
            if sequence is not None:
                self._named()
            for batch in batches:
                self._append(batch, partition, transaction)
            return
        if transaction:
            message = "a named producer appends outside of transactions; use log.transaction(…)"
            raise OptionError(message)
        # Again, it goes to the same partitions, be they closed since: they say what they have.
        self._turn, generation = numbering.begin(rows, sequence)
        if generation is not None:
            self._go_to(generation)
        for batch in batches:
            self._append(batch, partition, 0)
        numbering.done()

    def _append(self, batch: pa.RecordBatch, partition: int | None, transaction: int) -> None:
        """Write rows to their partitions.

        Where the topic got another number of them meanwhile, those that were not written yet are
        split anew: what was is before the seam, and the rows of a key go together.
        """
        rest: pa.RecordBatch | None = batch
        while rest is not None:
            rest = self._try_append(rest, partition, transaction)
        self._turn += 1

    def _try_append(
        self, batch: pa.RecordBatch, partition: int | None, transaction: int
    ) -> pa.RecordBatch | None:
        """Write rows; return those, in their order, that a closed partition did not take."""
        pieces = self._split(batch, partition)
        for done, (index, rows, piece) in enumerate(pieces):
            try:
                self._write(index, piece, transaction)
            except PartitionClosedError:
                self._follow()
                if rows is None or len(rows) == batch.num_rows:
                    return batch
                left = np.concatenate([each for _, each, _ in pieces[done:] if each is not None])
                return batch.take(pa.array(np.sort(left)))
        return None

    def _split(
        self, batch: pa.RecordBatch, partition: int | None
    ) -> list[tuple[int, npt.NDArray[np.uint32] | None, pa.RecordBatch]]:
        """Return which rows go where, as numbers (`None`: all of them) and as a batch."""
        count = len(self._partitions)
        if partition is not None:
            if not 0 <= partition < count:
                message = (
                    f"topic {self._config.name!r} has partitions 0 to {count - 1}; got {partition}"
                )
                raise OptionError(message)
            return [(partition, None, batch)]
        if count == 1:
            return [(0, None, batch)]
        if not self._config.key:
            return [(self._turn % count, None, batch)]
        pieces = self._splitter.split(batch, self._config.key, count)
        has_dictionaries = self._fitter.has_dictionaries
        return [
            (index, rows, compacted(piece) if has_dictionaries else piece)
            for index, (rows, piece) in enumerate(pieces)
            if len(rows)
        ]

    def _follow(self) -> None:
        """Go on in the next generation, once a partition of this one was found closed."""
        generation = self._generation
        if generation == self._topic.config.generation:
            self._topic.follow(generation)
        if generation != self._topic.config.generation:
            self._go_to(self._topic.config.following(generation))

    def _go_to(self, generation: int) -> None:
        """Append to a generation's partitions from now on."""
        if generation != self._generation:
            self._sync_touched()  # what was closed is durable: this tells of rows that were lost
            self._touched.clear()
            self._generation = generation
            self._partitions = self._topic.partitions_of(generation)

    def _write(self, index: int, batch: pa.RecordBatch, transaction: int) -> None:
        writer = self._writer
        follows = None
        self._sequence += 1
        if self._numbering is not None:
            self._sequence, follows = self._numbering.next_frame((self._generation, index))
        appended = self._partitions[index].append(
            batch,
            owner_id=0 if writer is None else writer.owner_id,
            epoch=0 if writer is None else writer.epoch,
            sequence=self._sequence,
            transaction=transaction,
            fence=self._fence,
            follows=follows,
        )
        if self._numbering is not None:
            self._numbering.stored_frame((self._generation, index), self._sequence)
        self._touched.setdefault(index, appended.losses)
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
            fitted = self._fitter.fit(batch)
        except UnknownColumnError:
            if not self._find_columns():
                raise
            fitted = self._fitter.fit(batch)
        return self._fitter.frames_of(fitted)

    def _find_columns(self) -> bool:
        """Return whether somebody added columns, which are known from now on."""
        known, self._config = self._config, self._topic.refreshed()
        self._fitter = RowFitter(self._config)
        return not self._config.schema.equals(known.schema)


def _batches(rows: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    """Return `rows` as batches, none of them empty."""
    batches = rows.combine_chunks().to_batches() if isinstance(rows, pa.Table) else [rows]
    return [each for each in batches if each.num_rows]
