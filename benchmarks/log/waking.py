"""From a row that can be read to a waiting reader in another process, at 1,000 appends a second.

The writer notes when the readable end was published, the reader when `poll` returned; both read
the clock that all processes share. One row an append, flushed each time in a topic of durability
`fsync`. The goals hold for the median and for the 99th of a hundred.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import millstream as ms
from benchmarks.harness import ROOT, Figure, Figures, scratch_directory
from benchmarks.log.kit import Durability
from millstream.log.control_file import ControlFile, LogEnd

INTERVAL_S = 0.001


def run(quick: bool) -> Figures:
    """Measure both durabilities."""
    figures = {}
    count = 300 if quick else 5_000
    with scratch_directory() as directory:
        for durability in ("fsync", "os"):
            waits_ms, rate = latencies(directory / durability, durability, count)
            p50, p99 = np.percentile(waits_ms, [50, 99])
            figures[f"{durability}_p50"] = Figure(float(p50), "ms", "lower", goal=0.3)
            figures[f"{durability}_p99"] = Figure(float(p99), "ms", "lower", goal=3.0)
            figures[f"{durability}_rate"] = Figure(rate, "appends/s")
    return figures


def latencies(
    path: Path, durability: Durability, count: int, address: str | None = None
) -> tuple[list[float], float]:
    """Return the milliseconds of each row, and how many a second were appended.

    The reader opens the log at `address`, where one is given.
    """
    log = ms.Log(path)
    log.create_topic("events", pa.schema([("id", pa.int64())]), durability=durability)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.log.waking", address or str(path), str(count)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    published: list[int] = []
    name = "publish_written" if durability == "os" else "publish_durable"
    publish = getattr(ControlFile, name)

    def noted(control: ControlFile, end: LogEnd) -> None:
        publish(control, end)
        published.append(time.monotonic_ns())

    setattr(ControlFile, name, noted)
    start = time.monotonic()
    try:
        producer = log.producer("events")
        for index in range(count):
            producer.append(pa.record_batch({"id": [index]}))
            producer.flush()
            time.sleep(max(start + (index + 1) * INTERVAL_S - time.monotonic(), 0))
    finally:
        setattr(ControlFile, name, publish)
    rate = count / (time.monotonic() - start)
    arrived = [int(each) for each in process.communicate()[0].split()]
    assert len(published) == len(arrived) == count
    waits = [(b - a) / 1e6 for a, b in zip(published, arrived, strict=True)]
    return waits[count // 10 :], rate


def read(path: str, count: int) -> None:
    """Be the reader: print when each row came, in nanoseconds."""
    consumer = ms.Log(path).consumer("events", columns=["id"])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    arrived: list[int] = []
    while len(arrived) < count:
        batch = consumer.poll(timeout_us=10_000_000)
        assert batch is not None
        arrived += [time.monotonic_ns()] * batch.num_rows
    sys.stdout.write("\n".join(map(str, arrived)))


if __name__ == "__main__":
    read(sys.argv[1], int(sys.argv[2]))
