"""Windows that the rows of a key make: those before each row, and those of so many rows.

Rows are taken in the order of event time, and of equal times in that of their places in the source,
so a row waits until the watermark is beyond its time. So that nothing depends on what came when, a
row is late as for sessions: **if its own time plus the allowed lateness lies before its stamp**::

    sliding, 10    rows at    3    8        14              31
                              ├────┤                                window of the row at 8
                                   ├────────┤                       … at 14: [4, 14], both inclusive
    counting, 3 every 2      r0 r1 r2 r3 r4 …
                             └──────┘     window of r0, r1, r2
                                   └──────┘                         … of r2, r3, r4
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from millstream.errors import OptionError

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sliding:
    """For each row, the rows of its key from `size_us` before it up to it, both inclusive.

    As `RANGE BETWEEN … PRECEDING AND CURRENT ROW` of SQL: rows of one time are in each other's
    windows.

    Raises
    ------
    OptionError
        When the size is negative.
    """

    size_us: int

    def __post_init__(self) -> None:
        if self.size_us < 0:
            message = f"a window's size must not be negative; got {self.size_us} microseconds"
            raise OptionError(message)

    @property
    def text(self) -> str:
        """What the windows are, as state says it."""
        return f"the {self.size_us} µs before each row"

    def describe(self) -> str:
        """Return the window as `explain()` shows it."""
        return f"the {timedelta(microseconds=self.size_us)} before each row"


@dataclass(frozen=True, slots=True)
class Counting:
    """Windows of `size` rows of a key, one of which begins with every `slide`-th row.

    Raises
    ------
    OptionError
        When the slide is not positive, or greater than the size.
    """

    size: int
    slide: int

    def __post_init__(self) -> None:
        if not 0 < self.slide <= self.size:
            message = (
                "windows of rows begin with every so many of them, at least 1 and at most as many "
                f"as are in one; got {self.size} rows, and one every {self.slide}"
            )
            raise OptionError(message)

    @property
    def size_us(self) -> int:
        """Nothing: the window of a row ends with a row."""
        return 0

    @property
    def text(self) -> str:
        """What the windows are, as state says it."""
        return f"{self.size} rows every {self.slide}"

    def describe(self) -> str:
        """Return the window as `explain()` shows it."""
        every = "" if self.slide == self.size else f" every {self.slide}"
        return f"{self.size} rows{every}"
