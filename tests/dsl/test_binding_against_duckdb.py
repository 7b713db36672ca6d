"""Random expressions mean what SQL means: bound and evaluated here, written out for DuckDB."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.dsl.binding import bind
from millstream.dsl.conditions import coalesce, when
from millstream.dsl.expressions import Expression, col
from millstream.operators.arrow_expression import evaluate

SCHEMA = pa.schema(
    {
        "small": pa.int8(),
        "whole": pa.int32(),
        "big": pa.int64(),
        "real": pa.float64(),
        "text": pa.string(),
        "flag": pa.bool_(),
        "moment": pa.timestamp("us", "UTC"),
    }
)
START = datetime(1969, 12, 1, tzinfo=UTC)
MINUTES = st.integers(0, 100_000)
TEXTS = st.sampled_from(["", "a", "ab", "Abc", " x ", "JFK", "ünï"])


@dataclass(frozen=True)
class Pair:
    """The same computation twice."""

    ours: Expression
    sql: str


def rows() -> st.SearchStrategy[pa.RecordBatch]:
    row = st.fixed_dictionaries(
        {
            "small": st.none() | st.integers(-100, 100),
            "whole": st.none() | st.integers(-1_000, 1_000),
            "big": st.none() | st.integers(-1_000, 1_000),
            "real": st.none() | st.integers(-4_000, 4_000).map(lambda n: n / 4),
            "text": st.none() | TEXTS,
            "flag": st.none() | st.booleans(),
            "moment": st.none() | MINUTES.map(lambda n: START + timedelta(minutes=n)),
        }
    )
    # One row more in front, sliced off: buffers do not begin at the first row.
    return st.lists(row, min_size=1, max_size=12).map(
        lambda made: pa.RecordBatch.from_pylist(made, SCHEMA).slice(1)
    )


def combined(left: Pair, operator: str, right: Pair) -> Pair:
    symbols = {"==": "=", "!=": "<>", "&": "AND", "|": "OR"}
    functions: dict[str, Callable[[Any, Any], Expression]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
        "&": lambda a, b: a & b,
        "|": lambda a, b: a | b,
    }
    sql = f"({left.sql} {symbols.get(operator, operator)} {right.sql})"
    return Pair(functions[operator](left.ours, right.ours), sql)


@st.composite
def numbers(draw: st.DrawFn, depth: int = 3) -> Pair:
    """Integers are written as BIGINT: small ones are computed in 64 bits here."""
    if depth == 0 or draw(st.booleans()):
        name = draw(st.sampled_from(["small", "whole", "big", "real"]))
        return Pair(col(name), name if name == "real" else f"CAST({name} AS BIGINT)")
    inner = draw(numbers(depth - 1))
    match draw(st.sampled_from(["pair", "constant", "divide", "floor", "abs", "fill", "case"])):
        case "pair":
            return combined(inner, draw(st.sampled_from("+-*")), draw(numbers(depth - 1)))
        case "constant":
            value = draw(st.integers(-200, 200))
            return Pair(value - inner.ours * 2, f"({value} - ({inner.sql}) * 2)")
        case "divide":
            return Pair(inner.ours / 8, f"({inner.sql} / 8)")
        case "floor":
            by = draw(st.integers(1, 50))
            return Pair(
                inner.ours // by + inner.ours % by,
                f"(floor(({inner.sql})::DOUBLE / {by}) + (({inner.sql}) - {by} * "
                f"floor(({inner.sql})::DOUBLE / {by})))",
            )
        case "abs":
            return Pair(abs(-inner.ours), f"abs(-({inner.sql}))")
        case "fill":
            other = draw(numbers(depth - 1))
            filled = coalesce(inner.ours, other.ours, 0)
            return Pair(filled, f"coalesce({inner.sql}, {other.sql}, 0)")
        case _:
            condition = draw(conditions(depth - 1))
            return Pair(
                when(condition.ours).then(inner.ours).otherwise(None),
                f"(CASE WHEN {condition.sql} THEN {inner.sql} END)",
            )


@st.composite
def texts(draw: st.DrawFn, depth: int = 2) -> Pair:
    if depth == 0:
        return Pair(col("text"), "text")
    inner = draw(texts(depth - 1))
    match draw(st.sampled_from(["plain", "upper", "lower", "strip", "slice", "replace", "add"])):
        case "upper":
            return Pair(inner.ours.str.upper(), f"upper({inner.sql})")
        case "lower":
            return Pair(inner.ours.str.lower(), f"lower({inner.sql})")
        case "strip":
            return Pair(inner.ours.str.strip(), f"trim({inner.sql})")
        case "slice":
            start, length = draw(st.integers(0, 3)), draw(st.integers(0, 3))
            sliced = inner.ours.str.slice(start, length)
            return Pair(sliced, f"substr({inner.sql}, {start + 1}, {length})")
        case "replace":
            return Pair(inner.ours.str.replace("b", "xx"), f"replace({inner.sql}, 'b', 'xx')")
        case "add":
            return Pair(inner.ours + "-" + inner.ours, f"({inner.sql} || '-' || {inner.sql})")
        case _:
            return inner


@st.composite
def times(draw: st.DrawFn) -> Pair:
    match draw(st.sampled_from(["plain", "add", "subtract", "hour", "day"])):
        case "add":
            return Pair(col("moment") + "90m", "(moment + INTERVAL 90 MINUTE)")
        case "subtract":
            return Pair(col("moment") - timedelta(days=1), "(moment - INTERVAL 1 DAY)")
        case "hour":
            return Pair(col("moment").dt.truncate("1h"), "date_trunc('hour', moment)")
        case "day":
            return Pair(col("moment").dt.truncate("1d"), "date_trunc('day', moment)")
        case _:
            return Pair(col("moment"), "moment")


FIELDS = {
    "year": "year", "month": "month", "day": "day", "hour": "hour", "minute": "minute",
    "second": "second", "day_of_year": "dayofyear", "weekday": "isodow",
}  # fmt: skip


@st.composite
def fields(draw: st.DrawFn) -> Pair:
    time, field = draw(times()), draw(st.sampled_from(list(FIELDS)))
    shift = " - 1" if field == "weekday" else ""
    return Pair(getattr(time.ours.dt, field)(), f"({FIELDS[field]}({time.sql}){shift})")


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> Pair:
    comparison = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    match draw(st.sampled_from(["number", "flag", "null", "in", "text", "find", "time"])):
        case "flag":
            plain = Pair(col("flag"), "flag")
        case "null":
            of = draw(numbers(1) | texts(1) | times())
            plain = Pair(of.ours.is_null(), f"({of.sql} IS NULL)")
        case "in":
            values = draw(st.lists(st.integers(-100, 300), min_size=1, max_size=4))
            listed = ", ".join(map(str, values))
            plain = Pair(col("small").is_in(values), f"(small IN ({listed}))")
        case "text":
            word = draw(TEXTS)
            compared = combined(draw(texts(1)), comparison, Pair(col("text"), "text"))
            constant = Pair(col("text") == word, f"text = '{word}'")
            plain = combined(compared, "|", constant)
        case "find":
            found = col("text").str.contains("b") | col("text").str.starts_with("J")
            plain = Pair(found, "(contains(text, 'b') OR starts_with(text, 'J'))")
        case "time":
            limit = START + timedelta(minutes=draw(MINUTES))
            time = draw(times())
            plain = Pair(time.ours >= limit, f"({time.sql} >= TIMESTAMP '{limit:%Y-%m-%d %H:%M}')")
        case _:
            value = draw(st.integers(-300, 300))
            number = draw(numbers(1))
            plain = Pair(number.ours > value, f"({number.sql} > {value})")
    if depth == 0:
        return plain
    other = draw(conditions(depth - 1))
    match draw(st.sampled_from(["plain", "and", "or", "not"])):
        case "and":
            return combined(plain, "&", other)
        case "or":
            return combined(plain, "|", other)
        case "not":
            return Pair(~plain.ours, f"(NOT {plain.sql})")
        case _:
            return plain


@pytest.fixture(scope="module")
def oracle() -> duckdb.DuckDBPyConnection:
    # Times with a zone need an extension that the wheel lacks, so DuckDB sees them without.
    return duckdb.connect()


def answers(oracle: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, sql: str) -> list[object]:
    table = pa.table(batch)
    moment = table["moment"].cast(pa.timestamp("us"))
    oracle.register("input", table.set_column(6, "moment", moment))
    return [row[0] for row in oracle.sql(f"SELECT {sql} FROM input").fetchall()]


def same(ours: object, theirs: object) -> bool:
    if isinstance(ours, datetime):
        return ours.replace(tzinfo=None) == theirs
    if isinstance(ours, float) and isinstance(theirs, float | int):
        return math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-9)
    return ours == theirs


@given(batch=rows(), pair=numbers() | texts() | times() | fields() | conditions())
def test_an_expression_means_what_sql_means(
    oracle: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, pair: Pair
) -> None:
    bound = bind(pair.ours, batch.schema)
    result = evaluate(bound, batch)
    assert result.type == bound.type
    expected = answers(oracle, batch, pair.sql)
    ours = result.to_pylist()
    assert all(map(same, ours, expected)), (pair.sql, ours, expected)
    assert len(ours) == len(expected)
