"""Loops of the key index: keys to words, words to slots.

A key is W words of 64 bits. The hash table is open addressing with linear probing; an entry
is a slot number, `FREE` or `REMOVED`. Tried: chaining by slot costs a cache miss more per
look-up at a million keys; a power of two as size and a mask cost less than a modulo.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel

FREE = -1
REMOVED = -2

SHORT_STRING_SIZE_MAX = 7
"""Strings up to this many bytes are a word by themselves: length in the top byte, bytes below."""

META_SLOTS_USED = 0
META_FREE_SLOTS = 1
META_TABLE_FILLED = 2
META_LIVE = 3


@kernel
def mix(word: Any) -> Any:
    """Return the bits of an unsigned word spread over all of it (splitmix64's finalizer)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@kernel
def hash_words(words: Any, row: int, width: int) -> Any:
    """Return a hash of the `width` words in `row` of the matrix `words`."""
    value = np.uint64(0x9E3779B97F4A7C15)
    for column in range(width):
        value = mix(value ^ np.uint64(words[row, column]))
    return value


@kernel
def find_slots(
    words: Any, begin: int, insert: bool, table: Any, keys: Any, free: Any, meta: Any, slots: Any
) -> int:
    """Write the slot of each row's key into `slots`; return the row that needs more room.

    Parameters
    ----------
    words
        Keys of the rows, int64, shape (n, W).
    begin
        First row to do.
    insert
        Give a missing key a slot; otherwise its slot is -1.
    table
        int64, length a power of two.
    keys
        Words of each slot, int64, shape (capacity, W).
    free
        Stack of slots that were removed, int64, shape (capacity,).
    meta
        Counts: slots ever used, free slots, table entries that are not `FREE`, live keys.
    slots
        Output, int64, shape (n,).

    Returns
    -------
    int
        n when all rows are done, else the first row that was not: the caller grows the
        arrays and calls again.
    """
    width = words.shape[1]
    mask = len(table) - 1
    for row in range(begin, words.shape[0]):
        position = np.int64(hash_words(words, row, width) & np.uint64(mask))
        place = np.int64(-1)
        found = -1
        while True:
            slot = table[position]
            if slot == FREE:
                break
            if slot == REMOVED:
                if place < 0:
                    place = position
            else:
                same = True
                for column in range(width):
                    if keys[slot, column] != words[row, column]:
                        same = False
                        break
                if same:
                    found = slot
                    break
            position = (position + 1) & mask
        if found < 0 and insert:
            if (meta[META_TABLE_FILLED] + 1) * 2 > len(table):
                return row
            if meta[META_FREE_SLOTS] > 0:
                meta[META_FREE_SLOTS] -= 1
                found = free[meta[META_FREE_SLOTS]]
            else:
                if meta[META_SLOTS_USED] == len(keys):
                    return row
                found = meta[META_SLOTS_USED]
                meta[META_SLOTS_USED] += 1
            if place < 0:
                place = position
                meta[META_TABLE_FILLED] += 1
            table[place] = found
            meta[META_LIVE] += 1
            for column in range(width):
                keys[found, column] = words[row, column]
        slots[row] = found
    return words.shape[0]


@kernel
def remove_slots(slots: Any, table: Any, keys: Any, free: Any, meta: Any) -> None:
    """Take the keys of `slots` out of the index; their slots will be given to new keys."""
    width = keys.shape[1]
    mask = len(table) - 1
    for index in range(len(slots)):
        slot = slots[index]
        position = np.int64(hash_words(keys, slot, width) & np.uint64(mask))
        while table[position] != slot:
            position = (position + 1) & mask
        table[position] = REMOVED
        free[meta[META_FREE_SLOTS]] = slot
        meta[META_FREE_SLOTS] += 1
        meta[META_LIVE] -= 1


@kernel
def rehash(old: Any, table: Any, keys: Any, meta: Any) -> None:
    """Enter the slots of the table `old` into the empty, larger `table`."""
    width = keys.shape[1]
    mask = len(table) - 1
    meta[META_TABLE_FILLED] = 0
    for index in range(len(old)):
        slot = old[index]
        if slot < 0:
            continue
        position = np.int64(hash_words(keys, slot, width) & np.uint64(mask))
        while table[position] != FREE:
            position = (position + 1) & mask
        table[position] = slot
        meta[META_TABLE_FILLED] += 1


@kernel
def string_words(
    offsets: Any, data: Any, valid: Any, words: Any, column: int, long_rows: Any
) -> int:
    """Write strings as words; return how many were too long, their rows in `long_rows`.

    Parameters
    ----------
    offsets
        int64, shape (n + 1,), into `data` (uint8).
    valid
        bool, shape (n,) or (0,) where none is null; a null's word is 0.
    words
        Output matrix; column `column` is written, except for the long strings.
    long_rows
        Output, int64, shape (n,).
    """
    count = 0
    for row in range(len(offsets) - 1):
        if len(valid) > 0 and not valid[row]:
            words[row, column] = 0
            continue
        start = offsets[row]
        size = offsets[row + 1] - start
        if size > SHORT_STRING_SIZE_MAX:
            long_rows[count] = row
            count += 1
            continue
        word = np.int64(size) << 56
        for index in range(size):
            word |= np.int64(data[start + index]) << (8 * index)
        words[row, column] = word
    return count


@kernel
def hash_bytes(data: Any, start: int, end: int) -> Any:
    """Return a hash of `data[start:end]`, eight bytes at a time."""
    value = np.uint64(end - start) * np.uint64(0x9E3779B97F4A7C15)
    index = start
    while index < end:
        word = np.uint64(0)
        for step in range(min(8, end - index)):
            word |= np.uint64(data[index + step]) << np.uint64(8 * step)
        value = mix(value ^ word)
        index += 8
    return value


@kernel
def intern_strings(
    rows: Any,
    begin: int,
    offsets: Any,
    data: Any,
    table: Any,
    ends: Any,
    arena: Any,
    words: Any,
    column: int,
) -> int:
    """Write the number of each long string as a word; return the index that needs more room.

    Parameters
    ----------
    rows, begin
        Rows to do (int64), from index `begin` of them.
    offsets, data
        The strings of all rows: int64 offsets, uint8 bytes.
    table
        int64, length a power of two, of string numbers or `FREE`.
    ends
        int64; `ends[0]` counts the strings kept, `ends[1 + k]` is where string k starts in
        `arena` and `ends[2 + k]` where it ends.
    arena
        uint8: the bytes of the strings kept.
    words, column
        Output: the number with the top bit set.
    """
    mask = len(table) - 1
    for index in range(begin, len(rows)):
        row = rows[index]
        start = offsets[row]
        size = offsets[row + 1] - start
        position = np.int64(hash_bytes(data, start, start + size) & np.uint64(mask))
        number = np.int64(-1)
        while table[position] != FREE:
            candidate = table[position]
            kept = ends[1 + candidate]
            if ends[2 + candidate] - kept == size:
                same = True
                for step in range(size):
                    if arena[kept + step] != data[start + step]:
                        same = False
                        break
                if same:
                    number = candidate
                    break
            position = (position + 1) & mask
        if number < 0:
            number = ends[0]
            kept = ends[1 + number]
            if (number + 1) * 2 > len(table) or number + 3 > len(ends) or kept + size > len(arena):
                return index
            for step in range(size):
                arena[kept + step] = data[start + step]
            ends[0] = number + 1
            ends[2 + number] = kept + size
            table[position] = number
        words[row, column] = np.int64(number) | np.int64(-9223372036854775808)
    return len(rows)


@kernel
def rehash_strings(table: Any, ends: Any, arena: Any) -> None:
    """Enter all strings kept into the empty `table`."""
    mask = len(table) - 1
    for number in range(ends[0]):
        position = np.int64(hash_bytes(arena, ends[1 + number], ends[2 + number]) & np.uint64(mask))
        while table[position] != FREE:
            position = (position + 1) & mask
        table[position] = number
