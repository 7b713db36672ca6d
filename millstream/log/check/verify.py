"""Checks every byte of a log that readers may see, and says what is wrong where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from millstream.errors import LogError
from millstream.log.check.salvage import Hole, salvage
from millstream.log.columns import SegmentLayouts
from millstream.log.control_file import ControlFile, LogEnd
from millstream.log.control_topic import SCHEMA as CONTROL_SCHEMA
from millstream.log.control_topic import control_directory
from millstream.log.frame import Frame
from millstream.log.frame_header import Damage
from millstream.log.generations import partition_name
from millstream.log.index import SegmentIndex, index_file_name
from millstream.log.log import Log
from millstream.log.segment import Segment
from millstream.log.segments import SegmentRemovedError, Segments
from millstream.log.tier.cache import SegmentCache
from millstream.log.topic_config import TopicConfig

CONTROL = "control"
"""What the control topic is called in findings."""

Kind = Literal["rows", "index", "tail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written.

    Attributes
    ----------
    kind
        `"rows"`: rows are lost; `"index"`: an index file, which is made anew from its segment;
        `"tail"`: what a dead process left behind the last row, which nobody reads and the next
        appender cuts.
    path, position
        The file, and where in it, in bytes.
    offset, until
        The rows from `offset` up to, not including, `until` cannot be read; `until` is `None`
        where it is not known.
    reason
        What is wrong.
    """

    kind: Kind
    path: str
    position: int
    offset: int
    until: int | None
    reason: str

    @property
    def is_damage(self) -> bool:
        """Whether rows are lost."""
        return self.kind == "rows"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of one partition found.

    Attributes
    ----------
    topic, generation, partition
        Which.
    segments, rows, bytes
        How much was checked; rows that are whole.
    findings
        What is wrong, in order; empty: nothing.
    """

    topic: str
    generation: int
    partition: int
    segments: int
    rows: int
    bytes: int
    findings: list[Finding]

    @property
    def name(self) -> str:
        """What the partition is called in messages."""
        return partition_name(self.topic, self.generation, self.partition)

    @property
    def is_damaged(self) -> bool:
        """Whether rows are lost."""
        return any(each.is_damage for each in self.findings)


def verify(log: Log, topic: str | None = None) -> Iterator[Verdict]:
    """Check all partitions of a topic, or of the whole log, and yield what was found.

    Reads every byte; writes nothing. Producers may go on meanwhile.

    Raises
    ------
    UnknownTopicError
        Where there is no such topic.
    """
    configs = [log.topic(topic).config] if topic is not None else log.configs()
    for config in configs:
        for generation in config.generations:
            for index in range(config.partitions_of(generation)):
                segments = topic_segments(log, config, index, generation)
                yield _Check(segments).run(config.name, index, generation)
    storage = log.storage
    if topic is None and storage.exists(control_directory(log.path)):
        directory = control_directory(log.path)
        layouts = SegmentLayouts(CONTROL_SCHEMA)
        control = ControlFile(storage, directory)
        segments = Segments(storage, directory, CONTROL, layouts, control, "fsync")
        yield _Check(segments).run(CONTROL, 0, 0)


def topic_segments(log: Log, config: TopicConfig, index: int, generation: int) -> Segments:
    """Return the segments of a partition as they are, whether they can be recovered or not."""
    directory = f"{log.path}/topics/{config.id}/{generation}/{index}"
    log.storage.make_directory(directory)
    return Segments(
        log.storage,
        directory,
        partition_name(config.name, generation, index),
        SegmentLayouts(config.stored_schema),
        ControlFile(log.storage, directory),
        config.durability,
        SegmentCache(log.storage, log.path, lambda: config.settings.remote_cache_bytes),
    )


class _Check:
    """A check of one partition under way."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._end = readable_end(segments)
        self._findings: list[Finding] = []
        self._rows = self._bytes = self._count = 0
        self._expected: int | None = None  # offset of the next row, where it is known

    def run(self, topic: str, partition: int, generation: int) -> Verdict:
        """Check everything."""
        end = self._end
        for base in self._segments.bases(end):
            try:
                self._check(self._segments.open(base, end))
            except SegmentRemovedError:
                continue  # by a cleaner, just now
            except LogError as error:
                self._lost(self._segments.path(base), base, None, str(error))
                self._expected = None
        if self._expected is not None and self._expected < end.offset and not self._findings:
            reason = f"the rows up to {end.offset} were durable"
            self._lost(self._segments.path(end.segment_base), self._expected, end.offset, reason)
        return Verdict(
            topic,
            generation,
            partition,
            self._count,
            self._rows,
            self._bytes,
            self._findings,
        )

    def _check(self, segment: Segment) -> None:
        base, expected = segment.head.base_offset, self._expected
        if expected is not None and base < expected:
            return  # what a compacted segment replaced
        if expected is not None and base > expected:
            self._lost(self._segments.path(base), expected, base, "a segment is missing")
        self._count += 1
        self._bytes += segment.limit
        self._expected = base
        is_last = base == self._end.segment_base
        following = None if is_last else self._segments.base_from(base + 1, self._end)
        holes = 0
        has_no_end = is_last and not self._segments.control.is_of_this_boot()
        for found in salvage(segment, has_no_end=has_no_end):
            if isinstance(found, Frame):
                self._rows += found.header.row_count
                self._expected = found.end_offset
                continue
            holes += 1
            hole = replace(found, until=found.until or following)
            self._findings.append(_finding(segment, hole, self._segments, is_last=is_last))
            self._expected = hole.until or hole.offset
        self._expected = max(self._expected, segment.head.compacted_end)
        if not is_last and not holes:
            self._findings += _index_findings(segment, self._segments)

    def _lost(self, path: str, offset: int, until: int | None, reason: str) -> None:
        self._findings.append(Finding("rows", path, 0, offset, until, reason))


def readable_end(segments: Segments) -> LogEnd:
    """Return the end for readers; after a power cut the end of the last file there is."""
    if segments.control.is_of_this_boot():
        return segments.end()
    far = LogEnd(2**62, 0, 0)
    bases = segments.bases(far)
    if not bases:
        return LogEnd(0, 0, 0)
    last = bases[-1]
    segments.relist()
    durable = segments.control.durable()
    return LogEnd(last, segments.size(last, far), 0 if durable is None else durable.offset)


def _finding(segment: Segment, hole: Hole, segments: Segments, *, is_last: bool) -> Finding:
    path = segment.source[1]
    reason = f"{hole.end_position - hole.position} bytes are damaged: {hole.reason}"
    is_tail = is_last and hole.until is None and not segments.control.is_of_this_boot()
    durable = segments.control.durable()
    if is_tail and (durable is None or durable.offset <= hole.offset):
        return Finding("tail", path, hole.position, hole.offset, None, reason)
    return Finding("rows", path, hole.position, hole.offset, hole.until, reason)


def _index_findings(segment: Segment, segments: Segments) -> list[Finding]:
    """Return what is wrong with a sealed segment's index file; none is nothing wrong."""
    base = segment.head.base_offset
    path = f"{segments.directory}/{index_file_name(base)}"
    try:
        content = segments.storage.read_file(path)
    except FileNotFoundError:
        return []
    stored = SegmentIndex.try_decode(content)
    if isinstance(stored, Damage):
        return [Finding("index", path, 0, base, None, stored.reason)]
    if stored != segments.extend_index(None, segment):
        return [Finding("index", path, 0, base, None, "it does not fit its segment")]
    return []
