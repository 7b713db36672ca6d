"""Watermarks of a partition, and of several inputs of which some are idle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.windows.watermark import (
    WATERMARK_MAX,
    WATERMARK_MIN,
    PartitionWatermark,
    WatermarkMerge,
    least,
)

TIMES = st.one_of(
    st.integers(-50, 50),
    st.sampled_from([WATERMARK_MIN, WATERMARK_MIN + 1, WATERMARK_MAX - 1, WATERMARK_MAX]),
)


@given(times=st.lists(TIMES), lateness_us=st.integers(0, 100))
def test_a_partitions_watermark_trails_its_greatest_time(
    times: list[int], lateness_us: int
) -> None:
    watermark = PartitionWatermark(lateness_us)
    for time_us in times:
        watermark.advance(time_us)
    greatest = max(times, default=WATERMARK_MIN)
    assert watermark.value_us == max(greatest - lateness_us, WATERMARK_MIN)


def test_a_partitions_watermark_goes_on_from_a_checkpoint() -> None:
    watermark = PartitionWatermark(10, greatest_us=100)
    watermark.advance(50)
    assert watermark.value_us == 90


def test_the_least_of_none_holds_nobody_back() -> None:
    assert least([]) == WATERMARK_MAX
    assert least([3, 1, 2]) == 1


Updates = list[tuple[int, int, bool]]


def model(inputs: int, updates: Updates) -> tuple[int, bool]:
    """The merged watermark and idleness, computed anew after each update."""
    values, idle, merged = [WATERMARK_MIN] * inputs, [False] * inputs, WATERMARK_MIN
    for index, watermark_us, is_idle in updates:
        values[index], idle[index] = max(values[index], watermark_us), is_idle
        active = [value for value, away in zip(values, idle, strict=True) if not away]
        merged = max(merged, min(active) if active else max(values))
    return merged, all(idle)


@given(data=st.data(), inputs=st.integers(1, 4))
def test_the_merged_watermark_is_the_least_of_the_inputs_that_are_not_idle(
    data: st.DataObject, inputs: int
) -> None:
    update = st.tuples(st.integers(0, inputs - 1), TIMES, st.booleans())
    updates = data.draw(st.lists(update, max_size=12))
    merge = WatermarkMerge(inputs)
    before = merge.value_us, merge.idle
    for count, (index, watermark_us, idle) in enumerate(updates, start=1):
        changed = merge.update(index, watermark_us, idle)
        now = merge.value_us, merge.idle
        assert changed == (now != before)
        assert now == model(inputs, updates[:count])
        assert now[0] >= before[0]
        before = now


def test_an_idle_input_holds_nobody_back_and_does_not_pull_back_when_it_returns() -> None:
    merge = WatermarkMerge(2)
    merge.update(0, 10, idle=False)
    merge.update(1, 100, idle=False)
    assert merge.value_us == 10
    assert merge.update(0, 10, idle=True)
    assert (merge.value_us, merge.idle) == (100, False)
    assert not merge.update(0, 20, idle=False)
    assert merge.value_us == 100
    assert not merge.update(0, 90, idle=False)
    assert not merge.update(1, 150, idle=False)
    assert merge.update(0, 120, idle=False)
    assert merge.value_us == 120


def test_all_inputs_idle_give_the_greatest_watermark() -> None:
    merge = WatermarkMerge(2)
    merge.update(0, 10, idle=True)
    assert merge.value_us == WATERMARK_MIN
    assert merge.update(1, 5, idle=True)
    assert (merge.value_us, merge.idle) == (10, True)
    assert merge.update(1, 5, idle=False)
    assert (merge.value_us, merge.idle) == (10, False)


def test_no_inputs_wait_for_nothing() -> None:
    merge = WatermarkMerge(0)
    assert (merge.value_us, merge.idle) == (WATERMARK_MAX, False)


@pytest.mark.parametrize("inputs", [1, 3])
def test_before_the_first_update_nothing_is_known(inputs: int) -> None:
    merge = WatermarkMerge(inputs)
    assert (merge.value_us, merge.idle) == (WATERMARK_MIN, False)
