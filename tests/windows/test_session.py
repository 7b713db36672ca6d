"""Sessions: who is late, and what they are called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import OptionError
from millstream.windows.assignment import place_rows
from millstream.windows.session import Session
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

TIMES = st.integers(-50, 50) | st.integers(WATERMARK_MIN + 10, WATERMARK_MAX - 20)
MARKS = st.integers(-60, 60) | st.sampled_from([WATERMARK_MIN, WATERMARK_MAX])


@given(
    rows=st.lists(st.tuples(TIMES, MARKS), min_size=1, max_size=20),
    stamped=st.booleans(),
    allowed=st.sampled_from([0, 3, 2**40]),
    given_out=MARKS,
    ended=MARKS,
)
def test_a_row_is_late_when_its_time_lies_before_its_stamp(
    rows: list[tuple[int, int]], stamped: bool, allowed: int, given_out: int, ended: int
) -> None:
    times, stamps = (np.array(each) for each in zip(*rows, strict=True))
    found = place_rows(Session(10), times, stamps if stamped else None, allowed, given_out, ended)
    late = [
        time + allowed < max(given_out, stamp if stamped else WATERMARK_MIN) or time < ended
        for time, stamp in rows
    ]
    assert found.starts_us.tolist() == times.tolist()
    assert found.late.tolist() == late
    assert found.late_count == sum(late)


def test_a_gap_is_positive() -> None:
    with pytest.raises(OptionError, match="gap between sessions must be positive; got 0"):
        Session(0)


def test_sessions_are_described() -> None:
    assert Session(90_000_000).describe() == "sessions with a gap of 0:01:30"
    assert Session(90_000_000).text == "sessions with a gap of 90000000 µs"
