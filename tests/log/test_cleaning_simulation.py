"""Seeded runs in which processes also clean: what is promised holds while segments are rewritten.

Each row is a key of its own, so a compaction has nothing to drop but aborted rows: all that was
acknowledged has to stay, once, in order and at its offset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import pyarrow as pa
import pytest

from millstream.log.reader import PartitionReader
from tests.log.simulation import Process, Simulation

SEEDS = range(60)
STEPS = 40
SEEDS_THAT_FAILED = (31, 1217)


class CleaningSimulation(Simulation):
    key = ("id",)
    config: ClassVar = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": 0}
    columns = ("id", "_offset")

    def offset_of_last(self, reader: PartitionReader, batch: pa.RecordBatch) -> int:
        del reader
        last: int = batch.column("_offset")[-1].as_py()
        return last

    def actions(self) -> list[tuple[int, Callable[[Process], None]]]:
        return [*super().actions(), (2, self.clean), (1, self.clean_aside), (1, self.erase)]

    def clean(self, process: Process) -> None:
        """Clean all there is."""
        for done in process.log.clean():
            self.counts["rewritten"] += done.compacted.segments_before
            self.counts["dropped"] += done.compacted.rows_dropped

    def clean_aside(self, process: Process) -> None:
        """Do what was to be done later."""
        process.storage.run_waiting()

    def erase(self, process: Process) -> None:
        """Erase what is not there: it seals segments, and leaves a journal where it dies."""
        topic = self.random.choice(["a", "b", "os"])
        process.log.erase(topic, pa.table({"id": [-1, -2]}))


def run(seed: int) -> Counter[str]:
    simulation = CleaningSimulation(seed)
    try:
        simulation.run(STEPS)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return Counter(simulation.counts)


def test_promises_hold_while_segments_are_rewritten() -> None:
    counts = sum((run(seed) for seed in SEEDS), Counter())
    for event in ("deaths", "power cuts", "commits", "interrupts", "rewritten", "rows kept"):
        assert counts[event] > 20, f"the runs are too tame: {counts}"


@pytest.mark.parametrize("seed", SEEDS_THAT_FAILED)
def test_seeds_that_once_failed(seed: int) -> None:
    run(seed)
