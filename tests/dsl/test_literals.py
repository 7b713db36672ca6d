from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest

from millstream.dsl.literals import constant, folded, meeting_type, natural_type
from millstream.operators.expression import Constant

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
NOON_S = 1_357_041_600


@pytest.mark.parametrize(
    ("value", "type_", "meeting"),
    [
        (15, pa.int8(), pa.int8()),
        (-1, pa.uint8(), pa.int64()),
        (300, pa.uint8(), pa.int64()),
        (-1, pa.uint64(), None),
        (2**63, pa.int64(), None),
        (2**63, pa.uint8(), pa.uint64()),
        (15, pa.float32(), pa.float32()),
        (0.5, pa.float32(), pa.float32()),
        (0.5, pa.int64(), pa.float64()),
        (True, pa.bool_(), pa.bool_()),
        (True, pa.int64(), None),
        ("x", pa.large_string(), pa.large_string()),
        ("x", pa.dictionary(pa.int8(), pa.string()), pa.string()),
        ("x", pa.int64(), None),
        ("2013-01-01", pa.timestamp("ms", "UTC"), pa.timestamp("ms", "UTC")),
        ("2013-01-01T00:00:00.000001", pa.timestamp("ms"), pa.timestamp("us")),
        ("noon", pa.timestamp("ms"), None),
        ("1h", pa.duration("s"), pa.duration("us")),
        ("soon", pa.duration("s"), None),
        (NOON, pa.timestamp("s"), pa.timestamp("s")),
        (NOON, pa.date32(), pa.timestamp("us", "UTC")),
        (date(2013, 1, 1), pa.date64(), pa.date64()),
        (timedelta(milliseconds=1), pa.duration("s"), pa.duration("us")),
        (timedelta(seconds=1), pa.duration("s"), pa.duration("s")),
        (b"x", pa.binary(3), pa.binary()),
        (Decimal("1.5"), pa.decimal128(5, 2), pa.decimal128(5, 2)),
        (None, pa.int8(), pa.int8()),
        (time(5), pa.time64("us"), pa.time64("us")),
    ],
)
def test_a_constant_adapts_to_what_it_meets(
    value: object, type_: pa.DataType, meeting: pa.DataType | None
) -> None:
    assert meeting_type(value, type_) == meeting


@pytest.mark.parametrize(
    ("value", "type_", "held"),
    [
        (NOON, pa.timestamp("s"), NOON_S),
        (NOON.replace(tzinfo=None), pa.timestamp("ns", "UTC"), NOON_S * 10**9),
        (NOON.astimezone(timezone(timedelta(hours=5))), pa.timestamp("us"), NOON_S * 10**6),
        ("2013-01-01 12:00", pa.timestamp("ms"), NOON_S * 1000),
        (date(2013, 1, 1), pa.timestamp("s"), NOON_S - 12 * 3600),
        (date(1969, 12, 31), pa.date32(), -1),
        (date(1970, 1, 2), pa.date64(), 86_400_000),
        ("90m", pa.duration("us"), 5_400_000_000),
        (timedelta(seconds=-2), pa.duration("s"), -2),
        (1, pa.float64(), 1.0),
        (1, pa.decimal128(5, 2), Decimal(1)),
        (None, pa.int8(), None),
    ],
)
def test_times_are_held_in_units_of_their_type(
    value: object, type_: pa.DataType, held: object
) -> None:
    made = constant(value, type_)
    assert (made.value, type(made.value), made.type) == (held, type(held), type_)
    assert pa.scalar(made.value, type_).type == type_


def test_what_is_no_constant_has_no_type() -> None:
    assert natural_type(object()) is None
    assert natural_type([1]) is None
    assert natural_type(2**64) is None
    assert natural_type(Decimal("NaN")) is None


def test_casts_of_constants_happen_at_once() -> None:
    assert folded(Constant("5", pa.string()), pa.int64()) == Constant(5, pa.int64())
    assert folded(Constant(None, pa.null()), pa.int64()) == Constant(None, pa.int64())
    moment = Constant(5, pa.timestamp("s"))
    assert folded(moment, pa.timestamp("us")) == Constant(5_000_000, pa.timestamp("us"))
