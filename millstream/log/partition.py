"""An append-only sequence of rows on disk, which any number of processes append to and read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import LostRowsError, SchemaMismatchError
from millstream.log.appender import LOCK_NAME as APPEND_LOCK_NAME
from millstream.log.appender import Appender, Sequenced
from millstream.log.columns import TIMESTAMP_COLUMN, SegmentLayouts, columns_of_rows
from millstream.log.condition import Condition
from millstream.log.control_file import FILE_NAME as CONTROL_NAME
from millstream.log.control_file import ControlFile, LogEnd
from millstream.log.cursor import FrameCursor
from millstream.log.disk_refusal import told
from millstream.log.draft import Draft
from millstream.log.encoding import EncodedBatch
from millstream.log.frame import Frame
from millstream.log.frame_header import FLAG_CONTROL, FLAG_SEQUENCED, Damage, FrameHeader
from millstream.log.group_commit import LOCK_NAME as SYNC_LOCK_NAME
from millstream.log.group_commit import GroupCommit
from millstream.log.links import refuse_link
from millstream.log.row_time import first_row_at, largest_time_us
from millstream.log.sealed import SealedSegments
from millstream.log.segment import Segment
from millstream.log.segments import Durability, SegmentRemovedError, Segments
from millstream.log.sequences import StoredAppend
from millstream.log.settings import LiveSettings, TopicSettings
from millstream.log.skipping import Skipping
from millstream.log.tier.cache import SegmentCache
from millstream.storage import Storage

Found = TypeVar("Found")


class AppendResult(NamedTuple):
    """Where rows were put: the offsets from `base_offset` up to, not including, `end_offset`.

    `losses` is for `Partition.sync`, which tells whether they were lost meanwhile; `None`: there
    was nothing to append.
    """

    base_offset: int
    end_offset: int
    losses: int | None = None


class Partition:
    """The partition that lies in `directory`, created where it is missing.

    One object may be used by several threads; any number of objects, in any number of
    processes, may be open on the same folder.

    Parameters
    ----------
    directory
        Its folder.
    schema
        Of the rows. Dictionary, view, union, run-end-encoded and extension types are refused.
    storage, clock
        The disk, and the clock that stamps frames.
    durability
        `"fsync"`: readers see what is on stable storage. `"os"`: readers see what was
        written; a power cut may take it back.
    settings
        Of the topic, of which `segment.bytes` counts here.
    name
        For messages, e.g. `"flights/2"`.
    time_column
        The column that holds the rows' time; `None`: the time of the append.
    ring
        Called after what readers may see has become more.
    cache
        Of segments that were moved to a store of objects.
    on_sealed
        Called after an append that sealed a segment.
    before_head
        Called before a segment's head is written; what it raises ends the append.

    Raises
    ------
    InvalidTopicError
        Where a column has a type that a segment cannot hold.
    CorruptSegmentError
        Where rows that were durable are damaged, as far as a recovery had to look.
    """

    def __init__(
        self,
        directory: str,
        schema: pa.Schema,
        *,
        storage: Storage,
        clock: Clock,
        durability: Durability = "fsync",
        settings: LiveSettings | None = None,
        name: str = "",
        time_column: str | None = None,
        ring: Callable[[], None] | None = None,
        cache: SegmentCache | None = None,
        on_sealed: Callable[[], None] | None = None,
        before_head: Callable[[], None] | None = None,
    ) -> None:
        self._layouts = SegmentLayouts(schema)
        self.directory = directory
        self.schema = schema
        self.name = name or directory
        self.durability = durability
        self.time_column = time_column
        self.settings = settings or LiveSettings(TopicSettings())
        self._ring = ring if durability == "os" else None
        with told(f"opening partition {self.name} in {directory}", "then open it again"):
            self._open(storage, clock, cache, on_sealed, ring, before_head)

    def _open(
        self,
        storage: Storage,
        clock: Clock,
        cache: SegmentCache | None,
        on_sealed: Callable[[], None] | None,
        ring: Callable[[], None] | None,
        before_head: Callable[[], None] | None,
    ) -> None:
        directory = self.directory
        storage.make_directory(directory)
        for path in ("", f"/{CONTROL_NAME}", f"/{APPEND_LOCK_NAME}", f"/{SYNC_LOCK_NAME}"):
            refuse_link(storage, f"{directory}{path}")
        self._control = ControlFile(storage, directory)
        self._segments = Segments(
            storage, directory, self.name, self._layouts, self._control, self.durability, cache
        )
        self.sealed = SealedSegments(self._segments)
        """Its sealed segments, for a cleaner."""
        self._commit = GroupCommit(self._segments, ring)
        self._appender = Appender(
            self._segments, self._commit, clock, self.settings, on_sealed, before_head
        )
        self._appender.recover_if_needed()

    def adopt(self, schema: pa.Schema) -> None:
        """Take note that the topic got columns: `schema` is what its rows have now."""
        if not schema.equals(self.schema):
            self._layouts.adopt(schema)
            self.schema = schema

    def append(
        self,
        batch: pa.RecordBatch,
        *,
        owner_id: int = 0,
        epoch: int = 0,
        sequence: int = 0,
        transaction: int = 0,
        flags: int = 0,
        fence: Callable[[], None] | None = None,
        follows: int | None = None,
    ) -> AppendResult:
        """Append the rows of `batch` as one frame; they are durable after `sync` only.

        A batch of no rows appends nothing, unless `flags` has `FLAG_CONTROL`.

        Parameters
        ----------
        batch
            With the partition's columns, of which the last may be missing and are null then, and
            behind them those of `_timestamp` and `_headers` that its rows have; may be a slice.
        owner_id, epoch, sequence, transaction, flags
            Go into the frame's header.
        fence
            Called inside the critical section, before offsets are assigned; what it raises
            ends the append, and nothing was written.
        follows
            Of a named producer: the sequence of its last append to this partition, as it knows;
            0: whatever is there. Nothing is appended where the log has `sequence`, or a later one
            of this owner: the result then has no rows and ends where that one does, or later.

        Raises
        ------
        SchemaMismatchError
            Where the batch has other columns.
        SequenceError
            Where the owner's append `follows` is not there.
        PartitionClosedError
            Where the topic has, or is being given, another number of partitions.
        LogError
            Where the disk refused this append, or an earlier one or a sync: see `verify`.
        """
        if not batch.schema.equals(self.schema):
            self._check_columns(batch.schema)
        if batch.num_rows == 0 and not flags & FLAG_CONTROL:
            end = self.written_end
            return AppendResult(end, end)
        draft = Draft(batch, self._layouts, self.settings.known.compression_type)
        time_us, is_of_all = largest_time_us(batch, self.time_column)

        def header_at(
            encoded: EncodedBatch, end: LogEnd, now_us: int, durable_offset: int
        ) -> FrameHeader:
            return FrameHeader(
                frame_size=encoded.frame_size,
                base_offset=end.offset,
                row_count=encoded.row_count,
                max_timestamp_us=time_us if is_of_all else max(time_us, now_us),
                owner_id=owner_id,
                epoch=epoch,
                sequence=sequence,
                transaction=transaction,
                appended_us=now_us,
                durable_offset=durable_offset,
                flags=flags,
            )

        sequenced = None
        if follows is not None:
            flags |= FLAG_SEQUENCED
            sequenced = Sequenced(owner_id, sequence, follows)
        header, losses = self._appender.append(draft, fence, header_at, sequenced)
        if isinstance(header, StoredAppend):
            return AppendResult(header.end_offset, header.end_offset, losses)
        if self._ring is not None:
            self._ring()
        return AppendResult(header.base_offset, header.end_offset, losses)

    def last_sequence(self, owner_id: int) -> int:
        """Return the sequence of a named producer's last append that is stored; 0: none is."""
        return self._appender.last_sequence(owner_id)

    def sync(self, until_offset: int | None = None, losses: int | None = None) -> None:
        """Return when the rows before `until_offset` (`None`: all written so far) are durable.

        One fsync serves all who wait; where it was done already, this costs nothing. In a
        partition of durability `"os"` it does nothing.

        Parameters
        ----------
        losses
            That of the first `AppendResult` whose rows this is to make durable: whoever else
            appends and syncs, this raises where they were lost. `None`: the caller has no rows.

        Raises
        ------
        LogError
            Where the disk refused: nothing is written until the partition was verified.
        LostRowsError
            Where it has lost rows since the append that `losses` is of; what is there is durable.
        """
        if self.durability != "fsync":
            return
        while not self._commit.try_sync(until_offset):
            self._appender.recover_dead_sync()
        if losses not in {None, self._control.losses}:
            message = (
                f"partition {self.name}: a sync failed, and the disk has lost rows that were "
                "appended but not synced, perhaps of this producer: append them again"
            )
            raise LostRowsError(message)

    @property
    def losses(self) -> int:
        """A number that is another one whenever rows were lost that had not been synced."""
        return self._control.losses

    def begin_sync(self) -> None:
        """Let the disk begin with what `sync` is going to wait for; see `sync_together`."""
        if self.durability == "fsync":
            self._commit.begin()

    def verify(self) -> None:
        """Read the active segment anew and, where what was durable is whole, allow writes again.

        After a failed append this object refuses to write, after a failed sync every process.
        This cuts what is torn behind the durable end, and writes anew and syncs what is not.

        Raises
        ------
        CorruptSegmentError
            Where durable rows are damaged; nothing was changed then.
        LogError
            Where the disk still refuses.
        """
        self._appender.verify()

    def roll(self) -> None:
        """Seal the active segment if it has rows, and make all that was written durable."""
        self._appender.roll()
        self.sync_all()

    def sync_all(self) -> None:
        """Make all that was written so far durable, whatever the partition's durability."""
        while not self._commit.try_sync():
            self._appender.recover_dead_sync()

    @property
    def is_closed(self) -> bool:
        """Whether it takes no rows for now: `topic.json` says whether that is for good."""
        return self._control.closed

    def close(self) -> int:
        """Refuse rows from now on; return the end, before which everything is durable."""
        end = self._appender.close()
        while not self._commit.try_sync():
            self._appender.recover_dead_sync()
        return end

    def reopen(self) -> None:
        """Take rows again: its generation is still the present one."""
        self._appender.reopen()

    @property
    def first_offset(self) -> int:
        """Offset of the first row that is kept."""
        return self._segments.first_offset(self._segments.end())

    @property
    def written_end(self) -> int:
        """Offset behind the last row that was written."""
        end = self._control.written()
        return end.offset if end is not None else 0

    @property
    def durable_end(self) -> int:
        """Offset behind the last row that readers may see."""
        return self._segments.end().offset

    @property
    def settled_end(self) -> int:
        """An offset before which every transaction is known to be decided.

        Not the last such; it spares readers the way from the first row.
        """
        return max(self._control.settled, self.first_offset)

    def note_settled(self, offset: int) -> None:
        """Remember, for all processes of this boot, that all before `offset` is decided."""
        self._control.settled = max(self._control.settled, offset)

    def frames(self, offset: int, columns: Collection[str] | None = None) -> FrameCursor:
        """Return a cursor over the frames from the one that holds the row of `offset` on.

        Of the user's columns those beside `columns` (`None`: none) are not going to be read; here
        that makes no difference.

        Raises `OffsetOutOfRangeError` where it is before `first_offset` or beyond
        `durable_end`.
        """
        del columns
        return FrameCursor(self._segments, offset)

    def skipping(self, condition: Condition, time_column: str | None = None) -> Skipping | None:
        """Return what `condition` refuses here; of what is passed, the time in `time_column`.

        `None`: nothing is known of frames before they are read.
        """
        return Skipping(self._segments, condition, time_column)

    def offset_at_time(self, timestamp_us: int) -> int:
        """Return the offset of the first row whose time is `timestamp_us` or later.

        Every row before it is earlier in time; rows behind it need not be later. Where no
        row reaches the time, `durable_end`.
        """
        return self._looked_up(lambda end: self._find_time(end, timestamp_us))

    def _find_time(self, end: LogEnd, timestamp_us: int) -> int:
        segments = self._segments
        for base in segments.bases(end):
            segment = segments.open(base, end)
            start = segments.index_of(segment, base == end.segment_base).before_time(timestamp_us)
            if start is None:
                continue
            position, offset = start
            for frame in segment.walk(position, offset):
                if isinstance(frame, Damage):
                    raise segments.corrupt(base, position, offset, frame)
                if frame.header.row_count and frame.header.max_timestamp_us >= timestamp_us:
                    return frame.offset_of(self._row_at_time(frame, timestamp_us))
                position += frame.header.frame_size
                offset = frame.end_offset
        return end.offset

    def segments(self) -> list[tuple[int, int]]:
        """Return (base offset, readable bytes) of each segment, in order."""
        segments = self._segments
        return self._looked_up(
            lambda end: [(base, segments.size(base, end)) for base in segments.bases(end)]
        )

    def mapped_segments(self) -> tuple[LogEnd, list[tuple[str, Segment]]]:
        """Return the readable end, and each segment up to it: its path, and its bytes mapped.

        Raises `CorruptSegmentError` where a head is damaged.
        """
        return self._looked_up(lambda end: (end, self._map_segments(end)))

    def _map_segments(self, end: LogEnd) -> list[tuple[str, Segment]]:
        segments = self._segments
        found = []
        reached = 0
        for base in segments.bases(end):
            if base < reached:
                continue  # a leftover of what a compacted segment replaced
            segment = segments.open(base, end)
            reached = segment.head.compacted_end
            found.append((segments.path(base), segment))
        return found

    def _looked_up(self, look: Callable[[LogEnd], Found]) -> Found:
        """Return what `look` finds up to the readable end; again, where a cleaner came between."""
        while True:
            try:
                return look(self._segments.end())
            except SegmentRemovedError:
                self._segments.relist()

    def _check_columns(self, schema: pa.Schema) -> None:
        """Raise `SchemaMismatchError` where rows of `schema` are none of this partition's."""
        expected = columns_of_rows(self.schema, schema.names)
        if not schema.equals(expected):
            raise SchemaMismatchError(mismatch(self.name, expected, schema))

    def _row_at_time(self, frame: Frame, timestamp_us: int) -> int:
        """Return the index of the first row of `frame` that reaches a time; one does."""
        column = self.time_column or TIMESTAMP_COLUMN
        if column not in frame.columns:
            return 0
        default_us = frame.header.appended_us if self.time_column is None else None
        return max(first_row_at(frame.batch([column]), column, timestamp_us, default_us), 0)


