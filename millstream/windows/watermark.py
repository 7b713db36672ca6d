"""Watermarks: how far event time has come, per partition and over several inputs."""

from __future__ import annotations

from collections.abc import Iterable

WATERMARK_MIN = -(2**63)
"""Nothing is known of event time yet."""
WATERMARK_MAX = 2**63 - 1
"""No row will come any more."""


class PartitionWatermark:
    """The running maximum of a partition's event times, less its lateness.

    (Bounded out-of-orderness, as in the Dataflow model, Akidau et al., VLDB 2015.)

    Parameters
    ----------
    lateness_us
        How far the watermark stays behind the greatest time seen, in microseconds.
    greatest_us
        Greatest event time so far; `WATERMARK_MIN` before the first row.

    Examples
    --------
    >>> watermark = PartitionWatermark(lateness_us=10)
    >>> watermark.advance(105)
    >>> watermark.advance(50)
    >>> watermark.value_us
    95
    """

    __slots__ = ("greatest_us", "lateness_us")

    def __init__(self, lateness_us: int, greatest_us: int = WATERMARK_MIN) -> None:
        self.lateness_us = lateness_us
        self.greatest_us = greatest_us

    def advance(self, time_us: int) -> None:
        """Take a row's event time (or the greatest of several) into account."""
        self.greatest_us = max(self.greatest_us, time_us)

    @property
    def value_us(self) -> int:
        """The watermark; `WATERMARK_MIN` before the first row."""
        return max(self.greatest_us - self.lateness_us, WATERMARK_MIN)


def least(watermarks: Iterable[int]) -> int:
    """Return the least watermark of several inputs; of none, `WATERMARK_MAX`."""
    return min(watermarks, default=WATERMARK_MAX)
