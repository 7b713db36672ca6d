"""Which window a row belongs to, and whether it comes too late for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.windows import assignment
from millstream.windows.assignment import assign
from millstream.windows.tumbling import Tumbling
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

HOUR_US = 3_600_000_000
SIZES = st.integers(1, 20) | st.sampled_from([999_983, HOUR_US, 2**51 - 1, 2**61])
CENTRES = st.sampled_from([0, 1_700_000_000_000_000, -(2**52), WATERMARK_MIN, WATERMARK_MAX])
AWAY = st.integers(-60, 60) | st.integers(-(2**51), 2**51) | st.sampled_from([-(2**60), 2**60])
MARKS = st.integers(-3, 3) | st.sampled_from([WATERMARK_MIN, WATERMARK_MAX])


@pytest.mark.parametrize("compiled", [True, False])
@given(
    size=SIZES,
    offset=st.integers(-50, 50) | st.integers(-(2**62), 2**62),
    allowed=st.sampled_from([0, 1, HOUR_US]),
    centre=CENTRES,
    rows=st.lists(st.tuples(AWAY, MARKS), min_size=1, max_size=40),
    stamped=st.booleans(),
    given_out=MARKS,
    ended=MARKS,
)
def test_rows_get_the_windows_and_the_lateness_of_the_definition(
    compiled: bool,
    size: int,
    offset: int,
    allowed: int,
    centre: int,
    rows: list[tuple[int, int]],
    stamped: bool,
    given_out: int,
    ended: int,
) -> None:
    window, span = Tumbling(size, offset), size + allowed
    least, greatest = WATERMARK_MIN + size, WATERMARK_MAX - 2 * size
    times = [min(max(centre + away, least), greatest) for away, _ in rows]
    # Most marks lie close to where the window of the first row is over.
    over = window.start_of(times[0]) + span

    def near(mark: int) -> int:
        return mark if abs(mark) > 3 else min(over + mark, WATERMARK_MAX)

    stamps = [near(mark) for _, mark in rows]
    given_out_us, ended_us = near(given_out), near(ended)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "_COMPILED_ROWS_MIN", 0 if compiled else 100)
        found = assign(
            window,
            np.array(times, dtype=np.int64),
            np.array(stamps, dtype=np.int64) if stamped else None,
            span,
            given_out_us,
            ended_us,
        )
    starts = [window.start_of(time_us) for time_us in times]
    late = [
        start + span <= max(stamp if stamped else WATERMARK_MIN, given_out_us)
        or start + size <= ended_us
        for start, stamp in zip(starts, stamps, strict=True)
    ]
    assert found.starts_us.tolist() == starts
    assert found.late.tolist() == late
    assert found.late_count == sum(late)
