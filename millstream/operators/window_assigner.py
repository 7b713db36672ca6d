"""Gives the rows of a batch their windows, and tells which come too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import values_of
from millstream.operators.event_times import EVENT_TIME
from millstream.operators.given_out import GivenOut
from millstream.operators.operator import HIDDEN_COLUMNS, STAMP_COLUMN
from millstream.windows.assignment import AnyWindow, Assignment, place_rows
from millstream.windows.global_window import Global

if TYPE_CHECKING:
    from millstream.operators.window_aggregate import WindowAggregateConfig


TIME_TYPE = EVENT_TIME


def late_batch(
    batch: pa.RecordBatch, schema: pa.Schema, late: npt.NDArray[np.bool_]
) -> pa.RecordBatch:
    """Return the late rows with their stamps: a timed operator behind decides anew."""
    hidden = [name for name in HIDDEN_COLUMNS if name in batch.schema.names]
    return batch.select([*schema.names, *hidden]).filter(pa.array(late))


def bounds_of(
    window: AnyWindow, starts_us: npt.NDArray[np.int64], ends_us: npt.NDArray[np.int64]
) -> list[pa.Array]:
    """Return the columns of results that say from when to when windows are."""
    if isinstance(window, Global):
        return []
    return [pa.array(each).view(TIME_TYPE) for each in (starts_us, ends_us)]


class WindowAssigner:
    """Gives rows their windows, and says which are late.

    Parameters
    ----------
    config
        Of the aggregate.
    """

    def __init__(self, config: WindowAggregateConfig) -> None:
        self._config = config
        self._range = config.time_range

    def assign(
        self, batch: pa.RecordBatch, watermark_us: int, closed_until_us: int, given_out: GivenOut
    ) -> Assignment:
        """Return each row's window start (or place), and whether it is late.

        Parameters
        ----------
        batch
            At least one row.
        watermark_us
            Rows of a window that it closed are late, whatever their stamp.
        closed_until_us
            Rows of windows that end by then are late, whatever was allowed.
        given_out
            Rows of windows that were given out before the restore are late, if these may lie
            beyond the watermark.

        Raises
        ------
        RowError
            Where a row has no event time, or one whose window int64 cannot hold.
        """
        config = self._config
        times = self._range.times(batch)
        # Results of windows come without stamps, and before the watermark that made them: but for
        # those of an input that was idle and came back. No window is given out twice for them.
        stamps = None
        if STAMP_COLUMN in batch.schema.names:
            stamps = values_of(batch.column(STAMP_COLUMN))
        if given_out.restored_max_us > watermark_us:
            keys = [batch.column(name) for name in config.key_columns]
            until = given_out.until(keys, batch.num_rows)
            stamps = until if stamps is None else np.maximum(stamps, until)
        return place_rows(
            config.window, times, stamps, config.allowed_lateness_us, watermark_us, closed_until_us
        )
