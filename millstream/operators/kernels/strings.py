"""Loops over strings: short ones as a word, long ones as a number, and both back to bytes.

A string of up to 7 bytes is a word by itself: its length in the top byte, its bytes below. A
longer one is the number that it has in the arena, with the top bit set::

    "JFK"                 03 00 00 00 │ 00 4b 46 4a
    "a longer string"     80 00 00 00 │ 00 00 00 2a     number 42

Bytes are addressed by unsigned numbers only: LLVM then reads eight of them at once (tried:
hashing 32-byte strings runs 3.4 times as fast).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel
from millstream.operators.kernels.key_index import FREE, HASH_SHIFT

SHORT_SIZE_MAX = 7
UNKNOWN = -1
"""The word of a long string that is not in the arena: no key has it."""

_INTERNED = np.int64(-(2**63))
_NUMBER_MASK = 0xFFFFFFFF


@kernel
def read_word(data: Any, start: Any) -> Any:
    """Return the eight bytes of `data` from `start` (uint64), little-endian."""
    word = np.uint64(0)
    for index in range(8):
        word |= np.uint64(data[start + np.uint64(index)]) << np.uint64(8 * index)
    return word


@kernel
def read_tail(data: Any, start: Any, size: Any) -> Any:
    """Return the `size` (uint64, up to 7) bytes of `data` from `start`, little-endian."""
    if start + np.uint64(8) <= np.uint64(len(data)):
        return read_word(data, start) & ((np.uint64(1) << (size * np.uint64(8))) - np.uint64(1))
    word = np.uint64(0)
    for index in range(size):
        word |= np.uint64(data[start + index]) << (np.uint64(8) * index)
    return word


@kernel
def string_words(offsets: Any, data: Any, valid: Any, words: Any, long_rows: Any) -> int:
    """Write strings as words; return how many were too long, their rows in `long_rows`.

    Parameters
    ----------
    offsets
        Integers, shape (n + 1,), into `data` (uint8).
    valid
        bool, shape (n,) or (0,) where none is null; a null's word is 0.
    words
        Output, int64, shape (n,); not written for the long strings.
    long_rows
        Output, int64, shape (n,).
    """
    count = 0
    for row in range(len(offsets) - 1):
        if len(valid) > 0 and not valid[row]:
            words[row] = 0
            continue
        start = np.uint64(offsets[row])
        size = np.uint64(offsets[row + 1]) - start
        if size > np.uint64(SHORT_SIZE_MAX):
            long_rows[count] = row
            count += 1
            continue
        words[row] = np.int64(read_tail(data, start, size) | (size << np.uint64(56)))
    return count


@kernel
def hash_bytes(data: Any, start: Any, size: Any) -> Any:
    """Return 31 bits of hash of the `size` bytes of `data` from `start` (both uint64)."""
    value = size * np.uint64(0x9E3779B97F4A7C15)
    end = start + size
    while start + np.uint64(8) <= end:
        value = (value ^ read_word(data, start)) * np.uint64(0xBF58476D1CE4E5B9)
        value ^= value >> np.uint64(32)
        start += np.uint64(8)
    value = (value ^ read_tail(data, start, end - start)) * np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(32)
    value *= np.uint64(0x94D049BB133111EB)
    return np.int64(value >> np.uint64(33))


@kernel
def same_bytes(data: Any, start: Any, others: Any, other: Any, size: Any) -> bool:
    """Return whether `size` bytes of `data` from `start` are those of `others` from `other`."""
    end = start + size
    while start + np.uint64(8) <= end:
        if read_word(data, start) != read_word(others, other):
            return False
        start += np.uint64(8)
        other += np.uint64(8)
    rest = end - start
    return read_tail(data, start, rest) == read_tail(others, other, rest)


@kernel
def intern_strings(
    rows: Any,
    begin: int,
    insert: bool,
    offsets: Any,
    data: Any,
    table: Any,
    ends: Any,
    arena: Any,
    words: Any,
) -> int:
    """Write the number of each long string as a word; return the index that needs more room.

    Parameters
    ----------
    rows, begin
        Rows to do (int64), from index `begin` of them.
    insert
        Keep a string that is new; otherwise its word is `UNKNOWN`.
    offsets, data
        The strings of all rows: integer offsets, uint8 bytes.
    table
        int64, length a power of two: `FREE`, or 31 bits of hash above a string's number.
    ends
        int64; `ends[0]` counts the strings kept, `ends[1 + k]` is where string k starts in
        `arena` and `ends[2 + k]` where it ends.
    arena
        uint8: the bytes of the strings kept.
    words
        Output, int64, by row: the number with the top bit set.
    """
    mask = len(table) - 1
    for index in range(begin, len(rows)):
        row = rows[index]
        start = np.uint64(offsets[row])
        size = np.uint64(offsets[row + 1]) - start
        tag = hash_bytes(data, start, size)
        position = tag & mask
        number = np.int64(-1)
        while table[position] != FREE:
            entry = table[position]
            if entry >> HASH_SHIFT == tag:
                candidate = entry & _NUMBER_MASK
                kept = np.uint64(ends[1 + candidate])
                if np.uint64(ends[2 + candidate]) - kept == size and same_bytes(
                    data, start, arena, kept, size
                ):
                    number = candidate
                    break
            position = (position + 1) & mask
        if number < 0:
            if not insert:
                words[row] = UNKNOWN
                continue
            number = ends[0]
            used = np.uint64(ends[1 + number])
            if (
                (number + 1) * 2 > len(table)
                or number + 2 >= len(ends)
                or used + size > np.uint64(len(arena))
            ):
                return index
            for step in range(size):
                arena[used + step] = data[start + step]
            ends[0] = number + 1
            ends[2 + number] = used + size
            table[position] = (tag << HASH_SHIFT) | number
        words[row] = number | _INTERNED
    return len(rows)


@kernel
def decode_strings(words: Any, ends: Any, arena: Any, offsets: Any, data: Any) -> Any:
    """Write the strings that `words` stand for; return how many bytes they have.

    Parameters
    ----------
    words
        int64, shape (n,).
    ends, arena
        The strings kept; see `intern_strings`.
    offsets
        Output, int64, shape (n + 1,): where each string starts.
    data
        Output, uint8; empty: only the offsets are written, to learn the size.
    """
    write = len(data) > 0
    end = np.uint64(0)
    offsets[0] = 0
    for row in range(len(words)):
        word = words[row]
        if word >= 0:
            size = np.uint64(word) >> np.uint64(56)
            if write:
                for step in range(size):
                    data[end + step] = (np.uint64(word) >> (np.uint64(8) * step)) & np.uint64(255)
        else:
            number = word ^ _INTERNED
            start = np.uint64(ends[1 + number])
            size = np.uint64(ends[2 + number]) - start
            if write:
                for step in range(size):
                    data[end + step] = arena[start + step]
        end += size
        offsets[row + 1] = end
    return np.int64(end)
