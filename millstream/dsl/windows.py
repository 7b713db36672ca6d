"""Windows as a user names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias, cast

from millstream.dsl.location import user_location
from millstream.errors import OptionError
from millstream.windows.by_rows import Counting, Sliding
from millstream.windows.calendar import Calendar, CalendarUnit
from millstream.windows.duration import parse_duration_us
from millstream.windows.global_window import Global
from millstream.windows.hopping import Hopping
from millstream.windows.session import Session
from millstream.windows.tumbling import Tumbling

Weekday: TypeAlias = Literal[
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"
]
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_CALENDAR = re.compile(r"\s*(\d*)\s*(?:(d|w)|(day|week|month|quarter|year)s?)\s*")
_LETTERS: dict[str, CalendarUnit] = {"d": "day", "w": "week"}


def tumbling(
    size: str | timedelta,
    offset: str | timedelta = "0s",
    *,
    timezone: str | None = None,
    week_start: Weekday = "monday",
) -> Tumbling | Calendar:
    """Return windows one after another: each event is in exactly one.

    Parameters
    ----------
    size
        A duration, e.g. `"1h"`, or days, weeks, months, quarters or years of the calendar, e.g.
        `"1 day"`, `"2w"`, `"1 month"`. A window holds its start and not its end.
    offset
        By how much the windows' starts are shifted: from multiples of `size` since 1970-01-01
        UTC, or from midnight of a calendar window's first day.
    timezone
        Whose calendar, e.g. `"Europe/Berlin"`; a day on which the clocks change has 23 or 25
        hours. By default UTC.
    week_start
        With which day a week begins.

    Raises
    ------
    OptionError
        When a size or an offset cannot be read, `size` is not positive, nobody knows the time zone,
        or one is given for windows that are not the calendar's.

    Examples
    --------
    >>> tumbling("1h").size_us
    3600000000
    >>> tumbling("1 month", timezone="Europe/Berlin").describe()
    'calendar month in Europe/Berlin'
    """
    location = user_location()
    offset_us = duration_option("offset", offset, location)
    if week_start not in _WEEKDAYS:
        message = f"{location}: week_start is a day, e.g. {_WEEKDAYS[0]!r}; got {week_start!r}"
        raise OptionError(message)
    calendar = _CALENDAR.fullmatch(size) if isinstance(size, str) else None
    if calendar is not None and int(calendar[1] or 1) > 0:
        count = int(calendar[1] or 1)
        unit = cast("CalendarUnit", calendar[3]) or _LETTERS[calendar[2]]
        if unit == "day" and timezone in {None, "UTC"}:
            size_us = count * 86_400_000_000
            return Tumbling(size_us, offset_us % size_us)
        try:
            first_day = _WEEKDAYS.index(week_start)
            return Calendar(unit, count, timezone or "UTC", first_day, offset_us)
        except OptionError as error:
            message = f"{location}: {error}"
            raise OptionError(message) from error
    if timezone is not None:
        message = (
            f"{location}: a time zone is for windows of days, weeks, months, quarters or years, "
            f"not of {size!r}; shift them by offset= instead"
        )
        raise OptionError(message)
    size_us = _positive("size", size, location)
    return Tumbling(size_us, offset_us % size_us)


def hopping(
    size: str | timedelta, slide: str | timedelta, offset: str | timedelta = "0s"
) -> Hopping:
    """Return windows of `size`, one every `slide`: each event is in several that overlap.

    Parameters
    ----------
    size
        E.g. `"10m"`. A window holds its start and not its end.
    slide
        E.g. `"1m"`: from one window's start to the next one's; at most `size`.
    offset
        By how much the windows' starts are shifted from multiples of `slide` since
        1970-01-01 UTC.

    Raises
    ------
    OptionError
        When a duration cannot be read, or `slide` is not between 0 and `size`.

    Examples
    --------
    >>> hopping("10m", "4m").describe()
    'hopping 0:10:00 every 0:04:00'
    """
    location = user_location()
    size_us, slide_us = _positive("size", size, location), _positive("slide", slide, location)
    offset_us = duration_option("offset", offset, location)
    try:
        return Hopping(size_us, slide_us, offset_us % slide_us)
    except OptionError as error:
        message = f"{location}: {error}"
        raise OptionError(message) from error


def session(gap: str | timedelta) -> Session:
    """Return sessions: rows of a key that follow one another by less than `gap`.

    A session goes from its first row to `gap` after its last. It is given out when the watermark
    has come to its end. A row that is behind the watermark is late, whatever sessions are open:
    `lateness` of the stream says how far rows may be out of order, and with
    `allowed_lateness` a session waits so much longer for rows that are behind.

    Parameters
    ----------
    gap
        E.g. `"30m"`.

    Raises
    ------
    OptionError
        When it cannot be read, or is not positive.

    Examples
    --------
    >>> session("30m").gap_us
    1800000000
    """
    return Session(_positive("gap", gap, user_location()))


def sliding(size: str | timedelta) -> Sliding:
    """Return for each row the window of the rows of its key from `size` before it up to it.

    Both ends are inclusive, and rows of one time are in each other's windows, as with
    `RANGE BETWEEN … PRECEDING AND CURRENT ROW` in SQL. `agg` adds its results to the columns of the
    row, which goes out when the watermark is beyond its time. A row that is behind the watermark is
    late: `lateness` of the stream says how far rows may be out of order.

    Parameters
    ----------
    size
        E.g. `"10m"`.

    Raises
    ------
    OptionError
        When it cannot be read, or is negative.

    Examples
    --------
    >>> sliding("10m").describe()
    'the 0:10:00 before each row'
    """
    return Sliding(duration_option("size", size, user_location()))


def counting(size: int, slide: int | None = None) -> Counting:
    """Return windows of `size` rows of a key, in the order of event time.

    Rows of one time go by their places in their source. A window is given out when it is full and
    the watermark is beyond its last row, whose time is `window_end`; `window_start` is that of its
    first. One that is not full waits, for ever if need be, and is not given out at the end. A row
    that is behind the watermark is late.

    Parameters
    ----------
    size
        How many rows are in a window.
    slide
        With every so many rows of the key a window begins, from 1 to `size`; by default `size`.

    Raises
    ------
    OptionError
        When they are no such numbers.

    Examples
    --------
    >>> counting(100, 10).describe()
    '100 rows every 10'
    """
    location = user_location()
    for name, value in (("size", size), ("slide", slide)):
        if value is not None and type(value) is not int:
            message = f"{location}: {name}= is a number of rows; got {value!r}"
            raise OptionError(message)
    try:
        return Counting(size, size if slide is None else slide)
    except OptionError as error:
        message = f"{location}: {error}"
        raise OptionError(message) from error


def global_window() -> Global:
    """Return the one window of all time: all rows of a key, which is over when the input ends.

    With `emit="changes"` or `ms.every(…)` its results are kept up to date, as those of `agg`
    without a window are, also by a later run. Given out at the end, they are final, and rows of a
    later run are late. They have no `window_start` and no `window_end`.

    Examples
    --------
    >>> global_window().describe()
    'all of time'
    """
    return Global()


@dataclass(frozen=True, slots=True)
class Every:
    """When windows give out what changed; see `every`.

    Parameters
    ----------
    interval_us
        Microseconds, at least 1.
    """

    interval_us: int


def every(interval: str | timedelta) -> Every:
    """Return that windows are to give out what changed at each multiple of an interval.

    It is the stream's time that passes, by its watermark: event time, where nothing depends on how
    fast rows are read, or the machine's where the stream has processing time. A window that is over
    is told of for the last time at the next multiple.

    Parameters
    ----------
    interval
        E.g. `"10s"`; multiples are counted from 1970-01-01 UTC.

    Raises
    ------
    OptionError
        When it cannot be read, or is not positive.

    Examples
    --------
    >>> every("10s")
    Every(interval_us=10000000)
    """
    location = user_location()
    interval_us = duration_option("interval", interval, location)
    if interval_us == 0:
        message = f"{location}: an interval must be more than 0; got {interval!r}"
        raise OptionError(message)
    return Every(interval_us)


def _positive(name: str, value: str | timedelta, location: str) -> int:
    duration_us = duration_option(name, value, location)
    if duration_us == 0:
        message = f"{location}: a window's {name} must be more than 0; got {value!r}"
        raise OptionError(message)
    return duration_us


def duration_option(name: str, value: str | timedelta, location: str) -> int:
    """Return the duration that option `name` has, in microseconds, from 0 on.

    Raises
    ------
    OptionError
        When it is none; names the option and the user's line.
    """
    try:
        duration_us = parse_duration_us(value)
    except (OptionError, TypeError, AttributeError) as error:
        message = f'{location}: {name}={value!r} is no duration; write e.g. "90s" or "24h"'
        raise OptionError(message) from error
    if duration_us < 0:
        message = f"{location}: {name}={value!r} is negative; give a duration from 0 on"
        raise OptionError(message)
    return duration_us
