"""Gives rows their tumbling windows, and says which rows come when their window is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.windows.by_rows import Counting, Sliding
from millstream.windows.calendar import Calendar
from millstream.windows.global_window import Global
from millstream.windows.hopping import Hopping
from millstream.windows.lateness import late_rows
from millstream.windows.session import Session
from millstream.windows.tumbling import Tumbling
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

TimeWindow: TypeAlias = Tumbling | Hopping | Calendar | Global
"""Windows that are cut by time alone, whatever the rows are."""

RowWindow: TypeAlias = Sliding | Counting
"""Windows that the rows of a key make."""

AnyWindow: TypeAlias = TimeWindow | Session | RowWindow

_COMPILED_ROWS_MIN = 4096
"""From here on a compiled loop is worth its loading; it takes a fifth of NumPy's time."""

_COMPILED_SPAN_MAX_US = 2**52
"""Rows whose times lie further apart are left to NumPy: a float does not tell them apart."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The windows of a batch's rows.

    Parameters
    ----------
    starts_us
        Start of each row's window, or its place where windows overlap; int64, shape (n,).
    late
        Which rows come when their window is over, bool, shape (n,).
    late_count
        How many.
    partly_late_count
        How many rows came too late for some of their windows and in time for others.
    """

    starts_us: npt.NDArray[np.int64]
    late: npt.NDArray[np.bool_]
    late_count: int
    partly_late_count: int = 0


def place_rows(
    window: AnyWindow,
    times_us: npt.NDArray[np.int64],
    stamps_us: npt.NDArray[np.int64] | None,
    allowed_us: int,
    given_out_us: int,
    ended_us: int,
) -> Assignment:
    """Return the windows of rows, at least one, whatever the kind of window.

    Parameters
    ----------
    allowed_us
        For how long after its end a window takes rows; the rest is as for `assign`.
    """
    match window:
        case Tumbling():
            span_us = window.size_us + allowed_us
            return assign(window, times_us, stamps_us, span_us, given_out_us, ended_us)
        case Hopping():
            return assign_panes(window, times_us, stamps_us, allowed_us, given_out_us, ended_us)
        case Calendar():
            return assign_dates(window, times_us, stamps_us, allowed_us, given_out_us, ended_us)
        case Session() | Sliding() | Counting():
            return assign_sessions(times_us, stamps_us, allowed_us, given_out_us, ended_us)
        case Global():
            count, ended = len(times_us), ended_us == WATERMARK_MAX
            return Assignment(np.zeros(count, np.int64), np.full(count, ended), ended * count)


def assign(
    window: Tumbling,
    times_us: npt.NDArray[np.int64],
    stamps_us: npt.NDArray[np.int64] | None,
    span_us: int,
    given_out_us: int,
    ended_us: int,
) -> Assignment:
    """Return the windows of rows, at least one.

    Parameters
    ----------
    window
        Size and offset.
    times_us
        Event times, a window's size away from the least and two from the greatest int64.
    stamps_us
        The rows' stamps; `None`: they have none, and are not late by them.
    span_us, given_out_us
        As for `late_rows`.
    ended_us
        Rows of windows that end by then are late whatever their stamp and the span.

    Examples
    --------
    >>> times, stamps = np.array([3, 12]), np.array([10, 10])
    >>> found = assign(Tumbling(10), times, stamps, 10, WATERMARK_MIN, WATERMARK_MIN)
    >>> found.starts_us.tolist(), found.late.tolist(), found.late_count
    ([0, 10], [True, False], 1)
    """
    count, size_us = len(times_us), window.size_us
    first_us = window.start_of(int(times_us.min()))
    ended_start_us = max(ended_us, WATERMARK_MIN + size_us) - size_us
    starts_us = _new_int64(count)
    if count < _COMPILED_ROWS_MIN or int(times_us.max()) - first_us >= _COMPILED_SPAN_MAX_US:
        window.starts_of(times_us, starts_us)
        if stamps_us is None:
            stamps_us = np.full(count, WATERMARK_MIN)
        late = late_rows(starts_us, stamps_us, span_us, given_out_us, _new_int64(count))
        late |= starts_us <= ended_start_us
        return Assignment(starts_us, late, int(np.count_nonzero(late)))
    from millstream.windows.kernels.assignment import assign_windows

    late = np.empty(count, dtype=np.bool_)
    late_count = assign_windows(
        times_us,
        np.empty(0, dtype=np.int64) if stamps_us is None else stamps_us,
        first_us,
        size_us,
        1.0 / size_us,
        span_us,
        max(given_out_us, WATERMARK_MIN + span_us),
        ended_start_us,
        starts_us,
        late,
    )
    return Assignment(starts_us, late, int(late_count))


