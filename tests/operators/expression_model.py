"""What typed expressions mean, row by row in plain Python: the oracle of both evaluators.

It follows the table in `millstream/operators/expression.py` and shares no code with what it
checks. Integers are Python's, cut to their type; float32 is rounded after every step; times are
integers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.expression import Call, Column, Constant, TypedExpression

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def value_of(expression: TypedExpression, row: Row) -> Any:
    """The value of an expression; null is None, a timestamp or duration is an integer."""
    match expression:
        case Column(name=name):
            return row[name]
        case Constant(value=value, type=type_):
            return as_number(value, type_)
        case Call(function=function, arguments=arguments):
            return (
                LAZY[function](expression, row)
                if function in LAZY
                else strict(expression, [value_of(each, row) for each in arguments])
            )
    raise AssertionError(expression)


def as_number(value: Any, type_: pa.DataType) -> Any:
    """A Python value as the model holds it."""
    if value is None or not pat.is_temporal(type_):
        return fitted(value, type_) if pat.is_float32(type_) else value
    if isinstance(value, int):
        return value
    scalar = pa.scalar(value, type_)
    return scalar.cast(pa.int32() if type_.bit_width == 32 else pa.int64()).as_py()


def rows_of(batch: pa.RecordBatch) -> list[Row]:
    """The rows of a batch as the model takes them."""
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        plain = column
        if pat.is_temporal(column.type):
            plain = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
        columns[name] = plain.to_pylist()
    return [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]


def strict(call: Call, values: list[Any]) -> Any:
    """A function that is null where an argument is."""
    if any(each is None for each in values):
        return None
    types = [each.type for each in call.arguments]
    return fitted(STRICT[call.function](call, types, *values), call.type)


def fitted(value: Any, type_: pa.DataType) -> Any:
    """A computed number as its type holds it."""
    if value is None or isinstance(value, str | bool):
        return value
    if pat.is_float32(type_):
        try:
            return struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            return math.copysign(math.inf, value)
    if pat.is_floating(type_):
        return float(value)
    bits = type_.bit_width
    value = int(value) & ((1 << bits) - 1)
    signed = not pat.is_unsigned_integer(type_)
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def divide(left: float, right: float) -> float:
    if right == 0:
        if left == 0 or math.isnan(left):
            return math.nan
        return math.copysign(math.inf, left) * math.copysign(1, right)
    return left / right


def floor_divide(call: Call, types: list[pa.DataType], left: Any, right: Any) -> Any:
    if not pat.is_floating(call.type):
        return None if right == 0 else left // right
    quotient = fitted(divide(left, right), call.type)
    whole = math.isinf(quotient) or math.isnan(quotient) or quotient == 0
    return quotient if whole else math.floor(quotient)


def modulo(call: Call, types: list[pa.DataType], left: Any, right: Any) -> Any:
    if not pat.is_floating(call.type):
        return None if right == 0 else left % right
    if right == 0 or math.isinf(left) or math.isnan(left) or math.isnan(right):
        return math.nan
    if math.isinf(right):
        return left + 0.0 if left == 0 or (left > 0) == (right > 0) else right
    return left % right + 0.0


def compared(compare: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    return lambda call, types, left, right: compare(left, right)


def cast(call: Call, types: list[pa.DataType], value: Any) -> Any:
    source, target = types[0], call.type
    if pat.is_boolean(target):
        return bool(value)
    if pat.is_boolean(source):
        return int(value)
    return math.trunc(value) if pat.is_floating(source) and pat.is_integer(target) else value


def option(call: Call, name: str) -> Any:
    return dict(call.options)[name]


def moment(value: int, type_: pa.DataType) -> datetime:
    unit = {"s": 10**6, "ms": 10**3, "us": 1, "D": 86_400 * 10**6}
    return EPOCH + timedelta(microseconds=value * unit["D" if pat.is_date32(type_) else type_.unit])


def field(read: Callable[[datetime], int]) -> Callable[..., int]:
    return lambda call, types, value: read(moment(value, types[0]))


def truncate(call: Call, types: list[pa.DataType], value: int) -> int:
    every = option(call, "every_us")
    return value // every * every


def sliced(call: Call, types: list[pa.DataType], text: str) -> str:
    start, length = option(call, "start"), option(call, "length")
    return text[start:] if length is None else text[start : start + length]


STRICT: dict[str, Callable[..., Any]] = {
    "add": lambda call, types, a, b: a + b,
    "subtract": lambda call, types, a, b: a - b,
    "multiply": lambda call, types, a, b: a * b,
    "divide": lambda call, types, a, b: divide(a, b),
    "floor_divide": floor_divide,
    "modulo": modulo,
    "negate": lambda call, types, a: -a,
    "abs": lambda call, types, a: abs(a),
    "equal": compared(lambda a, b: a == b),
    "not_equal": compared(lambda a, b: a != b),
    "less": compared(lambda a, b: a < b),
    "less_equal": compared(lambda a, b: a <= b),
    "greater": compared(lambda a, b: a > b),
    "greater_equal": compared(lambda a, b: a >= b),
    "not": lambda call, types, a: not a,
    "cast": cast,
    "timestamp_add": lambda call, types, a, b: a + b,
    "timestamp_subtract": lambda call, types, a, b: a - b,
    "timestamp_difference": lambda call, types, a, b: a - b,
    "str.length": lambda call, types, a: len(a),
    "str.upper": lambda call, types, a: a.upper(),
    "str.lower": lambda call, types, a: a.lower(),
    "str.strip": lambda call, types, a: a.strip(),
    "str.contains": lambda call, types, a: option(call, "pattern") in a,
    "str.starts_with": lambda call, types, a: a.startswith(option(call, "pattern")),
    "str.ends_with": lambda call, types, a: a.endswith(option(call, "pattern")),
    "str.slice": sliced,
    "str.replace": lambda call, types, a: a.replace(
        option(call, "pattern"), option(call, "replacement")
    ),
    "str.concat": lambda call, types, *texts: "".join(texts),
    "dt.year": field(lambda at: at.year),
    "dt.month": field(lambda at: at.month),
    "dt.day": field(lambda at: at.day),
    "dt.hour": field(lambda at: at.hour),
    "dt.minute": field(lambda at: at.minute),
    "dt.second": field(lambda at: at.second),
    "dt.weekday": field(lambda at: at.weekday()),
    "dt.day_of_year": field(lambda at: at.timetuple().tm_yday),
    "dt.truncate": truncate,
}


def both(call: Call, row: Row) -> Any:
    values = [value_of(each, row) for each in call.arguments]
    if False in values:
        return False
    return None if None in values else True


def either(call: Call, row: Row) -> Any:
    values = [value_of(each, row) for each in call.arguments]
    if True in values:
        return True
    return None if None in values else False


def case(call: Call, row: Row) -> Any:
    *pairs, otherwise = call.arguments
    for condition, value in zip(pairs[0::2], pairs[1::2], strict=True):
        if value_of(condition, row):
            return value_of(value, row)
    return value_of(otherwise, row)


def coalesce(call: Call, row: Row) -> Any:
    values = (value_of(each, row) for each in call.arguments)
    return next((each for each in values if each is not None), None)


def is_in(call: Call, row: Row) -> Any:
    value, wanted = value_of(call.arguments[0], row), option(call, "values")
    if value is None:
        return None
    if any(value == each for each in wanted if each is not None):
        return True
    return None if None in wanted else False


LAZY: dict[str, Callable[[Call, Row], Any]] = {
    "and": both,
    "or": either,
    "is_null": lambda call, row: value_of(call.arguments[0], row) is None,
    "case": case,
    "coalesce": coalesce,
    "is_in": is_in,
}


def same(ours: Any, expected: Any) -> bool:
    """Equality of values; NaN is itself, and nothing else is forgiven."""
    if isinstance(ours, float) and isinstance(expected, float) and math.isnan(expected):
        return math.isnan(ours)
    return type(ours) is type(expected) and bool(ours == expected)
