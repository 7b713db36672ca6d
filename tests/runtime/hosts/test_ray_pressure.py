"""One row matches a million, four workers send all to all, and one of them stands still.

The others wait in the middle of a row's matches, and in little memory. Then one is killed. It
stands still for ten seconds where MILLSTREAM_LONG is set.

For a row of 150 bytes that comes in, a million of 200 bytes cross, each by another key than its
neighbours, so that nothing is combined before.
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
from millstream.plan.compile import compile_job
from millstream.runtime.control import JobRecord
from millstream.runtime.handle import JobHandle
from millstream.runtime.hosts.remote_fleet import Patience
from millstream.runtime.options import RunOptions
from millstream.runtime.restart import RestartStrategy
from tests.runtime.hosts.ray_jobs import seeded
from tests.runtime.hosts.ray_kit import end, own_bytes

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400), pytest.mark.usefixtures("ray_address")]

WORKERS = 4
MATCHES = 1_000_000
"""Rows of the table that belong to its hot group."""
COLD_GROUPS, COLD_MATCHES = 20, 50
TEAMS = 262_144
"""More than rows in a piece of output, so that none is combined with another before it crosses."""
BATCH_ROWS = 16_384
BATCHES = 2 * WORKERS
"""Of the stream, each with one hot row: each worker has two million matches to send."""
HOT = 0
SUMS = 8
CHANNELS_BYTES = 64 * 1024 * 1024
CHANNEL_ENDS = 2 * WORKERS * (WORKERS - 1) + WORKERS
"""Of all workers: both ends of a channel to each other one, and each one's own."""
GROWTH_MAX_BYTES = CHANNELS_BYTES + 128 * 1024 * 1024
"""Of one process; the rest is state, what a checkpoint gathers, and pieces on their way. All
matches of a single row would take more."""
STOPPED_S = 10.0 if os.environ.get("MILLSTREAM_LONG") else 3.0
TIMEOUT_S = 180.0
SAMPLE_S = 0.05
NOTE = "a text that goes with each match " * 4
EVENTS = pa.schema(
    {
        "time": pa.timestamp("us", "UTC"),
        "group": pa.int32(),
        "value": pa.float64(),
        "note": pa.string(),
    }
)
MEMBERS = pa.schema({"member": pa.int64(), "group": pa.int32(), "team": pa.int64()})


def events() -> pa.Table:
    """Rows in one window: of each batch one is hot, some are cold, most have no match."""
    chooser = np.random.default_rng(1)
    count = BATCHES * BATCH_ROWS
    times = pa.array(np.arange(count), pa.int64()).cast(EVENTS.field("time").type)
    groups = chooser.integers(HOT + 1, 100 * COLD_GROUPS, count)
    groups[np.arange(BATCHES) * BATCH_ROWS + chooser.integers(0, BATCH_ROWS, BATCHES)] = HOT
    values = chooser.integers(0, 1_000, count).astype(float)
    return pa.table([times, groups.astype(np.int32), values, [NOTE] * count], schema=EVENTS)


def members() -> pa.Table:
    """A million members of the hot group and a few of each other one; neighbours differ in team."""
    cold = np.repeat(np.arange(HOT + 1, COLD_GROUPS), COLD_MATCHES)
    groups = np.concatenate((np.full(MATCHES, HOT), cold)).astype(np.int32)
    np.random.default_rng(2).shuffle(groups)
    numbers = np.arange(len(groups))
    return pa.table([numbers, groups, numbers % TEAMS], schema=MEMBERS)


def by_team(log: Log) -> ms.Sink:
    sums: dict[str, Any] = {f"sum_{each}": ms.sum(ms.col("value") + each) for each in range(SUMS)}
    stream = ms.stream("events", time="time", lateness="0s", log=log)
    joined = stream.join(ms.table("members", key="member", log=log), on="group")
    windows = joined.key_by("team", "note").window(ms.tumbling("1h"))
    return windows.agg(rows=ms.count(), **sums).to("by_team")


def load(log: Log) -> None:
    log.create_topic("events", EVENTS, partitions=WORKERS)
    log.create_topic("members", MEMBERS, partitions=WORKERS, key=("member",), table=True)
    with log.producer("members") as producer:
        producer.append(members())
    with log.producer("events") as producer:
        for batch in range(BATCHES):
            rows = events().slice(batch * BATCH_ROWS, BATCH_ROWS)
            producer.append(rows, partition=batch % WORKERS)


def submit(log: Log) -> JobHandle:
    sink = by_team(log).node
    options = RunOptions(
        parallelism=WORKERS,
        until="end",
        run=os.urandom(8).hex(),
        batch_rows=BATCH_ROWS,
        channel_bytes=CHANNELS_BYTES // CHANNEL_ENDS,
        checkpoint_interval_us=500_000,
    )
    host = ray_host()
    handle: JobHandle = host.submit_job(
        lambda parallelism, partitions: compile_job([sink], "by_team", parallelism, partitions),
        log,
        options,
        host.RaySettings(
            patience=Patience(answer_s=60, advance_s=60),
            restart=RestartStrategy(first_delay_us=1_000),
        ),
    )
    return handle


def matched(record: JobRecord) -> int:
    """How many rows the joins have given out in this attempt."""
    joins = (each.operators.get("join-members") for each in record.workers)
    return sum(each.rows_out for each in joins if each is not None)


def test_a_worker_that_stands_still_holds_up_rows_of_a_million_matches_in_little_memory(
    tmp_path: Path,
) -> None:
    chooser, log = seeded("pressure"), Log(tmp_path / "log")
    load(log)
    handle = submit(log)
    deadline_s = time.monotonic() + TIMEOUT_S
    # After the first row of a million matches every team is known, and kept in a checkpoint.
    while not (matched(record := handle.status()) > 2 * MATCHES and record.checkpoints >= 2):
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
    while matched(latest := handle.status()) < matched(held_up) + MATCHES:
        assert time.monotonic() < deadline_s, latest
        sample()
        time.sleep(SAMPLE_S)
    growth = {pid: most[pid] - before[pid] for pid in pids}
    assert max(growth.values()) < GROWTH_MAX_BYTES, growth
    assert matched(held_up) < BATCHES * MATCHES, "nobody was held up"
    assert max(each.backpressured_us for each in held_up.workers) > STOPPED_S * 1e6 / 4

    end(chooser.choice(record.workers).pid, signal.SIGKILL)
    result = handle.wait(TIMEOUT_S)
    assert result is not None
    assert (result.finished, result.restarts) == (True, 1), handle.status()
    assert result.restored is not None
    assert result.restored >= (record.checkpoint or 0) >= 2
    check(log)


def check(log: Log) -> None:
    """The output is what NumPy makes of the input."""
    found = Log(log.path).topic("by_team").to_arrow().sort_by("team")
    groups, teams = (members().column(each).to_numpy() for each in ("group", "team"))
    of_events, values = (events().column(each).to_numpy() for each in ("group", "value"))
    counts, totals = np.bincount(of_events), np.bincount(of_events, values)
    rows = np.bincount(teams, counts[groups], TEAMS)
    known = np.flatnonzero(rows)
    np.testing.assert_array_equal(found.column("team").to_numpy(), known)
    assert found.column("note").unique().to_pylist() == [NOTE]
    np.testing.assert_array_equal(found.column("rows").to_numpy(), rows[known])
    for each in range(SUMS):
        wanted = np.bincount(teams, (totals + counts * each)[groups], TEAMS)
        np.testing.assert_array_equal(found.column(f"sum_{each}").to_numpy(), wanted[known])
