"""Loops over ordered values with counts: a block of one arena a slot.

A block holds a slot's distinct values in ascending order, with room for a power of two of them::

    heads[slot] = begin │ room │ length          arena  … │ 3 │ 7 │ 9 │   │ …   values
                                                        … │ 2 │ 1 │ 4 │   │ …   counts

Blocks that were given back are chained by their size; the first value of each is where the next
one begins.
"""

from __future__ import annotations

from typing import Any

from millstream.jit import inner, kernel

BEGIN, ROOM, LENGTH = 0, 1, 2
NONE = -1
ROOM_FIRST = 4
SIZES = 48
"""Sizes of blocks: powers of two below 2⁴⁸."""

META_USED = 0


@inner
def _size_of(room: Any) -> Any:
    size = 0
    while (1 << size) < room:
        size += 1
    return size


@inner
def _give_back(begin: Any, room: Any, values: Any, free: Any) -> None:
    size = _size_of(room)
    values[begin] = free[size]
    free[size] = begin


@inner
def _make_room(
    slot: Any, wanted: Any, heads: Any, values: Any, counts: Any, free: Any, meta: Any
) -> Any:
    """Give a slot a block with room for `wanted` values; return `False` if the arena is full."""
    room = ROOM_FIRST
    while room < wanted:
        room *= 2
    size = _size_of(room)
    begin = free[size]
    if begin != NONE:
        free[size] = values[begin]
    else:
        begin = meta[META_USED]
        if begin + room > len(values):
            return False
        meta[META_USED] = begin + room
    old, length = heads[slot, BEGIN], heads[slot, LENGTH]
    for index in range(length):
        values[begin + index] = values[old + index]
        counts[begin + index] = counts[old + index]
    if heads[slot, ROOM] > 0:
        _give_back(old, heads[slot, ROOM], values, free)
    heads[slot, BEGIN] = begin
    heads[slot, ROOM] = room
    return True


@inner
def _find(values: Any, begin: Any, length: Any, value: Any) -> Any:
    """Return the place of the first of `length` values that is not below `value`."""
    low, high = 0, length
    while low < high:
        middle = (low + high) // 2
        if values[begin + middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _insert(
    deltas: Any, weights: Any, count: Any, begin: Any, length: Any, values: Any, counts: Any
) -> None:
    """Merge `count` new values, ascending, into a block that has room for them."""
    old, new = length - 1, count - 1
    for place in range(length + count - 1, -1, -1):
        if new < 0:
            break
        if old >= 0 and values[begin + old] > deltas[new]:
            values[begin + place] = values[begin + old]
            counts[begin + place] = counts[begin + old]
            old -= 1
        else:
            values[begin + place] = deltas[new]
            counts[begin + place] = weights[new]
            new -= 1


@kernel
def add_counts(
    slots: Any,
    deltas: Any,
    weights: Any,
    first: int,
    heads: Any,
    values: Any,
    counts: Any,
    free: Any,
    meta: Any,
    new_values: Any,
    new_weights: Any,
) -> Any:
    """Add weights to the counts of values; a count of zero is gone.

    Parameters
    ----------
    slots, deltas, weights
        int64, shape (n,), sorted by slot and value, each pair once.
    first
        The first row to do; the first of its slot.
    heads
        int64, shape (slots, 3).
    values, counts
        The arena, int64.
    free
        int64, shape (`SIZES`,): where the first free block of each size begins, or `NONE`.
    meta
        int64: how much of the arena was ever used.
    new_values, new_weights
        Room, int64, shape (n,).

    Returns
    -------
    int
        n when all rows are done, else the first that was not: the caller makes the arena larger.
    """
    row = first
    while row < len(slots):
        slot = slots[row]
        end = row + 1
        while end < len(slots) and slots[end] == slot:
            end += 1
        wanted = heads[slot, LENGTH] + end - row
        if wanted > heads[slot, ROOM] and not _make_room(
            slot, wanted, heads, values, counts, free, meta
        ):
            return row
        begin, length = heads[slot, BEGIN], heads[slot, LENGTH]
        added, zeros = 0, 0
        for index in range(row, end):
            place = _find(values, begin, length, deltas[index])
            if place < length and values[begin + place] == deltas[index]:
                counts[begin + place] += weights[index]
                zeros += counts[begin + place] == 0
            else:
                new_values[added] = deltas[index]
                new_weights[added] = weights[index]
                added += 1
        if added:
            _insert(new_values, new_weights, added, begin, length, values, counts)
            length += added
        if zeros:
            kept = 0
            for place in range(length):
                if counts[begin + place] != 0:
                    values[begin + kept] = values[begin + place]
                    counts[begin + kept] = counts[begin + place]
                    kept += 1
            length = kept
        heads[slot, LENGTH] = length
        if length == 0:
            _give_back(begin, heads[slot, ROOM], values, free)
            heads[slot, ROOM] = 0
        row = end
    return len(slots)


@kernel
def write_extremes(
    slots: Any, heads: Any, values: Any, counts: Any, least: Any, greatest: Any
) -> None:
    """Write the least and greatest value of each slot whose count is positive; 0 without one."""
    for index in range(len(slots)):
        begin, length = heads[slots[index], BEGIN], heads[slots[index], LENGTH]
        least[index] = 0
        greatest[index] = 0
        for place in range(length):
            if counts[begin + place] > 0:
                least[index] = values[begin + place]
                break
        for place in range(length - 1, -1, -1):
            if counts[begin + place] > 0:
                greatest[index] = values[begin + place]
                break


@kernel
def gather_blocks(
    slots: Any, heads: Any, values: Any, counts: Any, taken: Any, taken_counts: Any
) -> None:
    """Write the values and counts of `slots`, one block behind the other."""
    place = 0
    for index in range(len(slots)):
        begin = heads[slots[index], BEGIN]
        for row in range(heads[slots[index], LENGTH]):
            taken[place] = values[begin + row]
            taken_counts[place] = counts[begin + row]
            place += 1


@kernel
def clear_blocks(slots: Any, heads: Any, values: Any, free: Any) -> None:
    """Forget all values of `slots`."""
    for index in range(len(slots)):
        slot = slots[index]
        if heads[slot, ROOM] > 0:
            _give_back(heads[slot, BEGIN], heads[slot, ROOM], values, free)
        heads[slot, ROOM] = 0
        heads[slot, LENGTH] = 0
