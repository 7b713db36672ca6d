"""The loop that stamps rows with the running watermark of their partition."""

from __future__ import annotations

from typing import Any

from millstream.jit import kernel


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
    for row in range(len(times)):
        stamps[row] = (greatest if greatest > floor else floor) - lateness
        if times[row] > greatest and (every or valid[row]):
            greatest = times[row]
    return greatest
