"""Running a benchmark's job over a topic again and again, until enough was measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import millstream as ms
from millstream.dsl.run_context import RunOverrides, override_run

CHECKPOINTS_MIN = 5


@dataclass(frozen=True, slots=True)
class Passes:
    """What the passes of a job over its input measured.

    Parameters
    ----------
    rows_per_second
        Rows read from the stream's topic, median over the passes.
    checkpoints
        Completed in the pass with the fewest.
    rows_python
        Rows that went through Python objects, over all operators of the last pass.
    """

    rows_per_second: float
    checkpoints: int
    rows_python: int


def passes_over(
    log: ms.Log, job: Callable[[str], ms.Sink], topic: str, *, seconds: float
) -> Passes:
    """Run `job` over all of `topic` until `seconds` were measured; return what was found.

    Two passes are not counted: the first compiles the kernels, the second tells how long one
    takes; the checkpoint interval is then chosen so that each pass completes several. Every pass
    starts over and writes a topic of its own, which is removed after it.
    """
    rows = sum(log.topic(topic).stable_ends())
    interval_us = 1_000_000
    measured: list[tuple[float, int, int]] = []
    spent = 0.0
    while spent < seconds or len(measured) < 5:
        elapsed, result = one_pass(log, job, interval_us)
        counters = result.counters.values()
        measured.append((elapsed, result.checkpoints, sum(each.rows_python for each in counters)))
        if len(measured) == 2:
            interval_us = max(int(elapsed * 1e6 / (3 * CHECKPOINTS_MIN)), 10_000)
        elif len(measured) > 2:
            spent += elapsed
    counted = measured[2:]
    return Passes(
        rows_per_second=rows / statistics.median(elapsed for elapsed, _, _ in counted),
        checkpoints=min(checkpoints for _, checkpoints, _ in counted),
        rows_python=counted[-1][2],
    )


def one_pass(
    log: ms.Log, job: Callable[[str], ms.Sink], interval_us: int
) -> tuple[float, ms.RunResult]:
    """Run the job once from the beginning to the end; return seconds and its result."""
    output = "benchmark_output"
    overrides = RunOverrides(log=log, checkpoint_interval_us=interval_us)
    with override_run(overrides):
        start = time.perf_counter()
        result = ms.run(job(output), name="benchmark", parallelism=1, until="end", fresh=True)
        elapsed = time.perf_counter() - start
    log.delete_topic(output)
    return elapsed, result
