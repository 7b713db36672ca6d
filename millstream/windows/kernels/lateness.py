"""The loop that stamps rows with the running watermark of their partition."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)
_FOUR = np.uint64(4)
_LEAST = np.int64(-(2**63))


@kernel
def running_watermark(
    times: Any, valid: Any, greatest: int, floor: int, lateness: int, stamps: Any
) -> int:
    """Write each row's stamp; return the greatest time after the last row.

    Parameters
    ----------
    times
        Event times, int64, shape (n,), read only.
    valid
        bool, shape (n,), or (0,) where no time is null; a null one moves nothing.
    greatest
        Greatest time before the first row.
    floor, lateness
        The greatest time less `lateness` is the watermark; below `floor` it would leave int64.
    stamps
        Output, int64, shape (n,).
    """
    every = len(valid) == 0
    count = np.uint64(len(times))
    fours = count - (count & _THREE)
    # Four rows at once, so that LLVM takes maxima without branches. Tried: row by row it branches,
    # and times in some disorder then take three to four times as long, which a measurement of the
    # same rows again and again hides: the processor learns them.
    for row in range(_ZERO, fours, _FOUR):
        one, two = times[row], times[row + _ONE]
        three, four = times[row + _TWO], times[row + _THREE]
        if not every:
            one = one if valid[row] else _LEAST
            two = two if valid[row + _ONE] else _LEAST
            three = three if valid[row + _TWO] else _LEAST
            four = four if valid[row + _THREE] else _LEAST
        # Only the last maximum waits for those of the rows before.
        of_two, rest = max(one, two), max(three, four)
        of_three, of_four = max(of_two, three), max(of_two, rest)
        stamps[row] = max(greatest, floor) - lateness
        stamps[row + _ONE] = max(greatest, one, floor) - lateness
        stamps[row + _TWO] = max(greatest, of_two, floor) - lateness
        stamps[row + _THREE] = max(greatest, of_three, floor) - lateness
        greatest = max(greatest, of_four)
    for row in range(fours, count):
        stamps[row] = max(greatest, floor) - lateness
        if every or valid[row]:
            greatest = max(greatest, times[row])
    return greatest
