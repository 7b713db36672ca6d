"""Gives the rows of a batch their windows, and tells which come too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import JobError
from millstream.operators.arrow_buffers import values_of
from millstream.operators.given_out import GivenOut
from millstream.operators.operator import HIDDEN_COLUMNS, STAMP_COLUMN
from millstream.windows.assignment import AnyWindow, Assignment, place_rows
from millstream.windows.global_window import Global
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

if TYPE_CHECKING:
    from millstream.operators.window_aggregate import WindowAggregateConfig

TIME_TYPE = pa.timestamp("us", tz="UTC")


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
        JobError
            Where a row has no event time, or one whose window int64 cannot hold.
        """
        config = self._config
        column = batch.column(config.time_column)
        if column.null_count:
            raise JobError(self._no_time(batch, pc.index(pc.is_null(column), True).as_py()))
        times = values_of(column if column.type == TIME_TYPE else column.cast(TIME_TYPE))
        self._check_ends(times)
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

    def _check_ends(self, times: npt.NDArray[np.int64]) -> None:
        """Refuse times so near the ends of int64 that their windows may lie beyond."""
        size_us = self._config.window.size_us
        for time_us in (int(times.min()), int(times.max())):
            if not WATERMARK_MIN + size_us <= time_us <= WATERMARK_MAX - 2 * size_us:
                message = (
                    f"a row's window is out of the range of times: column "
                    f"{self._config.time_column!r} is {time_us} microseconds from 1970; is it in "
                    "another unit?"
                )
                raise JobError(message)

    def _no_time(self, batch: pa.RecordBatch, row: int) -> str:
        name = self._config.time_column
        return (
            f"row {row} of a batch has no event time: column {name!r} is null; the row is "
            f"{batch.slice(row, 1).to_pylist()[0]}; filter such rows out before the window, "
            f"e.g. .filter(col({name!r}).is_not_null())"
        )
