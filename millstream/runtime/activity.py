"""What a worker was doing: time, rows and bytes of each operator, and of the worker as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from millstream.operators.operator import OperatorCounters

SAMPLED_EVERY = 32
"""Arrow takes longer to tell a batch's size than an operator may take for a small one."""


@dataclass(slots=True)
class _RowSize:
    """What a row takes, as of the batch that was measured last."""

    batches: int = 0
    row_bytes: float = 0.0

    def size_of(self, batch: pa.RecordBatch) -> int:
        """Return about how many bytes a batch has."""
        if self.batches % SAMPLED_EVERY == 0 and batch.num_rows:
            self.row_bytes = batch.nbytes / batch.num_rows
        self.batches += 1
        return int(batch.num_rows * self.row_bytes)


@dataclass(slots=True)
class OperatorActivity:
    """Beside an operator's own counters: about how many bytes passed, how long it computed."""

    busy_us: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    _in: _RowSize = field(default_factory=_RowSize)
    _out: _RowSize = field(default_factory=_RowSize)

    def came_in(self, batch: pa.RecordBatch) -> None:
        """Count a batch of input."""
        self.bytes_in += self._in.size_of(batch)

    def went_out(self, batch: pa.RecordBatch) -> None:
        """Count a batch of output."""
        self.bytes_out += self._out.size_of(batch)


@dataclass(frozen=True, slots=True)
class OperatorStatus:
    """How an operator of one worker is doing; times in microseconds since the attempt began."""

    rows_in: int
    rows_out: int
    rows_late: int
    bytes_in: int
    bytes_out: int
    busy_us: int
    state_keys: int
    state_bytes: int
    rows_failed: int = 0
    state_disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How far a worker is.

    Parameters
    ----------
    rows_read, rows_written
        From streams and tables and to sinks, in this attempt.
    watermark_us
        The least over its streams; `None` where there is no event time.
    holding
        The partition whose watermark that is, e.g. `"flights/2"`.
    lag_rows
        Rows of its streams that are still to be read.
    busy_us, backpressured_us, idle_us
        How its time was spent: working, waiting for room at another worker, waiting for rows.
    waiting
        Whether rows wait in it or before it, from other workers.
    pid, node
        The process that it runs in, where that is not the coordinator's.
    operators
        By name.
    """

    worker: int
    rows_read: int = 0
    rows_written: int = 0
    watermark_us: int | None = None
    holding: str | None = None
    lag_rows: int = 0
    busy_us: int = 0
    backpressured_us: int = 0
    idle_us: int = 0
    waiting: bool = False
    pid: int = 0
    node: str = ""
    operators: dict[str, OperatorStatus] = field(default_factory=dict)

    def progress(self) -> tuple[int, ...]:
        """Return what grows while the worker advances."""
        passed = sum(each.rows_in + each.rows_out for each in self.operators.values())
        return self.rows_read, self.rows_written, passed


def operator_status(counters: OperatorCounters, activity: OperatorActivity) -> OperatorStatus:
    """Return an operator's status from what it and its stage counted."""
    return OperatorStatus(
        counters.rows_in,
        counters.rows_out,
        counters.rows_late,
        activity.bytes_in,
        activity.bytes_out,
        activity.busy_us,
        counters.state_keys,
        counters.state_bytes,
        counters.rows_failed,
        counters.state_disk_bytes,
    )
