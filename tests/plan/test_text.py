from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.operators.expression import Call, Column, Constant, TypedExpression
from millstream.plan.text import duration_text, expression_text

A, B = Column("a", pa.int64()), Column("b", pa.int64())


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (Call("multiply", (Call("add", (A, B), A.type), B), A.type), "(a + b) × b"),
        (Call("not", (Call("is_null", (A,), pa.bool_()),), pa.bool_()), "a is not null"),
        (Call("not", (Call("less", (A, B), pa.bool_()),), pa.bool_()), "not (a < b)"),
        (Call("cast", (A,), pa.string()), "a as string"),
        (Constant(None, pa.int64()), "null"),
        (Constant(0, pa.timestamp("us", "UTC")), "1970-01-01 00:00:00.000000Z"),
        (Constant(1, pa.date32()), "1970-01-02"),
        (Constant(90, pa.duration("s")), "90s"),
        (Constant("x", pa.string()), "'x'"),
        (Call("str.slice", (A,), pa.string(), (("start", 1), ("length", None))), "str.slice(a, 1)"),
    ],
)
def test_expressions_read_as_written(expression: TypedExpression, text: str) -> None:
    assert expression_text(expression) == text


@pytest.mark.parametrize(
    ("duration_us", "text"),
    [
        (0, "0s"),
        (1, "1us"),
        (1_500, "1500us"),
        (2_000, "2ms"),
        (90_000_000, "90s"),
        (3_600_000_000, "1h"),
        (86_400_000_000, "1d"),
        (-3_600_000_000, "-1h"),
    ],
)
def test_durations_take_the_largest_whole_unit(duration_us: int, text: str) -> None:
    assert duration_text(duration_us) == text