def sync_together(partitions: Sequence[tuple[Partition, int | None]]) -> None:
    """Sync partitions, each with its `losses`; the disk works on all of them at once.

    Raises
    ------
    LogError
        Where the disk refused one of them; others may not be durable then.
    LostRowsError
        Where it has lost rows of some of them; what is there, of all of them, is durable.
    """
    if len(partitions) > 1:
        for partition, _ in partitions:
            partition.begin_sync()
    lost = []
    for partition, losses in partitions:
        try:
            partition.sync(losses=losses)
        except LostRowsError as error:
            lost.append(error)
    if lost:
        raise LostRowsError("; ".join(map(str, lost))) from lost[0]


def mismatch(name: str, expected: pa.Schema, found: pa.Schema) -> str:
    """Return what differs between the schema of a partition and of a batch."""
    for field in expected:
        index = found.get_field_index(field.name)
        if index < 0:
            return f"partition {name} has a column {field.name!r} ({field.type}); the rows do not"
        if not found.field(index).equals(field):
            return f"column {field.name!r} of partition {name} is {field}; got {found.field(index)}"
    more = [each for each in found.names if expected.get_field_index(each) < 0]
    if more:
        return f"partition {name} has no column {more[0]!r}; it has {expected.names}"
    return f"partition {name} has the columns {expected.names}, in this order; got {found.names}"
