"""Slots in the order of their windows, against a sorted list."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from millstream.operators.open_windows import OpenWindows

ADD = st.lists(st.integers(-3, 5), max_size=10)


@given(steps=st.lists(ADD | st.integers(-4, 6) | st.none(), max_size=30))
def test_windows_are_taken_in_order_and_once(steps: list[list[int] | int | None]) -> None:
    windows, model, count = OpenWindows(), list[tuple[int, int]](), 0
    for step in steps:
        if isinstance(step, list):
            slots = np.arange(count, count + len(step))
            count += len(step)
            windows.add(np.array(step, dtype=np.int64), slots)
            model += zip(step, slots.tolist(), strict=True)
        else:
            taken = windows.take_until(step)
            over = sorted(each for each in model if step is None or each[0] <= step)
            model = [each for each in model if each not in over]
            # Of one start, in the order in which they were added, which is that of their numbers.
            assert taken.tolist() == [slot for _, slot in over]
        starts = [start for start, _ in model]
        assert windows.earliest_us == min(starts, default=None)


def test_many_small_additions_make_few_runs() -> None:
    windows = OpenWindows()
    for number in range(2_000):
        windows.add(np.array([number % 50]), np.array([number]))
        assert len(windows._runs) <= 12
    assert len(windows.take_until(None)) == 2_000
    assert windows.earliest_us is None
