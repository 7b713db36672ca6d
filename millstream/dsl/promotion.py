"""Which type two types meet in, as SQL would choose it without losing values.

`None` means that there is none, and the user must say what they mean with a cast.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pat

_UNITS = ("s", "ms", "us", "ns")


def plain(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values that a dictionary stands for, or a view shows."""
    if pat.is_dictionary(type_):
        return plain(type_.value_type)
    if pat.is_string_view(type_):
        return pa.string()
    return pa.binary() if pat.is_binary_view(type_) else type_


def is_number(type_: pa.DataType) -> bool:
    """Return whether arithmetic works on the type: integers and floats."""
    return bool(pat.is_integer(type_) or pat.is_floating(type_))


def is_text(type_: pa.DataType) -> bool:
    """Return whether the type holds text."""
    return bool(pat.is_string(type_) or pat.is_large_string(type_) or pat.is_string_view(type_))


def is_bytes(type_: pa.DataType) -> bool:
    """Return whether the type holds opaque bytes."""
    return bool(
        pat.is_binary(type_)
        or pat.is_large_binary(type_)
        or pat.is_fixed_size_binary(type_)
        or pat.is_binary_view(type_)
    )


def is_temporal(type_: pa.DataType) -> bool:
    """Return whether the type is a point in time or a duration; not a time of day."""
    return bool(pat.is_timestamp(type_) or pat.is_date(type_) or pat.is_duration(type_))


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both.

    Integers of mixed sign meet in int64 (uint64 meets no signed type: neither int64 nor a
    float could hold both exactly); an integer and a float in float64; dates become
    timestamps; times meet in the finer unit.

    Examples
    --------
    >>> common_type(pa.int8(), pa.uint16())
    DataType(int64)
    >>> common_type(pa.int32(), pa.string()) is None
    True
    """
    left, right = plain(left), plain(right)
    if left.equals(right) or pat.is_null(right):
        return left
    if pat.is_null(left):
        return right
    if is_text(left) and is_text(right):
        return pa.large_string()
    if is_bytes(left) and is_bytes(right):
        return pa.large_binary()
    if _is_numeric(left) and _is_numeric(right):
        return _common_number(left, right)
    return _common_time(left, right)


def arithmetic_type(type_: pa.DataType) -> pa.DataType:
    """Return the type in which numbers of `type_` are computed.

    Small integers compute in int64, so that a sum of two int8 does not wrap at 127; a
    half float in float32.
    """
    if pat.is_integer(type_):
        return type_ if type_.equals(pa.uint64()) else pa.int64()
    return pa.float32() if pat.is_float16(type_) else type_


def integer_digits(type_: pa.DataType) -> int:
    """Return how many digits an integer of `type_` may have; 0 for other types.

    Examples
    --------
    >>> integer_digits(pa.int8()), integer_digits(pa.uint64())
    (3, 20)
    """
    if not pat.is_integer(type_):
        return 0
    bits = type_.bit_width - (1 if pat.is_signed_integer(type_) else 0)
    return len(str(2**bits - 1))


def finer_unit(left: str, right: str) -> str:
    """Return the finer of two units of time.

    Examples
    --------
    >>> finer_unit("ms", "s")
    'ms'
    """
    return max(left, right, key=_UNITS.index)


def _is_numeric(type_: pa.DataType) -> bool:
    return is_number(type_) or bool(pat.is_decimal(type_))


def _common_number(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if pat.is_decimal(left) or pat.is_decimal(right):
        return _common_decimal(left, right)
    if pat.is_floating(left) and pat.is_floating(right):
        return left if left.bit_width > right.bit_width else right
    if pat.is_floating(left) or pat.is_floating(right):
        return pa.float64()
    if pat.is_signed_integer(left) == pat.is_signed_integer(right):
        return left if left.bit_width > right.bit_width else right
    return None if pa.uint64() in {left, right} else pa.int64()


def _common_decimal(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if pat.is_floating(left) or pat.is_floating(right):
        return pa.float64()
    whole = scale = 0
    for each in (left, right):
        digits, places = integer_digits(each), 0
        if pat.is_decimal(each):
            digits, places = each.precision, each.scale
        whole, scale = max(whole, digits - places), max(scale, places)
    if whole + scale <= 38:
        return pa.decimal128(whole + scale, scale)
    return pa.decimal256(min(whole + scale, 76), scale)


def _common_time(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if pat.is_timestamp(left) and pat.is_timestamp(right):
        if (left.tz is None) != (right.tz is None):
            return None
        return pa.timestamp(finer_unit(left.unit, right.unit), left.tz)
    if pat.is_duration(left) and pat.is_duration(right):
        return pa.duration(finer_unit(left.unit, right.unit))
    if pat.is_date(left) and pat.is_date(right):
        return pa.date32()
    if pat.is_date(left) and pat.is_timestamp(right):
        return right
    if pat.is_timestamp(left) and pat.is_date(right):
        return left
    return None
