"""Arithmetic, comparison, choice: what every type of number (and condition) has.

Integers wrap where they overflow, as NumPy's and Arrow's do; an integer divided down by zero, or
its remainder, is null; a float divided by zero is infinite or NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.log.key_hash import key_hashes
from millstream.operators.expression import Call
from millstream.operators.functions import decimals
from millstream.operators.functions.function import Function, as_array, option, simple
from millstream.operators.position import PLACE_MASK


def _arithmetic(name: str, otherwise: Function) -> Function:
    def entry(values: list[Any], call: Call) -> Any:
        if pat.is_decimal(call.type):
            return decimals.arithmetic(name, values, call)
        return otherwise(values, call)

    return entry


def floor_divide(values: list[Any], call: Call) -> Any:
    """Return the quotient rounded down, of integers or floats."""
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
    quotient = floor_divide(values, call)
    return pc.subtract(left, pc.multiply(quotient, _zero_to_null(right)))


def _float_modulo(left: Any, right: Any, type_: pa.DataType) -> Any:
    """Return NumPy's remainder, which has the divisor's sign."""
    length = len(left) if isinstance(left, pa.Array) else len(right)
    arrays = [as_array(each, length) for each in (left, right)]
    numbers = [np.asarray(pc.fill_null(each, 1.0)) for each in arrays]
    with np.errstate(all="ignore"):
        values = np.mod(*numbers) + 0.0  # a zero is a positive one
    null = pc.or_(pc.is_null(arrays[0]), pc.is_null(arrays[1]))
    return pa.array(values, type_, mask=null.to_numpy(zero_copy_only=False))


def _zero_to_null(divisor: Any) -> Any:
    # A plain 0 is an int64, to which Arrow would cast the divisor.
    zero = pa.scalar(0, divisor.type)
    return pc.if_else(pc.equal(divisor, zero), pa.scalar(None, divisor.type), divisor)


def _case(values: list[Any], call: Call) -> Any:
    result = values[-1]
    for index in range(len(values) - 3, -1, -2):
        condition = pc.fill_null(values[index], False)
        result = pc.if_else(condition, values[index + 1], result)
    return result


def _is_in(values: list[Any], call: Call) -> Any:
    wanted = option(call, "values")
    known = pa.array([each for each in wanted if each is not None], values[0].type)
    found = pc.is_in(values[0], value_set=known)
    # SQL: null is in nothing and not in nothing; with a null in the list no miss is certain.
    found = pc.if_else(pc.is_null(values[0]), pa.scalar(None, pa.bool_()), found)
    if len(known) < len(wanted):
        found = pc.if_else(found, True, pa.scalar(None, pa.bool_()))
    return found


def _round(values: list[Any], call: Call) -> Any:
    rounded = pc.round(
        values[0], ndigits=option(call, "places"), round_mode="half_towards_infinity"
    )
    return rounded.cast(call.type)


def _hash(values: list[Any], call: Call) -> Any:
    count = max((len(each) for each in values if isinstance(each, pa.Array)), default=1)
    return pa.array(key_hashes([as_array(each, count) for each in values]))


def _random(values: list[Any], call: Call) -> Any:
    """Return numbers in [0, 1) that depend on the seed and the argument, a place, alone."""
    place = (np.asarray(values[0]) & PLACE_MASK).astype(np.uint64)
    seed = np.uint64(option(call, "seed") & (2**64 - 1))
    with np.errstate(over="ignore"):
        # SplitMix64 (Steele, Lea, Flood 2014), its state being the place; the seed mixed first.
        word = place * np.uint64(0x9E3779B97F4A7C15) + _mixed(seed + np.uint64(0x9E3779B97F4A7C15))
        word = _mixed(word)
    return pa.array((word >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mixed(word: Any) -> Any:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _extreme(function: Any) -> Function:
    """Return the least or greatest of several values; nulls are left out."""
    return lambda values, call: function(*values, skip_nulls=True)


FUNCTIONS: dict[str, Function] = {
    "add": _arithmetic("add", simple(pc.add)),
    "subtract": _arithmetic("subtract", simple(pc.subtract)),
    "multiply": _arithmetic("multiply", simple(pc.multiply)),
    "divide": _arithmetic("divide", simple(pc.divide)),
    "floor_divide": _arithmetic("floor_divide", floor_divide),
    "modulo": _arithmetic("modulo", _modulo),
    "negate": simple(pc.negate),
    "abs": simple(pc.abs),
    "equal": simple(pc.equal),
    "not_equal": simple(pc.not_equal),
    "less": simple(pc.less),
    "less_equal": simple(pc.less_equal),
    "greater": simple(pc.greater),
    "greater_equal": simple(pc.greater_equal),
    "and": simple(pc.and_kleene),
    "or": simple(pc.or_kleene),
    "not": simple(pc.invert),
    "is_null": simple(pc.is_null),
    "is_nan": simple(pc.is_nan),
    "is_finite": simple(pc.is_finite),
    "case": _case,
    "coalesce": simple(pc.coalesce),
    "least": _extreme(pc.min_element_wise),
    "greatest": _extreme(pc.max_element_wise),
    "is_in": _is_in,
    "floor": simple(pc.floor),
    "ceil": simple(pc.ceil),
    "round": _round,
    "sqrt": simple(pc.sqrt),
    "exp": simple(pc.exp),
    "log": simple(pc.ln),
    "power": simple(pc.power),
    "sign": lambda values, call: pc.sign(values[0]).cast(call.type),
    "hash": _hash,
    "random": _random,
}
