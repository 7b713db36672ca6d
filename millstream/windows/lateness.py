"""Stamps rows with their partition's watermark, by which lateness is decided later.

A row's stamp is the watermark just before the row, so that what is late depends on the
order of rows in their partition alone, not on batches, parallelism or speed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millstream.windows.watermark import WATERMARK_MIN, PartitionWatermark


def stamps(
    times_us: npt.NDArray[np.int64],
    valid: npt.NDArray[np.bool_] | None,
    watermark: PartitionWatermark,
) -> npt.NDArray[np.int64]:
    """Return each row's stamp and advance `watermark` over all of them.

    Parameters
    ----------
    times_us
        Event times in the partition's order, shape (n,).
    valid
        `False` where the time is null; such a row is stamped but does not advance the
        watermark. `None`: no time is null.

    Examples
    --------
    >>> stamps(np.array([100, 90, 120]), None, PartitionWatermark(10)).tolist()[1:]
    [90, 90]
    """
    if len(times_us) == 0:
        return np.empty(0, dtype=np.int64)
    if valid is not None:
        times_us = np.where(valid, times_us, WATERMARK_MIN)
    greatest = np.empty(len(times_us) + 1, dtype=np.int64)
    greatest[0] = watermark.greatest_us
    greatest[1:] = times_us
    np.maximum.accumulate(greatest, out=greatest)
    watermark.advance(int(greatest[-1]))
    before = greatest[:-1]
    # Below the least time plus the lateness the subtraction would wrap to the far future.
    floor = WATERMARK_MIN + watermark.lateness_us
    return np.maximum(before, floor) - watermark.lateness_us
