"""Goes through a partition frame by frame, across segments, and on as it grows."""

from __future__ import annotations

from millstream.errors import OffsetOutOfRangeError
from millstream.log.frame import Frame
from millstream.log.frame_header import Damage
from millstream.log.segment import Segment
from millstream.log.segments import Segments


class FrameCursor:
    """The frames from the one that holds the row of `offset` on, as far as readers may see.

    Made by `Partition.frames`. The first frame may begin before `offset`; it ends behind it.
    One thread at a time.

    Attributes
    ----------
    offset
        Of the first row of the frame that `next` returns.

    Raises
    ------
    OffsetOutOfRangeError
        Where `offset` is before the first row or beyond the readable end.
    """

    def __init__(self, segments: Segments, offset: int) -> None:
        self._segments = segments
        self._segment: Segment | None = None
        end = segments.end()
        bases = segments.bases(end)
        first = bases[0] if bases else end.offset
        if not first <= offset <= end.offset:
            message = (
                f"partition {segments.name} has the offsets from {first} to {end.offset}; got "
                f"{offset}; rows before may have been removed, rows beyond may not be durable "
                "yet, or a power cut took them back"
            )
            raise OffsetOutOfRangeError(message)
        self.offset = offset
        self._base, self._position = end.segment_base, end.position
        if offset < end.offset:
            self._base = segments.base_of(offset, end)
            self._position, self.offset = segments.index(self._base, end).before_offset(offset)
            self._walk_to(offset)

    def next(self) -> Frame | None:
        """Return the next frame, or `None`: there is none now, later perhaps.

        Control markers come as frames of no rows.

        Raises
        ------
        CorruptSegmentError
            Where the frame's header is damaged; a later call raises again.
        """
        segment = self._segment
        while segment is None or self._position >= segment.limit:
            if not self._advance():
                return None
            segment = self._segment
        found = segment.try_frame(self._position)
        if isinstance(found, Frame) and found.header.base_offset != self.offset:
            found = Damage(f"it starts with offset {found.header.base_offset}")
        if isinstance(found, Damage):
            raise self._segments.corrupt(self._base, self._position, self.offset, found)
        self._position += found.header.frame_size
        self.offset = found.end_offset
        return found

    def _walk_to(self, offset: int) -> None:
        """Skip the frames that end at or before `offset`, which is readable."""
        while True:
            position, at = self._position, self.offset
            frame = self.next()
            assert frame is not None, "a readable row lies in a frame"
            if frame.end_offset > offset:
                self._position, self.offset = position, at
                return

    def _advance(self) -> bool:
        """Map what came since; return `False` where nothing did."""
        segments = self._segments
        end = segments.end()
        if end.segment_base < self._base:
            return False  # an end that was overtaken while it was read
        size = segments.size(self._base, end)
        segment = self._segment
        if size > (self._position if segment is None else segment.limit):
            self._segment = segment = segments.open(self._base, size)
            self._position = max(self._position, segment.head.size_bytes)
            return True
        following = segments.base_after(self._base, end)
        if following is None:
            return False
        if following != self.offset:
            damage = Damage(f"the segment ends there and the next starts with offset {following}")
            raise segments.corrupt(self._base, self._position, self.offset, damage)
        self._base, self._position, self._segment = following, 0, None
        return True
