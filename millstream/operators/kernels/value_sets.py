"""Loops over sets of 64-bit values by slot: one table of (slot, value) pairs for all of them.

The table is open addressing with linear probing, at most half full, and holds the pairs
themselves, so that a value which is there already costs one look-up. The values of a slot lie
side by side as they came, too, in a block of one arena, to be read without the table::

    table  … │ slot, value │ NONE │ …      heads[slot] = begin │ room │ length      arena  … 7 2 9 …

Blocks have room for a power of two of values; those that were given back are chained by their
size, the first value of each being where the next one begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import inner, kernel
from millstream.operators.kernels.key_index import FACTOR, LAST_FACTOR, SEED

NONE = -1
BEGIN, ROOM, LENGTH = 0, 1, 2
SIZES = 48
META_USED = 0
META_LIVE = 1

_ONE = np.uint64(1)
_SHIFT = np.uint64(32)


@inner
def _give_back(begin: Any, room: Any, arena: Any, free: Any) -> None:
    size = 0
    while (1 << size) < room:
        size += 1
    arena[begin] = free[size]
    free[size] = begin


@inner
def _make_room(slot: Any, heads: Any, arena: Any, free: Any, meta: Any) -> Any:
    """Give a slot a block of twice the room; return `False` if the arena is full."""
    old, room, length = heads[slot, BEGIN], heads[slot, ROOM], heads[slot, LENGTH]
    wanted = max(room * 2, 1)
    size = 0
    while (1 << size) < wanted:
        size += 1
    begin = free[size]
    if begin != NONE:
        free[size] = arena[begin]
    else:
        begin = meta[META_USED]
        if begin + wanted > len(arena):
            return False
        meta[META_USED] = begin + wanted
    for index in range(length):
        arena[begin + index] = arena[old + index]
    if room > 0:
        _give_back(old, room, arena, free)
    heads[slot, BEGIN], heads[slot, ROOM] = begin, wanted
    return True


@inner
def _home(slot: Any, value: Any) -> Any:
    """Return where a pair belongs, before it is cut to the size of the table."""
    mixed = (np.uint64(value) ^ (np.uint64(slot) + SEED) * LAST_FACTOR) * FACTOR
    mixed ^= mixed >> _SHIFT
    return (mixed * LAST_FACTOR) >> _SHIFT


@inner
def _find(slot: Any, value: Any, table: Any) -> Any:
    """Return the place of a pair in the table, or the free one where it would be put."""
    mask = np.uint64(len(table) - 1)
    place = _home(slot, value) & mask
    while table[place, 0] != NONE and (table[place, 0] != slot or table[place, 1] != value):
        place = (place + _ONE) & mask
    return place


@kernel
def add_values(
    slots: Any,
    values: Any,
    valid: Any,
    first: int,
    table: Any,
    heads: Any,
    arena: Any,
    free: Any,
    meta: Any,
) -> Any:
    """Put values into the sets of their slots; return the row before which there is no more room.

    Parameters
    ----------
    slots, values, valid
        int64, int64 and bool, shape (n,), the last of shape (0,) where no value is null.
    first
        The first row to do.
    table
        int64, shape (power of two, 2).
    heads, arena, free
        The blocks, int64: by slot, shape (slots, 3); values; by size, the first one given back.
    meta
        Counts, int64: what is used of the arena, and pairs in the table.
    """
    every = len(valid) == 0
    for row in range(np.uint64(first), np.uint64(len(slots))):
        if every or valid[row]:
            slot, value = slots[row], values[row]
            place = _find(slot, value, table)
            if table[place, 0] == NONE:
                if (meta[META_LIVE] + 1) * 2 > len(table):
                    return np.int64(row)
                length = heads[slot, LENGTH]
                if length == heads[slot, ROOM] and not _make_room(slot, heads, arena, free, meta):
                    return np.int64(row)
                table[place, 0], table[place, 1] = slot, value
                arena[heads[slot, BEGIN] + length] = value
                heads[slot, LENGTH] = length + 1
                meta[META_LIVE] += 1
    return len(slots)


@kernel
def enter_pairs(pairs: Any, table: Any) -> None:
    """Put the pairs of another table into the empty `table`."""
    for index in range(np.uint64(len(pairs))):
        if pairs[index, 0] != NONE:
            place = _find(pairs[index, 0], pairs[index, 1], table)
            table[place, 0], table[place, 1] = pairs[index, 0], pairs[index, 1]


@kernel
def gather_values(slots: Any, heads: Any, arena: Any, values: Any) -> None:
    """Write the values of `slots`, one slot's behind the other's, in any order."""
    count = 0
    for index in range(len(slots)):
        begin = heads[slots[index], BEGIN]
        for place in range(begin, begin + heads[slots[index], LENGTH]):
            values[count] = arena[place]
            count += 1


@kernel
def clear_sets(slots: Any, table: Any, heads: Any, arena: Any, free: Any, meta: Any) -> None:
    """Empty the sets of `slots`, which may be there more than once."""
    mask = np.uint64(len(table) - 1)
    for index in range(len(slots)):
        slot = slots[index]
        begin = heads[slot, BEGIN]
        for each in range(begin, begin + heads[slot, LENGTH]):
            gap = _find(slot, arena[each], table)
            place = (gap + _ONE) & mask
            while table[place, 0] != NONE:
                # A pair moves up unless its own place lies behind the gap.
                home = _home(table[place, 0], table[place, 1]) & mask
                if ((place - home) & mask) >= ((place - gap) & mask):
                    table[gap, 0], table[gap, 1] = table[place, 0], table[place, 1]
                    gap = place
                place = (place + _ONE) & mask
            table[gap, 0] = NONE
        meta[META_LIVE] -= heads[slot, LENGTH]
        if heads[slot, ROOM] > 0:
            _give_back(begin, heads[slot, ROOM], arena, free)
        heads[slot, ROOM] = heads[slot, LENGTH] = 0
