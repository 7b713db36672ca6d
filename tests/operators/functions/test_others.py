"""Functions that no other library has under the same meaning."""

from __future__ import annotations

from datetime import UTC, date, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.dsl.binding import bind
from millstream.dsl.conditions import concat_str, greatest, least, struct, when
from millstream.dsl.conditions import hash as hash_of
from millstream.dsl.expressions import Expression, col
from millstream.errors import ExpressionTypeError, JobError, PlanError
from millstream.log.key_hash import key_hashes
from millstream.operators.arrow_expression import evaluate
from millstream.operators.expression import Call, Column


def value(expression: Expression, **columns: pa.Array) -> list[object]:
    batch = pa.record_batch(columns)
    return evaluate(bind(expression, batch.schema), batch).to_pylist()


def test_maps() -> None:
    maps = pa.array(
        [[("skipped", 0)], [("a", 1), ("b", 2), ("a", 3)], [], None],
        pa.map_(pa.string(), pa.int64()),
    ).slice(1)
    assert value(col("m").map.get("a"), m=maps) == [3, None, None]
    assert value(col("m").map.keys(), m=maps) == [["a", "b", "a"], [], None]
    assert value(col("m").map.values(), m=maps) == [[1, 2, 3], [], None]
    assert value(col("m").map.len(), m=maps) == [3, 0, None]
    with pytest.raises(ExpressionTypeError, match="5 is no key"):
        value(col("m").map.get(5), m=maps)
    with pytest.raises(ExpressionTypeError, match="needs a map"):
        value(col("n").map.len(), n=pa.array([1]))


def test_structs() -> None:
    columns = {"a": pa.array([1, None]), "b": pa.array(["x", "y"])}
    made = struct(n=col("a"), text=col("b"), one=1)
    assert value(made, **columns) == [
        {"n": 1, "text": "x", "one": 1},
        {"n": None, "text": "y", "one": 1},
    ]
    assert value(made.struct.field("text"), **columns) == ["x", "y"]
    with pytest.raises(ExpressionTypeError, match=r"no field 'txt'; did you mean 'text'"):
        value(made.struct.field("txt"), **columns)
    with pytest.raises(PlanError, match="needs a field"):
        struct()


@given(rows=st.lists(st.tuples(*[st.none() | st.integers(-5, 5)] * 3), min_size=1))
def test_the_least_and_the_greatest_are_those_of_duckdb(rows: list[tuple[int | None, ...]]) -> None:
    columns = dict(
        zip("abc", (pa.array(each, pa.int64()) for each in zip(*rows, strict=True)), strict=True)
    )
    with duckdb.connect() as oracle:
        oracle.register("input", pa.table(columns))
        expected = oracle.sql("SELECT least(a, b, c), greatest(a, b, c) FROM input").fetchall()
    a, b, c = map(col, "abc")
    found = [value(least(a, b, c), **columns), value(greatest(a, b, c), **columns)]
    assert list(zip(*found, strict=True)) == expected


def test_the_hash_is_that_of_keys() -> None:
    a, b = pa.array([1, None, 3], pa.int32()), pa.array(["x", "y", None])
    assert value(hash_of("a", "b"), a=a, b=b) == list(key_hashes([a, b]))
    assert value(col("a").hash(), a=a) == list(key_hashes([a.cast(pa.int64())]))
    with pytest.raises(ExpressionTypeError, match="has no hash"):
        value(col("l").hash(), l=pa.array([[1]]))
    with pytest.raises(PlanError, match="hash needs a value"):
        hash_of()


def test_texts_are_joined() -> None:
    columns = {"a": pa.array(["x", None]), "b": pa.array(["y", "z"])}
    assert value(concat_str("a", "b", separator="-"), **columns) == ["x-y", None]
    raw = pa.array([b"x", None])
    assert value(col("r") + b"!", r=raw) == [b"x!", None]


