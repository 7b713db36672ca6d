"""A seeded run of several processes on one log, any of which dies at any effect; and its oracle.

process a ─ append, flush, transact, read ─┐        what each was told (acknowledged, decided)
process b ─ between two effects of a, too ─┼▶ log ─▶ against what is there, seen, and stays
power cut, refused write or sync ──────────┘
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.errors import (
    CorruptSegmentError,
    FencedError,
    LockTimeoutError,
    LogError,
    OffsetOutOfRangeError,
)
from millstream.log import Log
from millstream.log.producer import Producer
from millstream.log.reader import PartitionReader
from millstream.log.transactions import Writer
from millstream.storage_memory import MemoryDisk, MemoryStorage, SimulatedCrash

SCHEMA = pa.schema([("id", pa.int64()), ("pad", pa.string())])
Place = tuple[str, int]
PLACES: tuple[Place, ...] = (("a", 0), ("a", 1), ("b", 0), ("os", 0))
TRANSACTIONAL = PLACES[:3]
OWNERS = ("x", "y")


@dataclass
class Sent:
    """Rows of one append, and what its process knows of them."""

    place: Place
    ids: list[int]
    life: int
    known: bool = False
    """They were acknowledged: they stay."""


@dataclass
class Transaction:
    """A transaction, and what its process knows of it."""

    writer: Writer
    number: int
    sent: list[Sent] = field(default_factory=list)
    state: Literal["open", "committing", "committed", "aborted"] = "open"


class Process:
    """One life of a process: everything it has open, and what it waits for."""

    def __init__(self, disk: MemoryDisk, name: str, life: int, clock: ManualClock) -> None:
        self.storage: MemoryStorage = disk.storage(f"{name}{life}")
        self.life = life
        self.clock = clock
        self.transaction: Transaction | None = None
        self.reopen()

    def reopen(self) -> None:
        """Open the log anew, as after an error of its disk; rows under way are forgotten."""
        self.log = Log("/log", storage=self.storage, clock=self.clock)
        self.producers: dict[str, Producer] = {}
        self.pending: dict[str, list[Sent]] = defaultdict(list)
        self.readers: dict[Place, tuple[PartitionReader, list[int]]] = {}

    def producer(self, topic: str) -> Producer:
        if topic not in self.producers:
            self.producers[topic] = self.log.producer(topic)
        return self.producers[topic]


class Simulation:
    """A run of `steps` steps from `seed`; `run` raises `AssertionError` where a promise broke."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = MemoryDisk(self.random)
        self.clock = ManualClock()
        self.sent: list[Sent] = []
        self.transactions: list[Transaction] = []
        self.taken: dict[str, int] = dict.fromkeys(OWNERS, 0)
        """Attempts to become an owner's next writer."""
        self.seen: dict[Place, dict[int, int]] = {place: {} for place in PLACES}
        self.histories: list[tuple[Place, int, list[int]]] = []
        """Of each reader: where it read, from which offset on, and all ids that it got."""
        self.lives = 0
        self.processes: dict[str, Process | None] = dict.fromkeys("pqr")
        self.counts: dict[str, int] = defaultdict(int)
        self.inside = False
        setup = Process(self.disk, "setup", 0, self.clock)
        small, large = ({**self.config, "segment.bytes": size} for size in (1_500, 4_000))
        create, key = setup.log.create_topic, self.key
        create("a", SCHEMA, partitions=2, key=key, config=small)
        create("b", SCHEMA, key=key, config=large)
        create("os", SCHEMA, key=key, config=small, durability="os")
        setup.storage.kill()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.sleep_us(1_000)
            chance = self.random.random()
            if chance < 0.04:
                self.power_cut()
            else:
                self.step(self.random.choice("pqr"))
        if self.random.random() < 0.5:
            self.power_cut()
        self.check_the_end()

    def power_cut(self) -> None:
        self.counts["power cuts"] += 1
        self.disk.power_cut()
        for name in self.processes:
            self.processes[name] = None
        # In durability `os` what was seen may be taken back.
        self.seen["os", 0].clear()
        self.histories = [each for each in self.histories if each[0][0] != "os"]
        for sent in self.sent:
            if sent.place[0] == "os":
                sent.known = False

    def step(self, name: str) -> None:
        """Let a process do something; it may die in it, and others act in between."""
        process = self.processes[name]
        try:
            if process is None or not process.storage.alive:
                self.lives += 1
                process = self.processes[name] = Process(self.disk, name, self.lives, self.clock)
                self.tempt(process, name)
            self.act(process)
        except SimulatedCrash:
            self.counts["deaths"] += 1
            self.processes[name] = None
        except (LogError, OSError) as error:
            if isinstance(error, CorruptSegmentError | OffsetOutOfRangeError):
                raise
            self.counts["waits" if isinstance(error, LockTimeoutError) else "refused"] += 1
            assert process is not None
            process.reopen()

    def tempt(self, process: Process, name: str) -> None:
        """Decide how this life will end, and what will go wrong in it."""
        storage = process.storage
        if self.random.random() < 0.7:
            storage.crash_after(int(self.random.paretovariate(0.5)))
        if self.random.random() < 0.15:
            operation = self.random.choice(["append", "sync", "write_file", "create", "truncate"])
            storage.fail(operation, OSError(28, "No space left"), self.random.randrange(0, 6))
        storage.interrupt = lambda: self.meanwhile(name)

    def meanwhile(self, name: str) -> None:
        """Now and then let another process act between two effects of process `name`."""
        if self.inside or self.random.random() > 0.08:
            return
        self.inside = True
        self.counts["interrupts"] += 1
        try:
            self.step(self.random.choice([each for each in "pqr" if each != name]))
        finally:
            self.inside = False

    def act(self, process: Process) -> None:
        actions = self.actions()
        weights = [weight for weight, _ in actions]
        (chosen,) = self.random.choices([action for _, action in actions], weights)
        chosen(process)

    def actions(self) -> list[tuple[int, Callable[[Process], None]]]:
        """What a process may do, and how often."""
        return [
            (5, self.append),
            (3, self.flush),
            (6, self.transact),
            (5, self.read),
            (1, self.look_at_all),
        ]

    columns: Sequence[str] | None = None
    """What readers ask for."""

    key: Sequence[str] = ()
    config: ClassVar[Mapping[str, object]] = {}
    """Of the topics."""

    def offset_of_last(self, reader: PartitionReader, batch: pa.RecordBatch) -> int:
        """The offset of the last row of what `reader` just returned."""
        del batch
        return reader.position - 1  # aborted rows leave gaps before it

    def dressed(self, topic: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows as they are given to a producer."""
        del topic
        return batch

    def check(self, place: Place, reader: PartitionReader, batch: pa.RecordBatch) -> None:
        """Raise `AssertionError` where the rows that `reader` just returned are not so."""

    def new_rows(self, process: Process, place: Place) -> tuple[Sent, pa.RecordBatch]:
        first = sum(len(each.ids) for each in self.sent)
        ids = list(range(first, first + self.random.randrange(1, 5)))
        sent = Sent(place, ids, process.life)
        self.sent.append(sent)
        pad = "x" * self.random.randrange(0, 300)
        batch = pa.record_batch([pa.array(ids), pa.array([pad] * len(ids))], schema=SCHEMA)
        return sent, batch

    def append(self, process: Process) -> None:
        topic, partition = place = self.random.choice(PLACES)
        producer = process.producer(topic)
        sent, batch = self.new_rows(process, place)
        producer.append(self.dressed(topic, batch), partition=partition)
        if topic == "os":
            sent.known = True
        else:
            process.pending[topic].append(sent)

    def flush(self, process: Process) -> None:
        for topic, producer in process.producers.items():
            producer.flush()
            for sent in process.pending.pop(topic, []):
                sent.known = True

    def transact(self, process: Process) -> None:
        """Begin a transaction, add to it, or decide it."""
        transaction, process.transaction = process.transaction, None
        if transaction is None:
            transaction = self.begin(process)
        try:
            chance = self.random.random()
            if chance < 0.6:
                self.append_in(transaction, process)
                process.transaction = transaction  # after an error it is left to its fate
            elif chance < 0.9:
                self.commit(transaction, process)
            else:
                transaction.state = "aborted"  # whatever becomes of the decision
                process.log.transactions.decide(transaction.writer, transaction.number, "abort")
        except FencedError:
            self.counts["fenced"] += 1
            transaction.state = "aborted"
            assert self.taken[transaction.writer.owner] > 1, "fenced by nobody"

    def append_in(self, transaction: Transaction, process: Process) -> None:
        topic, partition = place = self.random.choice(TRANSACTIONAL)
        superseded = transaction.state == "aborted"
        producer = process.log.producer(topic, writer=transaction.writer)
        sent, batch = self.new_rows(process, place)
        transaction.sent.append(sent)
        batch = self.dressed(topic, batch)
        producer.append(batch, partition=partition, transaction=transaction.number)
        assert not superseded, "an append that should have been fenced"

    def commit(self, transaction: Transaction, process: Process) -> None:
        writer, number = transaction.writer, transaction.number
        superseded = transaction.state == "aborted"
        participants = sorted({each.place for each in transaction.sent})
        if self.random.random() < 0.5:
            process.log.transactions.prepare(writer, number, participants)
        else:
            process.log.transactions.sync(participants)
        if not superseded:
            transaction.state = "committing"
        process.log.transactions.decide(writer, number, "commit")
        assert not superseded, "a decision that should have been fenced"
        transaction.state = "committed"
        self.counts["commits"] += 1

    def begin(self, process: Process) -> Transaction:
        owner = self.random.choice(OWNERS)
        self.taken[owner] += 1
        writer = process.log.transactions.writer(owner)
        for each in self.transactions:
            before = each.writer.owner == owner and each.writer.epoch < writer.epoch
            assert each.writer.owner != owner or each.writer.epoch != writer.epoch
            if before and each.state == "open":
                each.state = "aborted"
        transaction = Transaction(writer, self.random.randrange(1, 4))
        self.transactions.append(transaction)
        return transaction

    def read(self, process: Process) -> None:
        """Read on in one partition; what comes must be what anybody saw there, and stay."""
        place = self.random.choice(PLACES)
        if place not in process.readers:
            topic = process.log.topic(place[0])
            offset = self.random.randrange(0, topic.durable_ends()[place[1]] + 1)
            reader = topic.reader(place[1], offset=offset, columns=self.columns)
            process.readers[place] = reader, []
            self.histories.append((place, offset, process.readers[place][1]))
        reader, history = process.readers[place]
        while (batch := reader.read(rows_max=self.random.randrange(1, 9))) is not None:
            ids = batch.column("id").to_pylist()
            self.check(place, reader, batch)
            history += ids
            last = self.offset_of_last(reader, batch)
            seen = self.seen[place].setdefault(last, ids[-1])
            assert seen == ids[-1], f"{place} changed at offset {last}"

    def look_at_all(self, process: Process) -> None:
        """A transaction that shows in one partition shows in every one that is read later.

        As far as these are stable: an older transaction may hold back what lies behind it.
        """
        shown: set[int] = set()
        places = list(TRANSACTIONAL)
        self.random.shuffle(places)
        for place in places:
            reader = process.log.topic(place[0]).reader(place[1])
            ids = set(_ids(reader))
            behind = process.log.topic(place[0]).reader(
                place[1], offset=reader.position, isolation="read_uncommitted"
            )
            held_back = set(_ids(behind))
            for transaction in self.transactions:
                of_place = {i for each in transaction.sent if each.place == place for i in each.ids}
                if id(transaction) in shown or of_place & ids:
                    assert of_place <= ids | held_back, f"{transaction} is seen in part"
                    shown.add(id(transaction))

    def check_the_end(self) -> None:
        """Open the log once more, decide what is open, and compare it with what was told."""
        log = Log("/log", storage=self.disk.storage("end"), clock=self.clock)
        for owner in OWNERS:
            log.transactions.writer(owner)
        found: dict[Place, list[int]] = {
            place: _ids(log.topic(place[0]).reader(place[1])) for place in PLACES
        }
        for place, seen in self.seen.items():
            reader = log.topic(place[0]).reader(place[1], columns=self.columns)
            there = {}
            while (batch := reader.read(rows_max=1)) is not None:
                there[self.offset_of_last(reader, batch)] = batch.column("id")[0].as_py()
            assert {offset: there.get(offset) for offset in seen} == seen, f"{place} lost rows"
            for of, start, got in self.histories:
                if of == place:
                    whole = [each for offset, each in there.items() if offset >= start]
                    assert got == whole[: len(got)], f"a reader of {place} left rows out"
        in_transactions = {id(sent) for each in self.transactions for sent in each.sent}
        for sent in self.sent:
            shown = _whole(sent, found)
            assert shown is not None, f"{sent} is there in part, or twice, or torn"
            if sent.known:
                assert shown, f"{sent} was acknowledged and is gone"
            if id(sent) not in in_transactions:
                self.counts["rows kept"] += shown
        for transaction in self.transactions:
            shown_of = {_whole(sent, found) for sent in transaction.sent}
            assert len(shown_of) < 2, f"{transaction} is there in part"
            if transaction.state == "committed":
                assert shown_of <= {True}, f"{transaction} was committed and is gone"
            elif transaction.state != "committing":
                assert shown_of <= {False}, f"{transaction} was not committed and is there"
        self.check_order(found)
        assert sum(map(len, found.values())) == len(set().union(*found.values()))

    def check_order(self, found: dict[Place, list[int]]) -> None:
        """Rows of one life of a process are in the order in which it appended them."""
        life_of = {each: sent.life for sent in self.sent for each in sent.ids}
        for ids in found.values():
            for life in {life_of[each] for each in ids}:
                own = [each for each in ids if life_of[each] == life]
                assert own == sorted(own)


def _ids(reader: PartitionReader) -> list[int]:
    ids: list[int] = []
    while (batch := reader.read()) is not None:
        ids += batch.column("id").to_pylist()
    return ids


def _whole(sent: Sent, found: dict[Place, Iterable[int]] | dict[Place, list[int]]) -> bool | None:
    """Whether the rows of one append are there, one behind the other; `None`: not as a whole."""
    ids = list(found[sent.place])
    if not set(sent.ids) & set(ids):
        return False
    start = ids.index(sent.ids[0]) if sent.ids[0] in ids else 0
    return True if ids[start : start + len(sent.ids)] == sent.ids else None
