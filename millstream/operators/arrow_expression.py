"""Evaluates typed expressions with pyarrow.compute: what kernels leave, and their oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.errors import JobError
from millstream.operators.expression import Call, Column, Constant, TypedExpression


def evaluate(expression: TypedExpression, batch: pa.RecordBatch) -> pa.Array:
    """Return the value of `expression` in each row.

    Parameters
    ----------
    expression
        Bound to the batch's schema.
    batch
        n rows.

    Returns
    -------
    pyarrow.Array
        n values of the expression's type.

    Raises
    ------
    JobError
        Where a cast does not fit; names the cast.
    """
    value = _value(expression, batch)
    if isinstance(value, pa.Scalar):
        return pa.repeat(value, batch.num_rows)
    return value


def _value(expression: TypedExpression, batch: pa.RecordBatch) -> Any:
    """Return an array, or a scalar where the value is the same in every row."""
    match expression:
        case Column(name=name):
            return batch.column(name)
        case Constant(value=value, type=type_):
            return pa.scalar(value, type_)
        case Call(function=function, arguments=arguments):
            values = [_value(each, batch) for each in arguments]
            # Calendar and string functions take scalars too; `is_in` and others want arrays.
            if all(isinstance(each, pa.Scalar) for each in values):
                values = [pa.repeat(each, batch.num_rows) for each in values]
            return _FUNCTIONS[function](values, expression)
    message = f"no such expression: {expression!r}"
    raise AssertionError(message)


def _simple(function: Callable[..., Any]) -> Callable[[list[Any], Call], Any]:
    """Return an entry of the table for a function of the arguments alone."""
    return lambda values, call: function(*values)


def _floor_divide(values: list[Any], call: Call) -> Any:
    left, right = values
    if pat.is_floating(call.type):
        return pc.floor(pc.divide(left, right))
    divisor = _zero_to_null(right)
    if pat.is_unsigned_integer(call.type):
        return pc.divide(left, divisor)
    # Arrow truncates; one less where the signs differ and something is left.
    # The least integer by -1 overflows: it wraps, as its product with -1 does.
    minus_one = pc.equal(divisor, -1)
    divisor = pc.if_else(minus_one, pa.scalar(1, call.type), divisor)
    quotient = pc.divide(left, divisor)
    remainder = pc.subtract(left, pc.multiply(quotient, divisor))
    negative = pc.xor(pc.less(remainder, 0), pc.less(divisor, 0))
    lower = pc.and_(pc.not_equal(remainder, 0), negative)
    floored = pc.subtract(quotient, pc.cast(lower, call.type))
    return pc.if_else(minus_one, pc.negate(left), floored)


def _modulo(values: list[Any], call: Call) -> Any:
    left, right = values
    if pat.is_floating(call.type):
        return _float_modulo(left, right, call.type)
    quotient = _floor_divide(values, call)
    return pc.subtract(left, pc.multiply(quotient, _zero_to_null(right)))


def _float_modulo(left: Any, right: Any, type_: pa.DataType) -> Any:
    """Return NumPy's remainder, which has the divisor's sign."""
    length = len(left) if isinstance(left, pa.Array) else len(right)
    arrays = [pa.repeat(v, length) if isinstance(v, pa.Scalar) else v for v in (left, right)]
    numbers = [np.asarray(pc.fill_null(each, 1.0)) for each in arrays]
    with np.errstate(all="ignore"):
        values = np.mod(*numbers) + 0.0  # a zero is a positive one
    null = pc.or_(pc.is_null(arrays[0]), pc.is_null(arrays[1]))
    return pa.array(values, type_, mask=null.to_numpy(zero_copy_only=False))


def _zero_to_null(divisor: Any) -> Any:
    # A plain 0 is an int64, to which Arrow would cast the divisor.
    zero = pa.scalar(0, divisor.type)
    return pc.if_else(pc.equal(divisor, zero), pa.scalar(None, divisor.type), divisor)


def _absolute(values: list[Any], call: Call) -> Any:
    return pc.abs(values[0])


def _case(values: list[Any], call: Call) -> Any:
    result = values[-1]
    for index in range(len(values) - 3, -1, -2):
        condition = pc.fill_null(values[index], False)
        result = pc.if_else(condition, values[index + 1], result)
    return result


def _cast(values: list[Any], call: Call) -> Any:
    value = values[0]
    try:
        if pat.is_floating(value.type) and pat.is_integer(call.type):
            # A fraction is cut off, as in SQL and Polars; NaN and what is too large fail.
            value = pc.trunc(value)
        # The nearest float stands for an integer beyond 2^53, as everywhere in the field.
        widening = pat.is_integer(value.type) and pat.is_floating(call.type)
        return pc.cast(value, call.type, safe=not widening)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"cast from {value.type} to {call.type} failed: {error}"
        raise JobError(message) from error


def _is_in(values: list[Any], call: Call) -> Any:
    wanted = dict(call.options)["values"]
    assert isinstance(wanted, tuple | list)
    known = pa.array([each for each in wanted if each is not None], values[0].type)
    found = pc.is_in(values[0], value_set=known)
    # SQL: null is in nothing and not in nothing; with a null in the list no miss is certain.
    found = pc.if_else(pc.is_null(values[0]), pa.scalar(None, pa.bool_()), found)
    if len(known) < len(wanted):
        found = pc.if_else(found, True, pa.scalar(None, pa.bool_()))
    return found


def _option(call: Call, name: str) -> Any:
    return dict(call.options)[name]


def _length(values: list[Any], call: Call) -> Any:
    return pc.cast(pc.utf8_length(values[0]), pa.int64())


def _contains(values: list[Any], call: Call) -> Any:
    return pc.match_substring(values[0], _option(call, "pattern"))


def _starts_with(values: list[Any], call: Call) -> Any:
    return pc.starts_with(values[0], _option(call, "pattern"))


def _ends_with(values: list[Any], call: Call) -> Any:
    return pc.ends_with(values[0], _option(call, "pattern"))


def _slice(values: list[Any], call: Call) -> Any:
    start, length = _option(call, "start"), _option(call, "length")
    stop = None if length is None else start + length
    if start < 0 and stop is not None and stop >= 0:
        stop = None  # counted from the end: the slice reaches it
    return pc.utf8_slice_codeunits(values[0], start, stop)


def _replace(values: list[Any], call: Call) -> Any:
    return pc.replace_substring(
        values[0], pattern=_option(call, "pattern"), replacement=_option(call, "replacement")
    )


def _concat(values: list[Any], call: Call) -> Any:
    return pc.binary_join_element_wise(*values, pa.scalar("", call.type))


def _calendar(function: Callable[..., Any]) -> Callable[[list[Any], Call], Any]:
    """Return a field of the calendar, in the type's zone, as int64."""

    def field(values: list[Any], call: Call) -> Any:
        value = values[0]
        if pat.is_date(value.type):
            value = pc.cast(value, pa.timestamp("s"))
        return pc.cast(function(value), pa.int64())

    return field


