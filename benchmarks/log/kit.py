"""What the log's benchmarks share: batches, plain files, and times of single calls."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

import millstream as ms

BATCH_ROWS = 65_536
SMALL_ROWS = 100

Durability = Literal["fsync", "os"]


def batch_of(rows: int) -> pa.RecordBatch:
    """Return rows of a key, a time and three numbers: 40 bytes each."""
    random = np.random.default_rng(rows)
    return pa.record_batch(
        {
            "key": random.integers(0, 100_000, rows),
            "at": pa.array(random.integers(0, 2**50, rows), pa.timestamp("us")),
            "x": random.random(rows),
            "y": random.random(rows),
            "count": random.integers(0, 1_000, rows),
        }
    )


def new_topic(
    directory: Path, durability: Durability, *, partitions: int = 1, keyed: bool = False
) -> ms.Log:
    """Return a log in `directory` with a topic `events` for rows of `batch_of`."""
    log = ms.Log(directory)
    key = ["key"] if keyed else []
    schema = batch_of(1).schema
    log.create_topic("events", schema, partitions=partitions, key=key, durability=durability)
    return log


class PlainFile:
    """A file that is appended to with nothing around it: the machine's limit."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, content: bytes) -> None:
        """Append all of `content`."""
        assert os.write(self._descriptor, content) == len(content)

    def sync(self) -> None:
        """Make bytes and size durable."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


def call_times(works: dict[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Return the seconds of `count` calls of each work; they take turns, in blocks of ten."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(count // 10):
        for name, work in works.items():
            for _ in range(10):
                start = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - start)
    return times


def median_us(times: list[float]) -> float:
    """Return the median in microseconds."""
    return statistics.median(times) * 1e6
