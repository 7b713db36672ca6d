"""Random typed expressions, and random batches for them."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.types as pat
from hypothesis import strategies as st

from millstream.operators.expression import Call, Column, Constant, TypedExpression

TIMESTAMP = pa.timestamp("us", "UTC")
DURATION = pa.duration("us")

SCHEMA = pa.schema(
    {
        "i8": pa.int8(),
        "i16": pa.int16(),
        "i32": pa.int32(),
        "i64": pa.int64(),
        "j64": pa.int64(),
        "u8": pa.uint8(),
        "u16": pa.uint16(),
        "u32": pa.uint32(),
        "u64": pa.uint64(),
        "f32": pa.float32(),
        "f64": pa.float64(),
        "g64": pa.float64(),
        "flag": pa.bool_(),
        "mark": pa.bool_(),
        "at": TIMESTAMP,
        "day": pa.date32(),
        "wait": DURATION,
        "text": pa.string(),
        "word": pa.string(),
    }
)
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
FIELDS = ("year", "month", "day", "hour", "minute", "second", "weekday", "day_of_year")
START = datetime(1969, 12, 31, tzinfo=UTC)


def constants(type_: pa.DataType) -> list[Any]:
    """Values of a type, as Python holds them: ordinary ones, and where things go wrong."""
    if pat.is_boolean(type_):
        return [True, False]
    if pat.is_integer(type_):
        bits = type_.bit_width
        unsigned = pat.is_unsigned_integer(type_)
        low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        small = range(0 if unsigned else -5, 6)
        return [*small, *small, low, low + 1, high - 1, high, high // 3]
    if pat.is_floating(type_):
        special = [0.0, -0.0, math.nan, math.inf, -math.inf, 2.0**100, -(2.0**-100)]
        return [*special, *(n / 4 for n in range(-12, 13)), 1e15, -123456.0]
    minutes = (-10_000, -1, 0, 1, 61, 1_440, 100_000, 4_000_000)
    if pat.is_timestamp(type_):
        return [START + timedelta(minutes=n, seconds=n) for n in minutes]
    if pat.is_date(type_):
        return [(START + timedelta(days=n)).date() for n in (-400, -1, 0, 1, 59, 366, 30_000)]
    if pat.is_duration(type_):
        return [timedelta(minutes=n, microseconds=n) for n in minutes]
    return ["", "a", "ab", "Abc", " x ", "JFK", "ünï", "a longer text of words"]


def batch_of(seed: int, count: int, nulls: bool | None = None) -> pa.RecordBatch:
    """Rows of SCHEMA that begin inside their buffers.

    Parameters
    ----------
    nulls
        In all columns, in none, or in every second one.
    """
    chooser = random.Random(seed)
    columns = []
    for each in SCHEMA:
        some = chooser.random() < 0.5 if nulls is None else nulls
        choices = constants(each.type)
        column = [
            None if some and chooser.random() < 0.3 else chooser.choice(choices)
            for _ in range(count + 1)
        ]
        columns.append(pa.array(column, each.type))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA).slice(1)


SEEDS = st.integers(0, 2**32)
# Rows are made from a seed: drawn one by one they take longer than all that is tested.
batches = st.builds(batch_of, SEEDS, st.integers(1, 40))


def leaves(type_: pa.DataType) -> st.SearchStrategy[TypedExpression]:
    names = [each.name for each in SCHEMA if each.type == type_]
    columns = st.sampled_from(names).map(lambda name: Column(name, type_))
    found = st.sampled_from([None, *constants(type_)]).map(lambda value: Constant(value, type_))
    return columns | columns | found


NUMBERS = [each.type for each in SCHEMA if pat.is_integer(each.type) or pat.is_floating(each.type)]


def narrower(type_: pa.DataType) -> list[pa.DataType]:
    """Types whose every value is one of `type_`, or has a nearest float there."""
    found = [pa.bool_()]
    for each in NUMBERS:
        if each == type_:
            continue
        if pat.is_floating(type_):
            fits = pat.is_integer(each) or each.bit_width < type_.bit_width
        elif pat.is_floating(each):
            fits = False
        elif pat.is_signed_integer(type_) == pat.is_signed_integer(each):
            fits = each.bit_width < type_.bit_width
        else:
            fits = pat.is_signed_integer(type_) and each.bit_width < type_.bit_width
        if fits:
            found.append(each)
    return found


@cache
def expressions(type_: pa.DataType, depth: int = 3) -> st.SearchStrategy[TypedExpression]:
    """Expressions of a type, of at most `depth` levels over columns and constants."""
    if depth == 0:
        return leaves(type_)
    again = expressions(type_, depth - 1)
    flags = expressions(pa.bool_(), depth - 1)
    choices: list[st.SearchStrategy[TypedExpression]] = [
        leaves(type_),
        st.tuples(flags, again, again).map(lambda a: Call("case", a, type_)),
        st.lists(again, min_size=2, max_size=3).map(lambda a: Call("coalesce", tuple(a), type_)),
    ]
    if pat.is_boolean(type_):
        choices += conditions(depth)
    elif pat.is_integer(type_) or pat.is_floating(type_):
        choices += numeric(type_, depth)
    elif pat.is_timestamp(type_):
        span = expressions(DURATION, depth - 1)
        for name in ("timestamp_add", "timestamp_subtract"):
            choices.append(calls(name, (again, span), type_))
    elif pat.is_string(type_):
        choices += texts(depth)
    return st.one_of(choices)


def calls(
    name: str, arguments: tuple[st.SearchStrategy[TypedExpression], ...], type_: pa.DataType
) -> st.SearchStrategy[TypedExpression]:
    return st.tuples(*arguments).map(lambda found: Call(name, tuple(found), type_))


def numeric(type_: pa.DataType, depth: int) -> list[st.SearchStrategy[TypedExpression]]:
    again = expressions(type_, depth - 1)
    names = ["add", "subtract", "multiply", "floor_divide", "modulo"]
    if type_ == pa.float64():
        names.append("divide")
    choices = [calls(name, (again, again), type_) for name in names]
    choices.append(calls("abs", (again,), type_))
    if not pat.is_unsigned_integer(type_):
        choices.append(calls("negate", (again,), type_))
    choices += [calls("cast", (expressions(each, depth - 1),), type_) for each in narrower(type_)]
    if type_ == pa.int64():
        choices.append(calls("str.length", (expressions(pa.string(), depth - 1),), type_))
        choices += [calls(f"dt.{name}", (leaves(TIMESTAMP),), type_) for name in FIELDS]
    return choices


def conditions(depth: int) -> list[st.SearchStrategy[TypedExpression]]:
    flag = pa.bool_()
    again = expressions(flag, depth - 1)
    choices = [calls("and", (again, again), flag), calls("or", (again, again), flag)]
    choices.append(calls("not", (again,), flag))
    for type_ in dict.fromkeys(each.type for each in SCHEMA):
        inner = expressions(type_, depth - 1)
        compared = st.tuples(st.sampled_from(COMPARISONS), inner, inner)
        choices.append(compared.map(lambda a: Call(a[0], (a[1], a[2]), flag)))
        choices.append(calls("is_null", (inner,), flag))
    listed = st.lists(st.none() | st.integers(-5, 5), min_size=1, max_size=3)
    choices.append(
        st.tuples(expressions(pa.int64(), depth - 1), listed).map(
            lambda a: Call("is_in", (a[0],), flag, (("values", tuple(a[1])),))
        )
    )
    for name in ("str.contains", "str.starts_with", "str.ends_with"):
        pattern = st.sampled_from(["a", "b", "", "JF"])
        choices.append(
            st.tuples(st.just(name), leaves(pa.string()), pattern).map(
                lambda a: Call(a[0], (a[1],), flag, (("pattern", a[2]),))
            )
        )
    return choices


def texts(depth: int) -> list[st.SearchStrategy[TypedExpression]]:
    text = pa.string()
    again = expressions(text, depth - 1)
    choices = [calls(f"str.{name}", (again,), text) for name in ("upper", "lower", "strip")]
    choices.append(calls("str.concat", (again, again), text))
    bounds = st.tuples(st.integers(0, 3), st.none() | st.integers(0, 3))
    choices.append(
        st.tuples(again, bounds).map(
            lambda a: Call("str.slice", (a[0],), text, (("start", a[1][0]), ("length", a[1][1])))
        )
    )
    replaced = (("pattern", "b"), ("replacement", "xx"))
    choices.append(again.map(lambda a: Call("str.replace", (a,), text, replaced)))
    return choices
