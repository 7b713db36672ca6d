"""Loops that gather values by the numbers of rows; -1 stands for a row that is not there."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel

_ONE = np.uint64(1)


@kernel
def take_values(values: Any, numbers: Any, taken: Any) -> None:
    """Write the values of rows, 0 for one that is not there.

    Parameters
    ----------
    values
        Unsigned integers or bool, by row.
    numbers
        int64, shape (n,).
    taken
        Output, as `values`, shape (n,).
    """
    for row in range(np.uint64(len(numbers))):
        number = numbers[row]
        taken[row] = values[np.uint64(number)] if number >= 0 else values.dtype.type(0)


@kernel
def take_ends(ends: Any, numbers: Any, offsets: Any) -> Any:
    """Write where the strings of rows begin behind one another; return where the last one ends.

    Parameters
    ----------
    ends
        uint64: row i has the bytes from `ends[i]` to `ends[i + 1]`.
    numbers
        int64, shape (n,).
    offsets
        Output, int64, shape (n + 1,).
    """
    total = np.int64(0)
    offsets[np.uint64(0)] = 0
    for row in range(np.uint64(len(numbers))):
        number = np.uint64(numbers[row])
        if numbers[row] >= 0:
            total += np.int64(ends[number + _ONE] - ends[number])
        offsets[row + _ONE] = total
    return total


@kernel
def take_bytes(ends: Any, data: Any, numbers: Any, taken: Any) -> None:
    """Write the strings of rows behind one another into `taken` (uint8); the rest as before."""
    place = np.uint64(0)
    for row in range(np.uint64(len(numbers))):
        if numbers[row] >= 0:
            number = np.uint64(numbers[row])
            begin, end = ends[number], ends[number + _ONE]
            for each in range(end - begin):
                taken[place + each] = data[begin + each]
            place += end - begin
