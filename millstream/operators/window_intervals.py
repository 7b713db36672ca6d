"""Aggregates by key and window that say after every interval of time what changed meanwhile.

rows ─▶ pending: combined by key and window ─▶ at a multiple of the interval ─▶ windows: changes

What is pending is kept apart, so that the results that were given out are known when it is their
turn. A window that is over is told of for the last time, and forgotten, at the next multiple.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.operators.arrow_buffers import values_of
from millstream.operators.operator import Emit
from millstream.operators.window_aggregate import WINDOW_START, WindowAggregateConfig
from millstream.operators.window_changes import WindowChanges
from millstream.operators.window_states import new_state
from millstream.windows.watermark import WATERMARK_MIN

_PENDING = "pending"

Int64Array = npt.NDArray[np.int64]


class WindowIntervals(WindowChanges):
    """The running operator; see `WindowAggregateConfig`."""

    def __init__(self, config: WindowAggregateConfig) -> None:
        super().__init__(config)
        assert config.interval_us is not None
        self._interval_us = config.interval_us
        self._pending = new_state(config)
        self._told_us = WATERMARK_MIN

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Emit what changed, and forget windows that are over, where an interval has passed."""
        self._watermark_us = max(self._watermark_us, watermark_us)
        turn_us = watermark_us - watermark_us % self._interval_us
        if turn_us > self._told_us:
            self._told_us = turn_us
            yield from self._tell()
            yield from self._close(WATERMARK_MIN, turn_us - self.config.allowed_lateness_us)

    def on_end(self) -> Iterator[Emit]:
        """Emit what changed, and forget every window."""
        yield from self._tell()
        yield from super().on_end()

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        super().mark_saved(checkpoint)
        self._pending.mark_saved(checkpoint)

    def due_us(self) -> int | None:
        """Return the watermark at which what is pending is told, else when a window is over."""
        return self._told_us + self._interval_us if len(self._pending) else super().due_us()

    def _take_in(self, batch: pa.RecordBatch, starts: Int64Array) -> Iterator[Emit]:
        """Fold rows that are not late into what is pending."""
        if self.config.partial:
            self._pending.merge(batch, starts)
        else:
            self._pending.fold(batch, starts)
        yield from ()

    def _tell(self) -> Iterator[Emit]:
        """Emit what is pending as changes of the windows."""
        if len(self._pending):
            columns = self._pending.take_all()
            batch = pa.RecordBatch.from_arrays(columns, schema=self._partial_schema)
            yield from self._changes(batch, values_of(batch.column(WINDOW_START)), True)
            self._count_state()

    def _state_rows(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        full, rows = self._state.snapshot(since, checkpoint)
        pending_full, pending = self._pending.snapshot(since, checkpoint)
        assert full == pending_full, "both know of the same checkpoints"
        return full, pa.concat_tables([_marked(rows, False), _marked(pending, True)])

    def _restore_rows(self, parts: Sequence[pa.Table], key_groups: range) -> None:
        for state, is_pending in ((self._state, False), (self._pending, True)):
            own = [
                each.filter(pa.array(np.asarray(each.column(_PENDING)) == is_pending))
                for each in parts
            ]
            state.restore(own, key_groups)

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._state) + len(self._pending)
        self.counters.state_bytes = self._state.size_bytes + self._pending.size_bytes


def _marked(rows: pa.Table, is_pending: bool) -> pa.Table:
    return rows.append_column(_PENDING, pa.array(np.full(rows.num_rows, is_pending)))
