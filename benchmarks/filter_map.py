"""Filter + map, log to log: the fused pass, its checksums and its writing, beside the bound.

The job reads key, time and two numbers (32 bytes a row), keeps about a quarter of the rows, and
writes key, time and two computed numbers. Whatever it does, it must at least pass once over the
columns, checksum the bytes it reads and write its output, so the bound is the least of three
rates taken in the same run over the same data, in rows of input a second:

- a hand-written Numba pass over the same columns in memory (32 bytes read, 8 written a row);
- CRC-32C over the bytes read (32 a row);
- writing as many output bytes as a pass of the job does (8 a row of input) plainly to the same
  disk, with one sync at the end.

Beside it stands a chain of `pyarrow.compute` calls over the same columns in memory. The job
runs at P=1 in this process with checkpoints on and warm kernels, pass after pass over the topic
until ten seconds have been measured; the parts of the bound take turns with it, and of each the
median counts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import crc32c
import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import millstream as ms
from benchmarks.harness import Figure, Figures, compared, main, scratch_directory
from benchmarks.jobs import Passes, passes_over
from millstream import col

SCHEMA = pa.schema(
    [
        pa.field("key", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("a", pa.float64(), nullable=False),
        pa.field("b", pa.float64(), nullable=False),
    ]
)
BATCH_ROWS = 131_072
THRESHOLD = 0.75
GOAL = 0.5


def make_batch(index: int) -> pa.RecordBatch:
    """Return batch `index` of the input: random, the same in every run, time going on."""
    random = np.random.default_rng(index)
    first_us = 1_700_000_000_000_000 + index * BATCH_ROWS * 1_000
    arrays = [
        pa.array(random.integers(0, 1_000_000, BATCH_ROWS)),
        pa.array(first_us + np.arange(BATCH_ROWS) * 1_000).cast(SCHEMA.field("time").type),
        pa.array(random.random(BATCH_ROWS)),
        pa.array(random.random(BATCH_ROWS)),
    ]
    return pa.record_batch(arrays, schema=SCHEMA)


@numba.njit(nogil=True)
def filter_map_pass(key: Any, time_us: Any, a: Any, b: Any, out: Any) -> int:
    """Write the output columns of the rows that pass into `out`; return how many they are."""
    out_key, out_time, out_sum, out_scaled = out
    count = 0
    for row in range(len(key)):
        out_key[count] = key[row]
        out_time[count] = time_us[row]
        out_sum[count] = a[row] + b[row]
        out_scaled[count] = a[row] * 2.5
        count += a[row] > THRESHOLD
    return count


def numba_pass(batches: list[pa.RecordBatch]) -> None:
    """Pass over all batches with the hand-written kernel."""
    out = (
        np.empty(BATCH_ROWS, np.int64),
        np.empty(BATCH_ROWS, np.int64),
        np.empty(BATCH_ROWS, np.float64),
        np.empty(BATCH_ROWS, np.float64),
    )
    for batch in batches:
        key, time_us, a, b = (batch.column(index) for index in range(4))
        filter_map_pass(
            key.to_numpy(), time_us.view(pa.int64()).to_numpy(), a.to_numpy(), b.to_numpy(), out
        )


def arrow_chain(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Do the same with a chain of pyarrow.compute calls."""
    results = []
    for batch in batches:
        kept = batch.filter(pc.greater(batch["a"], THRESHOLD))
        columns = [
            kept["key"],
            kept["time"],
            pc.add(kept["a"], kept["b"]),
            pc.multiply(kept["a"], 2.5),
        ]
        results.append(pa.record_batch(columns, names=["key", "time", "sum", "scaled"]))
    return results


def checksum(batches: list[pa.RecordBatch]) -> None:
    """Take CRC-32C over every buffer of every batch."""
    for batch in batches:
        for column in batch.columns:
            for buffer in column.buffers():
                if buffer is not None:
                    crc32c.crc32c(buffer)


def write_plainly(batches: list[pa.RecordBatch], path: Path) -> None:
    """Write the buffers of the output one after another into a file, and sync it.

    The file of the run before is there until then; see `passes_over`.
    """
    path.unlink(missing_ok=True)
    with path.open("wb", buffering=0) as file:
        for batch in batches:
            for column in batch.columns:
                for buffer in column.buffers():
                    if buffer is not None:
                        file.write(buffer)
        os.fsync(file.fileno())


def job(output: str) -> ms.Sink:
    """Return the benchmark's job, written to topic `output`."""
    return (
        ms.stream("events", time="time")
        .filter(col("a") > THRESHOLD)
        .select(key=col("key"), time=col("time"), sum=col("a") + col("b"), scaled=col("a") * 2.5)
        .to(output)
    )


def run(quick: bool) -> Figures:
    """Measure the job, the bound's three parts and the chain of calls."""
    batch_count = 100 if quick else 750
    seconds = 1.0 if quick else 10.0
    with scratch_directory() as directory:
        log = ms.Log(directory / "log")
        log.create_topic("events", SCHEMA, time="time")
        with log.producer("events") as producer:
            for index in range(batch_count):
                producer.append(make_batch(index))
        sample = [make_batch(index) for index in range(min(batch_count, 200))]
        # As many bytes as a pass of the job writes: a short burst would stay in memory.
        output = arrow_chain(sample) * (batch_count // len(sample))
        sample_rows = BATCH_ROWS * len(sample)
        peers = {
            "numba_pass": lambda: numba_pass(sample),
            "checksum": lambda: checksum(sample),
            "plain_write": lambda: write_plainly(output, directory / "plain"),
            "arrow_chain": lambda: arrow_chain(sample),
        }
        peer_rows = dict.fromkeys(peers, sample_rows)
        peer_rows["plain_write"] *= batch_count // len(sample)
        measured = passes_over(log, job, "events", peers, seconds=seconds)
    rates = {name: peer_rows[name] / taken for name, taken in measured.peers.items()}
    return figures_of(measured, rates, rates.pop("arrow_chain"))


def figures_of(measured: Passes, parts: dict[str, float], chain: float) -> Figures:
    """Return the figures: the job beside its bound, and everything it was compared with."""
    bound = min(parts, key=lambda name: parts[name])
    return {
        "log_to_log": compared(
            measured.rows_per_second, "rows/s", f"bound ({bound})", parts[bound], goal=GOAL
        ),
        "against_pyarrow": compared(
            measured.rows_per_second, "rows/s", "pyarrow.compute in memory", chain
        ),
        **{f"bound_{name}": Figure(value, "rows/s") for name, value in parts.items()},
        "pyarrow_compute": Figure(chain, "rows/s"),
        "checkpoints": Figure(measured.checkpoints, ""),
        "rows_through_python": Figure(measured.rows_python, "rows", "lower", goal=0),
    }


if __name__ == "__main__":
    main(run, __doc__)
