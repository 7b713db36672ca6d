"""Loops of the running aggregate: which slots a batch touches, and folds of weighted values.

State is one int64 matrix, a row a slot, as for windows; float fields are the same memory seen as
float64. A value comes with the weight of its row: +1 adds it, -1 takes it back. What was taken
back leaves no trace: integers are summed in 128 bits, floats in four terms that do not overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import inner, kernel

UNTOUCHED = np.uint8(0)
TOUCHED = np.uint8(1)
NEW = np.uint8(2)
"""A slot's mark before it is touched, after, and before where its key has just come."""

NO_TIME = -(2**63)
"""Stands for a key that has no row yet."""

TERMS = 4
"""Terms of a float sum: more than 200 bits, so that sums of values that differ by up to 10⁴⁰ are
exact."""


@kernel
def touch_slots(slots: Any, marks: Any, state: Any, touched: Any, existed: Any, before: Any) -> Any:
    """Write each slot that occurs in `slots` once, with its fields as they are; return how many.

    Parameters
    ----------
    slots
        int64, shape (n,).
    marks
        uint8, shape (capacity,); left `TOUCHED` where a slot occurs.
    state
        int64, shape (capacity, fields).
    touched, existed
        Output, int64 and bool, shape (n,): the slots in the order in which they occur first, and
        whether their keys were there before.
    before
        Output, int64, shape (2 n, fields): fields of slot i in row 2 i.
    """
    count = np.uint64(0)
    width = np.uint64(state.shape[1])
    for row in range(np.uint64(len(slots))):
        slot = np.uint64(slots[row])
        mark = marks[slot]
        if mark != TOUCHED:
            marks[slot] = TOUCHED
            touched[count] = slots[row]
            existed[count] = mark == UNTOUCHED
            for field in range(width):
                before[count * np.uint64(2), field] = state[slot, field]
            count += np.uint64(1)
    return np.int64(count)


@kernel
def write_after(touched: Any, marks: Any, state: Any, fields: Any) -> None:
    """Write the fields of slot i of `touched` into row 2 i + 1 of `fields`; clear its mark."""
    width = np.uint64(state.shape[1])
    for index in range(np.uint64(len(touched))):
        slot = np.uint64(touched[index])
        marks[slot] = UNTOUCHED
        for field in range(width):
            fields[index * np.uint64(2) + np.uint64(1), field] = state[slot, field]


@kernel
def count_weights(slots: Any, weights: Any, valid: Any, state: Any, count: int) -> None:
    """Add the weight of each row whose value is not null to field `count` of its slot."""
    every = len(valid) == 0
    for row in range(np.uint64(len(slots))):
        if every or valid[row]:
            state[np.uint64(slots[row]), count] += weights[row]


@kernel
def fold_weighted_integers(
    slots: Any,
    weights: Any,
    values: Any,
    valid: Any,
    unsigned: bool,
    state: Any,
    count: int,
    total: int,
) -> None:
    """Add weight times value to 128-bit sums, the low half in field `total`, and the weights up.

    A weight is within ±2³¹; `values` are int64, or uint64 seen as such where `unsigned`.
    """
    every = len(valid) == 0
    for row in range(np.uint64(len(slots))):
        if every or valid[row]:
            slot = np.uint64(slots[row])
            weight = weights[row]
            value = values[row]
            state[slot, count] += weight
            # Halves of the value times the weight fit into 64 bits each.
            low_product = (value & 0xFFFFFFFF) * weight
            top = np.int64(np.uint64(value) >> np.uint64(32)) if unsigned else value >> 32
            high_product = top * weight
            shifted = high_product << 32
            low = low_product + shifted
            carry = np.int64(np.uint64(low) < np.uint64(low_product))
            high = (high_product >> 32) + (low_product >> 63) + carry
            kept = state[slot, total]
            after = kept + low
            state[slot, total] = after
            state[slot, total + 1] += high + np.int64(np.uint64(after) < np.uint64(kept))


