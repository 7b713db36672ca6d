"""Typed expressions as text, for `explain` and for messages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.types as pat

from millstream.log.predicate import (
    And,
    Comparison,
    IsIn,
    IsNull,
    Not,
    Or,
    Predicate,
    Unknown,
)
from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.windows.assignment import AnyWindow
from millstream.windows.by_rows import Counting, Sliding
from millstream.windows.calendar import Calendar
from millstream.windows.global_window import Global
from millstream.windows.hopping import Hopping
from millstream.windows.session import Session
from millstream.windows.tumbling import Tumbling

_INFIX = {
    "add": "+",
    "subtract": "-",
    "multiply": "×",
    "divide": "÷",
    "floor_divide": "//",
    "modulo": "%",
    "equal": "=",
    "not_equal": "≠",
    "less": "<",
    "less_equal": "≤",
    "greater": ">",
    "greater_equal": "≥",
    "and": "and",
    "or": "or",
    "timestamp_add": "+",
    "timestamp_subtract": "-",
    "timestamp_difference": "-",
    "str.concat": "+",
}


def expression_text(expression: TypedExpression) -> str:
    """Return a typed expression as a person would write it.

    Examples
    --------
    >>> delay = Column("delay", pa.int64())
    >>> expression_text(Call("greater", (delay, Constant(15, pa.int64())), pa.bool_()))
    'delay > 15'
    """
    match expression:
        case Column(name=name):
            return name
        case Constant(value=value, type=type_):
            return _constant_text(value, type_)
        case Call(function="is_null", arguments=(argument,)):
            return f"{_operand(argument)} is null"
        case Call(function="not", arguments=(Call(function="is_null", arguments=(argument,)),)):
            return f"{_operand(argument)} is not null"
        case Call(function="not", arguments=(argument,)):
            return f"not {_operand(argument)}"
        case Call(function="cast", arguments=(argument,), type=type_):
            return f"{_operand(argument)} as {type_}"
        case Call(function="udf", arguments=arguments, options=options):
            name = getattr(dict(options)["function"], "name", "udf")
            return f"{name}({', '.join(map(expression_text, arguments))})"
        case Call(function=function, arguments=arguments) if function in _INFIX:
            return f" {_INFIX[function]} ".join(_operand(each) for each in arguments)
        case Call(function=function, arguments=arguments, options=options):
            shown = [expression_text(each) for each in arguments]
            shown += [repr(value) for _, value in options if value is not None]
            return f"{function}({', '.join(shown)})"


def _operand(expression: TypedExpression) -> str:
    text = expression_text(expression)
    compound = isinstance(expression, Call) and (
        expression.function in _INFIX or expression.function in {"cast", "not", "is_null"}
    )
    return f"({text})" if compound else text


def predicate_text(predicate: Predicate) -> str:
    """Return what a source is told of a filter, as `expression_text` does.

    Examples
    --------
    >>> predicate_text(And((Comparison("delay", ">", pa.scalar(15)), Not(IsNull("carrier")))))
    'delay > 15 and carrier is not null'
    """
    match predicate:
        case Comparison(column=name, operator=operator, value=value):
            sign = {"==": "=", "!=": "≠", "<=": "≤", ">=": "≥"}.get(operator, operator)
            return f"{name} {sign} {_scalar_text(value)}"
        case IsIn(column=name, values=values):
            return f"{name} in {', '.join(map(_scalar_text, values))}"
        case IsNull(column=name):
            return f"{name} is null"
        case Not(part=IsNull(column=name)):
            return f"{name} is not null"
        case Not(part=part):
            return f"not {_predicate_operand(part)}"
        case And(parts=parts):
            return " and ".join(_predicate_operand(each) for each in parts)
        case Or(parts=parts):
            return " or ".join(_predicate_operand(each) for each in parts)
        case Unknown():
            return "…"


def _predicate_operand(predicate: Predicate) -> str:
    text = predicate_text(predicate)
    return f"({text})" if isinstance(predicate, And | Or) else text


def _scalar_text(value: Any) -> str:
    return _constant_text(value.as_py(), value.type)


def _constant_text(value: object, type_: pa.DataType) -> str:
    if value is None:
        return "null"
    if pat.is_timestamp(type_) or pat.is_date(type_):
        return str(pa.scalar(value, type_).cast(pa.string()))
    if pat.is_duration(type_):
        per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[type_.unit]
        assert isinstance(value, int)
        return duration_text(value * 1_000_000 // per_second)
    return repr(value)


def window_text(window: AnyWindow) -> str:
    """Return how windows cut time.

    Examples
    --------
    >>> window_text(Hopping(600_000_000, 60_000_000)), window_text(Calendar("month", 3))
    ('10m every 1m', '3 months in UTC')
    """
    if isinstance(window, Session):
        return f"sessions with gaps of {duration_text(window.gap_us)}"
    if isinstance(window, Sliding):
        return f"the {duration_text(window.size_us)} before each row"
    if isinstance(window, Global | Counting):
        return window.describe()
    shift = f" from {duration_text(window.offset_us)}" if window.offset_us else ""
    match window:
        case Tumbling():
            return f"{duration_text(window.size_us)}{shift}"
        case Hopping():
            size, slide = duration_text(window.size_us), duration_text(window.slide_us)
            return f"{size} every {slide}{shift}"
        case Calendar():
            units = f"{window.count} {window.unit}{'s' if window.count > 1 else ''}"
            return f"{units} in {window.zone}{shift}"


def duration_text(duration_us: int) -> str:
    """Return a duration in the largest unit that holds it as a whole number.

    Examples
    --------
    >>> duration_text(5_400_000_000), duration_text(86_400_000_000)
    ('90m', '1d')
    """
    units = (
        ("d", timedelta(days=1)),
        ("h", timedelta(hours=1)),
        ("m", timedelta(minutes=1)),
        ("s", timedelta(seconds=1)),
        ("ms", timedelta(milliseconds=1)),
    )
    if duration_us == 0:
        return "0s"
    for unit, size in units:
        size_us = size // timedelta(microseconds=1)
        if duration_us % size_us == 0:
            return f"{duration_us // size_us}{unit}"
    return f"{duration_us}us"
