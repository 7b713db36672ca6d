"""The log alone: appending batches and reading them back (`make bench`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import millstream as ms

ROWS = 65_536
BATCHES = 64


def batch_of(rows: int) -> pa.RecordBatch:
    random = np.random.default_rng(rows)
    return pa.record_batch({"key": random.integers(0, 1_000, rows), "value": random.random(rows)})


@pytest.mark.parametrize("rows", [100, ROWS])
@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_append_and_flush(
    benchmark: BenchmarkFixture, tmp_path: Path, rows: int, durability: Literal["os", "fsync"]
) -> None:
    log = ms.Log(tmp_path / "log")
    batch = batch_of(rows)
    log.create_topic("events", batch.schema, durability=durability)
    with log.producer("events") as producer:

        def append() -> None:
            producer.append(batch)
            producer.flush()

        benchmark(append)


@pytest.mark.parametrize("verify", [True, False])
def test_read(benchmark: BenchmarkFixture, tmp_path: Path, verify: bool) -> None:
    log = ms.Log(tmp_path / "log")
    batch = batch_of(ROWS)
    log.create_topic("events", batch.schema, durability="os")
    with log.producer("events") as producer:
        for _ in range(BATCHES):
            producer.append(batch)

    def read() -> int:
        reader = log.topic("events").reader(0, verify=verify)
        rows = 0
        while (piece := reader.read()) is not None:
            rows += piece.num_rows
        return rows

    assert benchmark(read) == ROWS * BATCHES
