"""Loops over rows in order: for each slot a block of one arena, the best row first.

An entry is the words by which rows are ordered, ascending, and the row's number::

    heads[slot] = begin │ room │ length        arena  … │ words │ number │ words │ number │ …

Blocks have room for a power of two of entries; those that were given back are chained by their
size, the first word of each being where the next one begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import inner, kernel

BEGIN, ROOM, LENGTH = 0, 1, 2
NONE = -1
SIZES = 48
META_USED = 0
META_TOUCHED = 1
META_BEFORE = 2


@inner
def _give_back(begin: Any, room: Any, arena: Any, free: Any) -> None:
    size = 0
    while (1 << size) < room:
        size += 1
    arena[begin, 0] = free[size]
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
        free[size] = arena[begin, 0]
    else:
        begin = meta[META_USED]
        if begin + wanted > len(arena):
            return False
        meta[META_USED] = begin + wanted
    for index in range(length):
        for word in range(arena.shape[1]):
            arena[begin + index, word] = arena[old + index, word]
    if room > 0:
        _give_back(old, room, arena, free)
    heads[slot, BEGIN] = begin
    heads[slot, ROOM] = wanted
    return True


@inner
def _is_before(words: Any, row: Any, arena: Any, entry: Any, width: Any) -> Any:
    """Return whether a row comes before an entry, by their first `width` words."""
    for word in range(width):
        if words[row, word] != arena[entry, word]:
            return words[row, word] < arena[entry, word]
    return False


@inner
def _is_equal(words: Any, row: Any, arena: Any, entry: Any) -> Any:
    equal = True
    for word in range(words.shape[1]):
        equal &= words[row, word] == arena[entry, word]
    return equal


@inner
def _place_of(words: Any, row: Any, arena: Any, begin: Any, length: Any) -> Any:
    """Return how many of a block's entries come before a row or are equal to it."""
    low, high = 0, length
    while low < high:
        middle = (low + high) // 2
        if _is_before(words, row, arena, begin + middle, words.shape[1]):
            high = middle
        else:
            low = middle + 1
    return low


@inner
def _best(slot: Any, limit: Any, tied: Any, heads: Any, arena: Any) -> Any:
    """Return how many entries of a slot are its best.

    Those are the first `limit`, and with `tied` words those that are equal by them to the last.
    """
    length = heads[slot, LENGTH]
    count = min(length, limit)
    if tied == 0 or count < limit:
        return count
    last = heads[slot, BEGIN] + limit - 1
    while count < length:
        for word in range(tied):
            if arena[heads[slot, BEGIN] + count, word] != arena[last, word]:
                return count
        count += 1
    return count


@inner
def _is_behind(words: Any, row: Any, arena: Any, entry: Any, tied: Any) -> Any:
    """Return whether a row that comes after an entry is not as good as it by `tied` words."""
    differs = tied == 0
    for word in range(tied):
        differs |= words[row, word] != arena[entry, word]
    return differs


@inner
def _touch(
    slot: Any,
    limit: Any,
    tied: Any,
    heads: Any,
    arena: Any,
    marks: Any,
    meta: Any,
    touched: Any,
    before: Any,
) -> None:
    """Note a slot and which rows are its best, once a batch: before anything changes there."""
    if marks[slot] != 0:
        return
    marks[slot] = 1
    touched[meta[META_TOUCHED], 0] = slot
    count = _best(slot, limit, tied, heads, arena)
    touched[meta[META_TOUCHED], 1] = count
    meta[META_TOUCHED] += 1
    for index in range(count):
        before[meta[META_BEFORE]] = arena[heads[slot, BEGIN] + index, arena.shape[1] - 1]
        meta[META_BEFORE] += 1


@inner
def _is_after(words: Any, row: Any, entries: Any, entry: Any, width: Any) -> Any:
    """Return whether a row comes behind an entry, by their first `width` words."""
    for word in range(width):
        if words[row, word] != entries[entry, word]:
            return words[row, word] > entries[entry, word]
    return False


@inner
def _open_block(
    slot: Any, block: Any, limit: Any, heads: Any, arena: Any, best: Any, lengths: Any
) -> None:
    """Begin a block of `best` with the best entries of a slot."""
    count = min(heads[slot, LENGTH], limit)
    for index in range(count):
        for word in range(best.shape[1]):
            best[block * limit + index, word] = arena[heads[slot, BEGIN] + index, word]
    lengths[block] = count


