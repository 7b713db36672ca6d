"""Loops that look for something in texts: a word, a part between separators, a pattern.

A part is found as where it starts and where it ends when all parts lie behind each other; the
loops of `text_copies` then copy the bytes into memory that is known to be large enough::

    "https://a/b", "x", "https://c/d"   part 2 →  starts 8, ?, 20   ends 0 1 1 2   "ac"

Bytes are addressed by unsigned numbers only: LLVM then reads eight of them at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import inner, kernel
from millstream.operators.pattern_steps import ANY_BYTE, CLASS, GROUP_BEGIN, LITERAL, TEXT_END

_ONE = np.uint64(1)
_EIGHT = np.uint64(8)
_LOW_BITS = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_NO_MATCH = np.uint64(0xFFFFFFFFFFFFFFFF)
_PLACES = np.uint64(0x0001020304050607)


@inner
def find_byte(data: Any, start: Any, end: Any, byte: Any) -> Any:
    """Return where `byte` (uint64) comes first in `data` from `start` to `end`, or `end`."""
    last_word = np.uint64(len(data)) - _EIGHT if len(data) >= 8 else np.uint64(0)
    while start < end and start <= last_word and len(data) >= 8:
        word = np.uint64(0)
        for index in range(8):
            word |= np.uint64(data[start + np.uint64(index)]) << np.uint64(8 * index)
        # A byte that is equal becomes 0, from which a 1 is borrowed (Mycroft); the first one of
        # the bits that this leaves is right, and says by a product which byte it is in.
        word ^= byte * _LOW_BITS
        zeros = (word - _LOW_BITS) & ~word & _HIGH_BITS
        if zeros != np.uint64(0):
            lowest = (zeros & (~zeros + _ONE)) >> np.uint64(7)
            return min(start + (lowest * _PLACES >> np.uint64(56)), end)
        start += _EIGHT
    while start < end and np.uint64(data[start]) != byte:
        start += _ONE
    return min(start, end)


@inner
def find_text(data: Any, start: Any, end: Any, wanted: Any) -> Any:
    """Return where the bytes of `wanted` (at least one) come first, or `end` where they do not."""
    size = np.uint64(len(wanted))
    first = np.uint64(wanted[0])
    while start + size <= end:
        start = find_byte(data, start, end - size + _ONE, first)
        if start + size > end:
            break
        same = _ONE
        while same < size and data[start + same] == wanted[same]:
            same += _ONE
        if same == size:
            return start
        start += _ONE
    return end


@kernel
def contains_text(offsets: Any, data: Any, wanted: Any, found: Any) -> None:
    """Write whether each text has the bytes of `wanted`, of which there is at least one.

    Parameters
    ----------
    offsets, data
        The texts: n + 1 integers, and uint8.
    wanted
        uint8.
    found
        Output, bool, shape (n,).
    """
    for row in range(len(found)):
        end = np.uint64(offsets[row + 1])
        found[row] = find_text(data, np.uint64(offsets[row]), end, wanted) < end


@kernel
def count_text(offsets: Any, data: Any, wanted: Any, counts: Any) -> None:
    """Write how often the bytes of `wanted` are in each text, without overlaps.

    Parameters
    ----------
    offsets, data, wanted
        As for `contains_text`.
    counts
        Output, int64, shape (n,).
    """
    size = np.uint64(len(wanted))
    first = wanted[0]
    for row in range(len(counts)):
        start, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        count = 0
        if size == _ONE:
            for place in range(start, end):
                count += data[place] == first
        else:
            start = find_text(data, start, end, wanted)
            while start < end:
                count += 1
                start = find_text(data, start + size, end, wanted)
        counts[row] = count


@kernel
def find_parts(
    offsets: Any, data: Any, separator: Any, number: int, starts: Any, ends: Any, found: Any
) -> Any:
    """Find part `number` (from 0) of each text, cut at `separator`; return the bytes of all.

    Parameters
    ----------
    offsets, data
        As for `contains_text`.
    separator
        uint8, at least one.
    starts
        Output, int64, shape (n,): where the part starts in `data`.
    ends
        Output, int64, shape (n + 1,): where it will end when they lie behind each other; a text
        with fewer parts has none.
    found
        Output, bool, shape (n,): whether it has one.
    """
    size = np.uint64(len(separator))
    first = separator[0]
    total = np.int64(0)
    ends[0] = 0
    for row in range(len(starts)):
        start, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        left = number
        stop = start
        if size == _ONE:
            # Parts are short: byte after byte takes a third of the time of eight at once.
            while stop < end:
                if data[stop] == first:
                    if left == 0:
                        break
                    left -= 1
                    start = stop + _ONE
                stop += _ONE
        else:
            stop = find_text(data, start, end, separator)
            while left > 0 and stop < end:
                start = stop + size
                # What lies behind the last one may be empty, and is a part.
                stop = find_text(data, start, end, separator)
                left -= 1
        found[row] = left == 0
        starts[row] = np.int64(start)
        if left == 0:
            total += np.int64(stop - start)
        ends[row + 1] = total
    return total


@inner
def match_way(
    data: Any, here: Any, end: Any, way: Any, steps: Any, literals: Any, classes: Any, span: Any
) -> Any:
    """Return where a match ends that begins at `here`, or `_NO_MATCH`; its group is in `span`."""
    span[0] = span[1] = here
    for number in range(way[0], way[1]):
        kind, first = steps[number, 0], steps[number, 1]
        least, most = steps[number, 2], steps[number, 3]
        if kind == LITERAL:
            size = np.uint64(least)
            if here + size > end:
                return _NO_MATCH
            for place in range(size):
                if data[here + place] != literals[np.uint64(first) + place]:
                    return _NO_MATCH
            here += size
        elif kind == CLASS:
            count = 0
            while count < most and here < end and classes[first, data[here]]:
                here += _ONE
                while here < end and data[here] & 0xC0 == 0x80:
                    here += _ONE  # the rest of a character
                count += 1
            if count < least:
                return _NO_MATCH
        elif kind == TEXT_END:
            if here != end:
                return _NO_MATCH
        else:
            span[kind - GROUP_BEGIN] = here
    return here


@kernel
def find_groups(
    offsets: Any,
    data: Any,
    ways: Any,
    steps: Any,
    literals: Any,
    classes: Any,
    first_byte: int,
    starts: Any,
    ends: Any,
    found: Any,
) -> Any:
    """Find what the group of a pattern matched first in each text; return the bytes of all.

    Parameters
    ----------
    offsets, data
        As for `contains_text`.
    ways, steps, literals, classes, first_byte
        Of the pattern; see `plain_patterns.PlainPattern`.
    starts, ends, found
        Output, as of `find_parts`.
    """
    span = np.zeros(2, dtype=np.uint64)
    floating = False
    for way in range(len(ways)):
        floating |= ways[way, 2] == 0
    total = np.int64(0)
    ends[0] = 0
    for row in range(len(starts)):
        start, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        here, matched = start, False
        while not matched:
            for way in range(len(ways)):
                if ways[way, 2] == 0 or here == start:
                    stop = match_way(data, here, end, ways[way], steps, literals, classes, span)
                    if stop != _NO_MATCH:
                        matched = True
                        break
            here += _ONE
            if matched or here > end or not floating:
                break
            if first_byte != ANY_BYTE:
                here = find_byte(data, here, end, np.uint64(first_byte))
                if here >= end:
                    break
        found[row] = matched
        starts[row] = np.int64(span[0])
        if matched:
            total += np.int64(span[1] - span[0])
        ends[row + 1] = total
    return total
