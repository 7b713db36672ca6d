"""State ten times as large as its memory budget, under a limit of the kernel, beside all in memory.

A running count, sum and maximum by key, random keys, log to log, P=1, checkpoints every second. The
job runs in a process of its own: once with as much memory as it takes, once with a budget of a
tenth of the state that it had then, in a control group whose limit is what a job of few keys takes
and two budgets more. Beyond it, the kernel would end the process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

import millstream as ms
from benchmarks.harness import ROOT, Figure, Figures, compared, main, scratch_directory
from benchmarks.memory_limit import run_limited

BATCH_ROWS = 131_072
KEYS_FEW = 1_000
SEED = 7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: rows a second, and sizes in bytes."""

    rate: float
    state_bytes: int
    disk_bytes: int
    peak_bytes: int


def fill(log: ms.Log, topic: str, keys: int, rows: int) -> int:
    """Write random rows of so many keys, and return the sum of their values."""
    random = np.random.default_rng(SEED)
    schema = pa.schema([("key", pa.int64()), ("value", pa.int64())])
    log.create_topic(topic, schema, durability="os")
    total = 0
    with log.producer(topic) as producer:
        for begin in range(0, rows, BATCH_ROWS):
            count = min(BATCH_ROWS, rows - begin)
            columns = [random.integers(0, keys, count), random.integers(0, 1_000_000, count)]
            producer.append(pa.record_batch([pa.array(each) for each in columns], schema=schema))
            total += int(columns[1].sum())
    return total


def job(log: ms.Log, topic: str, output: str, kind: str) -> ms.Sink:
    """Return the job, written to topic `output`."""
    keyed = ms.stream(topic, log=log).key_by("key")
    aggregates = {"rows": ms.count(), "total": ms.sum("value"), "most": ms.max("value")}
    assert kind == "aggregate"
    return keyed.agg(**aggregates, ttl="never").to(output, mode="upsert")


def measure(path: str, topic: str, output: str, kind: str, budget: int | None) -> Outcome:
    """Run the job in this process."""
    log = ms.Log(path)
    start = time.perf_counter()
    result = ms.run(job(log, topic, output, kind), name=output, until="end", memory_budget=budget)
    elapsed = time.perf_counter() - start
    counters = result.counters.values()
    return Outcome(
        result.rows_read / elapsed,
        sum(each.state_bytes for each in counters),
        sum(each.state_disk_bytes for each in counters),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def run(quick: bool) -> Figures:
    """Measure the job with all of its state in memory, and with a tenth of it."""
    keys, rows = (500_000, 4_000_000) if quick else (3_000_000, 12_000_000)
    with scratch_directory() as directory:
        log = ms.Log(directory / "log")
        fill(log, "few", KEYS_FEW, 4 * BATCH_ROWS)
        total = fill(log, "many", keys, rows)

        def outcome(topic: str, budget: int | None = None, limit: int | None = None) -> Outcome:
            output = f"{topic}-{time.time_ns()}"
            arguments = [log.path, topic, output, "aggregate", str(budget or 0)]
            command = [sys.executable, "-m", "benchmarks.state", "--measure", *arguments]
            found = Outcome(**json.loads(run_limited(command, limit, ROOT)))
            if topic == "many":
                latest = log.topic(output).latest()
                assert int(np.asarray(latest["total"]).sum()) == total, "the results are wrong"
            log.delete_topic(output)
            return found

        least = outcome("few")
        inside = outcome("many")
        budget = inside.state_bytes // 10
        limit = least.peak_bytes + 2 * budget
        within = outcome("many", budget, limit)
    return {
        "rows a second, all state in memory": Figure(inside.rate, "rows/s"),
        "rows a second, a tenth of it in memory": compared(
            within.rate, "rows/s", "all in memory", inside.rate, goal=0.2
        ),
        "state, in memory": Figure(inside.state_bytes, "B", "lower"),
        "state on disk": Figure(within.disk_bytes, "B", "lower"),
        "peak memory, all state in memory": Figure(inside.peak_bytes, "B", "lower"),
        "peak memory, a tenth of it": Figure(within.peak_bytes, "B", "lower"),
        "memory limit, a tenth of it": Figure(limit, "B", "lower"),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        path, topic, output, kind, budget = sys.argv[2:]
        found = measure(path, topic, output, kind, int(budget) or None)
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
    else:
        main(run, __doc__)
