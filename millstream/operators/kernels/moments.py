"""Loops that fold means and squared distances from them, and sums of decimals, into slots."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel

_SIGN = 63


@kernel
def fold_moments(slots: Any, values: Any, valid: Any, state: Any, floats: Any, first: int) -> None:
    """Fold floats into count, mean and the sum of squared distances from the mean.

    (Welford, Technometrics 1962.) `floats` is `state` seen as float64; `valid` is empty where no
    value is null.
    """
    every = len(valid) == 0
    for row in range(len(slots)):
        if every or valid[row]:
            slot = slots[row]
            count = state[slot, first] + 1
            away = values[row] - floats[slot, first + 1]
            mean = floats[slot, first + 1] + away / count
            state[slot, first] = count
            floats[slot, first + 1] = mean
            floats[slot, first + 2] += away * (values[row] - mean)


@kernel
def merge_moments(
    slots: Any, rows: Any, row_floats: Any, state: Any, floats: Any, first: int
) -> None:
    """Merge the moments of `rows` into their slots (Chan, Golub, LeVeque, 1979)."""
    for row in range(len(slots)):
        more = rows[row, first]
        if more == 0:
            continue
        slot = slots[row]
        before = state[slot, first]
        count = before + more
        away = row_floats[row, first + 1] - floats[slot, first + 1]
        state[slot, first] = count
        floats[slot, first + 1] += away * (more / count)
        floats[slot, first + 2] += row_floats[row, first + 2] + away * away * (
            before * more / count
        )


@kernel
def fold_decimals(slots: Any, words: Any, valid: Any, state: Any, first: int) -> None:
    """Fold 128-bit integers into a count and a sum of 192 bits, the low word first.

    Parameters
    ----------
    slots, words
        int64, shapes (n,) and (n, 2), the low word first.
    """
    every = len(valid) == 0
    for row in range(len(slots)):
        if every or valid[row]:
            slot = slots[row]
            state[slot, first] += 1
            low = state[slot, first + 1]
            after = low + words[row, 0]
            carry = np.int64(np.uint64(after) < np.uint64(low))
            state[slot, first + 1] = after
            middle = state[slot, first + 2]
            carried = middle + carry
            over = np.int64(np.uint64(carried) < np.uint64(middle))
            total = carried + words[row, 1]
            over += np.int64(np.uint64(total) < np.uint64(carried))
            state[slot, first + 2] = total
            state[slot, first + 3] += (words[row, 1] >> _SIGN) + over


@kernel
def merge_decimals(slots: Any, rows: Any, state: Any, first: int) -> None:
    """Merge the counts and sums of `rows` into their slots."""
    for row in range(len(slots)):
        slot = slots[row]
        state[slot, first] += rows[row, first]
        low = state[slot, first + 1]
        after = low + rows[row, first + 1]
        carry = np.int64(np.uint64(after) < np.uint64(low))
        state[slot, first + 1] = after
        middle = state[slot, first + 2]
        carried = middle + carry
        over = np.int64(np.uint64(carried) < np.uint64(middle))
        total = carried + rows[row, first + 2]
        over += np.int64(np.uint64(total) < np.uint64(carried))
        state[slot, first + 2] = total
        state[slot, first + 3] += rows[row, first + 3] + over
