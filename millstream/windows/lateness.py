"""Stamps rows with their partition's watermark, and decides by the stamp which are late.

A row's stamp is the watermark just before the row, so that what is late depends on the
order of rows in their partition alone, not on batches, parallelism or speed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.windows.watermark import WATERMARK_MIN, PartitionWatermark

_COMPILED_ROWS_MIN = 4096
"""From here on a compiled loop is worth its loading; it takes a fifth of NumPy's time."""


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
    if len(times_us) < _COMPILED_ROWS_MIN:
        return _stamps_of_few(times_us, valid, watermark)
    from millstream.windows.kernels.lateness import running_watermark

    # Numba compiles anew for an array that may be written to.
    times_us = times_us.view()
    times_us.flags.writeable = False
    # From Arrow's pool: what NumPy asks the system for has to be cleared page by page.
    buffer = pa.allocate_buffer(8 * len(times_us))
    found: npt.NDArray[np.int64] = np.frombuffer(buffer, dtype=np.int64)
    lateness_us = watermark.lateness_us
    greatest_us = running_watermark(
        times_us,
        np.empty(0, dtype=np.bool_) if valid is None else valid,
        watermark.greatest_us,
        WATERMARK_MIN + lateness_us,
        lateness_us,
        found,
    )
    watermark.advance(int(greatest_us))
    return found


def _stamps_of_few(
    times_us: npt.NDArray[np.int64],
    valid: npt.NDArray[np.bool_] | None,
    watermark: PartitionWatermark,
) -> npt.NDArray[np.int64]:
    """Do the same for few rows with NumPy, so that a small job compiles a kernel less."""
    if len(times_us) == 0:
        return np.empty(0, dtype=np.int64)
    if valid is not None:
        times_us = np.where(valid, times_us, WATERMARK_MIN)
    greatest = np.empty(len(times_us) + 1, dtype=np.int64)
    greatest[0] = watermark.greatest_us
    greatest[1:] = times_us
    np.maximum.accumulate(greatest, out=greatest)
    watermark.advance(int(greatest[-1]))
    # Below the least time plus the lateness the subtraction would wrap to the far future.
    floor = WATERMARK_MIN + watermark.lateness_us
    return np.maximum(greatest[:-1], floor) - watermark.lateness_us


def late_rows(
    starts_us: npt.NDArray[np.int64],
    stamps_us: npt.NDArray[np.int64],
    span_us: int,
    given_out_us: int,
    scratch: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Return which rows come when their window is over: late ones.

    Parameters
    ----------
    starts_us
        Start of each row's window, shape (n,).
    stamps_us
        Each row's stamp, shape (n,).
    span_us
        From a window's start to when it is over: its size and the allowed lateness.
    given_out_us
        Watermark up to which windows were given out already; a row of one of these is late
        whatever its stamp.
    scratch
        Overwritten, shape (n,).

    Examples
    --------
    >>> starts, stamps = np.array([0, 0, 10]), np.array([9, 10, 10])
    >>> late_rows(starts, stamps, 10, WATERMARK_MIN, np.empty(3, np.int64)).tolist()
    [False, True, False]
    """
    # The watermark is moved back instead of the window on, and so cannot leave int64.
    least = max(given_out_us, WATERMARK_MIN + span_us)
    np.maximum(stamps_us, least, out=scratch)
    np.subtract(scratch, span_us, out=scratch)
    return starts_us <= scratch
