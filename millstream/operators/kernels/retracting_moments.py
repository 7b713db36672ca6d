"""Loops that fold weighted values into sums of values and of squares, and into sums of decimals.

Sums have four terms that do not overlap, squares are taken exactly: so what is taken back leaves
no trace, and the difference of two sums that are nearly the same is right to its last digit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import inner, kernel
from millstream.operators.kernels.group_aggregate import TERMS, add_term

SPECIAL, LARGE = 0, 1
"""Fields behind the sums: weights of values that are no numbers, and of those beyond `LARGEST`."""

LARGEST = 2.0**465
"""Squares of values up to this have sums that float64 holds, of 2³¹ of them and more."""

_SPLIT = 134217729.0
_SIGN = 63


@inner
def _lost(one: Any, two: Any, product: Any) -> Any:
    """Return what rounding took from `product` of two floats (Dekker, 1971: TwoProduct)."""
    wide = one * _SPLIT
    one_high = wide - (wide - one)
    one_low = one - one_high
    wide = two * _SPLIT
    two_high = wide - (wide - two)
    two_low = two - two_high
    rest = product - one_high * two_high
    rest -= one_low * two_high
    rest -= one_high * two_low
    return one_low * two_low - rest


@kernel
def fold_weighted_moments(
    slots: Any, weights: Any, values: Any, valid: Any, state: Any, floats: Any, first: int
) -> None:
    """Add values, and their squares, with their weights to the sums of their slots.

    Parameters
    ----------
    slots, weights, values
        int64, int64 and float64, shape (n,).
    valid
        Which values are no nulls; empty where none is.
    state, floats
        The fields of slots, and the same seen as float64.
    first
        The field of the count; the terms of the sum of values follow, those of the squares, and
        the weights of what is special and of what is large.
    """
    every = len(valid) == 0
    terms = np.empty(TERMS + 1)
    special = first + 1 + 2 * TERMS
    for row in range(len(slots)):
        if not every and not valid[row]:
            continue
        slot, weight, value = slots[row], weights[row], values[row]
        state[slot, first] += weight
        if not np.isfinite(value):
            state[slot, special + SPECIAL] += weight
            continue
        if abs(value) > LARGEST:
            state[slot, special + LARGE] += weight
            continue
        square = value * value
        lost = _lost(value, value, square)
        sign = 1.0 if weight > 0 else -1.0
        value, square, lost = sign * value, sign * square, sign * lost
        left = abs(weight)
        while left > 0:
            if left & 1:
                add_term(floats, slot, first + 1, value, terms)
                add_term(floats, slot, first + 1 + TERMS, square, terms)
                add_term(floats, slot, first + 1 + TERMS, lost, terms)
            value, square, lost = 2.0 * value, 2.0 * square, 2.0 * lost
            left >>= 1


@kernel
def merge_weighted_moments(
    slots: Any, rows: Any, row_floats: Any, state: Any, floats: Any, first: int
) -> None:
    """Merge fields `rows`, shape (n, fields), that were folded elsewhere into their slots."""
    terms = np.empty(TERMS + 1)
    special = first + 1 + 2 * TERMS
    for row in range(len(slots)):
        slot = slots[row]
        state[slot, first] += rows[row, first]
        for term in range(TERMS):
            add_term(floats, slot, first + 1, row_floats[row, first + 1 + term], terms)
        for term in range(TERMS, 2 * TERMS):
            add_term(floats, slot, first + 1 + TERMS, row_floats[row, first + 1 + term], terms)
        state[slot, special + SPECIAL] += rows[row, special + SPECIAL]
        state[slot, special + LARGE] += rows[row, special + LARGE]


@kernel
def write_variances(rows: Any, floats: Any, first: int, variances: Any) -> None:
    """Write the variance of the sample of each row: (n · sum of squares - square of sum) / n(n-1).

    Parameters
    ----------
    rows, floats
        int64, shape (n, fields), and the same seen as float64.
    variances
        Output, float64, shape (n,): NaN where a value is special, infinite where one is large; any
        where there are less than two values.
    """
    terms = np.empty(TERMS + 1)
    total = np.empty((1, TERMS))
    special = first + 1 + 2 * TERMS
    for row in range(len(rows)):
        if rows[row, special + SPECIAL] != 0:
            variances[row] = np.nan
            continue
        if rows[row, special + LARGE] != 0:
            variances[row] = np.inf
            continue
        count = max(float(rows[row, first]), 2.0)
        total[:] = 0.0
        for one in range(TERMS):
            square = floats[row, first + 1 + TERMS + one]
            product = count * square
            add_term(total, 0, 0, product, terms)
            add_term(total, 0, 0, _lost(count, square, product), terms)
            value = floats[row, first + 1 + one]
            for two in range(TERMS):
                other = floats[row, first + 1 + two]
                product = value * other
                add_term(total, 0, 0, -product, terms)
                add_term(total, 0, 0, -_lost(value, other, product), terms)
        variances[row] = max(np.sum(total), 0.0) / (count * (count - 1.0))


@inner
def _add_decimal(state: Any, slot: Any, first: int, low: Any, middle: Any, top: Any) -> None:
    """Add 192 bits to those of a slot, the low word first."""
    kept = state[slot, first]
    after = kept + low
    carry = np.int64(np.uint64(after) < np.uint64(kept))
    state[slot, first] = after
    kept = state[slot, first + 1]
    carried = kept + carry
    over = np.int64(np.uint64(carried) < np.uint64(kept))
    total = carried + middle
    over += np.int64(np.uint64(total) < np.uint64(carried))
    state[slot, first + 1] = total
    state[slot, first + 2] += top + over


@kernel
def fold_weighted_decimals(
    slots: Any, weights: Any, words: Any, valid: Any, state: Any, first: int
) -> None:
    """Add 128-bit integers with their weights to sums of 192 bits, and the weights up.

    Parameters
    ----------
    slots, weights, words
        int64, shapes (n,), (n,) and (n, 2), the low word first.
    """
    every = len(valid) == 0
    for row in range(len(slots)):
        if not every and not valid[row]:
            continue
        slot, weight = slots[row], weights[row]
        state[slot, first] += weight
        low, middle = words[row, 0], words[row, 1]
        top = middle >> _SIGN
        if weight < 0:
            low, middle, top = ~low, ~middle, ~top
            low += 1
            middle += np.int64(low == 0)
            top += np.int64(low == 0 and middle == 0)
        left = abs(weight)
        while left > 0:
            if left & 1:
                _add_decimal(state, slot, first + 1, low, middle, top)
            top = (top << 1) | ((middle >> _SIGN) & 1)
            middle = (middle << 1) | ((low >> _SIGN) & 1)
            low <<= 1
            left >>= 1
