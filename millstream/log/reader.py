"""Reads a partition's committed rows in order, from any offset, and on as it grows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import LogError, OptionError
from millstream.log.columns import OPERATION_COLUMN
from millstream.log.condition import Condition, bind
from millstream.log.frame import Frame
from millstream.log.partition import Partition
from millstream.log.projection import READABLE_FIELDS, Projection, readable_schema
from millstream.log.row_time import TIME_MIN
from millstream.log.skipping import Skipping
from millstream.log.topic_config import APPEND, TopicConfig, check_columns
from millstream.log.transactions import Transactions

Isolation = Literal["read_committed", "read_uncommitted"]

ROWS_MAX = 65_536
BYTES_MAX = 8 * 1024 * 1024
ROWS_ALONE = 16_384
"""Neighbours of so many rows are not made one batch: to copy them costs more than it saves."""

_KEPT = pa.field("_kept", pa.bool_())
"""Marks the rows that fulfil a reader's condition, as the last column of a batch."""


class StableFrames:
    """The frames that a reader of some isolation may see, in order.

    A read-committed one stops at the first frame of an undecided transaction, the partition's
    last stable offset, and leaves out frames of aborted ones.

    Parameters
    ----------
    partition, transactions
        What is read.
    offset
        Of the first row.
    isolation
        As for `PartitionReader`.
    stable_end
        Returns the last stable offset. One that is read from beyond it shows nothing until
        what lies before is decided.
    columns
        Those of the user's columns that are going to be read; `None`: all.
    """

    def __init__(
        self,
        partition: Partition,
        transactions: Transactions,
        offset: int,
        isolation: Isolation,
        stable_end: Callable[[], int],
        columns: Collection[str] | None = None,
    ) -> None:
        self._partition = partition
        self._transactions = transactions
        self._committed_only = isolation == "read_committed"
        self._stable_end = stable_end
        # Decisions are final: once what lies before the start is decided, it stays so.
        self._is_settled = not self._committed_only or offset <= partition.settled_end
        self._noted = offset
        self._cursor = partition.frames(offset, columns)
        self._held: Frame | None = None
        self.offset = offset
        """Everything before this was given out or left out."""

    def next(self) -> Frame | None:
        """Return the next frame with rows, or `None`: there is none now."""
        if not self._is_settled:
            if self._stable_end() < self.offset:
                return None
            self._is_settled = True
        while True:
            frame = self._held or self._cursor.next()
            if frame is None:
                # Behind the last row of a compacted segment there may be offsets without rows.
                self.offset = max(self.offset, self._cursor.offset)
                self._note_settled()
                return None
            if frame.header.transaction and self._committed_only:
                decision = self._decision(frame)
                if decision == "undecided":
                    self._held = frame
                    if self._transactions.expire(frame.header, self._partition):
                        continue  # it is decided now
                    self._note_settled()
                    return None
                if decision == "aborted":
                    self._pass(frame)
                    continue
            self._pass(frame)
            if frame.header.row_count:
                return frame

    @property
    def is_at_hand(self) -> bool:
        """`True` iff `next` finds out without asking another machine."""
        return self._held is not None or self._cursor.is_at_hand

    @property
    def is_held_back(self) -> bool:
        """`True` iff a decision, and not a row, is what `next` waits for."""
        return self._held is not None or not self._is_settled

    def skip(self, skipping: Skipping, until: int | None) -> int | None:
        """Pass what `skipping` refuses from here on, before `until`, without looking at it.

        Returns the greatest time that was passed, or `None`: the next frame is wanted. What is in
        a transaction is not passed here.
        """
        if self.is_held_back:
            return None
        passed = self._cursor.skip(skipping, until)
        if passed is not None:
            self.offset = max(self.offset, self._cursor.offset)
        return passed

    def may_skip(self, skipping: Skipping) -> bool:
        """Return whether the next frame may be one that `skip` passes."""
        return not self.is_held_back and self._cursor.may_skip(skipping)

    def refuses(self, skipping: Skipping, frame: Frame) -> bool:
        """Return whether `frame`, the last that `next` returned, is refused as a whole."""
        return self._cursor.refuses(skipping, frame)

    def blocking(self) -> Frame | None:
        """Return the frame of the undecided transaction that stopped `next`, if one did."""
        return self._held

    def _note_settled(self) -> None:
        """Spare others the way to here; only a read-committed one knows that it is settled."""
        if self._committed_only and self.offset > self._noted:
            self._noted = self.offset
            self._partition.note_settled(self.offset)

    def _pass(self, frame: Frame) -> None:
        self._held = None
        self.offset = max(self.offset, frame.end_offset)

    def _decision(self, frame: Frame) -> str:
        header = frame.header
        known = self._transactions.decision(header.owner_id, header.epoch, header.transaction)
        if known == "undecided":
            self._transactions.refresh()
            known = self._transactions.decision(header.owner_id, header.epoch, header.transaction)
        return known


