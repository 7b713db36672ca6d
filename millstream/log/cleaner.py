"""Cleans a partition: removes what is too old or too much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from millstream.clock import Clock
from millstream.log.partition import Partition
from millstream.log.retention import SegmentAge, count_expired

US_PER_MS = 1000


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
    """

    topic: str
    partition: int
    segments_removed: int = 0
    bytes_removed: int = 0
    segments_moved: int = 0
    bytes_moved: int = 0


class Cleaner:
    """Cleans one partition; one thread at a time.

    Parameters
    ----------
    partition
        Which; its settings decide. Its caller has the right to clean it.
    clock
        Tells how old rows are.
    stable_end
        Returns its last stable offset: nothing beyond it is touched.
    topic, index
        What the partition is called in what is returned.
    """

    def __init__(
        self,
        partition: Partition,
        clock: Clock,
        stable_end: Callable[[], int],
        topic: str,
        index: int,
    ) -> None:
        self._partition = partition
        self._sealed = partition.sealed
        self._clock = clock
        self._stable_end = stable_end
        self._name = topic, index

    def clean(self) -> Cleaning:
        """Do all that the settings say, and return what was done."""
        self._sealed.tidy()
        self.roll_if_old()
        return Cleaning(*self._name, *self.remove_expired(), *self.move_out())

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
            stable_end=self._stable_end(),
            now_us=self._clock.now_us(),
        )
        sealed.remove_first(segments[:count])
        return count, sum(segment.limit for segment in segments[:count])

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
        stable_end = self._stable_end()
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
