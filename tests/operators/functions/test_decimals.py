"""Decimals are exact: computed beside Python's, with SQL's rules for digits and places."""

from __future__ import annotations

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal, localcontext

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream.dsl.binding import bind
from millstream.dsl.decimal_types import result_type
from millstream.dsl.expressions import col, lit
from millstream.errors import JobError
from millstream.operators.arrow_expression import evaluate

FUNCTIONS = ("add", "subtract", "multiply", "divide", "floor_divide", "modulo")


@st.composite
def columns(draw: st.DrawFn, digits_max: int = 38) -> pa.Array:
    precision = draw(st.integers(1, digits_max))
    scale = draw(st.integers(0, precision))
    limit = 10**precision - 1
    ends = st.sampled_from([0, 1, -1, limit, -limit])
    whole = st.none() | ends | st.integers(-limit, limit)
    with localcontext(prec=80):
        values = [
            None if each is None else Decimal(each).scaleb(-scale)
            for each in draw(st.lists(whole, min_size=4, max_size=4))
        ]
    return pa.array(values, pa.decimal128(precision, scale))


def computed(function: str, left: Decimal, right: Decimal) -> Decimal | None:
    with localcontext(prec=400):
        match function:
            case "add":
                return left + right
            case "subtract":
                return left - right
            case "multiply":
                return left * right
        if right == 0:
            return None
        exact = left / right
        if function == "divide":
            return exact
        floored = exact.to_integral_value(ROUND_FLOOR)
        return floored if function == "floor_divide" else left - floored * right


@example(pa.array([Decimal(1)] * 4), pa.array([Decimal(9)] * 4), "divide")
@given(left=columns(), right=columns(), function=st.sampled_from(FUNCTIONS))
def test_a_result_is_the_exact_one_rounded(left: pa.Array, right: pa.Array, function: str) -> None:
    batch = pa.record_batch({"a": left, "b": right})
    bound = bind(col("a").call(function, col("b")), batch.schema)
    assert bound.type == result_type(function, left.type, right.type)
    for row in range(len(left)):
        a, b = left[row].as_py(), right[row].as_py()
        exact = None if a is None or b is None else computed(function, a, b)
        with localcontext(prec=400):
            unit = Decimal(1).scaleb(-bound.type.scale)
            expected = None if exact is None else exact.quantize(unit, ROUND_HALF_UP)
            digits = bound.type.precision - bound.type.scale
            overflows = expected is not None and abs(expected) >= Decimal(10) ** digits
        piece = batch.slice(row, 1)
        if overflows:
            with pytest.raises(JobError, match=f"{function} of decimal128"):
                evaluate(bound, piece)
        else:
            assert evaluate(bound, piece).to_pylist() == [expected]


@given(left=columns(8), right=columns(8))
def test_sums_and_products_are_those_of_duckdb(left: pa.Array, right: pa.Array) -> None:
    table = pa.table({"a": left, "b": right})
    with duckdb.connect() as oracle:
        oracle.register("input", table)
        rows = oracle.sql("SELECT a + b, a - b, a * b, a < b, a = b FROM input").fetchall()
    batch = table.to_batches()[0]
    a, b = col("a"), col("b")
    found = [
        evaluate(bind(each, batch.schema), batch).to_pylist()
        for each in (a + b, a - b, a * b, a < b, a == b)
    ]
    assert list(zip(*found, strict=True)) == rows


@pytest.mark.parametrize(
    ("function", "left", "right", "expected"),
    [
        ("add", (10, 2), (5, 3), (12, 3)),
        ("multiply", (10, 2), (5, 3), (15, 5)),
        ("divide", (10, 2), (5, 3), (19, 8)),
        ("divide", (5, 0), (2, 0), (11, 6)),
        ("multiply", (38, 10), (38, 10), (38, 6)),
        ("add", (38, 2), (38, 2), (38, 2)),
        ("modulo", (10, 2), (5, 3), (5, 3)),
        ("floor_divide", (10, 2), (5, 3), (12, 0)),
    ],
)
def test_digits_and_places(
    function: str, left: tuple[int, int], right: tuple[int, int], expected: tuple[int, int]
) -> None:
    found = result_type(function, pa.decimal128(*left), pa.decimal128(*right))
    assert (found.precision, found.scale) == expected


def test_more_than_38_digits_stay_where_there_were_more() -> None:
    assert result_type("add", pa.decimal256(50, 5), pa.decimal128(10, 2)) == pa.decimal256(51, 5)


def test_what_decimals_meet() -> None:
    schema = pa.schema({"price": pa.decimal128(10, 2), "n": pa.int32(), "rate": pa.float64()})
    batch = pa.RecordBatch.from_pylist([{"price": Decimal("1.50"), "n": 3, "rate": 0.5}], schema)

    def value(expression: object) -> tuple[object, pa.DataType]:
        bound = bind(lit(expression) if isinstance(expression, int) else expression, schema)  # type: ignore[arg-type]
        return evaluate(bound, batch)[0].as_py(), bound.type

    price, n = col("price"), col("n")
    assert value(price * n) == (Decimal("4.50"), pa.decimal128(20, 2))
    assert value(price * 2) == (Decimal("3.00"), pa.decimal128(11, 2))
    assert value(price + Decimal("0.125")) == (Decimal("1.625"), pa.decimal128(12, 3))
    assert value(price * col("rate")) == (0.75, pa.float64())
    assert value(price * 0.5) == (0.75, pa.float64())
    assert value(1 - price) == (Decimal("-0.50"), pa.decimal128(11, 2))
    assert value(abs(-price)) == (Decimal("1.50"), pa.decimal128(10, 2))
    assert value(price.round(1)) == (Decimal("1.50"), pa.decimal128(10, 2))
    assert value(price / 0) == (None, pa.decimal128(14, 6))
    assert value(price.between(1, 2)) == (True, pa.bool_())
    assert value(price.is_in([1, Decimal("1.5")])) == (True, pa.bool_())
