"""Casts: a value as another type, or an error that names the first value that has none.

Where a value does not fit exactly:

- a float or decimal becomes an integer without its fraction; NaN and what is too large fail;
- a decimal or a text with more places than the target's is rounded, half away from zero;
- a time in a finer unit is floored, also before 1970;
- an integer becomes the nearest float;
- a text without a zone is a moment in UTC; one of a day alone is its midnight.
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from millstream.errors import JobError
from millstream.operators.expression import Call
from millstream.operators.functions.function import (
    Function,
    first_failing,
    is_view,
    nulls_where_failing,
    option,
)

_WIDE = pa.decimal256(76, 38)
_DAY = r"^\s*\d{4}-\d\d-\d\d\s*$"
_ZONED = r"(Z|[+-]\d\d(:?\d\d)?)\s*$"
_UNIT_NAMES = {"s": "second", "ms": "millisecond", "us": "microsecond"}


def cast(value: pa.Array, target: pa.DataType) -> pa.Array:
    """Return `value` as `target`, by the rules of this file.

    Raises
    ------
    pyarrow.ArrowException
        Where a value does not fit, or there is no such cast.
    """
    source = value.type
    if source.equals(target):
        return value
    if pat.is_dictionary(source):
        return cast(value.dictionary_decode(), target)
    if is_view(source):
        return cast(value.cast(_large(source)), target)
    if is_view(target):
        return cast(value, _large(target)).cast(target)
    if pat.is_decimal(target):
        return _to_decimal(value, target)
    if pat.is_decimal(source) and (pat.is_integer(target) or pat.is_boolean(target)):
        if pat.is_boolean(target):
            return pc.not_equal(value, pa.scalar(Decimal(0), source))
        return pc.trunc(value).cast(target)
    if pat.is_floating(source) and pat.is_integer(target):
        return pc.cast(pc.trunc(value), target)
    if _is_text(source) and pat.is_timestamp(target) and target.tz is not None:
        return _with_zones(value).cast(target)
    if _is_text(source) and pat.is_integer(target):
        try:
            return pc.cast(value, target)
        except pa.ArrowInvalid:
            return pc.cast(pc.replace_substring_regex(value, r"^\s*\+?(-?\d+)\s*$", r"\1"), target)
    if _is_text(source) and pat.is_time(target):
        day = pa.scalar("1970-01-01 ", source)
        moments = pc.binary_join_element_wise(day, value, pa.scalar("", source))
        return moments.cast(pa.timestamp(target.unit)).cast(target)
    if _is_coarser(source, target):
        return pc.floor_temporal(value, unit=_UNIT_NAMES[target.unit]).cast(target)
    # The nearest float stands for an integer beyond 2^53, as everywhere in the field.
    widening = pat.is_integer(source) and pat.is_floating(target)
    return pc.cast(value, target, safe=not widening)


def _large(view: pa.DataType) -> pa.DataType:
    return pa.large_string() if pat.is_string_view(view) else pa.large_binary()


def _is_text(type_: pa.DataType) -> bool:
    return bool(pat.is_string(type_) or pat.is_large_string(type_))


def _is_coarser(source: pa.DataType, target: pa.DataType) -> bool:
    units = ("s", "ms", "us", "ns")
    return bool(
        pat.is_timestamp(source)
        and pat.is_timestamp(target)
        and units.index(target.unit) < units.index(source.unit)
    )


def _to_decimal(value: pa.Array, target: pa.DataType) -> pa.Array:
    if pat.is_boolean(value.type):
        value = value.cast(pa.int8())
    if pat.is_integer(value.type):
        value = value.cast(pa.decimal128(20, 0))
    elif _is_text(value.type):
        value = pc.utf8_trim_whitespace(value).cast(_WIDE)
    if not pat.is_decimal(value.type):
        return value.cast(target)
    if value.type.scale > target.scale:
        value = pc.round(value, ndigits=target.scale, round_mode="half_towards_infinity")
    return value.cast(target)


def _with_zones(value: pa.Array) -> pa.Array:
    if not len(value):
        return value
    empty = pa.scalar("", value.type)
    is_day = pc.match_substring_regex(value, _DAY)
    zoned = pc.match_substring_regex(value, r"\d\d:\d\d.*" + _ZONED)
    tail = pc.if_else(zoned, empty, pa.scalar("Z", value.type))
    tail = pc.if_else(is_day, pa.scalar(" 00:00:00Z", value.type), tail)
    return pc.binary_join_element_wise(pc.utf8_trim_whitespace(value), tail, empty)


def _cast(values: list[Any], call: Call) -> Any:
    value, target = values[0], call.type
    if option(call, "strict") is False:
        return _lenient(value, target)
    try:
        return cast(value, target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = _failure(value, target, str(error))
        raise JobError(message) from error


def _lenient(value: pa.Array, target: pa.DataType) -> pa.Array:
    """Return `value` as `target`, with null for what does not fit."""
    convert = partial(cast, target=target)
    if not (_is_text(value.type) and pat.is_integer(target)) or target.bit_width < 64:
        return nulls_where_failing(value, convert, target)
    # Most are told in one pass; longer numbers and other notations are looked at one by one.
    plain = pc.fill_null(pc.match_substring_regex(value, r"^-?\d{1,18}$"), True)
    made = convert(pc.if_else(plain, value, pa.scalar(None, value.type)))
    rest = value.filter(pc.invert(plain))
    if not len(rest):
        return made
    return pc.replace_with_mask(made, pc.invert(plain), nulls_where_failing(rest, convert, target))


def _failure(value: pa.Array, target: pa.DataType, reason: str) -> str:
    index = first_failing(value, partial(cast, target=target))
    return f"cast from {value.type} to {target} failed: {value[index].as_py()!r} ({reason})"


FUNCTIONS: dict[str, Function] = {"cast": _cast}
