"""Which type arithmetic of decimals gives: SQL's rules of precision.

With p digits of which s are behind the point, on each side:

| function | places | digits |
|---|---|---|
| `+ -` | max(s1, s2) | max(p1 - s1, p2 - s2) + places + 1 |
| `*` | s1 + s2 | p1 + p2 |
| `/` | max(6, s1 + p2 + 1) | p1 - s1 + s2 + places |
| `//` | 0 | p1 - s1 + s2 + 1 |
| `%` | max(s1, s2) | min(p1 - s1, p2 - s2) + places |

Where that is more than 38 digits (76 where an operand has more than 38 itself), places are given
up, but never the last six. An integer column has as many digits as its type can have, a constant
as many as it has. With a float, the computation is one of floats.
"""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl import literals, promotion
from millstream.dsl.binding import Scope, coerce
from millstream.dsl.expressions import Expression, option
from millstream.operators.expression import Call, TypedExpression

_PLACES_KEPT = 6
_FUNCTIONS = ("add", "subtract", "multiply", "divide", "floor_divide", "modulo")


def bind_decimal_arithmetic(expression: Expression, scope: Scope) -> TypedExpression | None:
    """Return arithmetic of exact numbers, of which one is a decimal, typed; `None` for others."""
    types = [promotion.plain(scope.bind(each).type) for each in expression.arguments]
    exact = all(pat.is_decimal(each) or pat.is_integer(each) for each in types)
    if not exact or not any(pat.is_decimal(each) for each in types):
        return None
    arguments = tuple(_operand(each, scope) for each in expression.arguments)
    left, right = (each.type for each in arguments)
    return Call(expression.function, arguments, result_type(expression.function, left, right))


def result_type(function: str, left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """Return the type of a function of two decimals.

    Examples
    --------
    >>> result_type("multiply", pa.decimal128(10, 2), pa.decimal128(4, 1))
    Decimal128Type(decimal128(14, 3))
    >>> result_type("divide", pa.decimal128(38, 10), pa.decimal128(19, 0))
    Decimal128Type(decimal128(38, 10))
    """
    whole_left, whole_right = left.precision - left.scale, right.precision - right.scale
    places = max(left.scale, right.scale)
    match function:
        case "multiply":
            places = left.scale + right.scale
            digits = left.precision + right.precision
        case "divide":
            places = max(6, left.scale + right.precision + 1)
            digits = whole_left + right.scale + places
        case "floor_divide":
            places, digits = 0, max(whole_left + right.scale, 0) + 1
        case "modulo":
            digits = max(min(whole_left, whole_right) + places, 1)
        case _:
            digits = max(whole_left, whole_right) + places + 1
    return _capped(digits, places, 76 if max(left.precision, right.precision) > 38 else 38)


def _capped(digits: int, places: int, digits_max: int) -> pa.DataType:
    if digits > digits_max:
        places = max(digits_max - (digits - places), min(places, _PLACES_KEPT))
        digits = digits_max
    return pa.decimal128(digits, places) if digits <= 38 else pa.decimal256(digits, places)


def _operand(operand: Expression, scope: Scope) -> TypedExpression:
    if operand.function == "literal":
        value = option(operand, "value")
        if isinstance(value, int | Decimal):
            return literals.constant(Decimal(value), pa.scalar(Decimal(value)).type)
    bound = scope.bind(operand)
    type_ = promotion.plain(bound.type)
    if pat.is_integer(type_):
        type_ = pa.decimal128(promotion.integer_digits(type_), 0)
    elif type_.bit_width < 128:
        type_ = pa.decimal128(type_.precision, type_.scale)
    return coerce(bound, type_)
