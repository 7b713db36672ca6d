"""The header of a frame: who appended which rows, and the checksums of their columns.

It lies in the padding of the record batch message's metadata (FORMAT.md, "Frame header").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from crc32c import crc32c

from millstream.log.metadata import ALIGNMENT, PREFIX_SIZE, padded, try_metadata_size

VERSION = 1
FLAG_CONTROL = 1
"""Set in the flags of a frame without rows."""

FLAG_COMPACTED = 2
"""Set in the flags of a frame whose rows have gaps between them, see the column `_offset`."""

FLAG_SEQUENCED = 4
"""Set in the flags of a frame whose sequence was checked: its owner has no later one before it."""

_MAGIC = b"MSfh"
_FIXED = struct.Struct("<4sIIIqqqqqqqqqqII")
_MESSAGE = struct.Struct("<III")
_CRC = struct.Struct("<I")


class FrameHeader(NamedTuple):
    """What a frame says of its rows.

    Attributes
    ----------
    frame_size
        Bytes from the message's prefix to the end of its body; a multiple of 64.
    base_offset
        Offset of the first row.
    row_count
        Number of rows; 0 in a control marker.
    max_timestamp_us
        Largest time of the rows in the topic's time column (floored, nulls left out,
        −2^63 where all are null), or `appended_us` in a topic without one.
    owner_id, epoch, sequence
        Who appended it; 0 where nobody in particular. In a compacted frame `sequence` tells
        when a compaction first met the tombstones in it; 0: it has none.
    transaction
        Transaction number of that owner and epoch; 0: none.
    appended_us
        When it was appended, by the writer's clock.
    durable_offset
        A durable end that the writer knew: rows before it were on stable storage. In a
        compacted frame the offset up to which it stands for the rows that were there.
    flags
        `FLAG_CONTROL`, `FLAG_COMPACTED`.
    """

    frame_size: int
    base_offset: int
    row_count: int
    max_timestamp_us: int
    owner_id: int
    epoch: int
    sequence: int
    transaction: int
    appended_us: int
    durable_offset: int
    flags: int

    @property
    def end_offset(self) -> int:
        """Offset of the row after the last."""
        if self.flags & FLAG_COMPACTED:
            return self.durable_offset
        return self.base_offset + self.row_count

    @property
    def is_compacted(self) -> bool:
        """Whether there are gaps between the rows' offsets."""
        return self.flags & FLAG_COMPACTED != 0


class Damage(NamedTuple):
    """Why stored bytes are not what was written; a value, for the caller knows what it means."""

    reason: str


class LaterMessage(NamedTuple):
    """A message of a frame behind its first one, as the frame's header tells of it.

    Attributes
    ----------
    position
        Where it starts in the frame, a multiple of 64.
    metadata_size
        Bytes of its prefix and metadata, a multiple of 64.
    checksum
        CRC-32C of these.
    """

    position: int
    metadata_size: int
    checksum: int


@lru_cache(maxsize=1024)
def frame_header_size(column_count: int, dictionary_count: int) -> int:
    """Return the bytes of a frame's header; a multiple of 64."""
    return padded(_FIXED.size + 4 * column_count + _MESSAGE.size * dictionary_count + 4, ALIGNMENT)


def pack_checksums(column_checksums: Sequence[int], later: Sequence[LaterMessage]) -> bytes:
    """Return the part of a header that does not depend on the frame's place, zeros included."""
    count = len(column_checksums)
    size = frame_header_size(count, len(later)) - _FIXED.size - _CRC.size
    packed = struct.pack(f"<{count}I", *column_checksums)
    for each in later:
        packed += _MESSAGE.pack(
            each.position // ALIGNMENT, each.metadata_size // ALIGNMENT, each.checksum
        )
    return packed.ljust(size, b"\0")


