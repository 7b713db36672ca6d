"""Functions of timestamps, dates and durations; in the type's time zone where it has one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.errors import JobError
from millstream.operators.arrow_buffers import array_of, valid_bytes_of, values_of
from millstream.operators.expression import Call
from millstream.operators.functions.casts import cast
from millstream.operators.functions.function import (
    Function,
    first_failing,
    nulls_where_failing,
    option,
)

_DAY_US = 86_400_000_000
_WEEK_SHIFT_US = 4 * _DAY_US
"""From Thursday, the first day of 1970, to a Monday."""
_UNIT_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_UNIT_US |= {"d": _DAY_US}
_DAY_OF_UNIT = {"us": _DAY_US, "ns": 1_000 * _DAY_US}
"""Units in which no time is so far away that its day leaves int32."""
_FRACTION = r"[.,](\d{1,9})"


def _moment(value: pa.Array) -> pa.Array:
    return pc.cast(value, pa.timestamp("us")) if pat.is_date(value.type) else value


def _field(function: Callable[..., Any]) -> Function:
    """Return a field of the calendar, in the type's zone, as the call's type."""

    def entry(values: list[Any], call: Call) -> Any:
        return pc.cast(function(_moment(values[0])), call.type)

    return entry


def _fraction(per_second: int) -> Function:
    """Return the part of a second behind the whole one, in units of which it has `per_second`."""

    def entry(values: list[Any], call: Call) -> Any:
        value = values[0]
        total = pc.multiply(pc.cast(pc.millisecond(value), pa.int64()), 1_000_000)
        total = pc.add(total, pc.multiply(pc.cast(pc.microsecond(value), pa.int64()), 1_000))
        total = pc.add(total, pc.cast(pc.nanosecond(value), pa.int64()))
        return pc.divide(total, 1_000_000_000 // per_second)

    return entry


def _ticks(value: pa.Array, unit: str) -> pa.Array:
    """Return the count of `unit` since 1970 UTC, or in a duration, floored."""
    if pat.is_date(value.type):
        value = pc.cast(value, pa.timestamp("s"))
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    have, want = per_second[value.type.unit], per_second.get(unit, 0)
    count = value.view(pa.int64())
    if want >= have:
        return pc.multiply_checked(count, want // have)
    factor = have // want if want else have * 86_400
    return _floored(count, factor)


def _floored(count: pa.Array, by: int) -> pa.Array:
    # NumPy divides by one number in a tenth of the time that Arrow needs to floor, too.
    return _array_of(values_of(count) // by, pa.int64(), count)


def _array_of(values: npt.NDArray[Any], type_: pa.DataType, like: pa.Array) -> pa.Array:
    """Return `values` as an array that is null where `like` is."""
    return array_of(values, type_, valid_bytes_of(like) if like.null_count else None)


def _epoch(values: list[Any], call: Call) -> Any:
    return _ticks(values[0], option(call, "unit"))


def _total(values: list[Any], call: Call) -> Any:
    """Return a duration in whole units, the rest cut off, as in Polars."""
    value = values[0]
    unit_ns = option(call, "unit_ns")
    own_ns = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[value.type.unit]
    count = value.view(pa.int64())
    if own_ns >= unit_ns:
        return pc.multiply_checked(count, own_ns // unit_ns)
    return pc.divide(count, unit_ns // own_ns)


def _local(value: pa.Array) -> pa.Array:
    return value if value.type.tz is None else pc.local_timestamp(value)


def _from_local(local: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return local times as moments of `type_`; one that the clocks skip is the next there is."""
    if type_.tz is None:
        return local.cast(type_)
    zoned = pc.assume_timezone(local, type_.tz, ambiguous="earliest", nonexistent="latest")
    return zoned.cast(type_)