def _truncate(values: list[Any], call: Call) -> Any:
    """Floor timestamps to a multiple of `every_us` since 1970 UTC."""
    value = values[0]
    every = pa.scalar(_option(call, "every_us"), pa.int64())
    zone = value.type.tz
    ticks = pc.cast(pc.cast(value, pa.timestamp("us", zone), safe=False), pa.int64())
    integer = Call("floor_divide", (), pa.int64())
    floored = pc.multiply(_floor_divide([ticks, every], integer), every)
    return pc.cast(pc.cast(floored, pa.timestamp("us", zone)), value.type, safe=False)


def _timestamp_shift(function: Callable[..., Any]) -> Callable[[list[Any], Call], Any]:
    def shift(values: list[Any], call: Call) -> Any:
        shifted = function(values[0], values[1])
        return shifted if shifted.type == call.type else pc.cast(shifted, call.type)

    return shift


def _timestamp_difference(values: list[Any], call: Call) -> Any:
    left, right = (pc.cast(pc.cast(v, pa.timestamp("us", v.type.tz)), pa.int64()) for v in values)
    return pc.cast(pc.subtract(left, right), call.type)


_FUNCTIONS: dict[str, Callable[[list[Any], Call], Any]] = {
    "add": _simple(pc.add),
    "subtract": _simple(pc.subtract),
    "multiply": _simple(pc.multiply),
    "divide": _simple(pc.divide),
    "floor_divide": _floor_divide,
    "modulo": _modulo,
    "negate": _simple(pc.negate),
    "abs": _absolute,
    "equal": _simple(pc.equal),
    "not_equal": _simple(pc.not_equal),
    "less": _simple(pc.less),
    "less_equal": _simple(pc.less_equal),
    "greater": _simple(pc.greater),
    "greater_equal": _simple(pc.greater_equal),
    "and": _simple(pc.and_kleene),
    "or": _simple(pc.or_kleene),
    "not": _simple(pc.invert),
    "is_null": _simple(pc.is_null),
    "case": _case,
    "coalesce": _simple(pc.coalesce),
    "cast": _cast,
    "is_in": _is_in,
    "str.length": _length,
    "str.upper": _simple(pc.utf8_upper),
    "str.lower": _simple(pc.utf8_lower),
    "str.strip": _simple(pc.utf8_trim_whitespace),
    "str.contains": _contains,
    "str.starts_with": _starts_with,
    "str.ends_with": _ends_with,
    "str.slice": _slice,
    "str.replace": _replace,
    "str.concat": _concat,
    "dt.year": _calendar(pc.year),
    "dt.month": _calendar(pc.month),
    "dt.day": _calendar(pc.day),
    "dt.hour": _calendar(pc.hour),
    "dt.minute": _calendar(pc.minute),
    "dt.second": _calendar(pc.second),
    "dt.weekday": _calendar(pc.day_of_week),
    "dt.day_of_year": _calendar(pc.day_of_year),
    "dt.truncate": _truncate,
    "timestamp_add": _timestamp_shift(pc.add),
    "timestamp_subtract": _timestamp_shift(pc.subtract),
    "timestamp_difference": _timestamp_difference,
}
FUNCTIONS = frozenset(_FUNCTIONS)
"""The functions of `millstream.operators.expression`, all of them."""
