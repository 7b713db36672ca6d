"""Finds the value at a path in JSON texts, without making anything of the rest.

What lies before the value is checked as far as it must be passed, what lies behind is not read.
"""

from __future__ import annotations

from typing import Any

from millstream.jit import inner, kernel

MISSING = 0
"""There is no such path."""
PLAIN = 1
"""A text without escapes; the span is what is between the quotes."""
ESCAPED = 2
"""A text with escapes; the span has the quotes, too."""
WORD = 3
"""A number, true or false."""
NULL = 4
NESTED = 5
"""An object or an array."""
MALFORMED = 6
HARD = 7
"""A key on the way is written with escapes, which are not read here."""

_QUOTE, _BACKSLASH, _COMMA, _COLON = 34, 92, 44, 58
_OPEN_LIST, _CLOSE_LIST, _OPEN_OBJECT, _CLOSE_OBJECT = 91, 93, 123, 125


@inner
def begins_value(first: Any) -> Any:
    """Return whether a JSON value can begin with a byte: a quote, bracket, digit, `-tfn`."""
    return first in (34, 91, 123, 45, 116, 102, 110) or 48 <= first <= 57


@inner
def after_space(data: Any, at: Any, end: Any) -> Any:
    """Return the first position from `at` on that is no white space."""
    while at < end and (data[at] == 32 or data[at] == 9 or data[at] == 10 or data[at] == 13):
        at += 1
    return at


@inner
def after_text(data: Any, at: Any, end: Any) -> Any:
    """Return the position behind the text whose quote is at `at`; -1 where it has no end."""
    at += 1
    while at < end:
        if data[at] == _BACKSLASH:
            at += 2
        elif data[at] == _QUOTE:
            return at + 1
        else:
            at += 1
    return -1


@inner
def after_value(data: Any, at: Any, end: Any) -> Any:
    """Return the position behind the value that begins at `at`; -1 where it has no end."""
    if at >= end:
        return -1
    if data[at] == _QUOTE:
        return after_text(data, at, end)
    if data[at] != _OPEN_OBJECT and data[at] != _OPEN_LIST:
        begin = at
        while at < end:
            here = data[at]
            if here in (_COMMA, _CLOSE_LIST, _CLOSE_OBJECT) or here <= 32:
                break
            at += 1
        return at if at > begin else -1
    depth = 0
    while at < end:
        here = data[at]
        if here == _QUOTE:
            at = after_text(data, at, end)
            if at < 0:
                return -1
            continue
        if here in (_OPEN_OBJECT, _OPEN_LIST):
            depth += 1
        elif here in (_CLOSE_OBJECT, _CLOSE_LIST):
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return -1


@inner
def is_key(data: Any, at: Any, end: Any, key: Any) -> Any:
    """Return whether the bytes from `at` to `end` are those of `key`."""
    if end - at != len(key):
        return False
    different = 0
    for index in range(len(key)):
        different |= data[at + index] ^ key[index]
    return different == 0


@inner
def member_at(data: Any, at: Any, end: Any, key: Any) -> Any:
    """Return where the value of a member of the object at `at` begins.

    -1: it has none of that name; -2: malformed; -3: a name is written with escapes.
    """
    at = after_space(data, at + 1, end)
    if at < end and data[at] == _CLOSE_OBJECT:
        return -1
    while True:
        if at >= end or data[at] != _QUOTE:
            return -2
        behind = after_text(data, at, end)
        if behind < 0:
            return -2
        for place in range(at, behind):
            if data[place] == _BACKSLASH:
                return -3
        found = is_key(data, at + 1, behind - 1, key)
        at = after_space(data, behind, end)
        if at >= end or data[at] != _COLON:
            return -2
        at = after_space(data, at + 1, end)
        if found:
            return at
        at = after_value(data, at, end)
        if at < 0:
            return -2
        at = after_space(data, at, end)
        if at < end and data[at] == _CLOSE_OBJECT:
            return -1
        if at >= end or data[at] != _COMMA:
            return -2
        at = after_space(data, at + 1, end)


@inner
def item_at(data: Any, at: Any, end: Any, wanted: Any) -> Any:
    """Return where item `wanted` of the array at `at` begins; -1: none; -2: malformed."""
    at = after_space(data, at + 1, end)
    if at < end and data[at] == _CLOSE_LIST:
        return -1
    for _ in range(wanted):
        at = after_value(data, at, end)
        if at < 0:
            return -2
        at = after_space(data, at, end)
        if at < end and data[at] == _CLOSE_LIST:
            return -1
        if at >= end or data[at] != _COMMA:
            return -2
        at = after_space(data, at + 1, end)
    return at


@kernel
def find_path(
    offsets: Any,
    data: Any,
    keys: Any,
    key_ends: Any,
    indices: Any,
    starts: Any,
    ends: Any,
    kinds: Any,
) -> None:
    """Write where the value at a path lies in each text, and of which kind it is.

    Parameters
    ----------
    offsets, data
        The texts: shape (n + 1,), and bytes.
    keys, key_ends
        The names of the path's steps one after another, and where each ends in them.
    indices
        For each step the item of an array that it names, or -1 where it is a name.
    starts, ends, kinds
        Written for each text: a span of `data`, and its kind.
    """
    for row in range(len(kinds)):
        end = offsets[row + 1]
        at = after_space(data, offsets[row], end)
        kinds[row] = MISSING
        if at >= end:
            kinds[row] = MALFORMED
        begin = 0
        for step in range(len(indices)):
            passed = at
            if at >= end or kinds[row] == MALFORMED:
                kinds[row] = MALFORMED
                break
            if indices[step] >= 0:
                at = item_at(data, at, end, indices[step]) if data[at] == _OPEN_LIST else -1
            else:
                key = keys[begin : key_ends[step]]
                at = member_at(data, at, end, key) if data[at] == _OPEN_OBJECT else -1
            begin = key_ends[step]
            if at < 0:
                if at == -1 and not begins_value(data[passed]):
                    at = -2
                if at < -1:
                    kinds[row] = MALFORMED if at == -2 else HARD
                break
        if at < 0 or kinds[row] != MISSING:
            starts[row] = ends[row] = offsets[row]
            continue
        behind = after_value(data, at, end)
        if behind < 0:
            kinds[row] = MALFORMED
            starts[row] = ends[row] = offsets[row]
            continue
        starts[row], ends[row] = at, behind
        first = data[at]
        if first == _QUOTE:
            kinds[row] = PLAIN
            for place in range(at + 1, behind - 1):
                if data[place] == _BACKSLASH:
                    kinds[row] = ESCAPED
                    break
            if kinds[row] == PLAIN:
                starts[row], ends[row] = at + 1, behind - 1
        elif first in (_OPEN_OBJECT, _OPEN_LIST):
            kinds[row] = NESTED
        elif first == 110:  # n
            kinds[row] = NULL
        elif begins_value(first):
            kinds[row] = WORD
        else:
            kinds[row] = MALFORMED


@kernel
def copy_spans(data: Any, starts: Any, ends: Any, offsets: Any, out: Any) -> None:
    """Copy each span of `data` to `out`, where `offsets` (int64, shape (n + 1,)) say."""
    for row in range(len(starts)):
        to = offsets[row]
        for index in range(ends[row] - starts[row]):
            out[to + index] = data[starts[row] + index]
