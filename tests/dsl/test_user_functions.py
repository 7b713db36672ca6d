"""Functions of the user's own: compiled where they can be, called where not, never silently."""

from __future__ import annotations

import math
import threading
import warnings
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.dsl.binding import bind
from millstream.dsl.conditions import when
from millstream.dsl.expressions import Expression, col
from millstream.dsl.user_functions import UserFunction, udf
from millstream.errors import (
    ExpressionTypeError,
    JobError,
    PlanError,
    PythonFallbackWarning,
)
from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call
from millstream.operators.failing import python_parts
from millstream.operators.fused import FusedConfig
from millstream.operators.user_function import CompiledFunction

RATE = 0.5
LIMITS = (1, 5)
LOCK = threading.Lock()
NAMES = {"a": "Anna"}


def helper(x: float) -> float:
    return x * RATE


@udf
def score(a: float, b: float) -> float:
    if a > LIMITS[1]:
        return math.sqrt(a)
    return helper(a) + np.floor(b)


@udf
def collatz(n):  # type: ignore[no-untyped-def]
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@udf(returns="int8")
def quotient(a, b):  # type: ignore[no-untyped-def]
    return a // b


BATCH = pa.record_batch(
    {
        "skipped": pa.array([9, 1, 2, None, 7]),
        "n": pa.array([9, 27, 6, None, 1], pa.int64()),
        "x": pa.array([9.0, 9.0, 2.0, 4.0, None]),
        "flag": pa.array([True, False, None, True, True]),
        "text": pa.array(["s", "a", "b", None, "c"]),
    }
).slice(1)


def value(expression: Expression, batch: pa.RecordBatch = BATCH) -> list[Any]:
    bound = bind(expression, batch.schema)
    result = evaluate(bound, batch)
    assert result.type == bound.type
    return result.to_pylist()


def fused(expression: Expression, predicate: Expression | None = None) -> tuple[list[Any], Any]:
    bound = bind(expression, BATCH.schema)
    kept = None if predicate is None else bind(predicate, BATCH.schema)
    operator = FusedConfig(BATCH.schema, kept, (("out", bound),)).build()
    rows = [row["out"] for each in operator.on_batch(0, BATCH) for row in each.batch.to_pylist()]
    return rows, operator.counters


def test_a_function_of_numbers_is_compiled_into_the_kernel() -> None:
    bound = bind(score(col("x"), col("n")), BATCH.schema)
    assert isinstance(bound, Call)
    assert isinstance(dict(bound.options)["function"], CompiledFunction)
    assert bound.type == pa.float64()
    expected = [3.0, 7.0, None, None]
    assert value(score(col("x"), col("n"))) == expected
    rows, counters = fused(score(col("x"), col("n")) + 1)
    assert rows == [4.0, 8.0, None, None]
    assert (counters.rows_numba, counters.rows_arrow, counters.rows_python) == (4, 0, 0)
    # Nulls are not seen: what lies there would keep this one busy for ever.
    rows, counters = fused(collatz(col("n")), col("n").is_null() | (col("n") > 1))
    assert rows == [111, 8, None]
    assert counters.rows_python == 0


@given(numbers=st.lists(st.none() | st.integers(1, 1000), min_size=1, max_size=20))
def test_what_is_compiled_is_what_python_computes(numbers: list[int | None]) -> None:
    batch = pa.record_batch({"n": pa.array(numbers, pa.int64())})
    expected = [None if each is None else collatz.function(each) for each in numbers]
    assert value(collatz(col("n")), batch) == expected


def test_a_declared_type_is_cast_to() -> None:
    bound = bind(quotient(col("n"), 2), BATCH.schema)
    assert bound.type == pa.int8()
    assert value(quotient(col("n"), 2)) == [13, 3, None, 0]


