"""Windows of one size that begin one slide after another, and so overlap; they share panes.

A pane is the greatest common divisor of size and slide long, so that each window is a number of
whole panes (Li et al., No Pane, No Gain, SIGMOD Record 2005). A row is added to its pane only, and
the panes of a window are merged when it is over::

    size 6, slide 4   ┌── window 0 ───┐
                                ┌── window 4 ───┐
    panes of 2        0    2    4     6    8    10

A row that comes too late for the earliest of its windows counts in the later ones, so it must not
lie in the same pane as others. Its **place** is the pane's start plus the number of windows that it
missed: rows of one place count in the same windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import gcd

import numpy as np
import numpy.typing as npt

from millstream.errors import OptionError

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hopping:
    """Windows [k·slide + offset, k·slide + offset + size) for every integer k.

    Parameters
    ----------
    size_us
        Length of a window in microseconds.
    slide_us
        From one window's start to the next one's; at most `size_us`.
    offset_us
        Where a window starts, in microseconds from 1970-01-01 UTC.

    Raises
    ------
    OptionError
        When the slide is not positive or longer than the size, or a row would be in more windows
        than a pane has microseconds.

    Examples
    --------
    >>> Hopping(size_us=60, slide_us=40).pane_us
    20
    """

    size_us: int
    slide_us: int
    offset_us: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.slide_us <= self.size_us:
            message = (
                "a window's slide must be positive and at most its size; got a slide of "
                f"{self.slide_us} and a size of {self.size_us} microseconds"
            )
            raise OptionError(message)
        if -(-self.size_us // self.slide_us) > self.pane_us:
            message = (
                f"windows of {timedelta(microseconds=self.size_us)} every "
                f"{timedelta(microseconds=self.slide_us)} are cut into panes of {self.pane_us} "
                "microseconds, which are too many; choose a longer slide, or one that divides the "
                "size"
            )
            raise OptionError(message)

    @property
    def pane_us(self) -> int:
        """How long a pane is."""
        return gcd(self.size_us, self.slide_us)

    def last_over(self, until_us: int) -> int:
        """Return the greatest start of a window that ends by `until_us`."""
        return self._grid(until_us - self.size_us)

    def first_open(self, until_us: int) -> int:
        """Return the least start of a window that ends after `until_us`."""
        return self.last_over(until_us) + self.slide_us

    def ends_of(self, starts_us: Int64Array) -> Int64Array:
        """Return the ends of the windows that start at `starts_us`."""
        return starts_us + self.size_us

    def first_of(self, place: int) -> int:
        """Return the start of the earliest window in which rows of a place count."""
        pane = place - (place - self._shift_us) % self.pane_us
        first = self._grid(pane + self.pane_us - self.size_us - 1) + self.slide_us
        return first + (place - pane) * self.slide_us

    def count_in(self, places: Int64Array, start_us: int) -> npt.NDArray[np.bool_]:
        """Return whether rows of each place, all of panes in the window, count in it."""
        missed = (places % self.pane_us - self._shift_us) % self.pane_us
        panes = places - missed
        return self._firsts(panes) + missed * self.slide_us <= start_us

    def windows_of(self, places: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return for each window in which a place counts the place's index, and its start."""
        missed = (places % self.pane_us - self._shift_us) % self.pane_us
        panes = places - missed
        firsts = self._firsts(panes) + missed * self.slide_us
        lasts = self._lasts(panes)
        counts = (lasts - firsts) // self.slide_us + 1
        rows = np.repeat(np.arange(len(places)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, firsts[rows] + within * self.slide_us

    def places_of(
        self, panes: Int64Array, over_us: Int64Array
    ) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Return places of rows, and which missed all of their windows.

        Parameters
        ----------
        panes
            Start of each row's pane.
        over_us
            The windows that start by this are over for the row.
        """
        firsts = self._firsts(panes)
        lasts = self._lasts(panes)
        # Between the row's own windows, so that nothing leaves int64.
        over = np.clip(over_us, firsts, lasts)
        missed = np.where(over_us < firsts, 0, (over - firsts) // self.slide_us + 1)
        late = over_us >= lasts
        return panes + np.where(late, 0, missed), late

    def describe(self) -> str:
        """Return the window as `explain()` shows it."""
        offset = f", offset {timedelta(microseconds=self.offset_us)}" if self.offset_us else ""
        size, slide = timedelta(microseconds=self.size_us), timedelta(microseconds=self.slide_us)
        return f"hopping {size} every {slide}{offset}"

    @property
    def text(self) -> str:
        """What the windows are, as state says it."""
        return f"{self.size_us} µs every {self.slide_us} µs, from {self._shift_us} µs"

    @property
    def _shift_us(self) -> int:
        return self.offset_us % self.slide_us

    def _grid(self, time_us: int) -> int:
        """Return the greatest start of a window by `time_us`."""
        return time_us - (time_us - self._shift_us) % self.slide_us

    def _firsts(self, panes: Int64Array) -> Int64Array:
        """Return the start of the earliest window that holds each pane."""
        # Counted back from the latest one, so that nothing leaves int64.
        lasts = self._lasts(panes)
        back = (self.size_us - self.pane_us - (panes - lasts)) // self.slide_us
        firsts: Int64Array = lasts - back * self.slide_us
        return firsts

    def _lasts(self, panes: Int64Array) -> Int64Array:
        """Return the start of the latest window that holds each pane."""
        lasts: Int64Array = panes - (panes % self.slide_us - self._shift_us) % self.slide_us
        return lasts
