from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import JobError
from millstream.operators.dedup import DedupConfig
from millstream.operators.exchange import split_by_worker
from millstream.operators.operator import STAMP_COLUMN, ChangeMode, StateSnapshot
from millstream.runtime.graph import key_groups_of_worker
from millstream.windows.watermark import WATERMARK_MIN
from tests.operators.kit import Driven, split_at

TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema({"key": pa.string(), "at": TIME, "number": pa.int64()})
LATENESS = 5
Row = tuple[str | None, int]
ROWS = st.lists(
    st.tuples(st.none() | st.sampled_from(["a", "b", "a longer key"]), st.integers(-30, 60)),
    max_size=40,
)


def stamped(rows: list[Row]) -> pa.RecordBatch:
    """Rows in order, with the watermark of their one partition just before each."""
    stamps, greatest = [], None
    for _, time in rows:
        stamps.append(WATERMARK_MIN if greatest is None else greatest - LATENESS)
        greatest = time if greatest is None else max(greatest, time)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([key for key, _ in rows], pa.string()),
            pa.array([time for _, time in rows], pa.int64()).view(TIME),
            pa.array(range(len(rows)), pa.int64()),
            pa.array(stamps, pa.int64()),
        ],
        schema=SCHEMA.append(pa.field(STAMP_COLUMN, pa.int64())),
    )


def expected(rows: list[Row], within: int | None) -> tuple[list[int], list[int]]:
    """The numbers of the rows that pass, and of those that are late."""
    passed: dict[str | None, int] = {}
    first, late = [], []
    stamps = stamped(rows).column(STAMP_COLUMN).to_pylist()
    for number, ((key, time), stamp) in enumerate(zip(rows, stamps, strict=True)):
        if within is not None and time + within <= stamp:
            late.append(number)
        elif key not in passed or (within is not None and abs(time - passed[key]) >= within):
            passed[key] = time
            first.append(number)
    return first, late


def numbers(driven: Driven, port: int) -> list[Any]:
    return [each["number"] for each in driven.rows(port)]


@settings(max_examples=50)
@given(
    rows=ROWS,
    cuts=st.lists(st.integers(0, 40), max_size=4),
    within=st.none() | st.integers(1, 20),
)
def test_the_first_row_of_each_key_passes(
    rows: list[Row], cuts: list[int], within: int | None
) -> None:
    driven = Driven(DedupConfig(SCHEMA, ("key",), "at", within).build())
    greatest = WATERMARK_MIN
    for piece in split_at(stamped(rows), cuts):
        driven.batch(piece)
        times = piece.column("at").view(pa.int64()).to_pylist()
        greatest = max([greatest, *times])
        if greatest != WATERMARK_MIN:
            driven.watermark(greatest - LATENESS)
    first, late = expected(rows, within)
    assert numbers(driven, 0) == first
    assert numbers(driven, 1) == late
    assert driven.operator.counters.rows_late == len(late)


@settings(max_examples=50)
@given(
    rows=ROWS,
    at=st.integers(0, 40),
    again=st.integers(0, 40),
    within=st.none() | st.integers(1, 20),
    parallelism=st.sampled_from([1, 2, 4]),
)
def test_state_moves_to_another_parallelism(
    rows: list[Row], at: int, again: int, within: int | None, parallelism: int
) -> None:
    asked = DedupConfig(SCHEMA, ("key",), "at", within)
    whole = stamped(rows)
    driven = Driven(asked.build())
    snapshots: list[StateSnapshot] = []
    for index, part in enumerate((whole.slice(0, at), whole.slice(at, again))):
        driven.batch(part)
        if part.num_rows:
            times = whole.slice(0, at + index * again).column("at").view(pa.int64()).to_pylist()
            driven.watermark(max(times) - LATENESS)
        snapshots.append(driven.snapshot(index or None, index + 1))
    found = numbers(driven, 0)
    for index, part in enumerate(split_by_worker(whole.slice(at + again), ("key",), parallelism)):
        moved = Driven(asked.build())
        moved.operator.restore(snapshots, key_groups_of_worker(index, parallelism))
        moved.batch(part)
        found += numbers(moved, 0)
    assert sorted(found) == expected(rows, within)[0]


def test_keys_that_nothing_can_repeat_are_forgotten() -> None:
    driven = Driven(DedupConfig(SCHEMA, ("key",), "at", 10).build())
    driven.batch(stamped([("a", 0), ("b", 4), ("a", 11)]))
    driven.watermark(23)  # a row of time 14 may still come, and repeat one of 4
    assert driven.operator.counters.state_keys == 2
    driven.watermark(24)
    assert driven.operator.counters.state_keys == 1
    driven.watermark(31)
    assert driven.operator.counters.state_keys == 0
    assert driven.snapshot(None, 1).rows is None


def test_a_row_without_time_fails_only_where_time_counts() -> None:
    rows = pa.RecordBatch.from_arrays(
        [pa.array(["a"]), pa.nulls(1, TIME), pa.array([1])], schema=SCHEMA
    )
    assert len(Driven(DedupConfig(SCHEMA, ("key",)).build()).batch(rows)) == 1
    with pytest.raises(JobError, match="column 'at' is null"):
        Driven(DedupConfig(SCHEMA, ("key",), "at", 1).build()).batch(rows)


def test_times_at_the_ends_of_int64() -> None:
    operator = DedupConfig(SCHEMA, ("key",), "at", 10).build()
    rows = stamped([("a", -(2**62)), ("a", 2**62), ("a", -(2**62) + 9)])
    pieces = list(operator.on_batch(0, rows.drop_columns([STAMP_COLUMN])))
    assert [each.batch.num_rows for each in pieces] == [3]


def test_what_it_takes_and_gives() -> None:
    asked = DedupConfig(SCHEMA, ("key",), "at", 10)
    assert asked.consumes is asked.produces is ChangeMode.APPEND
    assert asked.timed
    assert not DedupConfig(SCHEMA, ("key",)).timed
    assert asked.describe() == "first row by key within 10 µs"
