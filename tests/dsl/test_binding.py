from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from millstream.dsl.binding import DEPTH_MAX, Scope, bind, bind_boolean, output_name
from millstream.dsl.conditions import coalesce, when
from millstream.dsl.expressions import Expression, col, lit
from millstream.errors import ExpressionTypeError, PlanError, UnknownColumnError
from millstream.operators.expression import Call, Column, Constant
from millstream.plan.text import expression_text

SCHEMA = pa.schema(
    {
        "i8": pa.int8(),
        "i64": pa.int64(),
        "u64": pa.uint64(),
        "f32": pa.float32(),
        "f64": pa.float64(),
        "text": pa.string(),
        "coded": pa.dictionary(pa.int8(), pa.string()),
        "flag": pa.bool_(),
        "at": pa.timestamp("us", "UTC"),
        "local": pa.timestamp("ms"),
        "day": pa.date32(),
        "lasts": pa.duration("s"),
        "money": pa.decimal128(10, 2),
        "list": pa.list_(pa.int64()),
    }
)
UTC_US = pa.timestamp("us", "UTC")

# Through `Any`: a type checker would refuse them where the binding is to.
NULL: Any = None
NUMBER: Any = 5
OBJECT: Any = object()


@pytest.mark.parametrize(
    ("expression", "text", "type_"),
    [
        (col("i8") + 1, "(i8 as int64) + 1", pa.int64()),
        (col("i8") > 100, "i8 > 100", pa.bool_()),
        (col("i8") > 1000, "(i8 as int64) > 1000", pa.bool_()),
        (col("i64") / 2, "(i64 as double) ÷ 2.0", pa.float64()),
        (col("i8") // 2, "(i8 as int64) // 2", pa.int64()),
        (col("f32") * 0.5, "f32 × 0.5", pa.float32()),
        (col("f32") * col("i8"), "(f32 as double) × (i8 as double)", pa.float64()),
        (-col("i8"), "negate(i8 as int64)", pa.int64()),
        (abs(col("f32")), "abs(f32)", pa.float32()),
        (col("u64") + 1, "u64 + 1", pa.uint64()),
        (col("text") + "!", "text + '!'", pa.string()),
        (col("coded") == "x", "(coded as string) = 'x'", pa.bool_()),
        (col("i64") + None, "i64 + null", pa.int64()),
        (col("i64") == None, "i64 = null", pa.bool_()),  # noqa: E711
        (lit(None) == None, "null", pa.bool_()),  # noqa: E711
        (col("money") > 1, "money > Decimal('1')", pa.bool_()),
        (col("flag") & True, "flag and True", pa.bool_()),
        (~(col("flag") | None), "not (flag or null)", pa.bool_()),
        (col("text").is_null(), "text is null", pa.bool_()),
        (col("text").is_not_null(), "text is not null", pa.bool_()),
        (col("i8").is_in([1, 2]), "is_in(i8, (1, 2))", pa.bool_()),
        (col("i8").is_in([1, 2.5]), "is_in(i8 as double, (1.0, 2.5))", pa.bool_()),
        (col("i8").fill_null(0), "coalesce(i8, 0)", pa.int8()),
        (coalesce(None, col("i8"), 0.5), "coalesce(null, i8 as double, 0.5)", pa.float64()),
        (
            when(col("flag")).then(1),
            "case(flag, 1, null)",
            pa.int64(),
        ),
        (
            when(NULL).then(col("i8")).when(col("flag")).then(2.5).otherwise(0),
            "case(null, i8 as double, flag, 2.5, 0.0)",
            pa.float64(),
        ),
        (col("coded").str.upper(), "str.upper(coded as string)", pa.string()),
        (col("text").str.length(), "str.length(text)", pa.int64()),
        (col("text").str.slice(1), "str.slice(text, 1)", pa.string()),
        (col("text").str.starts_with("x"), "str.starts_with(text, 'x')", pa.bool_()),
        (col("at").dt.hour(), "dt.hour(at)", pa.int64()),
        (col("day").dt.year(), "dt.year(day)", pa.int64()),
        (col("at").dt.truncate("1h"), "dt.truncate(at, 3600000000)", UTC_US),
        (col("at") > "2013-01-01", "at > 2013-01-01 00:00:00.000000Z", pa.bool_()),
        (col("at") > col("day"), "at > (day as timestamp[us, tz=UTC])", pa.bool_()),
        (col("at") - "90m", "at - 90m", UTC_US),
        ("1h" + col("at"), "at + 1h", UTC_US),
        (col("at") + col("lasts"), "at + (lasts as duration[us])", UTC_US),
        (col("day") + "1d", "(day as timestamp[us]) + 1d", pa.timestamp("us")),
        (col("at") - col("at"), "at - at", pa.duration("us")),
        (col("lasts") > "1h", "(lasts as duration[us]) > 1h", pa.bool_()),
        (lit("5").cast(int), "5", pa.int64()),
        (col("i8").cast("float"), "i8 as double", pa.float64()),
        (col("i64").cast("int64"), "i64", pa.int64()),
        (col("text").cast("timestamp"), "text as timestamp[us, tz=UTC]", UTC_US),
        (col("text").cast(pa.float32()), "text as float", pa.float32()),
    ],
)
def test_what_is_bound(expression: Expression, text: str, type_: pa.DataType) -> None:
    bound = bind(expression, SCHEMA)
    assert (expression_text(bound), bound.type) == (text, type_)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (col("text") > 5, 'cannot compare col("text") (string) with 5 (int64); cast one'),
        (col("u64") > -1, 'cannot compare col("u64") (uint64) with -1'),
        (col("list") == col("list"), "cannot compare"),
        (col("text") + 1, "cast the text to a number"),
        (col("flag") + 1, 'cast the condition with .cast("int")'),
        (col("u64") + col("i64"), "cast both to one number type"),
        (col("i8") & col("flag"), '& needs conditions (bool); got col("i8") (int8)'),
        (~col("i8"), "~ needs conditions"),
        (-col("u64"), "it has no sign"),
        (-col("text"), "negate needs a number"),
        (col("at") + 5, 'what works with times: time + "1h"'),
        (col("at") * 2, "cannot multiply"),
        (col("at") - col("local"), "one has a time zone, the other has none"),
        (col("at") + "soon", "'soon' is no duration"),
        (col("at").dt.truncate("0s"), "needs a positive duration"),
        (col("at").dt.truncate("hour"), "'hour' is no duration"),
        (col("text").dt.year(), ".dt.year needs a timestamp or a date"),
        (col("i8").str.upper(), ".str.upper needs text"),
        (col("text").str.contains(NUMBER), "takes its pattern as a constant text; got 5"),
        (col("text").str.slice(NULL), "takes its start as an integer"),
        (col("text").str.slice(0, -1), "takes its length as an integer from 0 on"),
        (col("i8").is_in([None]), "add | x.is_null()"),
        (col("i8").is_in(["x"]), "'x' cannot be among"),
        (coalesce(col("text"), 1), "the values have no common type"),
        (when(col("flag")).then(1).otherwise("x"), "the branches have no common type"),
        (when(col("i8")).then(1).otherwise(2), "when(…) needs a condition (bool)"),
        (col("list").cast("int64"), "cannot cast"),
        (col("i8").cast("int63"), "no type 'int63'; did you mean 'int64'"),
        (lit("x").cast("int64"), "cannot cast 'x' (string) to int64"),
        (lit(OBJECT), "cannot be a constant"),
    ],
)
def test_what_does_not_fit_is_said_at_the_users_line(expression: Expression, message: str) -> None:
    with pytest.raises(ExpressionTypeError) as raised:
        bind(expression, SCHEMA)
    assert str(raised.value).startswith(f"{__file__}:")
    assert message in str(raised.value)


