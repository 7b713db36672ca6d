"""Loops of the key index: words to slots, and back out of the table.

A key is W words of 64 bits. The hash table is open addressing with linear probing, at most
half full; an entry is `FREE`, or 31 bits of the key's hash above the slot's number::

    0 │ hash, 31 bits │ slot, 32 bits

so that a look-up touches the words of a slot only where the hash agrees, and growing or
removing touches none. A removed entry's gap is closed by moving later ones up. Tried:
chaining by slot costs a cache miss more per look-up at a million keys; a power of two as size
and a mask cost less than a modulo.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel

FREE = -1

META_SLOTS_USED = 0
META_FREE_SLOTS = 1
META_LIVE = 2
META_ADDED = 3

CHANGED = 1
"""Flag of a slot: its key came since the last snapshot."""
KNOWN = 2
"""Flag of a slot: the last snapshot holds it, so its removal must be written down."""

HASH_SHIFT = 32
_SLOT_MASK = 0xFFFFFFFF


@kernel
def hash_words(words: Any, hashes: Any) -> None:
    """Write 31 bits of hash of each key.

    Parameters
    ----------
    words
        int64, shape (W, n): column by column, so that LLVM hashes eight rows at once (tried:
        7 times as fast as row by row).
    hashes
        Output, int64, shape (n,).
    """
    for row in range(len(hashes)):
        hashes[row] = -7046029254386353131
    for column in range(words.shape[0]):
        for row in range(len(hashes)):
            value = np.uint64(hashes[row] ^ words[column, row]) * np.uint64(0xBF58476D1CE4E5B9)
            hashes[row] = np.int64(value ^ (value >> np.uint64(32)))
    for row in range(len(hashes)):
        value = np.uint64(hashes[row]) * np.uint64(0x94D049BB133111EB)
        hashes[row] = np.int64(value >> np.uint64(33))


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
) -> int:
    """Write the slot of each row's key into `slots`; return the row that needs more room.

    Parameters
    ----------
    words, hashes
        Keys of the rows and their hashes, int64, shapes (W, n) and (n,).
    begin
        First row to do.
    insert
        Give a missing key a slot, and flag every row's slot as changed; otherwise the slot
        of a missing key is -1.
    table
        int64, length a power of two.
    keys
        Words of each slot, int64, shape (capacity, W).
    free
        Stack of slots that were removed, int64, shape (capacity,).
    flags
        uint8, shape (capacity,).
    meta
        Counts: slots ever used, free slots, live keys, slots in `added`.
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
    width = words.shape[0]
    mask = len(table) - 1
    for row in range(begin, len(hashes)):
        hash_ = hashes[row]
        position = hash_ & mask
        found = np.int64(-1)
        while table[position] != FREE:
            entry = table[position]
            if entry >> HASH_SHIFT == hash_:
                slot = entry & _SLOT_MASK
                same = True
                for column in range(width):
                    same &= keys[slot, column] == words[column, row]
                if same:
                    found = slot
                    break
            position = (position + 1) & mask
        if insert:
            if found < 0:
                if (meta[META_LIVE] + 1) * 2 > len(table):
                    return row
                if meta[META_FREE_SLOTS] > 0:
                    meta[META_FREE_SLOTS] -= 1
                    found = free[meta[META_FREE_SLOTS]]
                elif meta[META_SLOTS_USED] < len(keys):
                    found = meta[META_SLOTS_USED]
                    meta[META_SLOTS_USED] += 1
                else:
                    return row
                table[position] = (hash_ << HASH_SHIFT) | found
                for column in range(width):
                    keys[found, column] = words[column, row]
                added[meta[META_ADDED]] = found
                meta[META_ADDED] += 1
                meta[META_LIVE] += 1
            flags[found] |= CHANGED
        slots[row] = found
    return len(hashes)


@kernel
def remove_slots(slots: Any, hashes: Any, table: Any, free: Any, flags: Any, meta: Any) -> None:
    """Take the keys of `slots` out of the index; their slots will be given to new keys.

    Parameters
    ----------
    slots, hashes
        What goes, and the hashes of the keys, int64.
    table, free, flags, meta
        As in `find_slots`.
    """
    mask = len(table) - 1
    for index in range(len(slots)):
        slot = slots[index]
        entry = (hashes[index] << HASH_SHIFT) | slot
        gap = hashes[index] & mask
        while table[gap] != entry:
            gap = (gap + 1) & mask
        position = (gap + 1) & mask
        while table[position] != FREE:
            # An entry moves up unless its own place lies behind the gap.
            home = (table[position] >> HASH_SHIFT) & mask
            if ((position - home) & mask) >= ((position - gap) & mask):
                table[gap] = table[position]
                gap = position
            position = (position + 1) & mask
        table[gap] = FREE
        flags[slot] = 0
        free[meta[META_FREE_SLOTS]] = slot
        meta[META_FREE_SLOTS] += 1
        meta[META_LIVE] -= 1


@kernel
def enter_entries(entries: Any, table: Any) -> None:
    """Put entries that are not `FREE` into the empty `table`."""
    mask = len(table) - 1
    for index in range(len(entries)):
        entry = entries[index]
        if entry == FREE:
            continue
        position = (entry >> HASH_SHIFT) & mask
        while table[position] != FREE:
            position = (position + 1) & mask
        table[position] = entry
