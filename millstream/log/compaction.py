"""Compacts sealed segments: of each key the latest row is kept, and nothing of aborted rows.

    key columns ─▶ the latest row of each key ─▶ groups of neighbouring segments ─▶ each group
    is rewritten as one segment, the oldest first

The oldest comes first so that a crash, or a reader in between, never finds a row that a later
one replaced without that later one; nor a row whose tombstone is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.log.columns import OPERATION_COLUMN
from millstream.log.frame import Frame
from millstream.log.frame_header import Damage, FrameHeader
from millstream.log.latest_rows import RowSet, latest_rows
from millstream.log.rewriting import Kind, SegmentRewriter
from millstream.log.sealed import SealedSegments
from millstream.log.segment import Segment
from millstream.log.settings import TopicSettings
from millstream.log.topic_config import TOMBSTONE
from millstream.storage import AppendFile

US_PER_MS = 1000


class CleaningStoppedError(Exception):
    """Raised when a cleaning beside other work was told to stop; the next one goes on."""


@dataclass(slots=True)
class Compacted:
    """What a compaction did.

    Attributes
    ----------
    segments_before, segments_after
        How many segments were rewritten, and what they became.
    rows_dropped
        Rows that a later one replaced, of aborted transactions, and old tombstones.
    bytes_before, bytes_after
        Sizes of the files that were rewritten, and of what they became.
    """

    segments_before: int = 0
    segments_after: int = 0
    rows_dropped: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


@dataclass(frozen=True, slots=True)
class _Source:
    """A segment, the number of its first row among all, and how many rows it has and keeps."""

    segment: Segment
    first_row: int
    rows: int
    kept: int
    has_aborted: bool

    @property
    def bytes_kept(self) -> int:
        return self.segment.limit * self.kept // max(self.rows, 1)


class Compaction:
    """Compacts `segments`, which begin with the partition's first and are all decided.

    Parameters
    ----------
    sealed
        Of the partition.
    segments
        What is compacted.
    key, time_column
        Of the topic.
    settings
        Of the topic.
    is_aborted
        Tells whether the rows of a frame were taken back.
    now_us
        The time.
    stopping
        Asked now and then; `True` stops the compaction by `CleaningStoppedError`.
    """

    def __init__(
        self,
        sealed: SealedSegments,
        segments: Sequence[Segment],
        *,
        key: Sequence[str],
        time_column: str | None,
        settings: TopicSettings,
        is_aborted: Callable[[FrameHeader], bool],
        now_us: int,
        stopping: Callable[[], bool],
    ) -> None:
        self._sealed = sealed
        self._segments = segments
        self._key = list(key)
        self._time_column = time_column
        self._settings = settings
        self._is_aborted = is_aborted
        self._now_us = now_us
        self._stopping = stopping
        self._latest = RowSet(0)

    def run(self) -> Compacted:
        """Compact; raises `LogError` where the disk refuses: what was not rewritten stays."""
        rows = sum(frame.header.row_count for each in self._segments for frame in self._rows(each))
        self._latest = latest_rows(self._keys, self._key, rows)
        done = Compacted()
        for group in self._groups(self._sources()):
            if self._needs_rewriting(group):
                self._rewrite(group, done)
        return done

    def _frames(self, segment: Segment) -> Iterator[Frame]:
        position, offset = segment.head.size_bytes, segment.head.base_offset
        for frame in segment.walk(position, offset):
            if self._stopping():
                raise CleaningStoppedError
            if isinstance(frame, Damage):
                raise self._sealed.corrupt(segment, position, offset, frame)
            yield frame
            position, offset = position + frame.header.frame_size, frame.end_offset

    def _rows(self, segment: Segment) -> Iterator[Frame]:
        """Yield the frames that have rows which count."""
        for frame in self._frames(segment):
            if frame.header.row_count and not self._is_aborted(frame.header):
                yield frame

    def _keys(self) -> Iterator[pa.RecordBatch]:
        for segment in self._segments:
            for frame in self._rows(segment):
                yield frame.batch(self._key)

    def _sources(self) -> Iterator[_Source]:
        """Yield each segment with what is to be kept of it."""
        first_row = 0
        for segment in self._segments:
            rows = kept = every = 0
            for frame in self._frames(segment):
                every += frame.header.row_count
            for frame, is_kept in self._kept(segment, first_row):
                rows += frame.header.row_count
                kept += int(np.count_nonzero(is_kept))
            yield _Source(segment, first_row, rows, kept, every > rows)
            first_row += rows

    def _kept(
        self, segment: Segment, first_row: int
    ) -> Iterator[tuple[Frame, npt.NDArray[np.bool_]]]:
        """Yield the frames of a segment, and which of their rows are kept."""
        limit_us = self._settings.delete_retention_ms * US_PER_MS
        for frame in self._rows(segment):
            count = frame.header.row_count
            is_kept = self._latest.slice(first_row, count)
            since_us = _tombstones_since(frame)
            if since_us and self._now_us - since_us > limit_us:
                is_kept &= ~_tombstones(frame)
            yield frame, is_kept
            first_row += count

    def _groups(self, sources: Iterator[_Source]) -> Iterator[list[_Source]]:
        """Yield neighbours whose rows fit into one segment together."""
        group: list[_Source] = []
        size = 0
        for source in sources:
            if group and size + source.bytes_kept > self._settings.segment_bytes:
                yield group
                group, size = [], 0
            group.append(source)
            size += source.bytes_kept
        if group:
            yield group

    def _needs_rewriting(self, group: list[_Source]) -> bool:
        if len(group) > 1 or not group[0].segment.head.is_compacted:
            return True
        return group[0].kept < group[0].rows or group[0].has_aborted

    def _rewrite(self, group: list[_Source], done: Compacted) -> None:
        segments = [source.segment for source in group]
        end_offset = self._sealed.end_offset(segments[-1])

        def write(file: AppendFile) -> None:
            rewriter = SegmentRewriter(
                file, segments, end_offset, self._time_column,
                self._settings.compression_type, self._now_us,
            )  # fmt: skip
            for source in group:
                for frame, is_kept in self._kept(source.segment, source.first_row):
                    rewriter.add(frame, is_kept, self._kind(frame, is_kept))
            rewriter.finish()

        replaced = self._sealed.replace(segments, write)
        done.segments_before += len(segments)
        done.segments_after += 1
        done.rows_dropped += sum(source.rows - source.kept for source in group)
        done.bytes_before += sum(segment.limit for segment in segments)
        done.bytes_after += replaced.limit

    def _kind(self, frame: Frame, is_kept: npt.NDArray[np.bool_]) -> Kind:
        """Return the kind of the kept rows; tombstones are dated where they are first met."""
        if OPERATION_COLUMN not in frame.columns or not (_tombstones(frame) & is_kept).any():
            return Kind()
        return Kind(tombstones_since_us=_tombstones_since(frame) or self._now_us)


def _tombstones(frame: Frame) -> npt.NDArray[np.bool_]:
    operations = frame.batch([OPERATION_COLUMN]).column(0).to_numpy()
    return np.equal(operations, TOMBSTONE)


def _tombstones_since(frame: Frame) -> int:
    """Return when a compaction first met the tombstones of a frame; 0: none has, or has any."""
    return frame.header.sequence if frame.header.is_compacted else 0
