"""Joins with a table by other columns than its key, against its rows one by one, and DuckDB."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators import match_index
from millstream.operators import table_rows as kept_rows
from millstream.operators.operator import OUTPUT_ROWS_MAX, Operator, StateSnapshot
from millstream.operators.table_join import TableJoin, TableJoinConfig
from tests.examples import examples
from tests.operators.kit import ALL_GROUPS, Driven, split_at, stored

How = Literal["inner", "left"]
Row = dict[str, Any]

STREAM = pa.schema({"from": pa.string(), "at": pa.int32(), "number": pa.float64()})
TABLE = pa.schema(
    {
        "origin": pa.string(),
        "hour": pa.int32(),
        "wind": pa.float64(),
        "gusts": pa.list_(pa.int16()),
    }
)
KEY = ("origin", "hour")
ORIGINS = ["JFK", "an airport with a long name"]
# What is joined: a part of the key, a column beside it, both, and more than the key.
JOINS = {
    "part of the key": (("from",), ("origin",)),
    "no key": (("number",), ("wind",)),
    "part of the key and more": (("at", "number"), ("hour", "wind")),
    "more than the key": (("at", "from", "number"), ("hour", "origin", "wind")),
}


def config(columns: str = "part of the key", how: How = "inner", **given: Any) -> TableJoinConfig:
    return TableJoinConfig(STREAM, TABLE, *JOINS[columns], KEY, how, **given)


def table_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    schema = TABLE.append(pa.field("_op", pa.int8()))
    return pa.RecordBatch.from_pylist([{"_op": 0}, *rows], schema).slice(1)


def stream_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    schema = STREAM.append(pa.field("_stamp", pa.int64())).append(pa.field("_weight", pa.int64()))
    return pa.RecordBatch.from_pylist([{}, *rows], schema).slice(1)


def live(history: Sequence[Row]) -> list[Row]:
    """The latest row of each key that was not deleted."""
    latest = {tuple(row[name] for name in KEY): row for row in history}
    return [row for row in latest.values() if not row["_op"]]


def joined(config: TableJoinConfig, stream: Sequence[Row], table: Sequence[Row]) -> list[Row]:
    added = [name for name in TABLE.names if name not in config.table_keys]
    found = []
    for row in stream:
        wanted = [row[name] for name in config.stream_keys]
        matches = [
            each
            for each in table
            if None not in wanted and [each[name] for name in config.table_keys] == wanted
        ]
        if not matches and config.how == "left":
            matches = [dict.fromkeys(added)]
        found += [{**row, **{name: each[name] for name in added}} for each in matches]
    return found


def bag(rows: Sequence[Row]) -> Counter[str]:
    return Counter(repr(sorted(row.items())) for row in rows)


winds = st.none() | st.sampled_from([-0.0, 1.5, float("inf")])
table_changes = st.lists(
    st.builds(
        lambda origin, hour, wind, gone: {
            "origin": origin,
            "hour": hour,
            "wind": None if gone else wind,
            "gusts": None if gone else [hour or 0] * 2,
            "_op": int(gone),
        },
        st.none() | st.sampled_from(ORIGINS),
        st.none() | st.integers(0, 3),
        winds,
        st.sampled_from([False, False, True]),
    ),
    max_size=12,
)
stream_rows = st.lists(
    st.tuples(st.none() | st.sampled_from([*ORIGINS, "?"]), st.none() | st.integers(0, 3), winds),
    max_size=8,
).map(
    lambda made: [
        {"from": origin, "at": hour, "number": wind, "_stamp": index, "_weight": 1 - index}
        for index, (origin, hour, wind) in enumerate(made)
    ]
)


@settings(max_examples=examples(100))
@given(
    columns=st.sampled_from(sorted(JOINS)),
    how=st.sampled_from(["inner", "left"]),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("table"), table_changes),
            st.tuples(st.just("stream"), stream_rows),
            st.tuples(st.sampled_from(["checkpoint", "restart"]), st.none()),
        ),
        max_size=14,
    ),
    superseded=st.sampled_from([0, 1024]),
    cuts=st.lists(st.integers(1, 7), max_size=2),
    rows_max=st.sampled_from([1, 2, 1000]),
    bytes_max=st.sampled_from([1, 100, 100_000]),
)
def test_each_row_goes_out_with_every_row_that_it_matches(
    columns: str,
    how: How,
    steps: list[tuple[str, Any]],
    superseded: int,
    cuts: list[int],
    rows_max: int,
    bytes_max: int,
) -> None:
    settings_ = config(columns, how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_rows, "_SUPERSEDED_MIN", superseded)
        patch.setattr(match_index, "OUTPUT_ROWS_MAX", rows_max)
        patch.setattr(match_index, "OUTPUT_BYTES_MAX", bytes_max)
        join, history = Driven(settings_.build()), list[Row]()
        chain: list[StateSnapshot] = []
        number, rows_out = 0, 0
        for action, argument in steps:
            if action == "table":
                history += argument
                for piece in split_at(table_batch(argument), cuts):
                    assert join.batch(piece, input_index=1) == []
            elif action == "stream":
                found = [r for p in split_at(stream_batch(argument), cuts) for r in join.batch(p)]
                assert bag(found) == bag(joined(settings_, argument, live(history)))
                order: list[Any] = [each["_stamp"] for each in found]
                assert order == sorted(order), "the stream's order is kept"
                rows_out += len(found)
                assert all(each.num_rows <= rows_max for each in join.batches.get(0, []))
            else:
                snapshot = join.snapshot(number if chain else None, number + 1)
                chain = [snapshot] if snapshot.full else [*chain, snapshot]
                number += 1
                if action == "restart":
                    join = Driven(settings_.build())
                    join.operator.restore([stored(each) for each in chain], ALL_GROUPS)
                    chain, rows_out = [], 0
            assert join.operator.counters.state_keys == len(live(history))
            assert join.operator.counters.rows_out == rows_out


@pytest.mark.parametrize("how", ["inner", "left"])
def test_duckdb_joins_the_same_rows(how: How) -> None:
    chooser = np.random.default_rng(5)
    table, stream = (
        pa.table(
            {
                name: pa.array(chooser.integers(0, most, count), mask=chooser.random(count) < 0.1)
                for name, most in columns.items()
            }
        )
        for count, columns in (
            (3_000, {"id": 10_000, "group": 40, "value": 99}),
            (2_000, {"group": 50, "number": 9}),
        )
    )
    table = table.filter(table.column("id").is_valid())
    settings_ = TableJoinConfig(stream.schema, table.schema, ("group",), ("group",), ("id",), how)
    join = Driven(settings_.build())
    operations = pa.array(np.zeros(len(table), np.int8))
    for each in table.append_column("_op", operations).to_batches(max_chunksize=700):
        join.batch(each, 1)
    for each in stream.to_batches(max_chunksize=300):
        join.batch(each)
    query = f"""
        with latest as (select id, last("group" order by place) as "group",
                               last(value order by place) as value
                        from (select *, row_number() over () as place from "table") group by id)
        select s."group", number, id, value
        from stream s {how} join latest l on s."group" = l."group" order by all
    """
    with duckdb.connect() as connection:
        connection.execute("set threads to 1")
        wanted = connection.execute(query).fetchall()
    found = [tuple(row.values()) for row in join.rows()]
    assert len(found) > 50_000
    assert Counter(found) == Counter(wanted)


def weather(count: int, origin: str = "JFK", wind: float | None = 1.0) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "origin": pa.array([origin]).take(pa.array(np.zeros(count, np.int64))),
            "hour": pa.array(np.arange(count), pa.int32()),
            "wind": pa.array([wind], pa.float64()).take(pa.array(np.zeros(count, np.int64))),
            "gusts": pa.nulls(count, pa.list_(pa.int16())),
            "_op": pa.array(np.zeros(count, np.int8)),
        }
    )


def flights(*origins: str | None) -> pa.RecordBatch:
    count = len(origins)
    return pa.record_batch(
        [pa.array(origins, pa.string()), pa.array(range(count), pa.int32()), pa.nulls(count)],
        names=STREAM.names,
    ).cast(STREAM)


def many(operator: Operator) -> TableJoin:
    assert isinstance(operator, TableJoin)
    return operator


def test_one_row_that_matches_a_million_comes_out_piece_by_piece_when_asked() -> None:
    operator = config().build()
    list(operator.on_batch(1, weather(1_000_000)))
    pieces = operator.on_batch(0, flights("JFK", "none", "JFK"))
    first = next(pieces).batch
    assert first.num_rows == OUTPUT_ROWS_MAX
    # Nobody asked for more, so no more was made.
    assert operator.counters.rows_out == OUTPUT_ROWS_MAX
    sizes = [first.num_rows, *(each.batch.num_rows for each in pieces)]
    assert sum(sizes) == operator.counters.rows_out == 2_000_000
    assert max(sizes) == OUTPUT_ROWS_MAX
    assert len(sizes) == -(-2_000_000 // OUTPUT_ROWS_MAX)
    assert operator.counters.rows_in == 1_000_003


def test_pieces_are_bounded_in_bytes_by_the_rows_that_are_in_them() -> None:
    """Among many narrow rows a few wide ones, on either side: an average would not bound."""
    wide = pa.schema({"id": pa.int64(), "group": pa.int32(), "text": pa.large_string()})
    stream = pa.schema({"group": pa.int32(), "text": pa.string()})
    settings_ = TableJoinConfig(stream, wide, ("group",), ("group",), ("id",), "left")
    join = Driven(settings_.build())
    texts = ["t" * 300_000 if each % 100 == 7 else "" for each in range(1_000)]
    rows = {"id": range(1_000), "group": [each % 10 for each in range(1_000)], "text": texts}
    operations = pa.array(np.zeros(1_000, np.int8))
    table = pa.table(rows, schema=wide).append_column("_op", operations)
    join.take(join.operator.on_batch(1, table.combine_chunks().to_batches()[0]))
    groups = [*range(10), *[99] * 5_000]
    given = {"group": groups, "text": ["s" * 1_000_000 if each == 3 else "" for each in groups]}
    emits = list(join.operator.on_batch(0, pa.RecordBatch.from_pydict(given, stream)))
    assert sum(each.batch.num_rows for each in emits) == 1_000 + 5_000
    limit = match_index.OUTPUT_BYTES_MAX
    assert max(each.batch.nbytes for each in emits) < limit * 1.01
    total = sum(each.batch.nbytes for each in emits)
    assert len(emits) < 2 * total // limit + 2, "pieces are filled"


def test_a_row_that_is_larger_than_a_piece_comes_alone() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(match_index, "OUTPUT_BYTES_MAX", 1)
        join = Driven(config("part of the key", "left").build())
        join.batch(weather(3), 1)
        join.batch(flights("JFK", None))
    assert [each.num_rows for each in join.batches[0]] == [1, 1, 1, 1]


def test_a_row_whose_joined_column_changes_moves() -> None:
    join = Driven(config("no key").build())
    by_wind = pa.record_batch([pa.nulls(2), pa.nulls(2), [1.0, 2.0]], names=STREAM.names)
    stream = by_wind.cast(STREAM)
    join.batch(weather(5, wind=1.0), 1)
    join.batch(weather(2, wind=2.0), 1)
    assert Counter(each["number"] for each in join.batch(stream)) == {1.0: 3, 2.0: 2}
    join.batch(weather(5, wind=2.0), 1)
    assert Counter(each["number"] for each in join.batch(stream)) == {2.0: 5}
    join.batch(weather(4, wind=None), 1)
    assert [(each["number"], each["hour"]) for each in join.batch(stream)] == [(2.0, 4)]


def test_values_that_no_row_has_any_more_take_no_memory() -> None:
    join = Driven(config("no key").build())
    sizes = []
    for number in range(300):
        join.batch(weather(50, wind=float(number)), 1)
        sizes.append(join.operator.counters.state_bytes)
    matches = many(join.operator)._match_index
    assert matches is not None
    assert len(matches._index) == 1
    assert max(sizes) < 200_000
    # The chains are state, too.
    exact = Driven(TableJoinConfig(STREAM, TABLE, ("from", "at"), KEY, KEY).build())
    exact.batch(weather(50), 1)
    assert sizes[0] > exact.operator.counters.state_bytes


def test_only_columns_that_are_wanted_are_added() -> None:
    join = Driven(config(added=("wind",)).build())
    join.batch(weather(2), 1)
    (row,) = {tuple(each) for each in join.batch(flights("JFK"))}
    assert row == (*STREAM.names, "wind")


def test_state_fits_a_join_by_other_columns() -> None:
    """What is kept are the table's rows, whatever they are joined by."""
    before = Driven(config("part of the key").build())
    before.batch(weather(3, wind=4.0), 1)
    snapshot = before.snapshot(None, 1)
    for columns in JOINS:
        after = Driven(config(columns, "left").build())
        after.operator.restore([stored(snapshot)], ALL_GROUPS)
        assert after.operator.counters.state_keys == 3
    exact = Driven(TableJoinConfig(STREAM, TABLE, ("from", "at"), KEY, KEY).build())
    exact.operator.restore([stored(snapshot)], ALL_GROUPS)
    assert [each["wind"] for each in exact.batch(flights("JFK", "JFK"))] == [4.0, 4.0]


def test_it_says_whether_a_row_may_match_many() -> None:
    told = {columns: config(columns).describe() for columns in JOINS}
    assert told["part of the key"] == "inner join with table on from = origin, many matches"
    assert [each.endswith("many matches") for each in told.values()] == [True, True, True, False]
    by_key = [TableJoinConfig(STREAM, TABLE, *each, KEY) for each in _both_orders()]
    assert [each.many_matches for each in by_key] == [False, False]
    for each in by_key:
        assert many(each.build())._match_index is None


def _both_orders() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    pairs = [("from", "origin"), ("at", "hour")]
    orders = itertools.permutations(pairs)
    return [(tuple(a for a, _ in order), tuple(b for _, b in order)) for order in orders]
