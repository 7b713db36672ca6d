"""The segments of a partition as readers may see them: which there are, how far, and where."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from typing import Literal

import pyarrow as pa

from millstream.errors import CorruptSegmentError, UnknownTopicError
from millstream.log.columns import SegmentLayouts
from millstream.log.control_file import ControlFile, LogEnd
from millstream.log.frame import corrupt
from millstream.log.frame_header import Damage
from millstream.log.index import SegmentIndex, index_file_name
from millstream.log.segment import Segment, segment_bases, segment_file_name
from millstream.storage import Storage

Durability = Literal["fsync", "os"]


class Segments:
    """The segments in the folder `directory`.

    What is remembered here is replaced whole, never changed: any thread may call anything.

    Parameters
    ----------
    storage, directory, name, durability
        The partition's; see `millstream.log.partition.Partition`.
    layouts
        Of its segments.
    control
        Its control file.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        name: str,
        layouts: SegmentLayouts,
        control: ControlFile,
        durability: Durability,
    ) -> None:
        self.storage = storage
        self.directory = directory
        self.name = name
        self.layouts = layouts
        self.control = control
        self.durability = durability
        self._bases: list[int] = []
        self._sealed_indexes: dict[int, SegmentIndex] = {}
        self._sealed_sizes: dict[int, int] = {}
        self._active_index: SegmentIndex | None = None

    def path(self, base: int) -> str:
        """Return the path of the segment `base`."""
        return f"{self.directory}/{segment_file_name(base)}"

    def corrupt(self, base: int, position: int, offset: int, damage: Damage) -> CorruptSegmentError:
        """Return the error for damage at `position` of the segment `base`."""
        return corrupt((self.name, self.path(base)), position, offset, damage)

    def refuse_removed(self) -> None:
        """Raise `UnknownTopicError` where the topic was deleted since the partition was opened."""
        if not self.storage.exists(self.directory):
            message = f"partition {self.name} is gone: its topic was deleted; open the topic anew"
            raise UnknownTopicError(message)

    def end(self) -> LogEnd:
        """Return the place behind the last frame that readers may see."""
        control = self.control
        end = control.written() if self.durability == "os" else control.durable()
        return end if end is not None else LogEnd(0, 0, 0)

    def bases(self, end: LogEnd) -> list[int]:
        """Return the base offsets of the segments up to `end`, rising; empty: no rows yet."""
        known = self._bases
        if not known or known[-1] < end.segment_base:
            known = self._bases = segment_bases(self.storage, self.directory)
        count = bisect_right(known, end.segment_base)
        # In the middle of a roll the last one may have no file, or no head, yet.
        if count and known[count - 1] == end.segment_base and end.position == 0:
            count -= 1
        return known[:count]

    def base_of(self, offset: int, end: LogEnd) -> int:
        """Return the base offset of the segment that holds the row of `offset`."""
        bases = self.bases(end)
        return bases[bisect_right(bases, offset) - 1]

    def base_after(self, base: int, end: LogEnd) -> int | None:
        """Return the base offset of the readable segment after `base`; `None`: none yet."""
        bases = self.bases(end)
        following = bisect_right(bases, base)
        return bases[following] if following < len(bases) else None

    def size(self, base: int, end: LogEnd) -> int:
        """Return how many bytes of the segment `base` readers may see."""
        if base == end.segment_base:
            return end.position
        size = self._sealed_sizes.get(base)
        if size is None:
            path = self.path(base)
            if not self.storage.exists(path):  # opening it would create it
                self.refuse_removed()
                raise self.corrupt(base, 0, base, Damage("the file is missing"))
            file = self.storage.open_append(path)
            size = self._sealed_sizes[base] = file.size_bytes
            file.close()
        return size

    def open(self, base: int, size_bytes: int) -> Segment:
        """Return the first `size_bytes` of the segment `base`, mapped, its head verified."""
        path = self.path(base)
        try:
            buffer: pa.Buffer = self.storage.map(path, size_bytes)
        except OSError as error:
            self.refuse_removed()
            damage = Damage(f"{size_bytes} bytes of it should be there; {error}")
            raise self.corrupt(base, 0, base, damage) from error
        segment = Segment.try_open(self.name, path, buffer, self.layouts, base)
        if isinstance(segment, Damage):
            raise self.corrupt(base, 0, base, segment)
        return segment

    def index(self, base: int, end: LogEnd) -> SegmentIndex:
        """Return an index of the segment `base`, as far as it is readable.

        A sealed segment's is read from its file, or, where that is missing or wrong, made and
        written anew; the active one's is made by walking on from where it was last time.
        """
        size = self.size(base, end)
        if base == end.segment_base:
            known = self._active_index
            known = known.copy() if known is not None and known.base_offset == base else None
            self._active_index = index = self.extend_index(known, base, size)
            return index
        sealed = self._sealed_indexes.get(base)
        if sealed is None:
            sealed = self._read_index(base, size)
            if sealed is None:
                sealed = self.extend_index(None, base, size)
                self.write_index(sealed)
            self._sealed_indexes[base] = sealed
        return sealed

    def extend_index(self, index: SegmentIndex | None, base: int, size_bytes: int) -> SegmentIndex:
        """Add to `index` (`None`: a new one) the frames up to `size_bytes`, and return it."""
        if index is not None and index.size_bytes >= size_bytes:
            return index
        segment = self.open(base, size_bytes)
        if index is None:
            index = SegmentIndex(base, base, segment.head.size_bytes)
        for frame in segment.walk(index.size_bytes, index.end_offset):
            if isinstance(frame, Damage):
                raise self.corrupt(base, index.size_bytes, index.end_offset, frame)
            index.add(frame.header)
        return index

    def write_index(self, index: SegmentIndex) -> None:
        """Write the index file of a sealed segment, if the disk takes it: it can be rebuilt."""
        name = index_file_name(index.base_offset)
        with suppress(OSError):
            self.storage.write_file(f"{self.directory}/{name}", index.encode())

    def _read_index(self, base: int, size_bytes: int) -> SegmentIndex | None:
        """Return what the index file of a sealed segment says; `None` where it is of no use."""
        try:
            content = self.storage.read_file(f"{self.directory}/{index_file_name(base)}")
        except FileNotFoundError:
            return None
        index = SegmentIndex.try_decode(content)
        if isinstance(index, Damage):
            return None
        fits = index.base_offset == base and index.size_bytes == size_bytes
        return index if fits else None