def assign_panes(
    window: Hopping,
    times_us: npt.NDArray[np.int64],
    stamps_us: npt.NDArray[np.int64] | None,
    allowed_us: int,
    given_out_us: int,
    ended_us: int,
) -> Assignment:
    """Return the places of rows, at least one; late are those that missed all of their windows.

    Parameters
    ----------
    allowed_us
        For how long after its end a window takes rows; the rest is as for `assign`.
    """
    panes = Tumbling(window.pane_us, window.offset_us)
    span_us = window.pane_us + allowed_us
    found = assign(panes, times_us, stamps_us, span_us, given_out_us, ended_us)
    # A row that comes before its pane is over comes before all of its windows are.
    if not found.late_count:
        return found
    behind = np.flatnonzero(found.late)
    span_us = window.size_us + allowed_us
    least_us = max(given_out_us, WATERMARK_MIN + span_us)
    over_us = np.full(len(behind), least_us)
    if stamps_us is not None:
        np.maximum(stamps_us[behind], least_us, out=over_us)
    over_us -= span_us
    np.maximum(over_us, max(ended_us, WATERMARK_MIN + window.size_us) - window.size_us, out=over_us)
    panes_us = found.starts_us[behind]
    places, late = window.places_of(panes_us, over_us)
    found.starts_us[behind] = places
    found.late[behind] = late
    partly_late = int(np.count_nonzero(places != panes_us))
    return Assignment(found.starts_us, found.late, int(np.count_nonzero(late)), partly_late)


def assign_dates(
    window: Calendar,
    times_us: npt.NDArray[np.int64],
    stamps_us: npt.NDArray[np.int64] | None,
    allowed_us: int,
    given_out_us: int,
    ended_us: int,
) -> Assignment:
    """Return the calendar's windows of rows; the parameters are those of `place_rows`."""
    starts_us, ends_us = window.bounds_of(times_us)
    least_us = max(given_out_us, WATERMARK_MIN + allowed_us)
    over_us = np.full(1, least_us) if stamps_us is None else np.maximum(stamps_us, least_us)
    late = ends_us <= over_us - allowed_us
    late |= ends_us <= ended_us
    return Assignment(starts_us, late, int(np.count_nonzero(late)))


def assign_sessions(
    times_us: npt.NDArray[np.int64],
    stamps_us: npt.NDArray[np.int64] | None,
    allowed_us: int,
    given_out_us: int,
    ended_us: int,
) -> Assignment:
    """Return the times of rows as starts of sessions; the parameters are those of `place_rows`."""
    least_us = max(given_out_us, WATERMARK_MIN + allowed_us)
    over_us = np.full(1, least_us) if stamps_us is None else np.maximum(stamps_us, least_us)
    late = times_us < np.maximum(over_us - allowed_us, ended_us)
    return Assignment(times_us, late, int(np.count_nonzero(late)))


def _new_int64(count: int) -> npt.NDArray[np.int64]:
    # From Arrow's pool: what NumPy asks the system for has to be cleared page by page.
    return np.frombuffer(pa.allocate_buffer(8 * count), dtype=np.int64)
