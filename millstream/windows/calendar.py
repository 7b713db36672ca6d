"""Windows of the calendar: days, weeks, months, quarters, years, as a clock on the wall shows them.

Each period has a number (that of 1970-01-01 is 0), which gives its first local date, and that the
instant at which it begins: its first moment in the time zone. A day on which the clocks change
lasts 23 or 25 hours, and none is missing or there twice::

    Europe/Berlin   30 March            31 March              1 April
    UTC             │29th 23:00 ─ 24 h ─ │30th 23:00 ─ 23 h ─ │31st 22:00
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from millstream.errors import OptionError
from millstream.windows.time_zone import TimeZone
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

Int64Array = npt.NDArray[np.int64]
CalendarUnit: TypeAlias = Literal["day", "week", "month", "quarter", "year"]

_DAY_US = 86_400_000_000
_MONTHS: dict[CalendarUnit, int] = {"month": 1, "quarter": 3, "year": 12}
_DAYS_MAX: dict[CalendarUnit, int] = {"day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}
_TABLE_MAX = 4096
"""So many windows of a batch are looked up by their starts in a row; more, each by its number."""


@dataclass(frozen=True)
class Calendar:
    """Windows of `count` units of the calendar in a time zone, one after another.

    Parameters
    ----------
    unit, count
        How long a window is.
    zone
        A time zone of the IANA database, e.g. `"Europe/Berlin"`, or `"UTC"`.
    week_start
        With which day a week begins: 0 is Monday.
    offset_us
        How long after midnight of its first day a window begins, by the clock on the wall.

    Raises
    ------
    OptionError
        When the count is not positive, or nobody knows the time zone.

    Examples
    --------
    >>> month = Calendar("month")
    >>> start, end = month.bounds_of(np.array([45 * 86_400_000_000]))
    >>> start // 86_400_000_000, end // 86_400_000_000
    (array([31]), array([59]))
    """

    unit: CalendarUnit
    count: int = 1
    zone: str = "UTC"
    week_start: int = 0
    offset_us: int = 0
    _clock: TimeZone = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.count <= 10_000:
            message = f"a window has 1 to 10,000 of its units; got {self.count} {self.unit}s"
            raise OptionError(message)
        object.__setattr__(self, "_clock", TimeZone(self.zone))

    @property
    def size_us(self) -> int:
        """How long a window is at the most, and how far away any offset can move it."""
        return (self.count * _DAYS_MAX[self.unit] + 3) * _DAY_US + abs(self.offset_us)

    def bounds_of(self, times_us: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return start and end of the window that holds each time, at least one."""
        ends = np.array([times_us.min(), times_us.max()])
        first, last = (int(each) for each in self._numbers(ends))
        if last - first > _TABLE_MAX:
            numbers, places = np.unique(self._numbers(times_us), return_inverse=True)
            return self._starts(numbers)[places], self._starts(numbers + 1)[places]
        bounds = self._starts(np.arange(first, last + 2))
        if len(bounds) == 2:
            return np.full(len(times_us), bounds[0]), np.full(len(times_us), bounds[1])
        # Where a zone left out a whole day, two bounds are one instant.
        places = np.searchsorted(bounds, times_us, side="right")
        return bounds[places - 1], bounds[places]

    def ends_of(self, starts_us: Int64Array) -> Int64Array:
        """Return the ends of the windows that start at `starts_us`."""
        starts, places = np.unique(starts_us, return_inverse=True)
        return self._starts(self._numbers(starts) + 1)[places]

    def last_over(self, until_us: int) -> int:
        """Return the greatest start of a window that ends by `until_us`."""
        return self._start_near(until_us, before=True)

    def first_open(self, until_us: int) -> int:
        """Return the least start of a window that ends after `until_us`."""
        return self._start_near(until_us, before=False)

    @property
    def text(self) -> str:
        """What the windows are, as state says it."""
        return f"{self.describe()}, weeks from day {self.week_start}, {self.offset_us} µs later"

    def describe(self) -> str:
        """Return the window as `explain()` shows it."""
        units = self.unit if self.count == 1 else f"{self.count} {self.unit}s"
        return f"calendar {units} in {self.zone}"

    def _start_near(self, time_us: int, *, before: bool) -> int:
        """Return the start of the window that holds `time_us`, or of the one before it."""
        if time_us < WATERMARK_MIN + 2 * self.size_us:
            return WATERMARK_MIN  # no row lies there
        time_us = min(time_us, WATERMARK_MAX - self.size_us)
        number = self._numbers(np.array([time_us]))
        start = int(self._starts(number)[0])
        if not before:
            return start
        # Where a zone left out a whole day, that day would begin and end when the next one begins.
        return next(
            earlier
            for back in (1, 2, 3)
            if (earlier := int(self._starts(number - back)[0])) < start
        )

    def _numbers(self, times_us: Int64Array) -> Int64Array:
        """Return the number of the window that holds each time."""
        # By the clock of UTC it is this one or one beside it, as no zone is a day away.
        utc = self._numbers_of_dates(times_us - self.offset_us)
        known, places = np.unique(utc, return_inverse=True)
        found: Int64Array = utc - (times_us < self._starts(known)[places])
        found += times_us >= self._starts(known + 1)[places]
        return found

    def _numbers_of_dates(self, local_us: Int64Array) -> Int64Array:
        """Return the number of the period that holds each local time."""
        days = local_us // _DAY_US
        match self.unit:
            case "day":
                periods = days
            case "week":
                periods = (days + (3 - self.week_start) % 7) // 7
            case unit:
                months = days.view("datetime64[D]").astype("datetime64[M]").astype(np.int64)
                periods = months // _MONTHS[unit]
        numbers: Int64Array = periods // self.count
        return numbers

    def _starts(self, numbers: Int64Array) -> Int64Array:
        """Return the instant at which each window begins."""
        periods = numbers * self.count
        match self.unit:
            case "day":
                days = periods
            case "week":
                days = periods * 7 - (3 - self.week_start) % 7
            case unit:
                months = (periods * _MONTHS[unit]).view("datetime64[M]")
                days = months.astype("datetime64[D]").astype(np.int64)
        return self._clock.to_utc(days * _DAY_US + self.offset_us)
