"""Aggregates over windows that the rows of a key make: before each row, or of so many rows.

rows ─▶ late? ─▶ wait until the watermark is beyond their time ─▶ windows that they end ─▶ port 0
          ▼ port 1: late rows
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.given_out import GivenOut
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    Emit,
    OperatorCounters,
    StateSnapshot,
)
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.operators.window_assigner import WindowAssigner, late_batch
from millstream.operators.window_restored import Restored
from millstream.windows.by_rows import Counting, Sliding
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

Int64Array = npt.NDArray[np.int64]


class RowWindows:
    """The running operator; see `WindowAggregateConfig`."""

    def __init__(self, config: WindowAggregateConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.row_frames import RowFrames

        assert isinstance(config.window, Sliding | Counting)
        self.config = config
        self.counters = OperatorCounters()
        self._state = RowFrames(
            config.input_schema, config.key_columns, config.time_column, config.window
        )
        self._closed_until_us = self._given_end_us = WATERMARK_MIN
        self._watermark_us = WATERMARK_MIN
        self._assigner = WindowAssigner(config)
        self._given_out = GivenOut()
        self._schema, self._late_schema = config.output_schemas

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Let rows wait for the watermark; emit the late ones on port 1.

        Raises
        ------
        JobError
            Where a row has no event time, or one that is too near the ends of int64.
        """
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if batch.num_rows == 0:
            return
        late = self._assigner.assign(
            batch, self._watermark_us, self._closed_until_us, self._given_out
        ).late
        if late.any():
            self.counters.rows_late += int(late.sum())
            yield from self._pieces(1, late_batch(batch, self._late_schema, late))
            batch = batch.filter(pa.array(~late))
        if batch.num_rows:
            self._given_out.note(batch.select(self.config.key_columns))
            self._state.add(batch)
        self._count_state()

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Emit the windows of the rows that lie before the watermark, the earliest first.

        Raises
        ------
        JobError
            Where a sum of integers is beyond int64.
        """
        self._watermark_us = max(self._watermark_us, watermark_us)
        until_us = self._watermark_us - self.config.allowed_lateness_us
        if until_us > WATERMARK_MIN:
            yield from self._close(until_us)

    def output_watermark(self, watermark_us: int) -> int:
        """Return the least time of a row that waits: a result has the time of its last row."""
        if watermark_us in {WATERMARK_MIN, WATERMARK_MAX}:
            return watermark_us
        return max(watermark_us - self.config.allowed_lateness_us, WATERMARK_MIN)

    def on_end(self) -> Iterator[Emit]:
        """Emit the windows of all rows; rows of a later run that are not newer are late."""
        yield from self._close(None)
        self._closed_until_us = max(self._closed_until_us, self._given_end_us)

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return all rows that wait, or are in windows that are to come."""
        closed_us = self._closed_until_us + self.config.allowed_lateness_us
        text = self._given_out.to_text(self._watermark_us, closed_us)
        before = Restored(
            self._closed_until_us, self._given_end_us, () if text is None else (text,)
        )
        values = before.values(self.config.window_text)
        return StateSnapshot(True, self._state.snapshot(), values)

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the rows of `snapshots` whose keys are in `key_groups`."""
        before = Restored.of(snapshots, self.config.window_text)
        self._closed_until_us, self._given_end_us = before.closed_until_us, before.given_end_us
        self._given_out.restore(before.given_out, key_groups)
        parts = [each.rows for each in snapshots if each.rows is not None]
        self._state.restore(parts, key_groups)
        self._count_state()

    def _close(self, until_us: int | None) -> Iterator[Emit]:
        from millstream.operators.frames import aggregated_frames

        config = self.config
        frames = self._state.take(until_us)
        if frames is not None:
            rows, time = frames.rows, config.time_column
            results = aggregated_frames(
                config.aggregates, rows.schema, time, rows, frames.begins, frames.ends
            )
            owners = rows.take(pa.array(frames.owners))
            if isinstance(config.window, Sliding):
                columns = owners.select(config.input_schema.names).columns
            else:
                begins = rows[time].take(pa.array(frames.begins))
                columns = [*owners.select(config.key_columns).columns, begins, owners[time]]
            made = pa.RecordBatch.from_arrays([*columns, *results], schema=self._schema)
            yield from self._pieces(0, made)
        passed_us = self._state.passed_us
        self._given_end_us = max(self._given_end_us, passed_us + (passed_us < WATERMARK_MAX))
        self._count_state()

    def _pieces(self, port: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            piece = batch.slice(begin, OUTPUT_ROWS_MAX)
            self.counters.rows_out += piece.num_rows
            yield Emit(port, piece)

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._state)
        self.counters.state_bytes = self._state.size_bytes