@inner
def _keep_best(words: Any, row: Any, block: Any, limit: Any, best: Any, lengths: Any) -> None:
    """Put a row's words among the best `limit` of a block, where they are."""
    first, length, width = block * limit, lengths[block], words.shape[1]
    place = min(length, limit - 1)
    while place > 0 and _is_before(words, row, best, first + place - 1, width):
        for word in range(width):
            best[first + place, word] = best[first + place - 1, word]
        place -= 1
    for word in range(width):
        best[first + place, word] = words[row, word]
    lengths[block] = min(length + 1, limit)


@kernel
def find_candidates(
    slots: Any,
    words: Any,
    limit: int,
    heads: Any,
    arena: Any,
    places: Any,
    best: Any,
    lengths: Any,
    owners: Any,
    candidates: Any,
) -> Any:
    """Write which rows may be among the best `limit` of their slots after all; return how many.

    A row is none that comes behind the `limit` best of its slot and of the batch together.

    Parameters
    ----------
    slots, words
        int64, shapes (n,) and (n, width): where rows go, and the first words of their order.
    heads, arena
        The blocks.
    places
        By slot, int64, `NONE`; left as it came.
    best, lengths, owners
        Room, int64: of as many slots as fit, the words of the best `limit`, shape (·, width), and
        how many those are; the slots, shape (n,). Rows of other slots are compared with the
        blocks only.
    candidates
        Output, int64, shape (n,).
    """
    seen, blocks, width = 0, len(best) // limit, words.shape[1]
    for row in range(np.uint64(len(slots))):
        slot = np.uint64(slots[row])
        place = places[slot]
        if place == NONE:
            place = places[slot] = seen
            owners[seen] = slots[row]
            if seen < blocks:
                _open_block(slot, seen, limit, heads, arena, best, lengths)
            seen += 1
        if place < blocks:
            last = np.uint64((place + 1) * limit - 1)
            has_room = lengths[np.uint64(place)] < limit
            if has_room or _is_before(words, row, best, last, width):
                _keep_best(words, row, place, limit, best, lengths)
    count = 0
    for row in range(np.uint64(len(slots))):
        slot = np.uint64(slots[row])
        place = places[slot]
        behind = False
        if place < blocks:
            last = np.uint64((place + 1) * limit - 1)
            is_full = lengths[np.uint64(place)] == limit
            behind = is_full and _is_after(words, row, best, last, width)
        elif heads[slot, LENGTH] >= limit:
            last = np.uint64(heads[slot, BEGIN] + limit - 1)
            behind = _is_after(words, row, arena, last, width)
        if not behind:
            candidates[count] = row
            count += 1
    for index in range(seen):
        places[owners[index]] = NONE
    return count


@kernel
def apply_rows(
    slots: Any,
    words: Any,
    weights: Any,
    first: int,
    base: int,
    limit: int,
    tied: int,
    keeps_all: bool,
    heads: Any,
    arena: Any,
    free: Any,
    meta: Any,
    marks: Any,
    touched: Any,
    before: Any,
) -> Any:
    """Put rows into their blocks, or take them out; return the row that needs more room.

    Parameters
    ----------
    slots, words, weights
        int64, shapes (n,), (n, words) and (n,): where a row goes, by what it is ordered, and +1
        if it comes or -1 if it goes.
    first
        The first row to do.
    base
        Number of row 0.
    limit, tied
        How many rows of a slot are its best; by how many words rows are tied with the last of
        them, and of the best, too (0: none are).
    keeps_all
        Keep the others, too, since one of the best may be taken out.
    heads, arena, free, meta, marks
        The blocks; counts of what is used of the arena, `touched` and `before`; uint8 by slot.
    touched, before
        Output: slots in which something changed, with how many rows were their best, int64,
        shape (·, 2); the numbers of those rows, slot by slot.

    Returns
    -------
    int
        n when all rows are done, -2 - row where `before` may be too small, else the row before
        which the arena is to be made larger.
    """
    number = arena.shape[1] - 1
    for row in range(first, len(slots)):
        slot = slots[row]
        noted = _best(slot, limit, tied, heads, arena)
        if meta[META_BEFORE] + noted > len(before) and marks[slot] == 0:
            return -2 - row
        begin, length = heads[slot, BEGIN], heads[slot, LENGTH]
        place = _place_of(words, row, arena, begin, length)
        if weights[row] < 0:
            if place == 0 or not _is_equal(words, row, arena, begin + place - 1):
                continue
            _touch(slot, limit, tied, heads, arena, marks, meta, touched, before)
            for index in range(place - 1, length - 1):
                for word in range(arena.shape[1]):
                    arena[begin + index, word] = arena[begin + index + 1, word]
            heads[slot, LENGTH] = length - 1
            continue
        full = not keeps_all and length >= limit
        if full and place >= limit and _is_behind(words, row, arena, begin + limit - 1, tied):
            continue
        drops_last = full and tied == 0
        if length == heads[slot, ROOM] and not drops_last:
            if not _make_room(slot, heads, arena, free, meta):
                return row
            begin = heads[slot, BEGIN]
        _touch(slot, limit, tied, heads, arena, marks, meta, touched, before)
        last = length - 1 if drops_last else length
        for index in range(last, place, -1):
            for word in range(arena.shape[1]):
                arena[begin + index, word] = arena[begin + index - 1, word]
        for word in range(words.shape[1]):
            arena[begin + place, word] = words[row, word]
        arena[begin + place, number] = base + row
        heads[slot, LENGTH] = last + 1
        if full:
            heads[slot, LENGTH] = _best(slot, limit, tied, heads, arena)
    return len(slots)


