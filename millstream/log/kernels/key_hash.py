"""XXH64 (Collet's xxHash specification 0.2.0, seed 0) of values, one loop a column.

Only unsigned words take part in the arithmetic: Numba turns a mix of signed and unsigned
into float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel

PRIME_1 = np.uint64(0x9E3779B185EBCA87)
PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
PRIME_3 = np.uint64(0x165667B19E3779F9)
PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
PRIME_5 = np.uint64(0x27D4EB2F165667C5)
LANES = 4


@kernel
def rotate(word: Any, bits: Any) -> Any:
    """Return `word` rotated left by `bits` (1 to 63), both unsigned."""
    return (word << bits) | (word >> (np.uint64(64) - bits))


@kernel
def round_of(accumulator: Any, lane: Any) -> Any:
    """Return an accumulator after one lane of eight bytes."""
    return rotate(accumulator + lane * PRIME_2, np.uint64(31)) * PRIME_1


@kernel
def avalanche(word: Any) -> Any:
    """Return the final mix of a hash."""
    word = (word ^ (word >> np.uint64(33))) * PRIME_2
    word = (word ^ (word >> np.uint64(29))) * PRIME_3
    return word ^ (word >> np.uint64(32))


@kernel
def add_word(value: Any, lane: Any) -> Any:
    """Return a hash under way after eight more bytes of the tail."""
    value ^= round_of(np.uint64(0), lane)
    return rotate(value, np.uint64(27)) * PRIME_1 + PRIME_4


@kernel
def hash_word(lane: Any) -> Any:
    """Return XXH64 of the eight little-endian bytes of `lane`."""
    return avalanche(add_word(PRIME_5 + np.uint64(8), lane))


@kernel
def read_word(data: Any, start: int) -> Any:
    """Return eight bytes of `data` from `start`, little-endian."""
    word = np.uint64(0)
    for index in range(8):
        word |= np.uint64(data[start + index]) << np.uint64(8 * index)
    return word


@kernel
def hash_bytes(data: Any, start: int, end: int) -> Any:
    """Return XXH64 of `data[start:end]`."""
    size = end - start
    position = start
    if size >= 32:
        one = PRIME_1 + PRIME_2
        two = PRIME_2
        three = np.uint64(0)
        four = np.uint64(0) - PRIME_1
        while position + 32 <= end:
            one = round_of(one, read_word(data, position))
            two = round_of(two, read_word(data, position + 8))
            three = round_of(three, read_word(data, position + 16))
            four = round_of(four, read_word(data, position + 24))
            position += 32
        value = (
            rotate(one, np.uint64(1))
            + rotate(two, np.uint64(7))
            + rotate(three, np.uint64(12))
            + rotate(four, np.uint64(18))
        )
        for lane in (one, two, three, four):
            value = (value ^ round_of(np.uint64(0), lane)) * PRIME_1 + PRIME_4
    else:
        value = PRIME_5
    value += np.uint64(size)
    while position + 8 <= end:
        value = add_word(value, read_word(data, position))
        position += 8
    if position + 4 <= end:
        word = np.uint64(0)
        for index in range(4):
            word |= np.uint64(data[position + index]) << np.uint64(8 * index)
        value ^= word * PRIME_1
        value = rotate(value, np.uint64(23)) * PRIME_2 + PRIME_3
        position += 4
    while position < end:
        value ^= np.uint64(data[position]) * PRIME_5
        value = rotate(value, np.uint64(11)) * PRIME_1
        position += 1
    return avalanche(value)


@kernel
def hash_numbers(values: Any, valid: Any, null_hash: Any, hashes: Any) -> None:
    """Write the hash of each 64-bit word of `values` (uint64); `valid` is empty without nulls."""
    every = len(valid) == 0
    for row in range(len(values)):
        hashes[row] = hash_word(values[row]) if every or valid[row] else null_hash


@kernel
def hash_strings(offsets: Any, data: Any, valid: Any, null_hash: Any, hashes: Any) -> None:
    """Write the hash of each string: bytes `offsets[row]` to `offsets[row + 1]` of `data`."""
    every = len(valid) == 0
    for row in range(len(hashes)):
        if every or valid[row]:
            hashes[row] = hash_bytes(data, offsets[row], offsets[row + 1])
        else:
            hashes[row] = null_hash


@kernel
def combine_hashes(hashes: Any, others: Any) -> None:
    """Replace each hash by XXH64 of its eight bytes and those of the next column's hash."""
    for row in range(len(hashes)):
        value = add_word(PRIME_5 + np.uint64(16), hashes[row])
        hashes[row] = avalanche(add_word(value, others[row]))


@kernel
def owner_of(value: Any, count: Any) -> Any:
    """Return the owner, of `count`, of a key with the hash `value`: ⌊group·count/4096⌋."""
    return ((value & np.uint64(4095)) * count) >> np.uint64(12)


@kernel
def owners_of_hashes(hashes: Any, count: Any, owners: Any) -> None:
    """Write the owner, of `count` (uint64), of each row's hash."""
    for row in range(len(hashes)):
        owners[row] = owner_of(hashes[row], count)


@kernel
def owners_of_words(words: Any, count: Any, owners: Any) -> None:
    """Do what `owners_of_hashes` does, where each row's key is a 64-bit word.

    A loop that does nothing else: the compiler hashes eight words at once in it.
    """
    for row in range(len(words)):
        owners[row] = owner_of(hash_word(words[row]), count)


@kernel
def count_rows(owners: Any, counts: Any) -> None:
    """Count the rows of each owner.

    `counts` are zeros of shape (n, LANES), for as many parts of the rows side by side: few owners'
    counters would make each row wait for the one before.
    """
    part = np.uint64(len(owners) // LANES)
    for row in range(part):
        for lane in range(LANES):
            number = np.uint64(lane) * part + np.uint64(row)
            counts[np.uint64(owners[number]), lane] += 1
    for row in range(part * np.uint64(LANES), len(owners)):
        counts[np.uint64(owners[row]), LANES - 1] += 1


@kernel
def place_by_owner(owners: Any, counts: Any, places: Any, order: Any) -> None:
    """Write to where each row goes, so that those of one owner lie together, in their order.

    `order` gets the row that goes to each place. `counts`, as `count_rows` has counted them, gets
    where each owner's rows end, in its last lane.
    """
    part = np.uint64(len(owners) // LANES)
    start = 0
    for each in range(len(counts)):
        for lane in range(LANES):
            size = counts[each, lane]
            counts[each, lane] = start
            start += size
    for row in range(part):
        for lane in range(LANES):
            number = np.uint64(lane) * part + np.uint64(row)
            owner = np.uint64(owners[number])
            place = np.uint64(counts[owner, lane])
            places[number] = place
            order[place] = number
            counts[owner, lane] += 1
    for row in range(part * np.uint64(LANES), len(owners)):
        owner = np.uint64(owners[row])
        place = np.uint64(counts[owner, LANES - 1])
        places[row] = place
        order[place] = row
        counts[owner, LANES - 1] += 1


@kernel
def scatter(values: Any, places: Any, moved: Any) -> None:
    """Write the value of each row to its place.

    Each value is read once, and written behind the last one of its owner. To gather them owner by
    owner would read all of them as often as there are owners.
    """
    for row in range(len(places)):
        moved[np.uint64(places[row])] = values[row]
