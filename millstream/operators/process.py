"""Rows of each key through a function of the user's own, with state and timers.

    rows ─▶ late? ─▶ wait ─▶ watermark: those before it, in order ─▶ on_row   ─▶ rows of results
              port 2                  timers before a row's time  ─▶ on_timer ─▶

A key's rows come in the order of their event times, and each timer between the rows before and
after its time, so that what comes out depends on neither batching, parallelism nor speed. Without
event time, or where the user wants rows at once, they come as they arrive.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import JobError
from millstream.operators.arrow_buffers import values_of
from millstream.operators.operator import (
    OUTPUT_ROWS_MAX,
    STAMP_COLUMN,
    ChangeMode,
    Emit,
    Operator,
    OperatorCounters,
    Stateless,
    StateSnapshot,
)
from millstream.operators.poison import DEAD_LETTERS, FAIL, ErrorPolicy
from millstream.operators.process_calls import Calls, Results
from millstream.operators.process_function import ProcessFunction
from millstream.windows.watermark import WATERMARK_MIN

Int64Array = npt.NDArray[np.int64]

LATE_PORT = 2
ROWS_AT_ONCE = 1_024
"""So many rows are made Python objects at a time."""
_ENDED, _ENDED_WATERMARK = "ended_us", "ended_watermark_us"


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """Gives the rows of each key to a function.

    Parameters
    ----------
    schema
        Columns of the input, without hidden ones.
    key_columns
        The key. A null is a value.
    function
        The user's.
    name
        What it is called in messages.
    state, output
        What it keeps of a key; the columns of a result beside the key and the time.
    time_column
        Event time, `timestamp[us, UTC]`; `None`: there is none, and so there are no timers.
    in_order
        Whether rows wait for the watermark and come in the order of their times. Then results have
        the time of their row or timer.
    ttl_us
        How long after its last row or timer, in event time, what is kept of a key is forgotten.
    policy
        What becomes of a row on which the function fails.
    """

    schema: pa.Schema
    key_columns: tuple[str, ...]
    function: ProcessFunction
    name: str
    state: pa.Schema
    output: pa.Schema
    time_column: str | None
    in_order: bool
    ttl_us: int | None = None
    policy: ErrorPolicy = FAIL

    @property
    def may_fail(self) -> bool:
        """A function may fail on any row."""
        return True

    @property
    def consumes(self) -> ChangeMode:
        """Facts: what a function did with a row cannot be taken back."""
        return ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Facts."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """Where rows come in order, one is late when later ones may have come."""
        return self.in_order

    @property
    def broadcast_state(self) -> bool:
        """State belongs to the worker that owns the key group."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """Results: key, time where rows come in order, the rest; dead letters; late rows."""
        names = [*self.key_columns]
        if self.in_order and self.time_column is not None and self.time_column not in names:
            names.append(self.time_column)
        result = pa.schema([*(self.schema.field(name) for name in names), *self.output])
        return result, DEAD_LETTERS, self.schema

    def build(self) -> Operator:
        """Return the operator with no key, and an instance of the function of its own."""
        return Process(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        order = "in the order of event time" if self.in_order else "as they arrive"
        kept = "" if self.ttl_us is None else f", kept for {self.ttl_us} µs"
        state = f"; keeps {', '.join(self.state.names)}{kept}" if self.state.names else ""
        return f"rows by {', '.join(self.key_columns)} through {self.name}, {order}{state}"


class Process(Stateless):
    """The running operator; see `ProcessConfig`."""

    def __init__(self, config: ProcessConfig) -> None:
        # Imported here, so that a job can be planned and explained without Numba.
        from millstream.operators.process_state import KeyedState

        self.config = config
        self.counters = OperatorCounters()
        self._ordered_by = config.time_column if config.in_order else None
        self._state = KeyedState(config.schema, config.key_columns, config.state, self._ordered_by)
        self._calls = Calls(
            copy.copy(config.function),
            config.name,
            self._state,
            Results(config.output_schemas[0], config.key_columns, self._ordered_by),
            config.policy,
            self.counters,
        )
        self._watermark_us = WATERMARK_MIN
        self._ended_us = WATERMARK_MIN
        self._ended_watermark_us = WATERMARK_MIN
        self._touched: set[int] = set()

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Let the rows wait, but for those that are late; or give them to the function at once.

        Raises
        ------
        JobError
            Where a row has no event time, which it needs.
        RowError
            Where the function fails on a row, if the policy is to fail; shows the row.
        """
        self.counters.rows_in += batch.num_rows
        if batch.num_rows == 0:
            return
        times = self._times_of(batch)
        if self._state.waiting is None:
            yield from self._at_once(batch, times)
            return
        assert times is not None
        late = times < np.maximum(self._stamps(batch), max(self._watermark_us, self._ended_us))
        if late.any():
            self.counters.rows_late += int(late.sum())
            rows = batch.filter(pa.array(late))
            for begin in range(0, rows.num_rows, OUTPUT_ROWS_MAX):
                yield Emit(LATE_PORT, rows.slice(begin, OUTPUT_ROWS_MAX))
            batch = batch.filter(pa.array(~late))
        if batch.num_rows:
            self._state.waiting.add(batch, self._insert(batch))
        self._count_state()

    def on_watermark(self, watermark_us: int) -> Iterator[Emit]:
        """Give the function its rows and timers before `watermark_us`."""
        self._watermark_us = max(self._watermark_us, watermark_us)
        if watermark_us > WATERMARK_MIN:
            yield from self._rows_until(watermark_us - 1)
            yield from self._timers_before(watermark_us)
            yield from self._flush()

    def on_end(self) -> Iterator[Emit]:
        """Give the function all rows and timers, but for those that timers set now.

        Rows of a later run that are older than these are late. An end may come again, where an
        attempt died behind it; timers are given once, until time goes on.
        """
        yield from self._rows_until(None)
        if self._watermark_us > self._ended_watermark_us:
            self._ended_watermark_us = self._watermark_us
            for time_us, slot in self._state.pending_timers():
                if self._state.take_timer(slot, time_us):
                    self._timer(slot, time_us)
                    yield from self._calls.full_batches()
        yield from self._flush()

    def snapshot(self, since: int | None, checkpoint: int) -> StateSnapshot | None:
        """Return all keys, or those that changed since checkpoint `since`."""
        full, rows = self._state.snapshot(since, checkpoint)
        ends = {_ENDED: self._ended_us, _ENDED_WATERMARK: self._ended_watermark_us}
        return StateSnapshot(full, rows, dict(ends))

    def restore(self, snapshots: Sequence[StateSnapshot], key_groups: range) -> None:
        """Take the keys of `snapshots` that are in `key_groups`."""
        tables = [each.rows for each in snapshots if each.rows is not None]
        self._state.restore(tables, key_groups)
        self._ended_us = _greatest(snapshots, _ENDED)
        self._ended_watermark_us = _greatest(snapshots, _ENDED_WATERMARK)
        self._count_state()

    def _times_of(self, batch: pa.RecordBatch) -> Int64Array | None:
        name = self.config.time_column
        if name is None:
            return None
        column = batch.column(name)
        if column.null_count:
            message = (
                f"a row has no event time: column {name!r} is null; filter such rows out before "
                f"process, e.g. .filter(col({name!r}).is_not_null())"
            )
            raise JobError(message)
        return values_of(column)

    def _stamps(self, batch: pa.RecordBatch) -> Int64Array:
        if STAMP_COLUMN in batch.schema.names:
            return values_of(batch.column(STAMP_COLUMN))
        return np.full(batch.num_rows, WATERMARK_MIN, dtype=np.int64)

    def _insert(self, batch: pa.RecordBatch) -> Int64Array:
        return self._state.index.insert(
            [batch.column(name) for name in self.config.key_columns]
        ).of_rows

    def _at_once(self, batch: pa.RecordBatch, times: Int64Array | None) -> Iterator[Emit]:
        slots = self._insert(batch)
        for begin, rows in _python_rows(batch, self.config.schema.names):
            for index, row in enumerate(rows, begin):
                slot = int(slots[index])
                time_us = None if times is None else int(times[index])
                least_us = None if time_us is None else self._watermark_us
                self._touched.add(slot)
                self._calls.row(slot, row, time_us, least_us, batch, index)
                if time_us is not None and self.config.ttl_us is not None:
                    self._state.called(slot, time_us)
                yield from self._calls.full_batches()
        yield from self._flush()

    def _rows_until(self, time_us: int | None) -> Iterator[Emit]:
        """Give the function the rows up to a time, each after the timers of its key before it."""
        if self._state.waiting is None:
            return
        batch, times, slots = self._state.waiting.take_until(time_us)
        if batch.num_rows == 0:
            return
        if time_us is None:
            self._ended_us = max(self._ended_us, int(times[-1]) + 1)
        self._state.index.mark_changed(slots)
        for begin, rows in _python_rows(batch, self.config.schema.names):
            for index, row in enumerate(rows, begin):
                slot, at_us = int(slots[index]), int(times[index])
                while (timer := self._state.next_timer(slot)) is not None and timer < at_us:
                    self._state.take_timer(slot, timer)
                    self._timer(slot, timer)
                    yield from self._calls.full_batches()
                self._expire(slot, at_us)
                self._touched.add(slot)
                self._calls.row(slot, row, at_us, at_us, batch, index)
                self._note_call(slot, at_us)
                yield from self._calls.full_batches()

    def _timers_before(self, time_us: int) -> Iterator[Emit]:
        for at_us, slot in self._state.take_timers(time_us):
            self._timer(slot, at_us)
            yield from self._calls.full_batches()
        if self.config.ttl_us is not None and time_us > WATERMARK_MIN + self.config.ttl_us:
            for slot in self._state.take_called(time_us - 1 - self.config.ttl_us):
                self._state.values.pop(slot, None)
                self._touched.add(slot)

    def _timer(self, slot: int, time_us: int) -> None:
        self._expire(slot, time_us)
        self._touched.add(slot)
        self._calls.timer(slot, time_us)
        self._note_call(slot, time_us)

    def _expire(self, slot: int, time_us: int) -> None:
        """Forget what is kept of a key whose last call is too long ago at a time."""
        last_us = self._state.last_us.get(slot)
        ttl_us = self.config.ttl_us
        if ttl_us is not None and last_us is not None and time_us - last_us >= ttl_us:
            self._state.values.pop(slot, None)

    def _note_call(self, slot: int, time_us: int) -> None:
        if self.config.ttl_us is not None:
            self._state.called(slot, time_us)

    def _flush(self) -> Iterator[Emit]:
        """Emit what was made, and forget the keys of which nothing is kept."""
        yield from self._calls.rest()
        if self._touched:
            self._state.index.mark_changed(np.array(sorted(self._touched), dtype=np.int64))
            self._state.drop_empty(self._touched)
            self._touched = set()
        self._count_state()

    def _count_state(self) -> None:
        self.counters.state_keys = len(self._state)
        self.counters.state_bytes = self._state.size_bytes


def _greatest(snapshots: Sequence[StateSnapshot], name: str) -> int:
    """Return what the worker that was furthest noted."""
    noted = [each.values[name] for each in snapshots]
    return max(each for each in noted if isinstance(each, int))


def _python_rows(
    batch: pa.RecordBatch, names: Sequence[str]
) -> Iterator[tuple[int, list[dict[str, Any] | Exception]]]:
    """Give the rows as dictionaries, some at a time, with the index of the first.

    A row that has no Python objects, such as a time beyond the year 9999, is an exception.
    """
    shown = batch.select(list(names))
    for begin in range(0, batch.num_rows, ROWS_AT_ONCE):
        piece = shown.slice(begin, ROWS_AT_ONCE)
        rows: list[dict[str, Any] | Exception]
        try:
            rows = list(piece.to_pylist())
        except (ValueError, OverflowError):
            rows = [_python_row(piece.slice(index, 1)) for index in range(piece.num_rows)]
        yield begin, rows


def _python_row(row: pa.RecordBatch) -> dict[str, Any] | Exception:
    try:
        return dict(row.to_pylist()[0])
    except (ValueError, OverflowError) as error:
        return error