def test_an_unknown_column_lists_the_nearest() -> None:
    with pytest.raises(UnknownColumnError, match="no column 'txet'; did you mean 'text'"):
        bind(col("txet"), SCHEMA)
    with pytest.raises(ExpressionTypeError, match="a column is named by a string"):
        bind(col(5), SCHEMA)  # type: ignore[arg-type]  # the mistake


def test_a_filter_wants_a_condition() -> None:
    scope = Scope(SCHEMA)
    assert bind_boolean(col("flag"), scope, "a filter") == Column("flag", pa.bool_())
    assert bind_boolean(lit(None), scope, "a filter") == Constant(None, pa.bool_())
    with pytest.raises(ExpressionTypeError, match=r'a filter needs .* col\("i8"\) > 0'):
        bind_boolean(col("i8"), scope, "a filter")


def test_names_of_results() -> None:
    assert output_name(col("a").cast("int64")) == "a"
    assert output_name((col("a") + col("b")).alias("c")) == "c"
    assert output_name(col("a").alias("b") * 2) == "b"
    for nameless in (lit(1), when(col("a")).then(1).otherwise(2)):
        with pytest.raises(PlanError, match="has no name; give it one"):
            output_name(nameless)


def test_depth_costs_no_more_than_its_length() -> None:
    deep = col("at")
    for _ in range(DEPTH_MAX - 1):
        deep = deep + "1h"
    assert isinstance(bind(deep, SCHEMA), Call)  # in 2^79 steps it would not end
    with pytest.raises(PlanError, match="levels deep"):
        bind(deep + "1h", SCHEMA)