def test_a_random_number_depends_on_seed_and_place_alone() -> None:
    places = pa.array(np.arange(100_000))

    def numbers(seed: int, column: pa.Array = places) -> np.ndarray:
        call = Call("random", (Column("p", pa.int64()),), pa.float64(), (("seed", seed),))
        return np.asarray(evaluate(call, pa.record_batch({"p": column})))

    found = numbers(1)
    assert (found >= 0).all()
    assert (found < 1).all()
    assert np.array_equal(np.concatenate([numbers(1, places[:7]), numbers(1, places[7:])]), found)
    assert abs(found.mean() - 0.5) < 0.005
    counts, _ = np.histogram(found, 10, (0, 1))
    assert np.ptp(counts) < 600
    other = numbers(2)
    assert abs(np.corrcoef(found, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.02
    assert len(np.unique(found)) == len(found)


@pytest.mark.parametrize(
    ("text", "format_", "expected"),
    [
        ("02.01.2024 03:04", "%d.%m.%Y %H:%M", datetime(2024, 1, 2, 3, 4, tzinfo=UTC)),
        (
            "2024-01-02 03:04:05.25",
            "%Y-%m-%d %H:%M:%S.%f",
            datetime(2024, 1, 2, 3, 4, 5, 250_000, UTC),
        ),
        ("2024-01-02 03:04:05", "%Y-%m-%d %H:%M:%S%.f", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02 03+0200", "%Y-%m-%d %H%z", datetime(2024, 1, 2, 1, tzinfo=UTC)),
        ("2024-01-02T03:04:05Z", None, datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_times_are_read(text: str, format_: str | None, expected: datetime) -> None:
    texts = pa.array([text, None])
    assert value(col("x").str.to_datetime(format_), x=texts) == [expected, None]
    naive = col("x").str.to_datetime(format_, time_zone=None)
    assert value(naive, x=texts) == [expected.replace(tzinfo=None), None]
    there = value(
        col("x").str.to_datetime(format_, time_zone="Asia/Tokyo", time_unit="ns"), x=texts
    )
    assert str(there[0]).endswith("+09:00")
    assert there == [expected, None]


def test_a_text_that_is_no_time_is_named_or_null() -> None:
    texts = pa.array(["03.02.2024", "2024"])
    assert value(col("x").str.to_date("%d.%m.%Y", strict=False), x=texts) == [
        date(2024, 2, 3),
        None,
    ]
    with pytest.raises(JobError, match=r"'2024' is not like '%d\.%m\.%Y'"):
        value(col("x").str.to_date("%d.%m.%Y"), x=texts)
    with pytest.raises(ExpressionTypeError, match="'Mars' is no time zone"):
        value(col("x").str.to_datetime(time_zone="Mars"), x=texts)


def test_clocks_that_are_set() -> None:
    # 2013-11-03 01:30 was twice in New York, 2013-03-10 02:30 never.
    twice, never = datetime(2013, 11, 3, 1, 30), datetime(2013, 3, 10, 2, 30)  # noqa: DTZ001
    columns = {"x": pa.array([twice], pa.timestamp("us"))}
    zone = "America/New_York"
    first = value(col("x").dt.replace_time_zone(zone, ambiguous="earliest"), **columns)
    last = value(col("x").dt.replace_time_zone(zone, ambiguous="latest"), **columns)
    assert [str(each[0])[-6:] for each in (first, last)] == ["-04:00", "-05:00"]
    for wrong in (twice, never):
        with pytest.raises(JobError, match="replace_time_zone failed: 2013"):
            value(col("x").dt.replace_time_zone(zone), x=pa.array([wrong], pa.timestamp("us")))
    # Both hours of the clock that are called 1 begin at their own moment.
    moments = pa.array([1383456600, 1383460200], pa.timestamp("s", zone))  # 01:30 EDT, 01:30 EST
    hours = value(col("x").dt.truncate("1h").dt.epoch("s"), x=moments)
    assert hours == [1383454800, 1383458400]
    assert value(col("x").dt.truncate("1d").dt.epoch("s"), x=moments) == [1383451200] * 2


def test_a_branch_is_computed_only_for_the_rows_that_take_it() -> None:
    texts = pa.array(["1", "x", None, "2"])
    number = when(col("t") != "x").then(col("t").cast("int64")).otherwise(-1)
    assert value(number, t=texts) == [1, -1, -1, 2]
    nested = (
        when(col("t") == "1")
        .then(0)
        .when(col("t").is_not_null() & (col("t") != "x"))
        .then(col("t").cast(int))
    )
    assert value(nested.otherwise(None), t=texts) == [0, None, None, 2]


def test_title_case() -> None:
    assert value(col("t").str.to_titlecase(), t=pa.array(["an old MAN", None])) == [
        "An Old Man",
        None,
    ]


def test_views_are_text() -> None:
    views = pa.array(["a", None, "b"], pa.string_view())
    assert value(col("v") == "a", v=views) == [True, None, False]
    assert value(col("v").str.to_uppercase(), v=views) == ["A", None, "B"]
    assert value(col("v").fill_null("?"), v=views) == ["a", "?", "b"]
