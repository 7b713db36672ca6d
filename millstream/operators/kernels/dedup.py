"""The loop of dedup: which rows are the first of their keys, or far enough in time from it."""

from __future__ import annotations

from typing import Any

from millstream.jit import kernel

NO_TIME = -(2**63)
"""Stands for a key of which no row passed yet."""


@kernel
def pass_first(slots: Any, times: Any, within: int, kept: Any, passes: Any) -> Any:
    """Write which rows pass; return how many.

    Parameters
    ----------
    slots, times
        int64, shape (n,).
    within
        A row passes if its time is so far from that of the last one of its key that passed.
    kept
        In and out, int64 by slot: that time, or `NO_TIME`.
    passes
        Output, bool, shape (n,).
    """
    count = 0
    for row in range(len(slots)):
        slot, time = slots[row], times[row]
        before = kept[slot]
        # Not by the difference, which may be beyond int64.
        passed = before == NO_TIME or time >= before + within or time <= before - within
        if passed:
            kept[slot] = time
            count += 1
        passes[row] = passed
    return count