@inner
def add_term(floats: Any, slot: Any, total: int, value: Any, terms: Any) -> None:
    """Add `value` to the terms of a slot's sum, the greatest of which comes first.

    None overlaps another, so nothing is lost until the sum needs more than `TERMS` (Shewchuk,
    "Adaptive precision floating-point arithmetic", 1997: Grow-Expansion, Compress). A sum beyond
    float64 stays infinite. `terms` is room for one more than `TERMS`.
    """
    if not np.isfinite(floats[slot, total]):
        return
    rest = value
    for term in range(TERMS - 1, -1, -1):
        kept = floats[slot, total + term]
        sum_ = kept + rest
        virtual = sum_ - kept
        terms[term + 1] = (kept - (sum_ - virtual)) + (rest - virtual)
        rest = sum_
    if not np.isfinite(rest):
        floats[slot, total] = rest
        for term in range(1, TERMS):
            floats[slot, total + term] = 0.0
        return
    count = 0
    for term in range(1, TERMS + 1):
        lower = terms[term]
        sum_ = rest + lower
        lost = lower - (sum_ - rest)
        rest = sum_
        if lost != 0.0:
            terms[count] = sum_
            count += 1
            rest = lost
    terms[count] = rest
    count += 1
    for term in range(TERMS):
        floats[slot, total + term] = terms[term] if term < count else 0.0


@kernel
def fold_weighted_floats(
    slots: Any,
    weights: Any,
    values: Any,
    valid: Any,
    state: Any,
    floats: Any,
    count: int,
    total: int,
) -> None:
    """Add weight times value to sums of `TERMS` terms from field `total` on, and the weights up.

    Behind the terms stand the weights of NaN, infinity and minus infinity. `floats` is `state`
    seen as float64.
    """
    every = len(valid) == 0
    terms = np.empty(TERMS + 1)
    for row in range(np.uint64(len(slots))):
        if every or valid[row]:
            slot = np.uint64(slots[row])
            weight = weights[row]
            value = values[row]
            state[slot, count] += weight
            if np.isnan(value):
                state[slot, total + TERMS] += weight
            elif np.isinf(value):
                state[slot, total + TERMS + (1 if value > 0 else 2)] += weight
            else:
                # By the bits of the weight, since a product may need more digits than there are.
                part = value if weight > 0 else -value
                left = abs(weight)
                while left > 0:
                    if left & 1:
                        add_term(floats, slot, total, part, terms)
                    part *= 2.0
                    left >>= 1


@kernel
def merge_weighted(
    slots: Any,
    rows: Any,
    row_floats: Any,
    state: Any,
    floats: Any,
    count: int,
    total: int,
    is_float: bool,
) -> None:
    """Merge fields `rows`, shape (n, fields), that were folded elsewhere into their slots.

    `total` is -1 where nothing is summed; `row_floats` and `floats` are the float views.
    """
    terms = np.empty(TERMS + 1)
    for row in range(len(slots)):
        slot = slots[row]
        state[slot, count] += rows[row, count]
        if total < 0:
            continue
        if is_float:
            for term in range(TERMS):
                add_term(floats, slot, total, row_floats[row, total + term], terms)
            for special in range(TERMS, TERMS + 3):
                state[slot, total + special] += rows[row, total + special]
        else:
            kept = state[slot, total]
            after = kept + rows[row, total]
            carry = np.int64(np.uint64(after) < np.uint64(kept))
            state[slot, total] = after
            state[slot, total + 1] += rows[row, total + 1] + carry


@kernel
def find_expiries(
    slots: Any, times: Any, stamps: Any, ttl: int, last: Any, expired: Any, rounds: Any
) -> Any:
    """Write how often the key of each row expired in the batch before it; return the most.

    Parameters
    ----------
    slots, times, stamps
        int64, shape (n,): of each row its key, its time, and the watermark just before it.
    ttl
        A key expires when the watermark is so far beyond its greatest time.
    last
        In and out, int64 by slot: that time, or `NO_TIME` where the key has just come.
    expired
        int64 by slot, zeros; left as it came.
    rounds
        Output, int64, shape (n,).
    """
    most = 0
    for row in range(len(slots)):
        slot, time, stamp = slots[row], times[row], stamps[row]
        before = last[slot]
        # Not by the sum, which may be beyond int64.
        if before != NO_TIME and stamp > NO_TIME + ttl and before <= stamp - ttl:
            expired[slot] += 1
            last[slot] = time
        else:
            last[slot] = max(before, time)
        rounds[row] = expired[slot]
        most = max(most, expired[slot])
    for row in range(len(slots)):
        expired[slots[row]] = 0
    return most
