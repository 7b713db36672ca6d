"""Hypothesis drives a log and a model of it in plain lists: they agree after every call."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from millstream.errors import FencedError, OffsetOutOfRangeError
from millstream.log import Log
from millstream.log.producer import Producer
from millstream.log.reader import PartitionReader
from millstream.log.transactions import Writer
from millstream.storage_memory import MemoryDisk
from tests.examples import examples
from tests.log.log_kit import log_on

SCHEMA = pa.schema([("id", pa.int64()), ("key", pa.int8())])
PLACES = [("a", 0), ("a", 1), ("t", 0)]
places = st.sampled_from(PLACES)
Key = tuple[int, int, int]


@dataclass
class ModelFrame:
    base: int
    rows: list[tuple[int, int, int]]
    """(id, key, operation)"""
    transaction: Key | None

    @property
    def end(self) -> int:
        return self.base + len(self.rows)


@dataclass
class ModelPartition:
    frames: list[ModelFrame] = field(default_factory=list)
    durable: int = 0

    @property
    def end(self) -> int:
        return self.frames[-1].end if self.frames else 0


@dataclass(eq=False)
class OpenTransaction:
    writer: Writer
    producers: dict[str, Producer]


@dataclass(eq=False)
class OpenReader:
    place: tuple[str, int]
    reader: PartitionReader
    committed: bool
    boot: str


class LogMachine(RuleBasedStateMachine):
    transactions = Bundle("transactions")
    readers = Bundle("readers")

    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        self.disk = MemoryDisk(random.Random(seed))
        self.model = {place: ModelPartition() for place in PLACES}
        self.epochs: dict[int, int] = {}
        self.decisions: dict[Key, bool] = {}
        self.next_id = 0
        self.open()
        self.onlooker = log_on(self.disk.storage("onlooker"))
        self.log.create_topic("a", SCHEMA, partitions=2, config={"segment.bytes": 1_200})
        self.log.create_topic("t", SCHEMA, key=["key"], table=True, config={"segment.bytes": 2_000})

    def open(self) -> None:
        self.log: Log = log_on(self.disk.storage("process"))
        self.producers: dict[str, Producer] = {}

    def state(self, frame: ModelFrame) -> str:
        if frame.transaction is None:
            return "committed"
        if frame.transaction in self.decisions:
            return "committed" if self.decisions[frame.transaction] else "aborted"
        owner, epoch, _ = frame.transaction
        return "aborted" if epoch < self.epochs[owner] else "undecided"

    def stable_end(self, place: tuple[str, int]) -> int:
        partition = self.model[place]
        for frame in partition.frames:
            if frame.end > partition.durable:
                break
            if self.state(frame) == "undecided":
                return frame.base
        return partition.durable

    def visible(self, place: tuple[str, int], committed: bool) -> list[tuple[int, int, int, int]]:
        """(offset, id, key, operation) of all rows that a reader may see."""
        end = self.stable_end(place) if committed else self.model[place].durable
        return [
            (frame.base + index, *row)
            for frame in self.model[place].frames
            if not committed or self.state(frame) == "committed"
            for index, row in enumerate(frame.rows)
            if frame.base + index < end
        ]

    def note_durable(self, place: tuple[str, int], at_least: int) -> None:
        """Rolling a segment makes rows durable that nobody flushed; never half a frame."""
        durable = self.log.topic(place[0]).durable_ends()[place[1]]
        partition = self.model[place]
        assert max(at_least, partition.durable) <= durable <= partition.end
        assert durable in {0, *(frame.end for frame in partition.frames)}
        partition.durable = durable

    def new_rows(self, keys: list[int]) -> pa.RecordBatch:
        first, self.next_id = self.next_id, self.next_id + len(keys)
        columns = [pa.array(range(first, self.next_id), pa.int64()), pa.array(keys, pa.int8())]
        return pa.record_batch(columns, schema=SCHEMA)

    def add(
        self, place: tuple[str, int], batch: pa.RecordBatch, key: Key | None, operation: int = 0
    ) -> None:
        partition = self.model[place]
        rows = [
            (row["id"] if operation == 0 else None, row["key"], operation)
            for row in batch.to_pylist()
        ]
        partition.frames.append(ModelFrame(partition.end, rows, key))  # type: ignore[arg-type]
        self.note_durable(place, 0)

    def producer(self, topic: str) -> Producer:
        if topic not in self.producers:
            self.producers[topic] = self.log.producer(topic)
        return self.producers[topic]

    keys = st.lists(st.integers(0, 3), min_size=1, max_size=3)

    @rule(place=places, keys=keys)
    def append(self, place: tuple[str, int], keys: list[int]) -> None:
        batch = self.new_rows(keys)
        self.producer(place[0]).append(batch, partition=place[1])
        self.add(place, batch, None)

    @rule(keys=keys)
    def delete(self, keys: list[int]) -> None:
        batch = self.new_rows(keys)
        self.producer("t").delete(batch.select(["key"]))
        self.add(("t", 0), batch, None, operation=1)

    @rule(place=places)
    def sync(self, place: tuple[str, int]) -> None:
        self.log.topic(place[0]).partition(place[1]).sync()
        self.note_durable(place, self.model[place].end)

    @rule()
    def flush(self) -> None:
        touched = {
            (topic, index) for topic, each in self.producers.items() for index in each.touched()
        }
        for producer in self.producers.values():
            producer.flush()
        for place in touched:
            self.note_durable(place, self.model[place].end)

    @rule(target=transactions, owner=st.sampled_from(["x", "y"]))
    def begin(self, owner: str) -> OpenTransaction:
        writer = self.log.transactions.writer(owner)
        assert writer.epoch == self.epochs.get(writer.owner_id, 0) + 1
        self.epochs[writer.owner_id] = writer.epoch
        return OpenTransaction(writer, {})

    def is_fenced(self, transaction: OpenTransaction) -> bool:
        return transaction.writer.epoch < self.epochs[transaction.writer.owner_id]

    @rule(transaction=transactions, place=places, keys=keys, number=st.integers(1, 2))
    def append_in(
        self,
        transaction: OpenTransaction,
        place: tuple[str, int],
        keys: list[int],
        number: int,
    ) -> None:
        writer = transaction.writer
        key = (writer.owner_id, writer.epoch, number)
        if key in self.decisions:
            return  # nobody may add to what is decided
        batch = self.new_rows(keys)
        producer = self.log.producer(place[0], writer=writer)
        if self.is_fenced(transaction):
            with pytest.raises(FencedError):
                producer.append(batch, partition=place[1], transaction=number)
            return
        producer.append(batch, partition=place[1], transaction=number)
        self.add(place, batch, key)

    @rule(transaction=transactions, number=st.integers(1, 2), commit=st.booleans())
    def decide(self, transaction: OpenTransaction, number: int, commit: bool) -> None:
        writer = transaction.writer
        key = (writer.owner_id, writer.epoch, number)
        outcome: Any = "commit" if commit else "abort"
        if self.is_fenced(transaction):
            with pytest.raises(FencedError):
                self.log.transactions.decide(writer, number, outcome)
            return
        if key in self.decisions:
            return
        participants = [
            place
            for place, partition in self.model.items()
            if any(frame.transaction == key for frame in partition.frames)
        ]
        if commit:
            self.log.transactions.prepare(writer, number, participants)
            for place in participants:
                self.note_durable(place, self.model[place].end)
        self.log.transactions.decide(writer, number, outcome)
        self.decisions[key] = commit

    @rule(
        owner=st.sampled_from(["x", "y"]),
        frames=st.lists(st.tuples(places, keys), max_size=4),
        commit=st.booleans(),
    )
    def transact(
        self, owner: str, frames: list[tuple[tuple[str, int], list[int]]], commit: bool
    ) -> None:
        """A whole transaction, as users write it."""
        with self.log.transaction(owner) as transaction:
            writer = transaction._writer
            self.epochs[writer.owner_id] = writer.epoch
            key = (writer.owner_id, writer.epoch, 1)
            for place, keys in frames:
                batch = self.new_rows(keys)
                transaction.append(place[0], batch, partition=place[1])
                self.add(place, batch, key)
            if not commit:
                transaction.abort()
        self.decisions[key] = commit
        if commit:
            for place, _ in frames:
                self.note_durable(place, self.model[place].end)

    @rule(target=readers, place=places, committed=st.booleans(), data=st.data())
    def open_reader(
        self, place: tuple[str, int], committed: bool, data: st.DataObject
    ) -> OpenReader:
        durable = self.model[place].durable
        offset = data.draw(st.integers(0, durable))
        with pytest.raises(OffsetOutOfRangeError):
            self.log.topic(place[0]).reader(place[1], offset=durable + 1)
        return self.opened(place, offset, committed)

    def opened(self, place: tuple[str, int], offset: int, committed: bool) -> OpenReader:
        """A reader in a process that only reads, and lives until the power goes."""
        isolation: Any = "read_committed" if committed else "read_uncommitted"
        reader = self.onlooker.topic(place[0]).reader(place[1], offset=offset, isolation=isolation)
        return OpenReader(place, reader, committed, self.disk.boot_id)

    @rule(each=readers, rows_max=st.integers(1, 5), until=st.none() | st.integers(0, 30))
    def read(self, each: OpenReader, rows_max: int, until: int | None) -> None:
        if each.boot != self.disk.boot_id:  # it goes on where it stood before the power cut
            again = self.opened(each.place, each.reader.position, each.committed)
            each.reader, each.boot = again.reader, again.boot
        before = each.reader.position
        end = self.stable_end(each.place) if each.committed else self.model[each.place].durable
        bound = end if until is None else min(until, end)
        expected = [
            row for row in self.visible(each.place, each.committed) if before <= row[0] < bound
        ]
        batch = each.reader.read_table(rows_max, until=until)
        if batch is None:
            assert expected == []
            assert max(before, bound) <= each.reader.position <= max(before, end)
            return
        rows = batch.to_pylist()
        assert 1 <= len(rows) <= rows_max
        found = [(row["id"], row["key"], row.get("_op", 0)) for row in rows]
        assert found == [row[1:] for row in expected[: len(rows)]]
        # Rows that were taken back, up to the next one that shows, may have been passed by.
        following = [row[0] for row in expected[len(rows) :]]
        after = expected[len(rows) - 1][0] + 1
        assert after <= each.reader.position <= (following[0] if following else max(after, bound))

    @rule(each=consumes(readers), data=st.data())
    def seek(self, each: OpenReader, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, self.model[each.place].durable))
        if each.boot == self.disk.boot_id:
            each.reader.seek(offset)
        self.read(each, 3, None)

    @rule()
    def look_at_the_table(self) -> None:
        latest: dict[int, int] = {}
        for _, id_, key, operation in self.visible(("t", 0), True):
            latest.pop(key, None)
            if operation == 0:
                latest[key] = id_
        found = self.log.topic("t").latest().to_pylist()
        assert [(row["key"], row["id"]) for row in found] == list(latest.items())

    @precondition(lambda self: self.next_id > 3)
    @rule()
    def restart(self) -> None:
        """The process dies and another goes on: what was written is not lost."""
        self.log.storage.kill()  # type: ignore[attr-defined]
        self.open()
        for place, partition in self.model.items():
            written = self.log.topic(place[0]).partition(place[1]).written_end
            assert written == partition.end

    @precondition(lambda self: self.next_id > 3)
    @rule()
    def power_cut(self) -> None:
        """What is durable stays; of the rest a first part, in whole frames."""
        self.disk.power_cut()
        self.open()
        self.onlooker = log_on(self.disk.storage("onlooker"))
        for place, partition in self.model.items():
            end = self.log.topic(place[0]).durable_ends()[place[1]]
            assert partition.durable <= end <= partition.end
            partition.frames = [frame for frame in partition.frames if frame.end <= end]
            assert partition.end == end
            partition.durable = end

    @invariant()
    def ends_agree(self) -> None:
        if not hasattr(self, "log"):
            return
        for topic in ("a", "t"):
            expected = [self.stable_end(place) for place in PLACES if place[0] == topic]
            assert self.log.topic(topic).stable_ends() == expected


def test_the_log_and_its_model_agree() -> None:
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=examples(80),
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )
