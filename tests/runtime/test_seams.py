"""Jobs whose topics get other partition counts: before, between and during runs."""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

import millstream as ms
from millstream.clock import ManualClock
from millstream.dsl.job import submit
from millstream.errors import CheckpointError
from millstream.log import Log
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.hosts.local import run_job
from millstream.runtime.hosts.simulated import NO_FAULTS, Faults, run_simulated
from millstream.runtime.manifest import PartitionState
from millstream.runtime.options import RunOptions
from millstream.runtime.seams import following_partitions, is_at_seam
from millstream.storage_memory import MemoryDisk
from millstream.windows.watermark import WATERMARK_MIN
from tests.runtime.kit import EVENTS, NAMES, PATH, SECOND_US, TIME, compiler, put, put_names

KEYS = 11
WINDOW_S = 10


def rows(first: int, count: int) -> pa.RecordBatch:
    """A row each second, of keys that take turns."""
    numbers = range(first, first + count)
    times = pa.array([each * SECOND_US for each in numbers], pa.int64()).cast(TIME)
    keys = pa.array([f"key {each * 7 % KEYS}" for each in numbers])
    return pa.record_batch([times, keys, pa.array(numbers, pa.int64())], schema=EVENTS)


def expected(count: int) -> Counter[tuple[str, int]]:
    return Counter((f"key {each * 7 % KEYS}", each // WINDOW_S) for each in range(count))


def counting(log: Log) -> list[ms.Sink]:
    stream = ms.stream("events", log=log).join(ms.table("names", key="key", log=log), on="key")
    windows = stream.key_by("key").window(ms.tumbling(f"{WINDOW_S}s"))
    counted = windows.agg(n=ms.count(), least=ms.min("value"), name=ms.max("value"))
    return [counted.to("counts"), counted.late().to("late")]


def counts_of(log: Log) -> Counter[tuple[str, int]]:
    found = Counter[tuple[str, int]]()
    for row in log.topic("counts").to_arrow().to_pylist():
        place = row["key"], row["least"] // WINDOW_S
        assert place not in found, "a window was given out twice"
        found[place] = row["n"]
    assert log.topic("late").to_arrow().num_rows == 0
    return found


def new_log(log: Log, partitions: int) -> Log:
    log.create_topic("events", EVENTS, partitions=partitions, key=["key"], time="time")
    log.create_topic("names", NAMES, partitions=2, key=["key"], table=True)
    put_names(log, "names", **{f"key {each}": "old" for each in range(KEYS)})
    return log


def test_a_new_partition_begins_with_the_least_time_of_its_forebears() -> None:
    log = new_log(Log(PATH, storage=MemoryDisk(random.Random(0)).storage("a")), 4)
    put(log, "events", rows(0, 40))
    ends = log.topic("events").durable_ends()
    topic = log.repartition("events", 2)
    at = {index: PartitionState(end, 100 - index) for index, end in enumerate(ends)}
    assert is_at_seam(topic, 0, at)
    assert not is_at_seam(topic, 0, {**at, 1: PartitionState(ends[1] - 1, 5)})
    assert not is_at_seam(topic, 1, {})
    assert following_partitions(topic, 0, at) == {
        0: PartitionState(0, 99, 1),
        1: PartitionState(0, 97, 1),
    }
    del at[3]
    assert following_partitions(topic, 0, at)[1].greatest_us == WATERMARK_MIN
    topic = log.repartition("events", 8)
    at = {0: PartitionState(0, 50, 1), 1: PartitionState(0, 60, 1)}
    begun = following_partitions(topic, 1, at)
    assert [begun[index].greatest_us for index in range(8)] == [50] * 4 + [60] * 4


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize("faults", [NO_FAULTS, Faults(every_events=80)])
def test_runs_go_on_over_seams_whatever_dies(faults: Faults, follows: bool) -> None:
    """Each run reads to the ends as they were when it began, whatever generation these are in."""
    for seed in range(4):
        chosen = random.Random(seed)
        disk, clock = MemoryDisk(random.Random(seed)), ManualClock()
        log = new_log(Log(PATH, storage=disk.storage("setup"), clock=clock), chosen.randrange(1, 5))
        sinks, count, parallelism = counting(log), 0, chosen.choice([1, 2, 3, 4])
        for run in range(3):
            for _ in range(chosen.randrange(1, 3)):
                more = chosen.randrange(5, 30)
                put(log, "events", rows(count, more))
                count += more
                log.repartition("events", chosen.randrange(1, 6))
            log.repartition("names", chosen.randrange(1, 4))
            put_names(log, "names", **{f"key {chosen.randrange(KEYS)}": f"run {run}"})
            more = chosen.randrange(0, 9)
            if more:
                put(log, "events", rows(count, more))
            count += more

            options = RunOptions(
                parallelism=parallelism,
                follows_partitions=follows,
                until="end",
                run=f"run {run}",
                checkpoint_interval_us=chosen.choice([300, 3_000]),
                batch_rows=3,
            )
            run_simulated(
                compiler(sinks), disk, PATH, options, seed=seed + 100 * run, faults=faults,
                clock=clock, watch=partial(_now_and_then, disk, clock, chosen),
            )  # fmt: skip
            log = Log(PATH, storage=disk.storage(f"after {run}"), clock=clock)
            # A bounded run gives out all windows at its end; the last may come once more, later.
            found = Counter[tuple[str, int]]()
            for row in log.topic("counts").to_arrow().to_pylist():
                found[row["key"], row["least"] // WINDOW_S] += row["n"]
            late = Counter(
                (row["key"], row["value"] // WINDOW_S)
                for row in log.topic("late").to_arrow().to_pylist()
            )
            assert found + late == expected(count), f"seed {seed}, run {run}"


def _now_and_then(disk: MemoryDisk, clock: ManualClock, chosen: random.Random) -> None:
    if chosen.random() < 0.02:
        log = Log(PATH, storage=disk.storage("meanwhile"), clock=clock)
        log.repartition("events", chosen.randrange(1, 6))


def test_rows_are_collected_over_all_generations() -> None:
    log = new_log(Log(PATH, storage=MemoryDisk(random.Random(0)).storage("a")), 3)
    for part, partitions in enumerate((1, 4, 2)):
        put(log, "events", rows(10 * part, 10))
        log.repartition("events", partitions)
    put(log, "events", rows(30, 10))
    found = ms.stream("events", log=log).collect()
    assert sorted(found.column("value").to_pylist()) == list(range(40))


def test_rows_that_were_removed_before_a_job_read_them_are_missed_by_nobody(
    tmp_path: Path,
) -> None:
    log = new_log(Log(tmp_path / "log"), 2)
    log.alter_topic("events", config={"retention.ms": 1})
    put(log, "events", rows(0, 10))
    run_job(compiler(counting(log)), log, RunOptions(until="end", parallelism=2))
    put(log, "events", rows(10, 10))
    log.repartition("events", 3)
    time.sleep(0.01)
    log.clean("events")
    assert log.topic("events").config.generations == [1]
    with pytest.raises(CheckpointError, match="stands in generation 0 of topic 'events', whose"):
        Coordinator(compiler(counting(log)), log, RunOptions(parallelism=2)).start()


def test_a_running_job_goes_on_with_as_many_workers_as_there_are_partitions(
    tmp_path: Path,
) -> None:
    log = new_log(Log(tmp_path / "log"), 2)
    put(log, "events", rows(0, 40))
    handle = submit(*counting(log), name="job", checkpoint_interval="20ms", on="local")
    try:
        count = 40
        for partitions in (4, 1, 3):
            _until(lambda count=count: _seen(log, count))
            Log(log.path).repartition("events", partitions)
            put(Log(log.path), "events", rows(count, 40))
            count += 40
            _until(lambda partitions=partitions: handle.status().parallelism == partitions)
        put(Log(log.path), "events", rows(count, 40))
        count += 40
        _until(lambda: _seen(log, count))
        handle.stop()
    finally:
        handle.wait(30)
    result = run_job(
        compiler(counting(log)), log, RunOptions(until="end", run="last", parallelism=3)
    )
    assert result.finished
    assert counts_of(Log(log.path)) == expected(count)


def _seen(log: Log, count: int) -> bool:
    """Whether windows of rows before `count` were given out, but for the newest of each key."""
    found = Log(log.path)
    if "counts" not in found.topic_names():
        return False
    rows_ = found.topic("counts").to_arrow().column("n").to_pylist()
    return sum(rows_) >= count - 4 * WINDOW_S


def _until(holds: object, timeout_s: float = 30) -> None:
    assert callable(holds)
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.02)
