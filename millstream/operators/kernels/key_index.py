"""Loops of the key index: words to slots, and back out of the table; rows by slot, in and out.

A key is W words of 64 bits. The hash table is open addressing with linear probing, at most
half full; an entry is `FREE`, or 31 bits of the key's hash above the slot's number::

    0 │ hash, 31 bits │ slot, 32 bits

so that a look-up touches the words of a slot only where the hash agrees, and growing or
removing touches none. A removed entry's gap is closed by moving later ones up. Tried:
chaining by slot costs a cache miss more per look-up at a million keys; a power of two as size
and a mask cost less than a modulo.

All arithmetic is on unsigned words: Numba checks signed indices for being negative, and turns
a mix of both into float64. Constants are made once, since each `np.uint64(…)` inside a kernel
costs time when it is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel

FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
HASH_SHIFT = np.uint64(32)
SLOT_MASK = np.uint64(0xFFFFFFFF)

META_SLOTS_USED = 0
META_FREE_SLOTS = 1
META_LIVE = 2
META_ADDED = 3

CHANGED = np.uint8(1)
"""Flag of a slot: its key came since the last snapshot."""
KNOWN = np.uint8(2)
"""Flag of a slot: the last snapshot holds it, so its removal must be written down."""

SEED = np.uint64(0x9E3779B97F4A7C15)
FACTOR = np.uint64(0xBF58476D1CE4E5B9)
LAST_FACTOR = np.uint64(0x94D049BB133111EB)
FOLD_SHIFT = np.uint64(32)
LAST_SHIFT = np.uint64(33)

_ONE = np.uint64(1)
_TWO = np.uint64(2)


@kernel
def hash_words(words: Any, hashes: Any) -> None:
    """Mix the words of each key into its hash.

    Parameters
    ----------
    words
        uint64, shape (W, n): column by column, so that LLVM hashes eight rows at once (tried:
        7 times as fast as row by row).
    hashes
        In and out, uint64, shape (n,): `SEED` at first. `find_slots` and others take them on,
        by `LAST_FACTOR` and `LAST_SHIFT`, to 31 bits.
    """
    for column in range(len(words)):
        for row in range(len(hashes)):
            value = (hashes[row] ^ words[column, row]) * FACTOR
            hashes[row] = value ^ (value >> FOLD_SHIFT)


@kernel
def find_slots(
    words: Any,
    hashes: Any,
    begin: int,
    insert: bool,
    table: Any,
    keys: Any,
    free: Any,
    flags: Any,
    meta: Any,
    slots: Any,
    added: Any,
) -> Any:
    """Write the slot of each row's key into `slots`; return the row that needs more room.

    Parameters
    ----------
    words, hashes
        Keys of the rows and their hashes, uint64, shapes (W, n) and (n,).
    begin
        First row to do.
    insert
        Give a missing key a slot, and flag every row's slot as changed; otherwise the slot
        of a missing key is -1.
    table
        uint64, length a power of two.
    keys
        Words of each slot, uint64, shape (capacity, W).
    free
        Stack of slots that were removed, uint64, shape (capacity,).
    flags
        uint8, shape (capacity,).
    meta
        Counts, uint64: slots ever used, free slots, live keys, slots in `added`.
    slots
        Output, int64, shape (n,).
    added
        Output, int64, shape (n,): the slots of keys that were missing.

    Returns
    -------
    int
        n when all rows are done, else the first row that was not: the caller grows the
        arrays and calls again.
    """
    width = len(words)
    # Most keys have up to three words; a loop over them takes a quarter longer. Where there are
    # fewer, the last is compared again.
    second, third = min(1, width - 1), min(2, width - 1)
    first_words, second_words, third_words = words[0], words[second], words[third]
    mask = np.uint64(len(table) - 1)
    for row in range(np.uint64(begin), np.uint64(len(hashes))):
        hash_ = (hashes[row] * LAST_FACTOR) >> LAST_SHIFT
        position = hash_ & mask
        entry = table[position]
        found = FREE
        while entry != FREE:
            if entry >> HASH_SHIFT == hash_:
                slot = entry & SLOT_MASK
                same = keys[slot, 0] == first_words[row]
                same &= keys[slot, second] == second_words[row]
                same &= keys[slot, third] == third_words[row]
                for column in range(3, width):
                    same &= keys[slot, column] == words[column, row]
                if same:
                    found = slot
                    break
            position = (position + _ONE) & mask
            entry = table[position]
        if insert:
            if found == FREE:
                if (meta[META_LIVE] + _ONE) * _TWO > len(table):
                    return np.int64(row)
                if meta[META_FREE_SLOTS] > 0:
                    meta[META_FREE_SLOTS] -= _ONE
                    found = free[meta[META_FREE_SLOTS]]
                elif meta[META_SLOTS_USED] < len(keys):
                    found = meta[META_SLOTS_USED]
                    meta[META_SLOTS_USED] += _ONE
                else:
                    return np.int64(row)
                table[position] = (hash_ << HASH_SHIFT) | found
                for column in range(width):
                    keys[found, column] = words[column, row]
                added[meta[META_ADDED]] = found
                meta[META_ADDED] += _ONE
                meta[META_LIVE] += _ONE
            flags[found] |= CHANGED
        slots[row] = found  # FREE is -1
    return len(hashes)


@kernel
def remove_slots(slots: Any, hashes: Any, table: Any, free: Any, flags: Any, meta: Any) -> None:
    """Take the keys of `slots` out of the index; their slots will be given to new keys.

    Parameters
    ----------
    slots, hashes
        What goes, uint64, and the hashes of the keys.
    table, free, flags, meta
        As in `find_slots`.
    """
    mask = np.uint64(len(table) - 1)
    for index in range(len(slots)):
        slot = slots[index]
        hash_ = (hashes[index] * LAST_FACTOR) >> LAST_SHIFT
        entry = (hash_ << HASH_SHIFT) | slot
        gap = hash_ & mask
        while table[gap] != entry:
            gap = (gap + _ONE) & mask
        position = (gap + _ONE) & mask
        while table[position] != FREE:
            # An entry moves up unless its own place lies behind the gap.
            home = (table[position] >> HASH_SHIFT) & mask
            if ((position - home) & mask) >= ((position - gap) & mask):
                table[gap] = table[position]
                gap = position
            position = (position + _ONE) & mask
        table[gap] = FREE
        flags[slot] = 0
        free[meta[META_FREE_SLOTS]] = slot
        meta[META_FREE_SLOTS] += _ONE
        meta[META_LIVE] -= _ONE


@kernel
def enter_entries(entries: Any, table: Any) -> None:
    """Put entries that are not `FREE` into the empty `table`."""
    mask = np.uint64(len(table) - 1)
    for index in range(len(entries)):
        entry = entries[index]
        if entry != FREE:
            position = (entry >> HASH_SHIFT) & mask
            while table[position] != FREE:
                position = (position + _ONE) & mask
            table[position] = entry


@kernel
def gather_rows(matrix: Any, slots: Any, columns: Any) -> None:
    """Write the rows `slots` (int64) of `matrix`, shape (capacity, W), as `columns`: (W, n)."""
    for index in range(np.uint64(len(slots))):
        slot = np.uint64(slots[index])
        for column in range(np.uint64(len(columns))):
            columns[column, index] = matrix[slot, column]


@kernel
def clear_rows(matrix: Any, slots: Any) -> None:
    """Set the rows `slots` (int64) of `matrix` to zero."""
    for index in range(np.uint64(len(slots))):
        slot = np.uint64(slots[index])
        for column in range(np.uint64(matrix.shape[1])):
            matrix[slot, column] = 0
