"""Tumbling windows: every time lies in one, before 1970 and with offsets too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import OptionError
from millstream.windows.tumbling import Tumbling
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

HOUR_US = 3_600_000_000
SIZES = st.integers(1, 20) | st.sampled_from([999_983, HOUR_US, 2**40, 2**61])
OFFSETS = st.integers(-50, 50) | st.integers(-(2**62), 2**62)
TIMES = st.integers(-100, 100) | st.integers(WATERMARK_MIN, WATERMARK_MAX)


@given(size=SIZES, offset=OFFSETS, time_us=TIMES)
def test_a_time_lies_in_its_window_and_windows_lie_on_one_grid(
    size: int, offset: int, time_us: int
) -> None:
    start = Tumbling(size, offset).start_of(time_us)
    assert start <= time_us < start + size
    assert (start - offset) % size == 0


@given(size=SIZES, offset=OFFSETS, times=st.lists(TIMES, max_size=20))
def test_arrays_of_times_get_the_same_starts(size: int, offset: int, times: list[int]) -> None:
    window = Tumbling(size, offset)
    inside = [t for t in times if WATERMARK_MIN + size <= t <= WATERMARK_MAX - 2 * size]
    array = np.array(inside, dtype=np.int64)
    out = np.empty(len(array), dtype=np.int64)
    assert window.starts_of(array, out) is out
    assert out.tolist() == [window.start_of(time_us) for time_us in inside]


@pytest.mark.parametrize("size", [1, 7, HOUR_US, 2**61])
def test_the_farthest_times_that_are_taken_do_not_overflow(size: int) -> None:
    for offset in (0, 1, size - 1, 2**62 + 1, -(2**62) - 1):
        window = Tumbling(size, offset)
        times = np.array([WATERMARK_MIN + size, WATERMARK_MAX - 2 * size])
        starts = window.starts_of(times, np.empty(2, np.int64)).tolist()
        assert starts == [window.start_of(time_us) for time_us in times.tolist()]


@pytest.mark.parametrize("size", [0, -1])
def test_a_window_has_a_size(size: int) -> None:
    with pytest.raises(OptionError, match="must be positive"):
        Tumbling(size)


def test_a_window_is_described() -> None:
    assert Tumbling(HOUR_US).describe() == "tumbling 1:00:00"
    assert Tumbling(HOUR_US, 60_000_000).describe() == "tumbling 1:00:00, offset 0:01:00"
