"""Goes through a segment past its damaged frames: what is whole, and what lies between.

Readers stop at the first damaged frame. Behind it the next one is found by its checksum: where
the damaged one says that it ends, or else at the next multiple of 64 where a header holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from millstream.log.frame import Frame
from millstream.log.frame_header import Damage
from millstream.log.metadata import ALIGNMENT, CONTINUATION
from millstream.log.segment import Segment


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes of a segment that are no frame any more.

    Attributes
    ----------
    position, end_position
        Where, in bytes.
    offset
        Of the first row that is lost.
    until
        Of the first row behind; `None`: there is none in this segment.
    reason
        What is wrong.
    """

    position: int
    end_position: int
    offset: int
    until: int | None
    reason: str


def salvage(segment: Segment, *, has_no_end: bool = False) -> Iterator[Frame | Hole]:
    """Yield the whole frames of `segment`, all columns verified, and the holes between them.

    With `has_no_end` nobody knows where it was written to: zeros behind its frames are no hole.
    """
    position, offset = segment.head.size_bytes, segment.head.base_offset
    while position < segment.limit:
        found = segment.try_frame(position)
        damage = found if isinstance(found, Damage) else found.try_verify()
        if isinstance(found, Frame) and found.header.base_offset != offset:
            damage = Damage(f"it starts with offset {found.header.base_offset}, not {offset}")
        if damage is None:
            assert isinstance(found, Frame)
            yield found
            position += found.header.frame_size
            offset = found.end_offset
            continue
        if has_no_end and not np.frombuffer(segment.content, np.uint8, offset=position).any():
            return
        size = found.header.frame_size if isinstance(found, Frame) else 0
        following = _next_frame(segment, position, offset, size)
        end = segment.limit if following is None else following[0]
        until = None if following is None else following[1].header.base_offset
        yield Hole(position, end, offset, until, damage.reason)
        position = end
        offset = offset if until is None else until
        if until is None:
            return
    if offset < segment.head.compacted_end:
        yield Hole(position, position, offset, None, segment.cut().reason)


def _next_frame(
    segment: Segment, position: int, offset: int, size: int
) -> tuple[int, Frame] | None:
    """Return place and frame of the next header that holds behind `position`."""
    content = segment.content
    words = np.frombuffer(content, dtype="<u4", count=content.size // 4)
    starts = np.flatnonzero(words[:: ALIGNMENT // 4] == CONTINUATION) * ALIGNMENT
    candidates = [position + size] if size else []
    for start in [*candidates, *starts[starts > position].tolist()]:
        found = segment.try_frame(start)
        # A row may hold bytes that look like a frame; those of this partition go up.
        if isinstance(found, Frame) and found.header.base_offset >= max(offset, 1):
            return start, found
    return None