def _truncate(values: list[Any], call: Call) -> Any:
    """Floor to a multiple of `every_us` since 1970, or of calendar units; in local time."""
    value = values[0]
    if value.type.tz == "UTC":  # whose clocks are never set: no local time is looked up
        plain = value.view(pa.timestamp(value.type.unit))
        return _truncate([plain], call).view(value.type)
    months, every_us = option(call, "months") or 0, option(call, "every_us") or 0
    if months:
        local = np.asarray(_local(value).cast(pa.timestamp("us"))).astype("datetime64[M]")
        starts = local.astype(np.int64) // months * months
        return _rebuilt(starts.astype("datetime64[M]").astype("datetime64[us]"), value)
    local = _local(value)
    if every_us < _DAY_US and value.type.tz is not None:
        # The clock's own hours: those of one that is set back are told apart.
        there, here = (each.view(pa.int64()) for each in (local, value))
        floored = _multiple(local, every_us).view(pa.int64())
        return pc.subtract(floored, pc.subtract(there, here)).view(value.type)
    shift = _WEEK_SHIFT_US if option(call, "weeks") else 0
    return _from_local(_multiple(local, every_us, shift), value.type)


def _multiple(local: pa.Array, every_us: int, shift_us: int = 0) -> pa.Array:
    unit = local.type.unit
    ticks = local.cast(pa.timestamp("us"), safe=False).view(pa.int64())
    if unit == "ns":
        ticks = _floored(local.view(pa.int64()), 1_000)
    floored = (values_of(ticks) - shift_us) // every_us * every_us + shift_us
    return _array_of(floored, pa.timestamp("us"), ticks).cast(pa.timestamp(unit), safe=False)


