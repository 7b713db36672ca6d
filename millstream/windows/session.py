"""Sessions: the rows of a key that follow one another with no gap between them.

A row at time t is a session [t, t + gap) of its own, and sessions that overlap are one::

    gap 10     0    4       11                  30
               ├────┼───────┼─────────┤         ├─────────┤
               └ session [0, 21) ─────┘         └ [30, 40)

Whether an open session takes a row in depends on the rows that came before it. So that nothing
depends on what came when, lateness does not ask for the session: **a row is late if its own time
plus the allowed lateness lies before its stamp**. A session is over when the watermark has come to
its end plus the allowed lateness, and no row that is not late can reach it any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from millstream.errors import OptionError

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Session:
    """Sessions that end where no row comes for `gap_us` microseconds, at least 1.

    Raises
    ------
    OptionError
        When the gap is not positive.
    """

    gap_us: int

    def __post_init__(self) -> None:
        if self.gap_us <= 0:
            message = f"the gap between sessions must be positive; got {self.gap_us} microseconds"
            raise OptionError(message)

    @property
    def size_us(self) -> int:
        """How long the session of one row is."""
        return self.gap_us

    @property
    def text(self) -> str:
        """What the windows are, as state says it."""
        return f"sessions with a gap of {self.gap_us} µs"

    def describe(self) -> str:
        """Return the window as `explain()` shows it."""
        return f"sessions with a gap of {timedelta(microseconds=self.gap_us)}"
