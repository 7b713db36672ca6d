"""Stamps: the watermark of the row's partition just before the row, for any batching."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.windows import lateness
from millstream.windows.lateness import late_rows, stamps
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN, PartitionWatermark

TIMES = st.one_of(
    st.none(),
    st.integers(-50, 50),
    st.sampled_from([WATERMARK_MIN, WATERMARK_MIN + 1, WATERMARK_MAX - 1, WATERMARK_MAX]),
)


def row_by_row(times: Sequence[int | None], lateness_us: int, greatest_us: int) -> list[int]:
    """The definition, in Python's integers."""
    found = []
    for time_us in times:
        found.append(max(greatest_us - lateness_us, WATERMARK_MIN))
        if time_us is not None:
            greatest_us = max(greatest_us, time_us)
    return found


@pytest.mark.parametrize("compiled", [True, False])
@given(
    times=st.lists(TIMES, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=5),
    lateness_us=st.integers(0, 60) | st.just(2**62),
    greatest_us=st.sampled_from([WATERMARK_MIN, WATERMARK_MIN + 7, 0]),
)
def test_any_split_into_batches_gives_the_stamps_of_the_definition(
    compiled: bool, times: list[int | None], cuts: list[int], lateness_us: int, greatest_us: int
) -> None:
    watermark = PartitionWatermark(lateness_us, greatest_us)
    edges = [0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]
    found: list[int] = []
    for begin, end in pairwise(edges):
        piece = times[begin:end]
        valid = np.array([each is not None for each in piece], dtype=np.bool_)
        # What lies under a null is arbitrary; here it would move the watermark most.
        values = np.array([WATERMARK_MAX if t is None else t for t in piece], dtype=np.int64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lateness, "_COMPILED_ROWS_MIN", 0 if compiled else 100)
            found += stamps(values, None if valid.all() else valid, watermark).tolist()
    assert found == row_by_row(times, lateness_us, greatest_us)
    known = [time_us for time_us in times if time_us is not None]
    assert watermark.greatest_us == max([greatest_us, *known])


def test_rows_of_one_batch_do_not_see_each_other_too_early() -> None:
    # time      100  120  110  130  129
    # greatest   -   100  120  120  130
    watermark = PartitionWatermark(lateness_us=5)
    found = stamps(np.array([100, 120, 110, 130, 129]), None, watermark)
    assert found.tolist() == [WATERMARK_MIN, 95, 115, 115, 125]
    assert watermark.value_us == 125


FAR = st.integers(WATERMARK_MIN, WATERMARK_MIN + 40) | st.just(WATERMARK_MAX)


@given(
    rows=st.lists(st.tuples(st.integers(-10, 10), st.integers(-2, 2) | FAR), max_size=20),
    span_us=st.integers(1, 30) | st.just(2**61),
    given_out_us=st.integers(-20, 40) | FAR,
)
def test_a_row_is_late_when_the_watermark_has_passed_its_window(
    rows: list[tuple[int, int]], span_us: int, given_out_us: int
) -> None:
    # Most stamps lie close to where their row's window is over.
    rows = [(start, start + span_us + at if -2 <= at <= 2 else at) for start, at in rows]
    starts, stamps_us = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(2))
    scratch = np.empty(len(rows), dtype=np.int64)
    late = late_rows(starts, stamps_us, span_us, given_out_us, scratch)
    assert late.tolist() == [start + span_us <= max(stamp, given_out_us) for start, stamp in rows]
