"""Zeros behind the last frame of a segment that is synced often: appends take their place.

    frame │ frame │ 0 0 0 0 0 0 0 0 …
                  ▲ written end      ▲ end of the file

A file that has grown is synced in two steps: its bytes, and then the file system's journal, which
has its new size and its new blocks. Bytes that take the place of others are synced in one, in
about half the time.
"""

from __future__ import annotations

from contextlib import suppress

from millstream.log.control_file import LogEnd
from millstream.storage import AppendFile

SEGMENT_BYTES_MIN = 64 * 1024
"""Smaller segments get no zeros: most that are so small stay so."""

ZERO_BYTES_MAX = 512 * 1024
"""So many are laid at once; fewer, as many as there are bytes before them, in a small segment."""

APPENDS_MIN = 4
"""Zeros are laid for as many times the bytes that wait for a sync, or none are."""


def lay_zeros(file: AppendFile, end: LogEnd, durable: LogEnd | None, segment_bytes: int) -> None:
    """Lay zeros behind `end`, where the file ends; the holder of the append lock may.

    Only where a few bytes are synced at a time: of more, the bytes that are written twice cost
    what the sync saves. It does no harm to die in here, nor if the disk takes a part of them.

    Parameters
    ----------
    file
        The active segment's.
    end, durable
        The written and the durable end.
    segment_bytes
        How large the segment may become.
    """
    if end.position < SEGMENT_BYTES_MIN:
        return
    if durable is None or durable.segment_base != end.segment_base:
        return
    count = min(ZERO_BYTES_MAX, end.position, segment_bytes - end.position)
    if count > 0 and (end.position - durable.position) * APPENDS_MIN <= count:
        with suppress(OSError):  # it may be full: then there is perhaps room for rows still
            file.write(end.position, [bytes(count)])
