"""Hopping windows: panes, and places of rows that came too late for some of their windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream.errors import OptionError
from millstream.windows.assignment import place_rows
from millstream.windows.hopping import Hopping
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

HOUR_US = 3_600_000_000


@st.composite
def windows(draw: st.DrawFn) -> Hopping:
    pane = draw(st.sampled_from([8, 60, HOUR_US]))
    slide = draw(st.integers(1, 6))
    size = draw(st.integers(slide, 8))
    return Hopping(size * pane, slide * pane, draw(st.integers(-100, 100) | st.just(2**62)))


def held(window: Hopping, time_us: int) -> list[int]:
    """The starts of the windows that hold a time, by definition, ascending."""
    first = time_us - window.size_us - window.slide_us
    first -= (first - window.offset_us) % window.slide_us
    near = range(first, time_us + 1, window.slide_us)
    return [start for start in near if start <= time_us < start + window.size_us]


@given(
    window=windows(),
    centre=st.sampled_from([0, -(2**52), 1_700_000_000_000_000, WATERMARK_MIN, WATERMARK_MAX]),
    rows=st.lists(st.tuples(st.integers(-300, 300), st.integers(-600, 600)), min_size=1),
    stamped=st.booleans(),
    allowed=st.sampled_from([0, 5, HOUR_US]),
    given_out=st.sampled_from([WATERMARK_MIN, 0, 40]),
    ended=st.sampled_from([WATERMARK_MIN, 0, 40]),
    probe=st.integers(-20, 20),
)
@example(  # the window before the first would begin before the least int64
    window=Hopping(3 * HOUR_US, 3 * HOUR_US, 2**62),
    centre=WATERMARK_MIN,
    rows=[(0, 0)],
    stamped=False,
    allowed=0,
    given_out=WATERMARK_MIN,
    ended=WATERMARK_MIN,
    probe=0,
)
def test_rows_of_a_place_count_in_the_windows_that_were_not_over(
    window: Hopping,
    centre: int,
    rows: list[tuple[int, int]],
    stamped: bool,
    allowed: int,
    given_out: int,
    ended: int,
    probe: int,
) -> None:
    least, greatest = WATERMARK_MIN + window.size_us, WATERMARK_MAX - 2 * window.size_us
    unit = window.pane_us // 4
    times = [min(max(centre + away * unit, least), greatest) for away, _ in rows]
    stamps = [
        min(max(time + away * unit, WATERMARK_MIN), WATERMARK_MAX)
        for time, (_, away) in zip(times, rows, strict=True)
    ]
    found = place_rows(
        window,
        np.array(times),
        np.array(stamps) if stamped else None,
        allowed,
        given_out,
        ended,
    )
    partly = 0
    for row, time in enumerate(times):
        mark = max(given_out, stamps[row] if stamped else WATERMARK_MIN)
        every = held(window, time)
        open_ = [
            start
            for start in every
            if start + window.size_us + allowed > mark and start + window.size_us > ended
        ]
        assert found.late[row] == (not open_)
        partly += 0 < len(open_) < len(every)
        if open_:
            place = int(found.starts_us[row])
            assert window.first_of(place) == open_[0]
            counted = [s for s in every if window.count_in(np.array([place]), s).all()]
            assert counted == open_
    assert found.late_count == found.late.sum()
    assert found.partly_late_count == partly


@given(window=windows(), until=st.integers(-1000, 1000))
def test_windows_are_over_when_their_end_has_come(window: Hopping, until: int) -> None:
    last = window.last_over(until)
    assert (last - window.offset_us) % window.slide_us == 0
    assert last + window.size_us <= until < last + window.slide_us + window.size_us
    assert window.first_open(until) == last + window.slide_us
    assert window.ends_of(np.array([last])).tolist() == [last + window.size_us]


@pytest.mark.parametrize(("size", "slide"), [(10, 0), (10, -1), (10, 11)])
def test_a_slide_lies_between_nothing_and_the_size(size: int, slide: int) -> None:
    with pytest.raises(OptionError, match="must be positive and at most its size"):
        Hopping(size, slide)


def test_panes_that_are_too_fine_are_refused() -> None:
    with pytest.raises(OptionError, match=r"cut into panes of 1 microseconds, .* divides the size"):
        Hopping(HOUR_US, 7)
    assert Hopping(HOUR_US, 1_000_000).pane_us == 1_000_000


def test_windows_are_described() -> None:
    window = Hopping(HOUR_US, HOUR_US // 4, 60_000_000)
    assert window.describe() == "hopping 1:00:00 every 0:15:00, offset 0:01:00"
    assert window.text == "3600000000 µs every 900000000 µs, from 60000000 µs"
