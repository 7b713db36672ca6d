"""A windowed aggregate on Ray beside the same job in this process, and how soon it is back.

The input, its lateness and the query are those of `window_aggregate`, but for key and windows:
sixteen airlines by week, so that combining before the exchange leaves less than one row in a
hundred to cross, and both workers own some of the keys.

- `two_workers`: P=2 on Ray beside P=1 in process, both with warm kernels; rows a second from when
  each worker has read a tenth of its rows until one of them has read all of its own. The bound
  is 2 on two idle cores.
- `crossing`: the share of the rows read that cross to another worker.
- `first_output`: from `ms.submit` on a Ray that runs to the first committed checkpoint.
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
from benchmarks.window_aggregate import rounds_of_flights
from millstream import col
from millstream.cli.demo.flights import data_folder, read_tables
from millstream.dsl.execution import ray_host
from millstream.dsl.run_context import RunOverrides, override_run
from millstream.runtime.control import JobRecord, JobState

SPEEDUP_GOAL = 1.7
RECOVERY_GOAL_S = 4.0
FIRST_OUTPUT_GOAL_S = 5.0
CROSSING_GOAL = 0.01
TIMEOUT_S = 120.0
POLL_S = 0.1
WARM_SHARE = 0.1
"""A worker's first rows wait for its kernels to be loaded; those are warm in this process."""


def job(output: str) -> ms.Sink:
    """Return the benchmark's job, written to topic `output`."""
    return (
        ms.stream("flights", time="scheduled", lateness="24h")
        .filter(col("dep_delay") > 15)
        .join(ms.table("airlines", key="carrier"), on="carrier")
        .key_by("carrier")
        .window(ms.tumbling("7d"))
        .agg(flights=ms.count(), mean_delay=ms.mean("dep_delay"), worst_delay=ms.max("dep_delay"))
        .to(output)
    )


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
        time.sleep(POLL_S)
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


def rate_on_ray(log: ms.Log, name: str, rows: int) -> tuple[float, float]:
    """Return rows a second while both workers are at work, and the share of rows that crosses."""
    handle = on_ray(log, name)
    records: list[JobRecord] = []

    def note(record: JobRecord) -> bool:
        records.append(record)
        return record.state.is_over

    over = wait_for(handle, note)
    handle.wait()
    at_work = [each for each in records if is_at_work(each, rows)]
    first, last = at_work[0], at_work[-1]
    rate = (rows_read(last) - rows_read(first)) / (last.updated_us - first.updated_us) * 1e6
    combined = sum(
        operator.rows_out
        for worker in over.workers
        for operator_name, operator in worker.operators.items()
        if operator_name.startswith("combine")
    )
    return rate, combined / rows


def is_at_work(record: JobRecord, rows: int) -> bool:
    """Return whether every worker has its kernels loaded and rows to read."""
    warm = WARM_SHARE * rows / max(len(record.workers), 1)
    return bool(record.workers) and all(
        each.rows_read > warm and each.lag_rows for each in record.workers
    )


def rows_read(record: JobRecord) -> int:
    """Return how many rows all workers have read."""
    return sum(each.rows_read for each in record.workers)


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
    rounds, repeats = (200, 1) if quick else (600, 3)
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
    rate = statistics.median(each for each, _ in rates)
    one = rows / statistics.median(in_process)
    return {
        "two_workers": compared(rate, "rows/s", "one worker in process", one, goal=SPEEDUP_GOAL),
        "one_worker": Figure(one, "rows/s"),
        "crossing": Figure(max(share for _, share in rates), "", "lower", goal=CROSSING_GOAL),
        "recovery": Figure(statistics.median(recovery), "s", "lower", goal=RECOVERY_GOAL_S),
        "first_output": Figure(statistics.median(first), "s", "lower", goal=FIRST_OUTPUT_GOAL_S),
    }


if __name__ == "__main__":
    main(run, __doc__)
