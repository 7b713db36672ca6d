"""Which append of each named producer a partition has stored last, so that none is stored twice.

    segment 0 ──── walk ────▶ roll: 00…131072.producers ──── walk ────▶ the written end
                              what all segments before say

The frames say it all; the file that is written at each roll only spares the way from the first
one, and outlives segments that a retention or a compaction takes away.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from crc32c import crc32c

from millstream.log.control_file import LogEnd
from millstream.log.frame_header import FLAG_SEQUENCED, Damage, FrameHeader
from millstream.log.segments import SegmentRemovedError, Segments

VERSION = 1
SUFFIX = ".producers"

_MAGIC = b"MSpr"
_FIXED = struct.Struct("<4sIqq")
_ENTRY = struct.Struct("<qqq")
_CRC = struct.Struct("<I")


class StoredAppend(NamedTuple):
    """An owner's last append: its sequence, and the offset behind its rows."""

    sequence: int
    end_offset: int


@dataclass(slots=True)
class Sequences:
    """The last append of each owner before a place in a partition.

    Attributes
    ----------
    segment_base, position, offset
        The place: everything before it is known.
    losses
        The control file's count when this was begun: a cut may take back what is in here.
    stored
        By owner id.
    """

    segment_base: int
    position: int
    offset: int
    losses: int = 0
    stored: dict[int, StoredAppend] = field(default_factory=dict)

    def add(self, header: FrameHeader) -> None:
        """Pass the frame that starts at the place."""
        if header.flags & FLAG_SEQUENCED:
            self.stored[header.owner_id] = StoredAppend(header.sequence, header.end_offset)
        self.position += header.frame_size
        self.offset = header.end_offset

    def encode(self) -> bytes:
        """Return the file of the segment that begins at the place."""
        content = _FIXED.pack(_MAGIC, VERSION, self.segment_base, len(self.stored))
        content += b"".join(
            _ENTRY.pack(owner_id, *stored) for owner_id, stored in sorted(self.stored.items())
        )
        return content + _CRC.pack(crc32c(content))

    @classmethod
    def try_decode(cls, content: bytes, segment_base: int) -> Sequences | Damage:
        """Return what the file of the segment `segment_base` says; or why it is of no use."""
        if len(content) < _FIXED.size + _CRC.size:
            return Damage(f"{len(content)} bytes are too few")
        if crc32c(content[: -_CRC.size]) != _CRC.unpack_from(content, len(content) - _CRC.size)[0]:
            return Damage("its checksum does not hold")
        magic, version, base, count = _FIXED.unpack_from(content)
        size = _FIXED.size + count * _ENTRY.size + _CRC.size
        if (magic, version, base, size) != (_MAGIC, VERSION, segment_base, len(content)):
            return Damage(f"it is not one of version {VERSION} of this segment")
        entries = _ENTRY.iter_unpack(content[_FIXED.size : -_CRC.size])
        stored = {owner_id: StoredAppend(*rest) for owner_id, *rest in entries}
        return cls(segment_base, 0, segment_base, stored=stored)


def sequences_file_name(base_offset: int) -> str:
    """Return the name of the file about what lies before the segment `base_offset`."""
    return f"{base_offset:020d}{SUFFIX}"


def advanced(known: Sequences | None, segments: Segments, end: LogEnd) -> Sequences:
    """Return the sequences before `end`, the written end; the holder of the append lock calls it.

    Parameters
    ----------
    known
        What was known last; `None`: nothing. It is carried on where that is possible.
    segments, end
        The partition's.

    Raises
    ------
    CorruptSegmentError
        Where a frame's header on the way is damaged.
    """
    losses = segments.control.losses
    if known is None or known.losses != losses or known.segment_base != end.segment_base:
        known = _begun(segments, end)
        known.losses = losses
    if end.position > known.position:
        _walk(known, segments, end.segment_base, end)
    return known


def write_sequences(sequences: Sequences, segments: Segments) -> None:
    """Write the file of the segment that begins at their place, if the disk takes it."""
    path = f"{segments.directory}/{sequences_file_name(sequences.segment_base)}"
    with suppress(OSError):
        segments.storage.write_file(path, sequences.encode())


def keep_sequences(segments: Segments, base: int) -> None:
    """See to it that what lies before the segment `base` need not be walked any more.

    Called before frames there are removed or rewritten: then they do not say it any more. The
    file that the roll wrote may be missing, for the disk refused it, or be damaged.

    Raises
    ------
    OSError
        Where the disk refuses it now.
    """
    if segments.control.sequenced and read_sequences(segments, base) is None:
        path = f"{segments.directory}/{sequences_file_name(base)}"
        found = _begun(segments, LogEnd(base, 0, base))
        segments.storage.write_file(path, found.encode())


def _begun(segments: Segments, end: LogEnd) -> Sequences:
    """Return the sequences before the active segment: from its file, or from those before it."""
    while True:
        found, bases = _nearest(segments, end)
        first = bases[0] if bases else end.segment_base
        sequences = found or Sequences(first, 0, first)
        start = sequences.segment_base
        try:
            for base in bases:
                sequences.segment_base, sequences.position, sequences.offset = base, 0, base
                _walk(sequences, segments, base, end)
        except SegmentRemovedError:
            segments.relist()
            continue
        # A cleaner that takes frames away first writes a file of what they say.
        again, _ = _nearest(segments, end)
        if again is None or again.segment_base == start:
            break
    base = end.segment_base
    sequences.segment_base, sequences.position, sequences.offset = base, 0, base
    if bases:
        write_sequences(sequences, segments)
    return sequences


def _nearest(segments: Segments, end: LogEnd) -> tuple[Sequences | None, list[int]]:
    """Return what the last file says that is of use, and the segments from its place to `end`."""
    bases = segments.bases(end)
    found = read_sequences(segments, end.segment_base)
    if found is not None:
        return found, []
    bases = [base for base in bases if base < end.segment_base]
    for index in reversed(range(len(bases))):
        found = read_sequences(segments, bases[index])
        if found is not None:
            return found, bases[index:]
    return None, bases


def _walk(sequences: Sequences, segments: Segments, base: int, end: LogEnd) -> None:
    segment = segments.open(base, end)
    sequences.position = sequences.position or segment.head.size_bytes
    for found in segment.walk(sequences.position, sequences.offset):
        if isinstance(found, Damage):
            raise segments.corrupt(base, sequences.position, sequences.offset, found)
        sequences.add(found.header)


def read_sequences(segments: Segments, base: int) -> Sequences | None:
    """Return what the file of the segment `base` says; `None` where it is of no use."""
    path = f"{segments.directory}/{sequences_file_name(base)}"
    try:
        content = segments.storage.read_file(path)
    except FileNotFoundError:
        return None
    sequences = Sequences.try_decode(content, base)
    return None if isinstance(sequences, Damage) else sequences
