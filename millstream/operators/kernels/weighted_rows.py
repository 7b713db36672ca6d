"""Loops over rows with signed counts: how many of a slot's rows hold, and how many have gone."""

from __future__ import annotations

from typing import Any

from millstream.jit import kernel


@kernel
def add_weights(
    entries: Any, slots: Any, weights: Any, counts: Any, present: Any, gone: Any
) -> None:
    """Add the weight of each row to the count of its entry.

    Parameters
    ----------
    entries, slots, weights
        int64, shape (n,): of each row its entry, the slot of that, and what is added.
    counts
        int64 by entry.
    present, gone
        int64 by slot: of how many entries the count is above zero, and zero.
    """
    for row in range(len(entries)):
        entry, slot = entries[row], slots[row]
        before = counts[entry]
        after = before + weights[row]
        counts[entry] = after
        present[slot] += (after > 0) - (before > 0)
        gone[slot] += (after == 0) - (before == 0)


@kernel
def note_new(slots: Any, gone: Any) -> None:
    """Count an entry more whose count is zero for each of `slots`."""
    for index in range(len(slots)):
        gone[slots[index]] += 1
