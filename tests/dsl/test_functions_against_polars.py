"""Functions of text, times and lists mean what they mean in Polars, unless their docstring says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.dsl.binding import bind
from millstream.dsl.expressions import Expression, col
from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call, TypedExpression

TEXTS = [
    "", " ", "a", "Abc", "ünïcödé ß", "  x y  ", "a.b.c", "1", "-42", "+7", "00120", "a1b22c333",
    "JFK-LGA", "xx", "日本語", "tab\tnew\nline", "aaa", "(a)", "$1",
]  # fmt: skip
ZONE = "America/New_York"
SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "at": pa.timestamp("us", "UTC"),
        "there": pa.timestamp("us", ZONE),
        "naive": pa.timestamp("ms"),
        "day": pa.date32(),
        "wait": pa.duration("us"),
        "numbers": pa.list_(pa.int64()),
        "reals": pa.list_(pa.float64()),
        "words": pa.list_(pa.string()),
        "index": pa.int64(),
        "point": pa.struct([pa.field("x", pa.int64()), pa.field("name", pa.string())]),
        "real": pa.float64(),
    }
)

Pair = tuple[Callable[[Expression], Expression], Callable[[Any], Any]]

TEXT: list[Pair] = [
    (lambda e: e.str.len_chars(), lambda e: e.str.len_chars()),
    (lambda e: e.str.len_bytes(), lambda e: e.str.len_bytes()),
    (lambda e: e.str.to_lowercase(), lambda e: e.str.to_lowercase()),
    (lambda e: e.str.reverse(), lambda e: e.str.reverse()),
    (lambda e: e.str.strip_chars(), lambda e: e.str.strip_chars()),
    (lambda e: e.str.strip_chars("ac "), lambda e: e.str.strip_chars("ac ")),
    (lambda e: e.str.strip_chars_start(), lambda e: e.str.strip_chars_start()),
    (lambda e: e.str.strip_chars_end("3c"), lambda e: e.str.strip_chars_end("3c")),
    (lambda e: e.str.strip_prefix("a"), lambda e: e.str.strip_prefix("a")),
    (lambda e: e.str.strip_suffix("c"), lambda e: e.str.strip_suffix("c")),
    (lambda e: e.str.strip_suffix(""), lambda e: e.str.strip_suffix("")),
    (lambda e: e.str.contains(r"^\w\d"), lambda e: e.str.contains(r"^\w\d")),
    (lambda e: e.str.contains("a.b"), lambda e: e.str.contains("a.b")),
    (lambda e: e.str.contains(".", literal=True), lambda e: e.str.contains(".", literal=True)),
    (lambda e: e.str.count_matches(r"\d+"), lambda e: e.str.count_matches(r"\d+")),
    (lambda e: e.str.starts_with("a"), lambda e: e.str.starts_with("a")),
    (lambda e: e.str.ends_with("c"), lambda e: e.str.ends_with("c")),
    (lambda e: e.str.slice(1), lambda e: e.str.slice(1)),
    (lambda e: e.str.slice(1, 2), lambda e: e.str.slice(1, 2)),
    (lambda e: e.str.slice(-3, 2), lambda e: e.str.slice(-3, 2)),
    (lambda e: e.str.slice(-3), lambda e: e.str.slice(-3)),
    (lambda e: e.str.head(2), lambda e: e.str.head(2)),
    (lambda e: e.str.tail(2), lambda e: e.str.tail(2)),
    (lambda e: e.str.replace("a", "<$0>"), lambda e: e.str.replace("a", "<$0>")),
    (lambda e: e.str.replace(r"(\d)", r"[$1\$$]"), lambda e: e.str.replace(r"(\d)", r"[$1\$$]")),
    (lambda e: e.str.replace_all(r"(\d)", "${1}x"), lambda e: e.str.replace_all(r"(\d)", "${1}x")),
    (
        lambda e: e.str.replace_all(".", "$1", literal=True),
        lambda e: e.str.replace_all(".", "$1", literal=True),
    ),
    (lambda e: e.str.extract(r"([a-z])(\d)", 2), lambda e: e.str.extract(r"([a-z])(\d)", 2)),
    (lambda e: e.str.extract(r"[(a]\d", 0), lambda e: e.str.extract(r"[(a]\d", 0)),
    (lambda e: e.str.extract_all(r"\d+"), lambda e: e.str.extract_all(r"\d+")),
    (lambda e: e.str.split("."), lambda e: e.str.split(".")),
    (lambda e: e.str.pad_start(5, "*"), lambda e: e.str.pad_start(5, "*")),
    (lambda e: e.str.pad_end(5, "*"), lambda e: e.str.pad_end(5, "*")),
    (lambda e: e.str.zfill(4), lambda e: e.str.zfill(4)),
    (
        lambda e: e.str.to_integer(base=16, strict=False),
        lambda e: e.str.to_integer(base=16, strict=False, dtype=pl.Int64),
    ),
    (lambda e: e.str.to_integer(strict=False), lambda e: e.str.to_integer(strict=False)),
    (lambda e: e.cast("int64", strict=False), lambda e: e.cast(pl.Int64, strict=False)),
    (lambda e: e.hash().is_null(), lambda e: e.hash() != e.hash()),
]

FIELDS = (
    "year", "iso_year", "quarter", "month", "week", "day", "ordinal_day", "is_leap_year", "date",
    "days_in_month", "month_start", "month_end",
)  # fmt: skip
CLOCK = ("hour", "minute", "second", "millisecond", "microsecond", "nanosecond", "time")


def method(name: str, *arguments: Any) -> Pair:
    return (
        lambda e: getattr(e.dt, name)(*arguments),
        lambda e: getattr(e.dt, name)(*arguments),
    )


TIME: list[Pair] = [
    *(method(name) for name in (*FIELDS, *CLOCK)),
    *(method("truncate", each) for each in ("15m", "1h", "6h", "1d", "1w", "1mo", "1q", "1y")),
    *(method("offset_by", each) for each in ("1mo2d", "-1y", "90m", "1q", "-1d12h", "3us")),
    *(method("epoch", each) for each in ("s", "ms", "us", "d")),
    *(method("timestamp", each) for each in ("ms", "us")),
    method("strftime", "%Y/%m/%d %H:%M"),
    (lambda e: e.dt.weekday() + 1, lambda e: e.dt.weekday()),
]
DAY: list[Pair] = [
    *(method(name) for name in FIELDS if name not in {"month_start", "month_end"}),
    method("strftime", "%d.%m.%Y"),
    (lambda e: e.dt.weekday() + 1, lambda e: e.dt.weekday()),
]
ZONED: list[Pair] = [
    method("convert_time_zone", "Asia/Kolkata"),
    method("replace_time_zone", None),
    method("cast_time_unit", "ms"),
]
NAIVE: list[Pair] = [
    (
        lambda e: e.dt.replace_time_zone(ZONE, ambiguous="latest", non_existent="latest"),
        lambda e: e.dt.replace_time_zone(ZONE, ambiguous="latest", non_existent="null"),
    ),
]
WAIT: list[Pair] = [
    *(method(f"total_{unit}s") for unit in ("day", "hour", "minute", "second", "millisecond")),
    *(method(f"total_{unit}s") for unit in ("microsecond", "nanosecond")),
    (lambda e: e * 3, lambda e: e * 3),
    (lambda e: -e, lambda e: -e),
    (abs, lambda e: e.abs()),
    (lambda e: e / "1h", lambda e: e / timedelta(hours=1)),
]
LIST: list[Pair] = [
    (lambda e: e.list.len(), lambda e: e.list.len()),
    (lambda e: e.list.get(1), lambda e: e.list.get(1, null_on_oob=True)),
    (lambda e: e.list.get(-2), lambda e: e.list.get(-2, null_on_oob=True)),
    (lambda e: e.list.get(col("index")), lambda e: e.list.get(pl.col("index"), null_on_oob=True)),
    (lambda e: e.list.first(), lambda e: e.list.first()),
    (lambda e: e.list.last(), lambda e: e.list.last()),
    (lambda e: e.list.min(), lambda e: e.list.min()),
    (lambda e: e.list.max(), lambda e: e.list.max()),
    (lambda e: e.list.unique(), lambda e: e.list.unique(maintain_order=True)),
    (lambda e: e.list.sort(), lambda e: e.list.sort()),
    (lambda e: e.list.sort(descending=True), lambda e: e.list.sort(descending=True)),
    (lambda e: e.list.sort(nulls_last=True), lambda e: e.list.sort(nulls_last=True)),
    (lambda e: e.list.reverse(), lambda e: e.list.reverse()),
    (lambda e: e.list.slice(1, 2), lambda e: e.list.slice(1, 2)),
    (lambda e: e.list.slice(-2, 1), lambda e: e.list.slice(-2, 1)),
    (lambda e: e.list.head(2), lambda e: e.list.head(2)),
    (lambda e: e.list.tail(2), lambda e: e.list.tail(2)),
]
NUMBERS: list[Pair] = [
    *LIST,
    (lambda e: e.list.sum(), lambda e: e.list.sum()),
    (lambda e: e.list.mean(), lambda e: e.list.mean()),
    (lambda e: e.list.contains(3), lambda e: e.list.contains(3)),
]
WORDS: list[Pair] = [
    *LIST,
    (lambda e: e.list.join("-"), lambda e: e.list.join("-", ignore_nulls=True)),
    (lambda e: e.list.contains("a"), lambda e: e.list.contains("a")),
]
REAL: list[Pair] = [
    (lambda e: e.floor(), lambda e: e.floor()),
    (lambda e: e.ceil(), lambda e: e.ceil()),
    (lambda e: e.round(1), lambda e: e.round(1, mode="half_away_from_zero")),
    (lambda e: e.sqrt(), lambda e: e.sqrt()),
    (lambda e: e.exp(), lambda e: e.exp()),
    (lambda e: e.abs().log(), lambda e: e.abs().log()),
    (lambda e: e.abs().log(10), lambda e: e.abs().log10()),
    (lambda e: e**2, lambda e: e**2),
    (lambda e: e.sign(), lambda e: e.sign()),
    (lambda e: e.clip(-1, 1), lambda e: e.clip(-1, 1)),
    (lambda e: e.is_nan(), lambda e: e.is_nan()),
    (lambda e: e.is_finite(), lambda e: e.is_finite()),
    (lambda e: e.fill_nan(0.5), lambda e: e.fill_nan(0.5)),
    (lambda e: e.is_between(-1, 1, "left"), lambda e: e.is_between(-1, 1, "left")),
]
STRUCT: list[Pair] = [
    (lambda e: e.struct.field("x"), lambda e: e.struct.field("x")),
    (lambda e: e.struct["name"], lambda e: e.struct["name"]),
]
COLUMNS: dict[str, list[Pair]] = {
    "text": TEXT,
    "at": [*TIME, *ZONED],
    "there": [*TIME, *ZONED],
    "naive": TIME,
    "day": DAY,
    "wait": WAIT,
    "numbers": NUMBERS,
    "reals": [each for each in NUMBERS if each is not NUMBERS[-1]],
    "words": WORDS,
    "real": REAL,
    "point": STRUCT,
}
CASES = [(name, pair) for name, pairs in COLUMNS.items() for pair in pairs]


def compared_functions() -> set[str]:
    """The functions that the pairs above use."""
    found: set[str] = set()

    def visit(expression: TypedExpression) -> None:
        if isinstance(expression, Call):
            found.add(expression.function)
            for each in expression.arguments:
                visit(each)

    for name, (ours, _) in CASES:
        visit(bind(ours(col(name)), SCHEMA))
    return found


def value(chooser: random.Random, type_: pa.DataType) -> object:
    if chooser.random() < 0.2:
        return None
    match str(type_):
        case "string":
            return chooser.choice(TEXTS)
        case "int64":
            return chooser.randint(-4, 4)
        case "double":
            return chooser.choice([0.0, -0.0, 1.25, -2.5, 0.05, 100.7, math.inf, math.nan, -1e9])
        case "date32[day]":
            return date(1970, 1, 1) + timedelta(days=chooser.randint(-40_000, 40_000))
        case "duration[us]":
            return timedelta(microseconds=chooser.randint(-(10**12), 10**12))
        case text if text.startswith("timestamp"):
            # Not in the hours in which clocks are set, where each library decides for itself.
            at = datetime(1970, 1, 1, 12, tzinfo=UTC)
            at += timedelta(
                days=chooser.randint(-20_000, 20_000), seconds=chooser.randint(0, 40_000)
            )
            us = chooser.randint(0, 999) * 1_000
            if type_.unit == "us":
                us += chooser.randint(0, 999)
            at += timedelta(microseconds=us)
            return at if type_.tz else at.replace(tzinfo=None)
        case _:
            items = [value(chooser, type_.value_type) for _ in range(chooser.randint(0, 4))]
            return [0.5 if isinstance(each, float) and math.isnan(each) else each for each in items]


def batch_of(seed: int, count: int) -> pa.RecordBatch:
    chooser = random.Random(seed)
    columns = []
    for each in SCHEMA:
        rows: list[object] = []
        for _ in range(count + 1):
            if each.name == "point":
                point = {"x": value(chooser, pa.int64()), "name": value(chooser, pa.string())}
                rows.append(point if chooser.random() < 0.8 else None)
            else:
                rows.append(value(chooser, each.type))
        columns.append(pa.array(rows, each.type))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA).slice(1)


def alike(ours: object, theirs: object) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float | int):
        both_nan = math.isnan(ours) and math.isnan(theirs)
        return both_nan or math.isclose(ours, theirs, rel_tol=1e-12)
    if isinstance(ours, list) and isinstance(theirs, list):
        pairs = zip(ours, theirs, strict=False)
        return len(ours) == len(theirs) and all(alike(a, b) for a, b in pairs)
    return ours == theirs


@pytest.mark.parametrize(
    ("name", "pair"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)]
)
def test_a_function_means_what_it_means_in_polars(name: str, pair: Pair) -> None:
    ours, theirs = pair
    bound = bind(ours(col(name)), SCHEMA)
    for seed in range(3):
        batch = batch_of(seed, 60)
        found = evaluate(bound, batch)
        assert found.type == bound.type
        expected = pl.DataFrame(pa.table(batch)).select(out=theirs(pl.col(name)))["out"].to_list()
        got = found.to_pylist()
        wrong = [
            (row, one, other)
            for row, one, other in zip(batch.column(name).to_pylist(), got, expected, strict=True)
            if not alike(one, other)
        ]
        assert not wrong, (bound, wrong[:3])


@given(seed=st.integers(0, 10**6), cut=st.integers(0, 12))
def test_batches_do_not_matter(seed: int, cut: int) -> None:
    batch = batch_of(seed, 12)
    name, (ours, _) = CASES[seed % len(CASES)]
    bound = bind(ours(col(name)), SCHEMA)
    whole = evaluate(bound, batch)
    parts = [evaluate(bound, each) for each in (batch.slice(0, cut), batch.slice(cut))]
    assert repr(whole.to_pylist()) == repr([one for each in parts for one in each.to_pylist()])
