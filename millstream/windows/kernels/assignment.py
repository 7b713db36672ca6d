"""The loop that gives rows their windows and says which come too late for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.jit import kernel


@kernel
def assign_windows(
    times: Any,
    stamps: Any,
    first: int,
    size: int,
    windows_per_us: float,
    span: int,
    least_stamp: int,
    ended_start: int,
    starts: Any,
    late: Any,
) -> int:
    """Write the start of each row's window, and whether the row is late; return how many are.

    Parameters
    ----------
    times
        Event times, int64, shape (n,), from `first` to 2**52 microseconds behind it.
    stamps
        The rows' stamps, int64, shape (n,), or (0,) where they have none.
    first
        Start of a window, that of the least time or an earlier one.
    size, windows_per_us
        Of a window, and its reciprocal: LLVM multiplies eight rows at once, but divides each.
    span
        A row is late if its window starts this long before its stamp, or longer ...
    least_stamp
        ... its stamp being this at the least, `span` away from the ends of int64 ...
    ended_start
        ... or if its window starts by this.
    starts
        Output, int64, shape (n,).
    late
        Output, bool, shape (n,).
    """
    count = 0
    stamped = len(stamps) > 0
    for row in range(np.uint64(len(times))):
        time = times[row]
        # The product is at most one off, to either side.
        start = first + np.int64(np.float64(time - first) * windows_per_us) * size
        start -= size if time < start else 0
        start += size if time - start >= size else 0
        stamp = max(stamps[row], least_stamp) if stamped else least_stamp
        is_late = (start <= stamp - span) | (start <= ended_start)
        starts[row] = start
        late[row] = is_late
        count += int(is_late)
    return count
