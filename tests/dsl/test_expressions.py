from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import timedelta

import pytest

from millstream.dsl.conditions import coalesce, when
from millstream.dsl.expressions import Expression, col, lit, option
from millstream.errors import ExpressionTypeError

a, b = col("a"), col("b")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (a + 1, 'col("a") + 1'),
        (1 + a, '1 + col("a")'),
        (1 - a, '1 - col("a")'),
        (2 * a, '2 * col("a")'),
        (1 / a, '1 / col("a")'),
        (7 // a, '7 // col("a")'),
        (7 % a, '7 % col("a")'),
        (a // 2 % 3, '(col("a") // 2) % 3'),
        (a > 15, 'col("a") > 15'),
        ((a > 1) & (b < 2), '(col("a") > 1) & (col("b") < 2)'),
        (True & (a > 1), 'True & (col("a") > 1)'),
        (False | a, 'False | col("a")'),
        (~a, '~col("a")'),
        (-(a + b), '-(col("a") + col("b"))'),
        (abs(a), 'col("a").abs()'),
        (a != "x", "col(\"a\") != 'x'"),
        (a.is_not_null(), '~col("a").is_null()'),
        (a.cast("int64").alias("n"), 'col("a").cast("int64").alias("n")'),
        (a.between(1, 5, closed="left"), '(col("a") >= 1) & (col("a") < 5)'),
        (a.fill_null(0), 'col("a").coalesce(0)'),
        (coalesce(a, b, 0), 'col("a").coalesce(col("b"), 0)'),
        (a.is_in([1, 2]), 'col("a").is_in((1, 2))'),
        (a.str.contains("x"), 'col("a").str.contains("x")'),
        (a.dt.truncate("1h"), 'col("a").dt.truncate("1h")'),
        (
            when(a > 1).then("x").when(b).then("y").otherwise(None),
            "when(col(\"a\") > 1).then('x').when(col(\"b\")).then('y').otherwise(None)",
        ),
    ],
)
def test_an_expression_shows_itself_as_it_was_written(expression: Expression, text: str) -> None:
    assert repr(expression) == text


def test_python_truth_is_refused_with_the_remedy() -> None:
    attempts: list[Callable[[], object]] = [
        lambda: a > 1 and b < 2,
        lambda: not a,
        lambda: 1 < a < 5,
        lambda: bool(a == b),
        lambda: a in [1, 2],
    ]
    for attempt in attempts:
        with pytest.raises(ExpressionTypeError, match=r"test_expressions.py:\d+: .*use|combine"):
            attempt()


def test_a_negated_constant_stays_one() -> None:
    assert option(-lit(5), "value") == -5
    assert option(-lit(timedelta(hours=1)), "value") == timedelta(hours=-1)
    assert (-lit("x")).function == "negate"


def test_expressions_cannot_be_members_of_sets() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_expressions_can_be_pickled() -> None:
    assert repr(pickle.loads(pickle.dumps(a.str.lower() == "x"))) == repr(a.str.lower() == "x")