class PartitionReader:
    """A position in a partition, and the rows from there on.

    Made by `Topic.reader`.

    Parameters
    ----------
    partition, config, transactions
        What is read.
    number
        Of the partition, for the column `_partition`.
    offset
        Of the first row.
    columns
        Names in the order wanted; `None` for all of the user's. Others are neither touched nor
        verified. Beside the user's: `_offset` (int64), `_timestamp` (timestamp[us, UTC]: the
        time column, else a row's own, else when it was appended), `_headers`, `_op`,
        `_partition`.
    isolation
        `"read_committed"`: rows of decided transactions, up to the last stable offset.
    stable_end
        Returns the partition's last stable offset.
    verify
        Check the columns' checksums.
    where
        Rows that do not fulfil this are left out; segments and frames that hold none that does
        are not touched, as far as their statistics tell.
    skips_only
        Leave out by `where` only what need not be touched: not all rows that come fulfil it.
    time_column
        With `skips_only`: keep account of the times in this column that were passed; see
        `take_passed_time`.
    """

    def __init__(
        self,
        partition: Partition,
        config: TopicConfig,
        transactions: Transactions,
        *,
        number: int = 0,
        offset: int = 0,
        columns: Sequence[str] | None = None,
        isolation: Isolation = "read_committed",
        stable_end: Callable[[], int],
        verify: bool = True,
        where: object = None,
        skips_only: bool = False,
        time_column: str | None = None,
    ) -> None:
        if isolation not in {"read_committed", "read_uncommitted"}:
            message = f"isolation is 'read_committed' or 'read_uncommitted'; got {isolation!r}"
            raise OptionError(message)
        self._names = list(config.schema.names if columns is None else columns)
        users = [name for name in self._names if name not in READABLE_FIELDS]
        check_columns(config.schema, users, config.name)
        self._partition = partition
        self._table = config.table
        self._transactions = transactions
        self._isolation = isolation
        self._stable_end = stable_end
        self._verify = verify
        stored = list(self._names)
        if config.table and OPERATION_COLUMN not in stored:
            stored.append(OPERATION_COLUMN)
        self._projection = Projection(config.schema, stored, config.time, number)
        self._condition: Condition | None = None
        self._skipping: Skipping | None = None
        self._filters = where is not None and not skips_only
        self._time_column = time_column
        self._is_frame_time = time_column == config.time
        self._passed_time_us: int | None = None
        if where is not None:
            self._condition = condition = bind(where, readable_schema(config.schema), config.name)
            self._tested = Projection(config.schema, condition.columns, config.time, number)
            self._skipping = partition.skipping(condition, time_column)
        self._frames = self._frames_from(offset)
        # What is left of a frame that was read in part, and the offset of its first row.
        self._rest: pa.RecordBatch | None = None
        self._unread: Frame | None = None
        self._start_of_rest = offset
        self._frame_rows = self._frame_end = 0
        self._frame_time_us = self.read_time_us = TIME_MIN
        """The greatest time in the topic's time column of the frames that were read whole."""
        self._offsets: npt.NDArray[np.int64] | None = None
        self.position = offset
        """Offset of the next row."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of what `read` returns."""
        return pa.schema([self._projection.schema.field(name) for name in self._names])

    def seek(self, offset: int) -> None:
        """Go to the row of `offset`; raises `OffsetOutOfRangeError` where there is none."""
        self._frames = self._frames_from(offset)
        self._rest = None
        self._unread = None
        self._passed_time_us = None
        self.position = offset

    def seek_time(self, timestamp_us: int) -> None:
        """Go to the first row whose time is `timestamp_us` or later, or to the end."""
        self.seek(self._partition.offset_at_time(timestamp_us))

    @property
    def is_held_back(self) -> bool:
        """`True` iff an undecided transaction, and no end, is what stopped the last read."""
        return self._frames.is_held_back

    def at_end(self) -> bool:
        """Return `True` iff there is nothing to read now; `position` is then the stable end."""
        if self._rest is not None:
            return False
        # A frame that is there is held until it is read.
        rows = self._next_rows()
        if rows is None:
            self.position = max(self.position, self._frames.offset)
            return True
        self._rest = rows
        return False

    def read(
        self, rows_max: int = ROWS_MAX, bytes_max: int = BYTES_MAX, until: int | None = None
    ) -> pa.RecordBatch | None:
        """Return rows from `position` on, and move it behind them.

        Small neighbouring frames come as one batch; the rows of one frame are views of the
        file, and a frame is cut only where it alone has more rows than a batch. In table topics,
        tombstones are left out: see `read_table`.

        Parameters
        ----------
        rows_max, bytes_max
            A batch ends when it reaches either.
        until
            Do not read the row of this offset or later ones; `position` gets there even where
            aborted rows lie before it.

        Returns
        -------
        pyarrow.RecordBatch or None
            At least one row, or `None`: nothing can be read now.

        Raises
        ------
        CorruptSegmentError
            Where the stored bytes of a column that is read are damaged.
        """
        while True:
            batch = self.read_table(rows_max, bytes_max, until)
            if batch is None or not self._table:
                return batch
            operation = batch.column(OPERATION_COLUMN)
            batch = batch.select(self._names).filter(pc.equal(operation, APPEND))
            if batch.num_rows:
                return batch

    def take_passed_time(self) -> int | None:
        """Return the greatest time of rows that were passed before those that came last.

        In microseconds, and once; `None`: none were. A batch ends where rows are passed, so
        that this is known before the rows behind them are looked at.
        """
        passed, self._passed_time_us = self._passed_time_us, None
        return passed

    def read_table(
        self, rows_max: int = ROWS_MAX, bytes_max: int = BYTES_MAX, until: int | None = None
    ) -> pa.RecordBatch | None:
        """Return rows as `read` does; of a table topic with `_op` (0: row, 1: tombstone) last."""
        while True:
            pieces = list(self._pieces(rows_max, bytes_max, until))
            if not pieces:
                if self._rest is None and self._unread is None:
                    self.position = max(self.position, self._frames.offset)
                return None
            if self._filters:
                pieces = [each for each in map(_kept, pieces) if each.num_rows]
            if pieces:
                return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)

    def _frames_from(self, offset: int) -> StableFrames:
        columns = {*self._projection.stored}
        if self._time_column is not None:
            columns.add(self._time_column)
        if self._condition is not None:
            columns |= self._tested.stored
        return StableFrames(
            self._partition, self._transactions, offset, self._isolation, self._stable_end, columns
        )

    def _pieces(self, rows_max: int, bytes_max: int, until: int | None) -> Iterator[pa.RecordBatch]:
        """Yield whole or cut frames until the batch is full or there is no more."""
        rows, size = 0, 0
        while rows < rows_max and size < bytes_max:
            rest = self._rest
            if rest is None:
                if rows and not self._frames.is_at_hand:
                    return  # while a server is asked for more, these would wait
                try:
                    rest = self._next_rows(until, is_first=rows == 0)
                except LogError:
                    if rows:
                        return  # first what came before; the next call raises
                    raise
            if rest is None:
                return
            start = self._start_of_rest
            wanted = rows_max - rows
            if until is not None:
                wanted = min(wanted, self._rows_before(until))
            row_bytes = max(rest.get_total_buffer_size() // max(self._frame_rows, 1), 1)
            fits = rest.num_rows <= min(rows_max - rows, (bytes_max - size) // row_bytes)
            wanted = min(wanted, max((bytes_max - size) // row_bytes, 1))
            if wanted <= 0:
                # What lies before `rest` was given out or left out, e.g. aborted rows.
                self.position = max(self.position, start if until is None else min(start, until))
                self._rest = rest
                return
            both_large = min(rows, rest.num_rows) >= ROWS_ALONE
            if rows and (not fits or both_large or self._projection.has_dictionaries):
                # Cutting it would cost a copy now, and of every frame that follows. The indices
                # of one dictionary for several frames might not fit into their type.
                self._rest = rest
                return
            piece = rest.slice(0, wanted)
            self._rest = rest.slice(wanted) if piece.num_rows < rest.num_rows else None
            self._move_behind(piece.num_rows, until)
            if self._rest is None:
                self.read_time_us = max(self.read_time_us, self._frame_time_us)
            rows += piece.num_rows
            size += piece.num_rows * row_bytes
            yield piece

    def _next_rows(
        self, until: int | None = None, *, is_first: bool = True
    ) -> pa.RecordBatch | None:
        """Return the rows of the next frame that is wanted, from `position` on if inside it.

        With times to account for, nothing is passed behind other rows of the same batch.
        """
        while True:
            frame = self._unread or self._next_frame(until, is_first=is_first)
            if frame is None:
                return None
            self._unread = frame  # until it was read: a damaged one is not passed over
            is_whole = until is None or frame.end_offset <= until
            if is_whole and self._is_refused(frame):
                if not self._filters and not is_first:
                    return None
                self._note_passed(frame.header.max_timestamp_us)
                self._unread = None
                continue
            rows = self._rows_of(frame, is_whole=is_whole)
            self._unread = None
            if rows is None:
                continue
            rest = self._rest_of(frame, rows)
            if rest.num_rows:
                return rest
            # All of it was read already, before a compaction gave it other neighbours.

    def _rest_of(self, frame: Frame, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of `frame` from `position` on; takes note of their offsets."""
        self._frame_rows, self._frame_end = rows.num_rows, frame.end_offset
        self._frame_time_us = frame.header.max_timestamp_us
        first = max(frame.header.base_offset, self.position)
        before = first - frame.header.base_offset
        self._offsets = frame.offsets(self._verify)
        if self._offsets is not None:
            before = int(np.searchsorted(self._offsets, first))
            self._offsets = self._offsets[before:]
            if len(self._offsets):
                first = int(self._offsets[0])
        self._start_of_rest = first
        return rows.slice(before) if before else rows

    def _rows_before(self, offset: int) -> int:
        """Return how many rows of the rest come before `offset`; less than 1: none."""
        if self._offsets is None:
            return offset - self._start_of_rest
        return int(np.searchsorted(self._offsets, offset))

    def _move_behind(self, count: int, until: int | None) -> None:
        """Move the position behind the first `count` rows of the rest that there was."""
        offsets = self._offsets
        if offsets is None:
            self._start_of_rest = self.position = self._start_of_rest + count
            return
        self.position = int(offsets[count - 1]) + 1
        self._offsets = offsets[count:]
        if count < len(offsets):
            self._start_of_rest = int(offsets[count])
        else:  # behind the last row there is a gap, perhaps
            end = self._frame_end if until is None else min(self._frame_end, until)
            self.position = max(self.position, end)

    def _next_frame(self, until: int | None, *, is_first: bool) -> Frame | None:
        skipping = self._skipping
        if skipping is not None:
            if is_first or self._filters:
                self._note_passed(self._frames.skip(skipping, until))
            elif self._frames.may_skip(skipping):
                return None
        return self._frames.next()

    def _note_passed(self, time_us: int | None) -> None:
        if time_us is not None:
            known = self._passed_time_us
            self._passed_time_us = time_us if known is None else max(known, time_us)

    def _is_refused(self, frame: Frame) -> bool:
        """Return whether a frame of a transaction, which counts, holds no row that is wanted."""
        return (
            self._skipping is not None
            and frame.header.transaction != 0
            and (self._time_column is None or self._is_frame_time)
            and self._frames.refuses(self._skipping, frame)
        )

    def _rows_of(self, frame: Frame, *, is_whole: bool) -> pa.RecordBatch | None:
        """Return the frame's rows, marked where they are filtered; `None`: none is wanted.

        What the condition reads is looked at first: where no row fulfils it, and the frame ends
        before the end of the read, the other columns are not touched.
        """
        if self._condition is None or not self._filters:
            return self._projection.rows(frame, self._verify)
        mask = self._condition.mask(self._tested.rows(frame, self._verify))
        if is_whole and not pc.any(mask).as_py():
            return None
        return self._projection.rows(frame, self._verify).append_column(_KEPT, mask)


def _kept(piece: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows that are marked, without the mark."""
    mask = piece.column(piece.num_columns - 1)
    return piece.select(range(piece.num_columns - 1)).filter(mask)
