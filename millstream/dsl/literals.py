"""Constants in expressions: their own type, and how they adapt to the type they meet."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.types as pat

from millstream.dsl import promotion
from millstream.errors import OptionError
from millstream.operators.expression import Constant
from millstream.operators.functions.casts import cast
from millstream.windows.duration import parse_duration_us

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def natural_type(value: object) -> pa.DataType | None:
    """Return the type that a Python value has by itself, or `None` where it has none."""
    match value:
        case None:
            return pa.null()
        case bool():
            return pa.bool_()
        case int():
            return pa.int64() if _INT64_MIN <= value <= _INT64_MAX else _huge_integer(value)
        case float():
            return pa.float64()
        case str():
            return pa.string()
        case bytes():
            return pa.binary()
        case datetime():
            return pa.timestamp("us", "UTC")
        case date():
            return pa.date32()
        case time():
            return pa.time64("us")
        case timedelta():
            return pa.duration("us")
        case Decimal() if value.is_finite():
            return pa.scalar(value).type
        case _:
            return None


def _huge_integer(value: int) -> pa.DataType | None:
    return pa.uint64() if 0 <= value < 2**64 else None


def meeting_type(value: object, type_: pa.DataType) -> pa.DataType | None:
    """Return the type in which a constant meets a column of `type_`, or `None`.

    That is the column's own type wherever it holds the value exactly; text becomes a
    time, date or duration where it meets one.

    Examples
    --------
    >>> meeting_type(15, pa.int16()), meeting_type(100_000, pa.int16())
    (DataType(int16), DataType(int64))
    """
    type_ = promotion.plain(type_)
    match value:
        case None:
            return type_
        case bool():
            return type_ if pat.is_boolean(type_) else None
        case int() if pat.is_integer(type_):
            return _integer_meeting(value, type_)
        case int() if pat.is_decimal(type_):
            return promotion.common_type(pa.scalar(Decimal(value)).type, type_)
        case int() | float() if pat.is_floating(type_):
            return type_
        case str() if promotion.is_temporal(type_):
            return _text_meeting(value, type_)
        case datetime() if pat.is_timestamp(type_) or pat.is_date(type_):
            zone = type_.tz if pat.is_timestamp(type_) else "UTC"
            unit = type_.unit if pat.is_timestamp(type_) else "us"
            exact = _instant_us(value) * _PER_SECOND[unit] % 1_000_000 == 0
            return pa.timestamp(unit if exact else "us", zone)
        case date() if pat.is_date(type_):
            return type_
        case timedelta() if pat.is_duration(type_):
            exact = (value // _MICROSECOND) * _PER_SECOND[type_.unit] % 1_000_000 == 0
            return type_ if exact else pa.duration("us")
        case _:
            natural = natural_type(value)
            return None if natural is None else _without_growth(natural, type_)


def _without_growth(natural: pa.DataType, type_: pa.DataType) -> pa.DataType | None:
    # Text and bytes keep the column's layout: there is no need for 64-bit positions.
    if promotion.is_text(natural) and promotion.is_text(type_):
        return type_
    if promotion.is_bytes(natural) and promotion.is_bytes(type_):
        return pa.binary() if pat.is_fixed_size_binary(type_) else type_
    return promotion.common_type(natural, type_)


def _integer_meeting(value: int, type_: pa.DataType) -> pa.DataType | None:
    signed = pat.is_signed_integer(type_)
    bits = type_.bit_width - (1 if signed else 0)
    if (-(2**bits) if signed else 0) <= value < 2**bits:
        return type_
    natural = natural_type(value)
    return None if natural is None else promotion.common_type(natural, type_)


def _text_meeting(text: str, type_: pa.DataType) -> pa.DataType | None:
    try:
        if pat.is_duration(type_):
            parse_duration_us(text)
            return pa.duration(promotion.finer_unit(type_.unit, "us"))
        return meeting_type(_parsed_time(text), type_)
    except (ValueError, OptionError):
        return None


def _parsed_time(text: str) -> date:
    # "2013-01-01" is a day, "2013-01-01T05:00" (and with a blank) a moment.
    return date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)


def constant(value: object, type_: pa.DataType) -> Constant:
    """Return `value` as a constant of `type_`, a type that `meeting_type` gave for it.

    Times, dates and durations are held as integers in the type's unit; a moment without a
    zone is taken as UTC.
    """
    if value is None:
        return Constant(None, type_)
    if isinstance(value, str) and promotion.is_temporal(type_):
        value = (
            timedelta(microseconds=parse_duration_us(value))
            if pat.is_duration(type_)
            else _parsed_time(value)
        )
    if pat.is_timestamp(type_):
        assert isinstance(value, date)
        return Constant(_instant_us(value) * _PER_SECOND[type_.unit] // 1_000_000, type_)
    if pat.is_duration(type_):
        assert isinstance(value, timedelta)
        return Constant(value // _MICROSECOND * _PER_SECOND[type_.unit] // 1_000_000, type_)
    if pat.is_date(type_):
        assert isinstance(value, date)
        days = (value - date(1970, 1, 1)).days
        return Constant(days if pat.is_date32(type_) else days * 86_400_000, type_)
    if pat.is_floating(type_):
        return Constant(float(value), type_)  # type: ignore[arg-type]  # a number, by its type
    if pat.is_decimal(type_):
        return Constant(Decimal(str(value)), type_)
    return Constant(value, type_)


def _instant_us(value: date) -> int:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - _EPOCH) // _MICROSECOND


def folded(value: Constant, type_: pa.DataType) -> Constant:
    """Return a constant cast to `type_` now, so that no row has to.

    Raises
    ------
    pyarrow.ArrowException
        When the value does not fit.
    """
    scalar = cast(pa.array([value.value], value.type), type_)[0]
    if scalar.as_py() is None:
        return Constant(None, type_)
    held = scalar.value if promotion.is_temporal(type_) else scalar.as_py()
    return Constant(held, type_)
