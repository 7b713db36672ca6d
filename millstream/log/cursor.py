"""Goes through a partition frame by frame, across segments, and on as it grows."""

from __future__ import annotations

from millstream.errors import OffsetOutOfRangeError
from millstream.log.control_file import LogEnd
from millstream.log.frame import Frame
from millstream.log.frame_header import Damage
from millstream.log.segment import Segment
from millstream.log.segments import SegmentRemovedError, Segments
from millstream.log.skipping import Skipping


class FrameCursor:
    """The frames from the one that holds the row of `offset` on, as far as readers may see.

    Made by `Partition.frames`. The first frame may begin before `offset`; it ends behind it. So
    may a later one, where a cleaner replaced the segment that was to be read next: what lies
    before `offset` was given out already. One thread at a time.

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
        self._base = self._position = 0
        self._segment: Segment | None = None
        self.offset = offset
        self._seek(offset)

    is_at_hand = True
    """What comes next is found without asking another machine."""

    def next(self) -> Frame | None:
        """Return the next frame, or `None`: there is none now, later perhaps.

        Control markers come as frames of no rows.

        Raises
        ------
        CorruptSegmentError
            Where the frame's header is damaged; a later call raises again.
        OffsetOutOfRangeError
            Where the rows that come next were removed.
        """
        while True:
            try:
                return self._next()
            except SegmentRemovedError:
                self._segments.relist()
                self._seek(self.offset)

    def _next(self) -> Frame | None:
        segment = self._segment_of_next()
        if segment is None:
            return None
        found = segment.try_frame(self._position)
        if isinstance(found, Frame) and found.header.base_offset != self.offset:
            found = Damage(f"it starts with offset {found.header.base_offset}")
        if isinstance(found, Damage):
            raise self._segments.corrupt(self._base, self._position, self.offset, found)
        self._position += found.header.frame_size
        self.offset = found.end_offset
        return found

    def skip(self, skipping: Skipping, until: int | None) -> int | None:
        """Pass the blocks from here on that `skipping` refuses, without touching them.

        None with rows from `until` on is passed. Returns the greatest time among their rows, or
        `None`: the next frame is wanted.
        """
        passed: list[int] = []
        while True:
            try:
                segment = self._segment_of_next()
                run = None
                if segment is not None:
                    end = self._segments.end()
                    run = skipping.run_from(segment, self._position, end, until)
            except SegmentRemovedError:
                self._segments.relist()
                self._seek(self.offset)
                continue
            if run is None:
                return max(passed, default=None)
            passed.append(run.time_us)
            self._position, self.offset = run.position, run.offset

    def may_skip(self, skipping: Skipping) -> bool:
        """Return whether the next frame may be one that `skip` passes."""
        segment, position = self._segment, self._position
        if segment is None or position >= segment.limit:
            return True
        return skipping.run_from(segment, position, self._segments.end()) is not None

    def refuses(self, skipping: Skipping, frame: Frame) -> bool:
        """Return whether `frame`, the last that `next` returned, is in a block that is refused."""
        assert self._segment is not None
        return skipping.refuses(self._segment, frame.location[1], self._segments.end())

    def _segment_of_next(self) -> Segment | None:
        """Return the segment that the next frame is in, `None`: there is none now."""
        while self._segment is None or self._position >= self._segment.limit:
            if not self._advance():
                return None
        return self._segment

    def _seek(self, offset: int) -> None:
        """Go to the frame that holds the row of `offset`."""
        segments = self._segments
        while True:
            end = segments.end()
            first = segments.first_offset(end)
            if not first <= offset <= end.offset:
                message = (
                    f"partition {segments.name} has the offsets from {first} to {end.offset}; got "
                    f"{offset}; rows before may have been removed, rows beyond may not be durable "
                    "yet, or a power cut took them back"
                )
                raise OffsetOutOfRangeError(message)
            try:
                return self._place(offset, end)
            except SegmentRemovedError:
                segments.relist()

    def _place(self, offset: int, end: LogEnd) -> None:
        segments = self._segments
        self._base, self._position, self.offset = end.segment_base, end.position, offset
        # Also at the end it is known by its head: it may be rewritten before it is read on.
        self._segment = segments.open(self._base, end) if end.position else None
        if offset == end.offset:
            return
        self._base = base = segments.base_of(offset, end)
        if base != end.segment_base or self._segment is None:
            self._segment = segments.open(base, end)
        segment = self._segment
        index = segments.index_of(segment, base == end.segment_base)
        position, at = index.before_offset(offset)
        for found in segment.walk(position, at):
            if isinstance(found, Damage):
                raise segments.corrupt(base, position, at, found)
            if found.end_offset > offset:
                break
            position, at = position + found.header.frame_size, found.end_offset
        self._position, self.offset = position, at

    def _advance(self) -> bool:
        """Map what came since; return `False` where nothing did."""
        segments = self._segments
        end = segments.end()
        if end.segment_base < self._base:
            return False  # an end that was overtaken while it was read
        size = segments.size(self._base, end)
        segment = self._segment
        if size > (self._position if segment is None else segment.limit):
            opened = segments.open(self._base, end)
            if segment is not None and segment.head.checksum != opened.head.checksum:
                self._seek(self.offset)  # it was rewritten
                return True
            self._segment = opened
            self._position = max(self._position, opened.head.size_bytes)
            return True
        if segment is not None and self.offset < segment.head.compacted_end:
            raise segments.corrupt(self._base, self._position, self.offset, segment.cut())
        following = segments.base_from(max(self.offset, self._base + 1), end)
        if following is None:
            return False
        if following != self.offset:
            return self._pass_gap(following)
        self._base, self._position, self._segment = following, 0, None
        return True

    def _pass_gap(self, following: int) -> bool:
        """Go on where the segment ended and no other begins; raise where rows are missing."""
        segments = self._segments
        offset = self.offset
        segments.relist()
        self._seek(offset)  # a cleaner may have merged the next segment with those before
        segment = self._segment
        if segment is not None and self._position >= segment.limit and self.offset == offset:
            damage = Damage(f"the segment ends there and the next starts with offset {following}")
            raise segments.corrupt(self._base, self._position, offset, damage)
        return True