def pack_frame_header(
    header: FrameHeader,
    column_count: int,
    dictionary_count: int,
    checksums: bytes,
    before_checksum: int,
) -> bytes:
    """Return the header's bytes.

    Parameters
    ----------
    header
        What they say.
    column_count
        Number of top-level columns.
    dictionary_count
        Number of dictionaries.
    checksums
        Of columns and later messages, as `pack_checksums` returns them.
    before_checksum
        CRC-32C of the frame's prefix and metadata up to the header; the header's covers them.
    """
    size = _FIXED.size + len(checksums) + _CRC.size
    fixed = _FIXED.pack(_MAGIC, VERSION, size, column_count, *header, dictionary_count)
    packed = fixed + checksums
    return packed + _CRC.pack(crc32c(packed, before_checksum))


def try_frame_header(
    view: memoryview, position: int, limit: int, column_count: int, dictionary_count: int
) -> tuple[FrameHeader, int] | Damage:
    """Return the header of the frame at `position` and where it starts, verified; or why not.

    Parameters
    ----------
    view
        The segment's bytes.
    position
        Where the frame starts.
    limit
        Where the readable bytes end; nothing at or beyond it is touched.
    column_count, dictionary_count
        How many top-level columns the segment has, and dictionaries in them.
    """
    size = frame_header_size(column_count, dictionary_count)
    room = limit - position
    if room < PREFIX_SIZE + size:
        return Damage(f"{room} bytes are too few for a frame")
    metadata_size = try_metadata_size(view, position)
    if metadata_size is None or metadata_size % ALIGNMENT != ALIGNMENT - PREFIX_SIZE:
        return Damage("no message starts here")
    at = position + PREFIX_SIZE + metadata_size - size
    if at < position + PREFIX_SIZE or at + size > limit:
        return Damage(f"its metadata length {metadata_size} does not fit")
    expected = _CRC.unpack_from(view, at + size - 4)[0]
    if crc32c(view[position : at + size - 4]) != expected:
        return Damage("the checksum of its header does not hold")
    magic, version, stored_size, count, *fields, dictionaries = _FIXED.unpack_from(view, at)
    found = (magic, version, stored_size, count, dictionaries)
    if found != (_MAGIC, VERSION, size, column_count, dictionary_count):
        return Damage(f"its header is not one of version {VERSION} with {column_count} columns")
    header = FrameHeader(*fields)
    if header.frame_size > room:
        return Damage(f"it has {room} of its {header.frame_size} bytes")
    return header, at


def try_any_frame_header(
    view: memoryview, position: int, limit: int
) -> tuple[FrameHeader, int] | Damage:
    """Return what `try_frame_header` does, of a segment whose columns nobody knows."""
    if limit - position < PREFIX_SIZE:
        return Damage("no message starts here")
    end = position + PREFIX_SIZE + (try_metadata_size(view, position) or 0)
    for at in range(end - ALIGNMENT, position, -ALIGNMENT):
        if at + _FIXED.size > limit:
            break
        magic, _, size, count, *_, dictionaries = _FIXED.unpack_from(view, at)
        if magic == _MAGIC and size == end - at == frame_header_size(count, dictionaries):
            return try_frame_header(view, position, limit, count, dictionaries)
    return Damage("there is no header before its body")


def column_checksum(view: memoryview, header_position: int, column: int) -> int:
    """Return the checksum that the header at `header_position` has for column index `column`."""
    return int(_CRC.unpack_from(view, header_position + _FIXED.size + 4 * column)[0])


def later_messages(
    view: memoryview, header_position: int, column_count: int, dictionary_count: int
) -> list[LaterMessage]:
    """Return what the header at `header_position` says of the messages behind the frame's first."""
    start = header_position + _FIXED.size + 4 * column_count
    entries = (
        _MESSAGE.unpack_from(view, start + _MESSAGE.size * index)
        for index in range(dictionary_count)
    )
    return [
        LaterMessage(position * ALIGNMENT, size * ALIGNMENT, checksum)
        for position, size, checksum in entries
    ]
