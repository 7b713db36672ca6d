"""Loops that write texts: parts of others, letters in their other case, one of several texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel

_ONE = np.uint64(1)
_SIXTEEN = np.uint64(16)


@kernel
def copy_parts(data: Any, starts: Any, ends: Any, written: Any) -> None:
    """Copy parts of `data` behind each other into `written`, as `find_parts` found them.

    Parameters
    ----------
    data
        uint8.
    starts, ends
        As `find_parts` writes them.
    written
        Output, uint8.
    """
    size = np.uint64(len(data))
    room = np.uint64(len(written))
    for row in range(len(starts)):
        start = np.uint64(starts[row])
        here, end = np.uint64(ends[row]), np.uint64(ends[row + 1])
        # Sixteen bytes at once, which the next part writes over: most parts are short.
        while here < end and here + _SIXTEEN <= room and start + _SIXTEEN <= size:
            for index in range(16):
                written[here + np.uint64(index)] = data[start + np.uint64(index)]
            here += _SIXTEEN
            start += _SIXTEEN
        while here < end:
            written[here] = data[start]
            here += _ONE
            start += _ONE


@kernel
def change_case(data: Any, first: int, written: Any) -> Any:
    """Write `data` with the 26 letters from `first` in their other case.

    Returns `False`, and has written anything, where there is a byte beyond ASCII.

    Parameters
    ----------
    data
        uint8.
    first
        The code of "A" to make them small, or of "a" to make them great.
    written
        Output, uint8, as long.
    """
    beyond = np.uint8(0)
    least = np.uint8(first)
    for place in range(len(data)):
        byte = data[place]
        beyond |= byte
        letter = np.uint8(byte - least) < np.uint8(26)
        written[place] = byte ^ (np.uint8(32) if letter else np.uint8(0))
    return beyond < np.uint8(128)


@kernel
def constant_sizes(choices: Any, offsets: Any, sizes: Any) -> None:
    """Write the size of the constant that each row chooses.

    Parameters
    ----------
    choices
        int8, shape (n,).
    offsets
        Of all choices' constants; a choice that is a column has an empty one.
    sizes
        Output, int64, shape (n + 1,): item i + 1 is the size of row i.
    """
    for row in range(len(choices)):
        choice = np.uint64(choices[row])
        sizes[row + 1] = np.int64(offsets[choice + _ONE]) - np.int64(offsets[choice])


@kernel
def chosen_sizes(choices: Any, number: int, offsets: Any, sizes: Any) -> None:
    """Write the sizes of a column's texts for those rows that choose them.

    Parameters
    ----------
    choices, sizes
        As for `constant_sizes`.
    number
        Which choice the column is.
    offsets
        Of its texts: n + 1 integers.
    """
    for row in range(len(choices)):
        if choices[row] == number:
            sizes[row + 1] = np.int64(offsets[row + 1]) - np.int64(offsets[row])


@kernel
def copy_constants(choices: Any, offsets: Any, data: Any, ends: Any, written: Any) -> None:
    """Copy the constants that rows choose.

    Parameters
    ----------
    choices, offsets
        As for `constant_sizes`.
    data
        uint8, of the constants.
    ends
        int64, shape (n + 1,): where each row begins and ends in `written`.
    written
        Output, uint8.
    """
    for row in range(len(choices)):
        choice = np.uint64(choices[row])
        here = np.uint64(ends[row])
        for place in range(np.uint64(offsets[choice]), np.uint64(offsets[choice + _ONE])):
            written[here] = data[place]
            here += _ONE


@kernel
def copy_chosen(
    choices: Any, number: int, offsets: Any, data: Any, ends: Any, written: Any
) -> None:
    """Copy the texts of a column for those rows that choose them.

    Parameters
    ----------
    choices, number, offsets
        As for `chosen_sizes`.
    data, ends, written
        As for `copy_constants`.
    """
    for row in range(len(choices)):
        if choices[row] == number:
            start = np.uint64(offsets[row])
            for here in range(np.uint64(ends[row]), np.uint64(ends[row + 1])):
                written[here] = data[start]
                start += _ONE
