"""The segments of a partition as readers may see them: which there are, how far, and where."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from contextlib import suppress
from functools import partial
from typing import Literal

import pyarrow as pa

from millstream.errors import CorruptSegmentError, LogError, UnknownTopicError
from millstream.log.columns import SegmentLayouts
from millstream.log.control_file import ControlFile, LogEnd
from millstream.log.frame import corrupt
from millstream.log.frame_header import Damage
from millstream.log.index import SegmentIndex, index_file_name
from millstream.log.links import refuse_link
from millstream.log.segment import Segment, segment_bases, segment_file_name
from millstream.log.tier.cache import SegmentCache
from millstream.log.tier.moved_segment import MovedSegment, moved_path, read_moved
from millstream.storage import Storage

Durability = Literal["fsync", "os"]


class SegmentRemovedError(LogError):
    """Raised when a cleaner removed a segment's file, or put another in its place.

    Whoever reads looks at what there is now (`Segments.relist`); it never reaches users.
    """


class Segments:
    """The segments in the folder `directory`.

    What is remembered here is replaced whole, never changed: any thread may call anything. A
    cleaner, in any process, may remove or replace sealed segments at any time; what is mapped
    stays.

    Parameters
    ----------
    storage, directory, name, durability
        The partition's; see `millstream.log.partition.Partition`.
    layouts
        Of its segments.
    control
        Its control file.
    cache
        Of the segments that were moved; `None`: none ever is.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        name: str,
        layouts: SegmentLayouts,
        control: ControlFile,
        durability: Durability,
        cache: SegmentCache | None = None,
    ) -> None:
        self.storage = storage
        self.directory = directory
        self.name = name
        self.layouts = layouts
        self.control = control
        self.durability = durability
        self._cache = cache
        self._bases: list[int] = []
        self._sealed_indexes: dict[int, SegmentIndex] = {}
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

    def relist(self) -> None:
        """Forget which segments there are: a cleaner was here."""
        self._bases = []

    def first_offset(self, end: LogEnd) -> int:
        """Return the offset of the first row that is kept."""
        bases = self.bases(end)
        if bases and not self._is_there(bases[0]):
            self.relist()
            bases = self.bases(end)
        return bases[0] if bases else end.offset

    def base_of(self, offset: int, end: LogEnd) -> int:
        """Return the base offset of the segment that holds the row of `offset`.

        Raises `SegmentRemovedError` where that is before the first.
        """
        bases = self.bases(end)
        index = bisect_right(bases, offset) - 1
        if index < 0:
            message = f"no segment of partition {self.name} reaches down to offset {offset}"
            raise SegmentRemovedError(message)
        return bases[index]

    def base_from(self, offset: int, end: LogEnd) -> int | None:
        """Return the least base offset of a readable segment from `offset` on; `None`: none yet.

        Between the end of a compacted segment and that lie leftovers of what it replaced.
        """
        bases = self.bases(end)
        index = bisect_left(bases, offset)
        return bases[index] if index < len(bases) else None

    def size(self, base: int, end: LogEnd) -> int:
        """Return how many bytes of the segment `base` readers may see."""
        if base == end.segment_base:
            return end.position
        try:
            return self.storage.file_size(self.path(base))
        except FileNotFoundError as error:
            moved = read_moved(self.storage, self.directory, base)
            if moved is None:
                raise self._removed(base) from error
            return moved.size

    def open(self, base: int, end: LogEnd) -> Segment:
        """Return the readable bytes of the segment `base`, mapped, its head verified.

        Raises
        ------
        CorruptSegmentError
            Where the head is damaged or the file too short.
        SegmentRemovedError
            Where the file is gone.
        """
        # Of a sealed segment all there is: it may just be replaced by a longer or shorter one.
        return self._map(base, end.position if base == end.segment_base else None)

    def _map(self, base: int, size_bytes: int | None) -> Segment:
        path = self.path(base)
        refuse_link(self.storage, path)
        try:
            buffer: pa.Buffer = self.storage.map(path, size_bytes)
        except FileNotFoundError as error:
            return self._open_moved(base, error)
        except OSError as error:
            self.refuse_removed()
            damage = Damage(f"{size_bytes} bytes of it should be there; {error}")
            raise self.corrupt(base, 0, base, damage) from error
        segment = Segment.try_open(self.name, path, buffer, self.layouts, base)
        if isinstance(segment, Damage):
            raise self.corrupt(base, 0, base, segment)
        return segment

    def _open_moved(self, base: int, missing: FileNotFoundError) -> Segment:
        """Return a segment that was moved to a store of objects; it is fetched when it is read."""
        moved = read_moved(self.storage, self.directory, base)
        if moved is None:
            raise self._removed(base) from missing
        assert self._cache is not None, "a topic's segments only are moved"
        segment = Segment.try_open_moved(
            (self.name, moved_path(self.directory, base)),
            pa.py_buffer(moved.head),
            self.layouts,
            base,
            moved.size,
            partial(self._fetch, base, moved),
        )
        if isinstance(segment, Damage):
            raise self.corrupt(base, 0, base, segment)
        return segment

    def _fetch(self, base: int, moved: MovedSegment) -> pa.Buffer:
        """Return the bytes of a moved segment; `SegmentRemovedError` where it is one no more."""
        assert self._cache is not None
        try:
            return self._cache.map(self.name, moved)
        except CorruptSegmentError as error:
            if read_moved(self.storage, self.directory, base) == moved:
                raise
            raise self._removed(base) from error

    def _is_there(self, base: int) -> bool:
        """Return `True` iff the segment `base` is here, or known to be elsewhere."""
        exists = self.storage.exists
        return exists(self.path(base)) or exists(moved_path(self.directory, base))

    def index(self, base: int, end: LogEnd) -> SegmentIndex:
        """Return an index of the segment `base`, as far as it is readable; see `index_of`."""
        return self.index_of(self.open(base, end), base == end.segment_base)

    def index_of(self, segment: Segment, is_active: bool) -> SegmentIndex:
        """Return an index of the frames of `segment`.

        A sealed segment's is read from its file, or, where that is missing or of no use, made
        and written anew; the active one's is made by walking on from where it was last time.
        """
        base, checksum = segment.head.base_offset, segment.head.checksum
        if is_active:
            known = self._active_index
            fits = known is not None and known.head_checksum == checksum
            known = known.copy() if known is not None and fits else None
            self._active_index = index = self.extend_index(known, segment)
            return index
        sealed = self._sealed_indexes.get(base)
        if sealed is None or sealed.head_checksum != checksum:
            sealed = self._read_index(segment)
            if sealed is None:
                sealed = self.extend_index(None, segment)
                self.write_index(sealed)
            self._sealed_indexes[base] = sealed
        return sealed

    def extend_index(self, index: SegmentIndex | None, segment: Segment) -> SegmentIndex:
        """Add to `index` (`None`: a new one) the frames of `segment` beyond it; return it."""
        head = segment.head
        base = head.base_offset
        if index is not None and index.size_bytes >= segment.limit:
            return index
        if index is None:
            index = SegmentIndex(base, head.checksum, base, head.size_bytes)
        for frame in segment.walk(index.size_bytes, index.end_offset):
            if isinstance(frame, Damage):
                raise self.corrupt(base, index.size_bytes, index.end_offset, frame)
            index.add(frame.header)
        return index

    def write_index(self, index: SegmentIndex, statistics: bytes = b"") -> None:
        """Write the index file of a sealed segment, if the disk takes it: it can be rebuilt."""
        name = index_file_name(index.base_offset)
        with suppress(OSError):
            self.storage.write_file(f"{self.directory}/{name}", index.encode(statistics))

    def read_index_file(self, base: int) -> bytes | None:
        """Return the content of an index file as it is; `None` where there is none."""
        try:
            return self.storage.read_file(f"{self.directory}/{index_file_name(base)}")
        except FileNotFoundError:
            return None

    def _removed(self, base: int) -> SegmentRemovedError:
        """Return the error for a segment whose file is gone."""
        self.refuse_removed()
        return SegmentRemovedError(f"{self.path(base)} of partition {self.name} is gone")

    def _read_index(self, segment: Segment) -> SegmentIndex | None:
        """Return what the index file of a sealed segment says; `None` where it is of no use."""
        base = segment.head.base_offset
        content = self.read_index_file(base)
        if content is None:
            return None
        index = SegmentIndex.try_decode(content)
        if isinstance(index, Damage):
            return None
        fits = index.head_checksum == segment.head.checksum and index.size_bytes == segment.limit
        return index if fits and index.base_offset == base else None
