"""One hot worker stands still while three others send to it: they wait, and in little memory.

Then one of them is killed. It stands still for ten seconds where MILLSTREAM_LONG is set.

A row of 24 bytes comes in and one of some hundreds crosses, most of them to one worker.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import millstream as ms
from millstream.dsl.execution import ray_host
from millstream.log import Log
from millstream.log.key_hash import KEY_GROUPS, key_groups
from millstream.plan.compile import compile_job
from millstream.runtime.control import JobRecord
from millstream.runtime.handle import JobHandle
from millstream.runtime.hosts.remote_fleet import Patience
from millstream.runtime.options import RunOptions
from millstream.runtime.restart import RestartStrategy
from tests.runtime.hosts.ray_jobs import seeded
from tests.runtime.hosts.ray_kit import end, own_bytes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180), pytest.mark.usefixtures("ray_address")]

WORKERS = 4
ROWS = 800_000
KEYS = 16_384
"""So many that a batch has few rows of one key, which would be combined before they cross."""
HOT_KEYS = KEYS * 8 // 10
SUMS = 40
CHANNELS_BYTES = 64 * 1024 * 1024
CHANNEL_ENDS = 2 * (WORKERS - 1) + 1
"""Of a worker: to and from each other one, and its own."""
GROWTH_MAX_BYTES = CHANNELS_BYTES + 64 * 1024 * 1024
"""The rest is what a checkpoint and the sink gather."""
STOPPED_S = 10.0 if os.environ.get("MILLSTREAM_LONG") else 3.0
TIMEOUT_S = 90.0
SAMPLE_S = 0.05
SCHEMA = pa.schema(
    {"time": pa.timestamp("us", "UTC"), "n": pa.int64(), "value": pa.float64()},
)


def rows() -> pa.Table:
    """Rows in one window, most of them of keys that the first worker owns."""
    candidates = np.arange(8 * KEYS)
    hot = key_groups([pa.array(candidates)]) < KEY_GROUPS // WORKERS
    keys = np.concatenate((candidates[hot][:HOT_KEYS], candidates[~hot][: KEYS - HOT_KEYS]))
    chooser = np.random.default_rng(1)
    times = pa.array(np.arange(ROWS), pa.int64()).cast(SCHEMA.field("time").type)
    values = chooser.integers(0, 1_000, ROWS).astype(float)
    return pa.table([times, chooser.choice(keys, ROWS), values], schema=SCHEMA)


def wide(log: Log) -> ms.Sink:
    sums: dict[str, Any] = {f"sum_{each}": ms.sum(ms.col("value") + each) for each in range(SUMS)}
    stream = ms.stream("narrow", time="time", lateness="0s", log=log)
    return stream.key_by("n").window(ms.tumbling("1h")).agg(**sums).to("wide")


def submit(log: Log, channel_bytes: int) -> JobHandle:
    sink = wide(log).node
    options = RunOptions(
        parallelism=WORKERS,
        until="end",
        run=os.urandom(8).hex(),
        batch_rows=4_096,
        channel_bytes=channel_bytes,
        checkpoint_interval_us=500_000,
    )
    host = ray_host()
    handle: JobHandle = host.submit_job(
        lambda parallelism: compile_job([sink], "wide", parallelism),
        log,
        options,
        host.RaySettings(
            patience=Patience(answer_s=60, advance_s=60),
            restart=RestartStrategy(first_delay_us=1_000),
        ),
    )
    return handle


def read(record: JobRecord) -> int:
    return sum(each.rows_read for each in record.workers)


def test_a_worker_that_stands_still_for_a_while_holds_up_the_others_in_little_memory(
    tmp_path: Path,
) -> None:
    chooser, log, table = seeded("pressure"), Log(tmp_path / "log"), rows()
    log.create_topic("narrow", SCHEMA, partitions=WORKERS)
    with log.producer("narrow") as producer:
        for start in range(0, ROWS, 1_000):
            producer.append(table.slice(start, 1_000), partition=start // 1_000 % WORKERS)
    handle = submit(log, CHANNELS_BYTES // CHANNEL_ENDS)
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (read(record := handle.status()) > ROWS // 10 and record.checkpoints >= 2):
        assert time.monotonic() < deadline_s, record
        time.sleep(SAMPLE_S)
    pids = [record.pid, *(each.pid for each in record.workers)]
    before = {pid: own_bytes(pid) for pid in pids}
    most = dict(before)

    def sample() -> None:
        for pid in pids:
            most[pid] = max(most[pid], own_bytes(pid))

    end(record.workers[0].pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    try:
        while time.monotonic() - stopped_s < STOPPED_S:
            sample()
            time.sleep(SAMPLE_S)
        held_up = handle.status()
    finally:
        end(record.workers[0].pid, signal.SIGCONT)
    while read(latest := handle.status()) < read(held_up) + ROWS // 20:
        assert time.monotonic() < deadline_s, latest
        sample()
        time.sleep(SAMPLE_S)
    growth = {pid: most[pid] - before[pid] for pid in pids}
    assert max(growth.values()) < GROWTH_MAX_BYTES, growth
    # Some have read all of theirs where the machine is fast; not all of them.
    assert read(held_up) < ROWS, "nobody was held up"
    assert max(each.backpressured_us for each in held_up.workers) > STOPPED_S * 1e6 / 4

    end(chooser.choice(record.workers).pid, signal.SIGKILL)
    result = handle.wait(TIMEOUT_S)
    assert result is not None
    assert (result.finished, result.restarts) == (True, 1), handle.status()
    assert result.restored is not None
    assert result.restored >= (record.checkpoint or 0) >= 2
    if result.restored == latest.checkpoint:
        assert read(latest) + result.rows_read > ROWS, "nothing had to be read again"
    check(log, table)


def check(log: Log, table: pa.Table) -> None:
    """The output is what NumPy makes of the input."""
    found = Log(log.path).topic("wide").to_arrow().sort_by("n")
    numbers, places = np.unique(table.column("n").to_numpy(), return_inverse=True)
    values = table.column("value").to_numpy()
    np.testing.assert_array_equal(found.column("n").to_numpy(), numbers)
    for each in range(SUMS):
        wanted = np.bincount(places, values + each)
        np.testing.assert_array_equal(found.column(f"sum_{each}").to_numpy(), wanted)
