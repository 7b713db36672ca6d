"""Loops over strings: short ones as a word, long ones as a number, and both back to bytes.

A string of up to 7 bytes is a word by itself: its length in the top byte, its bytes below. A
longer one is the number that it has in the arena, with the top bit set::

    "JFK"                 03 00 00 00 │ 00 4b 46 4a
    "a longer string"     80 00 00 00 │ 00 00 00 2a     number 42

Bytes are addressed by unsigned numbers only: LLVM then reads eight of them at once (tried:
hashing 32-byte strings runs 3.4 times as fast; so do short strings of varying length).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import inner, kernel
from millstream.operators.kernels.key_index import (
    FACTOR,
    FOLD_SHIFT,
    FREE,
    HASH_SHIFT,
    LAST_FACTOR,
    LAST_SHIFT,
    SEED,
    SLOT_MASK,
)

SHORT_SIZE_MAX = np.uint64(7)
INTERNED = np.uint64(1 << 63)
UNKNOWN = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The word of a long string that is not in the arena: no key has it."""

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_EIGHT = np.uint64(8)
_SIZE_SHIFT = np.uint64(56)
_BYTE = np.uint64(0xFF)


@inner
def read_word(data: Any, start: Any) -> Any:
    """Return the eight bytes of `data` from `start` (uint64), little-endian."""
    word = _ZERO
    for index in range(8):
        word |= data[start + np.uint64(index)] << np.uint64(8 * index)
    return word


@inner
def read_tail(data: Any, start: Any, size: Any) -> Any:
    """Return the `size` (uint64, up to 7) bytes of `data` from `start`, little-endian."""
    if start + _EIGHT <= np.uint64(len(data)):
        return read_word(data, start) & ((_ONE << (size * _EIGHT)) - _ONE)
    word = _ZERO
    for index in range(size):
        word |= data[start + index] << (_EIGHT * index)
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
        Output, uint64, shape (n,); not written for the long strings.
    long_rows
        Output, int64, shape (n,).
    """
    count = 0
    every = len(valid) == 0
    for row in range(len(words)):
        if every or valid[row]:
            start = np.uint64(offsets[row])
            size = np.uint64(offsets[row + 1]) - start
            if size > SHORT_SIZE_MAX:
                long_rows[count] = row
                count += 1
            else:
                words[row] = read_tail(data, start, size) | (size << _SIZE_SHIFT)
        else:
            words[row] = _ZERO
    return count


@inner
def hash_bytes(data: Any, start: Any, size: Any) -> Any:
    """Return 31 bits of hash of the `size` bytes of `data` from `start` (both uint64)."""
    value = SEED ^ size
    end = start + size
    while start + _EIGHT <= end:
        value = (value ^ read_word(data, start)) * FACTOR
        value ^= value >> FOLD_SHIFT
        start += _EIGHT
    value = (value ^ read_tail(data, start, end - start)) * FACTOR
    value ^= value >> FOLD_SHIFT
    return (value * LAST_FACTOR) >> LAST_SHIFT


@inner
def same_bytes(data: Any, start: Any, others: Any, other: Any, size: Any) -> bool:
    """Return whether `size` bytes of `data` from `start` are those of `others` from `other`."""
    end = start + size
    while start + _EIGHT <= end:
        if read_word(data, start) != read_word(others, other):
            return False
        start += _EIGHT
        other += _EIGHT
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
        uint64, length a power of two: `FREE`, or 31 bits of hash above a string's number.
    ends
        uint64; `ends[0]` counts the strings kept, `ends[1 + k]` is where string k starts in
        `arena` and `ends[2 + k]` where it ends.
    arena
        uint8: the bytes of the strings kept.
    words
        Output, uint64, by row: the number with the top bit set.
    """
    mask = np.uint64(len(table) - 1)
    for index in range(begin, len(rows)):
        row = rows[index]
        start = np.uint64(offsets[row])
        size = np.uint64(offsets[row + 1]) - start
        hash_ = hash_bytes(data, start, size)
        position = hash_ & mask
        entry = table[position]
        number = FREE
        while entry != FREE:
            if entry >> HASH_SHIFT == hash_:
                candidate = entry & SLOT_MASK
                kept = ends[candidate + _ONE]
                if ends[candidate + _TWO] - kept == size and same_bytes(
                    data, start, arena, kept, size
                ):
                    number = candidate
                    break
            position = (position + _ONE) & mask
            entry = table[position]
        if number == FREE:
            if not insert:
                words[row] = UNKNOWN
                continue
            number = ends[0]
            used = ends[number + _ONE]
            if (
                (number + _ONE) * _TWO > len(table)
                or number + _TWO >= len(ends)
                or used + size > len(arena)
            ):
                return index
            for step in range(size):
                arena[used + step] = data[start + step]
            ends[0] = number + _ONE
            ends[number + _TWO] = used + size
            table[position] = (hash_ << HASH_SHIFT) | number
        words[row] = number | INTERNED
    return len(rows)


@kernel
def decode_strings(words: Any, ends: Any, arena: Any, offsets: Any, data: Any) -> Any:
    """Write the strings that `words` stand for; return how many bytes they have.

    Parameters
    ----------
    words
        uint64, shape (n,).
    ends, arena
        The strings kept; see `intern_strings`.
    offsets
        Output, int64, shape (n + 1,): where each string starts.
    data
        Output, uint8; empty: only the offsets are written, to learn the size.
    """
    write = len(data) > 0
    end = _ZERO
    offsets[0] = 0
    for row in range(len(words)):
        word = words[row]
        if word < INTERNED:
            size = word >> _SIZE_SHIFT
            if write:
                for step in range(size):
                    data[end + step] = (word >> (_EIGHT * step)) & _BYTE
        else:
            start = ends[(word ^ INTERNED) + _ONE]
            size = ends[(word ^ INTERNED) + _TWO] - start
            if write:
                for step in range(size):
                    data[end + step] = arena[start + step]
        end += size
        offsets[row + 1] = end
    return end
