"""Loops over what slots keep beside their fields: chains of entries, and the best row of each.

The entries of a slot are a chain, in any order; `head[slot]` is the first, or `NONE`::

    head[slot] ─▶ entry 7 ─▶ entry 2 ─▶ none
"""

from __future__ import annotations

from typing import Any

from millstream.jit import inner, kernel

NONE = -1


@kernel
def link(entries: Any, slots: Any, head: Any, following: Any, lengths: Any) -> None:
    """Put entries at the front of their slots' chains.

    Parameters
    ----------
    entries, slots
        int64, shape (n,).
    head, lengths
        By slot, int64: the first entry, and how many there are.
    following
        By entry, int64: the next one of its slot.
    """
    for index in range(len(entries)):
        entry, slot = entries[index], slots[index]
        following[entry] = head[slot]
        head[slot] = entry
        lengths[slot] += 1


@kernel
def gather(slots: Any, head: Any, following: Any, entries: Any) -> None:
    """Write the entries of `slots`, one chain behind the other."""
    count = 0
    for index in range(len(slots)):
        entry = head[slots[index]]
        while entry != NONE:
            entries[count] = entry
            count += 1
            entry = following[entry]


@kernel
def add_counts(entries: Any, weights: Any, counts: Any) -> None:
    """Add the weight of each row to the count of its entry."""
    for row in range(len(entries)):
        counts[entries[row]] += weights[row]


@kernel
def take_greatest(entries: Any, values: Any, counts: Any) -> None:
    """Let the count of each entry be the greatest of its rows."""
    for row in range(len(entries)):
        counts[entries[row]] = max(counts[entries[row]], values[row])


@inner
def _is_before(slot: Any, one: Any, two: Any, three: Any, four: Any, best: Any) -> Any:
    if one != best[slot, 0]:
        return one < best[slot, 0]
    if two != best[slot, 1]:
        return two < best[slot, 1]
    if three != best[slot, 2]:
        return three < best[slot, 2]
    return four < best[slot, 3]


@kernel
def choose(
    slots: Any,
    ranks: Any,
    refs: Any,
    best: Any,
    rows: Any,
    touched: Any,
    kept: Any,
    ties: Any,
) -> int:
    """Let each slot keep the row with the least ranks; return how many slots have a new one.

    Parameters
    ----------
    slots
        int64, shape (n,).
    ranks
        int64, shape (4, n): compared one after the other.
    refs
        By slot, int64: `NONE` where it has no row yet.
    best
        By slot, int64, shape (slots, 4): the ranks of its row.
    rows
        By slot, int64: `NONE` before and after; meanwhile which row of the batch it keeps.
    touched
        Output, int64, shape (2, n): slots with a new row, and which.
    kept
        Output, int64, shape (n, 4): the ranks of those slots' rows before.
    ties
        Output, bool, shape (1,): whether two rows had the same ranks.
    """
    count = 0
    for row in range(len(slots)):
        slot = slots[row]
        one, two, three, four = ranks[0, row], ranks[1, row], ranks[2, row], ranks[3, row]
        has_row = refs[slot] != NONE or rows[slot] != NONE
        if has_row:
            same = one == best[slot, 0] and two == best[slot, 1]
            if same and three == best[slot, 2] and four == best[slot, 3]:
                ties[0] = True
                continue
            if not _is_before(slot, one, two, three, four, best):
                continue
        if rows[slot] == NONE:
            touched[0, count] = slot
            for column in range(4):
                kept[count, column] = best[slot, column]
            count += 1
        rows[slot] = row
        best[slot, 0], best[slot, 1] = one, two
        best[slot, 2], best[slot, 3] = three, four
    for index in range(count):
        touched[1, index] = rows[touched[0, index]]
        rows[touched[0, index]] = NONE
    return count
