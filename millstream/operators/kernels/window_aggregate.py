"""Loops of the windowed aggregate: assign windows, decide lateness, fold values into slots.

State is one int64 matrix, a row a slot, so that what a row of input touches lies together;
float fields are the same memory seen as float64. `valid` is empty where no value is null.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel
from millstream.windows.watermark import WATERMARK_MIN


@kernel
def assign_windows(
    times: Any,
    stamps: Any,
    size: int,
    offset: int,
    allowed: int,
    closed: int,
    given_out: int,
    starts: Any,
    late: Any,
) -> int:
    """Write each row's window start and whether it is late; return how many are late.

    Parameters
    ----------
    times
        Event times, int64, shape (n,).
    stamps
        Watermark of the row's partition just before it, int64, shape (n,) or (0,).
    size, offset, allowed
        Of the windows, and the allowed lateness; microseconds.
    closed
        Windows that end at or before this were flushed at the end of an earlier run.
    given_out
        Watermark up to which windows were given out; a stamped row of one of these is late.
    starts, late
        Outputs: int64 and bool, shape (n,).
    """
    count = 0
    stamped = len(stamps) > 0
    span = size + allowed
    for row in range(len(times)):
        # The sign of Numba's modulo is the divisor's: windows before 1970 come out right.
        start = times[row] - (times[row] - offset) % size
        starts[row] = start
        is_late = start + size <= closed
        if stamped:
            # Moving the watermark back instead of the window on cannot leave int64.
            watermark = max(stamps[row], given_out, WATERMARK_MIN + span)
            is_late |= start <= watermark - span
        late[row] = is_late
        count += is_late
    return count


@kernel
def count_values(slots: Any, valid: Any, state: Any, dirty: Any, field: int) -> None:
    """Add 1 to `state[slot, field]` for each value that is not null."""
    every = len(valid) == 0
    for row in range(len(slots)):
        dirty[slots[row]] = True
        if every or valid[row]:
            state[slots[row], field] += 1


@kernel
def sum_integers(slots: Any, values: Any, valid: Any, state: Any, field: int) -> int:
    """Add to count `field` and sum `field + 1`; return the first row that overflows, or -1."""
    every = len(valid) == 0
    for row in range(len(slots)):
        if every or valid[row]:
            slot = slots[row]
            before = state[slot, field + 1]
            after = before + values[row]
            # Overflow: both operands have the sign that the result lacks.
            if ((before ^ after) & (values[row] ^ after)) < 0:
                return row
            state[slot, field] += 1
            state[slot, field + 1] = after
    return -1


@kernel
def sum_floats(slots: Any, values: Any, valid: Any, state: Any, floats: Any, field: int) -> None:
    """Add to count `field`, sum `field + 1` and its compensation `field + 2`.

    (Neumaier's variant of Kahan's summation, ZAMM 54, 1974: the result does not depend on the
    order of the values beyond the last digits.) `floats` is `state` seen as float64.
    """
    every = len(valid) == 0
    for row in range(len(slots)):
        if every or valid[row]:
            slot = slots[row]
            value = values[row]
            total = floats[slot, field + 1]
            after = total + value
            larger = abs(total) >= abs(value)
            lost = (total - after) + value if larger else (value - after) + total
            state[slot, field] += 1
            floats[slot, field + 1] = after
            # An infinite sum has lost nothing; inf - inf would make the compensation NaN.
            if np.isfinite(after):
                floats[slot, field + 2] += lost


@kernel
def extreme_integers(
    slots: Any, values: Any, valid: Any, state: Any, field: int, greatest: bool
) -> None:
    """Keep the least or greatest value in `field + 1`, the count of values in `field`."""
    every = len(valid) == 0
    for row in range(len(slots)):
        if every or valid[row]:
            slot = slots[row]
            value = values[row]
            kept = state[slot, field + 1]
            if state[slot, field] == 0 or (value > kept if greatest else value < kept):
                state[slot, field + 1] = value
            state[slot, field] += 1


@kernel
def extreme_floats(
    slots: Any, values: Any, valid: Any, state: Any, floats: Any, field: int, greatest: bool
) -> None:
    """Keep the least or greatest value; NaN is greater than all, as in PostgreSQL and DuckDB."""
    every = len(valid) == 0
    for row in range(len(slots)):
        if every or valid[row]:
            slot = slots[row]
            value = values[row]
            kept = floats[slot, field + 1]
            above = value > kept or np.isnan(value)
            below = value < kept or np.isnan(kept)
            if state[slot, field] == 0 or (above if greatest else below):
                floats[slot, field + 1] = value
            state[slot, field] += 1
