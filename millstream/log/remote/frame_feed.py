"""Gives out a partition's frames in runs that lie side by side, from where it was left."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

import pyarrow as pa

from millstream.errors import LogError
from millstream.log.columns import is_system
from millstream.log.cursor import FrameCursor
from millstream.log.frame import Frame
from millstream.log.partition import Partition
from millstream.log.remote.messages import READ_BYTES_MAX, Frames, Place, Read
from millstream.log.remote.rows import without

GAP_BYTES_MIN = 512
"""Less is not left out: to say so takes a tenth of that."""

FEEDS_MAX = 256
"""Of one stream; those not used for longest are forgotten, and cost a search when they come."""


class FrameFeed:
    """The frames of a partition, as one reader after another asks for them.

    Parameters
    ----------
    partition
        What is read.
    offset
        Of the first row wanted.
    """

    def __init__(self, partition: Partition, offset: int) -> None:
        self._cursor: FrameCursor = partition.frames(offset)
        self._held: Frame | None = None
        self.offset = offset
        """The next read goes on from here without a search."""

    def read(
        self, bytes_max: int, columns: Collection[str] | None
    ) -> tuple[Frames, pa.Buffer | None]:
        """Return the next frames of one segment: at least one, if there is any.

        Without the values of the user's columns beside `columns`, where that is worth its while.
        """
        first = self._held or self._cursor.next()
        self._held = None
        if first is None:
            self.offset = self._cursor.offset
            return Frames(self.offset), None
        stored = first.try_stored_to(first)
        assert stored is not None
        frames = [first]
        while stored.size < bytes_max:
            try:
                frame = self._cursor.next()
            except LogError:
                break  # first what came before it; the next read raises again
            together = None if frame is None else first.try_stored_to(frame)
            if together is None or together.size > bytes_max:
                self._held = frame
                break
            assert frame is not None
            stored = together
            frames.append(frame)
        held = self._held
        self.offset = self._cursor.offset if held is None else held.header.base_offset
        path, position = first.location
        head = first.segment_head().to_pybytes()
        gaps = () if columns is None else _gaps(frames, position, columns)
        sent = without(stored, gaps) if gaps else stored
        return Frames(self.offset, head, path, position, gaps), sent


def _gaps(
    frames: Sequence[Frame], start: int, columns: Collection[str]
) -> tuple[tuple[int, int], ...]:
    """Return where in the bytes of `frames`, from `start` on, there is what nobody wants."""
    present = frames[0].columns
    wanted = {name for name in present if name in columns or is_system(name)}
    if len(wanted) == len(present):
        return ()
    return tuple(
        (at - start, end - at)
        for frame in frames
        for at, end in frame.other_ranges(wanted)
        if end - at >= GAP_BYTES_MIN
    )


class FrameFeeds:
    """The feeds of one stream of requests."""

    def __init__(self) -> None:
        self._feeds: OrderedDict[Place, FrameFeed] = OrderedDict()

    def read(self, request: Read, partition: Partition) -> tuple[Frames, pa.Buffer | None]:
        """Return frames of a partition from the one on that holds the row of the offset."""
        feed = self._feeds.pop(request.place, None)
        if feed is None or feed.offset != request.offset:
            feed = FrameFeed(partition, request.offset)
        answer = feed.read(max(min(request.bytes_max, READ_BYTES_MAX), 1), request.columns)
        # Not kept where it raised: the next request starts anew.
        self._feeds[request.place] = feed
        if len(self._feeds) > FEEDS_MAX:
            self._feeds.popitem(last=False)
        return answer
