"""Seeded runs in which columns come, and rows have headers, times, dictionaries, compression."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import pyarrow as pa
import pytest

from millstream.log.columns import HEADERS_FIELD, TIMESTAMP_FIELD
from millstream.log.reader import PartitionReader
from tests.log.simulation import Place, Process, Simulation

SEEDS = range(60)
STEPS = 30
WORD = pa.dictionary(pa.int8(), pa.string())
ADDED_MAX = 3


class ColumnSimulation(Simulation):
    """Every row tells its id once more, in each column that it has beside."""

    columns = ("id", "_headers", "_timestamp", "_offset", "word", "added0")

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        setup = Process(self.disk, "setup again", 0, self.clock)
        for topic, compression in (("a", "zstd"), ("b", "lz4"), ("os", "none")):
            fields = [pa.field("word", WORD), pa.field("added0", pa.list_(pa.int64()))]
            setup.log.alter_topic(
                topic, config={"compression.type": compression}, add_columns=fields
            )
        setup.storage.kill()
        self.times: dict[int, int] = {}
        self.added: dict[str, int] = defaultdict(lambda: 1)

    def actions(self) -> list[tuple[int, Callable[[Process], None]]]:
        return [*super().actions(), (1, self.evolve)]

    def evolve(self, process: Process) -> None:
        """Add a column to a topic; who has it open finds out."""
        topic = self.random.choice(["a", "b", "os"])
        process.log.topic(topic).refresh()
        name = f"added{self.added[topic]}"
        if self.added[topic] < ADDED_MAX:
            self.added[topic] += 1  # also where the process dies in it
            field = pa.field(name, pa.list_(pa.int64()))
            process.log.alter_topic(topic, add_columns=[field])
            self.counts["evolved"] += 1

    def dressed(self, topic: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        ids = batch.column("id").to_pylist()
        if self.random.random() < 0.5:
            words = pa.array([f"{each}" for each in ids], WORD)
            batch = batch.append_column(pa.field("word", WORD), words)
        if self.random.random() < 0.3:
            lists = pa.array([[each] for each in ids])
            batch = batch.append_column(pa.field("added0", lists.type), lists)
        if self.random.random() < 0.3:
            headers = [[{"key": "id", "value": b"%d" % each}] for each in ids]
            batch = batch.append_column(HEADERS_FIELD, pa.array(headers, HEADERS_FIELD.type))
            self.counts["headers"] += 1
        if self.random.random() < 0.3:
            times = pa.array(ids).cast(TIMESTAMP_FIELD.type)
            batch = batch.append_column(TIMESTAMP_FIELD, times)
            self.times.update((each, each) for each in ids)
        return batch

    def check(self, place: Place, reader: PartitionReader, batch: pa.RecordBatch) -> None:
        del place
        rows = batch.set_column(2, "_timestamp", batch["_timestamp"].cast(pa.int64())).to_pylist()
        assert rows[-1]["_offset"] == reader.position - 1
        for row in rows:
            own = row["id"]
            self.counts["words"] += row["word"] is not None
            assert row["word"] in {None, f"{own}"}
            assert row["added0"] in (None, [own])
            assert row["_headers"] in (None, [{"key": "id", "value": b"%d" % own}])
            is_own = own in self.times
            assert (row["_timestamp"] == own) if is_own else row["_timestamp"] > 10_000_000


def run(seed: int) -> Counter[str]:
    simulation = ColumnSimulation(seed)
    simulation.clock.sleep_us(10_000_000)
    try:
        simulation.run(STEPS)
    except BaseException as error:
        error.add_note(f"seed {seed}, {STEPS} steps")
        raise
    return Counter(simulation.counts)


@pytest.mark.parametrize("first", range(0, len(SEEDS), 30))
def test_columns_come_and_go_whoever_dies_and_when(first: int) -> None:
    counts = sum((run(seed) for seed in SEEDS[first : first + 30]), Counter())
    for event in ("deaths", "power cuts", "commits", "headers", "evolved", "words", "rows kept"):
        assert counts[event] > 10, f"the runs are too tame: {counts}"