@kernel
def count_best(slots: Any, limit: int, tied: int, heads: Any, arena: Any, counts: Any) -> None:
    """Write how many entries of each slot are its best; `limit` and `tied` as in `apply_rows`."""
    for index in range(len(slots)):
        counts[index] = _best(slots[index], limit, tied, heads, arena)


@kernel
def gather_numbers(slots: Any, counts: Any, heads: Any, arena: Any, numbers: Any) -> None:
    """Write the rows' numbers of the first `counts` entries of each slot."""
    place = 0
    for index in range(len(slots)):
        begin = heads[slots[index], BEGIN]
        for entry in range(counts[index]):
            numbers[place] = arena[begin + entry, arena.shape[1] - 1]
            place += 1


@kernel
def compare_best(
    counts_before: Any, before: Any, counts: Any, after: Any, seen: Any, numbers: Any, weights: Any
) -> Any:
    """Write which rows went from among the best of slots and which came; return how many.

    Parameters
    ----------
    counts_before, counts
        Of each slot how many rows were and are its best, int64, shape (n,).
    before, after
        The numbers of those rows, slot by slot, int64.
    seen
        By row number, bool, `False`; left as it came.
    numbers, weights
        Output, int64, as long as `before` and `after` together: slot by slot, first the rows that
        went, -1 each, then those that came, +1.
    """
    count, first, first_before = 0, 0, 0
    for slot in range(len(counts)):
        end, end_before = first + counts[slot], first_before + counts_before[slot]
        for index in range(first, end):
            seen[after[index]] = True
        for index in range(first_before, end_before):
            if not seen[before[index]]:
                numbers[count], weights[count] = before[index], -1
                count += 1
            seen[before[index]] = False
        for index in range(first, end):
            if seen[after[index]]:
                numbers[count], weights[count] = after[index], 1
                count += 1
            seen[after[index]] = False
        first, first_before = end, end_before
    return count


@kernel
def compare_ranked(
    counts_before: Any,
    before: Any,
    counts: Any,
    after: Any,
    seen: Any,
    numbers: Any,
    weights: Any,
    ranks: Any,
) -> Any:
    """Do as `compare_best`, where a row of another rank is another row; write the ranks, from 1 on.

    `seen` is int64 by row number, 0.
    """
    count, first, first_before = 0, 0, 0
    for slot in range(len(counts)):
        end, end_before = first + counts[slot], first_before + counts_before[slot]
        for index in range(first, end):
            seen[after[index]] = index - first + 1
        for index in range(first_before, end_before):
            rank = index - first_before + 1
            if seen[before[index]] == rank:
                seen[before[index]] = 0
                continue
            numbers[count], weights[count], ranks[count] = before[index], -1, rank
            count += 1
        for index in range(first, end):
            if seen[after[index]] != 0:
                numbers[count], weights[count], ranks[count] = after[index], 1, index - first + 1
                count += 1
                seen[after[index]] = 0
        first, first_before = end, end_before
    return count


@kernel
def write_numbers(slots: Any, heads: Any, arena: Any, places: Any) -> None:
    """Give the rows of slots other numbers: `places` by the old ones."""
    for index in range(len(slots)):
        begin = heads[slots[index], BEGIN]
        for entry in range(begin, begin + heads[slots[index], LENGTH]):
            arena[entry, arena.shape[1] - 1] = places[arena[entry, arena.shape[1] - 1]]


@kernel
def clear_blocks(slots: Any, heads: Any, arena: Any, free: Any) -> None:
    """Forget the entries of slots."""
    for index in range(len(slots)):
        slot = slots[index]
        if heads[slot, ROOM] > 0:
            _give_back(heads[slot, BEGIN], heads[slot, ROOM], arena, free)
        heads[slot, ROOM] = 0
        heads[slot, LENGTH] = 0
