"""Which expressions can fail on a row, and which of their parts go through Python."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.types as pat

from millstream.operators.expression import Call, TypedExpression
from millstream.operators.user_function import PythonFunction

_STRICT = frozenset({"str.strptime", "str.json", "str.to_integer"})


def may_fail(expression: TypedExpression) -> bool:
    """Return whether a value of some row could fail the computation, e.g. a narrowing cast."""
    if not isinstance(expression, Call):
        return False
    return _fails(expression) or any(may_fail(each) for each in expression.arguments)


def python_parts(expression: TypedExpression) -> Iterator[str]:
    """Give each part of an expression of which Python computes row after row, with the reason."""
    if not isinstance(expression, Call):
        return
    for each in expression.arguments:
        yield from python_parts(each)
    options = dict(expression.options)
    match expression.function:
        case "str.extract_all" | "str.to_integer":
            yield f"{expression.function}: Arrow has no such function"
        case "floor_divide" | "modulo" if pat.is_decimal(expression.type):
            yield f"{expression.function} of decimals: Arrow has no such function"
        case "str.json" if pat.is_nested(expression.type):
            yield f"str.json to {expression.type}: only single values are found by a kernel"
        case "udf":
            function = options["function"]
            if isinstance(function, PythonFunction):
                yield f"{function.name}: {function.reason}"
        case _:
            pass


def _fails(call: Call) -> bool:
    options = dict(call.options)
    match call.function:
        case "cast":
            if options.get("strict") is False:
                return False
            return not _holds_every_value(call.arguments[0].type, call.type)
        case function if function in _STRICT:
            return options.get("strict") is not False
        case "dt.replace_time_zone":
            return "raise" in {options["ambiguous"], options["nonexistent"]}
        case "udf" | "dt.epoch" | "dt.total":
            return True  # it may raise; a finer unit may not hold the count
        case "add" | "subtract" | "multiply" | "divide" | "floor_divide" | "modulo":
            return bool(pat.is_decimal(call.type))
        case _:
            return False


def _holds_every_value(source: pa.DataType, target: pa.DataType) -> bool:
    if pat.is_dictionary(source):
        return _holds_every_value(source.value_type, target)
    if source.equals(target) or pat.is_null(source):
        return True
    if pat.is_string(target) or pat.is_large_string(target) or pat.is_string_view(target):
        return not _is_bytes(source)
    if pat.is_integer(source) and pat.is_integer(target):
        if pat.is_signed_integer(source) == pat.is_signed_integer(target):
            return bool(source.bit_width <= target.bit_width)
        return bool(pat.is_signed_integer(target) and source.bit_width < target.bit_width)
    if pat.is_floating(target):
        small = pat.is_integer(source) or pat.is_boolean(source) or pat.is_decimal(source)
        return small or bool(pat.is_floating(source) and source.bit_width <= target.bit_width)
    if pat.is_decimal(target):
        return _decimal_holds(source, target)
    if pat.is_duration(source) or pat.is_duration(target):
        return bool(pat.is_int64(target) or pat.is_int64(source))
    return bool(pat.is_boolean(source) and pat.is_integer(target))


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(
        pat.is_binary(type_)
        or pat.is_large_binary(type_)
        or pat.is_fixed_size_binary(type_)
        or pat.is_binary_view(type_)
    )


def _decimal_holds(source: pa.DataType, target: pa.DataType) -> bool:
    if pat.is_integer(source):
        return bool(target.precision - target.scale >= 20)
    if not pat.is_decimal(source):
        return False
    whole = source.precision - source.scale
    # Rounding may add a digit.
    return bool(target.precision - target.scale >= whole + (source.scale > target.scale))
