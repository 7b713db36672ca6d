"""What every kind of window tells the operator that fills it.

Rows are kept by key and **place**: where windows do not overlap, that is the window's start; where
they do, what all windows have in common that hold the row.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Window(Protocol):
    """A way of cutting event time into windows [start, end), all times in microseconds."""

    @property
    def size_us(self) -> int:
        """How long a window is at the most."""
        ...

    @property
    def text(self) -> str:
        """What the windows are, as state says it: where it changes, the state does not fit."""
        ...

    def last_over(self, until_us: int) -> int:
        """Return the greatest start of a window that ends by `until_us`."""
        ...

    def first_open(self, until_us: int) -> int:
        """Return the least start of a window that ends after `until_us`."""
        ...

    def ends_of(self, starts_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the ends of the windows that start at `starts_us`."""
        ...

    def describe(self) -> str:
        """Return the window as `explain()` shows it."""
        ...
