"""Exactly once, whatever dies: hundreds of seeded runs against a row-by-row model."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from millstream.clock import ManualClock
from millstream.log import Log
from millstream.runtime.hosts.simulated import Faults, SimulationReport, run_simulated
from millstream.runtime.options import RunOptions
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.runtime.late_flights import OUTPUTS, compiler, expected, load, outcome

PATH = "/log"
LATENESS = {"10m": 600_000_000, "24h": 86_400_000_000}


@dataclass
class Watcher:
    """A reader of the output: what it saw once must be there for ever, in that order."""

    disk: MemoryDisk
    clock: ManualClock
    log: Log | None = None
    seen: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def __call__(self) -> None:
        try:
            if self.log is None:
                self.log = Log(PATH, storage=self.disk.storage("watcher"), clock=self.clock)
            for name in OUTPUTS:
                if name in self.log.topic_names():
                    self._look(self.log, name)
        except SimulatedCrash:
            self.log = None  # the power was cut

    def _look(self, log: Log, name: str) -> None:
        topic = log.topic(name)
        for partition in range(topic.partitions):
            reader, rows = topic.reader(partition), []
            while (batch := reader.read()) is not None:
                rows += [repr(row) for row in batch.to_pylist()]
            before = self.seen.get((name, partition), [])
            assert rows[: len(before)] == before, "a row that a reader saw was taken back"
            self.seen[name, partition] = rows


def simulate(seed: int, faults: Faults, parallelism: int) -> SimulationReport:
    """One run; its output must be the model's."""
    random_ = random.Random(seed)
    disk, clock = MemoryDisk(random.Random(seed + 1)), ManualClock()
    log = Log(PATH, storage=disk.storage("setup"), clock=clock)
    load(log, random_, count=random_.randrange(150, 500), partitions=random_.choice((1, 3, 4)))
    lateness = random_.choice(tuple(LATENESS))
    options = RunOptions(
        parallelism=parallelism,
        until="end",
        checkpoint_interval_us=random_.choice((300, 3_000)),
        batch_rows=random_.choice((1, 3, 9)),
        channel_bytes=1,  # one batch: the next one waits until it was taken
    )
    watcher = Watcher(disk, clock)
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
    reader = Log(PATH, storage=disk.storage("reader"), clock=clock)
    assert outcome(reader) == expected(reader, LATENESS[lateness])
    for name in OUTPUTS:
        topic = reader.topic(name)
        assert topic.stable_ends() == topic.durable_ends(), "a transaction was left open"
    return report


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_a_run_without_faults_equals_the_model(parallelism: int) -> None:
    for seed in range(8):
        report = simulate(seed, Faults(count_max=0), parallelism)
        assert report.restores == []


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_the_output_is_exactly_once_whatever_dies(parallelism: int) -> None:
    reports = [simulate(seed, Faults(), parallelism) for seed in range(100, 140)]
    restores = [each for report in reports for each in report.restores]
    real = [
        each
        for each in restores
        if each.checkpoint is not None and each.completed >= 2 and each.rows_replayed > 0
    ]
    assert len(real) >= len(reports) // 4, "hardly any run went on from a checkpoint"
    assert sum(report.fenced for report in reports) > 0
    if parallelism > 1:
        assert any(each.rows_in_channels for each in real)


def test_the_same_seed_is_the_same_run() -> None:
    for seed in (3, 103, 117):
        assert simulate(seed, Faults(), 2).trace == simulate(seed, Faults(), 2).trace
    assert simulate(3, Faults(), 2).trace != simulate(4, Faults(), 2).trace
