"""Appends frames to a partition: the critical section of every writer.

encode, checksums │ lock · cut a dead one's tail · fence · roll · offsets · writev · publish │
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from millstream.clock import Clock
from millstream.errors import LogError, PartitionClosedError, SequenceError
from millstream.log.control_file import LogEnd
from millstream.log.draft import Draft
from millstream.log.encoding import EncodedBatch
from millstream.log.frame_header import Damage, FrameHeader
from millstream.log.group_commit import GroupCommit
from millstream.log.index import SegmentIndex
from millstream.log.laid_zeros import lay_zeros
from millstream.log.links import refuse_link
from millstream.log.metadata import ColumnLayout
from millstream.log.recovery import Recovery
from millstream.log.segment import Segment, encode_head, head_checksum
from millstream.log.segments import Segments
from millstream.log.sequences import Sequences, StoredAppend, advanced, write_sequences
from millstream.log.settings import LiveSettings
from millstream.log.skipping import store_statistics
from millstream.log.write_back import WriteBack
from millstream.storage import AppendFile

LOCK_NAME = "append.lock"
VERIFY_AFTER_US = 1_000_000
"""So long after a failure a partition is verified, by who appends: it takes time and the disk."""
US_PER_MS = 1000

HeaderAt = Callable[[EncodedBatch, LogEnd, int, int], FrameHeader]


class _Active(NamedTuple):
    """The segment that appends go to: its base offset, its columns, and when it was made."""

    base: int
    layout: ColumnLayout
    created_us: int


class Sequenced(NamedTuple):
    """Which append of a named producer a frame is.

    Attributes
    ----------
    owner_id, sequence
        As in the frame's header. A sequence that is not above the last one is stored already.
    previous
        The producer's last append to this partition, as it knows: the frame has to follow on it,
        or on a later one. 0: whatever is there.
    """

    owner_id: int
    sequence: int
    previous: int


class Appender:
    """Writes to the partition whose segments are `segments`.

    Its state is touched under the append lock only, which excludes threads too.

    Parameters
    ----------
    segments
        The partition's.
    commit
        Its group commit.
    clock
        Stamps frames and segments.
    settings
        Of the topic.
    on_sealed
        Called after an append that sealed a segment, outside of the critical section.
    before_head
        Called before a segment's head is written.
    """

    def __init__(
        self,
        segments: Segments,
        commit: GroupCommit,
        clock: Clock,
        settings: LiveSettings,
        on_sealed: Callable[[], None] | None = None,
        before_head: Callable[[], None] | None = None,
    ) -> None:
        self._segments = segments
        self._control = segments.control
        self._commit = commit
        self._clock = clock
        self._settings = settings
        self._on_sealed = on_sealed
        self._before_head = before_head
        self._lock_path = f"{segments.directory}/{LOCK_NAME}"
        self._write_back = WriteBack(segments.control)
        self._open: tuple[int, AppendFile] | None = None
        self._size_bytes = 0  # of the file of the active segment, if it has rows
        self._index: SegmentIndex | None = None
        self._active: _Active | None = None
        self._sealed: tuple[Segment, SegmentIndex] | None = None
        self._sequences: Sequences | None = None
        self._refusal = ""
        self._verify_at_us: int | None = None

    def append(
        self,
        draft: Draft,
        fence: Callable[[], None] | None,
        header_at: HeaderAt,
        sequenced: Sequenced | None = None,
    ) -> tuple[FrameHeader | StoredAppend, int]:
        """Write one frame and publish the written end.

        Parameters
        ----------
        draft
            The rows.
        fence
            Called under the lock before anything is written; may raise.
        header_at
            Called with the frame, its place, the append time and the known durable offset.
        sequenced
            Of a named producer: what its frame has to follow on.

        Returns
        -------
        FrameHeader or StoredAppend
            Of the frame; or, where this append was stored before, what is known of that.
        int
            The partition's losses up to then.
        """
        # Before the lock is taken, and as good as always for the segment that they will get.
        active = self._active
        draft.encode(draft.own if active is None else draft.layout_in(active.layout))
        try:
            with self._segments.storage.lock(self._lock_path):
                end = self._ready_end()
                if fence is not None:
                    fence()
                if sequenced is not None:
                    stored = self._stored(end, sequenced)
                    if stored is not None:
                        return stored, self._control.losses
                if self._control.closed:
                    message = f"partition {self._segments.name} is closed; open the topic anew"
                    raise PartitionClosedError(message)
                now_us = self._clock.now_us()
                end, encoded = self._make_room(end, draft, now_us)
                if sequenced is not None and not self._control.sequenced:
                    self._control.sequenced = True  # a roll just now saw none
                header = self._write_frame(encoded, header_at, end, now_us)
                losses = self._control.losses
        except OSError as error:
            self._segments.refuse_removed()
            message = f"partition {self._segments.name}: the disk refused an append: {error}"
            raise LogError(message) from error
        if self._sealed is not None:
            # Outside of the critical section: it takes as long as reading the segment.
            sealed, self._sealed = self._sealed, None
            store_statistics(self._segments, *sealed)
            if self._on_sealed is not None:
                self._on_sealed()
        return header, losses

    def _write_frame(
        self, encoded: EncodedBatch, header_at: HeaderAt, end: LogEnd, now_us: int
    ) -> FrameHeader:
        """Write a frame behind `end`, where there is room for it; behind a head, if it needs one.

        A head is written with the first frame only: as long as a segment has no rows, it may
        still get any columns.
        """
        durable = self._control.durable()
        header = header_at(encoded, end, now_us, durable.offset if durable else 0)
        base, start = end.segment_base, end.position
        if start == 0 and self._before_head is not None:
            self._before_head()
        file = self._file(base)
        chunks = encoded.chunks(header)
        checksum = 0
        self._control.append_under_way = True
        try:
            if start == 0:
                file.truncate(0)  # what a dead one left
                head = encode_head(encoded.layout, base, now_us)
                chunks.insert(0, head)
                start, checksum = len(head), head_checksum(head)
            file.write(end.position, chunks)
        except OSError as error:
            self._fail(file, end, error)
        if end.position == 0:
            self._active = _Active(base, encoded.layout, now_us)
            self._index = SegmentIndex(base, checksum, end.offset, start)
        end = LogEnd(base, start + header.frame_size, header.end_offset)
        self._control.publish_written(end)
        self._control.append_under_way = False
        if self._segments.durability == "fsync":
            self._write_back.go_on(file, end, durable)
            if end.position >= self._size_bytes:
                lay_zeros(file, end, durable, self._settings.known.segment_bytes)
        index = self._index
        if index is not None and (index.base_offset, index.size_bytes) == (base, start):
            index.add(header)
        known = self._sequences
        if known is not None and (known.segment_base, known.offset) == (base, header.base_offset):
            known.position = start
            known.add(header)
        return header

    def last_sequence(self, owner_id: int) -> int:
        """Return the sequence of the last append of a named producer that is stored; 0: none."""
        with self._segments.storage.lock(self._lock_path):
            self._sequences = advanced(self._sequences, self._segments, self._ready_end())
            stored = self._sequences.stored.get(owner_id)
            return 0 if stored is None else stored.sequence

    def _stored(self, end: LogEnd, wanted: Sequenced) -> StoredAppend | None:
        """Return what is known of an append that was stored before; `None`: it is to be stored."""
        self._sequences = advanced(self._sequences, self._segments, end)
        stored = self._sequences.stored.get(wanted.owner_id)
        last = 0 if stored is None else stored.sequence
        if wanted.sequence <= last:
            return stored
        if last < wanted.previous:
            message = (
                f"partition {self._segments.name} has appends of this producer up to sequence "
                f"{last}, and sequence {wanted.sequence} was to follow on {wanted.previous}: what "
                "lies between was lost with a failed sync; append it again first"
            )
            raise SequenceError(message)
        return None

    def roll(self) -> None:
        """Make the active segment final, unless it has no rows."""
        with self._segments.storage.lock(self._lock_path):
            end = self._ready_end()
            if end.offset > end.segment_base:
                self._seal(end)

    def close(self) -> int:
        """Seal the active segment, refuse appends from now on, and return the offset of the end."""
        with self._segments.storage.lock(self._lock_path):
            end = self._ready_end()
            if end.offset > end.segment_base:
                end = self._seal(end)
            self._control.closed = True
        if self._sealed is not None:
            sealed, self._sealed = self._sealed, None
            store_statistics(self._segments, *sealed)
        return end.offset

    def reopen(self) -> None:
        """Allow appends again."""
        with self._segments.storage.lock(self._lock_path):
            self._control.closed = False

    def recover_if_needed(self) -> None:
        """Recover after a power cut or a failed sync, unless somebody else did already."""
        if self._needs_recovery():
            with self._segments.storage.lock(self._lock_path):
                if self._needs_recovery():
                    self._recover()

    def recover_dead_sync(self) -> None:
        """Recover after a process died in a sync, unless somebody else did already."""
        with self._segments.storage.lock(self._lock_path):
            with self._segments.storage.lock(self._commit.lock_path):
                is_dead = self._control.sync_under_way
            if is_dead:
                self._recover()

    def verify(self) -> None:
        """Recover, whether it seems needed or not, and allow writes again."""
        with self._segments.storage.lock(self._lock_path):
            self._recover()

    def _needs_recovery(self) -> bool:
        control = self._control
        ends = control.written(), control.durable()  # a damaged file may have lost one of them
        return not control.is_of_this_boot() or control.sync_failed or None in ends

    def _recover(self) -> LogEnd:
        segments = self._segments
        recovery = Recovery(
            storage=segments.storage,
            directory=segments.directory,
            layouts=segments.layouts,
            name=segments.name,
            control=self._control,
            keeps_written=segments.durability == "os",
        )
        with segments.storage.lock(self._commit.lock_path):
            end = recovery.run()
            self._commit.reopen()
        self._refusal = ""
        self._verify_at_us = None
        self._index = None
        self._active = None
        self._sequences = None
        return end

    def _ready_end(self) -> LogEnd:
        """Return the written end, with nothing behind it in the file; or refuse."""
        if self._refusal or self._control.sync_failed:
            self._verify_or_refuse()
        end = self._control.written() if self._control.is_of_this_boot() else None
        if end is None:
            end = self._recover()
        if end.position:
            file = self._file(end.segment_base)
            self._size_bytes = size = file.size_bytes
            if size < end.position:
                damage = Damage(f"the file has {size} bytes of {end.position} that were written")
                raise self._segments.corrupt(end.segment_base, size, end.offset, damage)
            if self._control.append_under_way:
                self._cut(file, end)  # what a dead appender left; nobody maps beyond the end
                self._control.append_under_way = False
        return end

    def _cut(self, file: AppendFile, end: LogEnd) -> None:
        """Let the file of the active segment end where its frames do."""
        if self._size_bytes > end.position:
            file.truncate(end.position)
            self._size_bytes = end.position

    def _verify_or_refuse(self) -> None:
        """Verify the partition after a failed write or sync, a second later: there may be room.

        Until then, and where the disk refuses that too, raise `LogError`.
        """
        now_us = self._clock.monotonic_us()
        if self._verify_at_us is None:
            self._verify_at_us = now_us + VERIFY_AFTER_US
        if now_us >= self._verify_at_us:
            self._verify_at_us = now_us + VERIFY_AFTER_US
            self._recover()
            return
        if self._refusal:
            raise LogError(self._refusal)
        self._commit.refuse_after_failure()

    def _make_room(self, end: LogEnd, draft: Draft, now_us: int) -> tuple[LogEnd, EncodedBatch]:
        """Return the end behind which a frame is to be written, and the frame.

        Starts a segment where this one is full or lacks a column.
        """
        if end.position == 0:
            return end, draft.encode(draft.own)
        active = self._active_segment(end)
        layout = draft.layout_in(active.layout)
        if layout is active.layout:
            encoded = draft.encode(layout)
            is_first = end.offset == end.segment_base
            settings = self._settings.known
            age_us = now_us - active.created_us
            is_full = end.position + encoded.frame_size > settings.segment_bytes
            if is_first or not (is_full or age_us > settings.segment_ms * US_PER_MS):
                return end, encoded
            layout = draft.layout_after(active.layout)
        end = self._seal(end)
        assert end.position == 0, "a segment that starts with a marker keeps its columns"
        return end, draft.encode(layout)

    def _active_segment(self, end: LogEnd) -> _Active:
        """Return what to know of the active segment, which has a frame and ends at `end`."""
        active = self._active
        if active is None or active.base != end.segment_base:
            segment = self._segments.open(end.segment_base, end)
            active = _Active(end.segment_base, segment.layout, segment.head.created_us)
            self._active = active
        return active

    def _seal(self, end: LogEnd) -> LogEnd:
        """Make the active segment final; return the end in a new one, which has no head yet."""
        segments = self._segments
        self._cut(self._file(end.segment_base), end)
        if not self._commit.try_seal(end):
            end = self._recover()
            if end.offset == end.segment_base:
                return end  # there is nothing left to seal
        index = self._index
        if (
            index is None
            or index.base_offset != end.segment_base
            or index.size_bytes > end.position
        ):
            index = None
        segment = segments.open(end.segment_base, end)
        index = segments.extend_index(index, segment)
        segments.write_index(index)
        self._sealed = segment, index
        sequences = Sequences(end.segment_base, end.position, end.offset, self._control.losses)
        if self._control.sequenced:
            sequences = advanced(self._sequences, segments, end)
            self._control.sequenced = bool(sequences.stored)
        sequences.segment_base, sequences.position = end.offset, 0
        write_sequences(sequences, segments)
        self._sequences = sequences
        # Published before the file is made: who finds the holder dead goes on from here.
        end = LogEnd(end.offset, 0, end.offset)
        self._control.publish_written(end)
        return end

    def _fail(self, file: AppendFile, end: LogEnd, error: OSError) -> None:
        """Take back what was written of a frame, and refuse to write from here on."""
        with suppress(OSError):  # else the next holder of the lock cuts it
            file.truncate(end.position)
        self._verify_at_us = self._clock.monotonic_us() + VERIFY_AFTER_US
        self._refusal = (
            f"partition {self._segments.name} refuses to write; the disk refused an append "
            f"({error}): make room or look at the disk; what is there is verified, and writing "
            "goes on, with the first append a second from now"
        )
        raise LogError(self._refusal) from error

    def _file(self, base: int) -> AppendFile:
        """Return the segment `base`, kept open; created where it is missing."""
        if self._open is None or self._open[0] != base:
            if self._open is not None:
                self._open[1].close()
                self._settings.refresh()  # altered settings hold from a new segment on
            path = self._segments.path(base)
            refuse_link(self._segments.storage, path)
            self._open = base, self._segments.storage.open_append(path, in_place=True)
        return self._open[1]
