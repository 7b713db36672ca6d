"""A seeded run of processes that write and read a topic while it gets other partition counts.

process p ─ append, transact, consume, repartition ─┐     per key: what was told is there once,
process q ─ as a member of a group, too ────────────┼▶    in its order, for each who reads
power cut, death at any effect ─────────────────────┘
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

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
from millstream.log.consumer import Consumer
from millstream.log.groups.consumer import GroupConsumer
from millstream.log.producer import Producer
from millstream.log.transactions import Writer
from millstream.storage_memory import MemoryDisk, MemoryStorage, SimulatedCrash

SCHEMA = pa.schema([("key", pa.int64()), ("id", pa.int64())])
KEYS = 7
GROUP = "g"


@dataclass
class Sent:
    """Rows of one append or transaction, and what its process knows of them."""

    rows: list[tuple[int, int]]
    known: bool = False
    whole: bool = False
    """A transaction: all of them are there, or none."""
    deciding: bool = False
    gone: bool = False


@dataclass
class Process:
    """One life of a process."""

    storage: MemoryStorage
    life: int
    log: Log
    producer: Producer | None = None
    pending: list[Sent] = field(default_factory=list)
    consumer: Consumer | None = None
    member: GroupConsumer | None = None
    polled: int = 0
    transaction: tuple[Sent, Producer] | None = None
    writer: Writer | None = None


class Simulation:
    """A run from `seed`; `run` raises `AssertionError` where a promise broke."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = MemoryDisk(self.random)
        self.clock = ManualClock()
        self.sent: list[Sent] = []
        self.histories: list[dict[int, list[int]]] = []
        self.processed: dict[int, list[int]] = defaultdict(list)
        """By key, in the order in which members of the group came to a row first."""
        self.open_transactions: list[tuple[Sent, Writer]] = []
        self.processes: dict[str, Process | None] = dict.fromkeys("pqr")
        self.lives = self.ids = 0
        self.counts: Counter[str] = Counter()
        self.inside = False
        log = self.open("setup").log
        durability = self.random.choice(["fsync", "fsync", "os"])
        self.keeps = durability == "fsync"
        log.create_topic(
            "t", SCHEMA, partitions=2, key=["key"], durability=durability,  # type: ignore[arg-type]
            config={"segment.bytes": 1_500},
        )  # fmt: skip

    def open(self, name: str) -> Process:
        self.lives += 1
        storage = self.disk.storage(f"{name}{self.lives}")
        return Process(storage, self.lives, Log("/log", storage=storage, clock=self.clock))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.sleep_us(self.random.choice([1_000, 40_000]))
            if self.random.random() < 0.03 and self.keeps:
                self.counts["power cuts"] += 1
                self.disk.power_cut()
                self.processes = dict.fromkeys("pqr")
            else:
                self.step(self.random.choice("pqr"))
        self.check_the_end()

    def step(self, name: str) -> None:
        process = self.processes[name]
        try:
            if process is None or not process.storage.alive:
                process = self.processes[name] = self.open(name)
                if self.random.random() < 0.6:
                    process.storage.crash_after(int(20 * self.random.paretovariate(0.6)))
                process.storage.interrupt = lambda: self.meanwhile(name)
            self.act(process)
        except SimulatedCrash:
            self.counts["deaths"] += 1
            self.processes[name] = None
        except (LogError, OSError) as error:
            if isinstance(error, CorruptSegmentError | OffsetOutOfRangeError):
                raise
            self.counts["waits" if isinstance(error, LockTimeoutError) else "refused"] += 1
            assert process is not None
            process.storage.kill()
            self.processes[name] = None

    def meanwhile(self, name: str) -> None:
        if self.inside or self.random.random() > 0.03:
            return
        self.inside = True
        self.counts["interrupts"] += 1
        try:
            self.step(self.random.choice([each for each in "pqr" if each != name]))
        finally:
            self.inside = False

    def act(self, process: Process) -> None:
        actions: list[tuple[int, Callable[[Process], None]]] = [
            (6, self.append),
            (3, self.flush),
            (5, self.transact),
            (5, self.consume),
            (6, self.work),
            (1, self.repartition),
        ]
        weights = [weight for weight, _ in actions]
        (chosen,) = self.random.choices([action for _, action in actions], weights)
        chosen(process)

    def rows(self, process: Process, sent: Sent) -> pa.Table:
        """More rows for `sent`, of keys that this life alone writes, and so in a known order."""
        made = []
        for _ in range(self.random.randrange(1, 7)):
            self.ids += 1
            made.append((process.life * KEYS + self.random.randrange(KEYS), self.ids))
        sent.rows += made
        keys, ids = zip(*made, strict=True)
        return pa.table({"key": keys, "id": ids}, schema=SCHEMA)

    def append(self, process: Process) -> None:
        process.producer = process.producer or process.log.producer("t")
        sent = Sent([])
        self.sent.append(sent)
        process.producer.append(self.rows(process, sent))
        process.pending.append(sent)

    def flush(self, process: Process) -> None:
        if process.producer is not None:
            process.producer.flush()
            for sent in process.pending:
                sent.known = True
            process.pending.clear()

    def transact(self, process: Process) -> None:
        """Begin a transaction, add to it, or decide it."""
        try:
            if process.transaction is None:
                writer = process.log.transactions.writer(self.random.choice("xyz"))
                for sent, of in self.open_transactions:
                    if of.owner_id == writer.owner_id:
                        sent.gone = sent.gone or not sent.deciding
                process.transaction = Sent([], whole=True), process.log.producer("t", writer=writer)
                self.sent.append(process.transaction[0])
                self.open_transactions.append((process.transaction[0], writer))
                process.writer = writer
            sent, producer = process.transaction
            taken = process.writer
            assert taken is not None
            if self.random.random() < 0.6:
                rows = self.rows(process, sent)
                producer.append(rows, transaction=1)
                return
            process.transaction = None
            places = [("t", index) for index in producer.touched()]
            process.log.transactions.prepare(taken, 1, places)
            if self.random.random() < 0.3:
                sent.gone = True
                process.log.transactions.decide(taken, 1, "abort")
            elif not sent.gone:
                sent.deciding = True
                process.log.transactions.decide(taken, 1, "commit")
                sent.known = True
        except FencedError:
            self.counts["fenced"] += 1
            process.transaction = None

    def consume(self, process: Process) -> None:
        if process.consumer is None:
            process.consumer = process.log.consumer("t")
            self.histories.append(defaultdict(list))
            process.polled = len(self.histories) - 1
        batch = process.consumer.poll(rows_max=self.random.randrange(1, 9))
        for row in [] if batch is None else batch.to_pylist():
            self.histories[process.polled][row["key"]].append(row["id"])

    def work(self, process: Process) -> None:
        """Poll as a member of the group, and perhaps commit what was polled."""
        if process.member is None:
            process.member = process.log.consumer("t", group=GROUP, auto_commit=False)
        batch = process.member.poll(rows_max=self.random.randrange(1, 9))
        for row in [] if batch is None else batch.to_pylist():
            if row["id"] not in self.processed[row["key"]]:
                self.processed[row["key"]].append(row["id"])
        if self.random.random() < 0.8:
            process.member.commit()

    def repartition(self, process: Process) -> None:
        process.log.repartition("t", self.random.randrange(1, 7))
        self.counts["repartitions"] += 1

    def check_the_end(self) -> None:
        for each in self.processes.values():
            if each is not None:
                each.storage.kill()
        log = self.open("end").log
        for owner in "xyz":
            log.transactions.writer(owner)
        found: dict[int, list[int]] = defaultdict(list)
        for batch in log.consumer("t"):
            for row in batch.to_pylist():
                found[row["key"]].append(row["id"])
        for key, ids in found.items():
            assert ids == sorted(set(ids)), f"rows of key {key} are out of order, or twice: {ids}"
        for history in self.histories:
            for key, ids in history.items():
                assert ids == found[key][: len(ids)], f"a consumer left out rows of key {key}"
        rows = {(key, each) for key, ids in found.items() for each in ids}
        assert rows <= {row for sent in self.sent for row in sent.rows}, "rows of nobody"
        for sent in self.sent:
            there = [row in rows for row in sent.rows]
            assert not sent.known or all(there), f"{sent} was acknowledged and is gone"
            assert not sent.gone or not any(there), f"{sent} was taken back and is there"
            assert not sent.whole or all(there) or not any(there), f"{sent} is there in part"
        table = log.topic("t").to_arrow()
        assert Counter(table.column("id").to_pylist()) == Counter(each for _, each in rows)
        self.finish_group(found)
        self.counts["rows"] += len(rows)
        self.counts["generations"] += log.topic("t").config.generation

    def finish_group(self, found: dict[int, list[int]]) -> None:
        """Let a new member work on what is left, and compare the order of all the group's work."""
        process = self.open("last")
        process.member = process.log.consumer("t", group=GROUP, auto_commit=False)
        idle = 0
        while idle < 60:
            self.clock.sleep_us(100_000)
            batch = process.member.poll()
            idle = idle + 1 if batch is None else 0
            for row in [] if batch is None else batch.to_pylist():
                if row["id"] not in self.processed[row["key"]]:
                    self.processed[row["key"]].append(row["id"])
            process.member.commit()
        processed = {key: ids for key, ids in self.processed.items() if ids}
        assert processed == dict(found), "the group has left rows out, or worked out of order"
        assert sum(process.log.group(GROUP).lag().values()) == 0
