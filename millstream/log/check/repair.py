"""Makes a damaged partition readable again: from a backup whole, else without the lost rows.

What was there is copied to `<log>/damaged/` before anything is changed. A segment that lost rows
is rewritten as a compacted one, in which offsets have gaps: every row that is left keeps its own.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import numpy as np

from millstream.errors import CorruptSegmentError, LogError
from millstream.log.appender import LOCK_NAME as APPEND_LOCK
from millstream.log.backup.vault import Vault
from millstream.log.check.salvage import Hole, salvage
from millstream.log.check.spare import Spare
from millstream.log.check.verify import readable_end, topic_segments
from millstream.log.control_file import LogEnd
from millstream.log.frame import Frame
from millstream.log.generations import partition_name
from millstream.log.group_commit import LOCK_NAME as SYNC_LOCK
from millstream.log.index import index_file_name
from millstream.log.log import Log
from millstream.log.rewriting import Kind, SegmentRewriter
from millstream.log.sealed import LOCK_NAME as CLEAN_LOCK
from millstream.log.sealed import TEMPORARY_SUFFIX
from millstream.log.segment import SUFFIX, Segment, SegmentHead
from millstream.log.segments import Segments
from millstream.log.sequences import Sequences, read_sequences, write_sequences
from millstream.log.topic_config import TopicConfig
from millstream.storage import AppendFile
from millstream.storage_objects import open_objects

_LOCK_TIMEOUT_US = 10_000_000
_WHOLE = 2**62  # as the base of an end: all of a file counts, as far as it goes


@dataclass(frozen=True, slots=True)
class Repair:
    """A segment that is put right.

    Attributes
    ----------
    topic, generation, partition
        Of what.
    path
        The segment.
    lost
        (offset, until): the rows from the one up to, not including, the other are gone. Empty:
        all came from the backup.
    rows_kept
        How many rows of the segment are whole.
    saved_as
        Where the damaged file is; empty: there was none.
    """

    topic: str
    generation: int
    partition: int
    path: str
    lost: list[tuple[int, int]]
    rows_kept: int
    saved_as: str

    @property
    def name(self) -> str:
        """What the partition is called in messages."""
        return partition_name(self.topic, self.generation, self.partition)


def repair(
    log: Log,
    topic: str,
    partition: int | None = None,
    *,
    place: str | None = None,
    dry_run: bool = False,
) -> list[Repair]:
    """Put right what is damaged in a topic, and return what was, or would be, done.

    Parameters
    ----------
    topic, partition
        Of what; by default all partitions.
    place
        Of backups: what is damaged or gone here and whole in the newest one is taken from there.
    dry_run
        Change nothing.

    Raises
    ------
    LockTimeoutError
        Where a process writes to or cleans the partition for longer than ten seconds.
    LogError
        Where the disk refuses; what was not repaired yet is as it was.
    """
    log.refuse_mirror()
    config = log.topic(topic).config
    wanted = [
        (generation, index)
        for generation in config.generations
        for index in range(config.partitions_of(generation))
        if partition in {None, index}
    ]
    spare = None if place is None else Spare(Vault(open_objects(place, log.storage)), log.path)
    return [
        each
        for place in wanted
        for each in _PartitionRepair(log, config, place, spare, dry_run=dry_run).run()
    ]


class _PartitionRepair:
    """The repair of one partition."""

    def __init__(
        self,
        log: Log,
        config: TopicConfig,
        place: tuple[int, int],
        spare: Spare | None,
        *,
        dry_run: bool,
    ) -> None:
        self._log = log
        self._storage = log.storage
        self._config = config
        self._generation, self._index = place
        self._spare = spare
        self._dry_run = dry_run
        self._segments: Segments = topic_segments(log, config, self._index, self._generation)
        self._sequences = Sequences(0, 0, 0)
        self._fetched: dict[int, Segment] = {}

    def run(self) -> list[Repair]:
        """Repair one segment after another, with nobody else at work."""
        segments = self._segments
        with ExitStack() as held:
            for name in (CLEAN_LOCK, APPEND_LOCK, SYNC_LOCK):
                path = f"{segments.directory}/{name}"
                held.enter_context(self._storage.lock(path, _LOCK_TIMEOUT_US))
            end = readable_end(segments)
            done = self._fetch_missing(end)
            last = max(self._fetched, default=0)
            if last > end.segment_base and not segments.control.is_of_this_boot():
                end = LogEnd(last, self._fetched[last].limit, end.offset)
            bases = sorted({*segments.bases(end), *self._fetched})
            for base, following in zip_longest(bases, bases[1:]):
                done += self._look_at(base, following, end)
            if not bases and end.position:
                done.append(self._start_anew(end))
            return done

    def _fetch_missing(self, end: LogEnd) -> list[Repair]:
        """Put segments that are gone in their place again, as far as the backup has them."""
        if self._spare is None:
            return []
        segments = self._segments
        opened = partial(self._open, end=end)
        self._fetched = self._spare.of_missing(segments, end, opened)
        done = []
        for base, segment in self._fetched.items():
            path = segments.path(base)
            if not self._dry_run:
                self._storage.write_file(path, segment.content)
                self._forget_index(base)
            rows = [each.header.row_count for each in salvage(segment) if isinstance(each, Frame)]
            done.append(self._report(path, [], sum(rows), ""))
        segments.relist()
        return done

    def _start_anew(self, end: LogEnd) -> Repair:
        """Let appends go on where no file is left."""
        if not self._dry_run:
            self._publish(end.offset)
        path = self._segments.path(end.segment_base)
        lost = [(end.segment_base, end.offset)]
        return self._report(path, lost, 0, "")

    def _look_at(self, base: int, following: int | None, end: LogEnd) -> list[Repair]:
        """Repair the segment `base`, which the segment `following`, if any, comes after."""
        segment = self._open(base, end)
        has_no_end = following is None and not self._segments.control.is_of_this_boot()
        parts = list(salvage(segment, has_no_end=has_no_end))
        holes = [each for each in parts if isinstance(each, Hole)]
        frames = [each for each in parts if isinstance(each, Frame)]
        self._follow(base, frames)
        reached = frames[-1].end_offset if frames else base
        until = following if following is not None else max(end.offset, reached)
        is_whole = not holes and reached >= until and segment.head.size_bytes > 0
        is_torn_tail = (
            following is None
            and reached >= end.offset
            and all(each.until is None for each in holes)
        )
        if (is_whole or is_torn_tail) and (following is not None or self._fits(segment, end)):
            return []
        spare = self._spare
        found = (
            None
            if spare is None
            else spare.of_damaged(self._segments, segment, until, has_no_end=has_no_end)
        )
        lost = [] if found is not None else _lost(holes, reached, until)
        saved_as = "" if self._dry_run else self._save(segment)
        kept = sum(each.header.row_count for each in frames)
        if not self._dry_run and found is not None:
            self._storage.write_file(self._segments.path(base), found)
            self._forget_index(base)
        elif not self._dry_run:
            self._keep_sequences(until)
            self._rewrite(segment, frames, until)
            if following is None:
                self._publish(until)
        return [self._report(self._segments.path(base), lost, kept, saved_as)]

    def _report(self, path: str, lost: list[tuple[int, int]], kept: int, saved_as: str) -> Repair:
        return Repair(self._config.name, self._generation, self._index, path, lost, kept, saved_as)

    def _follow(self, base: int, frames: list[Frame]) -> None:
        """Take note of what named producers have stored, as far as frames tell it."""
        found = read_sequences(self._segments, base)
        if found is not None:
            self._sequences = found
        for frame in frames:
            self._sequences.add(frame.header)

    def _keep_sequences(self, until: int) -> None:
        """Write down what frames that are rewritten will not tell any more."""
        if self._sequences.stored and read_sequences(self._segments, until) is None:
            self._sequences.segment_base = until
            write_sequences(self._sequences, self._segments)

    def _fits(self, segment: Segment, end: LogEnd) -> bool:
        """Return `True` iff the last file is as long as the control file says."""
        return not self._segments.control.is_of_this_boot() or segment.limit == end.position

    def _open(self, base: int, end: LogEnd) -> Segment:
        """Return a segment; where its head is damaged, with the columns that show most rows."""
        if base in self._fetched:
            return self._fetched[base]
        segments = self._segments
        whole = LogEnd(_WHOLE, 0, 0)
        try:
            segment = segments.open(base, whole)
            if base == end.segment_base and 0 < end.position < segment.limit:
                segment = segments.open(base, end)
        except CorruptSegmentError:
            layouts = [segments.layouts.own]
            for other in segments.bases(end):
                with suppress(LogError):
                    layouts.append(segments.open(other, whole).layout)
            path = segments.path(base)
            size = segments.size(base, whole)
            load = partial(self._storage.map, path, size)
            head = SegmentHead(base, 0, 0, 0, 0, 0)
            return max(
                (Segment((segments.name, path), head, each, size, load) for each in layouts),
                key=_whole_rows,
            )
        return segment

    def _save(self, segment: Segment) -> str:
        """Copy the damaged file aside, and return where it is."""
        folder = f"{self._log.path}/damaged"
        name = "-".join(self._segments.directory.split("/")[-3:])
        path = f"{folder}/{name}-{segment.head.base_offset:020d}{SUFFIX}"
        self._storage.make_directory(folder)
        if not self._storage.exists(path):
            self._storage.write_file(path, segment.content)
        return path

    def _rewrite(self, segment: Segment, frames: list[Frame], until: int) -> None:
        """Put a compacted segment of `frames`, which stands for all up to `until`, in its place."""
        storage = self._storage
        path = self._segments.path(segment.head.base_offset)
        temporary = path.removesuffix(SUFFIX) + TEMPORARY_SUFFIX
        storage.remove(temporary)
        file: AppendFile = storage.open_append(temporary)
        try:
            rewriter = SegmentRewriter(
                file,
                [segment],
                until,
                self._config.time,
                self._config.settings.compression_type,
                self._log.clock.now_us(),
            )
            for frame in frames:
                header = frame.header
                kind = Kind(header.owner_id, header.epoch, header.transaction)
                rewriter.add(frame, np.ones(header.row_count, dtype=bool), kind)
            rewriter.finish()
        finally:
            file.close()
        storage.rename(temporary, path)
        self._forget_index(segment.head.base_offset)

    def _publish(self, offset: int) -> None:
        """Let appends go on in a new segment: the last one is sealed now."""
        control = self._segments.control
        end = LogEnd(offset, 0, offset)
        control.publish_written(end)
        control.publish_durable(end)
        control.settled = 0
        control.append_under_way = False
        control.end_sync()
        control.sync_failed = False
        control.stamp_boot()

    def _forget_index(self, base: int) -> None:
        self._storage.remove(f"{self._segments.directory}/{index_file_name(base)}")


def _whole_rows(segment: Segment) -> int:
    """Return how many rows of a segment are whole."""
    return sum(each.header.row_count for each in salvage(segment) if isinstance(each, Frame))


def _lost(holes: list[Hole], covered: int, until: int) -> list[tuple[int, int]]:
    """Return the ranges of rows that are gone of a segment that should reach `until`."""
    ranges = [(hole.offset, until if hole.until is None else hole.until) for hole in holes]
    if covered < until and not (holes and holes[-1].until is None):
        ranges.append((covered, until))
    return [(start, stop) for start, stop in ranges if stop > start]
