"""A picture of a log: which bytes of which files are the log at one moment.

The moment is an end of the control topic. It is read before the ends of all other partitions:
every transaction that was decided by then has all its frames before those ends, and one that
was not is undecided in the picture, wherever its frames lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from millstream.errors import CorruptSegmentError, LogError, UnknownTopicError
from millstream.log.control_file import LogEnd
from millstream.log.control_topic import ControlTopic, control_directory
from millstream.log.log import MIRROR_FILE, Log
from millstream.log.partition import Partition
from millstream.log.segment import Segment
from millstream.log.segments import SegmentRemovedError
from millstream.log.topic_config import TopicConfig
from millstream.storage import Storage
from millstream.storage_objects import files_below

Result = TypeVar("Result")

TRIES_MAX = 20

_VOLATILE = (".lock", ".tmp", "/control", "/epochs", "/cells", ".arrows", ".index", ".moved")
"""How files end that are not copied: locks, what a boot maps, and what is copied otherwise."""

_OF_THIS_LOG = frozenset({MIRROR_FILE, "bells", "cache"})
"""What lies beside the topics and is of no use to a copy."""


@dataclass(frozen=True, slots=True)
class SegmentPicture:
    """The readable bytes of a segment, mapped: whoever replaces the file changes nothing here.

    Attributes
    ----------
    path
        Of the file, below the log's folder.
    mark
        The segment's head as hex digits: equal as long as the file was only appended to.
    segment
        The bytes.
    """

    path: str
    mark: str
    segment: Segment

    @property
    def content(self) -> pa.Buffer:
        """The bytes; those of a segment that was moved away are fetched now."""
        return self.segment.content


@dataclass(frozen=True, slots=True)
class PartitionPicture:
    """The segments of a partition up to its end.

    Attributes
    ----------
    directory
        Below the log's folder.
    end
        The readable end.
    segments
        In order.
    """

    directory: str
    end: LogEnd
    segments: list[SegmentPicture]


@dataclass(frozen=True, slots=True)
class Picture:
    """A log at one moment.

    Attributes
    ----------
    control
        The control topic's partition; `None`: nobody ever owned a transaction.
    partitions
        Of all topics, and of what groups have committed.
    topics
        What the topics are.
    """

    control: PartitionPicture | None
    partitions: list[PartitionPicture]
    topics: list[TopicConfig]

    @property
    def descriptions(self) -> dict[str, bytes]:
        """The `topic.json` of each topic, by its path below the log's folder."""
        return {f"topics/{each.id}/topic.json": each.to_file() for each in self.topics}


def take_picture(log: Log) -> Picture:
    """Return what `log` is now.

    Raises
    ------
    LogError
        Where segments were replaced faster than they could be looked at.
    """
    for _ in range(TRIES_MAX):
        # Compaction writes down which rows are committed. Done between the two moments it would
        # show a transaction in one partition that is undecided in the others.
        before = _sealed_marks(log)
        control = _control_picture(log)
        try:
            topics = log.configs()
            names = [each.name for each in topics]
            partitions = [_picture(log, each) for each in _partitions(log, names)]
        except (CorruptSegmentError, UnknownTopicError):
            if _sealed_marks(log) == before:
                raise
            continue
        marks = {each.path: each.mark for picture in partitions for each in picture.segments}
        unchanged = _generations(log.configs()).items() >= _generations(topics).items()
        if unchanged and all(marks.get(path) == mark for path, mark in before.items()):
            return Picture(control, partitions, topics)
    message = (
        f"the segments of {log.path} were replaced {TRIES_MAX} times while they were looked at; "
        "try again when cleaning is done"
    )
    raise LogError(message)


def with_picture(log: Log, work: Callable[[Picture], Result]) -> Result:
    """Return what `work` makes of a picture of `log`; of another one where a segment is gone.

    Of a segment that was moved away the bytes are fetched when they are asked for.

    Raises
    ------
    LogError
        Where that happens again and again.
    """
    for _ in range(TRIES_MAX):
        with suppress(SegmentRemovedError):
            return work(take_picture(log))
    message = (
        f"moved segments of {log.path} were removed {TRIES_MAX} times while they were fetched; "
        "try again when cleaning is done"
    )
    raise LogError(message)


def other_files(storage: Storage, path: str) -> Iterator[str]:
    """Yield the paths, below the log's folder, of the files that hold no rows and are kept."""
    for file in files_below(storage, path):
        name = file.removeprefix(f"{path}/")
        if name.endswith(_VOLATILE) or name.partition("/")[0] in _OF_THIS_LOG:
            continue
        yield name


def _partitions(log: Log, names: Iterable[str]) -> list[Partition]:
    """Return the partitions of topics, and those of the offsets that groups have committed."""
    topics = [log.topic(name) for name in names]
    partitions = [
        each.partition(index, generation) for each in topics for generation, index in each.places()
    ]
    return partitions + log.group_partitions()


def _generations(topics: list[TopicConfig]) -> dict[str, tuple[int, ...]]:
    return {each.id: tuple(each.generations) for each in topics}


def _control_picture(log: Log) -> PartitionPicture | None:
    if not log.storage.exists(control_directory(log.path)):
        return None
    control = ControlTopic(log.path, log.storage, log.clock)
    return _picture(log, control.partition)


def _sealed_marks(log: Log) -> dict[str, str]:
    """Return the marks of all segments that begin before the end."""
    marks = {}
    for partition in _partitions(log, log.topic_names()):
        for each in _picture(log, partition).segments:
            marks[each.path] = each.mark
    return marks


def _picture(log: Log, partition: Partition) -> PartitionPicture:
    end, segments = partition.mapped_segments()
    return PartitionPicture(
        partition.directory.removeprefix(f"{log.path}/"),
        end,
        [
            SegmentPicture(path.removeprefix(f"{log.path}/"), segment.mark, segment)
            for path, segment in segments
        ],
    )
