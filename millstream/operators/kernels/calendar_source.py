"""Writes what a kernel computes of a time: the parts of it that follow from a division.

Only of times in UTC, or without a zone: what a clock elsewhere shows needs a table of its zone.
"""

from __future__ import annotations

import pyarrow.types as pat

from millstream.operators.expression import Call
from millstream.operators.functions.function import option

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400
_FIELDS = {"dt.hour": (3_600, 24), "dt.minute": (60, 60), "dt.second": (1, 60)}
"""Of how many seconds each is one, and how many there are in the next larger one."""

CALENDAR = frozenset({*_FIELDS, "dt.weekday", "dt.date", "dt.truncate"})
"""Functions of a time that a kernel may compute."""


def is_compiled_field(call: Call) -> bool:
    """Return `True` iff a kernel computes this function of the calendar, of this type."""
    type_ = call.arguments[0].type
    if not pat.is_timestamp(type_) or type_.tz not in {None, "UTC"}:
        return False
    if call.function == "dt.date":
        return type_.unit in {"us", "ns"}  # others have more days than a date
    if call.function != "dt.truncate":
        return True
    # What other units hold is rounded to microseconds on the way.
    return type_.unit == "us" and not option(call, "months") and bool(option(call, "every_us"))


def field_code(call: Call, code: str) -> str:
    """Return the code of a function for which `is_compiled_field` is true; `code` is the time.

    Numba divides down, as Python does, which is right before 1970 too.
    """
    per_second = _PER_SECOND[call.arguments[0].type.unit]
    if call.function in _FIELDS:
        seconds, count = _FIELDS[call.function]
        return f"{code} // {seconds * per_second} % {count}"
    if call.function == "dt.truncate":
        every_us = option(call, "every_us")
        shift_us = 4 * _DAY_S * per_second if option(call, "weeks") else 0
        return f"({code} - {shift_us}) // {every_us} * {every_us} + {shift_us}"
    days = f"{code} // {_DAY_S * per_second}"
    # The first day of 1970 was a Thursday; Monday is 0.
    return days if call.function == "dt.date" else f"({days} + 3) % 7"
