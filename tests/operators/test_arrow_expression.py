"""Expressions evaluated by Arrow mean what the table of functions says."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import JobError
from millstream.operators.arrow_expression import FUNCTIONS, evaluate
from millstream.operators.expression import Call, Column, Constant
from tests.dsl.test_functions_against_polars import compared_functions
from tests.operators import expression_model
from tests.operators.expression_model import rows_of, same, value_of
from tests.operators.expression_strategies import SCHEMA, TIMESTAMP, batches, expressions

TESTED_ALONE = {
    "greatest", "least", "map.get", "map.keys", "map.len", "map.values", "random",
    "str.choose", "str.json", "str.split_part", "str.strptime", "str.title", "struct.of", "udf",
}  # fmt: skip
TYPES = list({each.type: None for each in SCHEMA})


@pytest.mark.parametrize("type_", TYPES, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_a_value_is_what_the_model_says(type_: pa.DataType, data: st.DataObject) -> None:
    expression = data.draw(expressions(type_))
    batch = data.draw(batches)
    result = evaluate(expression, batch)
    assert result.type == type_
    assert len(result) == batch.num_rows
    found = rows_of(pa.record_batch({"found": result}))
    for row, got in zip(rows_of(batch), found, strict=True):
        expected = value_of(expression, row)
        assert same(got["found"], expected), (expression, row, got["found"], expected)


def test_every_function_has_an_oracle() -> None:
    modelled = set(expression_model.STRICT) | set(expression_model.LAZY)
    assert FUNCTIONS - modelled - compared_functions() == TESTED_ALONE


def value(function: str, type_: pa.DataType, *columns: pa.Array, **options: object) -> list[object]:
    """A function over whole columns."""
    batch = pa.record_batch({str(index): each for index, each in enumerate(columns)})
    arguments = tuple(Column(str(index), each.type) for index, each in enumerate(columns))
    return evaluate(Call(function, arguments, type_, tuple(options.items())), batch).to_pylist()


INT8, INT64, FLOAT = pa.int8(), pa.int64(), pa.float64()


def test_integers_wrap() -> None:
    ends = pa.array([-128, 127, None], INT8)
    ones = pa.array([1, 1, 1], INT8)
    assert value("add", INT8, ends, ones) == [-127, -128, None]
    assert value("negate", INT8, ends) == [-128, -127, None]
    assert value("abs", INT8, ends) == [-128, 127, None]
    assert value("floor_divide", INT8, ends, pa.array([-1, -1, -1], INT8)) == [-128, -127, None]


def test_division_by_zero_is_null_for_integers_and_infinite_for_floats() -> None:
    numbers, zeros = pa.array([7, -7, 0], INT64), pa.array([0, 0, 0], INT64)
    assert value("floor_divide", INT64, numbers, zeros) == [None, None, None]
    assert value("modulo", INT64, numbers, zeros) == [None, None, None]
    found = value("divide", FLOAT, numbers.cast(FLOAT), zeros.cast(FLOAT))
    assert str(found) == "[inf, -inf, nan]"


def test_division_goes_down_and_the_remainder_has_the_divisors_sign() -> None:
    left, right = pa.array([7, -7, 7, -7], INT64), pa.array([2, 2, -2, -2], INT64)
    assert value("floor_divide", INT64, left, right) == [3, -4, -4, 3]
    assert value("modulo", INT64, left, right) == [1, 1, -1, -1]
    floats = (left.cast(FLOAT), right.cast(FLOAT))
    assert value("floor_divide", FLOAT, *floats) == [3.0, -4.0, -4.0, 3.0]
    assert value("modulo", FLOAT, *floats) == [1.0, 1.0, -1.0, -1.0]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (pa.array([1.9, -1.9, None]), INT64, [1, -1, None]),
        (pa.array([2**53 + 1]), FLOAT, [float(2**53)]),
        (pa.array(["7", None]), INT64, [7, None]),
        (pa.array([7, None]), pa.string(), ["7", None]),
        (pa.array([0, 2, None]), pa.bool_(), [False, True, None]),
        (pa.array(["2024-01-02T00:00:00Z"]), TIMESTAMP, [datetime(2024, 1, 2, tzinfo=UTC)]),
        (pa.array(["a", None]).dictionary_encode(), pa.string(), ["a", None]),
        (pa.array([300], pa.int16()), pa.int32(), [300]),
    ],
    ids=str,
)
def test_casts_that_fit(source: pa.Array, target: pa.DataType, expected: list[object]) -> None:
    assert value("cast", target, source) == expected


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (pa.array([300]), INT8),
        (pa.array([-1]), pa.uint64()),
        (pa.array([float("nan")]), INT64),
        (pa.array([1e30]), INT64),
        (pa.array(["x"]), INT64),
    ],
    ids=str,
)
def test_a_cast_that_does_not_fit_is_named(source: pa.Array, target: pa.DataType) -> None:
    with pytest.raises(JobError, match=f"cast from {source.type} to {target} failed"):
        value("cast", target, source)


def test_null_is_in_nothing_and_not_in_nothing() -> None:
    numbers = pa.array([1, 2, None])
    assert value("is_in", pa.bool_(), numbers, values=(1,)) == [True, False, None]
    assert value("is_in", pa.bool_(), numbers, values=(1, None)) == [True, None, None]


def test_a_constant_stands_in_every_row() -> None:
    batch = pa.record_batch({"a": pa.array([1, 2, 3])})
    assert evaluate(Constant(5, INT64), batch).to_pylist() == [5, 5, 5]
    both = Call("add", (Constant(5, INT64), Constant(None, INT64)), INT64)
    assert evaluate(both, batch).to_pylist() == [None, None, None]


def test_truncation_goes_down_before_1970_and_keeps_the_unit() -> None:
    for unit in ("s", "ms", "us", "ns"):
        type_ = pa.timestamp(unit, "UTC")
        moments = pa.array([datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]).cast(type_)
        found = value("dt.truncate", type_, moments, every_us=60_000_000)
        assert found == [datetime(1969, 12, 31, 23, 59, tzinfo=UTC)]


def test_calendar_fields_are_those_of_the_zone() -> None:
    moment = pa.array([datetime(2024, 1, 1, 0, 30, tzinfo=UTC)]).cast(pa.timestamp("us", "UTC"))
    there = moment.cast(pa.timestamp("us", "America/New_York"))
    assert value("dt.hour", INT64, there) == [19]
    assert value("dt.day", INT64, there) == [31]
    assert value("dt.weekday", INT64, moment) == [0]


def test_a_slice_from_the_end_reaches_it() -> None:
    texts = pa.array(["abcdef", "ü", None])
    assert value("str.slice", pa.string(), texts, start=-2, length=None) == ["ef", "ü", None]
    assert value("str.slice", pa.string(), texts, start=-2, length=5) == ["ef", "ü", None]
    assert value("str.slice", pa.string(), texts, start=1, length=2) == ["bc", "", None]
