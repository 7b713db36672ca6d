"""Exactly once, whatever dies: hundreds of seeded runs against a row-by-row model."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from millstream.clock import ManualClock
from millstream.log import Log, Topic
from millstream.log.reader import PartitionReader
from millstream.runtime.attempt import read_manifest
from millstream.runtime.hosts.simulated import Faults, SimulationReport, run_simulated
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.runtime.late_flights import (
    JOB,
    OUTPUTS,
    compiler,
    expected,
    load,
    make_flights,
    outcome,
)

PATH = "/log"
LATENESS = {"10m": 600_000_000, "24h": 86_400_000_000}


@dataclass
class Watcher:
    """A reader of the output: what it saw once must be there for ever, in that order.

    It also writes more rows while the job runs, which the run must not read.
    """

    disk: MemoryDisk
    clock: ManualClock
    log: Log | None = None
    more: list[pa.Table] = field(default_factory=list)
    readers: dict[tuple[str, int], PartitionReader] = field(default_factory=dict)
    seen: dict[tuple[str, int], list[pa.RecordBatch]] = field(default_factory=dict)

    def __call__(self) -> None:
        try:
            if self.log is None:
                self.log = Log(PATH, storage=self.disk.storage("watcher"), clock=self.clock)
            for name in OUTPUTS:
                if name in self.log.topic_names():
                    self._look(self.log.topic(name))
            if self.more and read_manifest(self.log, JOB) is not None:
                # The ends of the run are captured: what comes from now on is not part of it.
                with self.log.producer("flights") as producer:
                    producer.append(self.more.pop())
        except SimulatedCrash:
            self.log = None  # the power was cut: look at everything again, from the beginning
            self.check()

    def check(self) -> None:
        """Everything that was seen is there, in its place."""
        log = Log(PATH, storage=self.disk.storage("checker"), clock=self.clock)
        for (name, partition), batches in self.seen.items():
            rows = [row for batch in batches for row in batch.to_pylist()]
            reader, found = log.topic(name).reader(partition), []
            while (batch := reader.read()) is not None:
                found += batch.to_pylist()
            assert found[: len(rows)] == rows, "a row that a reader saw was taken back"
        self.readers.clear()
        self.seen.clear()

    def _look(self, topic: Topic) -> None:
        for partition in range(topic.partitions):
            key = topic.name, partition
            if key not in self.readers:
                self.readers[key] = topic.reader(partition)
            while (batch := self.readers[key].read()) is not None:
                self.seen.setdefault(key, []).append(batch)


def simulate(
    seed: int,
    faults: Faults,
    parallelism: int,
    *,
    rows: int | None = None,
    batch_rows: int | None = None,
    interval_us: int | None = None,
    send_rows: int | None = None,
    gather_rows: int | None = None,
    held_rows: int | None = None,
    spills: bool = True,
) -> SimulationReport:
    """One run; its output must be the model's. What is not given is chosen by the seed."""
    random_ = random.Random(seed)
    disk, clock = MemoryDisk(random.Random(seed + 1)), ManualClock()
    log = Log(PATH, storage=disk.storage("setup"), clock=clock)
    count = rows or random_.randrange(150, 500)
    load(log, random_, count=count, partitions=random_.choice((1, 3, 4)))
    lateness = random_.choice(tuple(LATENESS))
    options = RunOptions(
        parallelism=parallelism,
        until="end",
        run="simulated",
        checkpoint_interval_us=interval_us or random_.choice((300, 3_000)),
        batch_rows=batch_rows or random_.choice((1, 3, 9)),
        channel_bytes=1,  # one batch: the next one waits until it was taken
        send_rows=send_rows or random_.choice((1, 1, 4, 1000)),
        gather_rows=gather_rows or (1, 3, 1, 1000)[seed % 4],
        held_rows=(0, 0, 4, 1000)[seed // 4 % 4] if held_rows is None else held_rows,
        memory_budget_bytes=1 if spills and seed % 3 == 2 else None,
    )
    ends = log.topic("flights").stable_ends()
    watcher = Watcher(disk, clock, more=[make_flights(random_, 5) for _ in range(4)])
    report = run_simulated(
        compiler(log, lateness),
        disk,
        PATH,
        options,
        seed=seed,
        faults=faults,
        clock=clock,
        watch=watcher,
    )
    watcher()
    watcher.check()
    reader = Log(PATH, storage=disk.storage("reader"), clock=clock)
    assert outcome(reader) == expected(reader, LATENESS[lateness], ends)
    for name in OUTPUTS:
        topic = reader.topic(name)
        assert topic.stable_ends() == topic.durable_ends(), "a transaction was left open"
    return report


def simulate_small(seed: int, faults: Faults, parallelism: int) -> SimulationReport:
    """One run of few rows that are read one by one, with many checkpoints."""
    return simulate(
        seed,
        faults,
        parallelism,
        rows=50,
        batch_rows=1,
        interval_us=300,
        send_rows=1,
        gather_rows=1,
        held_rows=0,
        spills=False,
    )


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_a_run_without_faults_equals_the_model(parallelism: int) -> None:
    for seed in range(3):
        report = simulate(seed, Faults(count_max=0), parallelism, rows=150)
        assert report.restores == []


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_the_output_is_exactly_once_whatever_dies(parallelism: int) -> None:
    # A few of the seeds that `nightly` runs by the thousand; most of them with few rows.
    reports = [simulate(seed, Faults(), parallelism) for seed in range(100, 103)]
    faults = Faults(every_events=60)
    reports += [simulate(seed, faults, parallelism, rows=60) for seed in range(200, 210)]
    restores = [each for report in reports for each in report.restores]
    real = [
        each
        for each in restores
        if each.checkpoint is not None and each.completed >= 2 and each.rows_replayed > 0
    ]
    assert len(real) >= len(reports) // 8, "hardly any run went on from a checkpoint"
    assert sum(report.fenced for report in reports) > 0
    if parallelism > 1:
        assert any(each.rows_in_channels for each in real)


def test_the_same_seed_is_the_same_run() -> None:
    def trace(seed: int) -> str:
        return simulate(seed, Faults(every_events=60), 2, rows=60).trace

    # One without a memory budget, and one with it.
    once, again = ([trace(seed) for seed in (3, 5)] for _ in range(2))
    assert once == again
    assert once[0] != once[1]


@pytest.mark.parametrize(("parallelism", "stride"), [(1, 11), (2, 83), (4, 151)])
def test_the_output_is_exactly_once_when_killed_at_every_step(
    parallelism: int, stride: int
) -> None:
    undisturbed = simulate_small(40, Faults(count_max=0), parallelism)
    restored = killed = 0
    events = range(2, undisturbed.events, stride)
    for event in events:
        # Another seed each time: other rows, and another order of everything.
        report = simulate_small(40 + event, Faults(count_max=0, kill_at=event), parallelism)
        killed += report.faults == ["kill"]  # or it was over before
        restored += any(each.completed and each.rows_replayed for each in report.restores)
    assert killed > len(events) * 3 // 4
    assert restored > 5


@pytest.mark.parametrize(
    ("process", "times"), [("coordinator", 18), ("worker 0", 10), ("worker 1", 10)]
)
def test_the_output_is_exactly_once_when_a_process_dies_in_an_effect(
    process: str, times: int
) -> None:
    begun_anew = 0
    effects = simulate_small(50, Faults(count_max=0), 2).effects[process]
    for effect in range(1, effects, max(effects // times, 1)):
        faults = Faults(count_max=0, crash_in=(process, effect))
        report = simulate_small(50, faults, 2)
        begun_anew += any(each.completed for each in report.restores)
    assert begun_anew > 2, effects
