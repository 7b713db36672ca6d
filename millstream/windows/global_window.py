"""The one window of all time: every row of a key is in it, and it is over when the input ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN


@dataclass(frozen=True, slots=True)
class Global:
    """All of time. Its results have no `window_start` and no `window_end`."""

    @property
    def size_us(self) -> int:
        """Nothing: no time is so near the ends of int64 that its window lies beyond."""
        return 0

    @property
    def text(self) -> str:
        """What the windows are, as state says it."""
        return "all of time"

    def last_over(self, until_us: int) -> int:
        """Return a time before all windows: none of them ends by any time."""
        return WATERMARK_MIN

    def first_open(self, until_us: int) -> int:
        """Return the least time there is."""
        return WATERMARK_MIN

    def ends_of(self, starts_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the end of time."""
        return np.full(len(starts_us), WATERMARK_MAX)

    def describe(self) -> str:
        """Return the window as `explain()` shows it."""
        return "all of time"
