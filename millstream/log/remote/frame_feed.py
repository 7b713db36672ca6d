"""Gives out a partition's frames in runs that lie side by side, from where it was left."""

from __future__ import annotations

from collections import OrderedDict

import pyarrow as pa

from millstream.errors import LogError
from millstream.log.cursor import FrameCursor
from millstream.log.frame import Frame
from millstream.log.partition import Partition
from millstream.log.remote.messages import READ_BYTES_MAX, Frames, Place

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

    def read(self, bytes_max: int) -> tuple[Frames, pa.Buffer | None]:
        """Return the next frames of one segment: at least one, if there is any."""
        first = self._held or self._cursor.next()
        self._held = None
        if first is None:
            self.offset = self._cursor.offset
            return Frames(self.offset), None
        stored = first.try_stored_to(first)
        assert stored is not None
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
        held = self._held
        self.offset = self._cursor.offset if held is None else held.header.base_offset
        path, position = first.location
        head = first.segment_head().to_pybytes()
        return Frames(self.offset, head, path, position), stored


class FrameFeeds:
    """The feeds of one stream of requests."""

    def __init__(self) -> None:
        self._feeds: OrderedDict[Place, FrameFeed] = OrderedDict()

    def read(
        self, place: Place, partition: Partition, offset: int, bytes_max: int
    ) -> tuple[Frames, pa.Buffer | None]:
        """Return frames of a partition from the one on that holds the row of `offset`."""
        feed = self._feeds.pop(place, None)
        if feed is None or feed.offset != offset:
            feed = FrameFeed(partition, offset)
        answer = feed.read(max(min(bytes_max, READ_BYTES_MAX), 1))
        # Not kept where it raised: the next request starts anew.
        self._feeds[place] = feed
        if len(self._feeds) > FEEDS_MAX:
            self._feeds.popitem(last=False)
        return answer
