"""Rows that are combined and merged give what the rows themselves give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import JobError
from millstream.operators.aggregate import Aggregate, AggregateFunction
from millstream.operators.operator import Holding, Operator
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.operators.window_assigner import TIME_TYPE
from millstream.operators.window_combine import WindowCombineConfig
from millstream.windows.assignment import TimeWindow
from millstream.windows.hopping import Hopping
from millstream.windows.session import Session
from millstream.windows.tumbling import Tumbling

FUNCTIONS: tuple[AggregateFunction, ...] = ("count", "sum", "mean", "min", "max")
INPUT = pa.schema(
    [
        ("time", TIME_TYPE),
        ("key", pa.string()),
        ("small", pa.int32()),
        ("large", pa.uint64()),
        ("real", pa.float64()),
        ("flag", pa.bool_()),
    ]
)
AGGREGATES = (
    Aggregate("rows", "count", None),
    *(Aggregate(f"small_{each}", each, "small") for each in FUNCTIONS),
    *(Aggregate(f"large_{each}", each, "large") for each in ("count", "mean", "min", "max")),
    *(Aggregate(f"real_{each}", each, "real") for each in FUNCTIONS),
    *(Aggregate(f"flag_{each}", each, "flag") for each in ("count", "max")),
)
CONFIG = WindowAggregateConfig(INPUT, ("key",), "time", Tumbling(100), AGGREGATES)


def rows(seed: int, count: int, stamped: bool) -> pa.RecordBatch:
    random = np.random.default_rng(seed)

    def column(values: list[object], type_: pa.DataType) -> pa.Array:
        missing = random.random(count) < 0.2
        kept = [None if gone else each for gone, each in zip(missing, values, strict=True)]
        return pa.array(kept, type_)

    reals = random.choice([0.1, -0.0, 1e16, -1e16, float("nan"), 3.5], count)
    arrays = [
        pa.array(random.integers(0, 1_000, count)).cast(TIME_TYPE),
        column(list(random.choice(["a", "b", "a key that is long"], count)), pa.string()),
        column(random.integers(-(2**31), 2**31, count).tolist(), pa.int32()),
        column(random.integers(0, 2**64, count, dtype=np.uint64).tolist(), pa.uint64()),
        column(reals.tolist(), pa.float64()),
        column((random.random(count) < 0.5).tolist(), pa.bool_()),
    ]
    batch = pa.record_batch(arrays, schema=INPUT)
    if stamped:
        batch = batch.append_column("_stamp", pa.array(random.integers(0, 900, count)))
    return batch


def outputs(operator: Operator, batches: list[pa.RecordBatch], *, end: bool) -> dict[int, pa.Table]:
    emitted = [each for batch in batches for each in operator.on_batch(0, batch)]
    if end:
        emitted += list(operator.on_end())
    found: dict[int, list[pa.RecordBatch]] = {}
    for each in emitted:
        found.setdefault(each.port, []).append(each.batch)
    return {port: pa.Table.from_batches(each) for port, each in found.items()}


def sorted_rows(table: pa.Table | None) -> list[tuple[str, ...]]:
    """Rows in an order that does not depend on how they came; floats to twelve digits."""
    if table is None:
        return []
    return sorted(
        tuple(f"{each:.11e}" if isinstance(each, float) else repr(each) for each in row.values())
        for row in table.to_pylist()
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 200),
    size=st.integers(1, 60),
    stamped=st.booleans(),
)
def test_combined_rows_give_the_same_results(
    seed: int, count: int, size: int, stamped: bool
) -> None:
    batch = rows(seed, count, stamped)
    batches = [batch.slice(begin, size) for begin in range(0, count, size)]
    direct = outputs(CONFIG.build(), batches, end=True)
    combined = outputs(WindowCombineConfig(CONFIG).build(), batches, end=True)
    pieces = combined[0].to_batches() if 0 in combined else []
    merged = outputs(replace(CONFIG, partial=True).build(), pieces, end=True)
    assert sorted_rows(merged.get(0)) == sorted_rows(direct.get(0))
    assert sorted_rows(combined.get(1)) == sorted_rows(direct.get(1))
    assert 1 not in merged


def with_watermarks(
    combine: Operator | None, aggregate: Operator, batches: list[pa.RecordBatch], step_us: int
) -> list[tuple[int, list[tuple[str, ...]]]]:
    """Return what `aggregate` emits at each watermark, one behind each batch, and at the end."""
    found = []
    watermark_us = 0
    for batch in batches:
        stamps = pa.array(np.full(batch.num_rows, watermark_us))
        emitted = [batch.append_column("_stamp", stamps)]
        watermark_us += step_us
        if combine is not None:
            pieces = [*combine.on_batch(0, emitted[0]), *combine.on_watermark(watermark_us)]
            emitted = [each.batch for each in pieces if each.port == 0]
        for each in emitted:
            assert not [out for out in aggregate.on_batch(0, each) if out.port == 0]
        results = [each.batch for each in aggregate.on_watermark(watermark_us)]
        if results:
            found.append((watermark_us, sorted_rows(pa.Table.from_batches(results))))
    if combine is not None:
        for each in combine.on_end():
            list(aggregate.on_batch(0, each.batch))
    last = [each.batch for each in aggregate.on_end()]
    return [*found, (-1, sorted_rows(pa.Table.from_batches(last) if last else None))]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 200),
    size=st.integers(1, 60),
    step_us=st.integers(0, 300),
    allowed_us=st.sampled_from([0, 70, 250]),
    window=st.sampled_from(
        [Tumbling(100), Tumbling(90, 7), Hopping(100, 50), Hopping(120, 80, 3), Hopping(60, 60)]
    ),
)
def test_each_window_is_whole_when_a_watermark_closes_it(
    seed: int, count: int, size: int, step_us: int, allowed_us: int, window: TimeWindow
) -> None:
    batch = rows(seed, count, stamped=False)
    batches = [batch.slice(begin, size) for begin in range(0, count, size)]
    config = replace(CONFIG, window=window, allowed_lateness_us=allowed_us)
    direct = with_watermarks(None, config.build(), batches, step_us)
    combine = WindowCombineConfig(config).build()
    merged = with_watermarks(combine, replace(config, partial=True).build(), batches, step_us)
    assert merged == direct


def test_rows_are_held_until_a_watermark_asks_for_their_window() -> None:
    operator = WindowCombineConfig(CONFIG).build()
    assert isinstance(operator, Holding)
    assert not operator.held_rows
    for seed in range(3):
        assert not list(operator.on_batch(0, rows(seed, 2_000, stamped=False)))
    assert operator.held_rows > 3
    (first,) = operator.on_watermark(299)
    assert first.batch.num_rows == 8  # two windows, three keys and null
    assert {each.value for each in first.batch.column("window_start")} == {0, 100}
    (rest,) = operator.pass_on()
    assert rest.batch.num_rows == 32
    assert not operator.held_rows
    assert not list(operator.on_end())


@pytest.mark.parametrize(
    "config", [replace(CONFIG, window=Session(50)), replace(CONFIG, emits_changes=True)]
)
def test_what_an_aggregate_may_need_at_any_time_is_not_held_back(
    config: WindowAggregateConfig,
) -> None:
    operator = WindowCombineConfig(config).build()
    assert not isinstance(operator, Holding)
    assert list(operator.on_batch(0, rows(1, 50, stamped=False)))


def test_combining_makes_rows_few() -> None:
    batch = rows(1, 5_000, stamped=False)
    operator = WindowCombineConfig(CONFIG).build()
    combined = outputs(operator, [batch, batch], end=True)[0]
    assert combined.num_rows == 40  # ten windows, three keys and null
    assert operator.counters.rows_out == 40
    assert operator.snapshot(None, 1) is None


def test_windows_that_an_earlier_run_flushed_are_late() -> None:
    first = CONFIG.build()
    outputs(first, [rows(1, 50, stamped=False)], end=True)
    snapshot = first.snapshot(None, 1)
    assert snapshot is not None
    combine = WindowCombineConfig(CONFIG).build()
    combine.restore([snapshot], range(4096))
    again = outputs(combine, [rows(2, 30, stamped=False)], end=False)
    assert list(again) == [1]
    assert again[1].num_rows == 30


def test_a_sum_beyond_int64_is_found_after_the_merge() -> None:
    schema = pa.schema([("time", TIME_TYPE), ("value", pa.int64())])
    config = WindowAggregateConfig(
        schema, (), "time", Tumbling(100), (Aggregate("total", "sum", "value"),)
    )
    times = pa.array([1, 2]).cast(TIME_TYPE)
    batch = pa.record_batch([times, pa.array([2**62, 2**62])], schema=schema)
    pieces = outputs(WindowCombineConfig(config).build(), [batch], end=True)[0].to_batches()
    with pytest.raises(JobError, match="leaves the range of int64"):
        outputs(replace(config, partial=True).build(), pieces, end=True)
