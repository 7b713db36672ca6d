"""Where to start reading in a segment: for an offset, or for a time (FORMAT.md, "Index file").

The file also holds the statistics of the segment's columns (`millstream.log.statistics`). It says
nothing that the segment does not say; it only saves the walk.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass, field

from crc32c import crc32c

from millstream.log.frame_header import Damage, FrameHeader

VERSION = 1
SUFFIX = ".index"
STRIDE = 64 * 1024
"""Bytes of a segment that one entry stands for, at least."""

_MAGIC = b"MSix"
_FIXED = struct.Struct("<4sIqqqqqq")
_CRC = struct.Struct("<I")
_ENTRY = struct.Struct("<qqq")


def index_file_name(base_offset: int) -> str:
    """Return the name of the index of the segment that starts with `base_offset`."""
    return f"{base_offset:020d}{SUFFIX}"


@dataclass(slots=True)
class SegmentIndex:
    """A sparse index of the frames of a segment up to a position.

    Attributes
    ----------
    base_offset
        Offset of the segment's first row.
    head_checksum
        Of the segment's head: an index of the segment that this one replaced does not fit.
    end_offset
        Offset behind the last frame that was added.
    size_bytes
        Position behind the last frame that was added.
    offsets, positions, max_timestamps_us
        The entries: base offset and position of a frame, and the largest timestamp of the
        frames from it up to the next entry.
    """

    base_offset: int
    head_checksum: int
    end_offset: int
    size_bytes: int
    offsets: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    max_timestamps_us: list[int] = field(default_factory=list)

    def add(self, header: FrameHeader) -> None:
        """Add the frame that starts at `size_bytes`."""
        assert header.base_offset == self.end_offset, (header.base_offset, self.end_offset)
        if not self.positions or self.size_bytes - self.positions[-1] >= STRIDE:
            self.offsets.append(header.base_offset)
            self.positions.append(self.size_bytes)
            self.max_timestamps_us.append(header.max_timestamp_us)
        elif header.max_timestamp_us > self.max_timestamps_us[-1]:
            self.max_timestamps_us[-1] = header.max_timestamp_us
        self.size_bytes += header.frame_size
        self.end_offset = header.end_offset

    def copy(self) -> SegmentIndex:
        """Return an index that can be added to without changing this one."""
        return SegmentIndex(
            self.base_offset,
            self.head_checksum,
            self.end_offset,
            self.size_bytes,
            list(self.offsets),
            list(self.positions),
            list(self.max_timestamps_us),
        )

    def before_offset(self, offset: int) -> tuple[int, int]:
        """Return (position, base offset) of a frame at or before the row of `offset`.

        The row is less than `STRIDE` bytes and one frame further on.
        """
        entry = max(bisect_right(self.offsets, offset) - 1, 0)
        if not self.positions:
            return self.size_bytes, self.end_offset
        return self.positions[entry], self.offsets[entry]

    def before_time(self, timestamp_us: int) -> tuple[int, int] | None:
        """Return (position, base offset) of a frame before the first that reaches a time.

        `None`: no frame of the index does.
        """
        for position, offset, reached in zip(
            self.positions, self.offsets, self.max_timestamps_us, strict=True
        ):
            if reached >= timestamp_us:
                return position, offset
        return None

    def encode(self, statistics: bytes = b"") -> bytes:
        """Return the content of the index file, with encoded statistics where there are some."""
        fixed = _FIXED.pack(
            _MAGIC, VERSION, self.base_offset, self.head_checksum, self.end_offset,
            self.size_bytes, len(self.offsets), len(statistics),
        )  # fmt: skip
        entries = zip(self.offsets, self.positions, self.max_timestamps_us, strict=True)
        content = fixed + b"".join(_ENTRY.pack(*entry) for entry in entries) + statistics
        return content + _CRC.pack(crc32c(content))

    @classmethod
    def try_decode(cls, content: bytes) -> SegmentIndex | Damage:
        """Return the index that an index file holds, verified; or why there is none."""
        if len(content) < _FIXED.size + _CRC.size:
            return Damage(f"{len(content)} bytes are too few for an index")
        if crc32c(content[: -_CRC.size]) != _CRC.unpack_from(content, len(content) - _CRC.size)[0]:
            return Damage("the checksum of the index does not hold")
        fields = _FIXED.unpack_from(content)
        magic, version, base_offset, checksum, end_offset, size_bytes, count, rest = fields
        if (magic, version) != (_MAGIC, VERSION):
            return Damage(f"the index is not one of version {VERSION}")
        end = _FIXED.size + count * _ENTRY.size
        if len(content) != end + rest + _CRC.size:
            return Damage(f"the index has no room for {count} entries")
        entries = list(_ENTRY.iter_unpack(content[_FIXED.size : end]))
        offsets, positions, times = ([entry[column] for entry in entries] for column in range(3))
        return cls(base_offset, checksum, end_offset, size_bytes, offsets, positions, times)


def encoded_statistics(content: bytes) -> bytes:
    """Return the encoded statistics in an index file that `try_decode` took; empty: it has none."""
    size = _FIXED.unpack_from(content)[-1]
    end = len(content) - _CRC.size
    return content[end - size : end]
