"""What each function of `.dt` accepts, and the type that it gives."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl.binding import Scope, coerce, duration_us, failure, named_type, shown
from millstream.dsl.expressions import Expression, option
from millstream.dsl.text_signatures import zoned
from millstream.operators.expression import Call, TypedExpression

_CALENDAR = re.compile(r"\s*(\d+)\s*(y|q|mo)\s*")
_WEEKS = re.compile(r"\s*(\d+)\s*w\s*")
_OFFSET = re.compile(r"\s*([+-]?)((?:\s*\d+(?:\.\d+)?\s*(?:us|ms|mo|s|m|h|d|w|q|y))+)\s*")
_OFFSET_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|mo|s|m|h|d|w|q|y)")
_MONTHS = {"mo": 1, "q": 3, "y": 12}
_DAYS = {"d": 1, "w": 7}
_OF_DAYS = frozenset(
    {"dt.year", "dt.iso_year", "dt.quarter", "dt.month", "dt.week", "dt.day", "dt.weekday"}
    | {"dt.day_of_year"}
)


def bind_time(expression: Expression, scope: Scope) -> TypedExpression:
    """Return a function of times, typed.

    Raises
    ------
    ExpressionTypeError
        When the operand is no time, or an option cannot be used.
    """
    function, operand = expression.function, expression.arguments[0]
    argument = scope.bind(operand)
    if function in {"dt.total", "dt.cast_time_unit"} and pat.is_duration(argument.type):
        return _of_duration(expression, argument)
    if function == "dt.total":
        what = f".{function}_… needs a duration; got {shown(operand, argument)}"
        raise failure(expression, what, "subtract two times")
    is_date = pat.is_date(argument.type)
    if not (pat.is_timestamp(argument.type) or is_date):
        what = f".{function} needs a timestamp or a date; got {shown(operand, argument)}"
        raise failure(expression, what, 'cast it with .cast("timestamp")')
    if function in _OF_DAYS or (function in _CLOCK and is_date):
        return Call(function, (argument,), pa.int64())
    if is_date and function not in {"dt.date", "dt.epoch"}:
        argument = coerce(argument, pa.timestamp("us"))
    return _RESULTS[function](expression, argument)


def _of_duration(expression: Expression, argument: TypedExpression) -> TypedExpression:
    if expression.function == "dt.total":
        return Call("dt.total", (argument,), pa.int64(), expression.options)
    unit = option(expression, "unit")
    return coerce(argument, named_type(f"duration[{unit}]", expression.location))


def _truncate(expression: Expression, argument: TypedExpression) -> TypedExpression:
    every = option(expression, "every")
    given: tuple[tuple[str, object], ...]
    calendar = _CALENDAR.fullmatch(every) if isinstance(every, str) else None
    if calendar is not None:
        amount = int(calendar[1]) * _MONTHS[calendar[2]]
        given = (("months", amount),)
    else:
        amount = duration_us(every, expression)
        given = (("every_us", amount),)
        if isinstance(every, str) and _WEEKS.fullmatch(every):
            given = (*given, ("weeks", True))
    if amount <= 0:
        what = f".dt.truncate needs a positive duration; got {every!r}"
        raise failure(expression, what, 'give one such as "1h"')
    return Call("dt.truncate", (argument,), argument.type, given)


def _offset_by(expression: Expression, argument: TypedExpression) -> TypedExpression:
    by = option(expression, "by")
    months = days = shift_us = 0
    found = _OFFSET.fullmatch(by) if isinstance(by, str) else None
    if found is None:
        shift_us = duration_us(by, expression)
    else:
        sign = -1 if found[1] == "-" else 1
        for number, unit in _OFFSET_PART.findall(found[2]):
            if unit in _MONTHS and "." not in number:
                months += sign * int(number) * _MONTHS[unit]
            elif unit in _DAYS and "." not in number:
                days += sign * int(number) * _DAYS[unit]
            else:
                shift_us += sign * duration_us(f"{number}{unit}", expression)
    type_ = argument.type
    given = (("months", months), ("days", days), ("shift_us", shift_us))
    return Call("dt.offset_by", (argument,), type_, given)


def _convert_zone(expression: Expression, argument: TypedExpression) -> TypedExpression:
    return coerce(argument, zoned(expression, argument.type.unit, option(expression, "zone")))


def _replace_zone(expression: Expression, argument: TypedExpression) -> TypedExpression:
    options = dict(expression.options)
    unit, zone = argument.type.unit, options.pop("zone")
    for name, value in options.items():
        if value not in {"raise", "earliest", "latest"}:
            what = f'{name} is "raise", "earliest" or "latest"; got {value!r}'
            raise failure(expression, what, "leave it out for a failure")
    type_ = pa.timestamp(unit) if zone is None else zoned(expression, unit, zone)
    return Call("dt.replace_time_zone", (argument,), type_, tuple(options.items()))


def _epoch(expression: Expression, argument: TypedExpression) -> TypedExpression:
    unit = option(expression, "unit")
    if unit not in {"s", "ms", "us", "ns", "d"}:
        what = f'a unit of time is "s", "ms", "us", "ns" or "d"; got {unit!r}'
        raise failure(expression, what, "leave it out for microseconds")
    return Call("dt.epoch", (argument,), pa.int64(), expression.options)


def _cast_unit(expression: Expression, argument: TypedExpression) -> TypedExpression:
    named = named_type(f"timestamp[{option(expression, 'unit')}]", expression.location)
    return coerce(argument, pa.timestamp(named.unit, argument.type.tz))


def _strftime(expression: Expression, argument: TypedExpression) -> TypedExpression:
    if not isinstance(option(expression, "format"), str):
        what = f".dt.strftime takes a format as text; got {option(expression, 'format')!r}"
        raise failure(expression, what, 'give one such as "%Y-%m-%d"')
    return Call("dt.strftime", (argument,), pa.string(), expression.options)


def _as(type_: pa.DataType) -> Callable[[Expression, TypedExpression], TypedExpression]:
    return lambda expression, argument: Call(expression.function, (argument,), type_)


def _time_of_day(expression: Expression, argument: TypedExpression) -> TypedExpression:
    unit = argument.type.unit
    type_ = pa.time32(unit) if unit in {"s", "ms"} else pa.time64(unit)
    return Call("dt.time", (argument,), type_)


def _same_type(expression: Expression, argument: TypedExpression) -> TypedExpression:
    return Call(expression.function, (argument,), argument.type)


_CLOCK = ("dt.hour", "dt.minute", "dt.second")
_RESULTS: dict[str, Callable[[Expression, TypedExpression], TypedExpression]] = {
    **dict.fromkeys((*_CLOCK, "dt.millisecond", "dt.microsecond"), _as(pa.int64())),
    **dict.fromkeys(("dt.nanosecond", "dt.days_in_month"), _as(pa.int64())),
    "dt.is_leap_year": _as(pa.bool_()),
    "dt.date": _as(pa.date32()),
    "dt.time": _time_of_day,
    "dt.month_start": _same_type,
    "dt.month_end": _same_type,
    "dt.truncate": _truncate,
    "dt.offset_by": _offset_by,
    "dt.convert_time_zone": _convert_zone,
    "dt.replace_time_zone": _replace_zone,
    "dt.epoch": _epoch,
    "dt.cast_time_unit": _cast_unit,
    "dt.strftime": _strftime,
}
