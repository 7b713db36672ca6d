"""Every cast gives what SQL gives, or an error that names the value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import JobError
from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call, Column
from millstream.operators.functions.function import first_failing, nulls_where_failing


def cast(values: pa.Array, type_: pa.DataType, **options: object) -> list[object]:
    call = Call("cast", (Column("x", values.type),), type_, tuple(options.items()))
    found = evaluate(call, pa.record_batch({"x": values}))
    assert found.type == type_
    return found.to_pylist()


def decimals(*values: str | None, precision: int = 12, scale: int = 3) -> pa.Array:
    return pa.array(
        [None if each is None else Decimal(each) for each in values],
        pa.decimal128(precision, scale),
    )


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (decimals("1.999", "-1.999", None), pa.int64(), [1, -1, None]),
        (decimals("1.125", "-1.125"), pa.decimal128(9, 2), [Decimal("1.13"), Decimal("-1.13")]),
        (decimals("0.000", "2.000"), pa.bool_(), [False, True]),
        (decimals("1.5"), pa.float64(), [1.5]),
        (decimals("1.5"), pa.string(), ["1.500"]),
        (pa.array([7, None], pa.int8()), pa.decimal128(5, 2), [Decimal("7.00"), None]),
        (pa.array([True, None]), pa.decimal128(3, 1), [Decimal("1.0"), None]),
        (pa.array(["1.2345", " 2 "]), pa.decimal128(5, 2), [Decimal("1.23"), Decimal("2.00")]),
        (pa.array([1.005, 2.5]), pa.decimal128(5, 1), [Decimal("1.0"), Decimal("2.5")]),
        (pa.array(["+7", " 8 "]), pa.int32(), [7, 8]),
        (pa.array(["a", None], pa.string_view()), pa.string(), ["a", None]),
        (pa.array(["7", None], pa.string_view()), pa.int64(), [7, None]),
        (pa.array([7, None]), pa.string_view(), ["7", None]),
        (pa.array([b"a"]), pa.binary_view(), [b"a"]),
        (pa.array([b"ab"]), pa.string(), ["ab"]),
        (pa.array(["7", "7"]).dictionary_encode(), pa.int64(), [7, 7]),
        (pa.array([[1], None]), pa.list_(pa.string()), [["1"], None]),
        (pa.array([{"a": 1}]), pa.struct({"a": pa.string()}), [{"a": "1"}]),
        (pa.array([90], pa.int64()), pa.duration("s"), [timedelta(seconds=90)]),
        (pa.array([timedelta(seconds=90)]), pa.int64(), [90_000_000]),
        (pa.array(["2024-02-29"]), pa.date32(), [date(2024, 2, 29)]),
        (pa.array(["05:06:07"]), pa.time64("us"), [time(5, 6, 7)]),
    ],
    ids=str,
)
def test_casts_that_fit(source: pa.Array, target: pa.DataType, expected: list[object]) -> None:
    assert cast(source, target) == expected


def test_a_text_without_a_zone_is_a_moment_in_utc() -> None:
    texts = pa.array(
        [
            "2024-01-02",
            "2024-01-02T03:04",
            " 2024-01-02 03:04:05.5 ",
            "2024-01-02 03:04+02:00",
            "2024-01-02 03:04:05Z",
            "2024-01-02T03:04:05-0500",
            None,
        ]
    )
    day = datetime(2024, 1, 2, tzinfo=UTC)
    assert cast(texts, pa.timestamp("us", "UTC")) == [
        day,
        day.replace(hour=3, minute=4),
        day.replace(hour=3, minute=4, second=5, microsecond=500_000),
        day.replace(hour=1, minute=4),
        day.replace(hour=3, minute=4, second=5),
        day.replace(hour=8, minute=4, second=5),
        None,
    ]


def test_a_finer_time_is_floored_before_1970_too() -> None:
    moment = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    finer = pa.array([moment], pa.timestamp("us", "UTC"))
    assert cast(finer, pa.timestamp("s", "UTC")) == [moment.replace(microsecond=0)]
    assert cast(finer, pa.timestamp("us", "Asia/Tokyo"))[0] == moment


@pytest.mark.parametrize(
    ("source", "target", "shown"),
    [
        (pa.array([1, 2, 300, 400]), pa.int8(), "300"),
        (pa.array(["1", "2", "x", "y"]), pa.int64(), "'x'"),
        (pa.array(["1", None, "1.x"]), pa.decimal128(5, 2), "'1.x'"),
        (decimals("1", "123456789"), pa.decimal128(5, 2), r"Decimal\('123456789.000'\)"),
        (pa.array([1.0, float("nan")]), pa.int64(), "nan"),
        (pa.array(["2024-01-01", "soon"]), pa.timestamp("us", "UTC"), "'soon'"),
        (pa.array([10**12], pa.int64()), pa.decimal128(5, 2), str(10**12)),
        (pa.array([b"ok", b"\xff"]), pa.string(), r"b'\\xff'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(source: pa.Array, target: pa.DataType, shown: str) -> None:
    with pytest.raises(JobError, match=f"cast from .* to .* failed: {shown}"):
        cast(source, target)


@given(
    values=st.lists(st.none() | st.integers(-(10**11), 10**11), max_size=20),
    precision=st.integers(3, 12),
    scale=st.integers(0, 3),
)
def test_decimals_are_rounded_as_sql_rounds(
    values: list[int | None], precision: int, scale: int
) -> None:
    exact = [None if each is None else Decimal(each).scaleb(-3) for each in values]
    source = pa.array(exact, pa.decimal128(12, 3))
    unit = Decimal(1).scaleb(-scale)
    found = cast(source, pa.decimal128(precision, scale), strict=False)
    for each, got in zip(exact, found, strict=True):
        rounded = None if each is None else each.quantize(unit, ROUND_HALF_UP)
        fits = rounded is not None and abs(rounded) < Decimal(10) ** (precision - scale)
        assert got == (rounded if fits else None)
    whole = cast(source, pa.int64())
    cut = [None if each is None else int(each.quantize(Decimal(1), ROUND_DOWN)) for each in exact]
    assert whole == cut


@given(numbers=st.lists(st.sampled_from(["1", "2", "x", None]), min_size=1, max_size=40))
def test_not_strict_is_null_where_a_value_does_not_fit(numbers: Sequence[str | None]) -> None:
    expected = [int(each) if each in {"1", "2"} else None for each in numbers]
    assert cast(pa.array(numbers, pa.string()), pa.int64(), strict=False) == expected


@given(wrong=st.sets(st.integers(0, 30), min_size=1), count=st.integers(31, 40))
def test_the_first_failing_value_is_found(wrong: set[int], count: int) -> None:
    values = pa.array(["x" if index in wrong else "1" for index in range(count)])
    assert first_failing(values, lambda part: part.cast(pa.int64())) == min(wrong)
    found = nulls_where_failing(values, lambda part: part.cast(pa.int64()), pa.int64())
    assert found.to_pylist() == [None if index in wrong else 1 for index in range(count)]
