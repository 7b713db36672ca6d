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


class WatermarkMerge:
    """The watermark of several inputs: the least over those that are not idle.

    It never goes back: an input that was idle and comes back behind it does not pull it back.
    While every input is idle it is the greatest of theirs, since nobody holds it back. Of no
    inputs it is `WATERMARK_MAX`: no row will come.

    Parameters
    ----------
    inputs
        How many; each starts at `WATERMARK_MIN` and is not idle.

    Examples
    --------
    >>> merge = WatermarkMerge(2)
    >>> merge.update(0, 100, idle=False), merge.update(1, 50, idle=False), merge.value_us
    (False, True, 50)
    >>> merge.update(1, 50, idle=True), merge.value_us
    (True, 100)
    """

    __slots__ = ("_idle", "_inputs_idle", "_value_us", "_values_us")

    def __init__(self, inputs: int) -> None:
        self._values_us = [WATERMARK_MIN] * inputs
        self._inputs_idle = [False] * inputs
        self._value_us = WATERMARK_MIN if inputs else WATERMARK_MAX
        self._idle = False

    @property
    def value_us(self) -> int:
        """The merged watermark."""
        return self._value_us

    @property
    def idle(self) -> bool:
        """Whether every input is idle."""
        return self._idle

    def update(self, index: int, watermark_us: int, idle: bool) -> bool:
        """Take what input `index` says; return whether the value or the idleness changed."""
        before = self._value_us, self._idle
        self._values_us[index] = max(self._values_us[index], watermark_us)
        self._inputs_idle[index] = idle
        self._idle = all(self._inputs_idle)
        if self._idle:
            merged = max(self._values_us)
        else:
            pairs = zip(self._values_us, self._inputs_idle, strict=True)
            merged = least(value for value, is_idle in pairs if not is_idle)
        self._value_us = max(self._value_us, merged)
        return before != (self._value_us, self._idle)
