"""Which of a partition's oldest segments are to be removed, by their age and by their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream.log.row_time import TIME_MIN
from millstream.log.settings import TopicSettings


@dataclass(frozen=True, slots=True)
class SegmentAge:
    """What retention needs to know of a sealed segment.

    Attributes
    ----------
    end_offset
        Offset behind its last row.
    size_bytes
        Of the file.
    max_timestamp_us
        The largest time of its rows; `TIME_MIN`: none of them has one.
    sealed_us
        When it was sealed, as far as it is known.
    """

    end_offset: int
    size_bytes: int
    max_timestamp_us: int
    sealed_us: int

    @property
    def newest_us(self) -> int:
        """The time that its newest row counts as.

        A row from the future, by a wrong clock or a slip of the unit, would keep its segment
        for ever: it counts as written when the segment was sealed. So does one without a time.
        """
        is_plausible = TIME_MIN < self.max_timestamp_us <= self.sealed_us
        return self.max_timestamp_us if is_plausible else self.sealed_us


def count_expired(
    segments: Sequence[SegmentAge],
    settings: TopicSettings,
    *,
    size_bytes: int,
    stable_end: int,
    now_us: int,
) -> int:
    """Return how many of the first `segments` are to be removed.

    Parameters
    ----------
    segments
        The sealed ones, in order.
    settings
        Of the topic.
    size_bytes
        Of the whole partition.
    stable_end
        Its last stable offset: nothing beyond it is removed.
    now_us
        The time.
    """
    if not settings.deletes:
        return 0
    for count, segment in enumerate(segments):
        is_old = 0 <= settings.retention_ms * 1000 < now_us - segment.newest_us
        size_bytes -= segment.size_bytes
        # As many bytes as may be kept are kept at the least.
        is_too_much = 0 <= settings.retention_bytes <= size_bytes
        if segment.end_offset > stable_end or not (is_old or is_too_much):
            return count
    return len(segments)
