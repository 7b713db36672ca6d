"""Durations as a user writes them: `"90s"`, `"1h"`, `"1h 30m"`, a timedelta."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction

from millstream.errors import OptionError

_UNITS_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)\s*")
_WHOLE = re.compile(rf"\s*(?:{_PART.pattern})+")


def parse_duration_us(duration: str | timedelta) -> int:
    """Return a duration in microseconds.

    Parameters
    ----------
    duration
        A timedelta, or text: numbers with the units us, ms, s, m, h, d, w, which add up. The
        sum is rounded to a whole microsecond.

    Raises
    ------
    OptionError
        When the text is not a duration.

    Examples
    --------
    >>> parse_duration_us("1h 30m") == parse_duration_us("1.5h") == 5_400_000_000
    True
    """
    if isinstance(duration, timedelta):
        return duration // timedelta(microseconds=1)
    if not isinstance(duration, str) or _WHOLE.fullmatch(duration) is None:
        message = (
            f"not a duration: {duration!r}; write a number with a unit, "
            'e.g. "90s", "10m", "24h" or "7d" (units: us ms s m h d w)'
        )
        raise OptionError(message)
    parts = _PART.findall(duration)
    return round(sum(Fraction(number) * _UNITS_US[unit] for number, unit in parts))
