"""What a run came to, put together from what its workers say at their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from millstream.operators.operator import OperatorCounters
from millstream.runtime.activity import WorkerStatus


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    Parameters
    ----------
    checkpoints
        Completed in this run.
    restored
        Number of the checkpoint that it went on from; `None`: it began anew.
    finished
        `False` where it was stopped before its end.
    restarts
        How many of its attempts failed.
    rows_read, rows_written
        Over all sources and all sinks, in the last attempt.
    counters
        What each operator did, by its name, over all workers.
    tables
        Rows that were kept in memory, by the name of the result.
    """

    checkpoints: int
    restored: int | None
    finished: bool
    restarts: int
    rows_read: int
    rows_written: int
    counters: Mapping[str, OperatorCounters]
    tables: Mapping[str, pa.Table]


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What one worker says at its end."""

    status: WorkerStatus
    counters: Mapping[str, OperatorCounters]
    tables: Mapping[str, pa.Table]


def run_result(
    workers: Sequence[WorkerResult],
    *,
    checkpoints: int,
    restored: int | None,
    finished: bool,
    restarts: int = 0,
) -> RunResult:
    """Return the result of a run from its workers', in the order of the workers."""
    tables: dict[str, list[pa.Table]] = {}
    counters: dict[str, OperatorCounters] = {}
    for worker in workers:
        for name, table in worker.tables.items():
            tables.setdefault(name, []).append(table)
        for name, counted in worker.counters.items():
            counters[name] = _sum(counters.get(name), counted)
    return RunResult(
        checkpoints=checkpoints,
        restored=restored,
        finished=finished,
        restarts=restarts,
        rows_read=sum(each.status.rows_read for each in workers),
        rows_written=sum(each.status.rows_written for each in workers),
        counters=counters,
        tables={name: pa.concat_tables(parts) for name, parts in tables.items()},
    )


def _sum(total: OperatorCounters | None, more: OperatorCounters) -> OperatorCounters:
    if total is None:
        return replace(more)
    names = OperatorCounters.__dataclass_fields__
    return OperatorCounters(*(getattr(total, name) + getattr(more, name) for name in names))
