"""Cleans a partition: removes what is too old or too much, and compacts the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile

from millstream.clock import Clock
from millstream.log.compaction import Compacted, Compaction
from millstream.log.frame_header import FrameHeader
from millstream.log.partition import Partition
from millstream.log.retention import SegmentAge, count_expired
from millstream.log.segment import Segment

US_PER_MS = 1000
MS_MAX = 2**53
"""Longer than any clock runs."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What a cleaning did to a partition.

    Attributes
    ----------
    topic, partition
        Which.
    segments_removed, bytes_removed
        Of those removed by `retention.ms` and `retention.bytes`.
    segments_moved, bytes_moved
        Of those moved to the topic's `remote.storage.place`.
    compacted
        What was compacted.
    """

    topic: str
    partition: int
    segments_removed: int = 0
    bytes_removed: int = 0
    segments_moved: int = 0
    bytes_moved: int = 0
    compacted: Compacted = field(default_factory=Compacted)


@dataclass(frozen=True, slots=True)
class Committed:
    """What is decided in a partition.

    Attributes
    ----------
    stable_end
        Returns the last stable offset: nothing beyond it is touched.
    is_aborted
        Tells of a frame before it whether its rows were taken back.
    """

    stable_end: Callable[[], int]
    is_aborted: Callable[[FrameHeader], bool]


class Cleaner:
    """Cleans one partition; one thread at a time.

    Parameters
    ----------
    partition
        Which; its settings decide. Its caller has the right to clean it.
    key
        The topic's key columns.
    clock
        Tells how old rows are.
    committed
        What is decided.
    stopping
        Asked now and then; `True` stops the cleaning by `CleaningStoppedError`.
    keeps_tombstones
        Whether they stay however old they are.
    """

    def __init__(
        self,
        partition: Partition,
        key: tuple[str, ...],
        clock: Clock,
        committed: Committed,
        stopping: Callable[[], bool] = bool,
        *,
        keeps_tombstones: bool = False,
    ) -> None:
        self._partition = partition
        self._keeps_tombstones = keeps_tombstones
        self._sealed = partition.sealed
        self._key = key
        self._clock = clock
        self._committed = committed
        self._stopping = stopping

    def compact(self, *, if_worthwhile: bool = False) -> Compacted:
        """Keep the latest row of each key only, in the segments that are decided.

        Parameters
        ----------
        if_worthwhile
            Do it only where `min.cleanable.dirty.ratio` is reached.
        """
        settings = self._partition.settings.known
        segments = self._decided(self._committed.stable_end())
        if not settings.compacts or not segments:
            return Compacted()
        size = sum(segment.limit for segment in segments)
        dirty = sum(segment.limit for segment in segments if not segment.head.is_compacted)
        if if_worthwhile and (not dirty or dirty < settings.min_cleanable_dirty_ratio * size):
            return Compacted()
        compaction = Compaction(
            self._sealed,
            segments,
            key=self._key,
            time_column=self._partition.time_column,
            settings=replace(settings, delete_retention_ms=MS_MAX)
            if self._keeps_tombstones
            else settings,
            is_aborted=self._committed.is_aborted,
            now_us=self._clock.now_us(),
            stopping=self._stopping,
        )
        return compaction.run()

    def _decided(self, stable_end: int) -> list[Segment]:
        """Return the sealed segments that do not reach beyond the last stable offset."""
        return list(
            takewhile(lambda each: self._sealed.end_offset(each) <= stable_end, self._sealed.list())
        )

    def roll_if_old(self) -> None:
        """Seal the active segment where no append did in time."""
        settings = self._partition.settings.refresh()
        limits_ms = [settings.segment_ms]
        if settings.deletes and settings.retention_ms >= 0:
            limits_ms.append(settings.retention_ms)
        active = self._sealed.active()
        if active is not None:
            age_us = self._clock.now_us() - active.head.created_us
            if age_us > min(limits_ms) * US_PER_MS:
                self._partition.roll()

    def remove_expired(self) -> tuple[int, int]:
        """Remove the oldest segments that may not be kept; return how many, and their bytes.

        The last file of a partition stays: its name says which offset comes next.
        """
        partition, sealed = self._partition, self._sealed
        segments = sealed.list()
        active = sealed.active()
        heads = [each.head for each in segments] + ([] if active is None else [active.head])
        ages = [
            SegmentAge(
                sealed.end_offset(segment),
                segment.limit,
                sealed.newest_us(segment),
                following.created_us,
            )
            for segment, (_, following) in zip(segments, pairwise(heads), strict=False)
        ]
        count = count_expired(
            ages,
            partition.settings.known,
            size_bytes=sum(size for _, size in partition.segments()),
            stable_end=self._committed.stable_end(),
            now_us=self._clock.now_us(),
        )
        sealed.remove_first(segments[:count])
        return count, sum(segment.limit for segment in segments[:count])

    def is_expired(self, closed_us: int) -> bool:
        """Return `True` iff no row of a partition that was closed at that time may be kept."""
        sealed = self._sealed
        if sealed.active() is not None:
            self._partition.roll()  # a power cut undid the roll
        ages = [
            SegmentAge(sealed.end_offset(each), each.limit, sealed.newest_us(each), closed_us)
            for each in sealed.list()
        ]
        count = count_expired(
            ages,
            self._partition.settings.known,
            size_bytes=sum(each.size_bytes for each in ages),
            stable_end=self._committed.stable_end(),
            now_us=self._clock.now_us(),
        )
        return count == len(ages)

    def move_out(self) -> tuple[int, int]:
        """Move what need not stay on this disk; return how many segments, and their bytes.

        All of a segment that is moved is decided: nobody looks at it again but readers.
        """
        settings, sealed = self._partition.settings.known, self._sealed
        if not settings.remote_storage_place or sealed.active() is None:
            return 0, 0  # the last file of a partition stays
        here = [each for each in sealed.list() if not sealed.is_moved(each)]
        size = sum(each.limit for each in here)
        oldest_us = self._clock.now_us() - settings.local_retention_ms * US_PER_MS
        stable_end = self._committed.stable_end()
        moved = []
        for segment in here:
            too_much = 0 <= settings.local_retention_bytes < size
            too_old = settings.local_retention_ms >= 0 and sealed.newest_us(segment) < oldest_us
            if not (too_much or too_old) or sealed.end_offset(segment) > stable_end:
                break
            sealed.move(segment, settings.remote_storage_place, self._folder())
            size -= segment.limit
            moved.append(segment.limit)
        return len(moved), sum(moved)

    def _folder(self) -> str:
        """Return where in a store the partition's segments are put: topic, generation, number."""
        return "/".join(self._partition.directory.split("/")[-3:])
