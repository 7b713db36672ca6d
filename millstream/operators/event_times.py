"""Rows whose event time nobody can go by: it is null, or their window lies beyond int64.

rows ─▶ is the time there, and in range? ─▶ port 0 ─▶ the operator that goes by it
                          │ fail: the first one is told
                          │ skip: counted
                          ▼ dlq:  port 1, for a topic
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import JobError
from millstream.operators.arrow_buffers import values_of
from millstream.operators.operator import ChangeMode, Emit, Operator, OperatorCounters, Stateless
from millstream.operators.poison import DEAD_LETTERS, FAIL, ErrorPolicy, refused, row_error
from millstream.windows.watermark import WATERMARK_MAX, WATERMARK_MIN

Int64Array = npt.NDArray[np.int64]

EVENT_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Which event times an operator can go by.

    Parameters
    ----------
    column
        With the time, which must not be null.
    margin_us
        How far a time must be from the least int64, and twice that from the greatest: for windows
        how long one is.
    """

    column: str
    margin_us: int = 0

    def times(self, batch: pa.RecordBatch) -> Int64Array:
        """Return the event times of a batch, at least one row, in microseconds.

        Raises
        ------
        RowError
            Where a row has none, or one that is out of range; shows the first such row.
        """
        column = self._column(batch)
        if column.null_count == 0:
            times = values_of(column)
            if self._is_in(int(times.min())) and self._is_in(int(times.max())):
                return times
        first = int(np.flatnonzero(self.unusable(batch))[0])
        raise row_error(batch, first, self.reason(batch, first))

    def unusable(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Return which rows have no time that can be gone by."""
        column = self._column(batch)
        missing = pc.is_null(column).to_numpy(zero_copy_only=False)
        times = values_of(pc.fill_null(column.view(pa.int64()), 0))
        beyond = (times < self._least_us) | (times > self._greatest_us)
        found: npt.NDArray[np.bool_] = missing | beyond
        return found

    def reason(self, batch: pa.RecordBatch, row: int) -> JobError:
        """Return why the time of a row cannot be gone by."""
        name, time = self.column, self._column(batch)[row]
        if not time.is_valid:
            return JobError(
                f"the row has no event time: column {name!r} is null; filter such rows out before, "
                f"e.g. .filter(col({name!r}).is_not_null()), or pass them with on_error"
            )
        return JobError(
            f"a row's window is out of the range of times: column {name!r} is {time.value} "
            "microseconds from 1970; is it in another unit?"
        )

    @property
    def _least_us(self) -> int:
        return WATERMARK_MIN + self.margin_us

    @property
    def _greatest_us(self) -> int:
        return WATERMARK_MAX - 2 * self.margin_us

    def _is_in(self, time_us: int) -> bool:
        return self._least_us <= time_us <= self._greatest_us

    def _column(self, batch: pa.RecordBatch) -> pa.Array:
        column = batch.column(self.column)
        return column if column.type == EVENT_TIME else column.cast(EVENT_TIME)


@dataclass(frozen=True, slots=True)
class EventTimesConfig:
    """Passes the rows whose event time can be gone by.

    Parameters
    ----------
    schema
        Columns of the rows, without hidden ones.
    range
        Which times those are.
    policy
        What becomes of the others.
    """

    schema: pa.Schema
    range: TimeRange
    policy: ErrorPolicy = FAIL

    @property
    def may_fail(self) -> bool:
        """Any row may have no time."""
        return True

    @property
    def consumes(self) -> ChangeMode:
        """Facts."""
        return ChangeMode.APPEND

    @property
    def produces(self) -> ChangeMode:
        """Facts."""
        return ChangeMode.APPEND

    @property
    def timed(self) -> bool:
        """Lateness is decided by who takes the rows."""
        return False

    @property
    def broadcast_state(self) -> bool:
        """There is no state."""
        return False

    @property
    def output_schemas(self) -> tuple[pa.Schema, ...]:
        """The rows; with dead letters, those."""
        letters = self.policy.on_error == "dlq"
        return (self.schema, DEAD_LETTERS) if letters else (self.schema,)

    def build(self) -> Operator:
        """Return the operator."""
        return EventTimes(self)

    def describe(self) -> str:
        """Return one line for `explain()`."""
        return f"rows that have a time in {self.range.column}"


class EventTimes(Stateless):
    """The running operator; see `EventTimesConfig`."""

    def __init__(self, config: EventTimesConfig) -> None:
        self.config = config
        self.counters = OperatorCounters()

    def on_batch(self, input_index: int, batch: pa.RecordBatch) -> Iterator[Emit]:
        """Emit the rows whose time can be gone by, and the others as the policy says.

        Raises
        ------
        RowError
            With `"fail"`, of the first row whose time cannot.
        """
        assert input_index == 0
        self.counters.rows_in += batch.num_rows
        self.counters.rows_arrow += batch.num_rows
        unusable = self.config.range.unusable(batch)
        if unusable.any():
            rows = np.flatnonzero(unusable).tolist()
            failures = [(row, self.config.range.reason(batch, row)) for row in rows]
            yield from refused(batch, failures, self.config.policy, self.counters)
            batch = batch.filter(pa.array(~unusable))
        if batch.num_rows:
            self.counters.rows_out += batch.num_rows
            yield Emit(0, batch)
