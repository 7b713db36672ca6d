"""Keys of a running aggregate expire after their newest row, whatever the batching."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import JobError
from millstream.operators.aggregate import Aggregate
from millstream.operators.exchange import split_by_worker
from millstream.operators.group_aggregate import GroupAggregateConfig
from millstream.operators.operator import STAMP_COLUMN, StateSnapshot
from millstream.runtime.graph import key_groups_of_worker
from millstream.windows.watermark import WATERMARK_MIN
from tests.operators.change_kit import Held
from tests.operators.kit import Driven, split_at

TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema({"key": pa.string(), "at": TIME, "number": pa.int64()})
LATENESS = 5
AGGREGATES = (
    Aggregate("n", "count", None),
    Aggregate("least", "min", "number"),
    Aggregate("different", "count_distinct", "number"),
)
Row = tuple[str | None, int]
ROWS = st.lists(
    st.tuples(st.none() | st.sampled_from(["a", "b", "a longer key"]), st.integers(-30, 60)),
    max_size=40,
)


def config(ttl: int, keys: tuple[str, ...] = ("key",)) -> GroupAggregateConfig:
    return GroupAggregateConfig(SCHEMA, keys, AGGREGATES, time_column="at", ttl_us=ttl)


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


class Model:
    """Row by row: of each key the newest time, and the numbers of its rows."""

    def __init__(self, ttl: int) -> None:
        self.ttl = ttl
        self.keys: dict[Any, tuple[int, list[int]]] = {}
        self.late: list[int] = []

    def take(self, rows: list[Row]) -> None:
        stamps = stamped(rows).column(STAMP_COLUMN).to_pylist()
        for number, ((key, time), stamp) in enumerate(zip(rows, stamps, strict=True)):
            self.forget(stamp)
            if time <= stamp - self.ttl:
                self.late.append(number)
                continue
            newest, numbers = self.keys.get(key, (time, []))
            self.keys[key] = max(newest, time), [*numbers, number]

    def forget(self, watermark: int) -> None:
        kept = {k: v for k, v in self.keys.items() if v[0] > watermark - self.ttl}
        self.keys = kept

    def results(self) -> list[Any]:
        found = [
            (key, len(numbers), min(numbers), len(numbers))
            for key, (_, numbers) in self.keys.items()
        ]
        return sorted(found, key=repr)


def greatest(rows: list[Row]) -> int:
    return max(time for _, time in rows)


@settings(max_examples=80)
@given(
    rows=ROWS,
    cuts=st.lists(st.integers(0, 40), max_size=4),
    ttl=st.integers(1, 25),
    told=st.booleans(),
)
def test_results_are_of_the_rows_since_a_key_expired(
    rows: list[Row], cuts: list[int], ttl: int, told: bool
) -> None:
    driven, held, model = Driven(config(ttl).build()), Held(), Model(ttl)
    done = 0
    for piece in split_at(stamped(rows), cuts):
        driven.batch(piece)
        done += piece.num_rows
        if told and done:
            driven.watermark(greatest(rows[:done]) - LATENESS)
    if rows:
        driven.watermark(greatest(rows) - LATENESS)
        model.take(rows)
        model.forget(greatest(rows) - LATENESS)
    held.apply(driven.batches.get(0, []))
    assert held.sorted() == model.results()
    assert [each["number"] for each in driven.rows(1)] == model.late
    assert driven.operator.counters.rows_late == len(model.late)
    assert driven.operator.counters.state_keys == len(model.keys)


@settings(max_examples=50)
@given(
    rows=ROWS,
    at=st.integers(0, 40),
    again=st.integers(0, 40),
    ttl=st.integers(1, 25),
    parallelism=st.sampled_from([1, 2, 4]),
)
def test_state_moves_to_another_parallelism(
    rows: list[Row], at: int, again: int, ttl: int, parallelism: int
) -> None:
    whole, held, model = stamped(rows), Held(), Model(ttl)
    driven = Driven(config(ttl).build())
    snapshots: list[StateSnapshot] = []
    for index, part in enumerate((whole.slice(0, at), whole.slice(at, again))):
        driven.batch(part)
        if part.num_rows:
            driven.watermark(greatest(rows[: at + index * again]) - LATENESS)
        snapshots.append(driven.snapshot(index or None, index + 1))
    held.apply(driven.batches.get(0, []))
    for index, part in enumerate(split_by_worker(whole.slice(at + again), ("key",), parallelism)):
        moved = Driven(config(ttl).build())
        moved.operator.restore(snapshots, key_groups_of_worker(index, parallelism))
        moved.batch(part)
        if rows:
            moved.watermark(greatest(rows) - LATENESS)
        held.apply(moved.batches.get(0, []))
    if rows:
        model.take(rows)
        model.forget(greatest(rows) - LATENESS)
    assert held.sorted() == model.results()


def test_a_key_that_goes_on_is_looked_at_once() -> None:
    driven = Driven(config(10).build())
    for time in range(0, 1_000, 5):
        driven.batch(stamped([("a", time)]).drop_columns([STAMP_COLUMN]))
        driven.watermark(time)
    assert driven.operator.counters.state_keys == 1
    assert [each["_weight"] for each in driven.watermark(1_004)] == []
    assert [each["n"] for each in driven.watermark(1_005)] == [200]
    assert driven.operator.counters.state_keys == 0


def test_a_row_without_time_fails() -> None:
    rows = pa.RecordBatch.from_arrays(
        [pa.array(["a"]), pa.nulls(1, TIME), pa.array([1])], schema=SCHEMA
    )
    with pytest.raises(JobError, match="column 'at' is null"):
        Driven(config(1).build()).batch(rows)


def test_what_it_is() -> None:
    assert config(10).timed
    assert config(10).output_schemas[1] == SCHEMA
    assert config(10, ()).describe().startswith("running aggregates over all rows, kept for 10 µs")
