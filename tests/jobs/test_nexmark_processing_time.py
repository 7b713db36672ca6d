"""Nexmark by processing time equals DuckDB's answer, where the time is that of a clock by hand."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import millstream as ms
from benchmarks.nexmark.generator import BID, Generator
from tests.jobs.kit import load

START_S = 1_700_000_000
"""When a harness begins."""
QUERY = """
SELECT bidder, second // 10 * 10 AS began, count(*) AS bids FROM bid GROUP BY ALL ORDER BY ALL
"""


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_bids_are_counted_by_when_they_are_read(parallelism: int) -> None:
    harness = ms.testing.Harness(bid=ms.testing.Topic(BID, time="date_time", partitions=4))
    harness.start(load("nexmark/q12").build, parallelism=parallelism)
    (chunk,) = Generator(seed=5).chunks(2_000)
    bids, seconds = chunk.bid, np.arange(chunk.bid.num_rows) // 100 * 3 + START_S
    for number, begin in enumerate(range(0, bids.num_rows, 100)):
        rows = pa.Table.from_batches([bids.slice(begin, 100)])
        harness.send("bid", rows, partition=number % 4)
        if number % 5 == 2:  # what was committed stands, and what follows is not before it
            harness.restart(parallelism=parallelism % 4 + 1)
        harness.wait("3s")
    harness.wait("10s")
    table = pa.table({"bidder": bids["bidder"], "second": seconds})
    with duckdb.connect() as connection:
        connection.register("bid", table)
        expected = connection.sql(QUERY).fetchall()
    found = harness.table("q12", "bidder", "window_start", "bids")
    began = found["window_start"].cast(pa.int64()).to_numpy() // 1_000_000
    columns = found["bidder"].to_pylist(), began.tolist(), found["bids"].to_pylist()
    assert sorted(zip(*columns, strict=True)) == expected
    assert harness.late_rows == 0
