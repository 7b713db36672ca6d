"""The windowed aggregate on Ray beside the same job in this process, and how soon it is back.

The job, its input and its lateness are those of `window_aggregate`; three airports by hour, so
that combining before the exchange leaves far less than one row in a hundred to cross.

- `two_workers`: P=2 on Ray beside P=1 in process, rows a second from the first row read to the
  last commit, without what Ray needs to start processes. The bound is 2 on two idle cores.
- `first_output`: from `ms.run` on a Ray that runs to the first committed checkpoint.
- `recovery`: from SIGKILL of a worker to the first checkpoint that its successor committed.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable

import millstream as ms
from benchmarks.harness import Figure, Figures, compared, main, scratch_directory
from benchmarks.jobs import one_pass
from benchmarks.window_aggregate import job, rounds_of_flights
from millstream.cli.demo.flights import data_folder, read_tables
from millstream.dsl.execution import ray_host
from millstream.dsl.run_context import RunOverrides, override_run
from millstream.runtime.control import JobRecord, JobState

SPEEDUP_GOAL = 1.7
RECOVERY_GOAL_S = 4.0
FIRST_OUTPUT_GOAL_S = 5.0
TIMEOUT_S = 120.0


def load(log: ms.Log, rounds: int) -> int:
    """Write the flights, in as many partitions as there are workers; return how many."""
    flights, airlines = rounds_of_flights(rounds), read_tables(data_folder())["airlines"]
    log.create_topic("flights", flights[0].schema, time="scheduled", partitions=2)
    log.create_topic("airlines", airlines.schema, key=("carrier",), table=True)
    with log.producer("airlines") as producer:
        producer.append(airlines)
    with log.producer("flights") as producer:
        for each in flights:
            producer.append(each)
    return sum(each.num_rows for each in flights)


def wait_for(handle: ms.JobHandle, holds: Callable[[JobRecord], bool]) -> JobRecord:
    """Look at a job until its record says so."""
    deadline = time.perf_counter() + TIMEOUT_S
    while not holds(record := handle.status()):
        if time.perf_counter() > deadline or record.state is JobState.FAILED:
            message = f"waited in vain: {record}"
            raise TimeoutError(message)
        time.sleep(0.005)
    return record


def pass_in_process_s(log: ms.Log) -> float:
    """Return how long one worker in this process takes."""
    with one_pass(log, job, 200_000) as (elapsed, _):
        return elapsed


def on_ray(log: ms.Log, name: str, *, batch_rows: int | None = None) -> ms.JobHandle:
    """Start the job on Ray with two workers."""
    overrides = RunOverrides(log=log, checkpoint_interval_us=200_000, batch_rows=batch_rows)
    with override_run(overrides):
        sink = job(name)
        return ms.submit(sink, name=name, parallelism=2, until="end", fresh=True, on="ray")


def rate_on_ray(log: ms.Log, name: str, rows: int) -> float:
    """Return rows a second from the first row that was read to the end."""
    handle = on_ray(log, name)
    first = wait_for(handle, lambda record: sum(w.rows_read for w in record.workers) > 0)
    start = time.perf_counter()
    before = sum(each.rows_read for each in first.workers)
    wait_for(handle, lambda record: record.state.is_over)
    elapsed = time.perf_counter() - start
    handle.wait()
    return (rows - before) / elapsed


def recovery_s(log: ms.Log, name: str) -> float:
    """Return seconds from the kill of a worker to the next commit."""
    handle = on_ray(log, name, batch_rows=256)
    before = wait_for(handle, lambda record: record.checkpoints >= 3)
    start = time.perf_counter()
    os.kill(before.workers[0].pid, signal.SIGKILL)
    wait_for(
        handle,
        lambda record: record.attempt > before.attempt and record.checkpoint != record.restored,
    )
    elapsed = time.perf_counter() - start
    handle.cancel()
    wait_for(handle, lambda record: record.state.is_over)
    return elapsed


def first_output_s(log: ms.Log, name: str) -> float:
    """Return seconds from the call to the first checkpoint with rows."""
    start = time.perf_counter()
    handle = on_ray(log, name)
    wait_for(handle, lambda record: record.checkpoints >= 1)
    elapsed = time.perf_counter() - start
    handle.wait()
    return elapsed


def run(quick: bool) -> Figures:
    """Measure on a Ray that this process starts."""
    rounds, repeats = (6, 1) if quick else (150, 3)
    ray = ray_host()
    with scratch_directory() as directory:
        log = ms.Log(directory / "log")
        rows = load(log, rounds)
        in_process = [pass_in_process_s(log) for _ in range(repeats + 1)][1:]
        ray.connect(ray.RaySettings())
        try:
            first = [first_output_s(log, f"first_{index}") for index in range(repeats)]
            rates = [rate_on_ray(log, f"rate_{index}", rows) for index in range(repeats)]
            recovery = [recovery_s(log, f"kill_{index}") for index in range(repeats)]
        finally:
            ray.disconnect()
    one = rows / statistics.median(in_process)
    return {
        "two_workers": compared(
            statistics.median(rates), "rows/s", "one worker in process", one, goal=SPEEDUP_GOAL
        ),
        "one_worker": Figure(one, "rows/s"),
        "recovery": Figure(statistics.median(recovery), "s", "lower", goal=RECOVERY_GOAL_S),
        "first_output": Figure(statistics.median(first), "s", "lower", goal=FIRST_OUTPUT_GOAL_S),
    }


if __name__ == "__main__":
    main(run, __doc__)
