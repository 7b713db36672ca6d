"""Finds a partition's end after a power cut or a sync that failed (FORMAT.md, "Recovery").

Only the holder of the partition's append lock and sync lock calls this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millstream.errors import LogError
from millstream.log.columns import SegmentLayouts
from millstream.log.control_file import ControlFile, LogEnd
from millstream.log.frame import Frame, corrupt
from millstream.log.frame_header import Damage, try_any_frame_header
from millstream.log.links import refuse_link
from millstream.log.metadata import ALIGNMENT, CONTINUATION
from millstream.log.segment import Segment, segment_bases, segment_file_name, try_head
from millstream.storage import AppendFile, Storage


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a recovery needs to know of its partition.

    Attributes
    ----------
    storage, directory, layouts, name
        The partition's.
    control
        Its control file.
    keeps_written
        Whether readers see what was written but not synced (durability `os`): then nothing
        before the written end may be cut while the machine runs.
    """

    storage: Storage
    directory: str
    layouts: SegmentLayouts
    name: str
    control: ControlFile
    keeps_written: bool

    def run(self) -> LogEnd:
        """Cut what is torn, sync what is whole, publish and return the partition's end.

        Raises
        ------
        CorruptSegmentError
            Where rows that were durable are damaged; nothing was cut then.
        LogError
            Where the disk refuses the sync; nothing was published then.
        """
        end = self._find_and_mend(self._floor() or LogEnd(0, 0, 0))
        written = self.control.written() if self.control.is_of_this_boot() else None
        if written is None or end.offset < written.offset:
            self.control.count_loss()
        self.control.publish_written(end)
        self.control.publish_durable(end)
        self.control.sequenced = end.offset > 0  # the next roll finds out
        self.control.settled = 0  # in durability `os` there may be other rows now
        self.control.append_under_way = False
        self.control.end_sync()
        self.control.sync_failed = False
        if not self.control.is_of_this_boot():
            self.control.closed = False  # whoever appends in this boot has read topic.json in it
        self.control.stamp_boot()
        return end

    def _find_and_mend(self, floor: LogEnd) -> LogEnd:
        """Return the partition's end, with all before it durable and nothing behind it."""
        bases = segment_bases(self.storage, self.directory)
        base = bases[-1] if bases else 0
        compacted = self._compacted_end(base) if bases else 0
        if compacted and compacted >= floor.offset:
            return LogEnd(compacted, 0, compacted)
        if floor.segment_base > base and (floor.position or not bases):
            damage = Damage(f"{segment_file_name(floor.segment_base)} is missing")
            raise corrupt((self.name, self._path(base)), 0, floor.segment_base, damage)
        end = LogEnd(base, 0, base)
        if bases or floor.position:
            refuse_link(self.storage, self._path(base))
            file = self.storage.open_append(self._path(base))
            try:
                end = self._mend(file, base, floor)
            except OSError as error:
                message = f"partition {self.name} cannot be recovered; the disk says: {error}"
                raise LogError(message) from error
            finally:
                file.close()
        if floor.segment_base > base and end.offset == floor.offset:
            end = floor  # a roll was under way: the next segment has no file yet
        return end

    def _compacted_end(self, base: int) -> int:
        """Return up to which offset the segment `base` was compacted; 0: it was not.

        A compacted segment is durable and takes no more rows, even if it is the last.
        """
        path = self._path(base)
        buffer = self.storage.map(path)
        head = try_head(memoryview(buffer), buffer.size)
        return 0 if isinstance(head, Damage) else head.compacted_end

    def _path(self, base: int) -> str:
        return f"{self.directory}/{segment_file_name(base)}"

    def _floor(self) -> LogEnd | None:
        """Return the place before which nothing may be cut, as far as it is known."""
        if self.keeps_written and self.control.is_of_this_boot():
            return self.control.written()
        return self.control.durable()

    def _mend(self, file: AppendFile, base: int, floor: LogEnd) -> LogEnd:
        """Cut the segment `base` at its first torn frame, and make the rest durable."""
        size = file.size_bytes
        source = (self.name, self._path(base))
        position = floor.position if floor.segment_base == base else 0
        if size < position:
            damage = Damage(f"the file has {size} bytes, of which {position} were durable")
            raise corrupt(source, size, base, damage)
        buffer = self.storage.map(source[1], size)
        end = self._find_end(source, buffer, base, position)
        if end.offset < floor.offset:
            damage = Damage(f"the rows up to offset {floor.offset} were durable")
            raise corrupt(source, end.position, end.offset, damage)
        if size > end.position:
            file.truncate(end.position)
        self._write_anew(source[1], buffer, end)
        # As any other sync: who finds that it failed, or that somebody died in it, writes anew.
        self.control.begin_sync(end.offset)
        try:
            file.sync()
        except OSError:
            self.control.sync_failed = True
            raise
        return end

    def _write_anew(self, path: str, buffer: pa.Buffer, end: LogEnd) -> None:
        """Make dirty again what a failed sync, or one that somebody died in, may have dropped.

        The kernel may have dropped what it could not write and yet call it clean. Written again
        it is dirty again, so that the next sync tells the truth. It is written in its place:
        who dies in here takes nothing away.
        """
        control = self.control
        if not (control.sync_failed or control.sync_under_way) or not control.is_of_this_boot():
            # In a new boot all that is read came from the disk, and nothing was written yet. What
            # the control file knows of durable rows is old: they are not to be touched.
            return
        durable = control.durable()
        start = 0
        if durable is not None and durable.segment_base == end.segment_base:
            start = durable.position
        if start < end.position:
            tail = buffer.slice(start, end.position - start).to_pybytes()
            self.storage.shared_cells(path, end.position).write(start, tail)

    def _find_end(
        self, source: tuple[str, str], buffer: pa.Buffer, base: int, floor: int
    ) -> LogEnd:
        """Return the end of the whole frames of a segment; raise where durable ones are not."""
        head = try_head(memoryview(buffer), buffer.size)
        if isinstance(head, Damage):
            if floor:
                raise corrupt(source, 0, base, head)
            self._refuse_rot(source, buffer, 0, base, head)
            return LogEnd(base, 0, base)
        segment = Segment.try_open(self.name, source[1], buffer, self.layouts, base)
        if isinstance(segment, Damage):
            raise corrupt(source, 0, base, segment)
        position, offset = segment.head.size_bytes, base
        for found in segment.walk(position, offset):
            damage = found if isinstance(found, Damage) else found.try_verify()
            if damage is not None:
                if position < floor:
                    raise corrupt(source, position, offset, damage)
                self._refuse_rot(source, buffer, position, offset, damage)
                break
            assert isinstance(found, Frame)
            position += found.header.frame_size
            offset = found.end_offset
        if position == segment.head.size_bytes:
            return LogEnd(base, 0, base)  # a head without frames: the next may have other columns
        return LogEnd(base, position, offset)

    def _refuse_rot(
        self, source: tuple[str, str], buffer: pa.Buffer, position: int, offset: int, damage: Damage
    ) -> None:
        """Raise where a frame behind a torn one says that the torn one was durable.

        A power cut tears what was not synced. The control file may have lost its durable
        end in that power cut, but the frames carry it too.
        """
        if buffer.size < ALIGNMENT:
            return
        words = np.frombuffer(buffer, dtype="<u4", count=buffer.size // 4)
        starts = np.flatnonzero(words[:: ALIGNMENT // 4] == CONTINUATION) * ALIGNMENT
        view = memoryview(buffer)
        for start in starts[starts > position].tolist():
            later = try_any_frame_header(view, start, buffer.size)
            if not isinstance(later, Damage) and later[0].durable_offset > offset:
                raise corrupt(source, position, offset, damage)
