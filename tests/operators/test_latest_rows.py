from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.operators.latest_rows import LatestRowsConfig
from millstream.operators.operator import OPERATION_COLUMN, OUTPUT_ROWS_MAX, ChangeMode
from millstream.runtime.graph import key_groups_of_worker
from tests.operators.change_kit import Held, Row, plain
from tests.operators.kit import Driven, split_at

TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema({"key": pa.string(), "number": pa.int8(), "x": pa.float64(), "at": TIME})
KEY = ("key", "number")

UPSERT = st.tuples(
    st.none() | st.sampled_from(["a", "b"]),
    st.none() | st.integers(0, 1),
    st.none() | st.sampled_from([1.5, -0.0, math.nan]),
    st.none() | st.integers(0, 3),
    st.booleans(),
)


def upserts(rows: list[Row], *, tombstones: bool = True) -> pa.RecordBatch:
    """Rows, and tombstones where the last value is true."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    arrays = [pa.array(columns[0], pa.string()), pa.array(columns[1], pa.int8())]
    arrays += [pa.array(columns[2], pa.float64()), pa.array(columns[3], pa.int64()).view(TIME)]
    if not tombstones:
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
    operations = pa.array([int(each) for each in columns[4]], pa.int8())
    schema = SCHEMA.append(pa.field(OPERATION_COLUMN, pa.int8()))
    return pa.RecordBatch.from_arrays([*arrays, operations], schema=schema)


def held_by(rows: list[Row], *, by_time: bool) -> list[Row]:
    """The latest row of each key."""
    latest: dict[Row, Row] = {}
    for row in rows:
        key, gone = row[:2], row[4]
        before = latest.get(key)
        if by_time and before is not None and rank(row) < rank(before):
            continue
        latest[key] = row
        if gone and not by_time:
            del latest[key]
    return sorted((shown(each) for each in latest.values()), key=repr)


def rank(row: Row) -> int:
    return -1 if row[3] is None else int(row[3])


def shown(row: Row) -> Row:
    (batch,) = pa.table(upserts([row], tombstones=False)).to_batches()
    return tuple(plain(batch.column(name)[0].as_py()) for name in SCHEMA.names)


@pytest.mark.parametrize("by_time", [False, True])
@settings(max_examples=50)
@given(rows=st.lists(UPSERT, max_size=30), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_the_latest_row_of_each_key_holds(by_time: bool, rows: list[Row], cuts: list[int]) -> None:
    config = LatestRowsConfig(SCHEMA, KEY, "at" if by_time else None)
    driven, held, done = Driven(config.build()), Held(), 0
    for piece in split_at(upserts(rows, tombstones=not by_time), cuts):
        driven.batch(piece)
        held.apply(driven.batches.pop(0, []))
        done += piece.num_rows
        assert held.sorted() == held_by(rows[:done], by_time=by_time)
    assert driven.operator.counters.state_keys == len(held.rows)


@settings(max_examples=50)
@given(
    rows=st.lists(UPSERT, max_size=30),
    at=st.integers(0, 30),
    again=st.integers(0, 30),
    parallelism=st.sampled_from([1, 2, 4]),
    by_time=st.booleans(),
)
def test_state_moves_to_another_parallelism(
    rows: list[Row], at: int, again: int, parallelism: int, by_time: bool
) -> None:
    from millstream.operators.exchange import split_by_worker

    config = LatestRowsConfig(SCHEMA, KEY, "at" if by_time else None)
    driven, held = Driven(config.build()), Held()
    snapshots = []
    for index, some in enumerate((rows[:at], rows[at : at + again])):
        driven.batch(upserts(some, tombstones=not by_time))
        snapshots.append(driven.snapshot(index or None, index + 1))
    held.apply(driven.batches.get(0, []))
    rest = upserts(rows[at + again :], tombstones=not by_time)
    for index, part in enumerate(split_by_worker(rest, KEY, parallelism)):
        moved = Driven(config.build())
        moved.operator.restore(snapshots, key_groups_of_worker(index, parallelism))
        moved.batch(part)
        held.apply(moved.batches.get(0, []))
    assert held.sorted() == held_by(rows, by_time=by_time)


def test_a_row_that_is_replaced_by_its_equal_is_no_change() -> None:
    driven = Driven(LatestRowsConfig(SCHEMA, ("key",)).build())
    row: Row = ("a", None, math.nan, 2, False)
    assert [each["_weight"] for each in driven.batch(upserts([row]))] == [1]
    assert driven.batch(upserts([row, row])) == []
    other: Row = ("a", None, None, 2, False)
    assert [each["_weight"] for each in driven.batch(upserts([other]))] == [-1, 1]


def test_an_old_row_and_its_new_one_are_never_parted() -> None:
    schema = pa.schema({"key": pa.int64(), "value": pa.list_(pa.int64())})
    driven = Driven(LatestRowsConfig(schema, ("key",)).build())
    count = OUTPUT_ROWS_MAX // 2 + 3

    def rows(value: list[int] | None) -> Any:
        lists = pa.array([value] * count, pa.list_(pa.int64()))
        return pa.RecordBatch.from_arrays([pa.array(range(count)), lists], schema=schema)

    driven.batch(rows([1]))
    driven.batches.clear()
    driven.batch(rows(None))
    assert [each.num_rows for each in driven.batches[0]] == [OUTPUT_ROWS_MAX, 6]
    for piece in driven.batches[0]:
        assert piece.column("key")[0] == piece.column("key")[1]
        assert piece.column("_weight").to_pylist()[:4] == [-1, 1, -1, 1]


def test_what_it_takes_and_gives() -> None:
    config = LatestRowsConfig(SCHEMA, KEY, "at")
    assert (config.consumes, config.produces) == (ChangeMode.UPSERT, ChangeMode.CHANGELOG)
    assert config.output_schemas == (SCHEMA,)
    assert config.describe() == (
        "keep the latest row by key, number, the latest by at; upsert → changelog"
    )
