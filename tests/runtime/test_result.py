"""A run's result: what its workers say, put together."""

from __future__ import annotations

import pyarrow as pa

from millstream.operators.operator import OperatorCounters
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.result import WorkerResult, run_result


def worker(index: int, *values: int) -> WorkerResult:
    return WorkerResult(
        WorkerStatus(index, rows_read=10 + index, rows_written=len(values)),
        {"hours": OperatorCounters(rows_in=10, rows_out=index)},
        {"collected": pa.table({"n": pa.array(values, pa.int64())})},
    )


def test_rows_follow_the_order_of_the_workers_and_counters_are_summed() -> None:
    workers = [worker(0, 1, 2), worker(1), worker(2, 3)]
    result = run_result(workers, checkpoints=4, restored=7, finished=True, restarts=1)
    assert result.tables["collected"].column("n").to_pylist() == [1, 2, 3]
    assert (result.rows_read, result.rows_written) == (33, 3)
    assert result.counters == {"hours": OperatorCounters(rows_in=30, rows_out=3)}
    assert (result.checkpoints, result.restored, result.finished, result.restarts) == (
        4,
        7,
        True,
        1,
    )
    assert workers[0].counters["hours"].rows_in == 10


def test_without_workers_there_is_nothing() -> None:
    result = run_result([], checkpoints=0, restored=None, finished=False)
    assert (result.rows_read, result.tables, result.counters) == (0, {}, {})
