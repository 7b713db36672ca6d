"""Loops of the windowed aggregate: fold values into slots.

State is one int64 matrix, a row a slot, so that what a row of input touches lies together;
float fields are the same memory seen as float64. `valid` is empty where no value is null. A
field of -1 is one that nobody asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel


@kernel
def count_values(slots: Any, valid: Any, state: Any, count: int) -> None:
    """Add 1 to field `count` of each row's slot whose value is not null."""
    every = len(valid) == 0
    for row in range(np.uint64(len(slots))):
        if every or valid[row]:
            state[np.uint64(slots[row]), count] += 1


@kernel
def fold_integers(
    slots: Any,
    values: Any,
    valid: Any,
    flip: Any,
    state: Any,
    count: int,
    total: int,
    least: int,
    greatest: int,
) -> None:
    """Fold 64-bit integers into their slots.

    Parameters
    ----------
    slots, values, valid
        int64, int64 and bool, shape (n,).
    flip
        0 for signed values; the sign bit for unsigned ones, whose order is that of the
        signed values with it turned over.
    state
        int64, shape (slots, fields).
    count, total, least, greatest
        Fields: number of values; sum, 128 bits in two fields, the low one first, so that
        it is exact in any order; extremes.
    """
    every = len(valid) == 0
    for row in range(np.uint64(len(slots))):
        if every or valid[row]:
            slot = np.uint64(slots[row])
            value = values[row]
            before = state[slot, count]
            state[slot, count] = before + 1
            if total >= 0:
                low = state[slot, total]
                after = low + value
                carry = np.int64(np.uint64(after) < np.uint64(low))
                sign = value >> 63 if flip == 0 else 0
                state[slot, total] = after
                state[slot, total + 1] += sign + carry
            # Written back in any case: whether a value is the least is hard to predict.
            if least >= 0:
                kept = state[slot, least]
                taken = (before == 0) | ((value ^ flip) < (kept ^ flip))
                state[slot, least] = value if taken else kept
            if greatest >= 0:
                kept = state[slot, greatest]
                taken = (before == 0) | ((value ^ flip) > (kept ^ flip))
                state[slot, greatest] = value if taken else kept


@kernel
def fold_floats(
    slots: Any,
    values: Any,
    valid: Any,
    state: Any,
    floats: Any,
    count: int,
    total: int,
    least: int,
    greatest: int,
) -> None:
    """Fold floats into their slots; NaN is greater than all, as in PostgreSQL and DuckDB.

    The sum has two fields, itself and what its additions lost, so that it does not depend on
    the order of the values beyond the last digits (Neumaier's variant of Kahan's summation,
    ZAMM 54, 1974). `floats` is `state` seen as float64; the rest is as in `fold_integers`.
    """
    every = len(valid) == 0
    for row in range(np.uint64(len(slots))):
        if every or valid[row]:
            slot = np.uint64(slots[row])
            value = values[row]
            before = state[slot, count]
            state[slot, count] = before + 1
            if total >= 0:
                sum_ = floats[slot, total]
                after = sum_ + value
                larger = abs(sum_) >= abs(value)
                lost = (sum_ - after) + value if larger else (value - after) + sum_
                floats[slot, total] = after
                # An infinite sum has lost nothing; inf - inf would make the loss NaN.
                floats[slot, total + 1] += lost if np.isfinite(after) else 0.0
            # Written back in any case: whether a value is the least is hard to predict.
            if least >= 0:
                kept = floats[slot, least]
                taken = (before == 0) | (value < kept) | np.isnan(kept)
                floats[slot, least] = value if taken else kept
            if greatest >= 0:
                kept = floats[slot, greatest]
                taken = (before == 0) | (value > kept) | np.isnan(value)
                floats[slot, greatest] = value if taken else kept


@kernel
def merge_integers(
    slots: Any,
    rows: Any,
    flip: Any,
    state: Any,
    count: int,
    total: int,
    least: int,
    greatest: int,
) -> None:
    """Merge the fields of `rows`, shape (n, fields), into their slots; see `fold_integers`."""
    for row in range(len(slots)):
        more = rows[row, count]
        if more == 0:
            continue
        slot = slots[row]
        before = state[slot, count]
        if total >= 0:
            low = state[slot, total]
            after = low + rows[row, total]
            carry = np.int64(np.uint64(after) < np.uint64(low))
            state[slot, total] = after
            state[slot, total + 1] += rows[row, total + 1] + carry
        if least >= 0:
            value = rows[row, least]
            if before == 0 or (value ^ flip) < (state[slot, least] ^ flip):
                state[slot, least] = value
        if greatest >= 0:
            value = rows[row, greatest]
            if before == 0 or (value ^ flip) > (state[slot, greatest] ^ flip):
                state[slot, greatest] = value
        state[slot, count] = before + more


@kernel
def merge_floats(
    slots: Any,
    rows: Any,
    row_floats: Any,
    state: Any,
    floats: Any,
    count: int,
    total: int,
    least: int,
    greatest: int,
) -> None:
    """Merge the fields of `rows`, of which `row_floats` is the float view; see `fold_floats`."""
    for row in range(len(slots)):
        more = rows[row, count]
        if more == 0:
            continue
        slot = slots[row]
        before = state[slot, count]
        if total >= 0:
            sum_ = floats[slot, total]
            value = row_floats[row, total]
            after = sum_ + value
            larger = abs(sum_) >= abs(value)
            lost = (sum_ - after) + value if larger else (value - after) + sum_
            floats[slot, total] = after
            if np.isfinite(after):
                floats[slot, total + 1] += lost + row_floats[row, total + 1]
        if least >= 0:
            value = row_floats[row, least]
            kept = floats[slot, least]
            if before == 0 or value < kept or np.isnan(kept):
                floats[slot, least] = value
        if greatest >= 0:
            value = row_floats[row, greatest]
            kept = floats[slot, greatest]
            if before == 0 or value > kept or np.isnan(value):
                floats[slot, greatest] = value
        state[slot, count] = before + more