def test_what_is_raised_fails() -> None:
    with pytest.raises(JobError, match="function quotient raised ZeroDivisionError"):
        value(quotient(col("n"), 0))
    guarded = when(col("n") != 6).then(quotient(col("n"), col("n") - 6)).otherwise(-1)
    assert value(guarded) == [1, -1, -1, -1]


def test_a_lambda_is_compiled_too() -> None:
    doubled = udf(lambda x: x * 2)
    assert value(doubled(col("n"))) == [54, 12, None, 2]


def test_what_numba_cannot_take_is_called_by_python_and_said_once() -> None:
    @udf(returns="string")
    def name(short: str) -> str:
        return NAMES.get(short, short.upper())

    with pytest.warns(PythonFallbackWarning, match=r"name is called by Python .* 1 is string"):
        bound = bind(name(col("text")), BATCH.schema)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value(name(col("text"))) == ["Anna", "B", None, "C"]
        rows, counters = fused(name(col("text")), col("n") > 1)
    assert rows == ["Anna", "B"]
    assert (counters.rows_numba, counters.rows_python) == (4, 2)
    assert list(python_parts(bound)) == [
        "name: argument 1 is string, and Numba takes numbers and bool"
    ]


def test_a_function_may_take_nulls() -> None:
    @udf(returns=int, skip_nulls=False)
    def known(n: int | None) -> int:
        return -1 if n is None else n

    with pytest.warns(PythonFallbackWarning, match="it takes nulls"):
        assert value(known(col("n"))) == [27, 6, -1, 1]


def test_types_other_than_numbers_come_as_python_has_them() -> None:
    @udf(returns=pa.decimal128(10, 2))
    def price(n: int) -> Decimal:
        return Decimal(n) / 4

    @udf(returns=pa.list_(pa.string()))
    def letters(text: str) -> list[str]:
        return list(text * 2)

    with pytest.warns(PythonFallbackWarning):
        assert value(price(col("n"))) == [Decimal("6.75"), Decimal("1.50"), None, Decimal("0.25")]
    with pytest.warns(PythonFallbackWarning):
        assert value(letters(col("text")).list.len()) == [2, 2, None, 2]


def test_a_function_of_arrays() -> None:
    @udf(batch=True, returns="float64")
    def share(x: pa.Array, n: pa.Array) -> pa.Array:
        return pc.divide(x, n.cast(pa.float64()))

    assert value(share(col("x"), col("n"))) == [9 / 27, 2 / 6, None, None]
    assert fused(share(col("x"), col("n")))[1].rows_python == 0

    @udf(batch=True, returns="int64")
    def short(x: pa.Array) -> pa.Array:
        return x[1:]

    with pytest.raises(JobError, match="short gave 3 values for 4 rows"):
        value(short(col("n")))
    with pytest.raises(ExpressionTypeError, match=r"of wide|wide gives is not known"):
        value(udf(wide, batch=True)(col("n")))


def wide(x):  # type: ignore[no-untyped-def]
    return x


def unknown(x):  # type: ignore[no-untyped-def]
    return None if x > 1 else "one"


def locked(x: str) -> str:
    with LOCK:
        return x


@pytest.mark.parametrize(
    ("made", "argument", "error", "message"),
    [
        (udf(unknown), "n", ExpressionTypeError, "unknown gives is not known"),
        (udf(locked), "text", PlanError, r"reads 'LOCK' \(lock\), which cannot be sent to workers"),
        (udf(wide), "text", ExpressionTypeError, "annotate the function"),
    ],
)
def test_what_cannot_be_used_is_said_at_the_users_line(
    made: UserFunction, argument: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        bind(made(col(argument)), BATCH.schema)
    assert str(raised.value).startswith(f"{__file__}:")


def test_plain_values_are_refused_with_the_remedy() -> None:
    with pytest.raises(PlanError, match=r"call score\.function"):
        score(1.0, 2.0)
    with pytest.raises(PlanError, match="udf takes a function"):
        udf(5)  # type: ignore[call-overload]
