"""Folds rows by key and window before they cross to other workers.

rows ─▶ window start, late? ─▶ accumulators for each key and window
                │                      │ a watermark closes the window, or whatever else asks
                ▼ port 1: late rows    ▼ port 0: to the aggregate, which merges them

Accumulators are held until a watermark would close their windows at the aggregate, so that however
fast batches come few rows cross. Before a barrier all are given out: there is no state to save (as
combiners in MapReduce, Dean and Ghemawat, OSDI 2004). Where results are wanted before a window is
over, and for sessions, whose ends are not known here, each batch's are given out at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.log.key_hash import KEY_GROUPS
from millstream.operators.given_out import GivenOut
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    StateSnapshot,
)
from millstream.operators.window_aggregate import WindowAggregateConfig
from millstream.operators.window_assigner import WindowAssigner, late_batch
from millstream.operators.window_restored import Restored
from millstream.windows.session import Session
from millstream.windows.watermark import WATERMARK_MIN

if TYPE_CHECKING:
    from millstream.operators.window_state import WindowState


@dataclass(frozen=True, slots=True)
class WindowCombineConfig:
    """Combines rows for the aggregate of `aggregate`.

    Parameters
    ----------
    aggregate
        Of the aggregate, as it would be without combining.
    """

    aggregate: WindowAggregateConfig

    @property
    def consumes(self) -> ChangeMode:
        """Facts only."""
        return ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Facts: what is merged is never taken back."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """Lateness is decided here, by the rows' stamps."""
        return True

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """Keys, `window_start` and fields of accumulators; late rows as they came."""
        return self.aggregate.partial_schema, self.aggregate.input_schema

    @property
    def holds_back(self) -> bool:
        """Whether accumulators wait for the ends of their windows."""
        return not (self.aggregate.emits_changes or isinstance(self.aggregate.window, Session))

    def build(self) -> Operator:
        """Return the operator."""
        return HoldingWindowCombine(self) if self.holds_back else WindowCombine(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        keys = ", ".join(self.aggregate.key_columns) or "all rows"
        how = "combine" if self.holds_back else "combine each batch"
        return f"{how} by {keys} and window"


class WindowCombine:
    """The running operator; see `WindowCombineConfig`."""

    def __init__(self, config: WindowCombineConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.window_states import new_state

        aggregate = config.aggregate
        self.config = config
        self.counters = OperatorCounters()
        self._state = new_state(aggregate)
        self._assigner = WindowAssigner(aggregate)
        self._schema, self._late_schema = config.output_schemas
        self._closed_until_us = WATERMARK_MIN
        self._given_out = GivenOut()

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the batch's rows combined on port 0, the late ones as they are on port 1.

        Raises
        ------
        JobError
            Where a row has no event time, or one whose window int64 cannot hold.
        """
        self.counters.rows_in += batch.num_rows
        self.counters.rows_numba += batch.num_rows
        if batch.num_rows == 0:
            return
        found = self._assigner.assign(batch, WATERMARK_MIN, self._closed_until_us, self._given_out)
        starts = found.starts_us
        self.counters.rows_late += found.late_count + found.partly_late_count
        if found.late_count:
            yield from self._pieces(1, late_batch(batch, self._late_schema, found.late))
            batch = batch.filter(pa.array(~found.late))
            starts = starts[~found.late]
        if batch.num_rows:
            self._state.fold(batch, starts)
            yield from self._folded()

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Emit nothing: nothing is held back."""
        yield from ()

    def output_watermark(self, watermark_us: int) -> int:
        """Return `watermark_us`: a partial row's window is still open."""
        return watermark_us

    def on_end(self) -> Iterator[Emit]:
        """Emit nothing: nothing is open."""
        yield from ()

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return `None`: there is no state."""
        return None

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Learn from the aggregate's state which windows were given out, on any worker."""
        before = Restored.of(snapshots, self.config.aggregate.window_text)
        self._closed_until_us = before.closed_until_us
        self._given_out.restore(before.given_out, range(KEY_GROUPS))

    def _folded(self) -> Iterator[Emit]:
        yield from self._emit(self._state.take_all())

    def _emit(self, columns: list[pa.Array]) -> Iterator[Emit]:
        """Emit accumulators."""
        yield from self._pieces(0, pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def _pieces(self, port: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        for begin in range(0, batch.num_rows, OUTPUT_ROWS_MAX):
            piece = batch.slice(begin, OUTPUT_ROWS_MAX)
            self.counters.rows_out += piece.num_rows
            yield Emit(port, piece)


class HoldingWindowCombine(WindowCombine):
    """One that holds accumulators back until a watermark needs them."""

    _state: WindowState

    @property
    def held_rows(self) -> int:
        """How many accumulators are held back."""
        return len(self._state)

    def pass_on(self) -> Iterator[Emit]:
        """Emit all accumulators."""
        if self.held_rows:
            yield from self._emit(self._state.take_all())

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Emit what counts in windows that the aggregate closes at `watermark_us`."""
        if self.held_rows:
            until_us = watermark_us - self.config.aggregate.allowed_lateness_us
            yield from self._emit(self._state.take_over(until_us))

    def on_end(self) -> Iterator[Emit]:
        """Emit all accumulators."""
        yield from self.pass_on()

    def _folded(self) -> Iterator[Emit]:
        yield from ()
