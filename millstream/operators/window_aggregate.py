"""Aggregates of rows by key and window, emitted once when the watermark closes the window.

rows ─▶ window start, late? ─▶ slot of (key, window start) ─▶ fields of the slot
                │                                                  │ watermark ≥ end + allowed
                ▼ port 1: late rows                                ▼ port 0: results
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import OptionError
from millstream.operators.aggregate import Aggregate, AggregateFunction
from millstream.operators.arrow_buffers import values_of
from millstream.operators.event_times import TimeRange
from millstream.operators.families import kept_fields
from millstream.operators.given_out import GivenOut
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    StateSnapshot,
)
from millstream.operators.window_assigner import (
    TIME_TYPE,
    WindowAssigner,
    bounds_of,
    late_batch,
)
from millstream.operators.window_panes import closing_windows
from millstream.operators.window_restored import Restored
from millstream.windows.assignment import AnyWindow, Assignment, RowWindow
from millstream.windows.by_rows import Sliding
from millstream.windows.global_window import Global
from millstream.windows.hopping import Hopping
from millstream.windows.session import Session
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

if TYPE_CHECKING:
    from millstream.operators.window_state import WindowState

__all__ = ["Aggregate", "AggregateFunction", "WindowAggregate", "WindowAggregateConfig"]

WINDOW_START = "window_start"
WINDOW_END = "window_end"

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
    emits_changes
        Each batch gives what it changes at once, instead of one result when a window is over.
    interval_us
        Changes are given at multiples of this time instead, where it is not `None`.

    Raises
    ------
    OptionError
        When the allowed lateness is negative, or it or the size absurdly large.
    """

    input_schema: pa.Schema
    key_columns: tuple[str, ...]
    time_column: str
    window: AnyWindow
    aggregates: tuple[Aggregate, ...]
    allowed_lateness_us: int = 0
    partial: bool = False
    emits_changes: bool = False
    interval_us: int | None = None

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
        """One final row a key and window, or what changes of it."""
        return ChangeMode.CHANGELOG if self.emits_changes else ChangeMode.APPEND

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
        """Results, and late rows as they came.

        A result has keys, the bounds of its window, and aggregates; that of a row's own window the
        columns of the row, and aggregates.
        """
        fields = [self.input_schema.field(name) for name in self.key_columns]
        if isinstance(self.window, Sliding):
            fields = list(self.input_schema)
        elif not isinstance(self.window, Global):
            fields += [pa.field(WINDOW_START, TIME_TYPE), pa.field(WINDOW_END, TIME_TYPE)]
        fields += [
            pa.field(each.name, each.result_type(self.input_schema)) for each in self.aggregates
        ]
        return pa.schema(fields), self.input_schema

    @property
    def time_range(self) -> TimeRange:
        """Which event times can be gone by."""
        return TimeRange(self.time_column, self.window.size_us)

    @property
    def window_text(self) -> str:
        """What the windows are, as state says it."""
        every = "" if self.interval_us is None else f" every {self.interval_us} µs"
        return f"{self.window.text}, changes{every}" if self.emits_changes else self.window.text

    @property
    def partial_schema(self) -> pa.Schema:
        """Combined rows: keys, `window_start` (of sessions also the end), fields of a slot."""
        fields = [self.input_schema.field(name) for name in self.key_columns]
        fields.append(pa.field(WINDOW_START, TIME_TYPE))
        if isinstance(self.window, Session):
            fields.append(pa.field(WINDOW_END, TIME_TYPE))
        return pa.schema([*fields, *kept_fields(self.aggregates, self.input_schema)])

    def build(self) -> Operator:
        """Return the operator with no window open."""
        if isinstance(self.window, RowWindow):
            from millstream.operators.row_windows import RowWindows

            return RowWindows(self)
        if self.interval_us is not None:
            from millstream.operators.window_intervals import WindowIntervals

            return WindowIntervals(self)
        if self.emits_changes:
            from millstream.operators.window_changes import WindowChanges

            return WindowChanges(self)
        return WindowAggregate(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        keys = ", ".join(self.key_columns) or "all rows"
        what = ", ".join(each.describe() for each in self.aggregates)
        return f"aggregate {what} by {keys}, {self.window.describe()} on {self.time_column}"


class WindowAggregate:
    """The running operator; see `WindowAggregateConfig`."""

    def __init__(self, config: WindowAggregateConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.window_states import new_state

        self.config = config
        self.counters = OperatorCounters()
        self._state = new_state(config)
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
        if batch.num_rows:
            yield from self._take_in(batch, starts)
        self._count_state()

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Emit the windows that `watermark_us` closes, the earliest first.

        Raises
        ------
        JobError
            Where a sum of integers is beyond int64.
        """
        before_us, self._watermark_us = self._watermark_us, max(self._watermark_us, watermark_us)
        yield from self._close(before_us, watermark_us - self.config.allowed_lateness_us)

    def output_watermark(self, watermark_us: int) -> int:
        """Return the least time that the result of a window emitted later can have.

        Results carry `window_start` as their time, which lies before the watermark.
        """
        if watermark_us in {WATERMARK_MIN, WATERMARK_MAX}:
            return watermark_us
        over_us, window = watermark_us - self.config.allowed_lateness_us, self.config.window
        if isinstance(window, Session | RowWindow):
            return max(over_us, WATERMARK_MIN)  # their time is their end
        open_us = window.first_open(over_us)
        return max(open_us, WATERMARK_MIN)

    def on_end(self) -> Iterator[Emit]:
        """Emit every open window; rows that come for one in a later run are late."""
        yield from self._close(self._watermark_us, None)
        self._closed_until_us = max(self._closed_until_us, self._given_end_us)

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return the open windows, or those that changed or closed since checkpoint `since`."""
        full, rows = self._state_rows(since, checkpoint)
        closed_us = self._closed_until_us + self.config.allowed_lateness_us
        text = self._given_out.to_text(self._watermark_us, closed_us)
        before = Restored(
            self._closed_until_us, self._given_end_us, () if text is None else (text,)
        )
        return StateSnapshot(full, rows, before.values(self.config.window_text))

    def mark_saved(self, checkpoint: int) -> None:
        """Note that all there is was saved as `checkpoint`: what changes counts from here."""
        self._state.mark_saved(checkpoint)

    def due_us(self) -> int | None:
        """Return a watermark before which no window is given out; `None`: none is open."""
        due_us = self._state.due_us
        return None if due_us is None else due_us + self.config.allowed_lateness_us

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Open the windows of `snapshots` whose keys are in `key_groups`."""
        before = Restored.of(snapshots, self.config.window_text)
        self._closed_until_us, self._given_end_us = before.closed_until_us, before.given_end_us
        self._given_out.restore(before.given_out, key_groups)
        parts = [each.rows for each in snapshots if each.rows is not None]
        self._restore_rows(parts, key_groups)
        self._count_state()

    def _state_rows(self, since: int | None, checkpoint: int) -> tuple[bool, pa.Table]:
        return self._state.snapshot(since, checkpoint)

    def _restore_rows(self, parts: Sequence[pa.Table], key_groups: range) -> None:
        self._state.restore(parts, key_groups)

    def _take_in(self, batch: pa.RecordBatch, starts: Int64Array) -> Iterator[Emit]:
        """Fold rows that are not late."""
        if self.config.partial:
            self._state.merge(batch, starts)
        else:
            self._state.fold(batch, starts)
        yield from ()

    def _assign(self, batch: pa.RecordBatch) -> Assignment:
        """Return each row's window start, and whether it is late."""
        if self.config.partial:
            # Combined rows had their lateness decided before they were combined.
            starts = values_of(batch.column(WINDOW_START))
            return Assignment(starts, np.zeros(len(starts), dtype=np.bool_), 0)
        return self._assigner.assign(
            batch, self._watermark_us, self._closed_until_us, self._given_out
        )

    def _close(self, before_us: int, until_us: int | None) -> Iterator[Emit]:
        """Emit and forget the windows that end by `until_us` (`None`: all), the earliest first.

        What a piece holds is forgotten as it is given out, so that the operator may rest
        between two pieces. What was over at the watermark `before_us` was given out before.
        """
        if isinstance(self.config.window, Hopping):
            yield from self._close_overlapping(self.config.window, before_us, until_us)
            return
        slots = self._state.over(until_us)
        for begin in range(0, len(slots), OUTPUT_ROWS_MAX):
            piece = slots[begin : begin + OUTPUT_ROWS_MAX]
            keys, starts, ends, results = self._state.results(piece)
            batch = self._results(keys, starts, ends, results)
            self._state.remove(piece)
            yield from self._pieces(0, batch)
        if len(slots):
            self._count_state()

    def _close_overlapping(
        self, window: Hopping, before_us: int, until_us: int | None
    ) -> Iterator[Emit]:
        state = cast("WindowState", self._state)
        after_us = window.last_over(before_us - self.config.allowed_lateness_us)
        last_us = None if until_us is None else window.last_over(until_us)
        for start_us, slots in closing_windows(state, window, after_us, last_us):
            kept = self._not_given_out(slots, start_us + window.size_us)
            if len(kept) == 0:
                continue
            keys, results = state.merged_results(kept)
            starts = np.full(len(results[0]), start_us)
            batch = self._results(keys, starts, window.ends_of(starts), results)
            yield from self._pieces(0, batch)
        self._count_state()

    def _not_given_out(self, slots: Int64Array, end_us: int) -> Int64Array:
        """Return those of `slots` whose key's window to `end_us` was not given out before."""
        over_us = end_us + self.config.allowed_lateness_us
        if self._given_out.restored_max_us < over_us:
            return slots
        until = self._given_out.until(self._state.keys(slots), len(slots))
        return slots[until < over_us]

    def _results(
        self,
        keys: list[pa.Array],
        starts: Int64Array,
        ends: Int64Array,
        results: list[pa.Array],
    ) -> pa.RecordBatch:
        """Return rows of results, and note that they are given out."""
        columns = [*keys, *bounds_of(self.config.window, starts, ends), *results]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._result_schema)
        self._given_end_us = max(self._given_end_us, int(ends[-1]))
        self._given_out.note(batch.select(self.config.key_columns))
        return batch

    def _pieces(self, port: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            piece = batch.slice(begin, OUTPUT_ROWS_MAX)
            self.counters.rows_out += piece.num_rows
            yield Emit(port, piece)

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._state)
        self.counters.state_bytes = self._state.size_bytes
