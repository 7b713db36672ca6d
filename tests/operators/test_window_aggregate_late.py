"""Which rows are late for their window, and that no window is given out twice."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import CheckpointError
from millstream.operators.operator import StateSnapshot
from millstream.operators.window_aggregate import Aggregate, WindowAggregate, WindowAggregateConfig
from millstream.windows.tumbling import Tumbling
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN
from tests.operators.kit import ALL_GROUPS, TIME, Driven, stored

SCHEMA = pa.schema({"key": pa.string(), "time": TIME})


def config(size: int = 10, allowed: int = 0, offset: int = 0) -> WindowAggregateConfig:
    count = Aggregate("rows", "count", None)
    window = Tumbling(size, offset)
    return WindowAggregateConfig(SCHEMA, ("key",), "time", window, (count,), allowed)


def driven(size: int = 10, allowed: int = 0, offset: int = 0) -> Driven:
    return Driven(WindowAggregate(config(size, allowed, offset)))


def rows(
    *times: int, key: str | Sequence[str] = "a", stamps: Sequence[int] | None = None
) -> pa.RecordBatch:
    keys = [key] * len(times) if isinstance(key, str) else key
    columns = {"key": pa.array(keys), "time": pa.array(times, TIME)}
    if stamps is not None:
        columns["_stamp"] = pa.array(stamps, pa.int64())
    return pa.record_batch(columns)


def starts(found: list[dict[str, object]]) -> list[int]:
    return pa.array([row["window_start"] for row in found], TIME).cast(pa.int64()).to_pylist()


@pytest.mark.parametrize("watermark_us", [WATERMARK_MIN, WATERMARK_MAX])
def test_the_ends_of_time_pass_as_they_are(watermark_us: int) -> None:
    assert WindowAggregate(config()).output_watermark(watermark_us) == watermark_us


@given(
    watermark_us=st.integers(-40, 40)
    | st.integers(WATERMARK_MIN, WATERMARK_MIN + 50)
    | st.integers(WATERMARK_MAX - 50, WATERMARK_MAX),
    size=st.integers(1, 12),
    offset=st.integers(-20, 20),
    allowed=st.integers(0, 12),
)
def test_the_output_watermark_is_the_least_start_that_is_still_open(
    watermark_us: int, size: int, offset: int, allowed: int
) -> None:
    operator = WindowAggregate(config(size, allowed, offset))
    got = operator.output_watermark(watermark_us)
    assert WATERMARK_MIN <= got <= max(watermark_us, WATERMARK_MIN)
    if WATERMARK_MIN + 100 < watermark_us < WATERMARK_MAX:
        around = range(watermark_us - 100, watermark_us + 20)
        grid = [each for each in around if (each - offset) % size == 0]
        assert got == min(each for each in grid if each + size + allowed > watermark_us)


def test_a_row_whose_stamp_closed_its_window_is_late() -> None:
    operator = driven()
    operator.batch(rows(5, 5, 15, stamps=[9, 10, 10]))
    assert operator.operator.counters.rows_late == 1
    assert operator.rows(1) == rows(5, stamps=[10]).to_pylist()
    assert [row["rows"] for row in operator.end()] == [1, 1]


def test_rows_of_a_partition_that_was_idle_are_late_for_windows_that_were_given_out() -> None:
    operator = driven()
    operator.batch(rows(5, stamps=[WATERMARK_MIN]))
    assert starts(operator.watermark(10)) == [0]
    operator.batch(rows(7, 12, stamps=[1, 1]))
    assert operator.operator.counters.rows_late == 1
    assert starts(operator.watermark(100)) == [10]


def test_unstamped_rows_are_late_only_for_windows_that_were_given_out() -> None:
    # Results of other windows, some of an input that was idle and came back.
    operator = driven()
    operator.watermark(100)
    operator.batch(rows(85, 90, 95))
    assert operator.rows(1) == rows(85, 90, 95).to_pylist()
    operator.batch(rows(100))
    assert operator.operator.counters.rows_late == 3
    assert starts(operator.watermark(110)) == [100]


def test_every_row_is_late_for_what_the_end_of_a_run_flushed() -> None:
    operator = driven()
    operator.batch(rows(5))
    operator.end()
    operator.batch(rows(5, 15))
    assert operator.operator.counters.rows_late == 1
    assert starts(operator.end()) == [10]


def restored(snapshots: list[StateSnapshot], groups: range = ALL_GROUPS) -> Driven:
    operator = driven()
    operator.operator.restore([stored(each) for each in snapshots], groups)
    return operator


def test_what_was_given_out_before_a_restore_is_not_given_out_again() -> None:
    # partition 1 is idle at 3, partition 0 at 100; after the restore nobody is idle yet
    operator = driven()
    operator.batch(rows(5, stamps=[3]))
    assert starts(operator.watermark(100)) == [0]
    again = restored([operator.snapshot(None, 1)])
    again.watermark(3)
    again.batch(rows(7, 101, 115, stamps=[3, 3, 3]))
    assert again.rows(1) == rows(7, stamps=[3]).to_pylist()
    assert starts(again.watermark(200)) == [100, 110]


def test_a_second_checkpoint_remembers_what_the_first_run_gave_out() -> None:
    operator = driven()
    operator.batch(rows(5, stamps=[3]))
    operator.watermark(100)
    again = restored([operator.snapshot(None, 1)])
    third = restored([again.snapshot(None, 2)])
    third.batch(rows(7, stamps=[3]))
    assert third.operator.counters.rows_late == 1


def test_a_slower_workers_rows_are_not_late_by_the_clock_of_a_faster_one() -> None:
    # Worker 0 of 2 owns "a" and stands at 100; worker 1 owns "b" and stands at 10.
    fast, slow = driven(), driven()
    fast.batch(rows(5, stamps=[3]))
    assert starts(fast.watermark(100)) == [0]
    slow.batch(rows(5, key="b", stamps=[3]))
    assert starts(slow.watermark(10)) == [0]
    merged = restored([fast.snapshot(None, 1), slow.snapshot(None, 1)])
    merged.batch(rows(25, 25, 5, 5, key=["a", "b", "a", "b"], stamps=[10, 10, 3, 3]))
    late = rows(25, 5, 5, key=["a", "a", "b"], stamps=[10, 3, 3])
    assert merged.rows(1) == late.to_pylist()
    assert [row["key"] for row in merged.watermark(100)] == ["b"]


def test_after_a_runs_end_lateness_does_not_depend_on_what_was_restored_in_it() -> None:
    # A run gave out [0, 10) at watermark 50, was restored, and came to its end.
    operator = driven()
    operator.batch(rows(5, stamps=[3]))
    operator.watermark(50)
    checkpoints = [operator.snapshot(None, 1)]
    again = restored(checkpoints)
    again.watermark(50)
    again.end()
    for snapshots in ([again.snapshot(None, 2)], [*checkpoints, again.snapshot(1, 2)]):
        later = restored(snapshots)
        later.batch(rows(5, 25, stamps=[3, 3]))
        assert later.rows(1) == rows(5, stamps=[3]).to_pylist()
        assert starts(later.end()) == [20]


def test_windows_of_another_size_are_not_restored() -> None:
    operator = driven()
    operator.batch(rows(5))
    snapshot = operator.snapshot(None, 1)
    for other in (WindowAggregate(config(20)), WindowAggregate(config(10, offset=3))):
        with pytest.raises(CheckpointError, match="its windows were of 10 µs, from 0 µs"):
            other.restore([snapshot], ALL_GROUPS)
    WindowAggregate(config(10, allowed=5, offset=20)).restore([snapshot], ALL_GROUPS)
