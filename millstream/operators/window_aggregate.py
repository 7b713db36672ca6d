"""Aggregates of rows by key and window, emitted once when the watermark closes the window.

rows ─▶ window start, late? ─▶ slot of (key, window start) ─▶ fields of the slot
                │                                                  │ watermark ≥ end + allowed
                ▼ port 1: late rows                                ▼ port 0: results
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import OptionError
from millstream.operators.aggregate import Aggregate, AggregateFunction, slot_width
from millstream.operators.given_out import GivenOut
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    StateSnapshot,
)
from millstream.operators.window_assigner import TIME_TYPE, WindowAssigner, late_batch
from millstream.operators.window_panes import closing_windows
from millstream.operators.window_restored import Restored
from millstream.windows.assignment import Assignment, TimeWindow
from millstream.windows.hopping import Hopping
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

__all__ = ["Aggregate", "AggregateFunction", "WindowAggregate", "WindowAggregateConfig"]

WINDOW_START = "window_start"

Int64Array = npt.NDArray[np.int64]

SPAN_MAX_US = 100_000 * 366 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class WindowAggregateConfig:
    """Aggregates by key and window.

    Parameters
    ----------
    input_schema
        Columns of the input, without hidden ones.
    key_columns
        Group by these; none: one group. Nulls are a group.
    time_column
        Event time, `timestamp[us, UTC]`.
    window
        How event time is cut.
    aggregates
        The result columns.
    allowed_lateness_us
        How long after its end a window takes rows before it is emitted.
    partial
        The input was combined: it comes with `partial_schema`, and none of it is late.

    Raises
    ------
    OptionError
        When the allowed lateness is negative, or it or the size absurdly large.
    """

    input_schema: pa.Schema
    key_columns: tuple[str, ...]
    time_column: str
    window: TimeWindow
    aggregates: tuple[Aggregate, ...]
    allowed_lateness_us: int = 0
    partial: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.allowed_lateness_us <= SPAN_MAX_US - self.window.size_us:
            message = (
                f"a window's size and allowed lateness must be positive and below 100,000 years; "
                f"got {self.window.size_us} and {self.allowed_lateness_us} microseconds"
            )
            raise OptionError(message)

    @property
    def consumes(self) -> ChangeMode:
        """Facts only; a changelog is refused when the job is built."""
        return ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """One final row a key and window."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """Rows must come stamped: lateness is decided here."""
        return True

    @property
    def broadcast_state(self) -> bool:
        """State belongs to the worker that owns the key group."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """Results (keys, `window_start`, `window_end`, aggregates), and late rows as they came."""
        fields = [self.input_schema.field(name) for name in self.key_columns]
        fields += [pa.field(WINDOW_START, TIME_TYPE), pa.field("window_end", TIME_TYPE)]
        fields += [
            pa.field(each.name, each.result_type(self.input_schema)) for each in self.aggregates
        ]
        return pa.schema(fields), self.input_schema

    @property
    def window_text(self) -> str:
        """What the windows are, as state says it."""
        return self.window.text

    @property
    def partial_schema(self) -> pa.Schema:
        """Combined rows: keys, `window_start`, and the fields of a slot."""
        fields = [self.input_schema.field(name) for name in self.key_columns]
        fields.append(pa.field(WINDOW_START, TIME_TYPE))
        width = slot_width(self.aggregates)
        fields += [pa.field(f"__field_{index}", pa.int64()) for index in range(width)]
        return pa.schema(fields)

    def build(self) -> Operator:
        """Return the operator with no window open."""
        return WindowAggregate(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        keys = ", ".join(self.key_columns) or "all rows"
        what = ", ".join(
            f"{each.name}={each.function}({each.argument or ''})" for each in self.aggregates
        )
        return f"aggregate {what} by {keys}, {self.window.describe()} on {self.time_column}"


class WindowAggregate:
    """The running operator; see `WindowAggregateConfig`."""

    def __init__(self, config: WindowAggregateConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.window_state import WindowState

        self.config = config
        self.counters = OperatorCounters()
        self._state = WindowState(config.input_schema, config.key_columns, config.aggregates)
        # Windows that end by then were flushed at the end of an earlier, bounded run.
        self._closed_until_us = WATERMARK_MIN
        # Stamped rows of a window that this watermark closed come from a partition that was idle.
        self._watermark_us = WATERMARK_MIN
        self._assigner = WindowAssigner(config)
        self._given_out = GivenOut()
        # The end of the last window that was given out.
        self._given_end_us = WATERMARK_MIN
        self._result_schema, self._late_schema = config.output_schemas

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Fold the rows into their windows; emit the late ones on port 1.

        Raises
        ------
        JobError
            Where a row has no event time, or one whose window int64 cannot hold.
        """
        assert input_index == 0
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if batch.num_rows == 0:
            return
        found = self._assign(batch)
        starts = found.starts_us
        self.counters.rows_late += found.late_count + found.partly_late_count
        if found.late_count:
            yield from self._pieces(1, late_batch(batch, self._late_schema, found.late))
            batch = batch.filter(pa.array(~found.late))
            starts = starts[~found.late]
        if batch.num_rows and self.config.partial:
            self._state.merge(batch, starts)
        elif batch.num_rows:
            self._state.fold(batch, starts)
        self._count_state()

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Emit the windows that `watermark_us` closes, the earliest first.

        Raises
        ------
        JobError
            Where a sum of integers is beyond int64.
        """
        before_us, self._watermark_us = self._watermark_us, max(self._watermark_us, watermark_us)
        earliest = self._state.windows.earliest_us
        if earliest is None:
            return
        window = self.config.window
        last_us = window.last_over(watermark_us - self.config.allowed_lateness_us)
        if isinstance(window, Hopping):
            yield from self._close_overlapping(before_us, last_us)
        elif earliest <= last_us:
            yield from self._close(last_us)

    def output_watermark(self, watermark_us: int) -> int:
        """Return the least start that a window emitted later can have.

        Results carry `window_start` as their time, which lies before the watermark.
        """
        if watermark_us in {WATERMARK_MIN, WATERMARK_MAX}:
            return watermark_us
        open_us = self.config.window.first_open(watermark_us - self.config.allowed_lateness_us)
        return max(open_us, WATERMARK_MIN)

    def on_end(self) -> Iterator[Emit]:
        """Emit every open window; rows that come for one in a later run are late."""
        if isinstance(self.config.window, Hopping):
            yield from self._close_overlapping(self._watermark_us, None)
        else:
            yield from self._close(None)
        self._closed_until_us = max(self._closed_until_us, self._given_end_us)

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return the open windows, or those that changed or closed since checkpoint `since`."""
        full, rows = self._state.snapshot(since, checkpoint)
        closed_us = self._closed_until_us + self.config.allowed_lateness_us
        text = self._given_out.to_text(self._watermark_us, closed_us)
        before = Restored(
            self._closed_until_us, self._given_end_us, () if text is None else (text,)
        )
        return StateSnapshot(full, rows, before.values(self.config.window_text))

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Open the windows of `snapshots` whose keys are in `key_groups`."""
        before = Restored.of(snapshots, self.config.window_text)
        self._closed_until_us, self._given_end_us = before.closed_until_us, before.given_end_us
        self._given_out.restore(before.given_out, key_groups)
        parts = [each.rows for each in snapshots if each.rows is not None]
        self._state.restore(parts, key_groups)
        self._count_state()

    def _assign(self, batch: pa.RecordBatch) -> Assignment:
        """Return each row's window start, and whether it is late."""
        if self.config.partial:
            # Combined rows had their lateness decided before they were combined.
            starts = np.asarray(batch.column(WINDOW_START).view(pa.int64()))
            return Assignment(starts, np.zeros(len(starts), dtype=np.bool_), 0)
        return self._assigner.assign(
            batch, self._watermark_us, self._closed_until_us, self._given_out
        )

    def _close(self, start_max_us: int | None) -> Iterator[Emit]:
        """Emit and forget the windows that start at or before `start_max_us` (`None`: all).

        What a piece holds is forgotten as it is given out, so that the operator may rest
        between two pieces.
        """
        slots = self._state.windows.take_until(start_max_us)
        for begin in range(0, len(slots), OUTPUT_ROWS_MAX):
            piece = slots[begin : begin + OUTPUT_ROWS_MAX]
            batch, end_us = self._results(piece)
            self._given_end_us = max(self._given_end_us, end_us)
            self._given_out.note(batch.select(self.config.key_columns))
            self._state.remove(piece)
            yield from self._pieces(0, batch)
        self._count_state()

    def _close_overlapping(self, before_us: int, last_us: int | None) -> Iterator[Emit]:
        """Emit windows up to the one that starts at `last_us` (`None`: all).

        Those that were over at the watermark `before_us` were given out before.
        """
        window = self.config.window
        assert isinstance(window, Hopping)
        after_us = window.last_over(before_us - self.config.allowed_lateness_us)
        for start_us, slots in closing_windows(self._state, window, after_us, last_us):
            end_us = start_us + window.size_us
            kept = self._not_given_out(slots, end_us)
            if len(kept) == 0:
                continue
            keys, results = self._state.merged_results(kept)
            self._given_end_us = max(self._given_end_us, end_us)
            bounds = [
                pa.array(np.full(len(results[0]), each)).view(TIME_TYPE)
                for each in (start_us, end_us)
            ]
            columns = [*keys, *bounds, *results]
            batch = pa.RecordBatch.from_arrays(columns, schema=self._result_schema)
            self._given_out.note(batch.select(self.config.key_columns))
            yield from self._pieces(0, batch)
        self._count_state()

    def _not_given_out(self, slots: Int64Array, end_us: int) -> Int64Array:
        """Return those of `slots` whose key's window to `end_us` was not given out before."""
        over_us = end_us + self.config.allowed_lateness_us
        if self._given_out.restored_max_us < over_us:
            return slots
        until = self._given_out.until(self._state.keys(slots), len(slots))
        return slots[until < over_us]

    def _results(self, slots: Int64Array) -> tuple[pa.RecordBatch, int]:
        """Return the result rows of `slots`, and the end of the last window."""
        keys, starts, results = self._state.results(slots)
        ends = self.config.window.ends_of(starts)
        bounds = [pa.array(each).view(TIME_TYPE) for each in (starts, ends)]
        columns = [*keys, *bounds, *results]
        return pa.RecordBatch.from_arrays(columns, schema=self._result_schema), int(ends[-1])

    def _pieces(self, port: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            piece = batch.slice(begin, OUTPUT_ROWS_MAX)
            self.counters.rows_out += piece.num_rows
            yield Emit(port, piece)

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._state)
        self.counters.state_bytes = self._state.size_bytes
