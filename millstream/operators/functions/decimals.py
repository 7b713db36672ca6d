"""Arithmetic of decimals, exact up to the places of the result's type.

The type is chosen where the expression is bound (`dsl/decimal_types.py`). What has more places
is rounded, half away from zero; a result with more digits before the point than its type has is
an error of its row; division by zero is null.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import JobError
from millstream.operators.expression import Call

_DIGITS_MAX = 76


def arithmetic(function: str, values: list[Any], call: Call) -> pa.Array:
    """Return two columns of decimals added, subtracted, multiplied or divided.

    Raises
    ------
    JobError
        Where a result does not fit into its type; says by how much.
    """
    left, right = (each.cast(_wide(each.type)) for each in values)
    try:
        return _FUNCTIONS[function](left, right, call.type)
    except pa.ArrowInvalid as error:
        message = f"{function} of {values[0].type} and {values[1].type} failed: {error}"
        raise JobError(message) from error


def _wide(type_: pa.DataType) -> pa.DataType:
    return pa.decimal256(type_.precision, type_.scale)


def _rounded(value: pa.Array, type_: pa.DataType) -> pa.Array:
    if value.type.scale > type_.scale:
        value = pc.round(value, ndigits=type_.scale, round_mode="half_towards_infinity")
    return value.cast(type_)


def _multiply(left: pa.Array, right: pa.Array, type_: pa.DataType) -> pa.Array:
    if left.type.precision + right.type.precision < _DIGITS_MAX:
        return _rounded(pc.multiply(left, right), type_)
    return _by_python(lambda a, b: a * b, left, right, type_)


def _divide(left: pa.Array, right: pa.Array, type_: pa.DataType) -> pa.Array:
    divisor = _zero_to_null(right)
    # Arrow cuts off after so many places, or four; one more than wanted says how to round.
    places = left.type.scale + right.type.precision - right.type.scale + 1
    wanted = type_.scale + 1
    more = 0 if wanted <= max(4, places) else wanted - places
    digits = left.type.precision + more
    places = max(4, places + more)
    if digits - left.type.scale - more + right.type.scale + places > _DIGITS_MAX:
        return _by_python(lambda a, b: a / b, left, divisor, type_)
    wider = left.cast(pa.decimal256(digits, left.type.scale + more))
    return _rounded(pc.divide(wider, divisor), type_)


def _floor_divide(left: pa.Array, right: pa.Array, type_: pa.DataType) -> pa.Array:
    def floored(a: Decimal, b: Decimal) -> Decimal:
        quotient = a // b
        return quotient - 1 if a - quotient * b and (a < 0) != (b < 0) else quotient

    return _by_python(floored, left, _zero_to_null(right), type_)


def _modulo(left: pa.Array, right: pa.Array, type_: pa.DataType) -> pa.Array:
    def rest(a: Decimal, b: Decimal) -> Decimal:
        remainder = a % b
        return remainder + b if remainder and (a < 0) != (b < 0) else remainder

    return _by_python(rest, left, _zero_to_null(right), type_)


def _zero_to_null(divisor: pa.Array) -> pa.Array:
    zero = pa.scalar(Decimal(0), divisor.type)
    return pc.if_else(pc.equal(divisor, zero), pa.scalar(None, divisor.type), divisor)


def _by_python(
    function: Callable[[Decimal, Decimal], Decimal],
    left: pa.Array,
    right: pa.Array,
    type_: pa.DataType,
) -> pa.Array:
    """Compute value by value what has too many digits on the way for Arrow."""
    unit = Decimal(1).scaleb(-type_.scale)
    results: list[Decimal | None] = []
    with localcontext(prec=4 * _DIGITS_MAX, rounding=ROUND_HALF_UP):
        for a, b in zip(left.to_pylist(), right.to_pylist(), strict=True):
            known = a is not None and b is not None
            results.append(function(a, b).quantize(unit) if known else None)
    return pa.array(results, pa.decimal256(_DIGITS_MAX, type_.scale)).cast(type_)


_FUNCTIONS: dict[str, Callable[[pa.Array, pa.Array, pa.DataType], pa.Array]] = {
    "add": lambda left, right, type_: _rounded(pc.add(left, right), type_),
    "subtract": lambda left, right, type_: _rounded(pc.subtract(left, right), type_),
    "multiply": _multiply,
    "divide": _divide,
    "floor_divide": _floor_divide,
    "modulo": _modulo,
}
