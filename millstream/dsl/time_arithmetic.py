"""Arithmetic with times: moment ± duration, moment − moment, duration ± duration.

A duration times a number, or divided by one or by another duration, works too. Durations may be
written as text (`"90m"`) or as a timedelta.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl import literals, promotion
from millstream.dsl.binding import Scope, bind_together, coerce, duration_us, shown
from millstream.dsl.expressions import Expression, option
from millstream.dsl.signatures import is_moment
from millstream.errors import ExpressionTypeError
from millstream.operators.expression import Call, Constant, TypedExpression

_DURATION = pa.duration("us")


def bind_time_arithmetic(expression: Expression, scope: Scope) -> TypedExpression:
    """Return an addition or subtraction of which one side is a time or duration, typed.

    Raises
    ------
    ExpressionTypeError
        When the sides do not go together; names them and what does.
    """
    left, right = expression.arguments
    kinds = (_kind(left, scope), _kind(right, scope))
    match expression.function, kinds:
        case "add" | "subtract", ("moment", "duration"):
            return _shift(expression.function, left, right, scope)
        case "add", ("duration", "moment"):
            return _shift("add", right, left, scope)
        case "subtract", ("moment", "moment"):
            return _difference(expression, scope)
        case "add" | "subtract", ("duration", "duration"):
            return _duration_sum(expression, scope)
        case "multiply", ("duration", "number") | ("number", "duration"):
            return _scaled(expression, scope, by_left=kinds[0] == "number")
        case "divide" | "floor_divide", ("duration", "number"):
            return _scaled(expression, scope, by_left=False)
        case "divide" | "floor_divide" | "modulo", ("duration", "duration"):
            return _ratio(expression, scope)
        case _:
            pass
    operands = [shown(each, scope.bind(each)) for each in (left, right)]
    message = (
        f"{expression.location}: cannot {expression.function} {operands[0]} and {operands[1]}; "
        'what works with times: time + "1h", time - "1h", time - time, sums of durations, and '
        "durations times or divided by numbers"
    )
    raise ExpressionTypeError(message)


def _kind(operand: Expression, scope: Scope) -> str:
    """Return what the operand is to time arithmetic: moment, duration or other."""
    if operand.function == "literal":
        value = option(operand, "value")
        if is_moment(value):
            return "moment"
        return "duration" if isinstance(value, str) else _kind_of_type(scope.bind(operand).type)
    return _kind_of_type(scope.bind(operand).type)


def _kind_of_type(type_: pa.DataType) -> str:
    if promotion.is_number(type_):
        return "number"
    if pat.is_timestamp(type_) or pat.is_date(type_):
        return "moment"
    return "duration" if pat.is_duration(type_) else "other"


def _duration(operand: Expression, scope: Scope) -> TypedExpression:
    if operand.function == "literal":
        return Constant(duration_us(option(operand, "value"), operand), _DURATION)
    return coerce(scope.bind(operand), _DURATION)


def _shift(
    function: str, moment: Expression, duration: Expression, scope: Scope
) -> TypedExpression:
    if moment.function == "literal":
        type_ = pa.timestamp("us", "UTC")
        bound: TypedExpression = literals.constant(option(moment, "value"), type_)
    else:
        bound = scope.bind(moment)
        # A date and an hour make a moment, as in SQL.
        bound = coerce(bound, pa.timestamp("us")) if pat.is_date(bound.type) else bound
    arguments = (bound, _duration(duration, scope))
    return Call(f"timestamp_{function}", arguments, bound.type)


def _difference(expression: Expression, scope: Scope) -> TypedExpression:
    together = bind_together(expression.arguments, scope)
    if together is None:
        operands = [shown(each, scope.bind(each)) for each in expression.arguments]
        message = (
            f"{expression.location}: cannot subtract {operands[0]} and {operands[1]}: one has a "
            'time zone, the other has none; cast the latter with .cast("timestamp") (UTC)'
        )
        raise ExpressionTypeError(message)
    type_ = together[0].type
    zone = type_.tz if pat.is_timestamp(type_) else None
    arguments = tuple(coerce(each, pa.timestamp("us", zone)) for each in together)
    return Call("timestamp_difference", arguments, _DURATION)


def _duration_sum(expression: Expression, scope: Scope) -> TypedExpression:
    # A duration is a count of microseconds, which is what the arithmetic is done on.
    counts = tuple(coerce(_duration(each, scope), pa.int64()) for each in expression.arguments)
    total = Call(expression.function, counts, pa.int64())
    return Call("cast", (total,), _DURATION)


def _scaled(expression: Expression, scope: Scope, *, by_left: bool) -> TypedExpression:
    """Return a duration times, or divided by, a number: in whole microseconds, cut off."""
    number, duration = expression.arguments if by_left else reversed(expression.arguments)
    count = coerce(_duration(duration, scope), pa.int64())
    factor = scope.bind(number)
    whole = pat.is_integer(factor.type) and expression.function != "divide"
    type_ = pa.int64() if whole else pa.float64()
    arguments = (coerce(count, type_), coerce(factor, type_))
    scaled = Call(expression.function, arguments, type_)
    return coerce(coerce(scaled, pa.int64()), _DURATION)


def _ratio(expression: Expression, scope: Scope) -> TypedExpression:
    """Return how often a duration goes into another one, or what is left."""
    counts = [coerce(_duration(each, scope), pa.int64()) for each in expression.arguments]
    type_ = pa.float64() if expression.function == "divide" else pa.int64()
    arguments = tuple(coerce(each, type_) for each in counts)
    result = Call(expression.function, arguments, type_)
    return coerce(result, _DURATION) if expression.function == "modulo" else result
