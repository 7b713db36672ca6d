"""Running a benchmark's job over a topic again and again, until enough was measured."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import millstream as ms
from benchmarks.harness import seconds_of
from millstream.dsl.run_context import RunOverrides, override_run

CHECKPOINTS_MIN = 5
OUTPUT = "benchmark_output"


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
    peers
        Seconds that each peer took, median over the passes.
    """

    rows_per_second: float
    checkpoints: int
    rows_python: int
    peers: Mapping[str, float]


def passes_over(
    log: ms.Log,
    job: Callable[[str], ms.Sink],
    topic: str,
    peers: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
) -> Passes:
    """Run `job` over all of `topic` until `seconds` were measured; return what was found.

    Two passes are not counted: the first compiles the kernels, the second tells how long one
    takes; the checkpoint interval is then chosen so that each pass completes several. Every pass
    starts over and writes a topic of its own.

    The peers take turns with the job, one run of each after every pass, so that all meet the
    machine in the same state: a virtual machine's memory and disk are several times slower in
    one minute than in the next. The pass's output is removed after them: a peer that writes, and
    keeps its file until its own next turn, then finds as much memory free as the job did.
    """
    rows = sum(log.topic(topic).stable_ends())
    interval_us = 1_000_000
    measured: list[tuple[float, int, int]] = []
    times: dict[str, list[float]] = {name: [] for name in peers}
    spent = 0.0
    while spent < seconds or len(measured) < 5:
        with one_pass(log, job, interval_us) as (elapsed, result):
            counters = result.counters.values()
            rows_python = sum(each.rows_python for each in counters)
            measured.append((elapsed, result.checkpoints, rows_python))
            if len(measured) == 2:
                interval_us = max(int(elapsed * 1e6 / (3 * CHECKPOINTS_MIN)), 10_000)
            elif len(measured) > 2:
                spent += elapsed
            for name, peer in peers.items():
                times[name].append(seconds_of(peer, repeats=1))
    counted = measured[2:]
    return Passes(
        rows_per_second=rows / statistics.median(elapsed for elapsed, _, _ in counted),
        checkpoints=min(checkpoints for _, checkpoints, _ in counted),
        rows_python=counted[-1][2],
        peers={name: statistics.median(each[2:]) for name, each in times.items()},
    )


@contextmanager
def one_pass(
    log: ms.Log, job: Callable[[str], ms.Sink], interval_us: int
) -> Iterator[tuple[float, ms.RunResult]]:
    """Run the job once from the beginning to the end; give seconds and its result.

    The output is there until the block ends.
    """
    overrides = RunOverrides(log=log, checkpoint_interval_us=interval_us)
    gc.collect()
    with override_run(overrides):
        start = time.perf_counter()
        result = ms.run(job(OUTPUT), name="benchmark", parallelism=1, until="end", fresh=True)
        elapsed = time.perf_counter() - start
    yield elapsed, result
    log.delete_topic(OUTPUT)
