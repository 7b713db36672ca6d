"""A segment file: its name, its head, and the walk from frame to frame over its mapped bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from crc32c import crc32c

from millstream.log.columns import SegmentLayouts
from millstream.log.encoding import encode_schema
from millstream.log.frame import Frame, corrupt
from millstream.log.frame_header import Damage, try_frame_header
from millstream.log.metadata import ALIGNMENT, PREFIX_SIZE, ColumnLayout, try_metadata_size
from millstream.storage import Storage

VERSION = 1
HEADER_SIZE = 64
SUFFIX = ".arrows"
MOVED_SUFFIX = ".moved"
"""Of what is left of a segment that was moved to a store of objects."""

_ENDS = frozenset({SUFFIX[1:], MOVED_SUFFIX[1:]})
_MAGIC = b"MSsh"
_FIXED = struct.Struct("<4sIIIqqqqI8x")
_CRC = struct.Struct("<I")


def segment_file_name(base_offset: int) -> str:
    """Return the name of the segment that starts with the row of `base_offset`."""
    return f"{base_offset:020d}{SUFFIX}"


def segment_bases(storage: Storage, directory: str) -> list[int]:
    """Return the base offsets of the segments in `directory`, rising; moved ones too."""
    names = [name.rpartition(".") for name in storage.list_directory(directory)]
    return sorted({int(stem) for stem, _, end in names if end in _ENDS and stem.isdigit()})


def encode_head(
    layout: ColumnLayout,
    base_offset: int,
    created_us: int,
    compacted_end: int = 0,
    compactions: int = 0,
) -> bytes:
    """Return the first bytes of a segment: the schema message with the segment's header.

    For the parameters see `SegmentHead`.
    """
    before = encode_schema(layout.schema, HEADER_SIZE)
    size = len(before) + HEADER_SIZE
    fixed = _FIXED.pack(
        _MAGIC, VERSION, HEADER_SIZE, layout.column_count, base_offset, size, created_us,
        compacted_end, compactions,
    )  # fmt: skip
    return before + fixed + _CRC.pack(crc32c(fixed, crc32c(before)))


def head_checksum(head: bytes) -> int:
    """Return the checksum that a segment's first bytes end with."""
    return int(_CRC.unpack_from(head, len(head) - _CRC.size)[0])


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What a segment's head says.

    Attributes
    ----------
    base_offset
        Offset of the segment's first row.
    size_bytes
        Where the first frame starts.
    created_us
        When the segment was made.
    compacted_end
        Where it was rewritten by compaction: the offset up to which it stands for what was
        there; else 0.
    compactions
        How often its rows were rewritten.
    checksum
        Of the head: it tells a rewritten segment from the one that it replaced.
    """

    base_offset: int
    size_bytes: int
    created_us: int
    compacted_end: int
    compactions: int
    checksum: int

    @property
    def is_compacted(self) -> bool:
        """Whether the segment was rewritten: its offsets may have gaps."""
        return self.compactions > 0


def try_head(view: memoryview, limit: int) -> SegmentHead | Damage:
    """Return the head of a segment of which `limit` bytes are readable, verified; or why not."""
    if limit < PREFIX_SIZE + HEADER_SIZE:
        return Damage(f"{limit} bytes are too few for a segment's head")
    metadata_size = try_metadata_size(view, 0)
    if metadata_size is None or metadata_size % ALIGNMENT != ALIGNMENT - PREFIX_SIZE:
        return Damage("no schema message starts here")
    size = PREFIX_SIZE + metadata_size
    if size > limit or size < PREFIX_SIZE + HEADER_SIZE:
        return Damage(f"its metadata length {metadata_size} does not fit")
    checksum: int = _CRC.unpack_from(view, size - 4)[0]
    if crc32c(view[: size - 4]) != checksum:
        return Damage("the checksum of the segment's head does not hold")
    fields = _FIXED.unpack_from(view, size - HEADER_SIZE)
    magic, version, header_size, _, base_offset, stored_size = fields[:6]
    created_us, compacted_end, compactions = fields[6:]
    if (magic, version, header_size, stored_size) != (_MAGIC, VERSION, HEADER_SIZE, size):
        return Damage(f"its head is not one of version {VERSION}")
    return SegmentHead(base_offset, size, created_us, compacted_end, compactions, checksum)


class Segment:
    """The first `limit` bytes of a segment, mapped; those of a moved one when they are needed.

    Attributes
    ----------
    source
        The partition's name, and the segment's path.
    head
        What its head says; verified.
    layout
        Its columns, by its own schema message.
    limit
        No byte at or beyond it is touched.
    """

    def __init__(
        self,
        source: tuple[str, str],
        head: SegmentHead,
        layout: ColumnLayout,
        limit: int,
        load: Callable[[], pa.Buffer],
    ) -> None:
        self.source = source
        self.head = head
        self.layout = layout
        self.limit = limit
        self._load = load
        self._loaded: tuple[pa.Buffer, memoryview] | None = None

    @classmethod
    def try_open(
        cls, name: str, path: str, buffer: pa.Buffer, layouts: SegmentLayouts, base_offset: int
    ) -> Segment | Damage:
        """Return the segment at `path` of partition `name`, whose bytes are `buffer`; or why not.

        `layouts` says what its schema may be, `base_offset` is what its name says.
        """
        return cls.try_open_moved(
            (name, path), buffer, layouts, base_offset, buffer.size, lambda: buffer
        )

    @classmethod
    def try_open_moved(
        cls,
        source: tuple[str, str],
        buffer: pa.Buffer,
        layouts: SegmentLayouts,
        base_offset: int,
        limit: int,
        load: Callable[[], pa.Buffer],
    ) -> Segment | Damage:
        """Return a segment of `limit` bytes that begin with `buffer`; `load` returns them all."""
        head = try_head(memoryview(buffer), buffer.size)
        if isinstance(head, Damage):
            return head
        if head.base_offset != base_offset:
            return Damage(f"its head says that it starts with offset {head.base_offset}")
        layout = layouts.try_of_head(buffer.slice(0, head.size_bytes).to_pybytes(), HEADER_SIZE)
        if isinstance(layout, Damage):
            return layout
        return cls(source, head, layout, limit, load)

    def try_frame(self, position: int) -> Frame | Damage:
        """Return the frame that starts at `position`, its header verified; or why not."""
        buffer, view = self._loaded or self._open()
        layout = self.layout
        found = try_frame_header(
            view, position, self.limit, layout.column_count, layout.dictionary_count
        )
        if isinstance(found, Damage):
            return found
        header, header_position = found
        return Frame(header, buffer, self.layout, self.source, position, header_position)

    @property
    def content(self) -> pa.Buffer:
        """The mapped bytes."""
        return (self._loaded or self._open())[0]

    def _open(self) -> tuple[pa.Buffer, memoryview]:
        buffer = self._load()
        self._loaded = buffer, memoryview(buffer)
        return self._loaded

    @property
    def mark(self) -> str:
        """The checksum of the head as hex digits: the same as long as the file only grows."""
        return _CRC.pack(self.head.checksum).hex()

    def verify(self, start: int = 0) -> None:
        """Check every frame from byte `start` on, which is 0 or a frame's start.

        Raises
        ------
        CorruptSegmentError
            Where a header or a column is damaged, or the last frame is cut.
        """
        position, offset = self.head.size_bytes, self.head.base_offset
        for found in self.walk(position, offset):
            damage = found if isinstance(found, Damage) else None
            if isinstance(found, Frame) and position >= start:
                damage = found.try_verify()
            if damage is not None:
                raise corrupt(self.source, position, offset, damage)
            assert isinstance(found, Frame)
            position += found.header.frame_size
            offset = found.end_offset

    def walk(self, position: int, offset: int) -> Iterator[Frame | Damage]:
        """Yield the frames from `position` on, whose first row must have `offset`.

        Ends at `limit`, or behind the first `Damage`; headers are verified, columns are not.
        """
        while position < self.limit:
            frame = self.try_frame(position)
            if isinstance(frame, Frame) and frame.header.base_offset != offset:
                yield Damage(f"it starts with offset {frame.header.base_offset}, not {offset}")
                return
            yield frame
            if isinstance(frame, Damage):
                return
            position += frame.header.frame_size
            offset = frame.end_offset
        if offset < self.head.compacted_end:
            yield self.cut()

    def cut(self) -> Damage:
        """Return what is said where a compacted segment ends before it should."""
        return Damage(f"the file ends there; it had the rows up to {self.head.compacted_end}")