def _date(values: list[Any], call: Call) -> Any:
    value = values[0]
    if pat.is_timestamp(value.type) and value.type.tz in {None, "UTC"}:
        a_day = _DAY_OF_UNIT.get(value.type.unit)
        if a_day is not None:
            return _array_of((values_of(value) // a_day).astype(np.int32), pa.date32(), value)
    return value.cast(pa.date32())


def _offset_by(values: list[Any], call: Call) -> Any:
    """Shift by months and days of the local calendar, then by time that passes."""
    value = values[0]
    months, days = option(call, "months"), option(call, "days")
    moved = value
    if months or days:
        local = np.asarray(_local(value).cast(pa.timestamp("us"), safe=False))
        day = local.astype("datetime64[D]")
        rest = local - day
        if months:
            month = day.astype("datetime64[M]")
            in_month = (day - month.astype("datetime64[D]")).astype(np.int64)
            month = month + np.timedelta64(months, "M")
            last = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(
                np.int64
            ) - 1
            # The 31st of a month that has none is its last day.
            day = month.astype("datetime64[D]") + np.minimum(in_month, last)
        moved = _rebuilt((day + np.timedelta64(days, "D")) + rest, value)
    shift = pa.scalar(option(call, "shift_us"), pa.duration("us"))
    return cast(pc.add(moved, shift), call.type) if option(call, "shift_us") else moved


def _rebuilt(local: Any, value: pa.Array) -> pa.Array:
    missing = pc.is_null(value).to_numpy(zero_copy_only=False)
    naive = pa.array(local.astype("datetime64[us]"), pa.timestamp("us"), mask=missing)
    return _from_local(naive.cast(pa.timestamp(value.type.unit)), value.type)


def _replace_zone(values: list[Any], call: Call) -> Any:
    local = _local(values[0])
    zone = call.type.tz
    if zone is None:
        return local
    assume = partial(
        pc.assume_timezone,
        timezone=zone,
        ambiguous=option(call, "ambiguous"),
        nonexistent=option(call, "nonexistent"),
    )
    try:
        return assume(local)
    except pa.ArrowInvalid as error:
        shown = local[first_failing(local, assume)]
        message = f"replace_time_zone failed: {shown} in {zone} ({error})"
        raise JobError(message) from error


def _strptime(values: list[Any], call: Call) -> Any:
    text = values[0]
    parse = partial(parsed, format_=option(call, "format"), type_=call.type)
    if not option(call, "strict"):
        return nulls_where_failing(text, parse, call.type)
    try:
        return parse(text)
    except pa.ArrowInvalid as error:
        wrong = text[first_failing(text, parse)].as_py()
        message = f"text to {call.type} failed: {wrong!r} is not like {option(call, 'format')!r}"
        raise JobError(message) from error


def parsed(text: pa.Array, format_: str | None, type_: pa.DataType) -> pa.Array:
    """Return text of a format of C's `strptime` (with `%f` for a fraction) as dates or times.

    Raises
    ------
    pyarrow.ArrowInvalid
        Where a text is not of the format.
    """
    if format_ is None:
        if pat.is_timestamp(type_) and type_.tz is None:
            return cast(cast(text, pa.timestamp(type_.unit, "UTC")), type_)
        return cast(text, type_)
    fraction = None
    for each in ("%.f", ".%f", "%f"):
        if each in format_:
            format_ = format_.replace(each, "")
            digits = _FRACTION if each != "%f" else r"(\d{1,9})$"
            found = pc.extract_regex(text, digits.replace("(", "(?P<f>", 1))
            padded = pc.utf8_rpad(pc.struct_field(found, "f"), width=9, padding="0")
            fraction = pc.fill_null(padded.cast(pa.int64()), 0)
            text = pc.replace_substring_regex(text, digits, "", max_replacements=1)
            break
    moments = pc.strptime(text, format=format_, unit="s")
    if pat.is_date(type_):
        return moments.cast(pa.timestamp("s")).cast(type_)
    unit = type_.unit
    moments = moments.cast(pa.timestamp(unit, moments.type.tz))
    if fraction is not None:
        per = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
        ticks = pc.add(moments.view(pa.int64()), pc.divide(fraction, per))
        moments = ticks.view(moments.type)
    if type_.tz is not None and moments.type.tz is None:
        return moments.cast(pa.timestamp(unit, "UTC")).cast(type_)
    return moments.cast(type_)


def _days_in_month(value: pa.Array) -> pa.Array:
    month = np.asarray(_local(value).cast(pa.timestamp("s"), safe=False)).astype("datetime64[M]")
    days = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)
    return pa.array(days, pa.int64(), mask=pc.is_null(value).to_numpy(zero_copy_only=False))


def _month_edge(values: list[Any], call: Call) -> Any:
    """Return the first or last day of the month, at the same time of day."""
    value = values[0]
    local = np.asarray(_local(value).cast(pa.timestamp("us"), safe=False))
    day = local.astype("datetime64[D]")
    month = day.astype("datetime64[M]")
    edge = month.astype("datetime64[D]")
    if call.function == "dt.month_end":
        edge = (month + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    return _rebuilt(edge + (local - day), value)


def _timestamp_shift(function: Callable[..., Any]) -> Function:
    def shift(values: list[Any], call: Call) -> Any:
        shifted = function(values[0], values[1])
        return shifted if shifted.type == call.type else pc.cast(shifted, call.type)

    return shift


def _timestamp_difference(values: list[Any], call: Call) -> Any:
    left, right = (pc.cast(pc.cast(v, pa.timestamp("us", v.type.tz)), pa.int64()) for v in values)
    return pc.cast(pc.subtract(left, right), call.type)


FUNCTIONS: dict[str, Function] = {
    "dt.year": _field(pc.year),
    "dt.iso_year": _field(pc.iso_year),
    "dt.quarter": _field(pc.quarter),
    "dt.month": _field(pc.month),
    "dt.week": _field(pc.iso_week),
    "dt.day": _field(pc.day),
    "dt.hour": _field(pc.hour),
    "dt.minute": _field(pc.minute),
    "dt.second": _field(pc.second),
    "dt.millisecond": _fraction(10**3),
    "dt.microsecond": _fraction(10**6),
    "dt.nanosecond": _fraction(10**9),
    "dt.weekday": _field(pc.day_of_week),
    "dt.day_of_year": _field(pc.day_of_year),
    "dt.days_in_month": _field(_days_in_month),
    "dt.is_leap_year": _field(pc.is_leap_year),
    "dt.date": _date,
    "dt.time": lambda values, call: values[0].cast(call.type),
    "dt.month_start": _month_edge,
    "dt.month_end": _month_edge,
    "dt.epoch": _epoch,
    "dt.total": _total,
    "dt.truncate": _truncate,
    "dt.offset_by": _offset_by,
    "dt.replace_time_zone": _replace_zone,
    "dt.strftime": lambda values, call: pc.strftime(
        _moment(values[0]), format=option(call, "format")
    ).cast(call.type),
    "str.strptime": _strptime,
    "timestamp_add": _timestamp_shift(pc.add),
    "timestamp_subtract": _timestamp_shift(pc.subtract),
    "timestamp_difference": _timestamp_difference,
}
