"""Joins with a table, against a dictionary of its latest rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators import table_rows as kept_rows
from millstream.operators.operator import OUTPUT_ROWS_MAX, ChangeMode, StateSnapshot
from millstream.operators.table_join import TableJoin, TableJoinConfig
from tests.examples import examples
from tests.operators.kit import ALL_GROUPS, Driven, split_at, stored

How = Literal["inner", "left"]

STREAM = pa.schema({"carrier": pa.string(), "number": pa.int32(), "delay": pa.int64()})
TABLE = pa.schema(
    [
        pa.field("code", pa.string(), nullable=False),
        pa.field("flight", pa.int32()),
        pa.field("name", pa.string(), nullable=False),
        pa.field("delay", pa.float64()),
        pa.field("tags", pa.list_(pa.string())),
    ]
)
CODES = ["AA", "", "a longer code"]
Row = dict[str, Any]
Key = tuple[Any, ...]


def config(how: How = "inner", *, pair: bool = False) -> TableJoinConfig:
    stream_keys, table_keys = (("carrier", "number"), ("code", "flight"))
    count = 2 if pair else 1
    joined = table_keys[:count]
    return TableJoinConfig(STREAM, TABLE, stream_keys[:count], joined, joined, how)


class Model:
    """The latest row of each key."""

    def __init__(self, config: TableJoinConfig) -> None:
        self.config = config
        self.latest: dict[Key, Row] = {}

    def change(self, rows: Sequence[Row]) -> None:
        for row in rows:
            key = tuple(row[name] for name in self.config.table_keys)
            if row["_op"]:
                self.latest.pop(key, None)
            else:
                self.latest[key] = row

    def join(self, rows: Sequence[Row]) -> list[Row]:
        joined = []
        added = ["name", "delay", "tags"] + (
            [] if "flight" in self.config.table_keys else ["flight"]
        )
        for row in rows:
            key = tuple(row[name] for name in self.config.stream_keys)
            found = None if None in key else self.latest.get(key)
            if found is None and self.config.how == "inner":
                continue
            extra = {n + ("_right" if n == "delay" else ""): found and found[n] for n in added}
            joined.append(row | extra)
        return joined


def table_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    schema = TABLE.append(pa.field("_op", pa.int8()))
    filler = {"code": "before", "name": "", "_op": 0}
    return pa.RecordBatch.from_pylist([filler, *rows], schema).slice(1)


def stream_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    schema = STREAM.append(pa.field("_stamp", pa.int64())).append(pa.field("_weight", pa.int64()))
    return pa.RecordBatch.from_pylist([{}, *rows], schema).slice(1)


@st.composite
def table_rows(draw: st.DrawFn) -> list[Row]:
    made = draw(
        st.lists(
            st.tuples(
                st.sampled_from(CODES),
                st.none() | st.integers(0, 1),
                st.integers(0, 99),
                st.booleans() | st.just(False),
            ),
            max_size=8,
        )
    )
    return [
        {
            "code": code,
            "flight": flight,
            # A tombstone is null beside its key, also where the table says it never is.
            "name": None if gone else f"name {number}",
            "delay": None if gone else number / 2,
            "tags": None if gone else ["tag"] * (number % 3),
            "_op": int(gone),
        }
        for code, flight, number, gone in made
    ]


stream_rows = st.lists(
    st.tuples(st.none() | st.sampled_from([*CODES, "ZZ"]), st.none() | st.integers(0, 2)),
    max_size=8,
).map(
    lambda made: [
        {"carrier": code, "number": number, "delay": index, "_stamp": index, "_weight": -1}
        for index, (code, number) in enumerate(made)
    ]
)


def ordered(rows: Sequence[Row]) -> list[list[tuple[str, Any]]]:
    return [sorted(row.items()) for row in rows]


@settings(max_examples=examples(75))
@given(
    how=st.sampled_from(["inner", "left"]),
    pair=st.booleans(),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("table"), table_rows()),
            st.tuples(st.just("stream"), stream_rows),
            st.tuples(st.sampled_from(["checkpoint", "restart"]), st.none()),
        ),
        max_size=14,
    ),
    superseded=st.sampled_from([0, 1024]),
    cuts=st.lists(st.integers(1, 7), max_size=2),
)
def test_rows_are_joined_with_the_latest_of_the_table(
    how: How, pair: bool, steps: list[tuple[str, Any]], superseded: int, cuts: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_rows, "_SUPERSEDED_MIN", superseded)
        join, model = Driven(config(how, pair=pair).build()), Model(config(how, pair=pair))
        chain: list[StateSnapshot] = []
        number = 0
        for action, argument in steps:
            if action == "table":
                model.change(argument)
                for piece in split_at(table_batch(argument), cuts):
                    assert join.batch(piece, input_index=1) == []
            elif action == "stream":
                found = [r for p in split_at(stream_batch(argument), cuts) for r in join.batch(p)]
                assert ordered(found) == ordered(model.join(argument))
            else:
                snapshot = join.snapshot(number if chain else None, number + 1)
                chain = [snapshot] if snapshot.full else [*chain, snapshot]
                number += 1
                if action == "restart":
                    join = Driven(config(how, pair=pair).build())
                    # Every worker has the whole table, whatever its key groups.
                    join.operator.restore([stored(each) for each in chain], ALL_GROUPS)
                    chain = []
            assert join.operator.counters.state_keys == len(model.latest)


def test_a_null_equals_nothing_not_even_a_null() -> None:
    join = Driven(config("left", pair=True).build())
    found: Row = {"code": "AA", "flight": None, "name": "null", "_op": 0}
    join.batch(table_batch([found, {**found, "flight": 1, "name": "one"}]), 1)
    rows: list[Row] = [
        {"carrier": "AA", "number": None},
        {"carrier": "AA", "number": 1},
        {"carrier": None},
    ]
    assert [each["name"] for each in join.batch(stream_batch(rows))] == [None, "one", None]


def row(code: str, name: str | None, flight: int = 1) -> Row:
    return {"code": code, "flight": flight, "name": name, "_op": int(name is None)}


def names(join: Driven, *codes: str) -> list[Any]:
    rows = [{"carrier": code, "number": 1} for code in codes]
    return [found["name"] for found in join.batch(stream_batch(rows))]


def test_the_last_row_of_a_key_in_a_batch_is_the_one_that_holds() -> None:
    join = Driven(config("left").build())
    rows = [row("AA", "old"), row("UA", "old"), row("AA", None), row("AA", "new"), row("UA", None)]
    join.batch(table_batch(rows), 1)
    assert names(join, "AA", "UA") == ["new", None]


def test_before_the_table_has_rows_nothing_matches() -> None:
    assert names(Driven(config("inner").build()), "AA") == []
    assert names(Driven(config("left").build()), "AA") == [None]


def test_superseded_rows_are_dropped() -> None:
    join = Driven(config().build())
    operator = join.operator
    assert isinstance(operator, TableJoin)
    for number in range(400):
        join.batch(table_batch([row(f"code {n}", f"name {number}") for n in range(20)]), 1)
        assert len(operator._table._rows) <= 1024 + 20
    assert operator.counters.state_keys == 20
    assert operator.counters.state_bytes < 200_000
    assert names(join, "code 7") == ["name 399"]


def test_tombstones_of_unknown_keys_leave_nothing() -> None:
    join = Driven(config().build())
    for _ in range(100):
        join.batch(table_batch([row(f"code {n}", None) for n in range(100)]), 1)
    assert join.operator.counters.state_keys == 0
    assert join.operator.counters.state_bytes < 1_000_000
    assert join.snapshot(None, 1).rows is None


def test_a_snapshot_of_changes_says_what_came_and_went() -> None:
    join = Driven(config().build())
    join.batch(table_batch([row("AA", "a"), row("UA", "u"), row("DL", "d")]), 1)
    assert join.snapshot(None, 1).full
    join.batch(table_batch([row("AA", None), row("UA", "v"), row("XX", "x"), row("XX", None)]), 1)
    changes = join.snapshot(1, 2)
    assert changes.rows is not None
    found = [(r["row.code"], r["row.name"], r["_removed"]) for r in changes.rows.to_pylist()]
    assert found == [("AA", None, True), ("UA", "v", False)]
    assert not changes.full
    assert join.snapshot(2, 3).rows is None
    assert join.snapshot(1, 4).full


def test_workers_that_take_no_snapshot_note_nothing_for_one() -> None:
    join = Driven(config().build())
    assert isinstance(join.operator, TableJoin)
    for number in range(10):
        join.batch(table_batch([row("AA", f"name {number}")]), 1)
        join.batch(table_batch([row("AA", None)]), 1)
    assert join.operator._table._index.removed_keys() == []


def test_a_join_without_columns_of_the_table_is_a_filter() -> None:
    table = pa.schema({"code": pa.string()})
    only_keys = TableJoinConfig(STREAM, table, ("carrier",), ("code",), ("code",))
    join = Driven(only_keys.build())
    codes = pa.array(["AA", "UA"])
    join.batch(pa.record_batch({"code": codes, "_op": pa.array([0, 0], pa.int8())}), 1)
    rows = [{"carrier": code, "delay": n} for n, code in enumerate(["UA", "ZZ", None, "AA"])]
    assert [found["delay"] for found in join.batch(stream_batch(rows))] == [0, 3]


def test_large_batches_come_out_in_bounded_pieces() -> None:
    join = Driven(config().build())
    join.batch(table_batch([row("AA", "a")]), 1)
    count = OUTPUT_ROWS_MAX + 3
    batch = pa.record_batch(
        {
            "carrier": pa.array(["AA"] * count),
            "number": pa.nulls(count, pa.int32()),
            "delay": pa.nulls(count, pa.int64()),
        }
    )
    assert len(join.batch(batch)) == count
    assert [each.num_rows for each in join.batches[0]] == [OUTPUT_ROWS_MAX, 3]


def test_the_operator_says_what_it_is() -> None:
    both = config(pair=True)
    assert both.consumes is both.produces is ChangeMode.CHANGELOG
    assert (both.timed, both.broadcast_state) == (False, True)
    assert both.describe() == "inner join with table on carrier = code, number = flight"
    (schema,) = both.output_schemas
    assert schema.names == ["carrier", "number", "delay", "name", "delay_right", "tags"]
    assert schema.field("name").nullable, "a left join may find no row"
    counted = Driven(both.build())
    counted.batch(stream_batch([{"carrier": "AA"}]))
    assert counted.operator.counters.rows_python == 0
