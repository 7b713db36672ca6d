"""The sealed segments of a partition as a cleaner handles them: listed, removed, replaced.

One cleaner at a time, in all processes. It may die between any two effects: what it leaves is
a partition, perhaps with files that no reader looks at, which the next cleaner removes.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress

from millstream.errors import LogError
from millstream.log.control_file import LogEnd
from millstream.log.frame_header import Damage
from millstream.log.index import SUFFIX as INDEX_SUFFIX
from millstream.log.index import index_file_name
from millstream.log.row_time import TIME_MIN
from millstream.log.segment import MOVED_SUFFIX, Segment, segment_bases, segment_file_name
from millstream.log.segment import SUFFIX as SEGMENT_SUFFIX
from millstream.log.segments import Segments
from millstream.log.sequences import SUFFIX as SEQUENCES_SUFFIX
from millstream.log.sequences import keep_sequences, sequences_file_name
from millstream.log.skipping import store_statistics
from millstream.log.tier.mover import move_out, remove_moved
from millstream.storage import AppendFile

LOCK_NAME = "clean.lock"
TEMPORARY_SUFFIX = f"{SEGMENT_SUFFIX}.tmp"


class SealedSegments:
    """The sealed segments in `segments`. All but `exclusive` is called inside of that."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._storage = segments.storage
        self._directory = segments.directory

    def exclusive(self, timeout_us: int) -> AbstractContextManager[object]:
        """Hold the right to clean; raises `LockTimeoutError`, naming the process that has it."""
        return self._storage.lock(f"{self._directory}/{LOCK_NAME}", timeout_us)

    def list(self) -> list[Segment]:
        """Return all segments that are durable and grow no more, mapped, in order.

        Leftovers of what a compacted segment replaced are not among them.
        """
        durable = self._segments.control.durable()
        return [] if durable is None else self._before(durable)

    def _before(self, durable: LogEnd) -> builtins.list[Segment]:
        """Return the segments before the one that `durable` is in; see `list`."""
        segments = self._segments
        segments.relist()
        found: list[Segment] = []
        for base in segments.bases(durable):
            if base == durable.segment_base:
                break
            if not found or base >= found[-1].head.compacted_end:
                found.append(segments.open(base, durable))
        return found

    def active(self) -> Segment | None:
        """Return the segment behind the sealed ones; `None` where it has no rows yet."""
        durable = self._segments.control.durable()
        if durable is None or durable.position == 0:
            return None
        return self._segments.open(durable.segment_base, durable)

    def end_offset(self, segment: Segment) -> int:
        """Return the offset behind the last row that a sealed segment stands for."""
        index = self._segments.index_of(segment, is_active=False)
        return max(index.end_offset, segment.head.compacted_end)

    def newest_us(self, segment: Segment) -> int:
        """Return the largest time of a sealed segment's rows; `TIME_MIN`: none has one."""
        index = self._segments.index_of(segment, is_active=False)
        return max(index.max_timestamps_us, default=TIME_MIN)

    def remove_first(self, segments: Sequence[Segment]) -> None:
        """Remove the partition's first segments, the oldest first.

        Each is durably gone before the next one goes: there is never a gap.
        """
        if segments:
            keep_sequences(self._segments, self.end_offset(segments[-1]))
        for segment in segments:
            self.remove_moved(segment.head.base_offset)
            self._storage.remove(f"{self._directory}/{segment_file_name(segment.head.base_offset)}")
        for segment in segments:
            for path in self._paths_beside(segment.head.base_offset):
                self._storage.remove(path)
        self._segments.relist()

    def replace(self, sources: Sequence[Segment], write: Callable[[AppendFile], None]) -> Segment:
        """Put what `write` writes in the place of `sources`, one behind the other; return it.

        Raises `LogError` where the disk refuses; nothing was changed then.
        """
        storage, segments = self._storage, self._segments
        base = sources[0].head.base_offset
        path = segments.path(base)
        temporary = path.removesuffix(SEGMENT_SUFFIX) + TEMPORARY_SUFFIX
        try:
            keep_sequences(segments, self.end_offset(sources[-1]))
            storage.remove(temporary)
            file = storage.open_append(temporary)
            try:
                write(file)
            finally:
                file.close()
            storage.rename(temporary, path)  # a file here counts before one that was moved
        except OSError as error:
            with suppress(OSError):
                storage.remove(temporary)
            segments.refuse_removed()
            message = f"partition {segments.name}: the disk refused a cleaning: {error}"
            raise LogError(message) from error
        for source in sources:
            self.remove_moved(source.head.base_offset)
        for source in sources[1:]:
            storage.remove(segments.path(source.head.base_offset))
        for source in sources[1:]:
            for path in self._paths_beside(source.head.base_offset):
                storage.remove(path)
        segments.relist()
        replaced = segments.open(base, segments.end())
        index = segments.index_of(replaced, is_active=False)
        store_statistics(segments, replaced, index)
        return replaced

    def corrupt(self, segment: Segment, position: int, offset: int, damage: Damage) -> LogError:
        """Return the error for damage in a sealed segment."""
        return self._segments.corrupt(segment.head.base_offset, position, offset, damage)

    def tidy(self) -> None:
        """Remove what cleaners that died left: unfinished and replaced segments, lone indexes."""
        storage, directory = self._storage, self._directory
        # Once, before anything is listed: what is sealed meanwhile is no leftover.
        durable = self._segments.control.durable()
        names = storage.list_directory(directory)
        for name in names:
            if name.endswith(TEMPORARY_SUFFIX):
                storage.remove(f"{directory}/{name}")
        if durable is None:
            return
        kept = {segment.head.base_offset for segment in self._before(durable)}
        for base in segment_bases(storage, directory):
            if base < durable.segment_base and base not in kept:
                self.remove_moved(base)
                storage.remove(f"{directory}/{segment_file_name(base)}")
            elif storage.exists(f"{directory}/{segment_file_name(base)}"):
                self.remove_moved(base)  # it was rewritten here, or not quite moved
        for name in names:
            stem = name.removesuffix(INDEX_SUFFIX).removesuffix(SEQUENCES_SUFFIX)
            if stem == name or not stem.isdigit() or int(stem) in kept:
                continue
            if int(stem) < durable.segment_base:
                storage.remove(f"{directory}/{name}")
        self._segments.relist()

    def move(self, segment: Segment, place: str, folder: str) -> None:
        """Move a sealed segment to a store of objects; see `millstream.log.tier.mover`."""
        move_out(self._storage, self._directory, segment, place, folder)

    def is_moved(self, segment: Segment) -> bool:
        """Return `True` iff a segment is in a store of objects."""
        return segment.source[1].endswith(MOVED_SUFFIX)

    def remove_moved(self, base: int) -> None:
        """Remove a segment from the store of objects where it is in one."""
        remove_moved(self._storage, self._directory, base)

    def _paths_beside(self, base: int) -> Sequence[str]:
        """Return what goes with a segment: its index, and what is known of the rows before it."""
        return [self._index_path(base), f"{self._directory}/{sequences_file_name(base)}"]

    def _index_path(self, base: int) -> str:
        return f"{self._directory}/{index_file_name(base)}"
