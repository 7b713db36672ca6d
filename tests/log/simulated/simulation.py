"""A seeded run of several processes on one log, any of which dies at any effect.

process p ─ what `process.py` lists ─────────┐         what each was told, and what anybody may
process q ─ between two effects of p, too ───┼▶ log ─▶ have read (`journal.py`), against what is
power cut, refused writes, syncs, renames … ─┘         there in the end (`promises.py`)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal
from unittest.mock import patch

from millstream.clock import ManualClock
from millstream.errors import CorruptSegmentError, LockTimeoutError, LogError, OffsetOutOfRangeError
from millstream.log import Log, control_topic
from millstream.log.transactions import Writer
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import syncs_begun_at, zeros_laid_in
from tests.log.simulated.journal import PLACES, SCHEMA, History, Onlooker, Place, Sent
from tests.log.simulated.process import NAMES, Process
from tests.log.simulated.promises import check_backups, check_log

OWNERS = ("x", "y")
REFUSABLE = (
    "append", "sync", "begin_sync", "truncate", "write_file", "create", "make_directory", "rename",
    "remove", "sync_directory",
)  # fmt: skip
CONTROL_BYTES = 2_500
"""The control topic is shortened this often, once a few records."""

DEPTH_MAX = 2
"""Processes that may be stopped in the middle of something, one for another."""


@dataclass(eq=False)
class Transaction:
    """A transaction, and what its process knows of it."""

    writer: Writer
    number: int
    sent: list[Sent] = field(default_factory=list)
    state: Literal["open", "committing", "committed", "aborted"] = "open"
    has_offsets: bool = False


@dataclass(eq=False)
class Commit:
    """A group's commit of an offset, and when it began and ended, in steps of all processes."""

    offset: int
    began: int
    transaction: Transaction | None
    ended: int = 0
    known: bool = False
    running: bool = True


@dataclass(eq=False)
class Erasure:
    """An erasure of a key from a topic.

    Attributes
    ----------
    topic, key
        Which.
    before
        How many rows each of its partitions had when it began: those go.
    until
        Rows with ids from here on stay, which were sent when its process was told, or had died:
        others who end it go only to where it began. `None`: the process is at it.
    known
        It is done: so its process was told.
    """

    topic: str
    key: int
    before: dict[Place, int]
    until: int | None = None
    known: bool = False


@dataclass(eq=False)
class Backup:
    """A backup, and what was known when it began."""

    number: int
    rows: set[Sent]
    transactions: set[Transaction]
    power_cuts: int


@cache
def disk_with_topics() -> MemoryDisk:
    """Return the disk that every run begins with a copy of."""
    disk = MemoryDisk(random.Random(0))
    storage = disk.storage("setup")
    log = Log("/log", storage=storage, clock=ManualClock())
    small: dict[str, Any] = {"segment.bytes": 1_500}
    moved: dict[str, Any] = {**small,
        "remote.storage.place": "/store", "local.retention.bytes": 0, "remote.cache.bytes": 3_000,
    }  # fmt: skip
    log.create_topic("a", SCHEMA, partitions=2, key=["key"], config=moved)
    log.create_topic("b", SCHEMA, config={**small, "retention.bytes": 2_500})
    log.create_topic("os", SCHEMA, config=small, durability="os")
    compaction = {"segment.bytes": 2_000, "segment.ms": 20, "delete.retention.ms": 10}
    log.create_topic("t", SCHEMA, key=["key"], table=True, config=compaction)
    storage.kill()
    return disk


class Simulation:
    """A run of some steps from `seed`; `run` raises `AssertionError` where a promise broke."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = disk_with_topics().copy(self.random)
        self.zeros_from = 0 if seed % 2 else 10**6
        self.begun_from = 300 if seed % 3 else 10**6
        self.clock = ManualClock()
        self.sent: list[Sent] = []
        self.by_id: dict[int, Sent] = {}
        self.named: dict[str, list[Sent]] = {name: [] for name in NAMES}
        """What each named producer has to append, in order."""
        self.columns: dict[str, list[str]] = {topic: [] for topic in "abt"}
        """Those that were added: durably, as far as anybody was told."""
        self.transactions: list[Transaction] = []
        self.commits: list[Commit] = []
        self.erasures: list[Erasure] = []
        self.backups: list[Backup] = []
        self.is_backing_up = False
        self.histories: list[History] = []
        self.taken: Counter[str] = Counter()
        """Attempts to become an owner's next writer."""
        self.counts: Counter[str] = Counter()
        self.ticks = 0
        self.lives = 0
        self.busy: list[str] = []
        """Processes that are in the middle of something, one stopped for the next."""
        self.processes: dict[str, Process | None] = dict.fromkeys("pqr")
        self.onlooker = Onlooker(self.disk, self.clock, self.by_id)

    def run(self, steps: int) -> None:
        shortened = patch.object(control_topic, "SHORTEN_BYTES", CONTROL_BYTES)
        laid, begun = zeros_laid_in(self.zeros_from), syncs_begun_at(self.begun_from)
        with laid, begun, shortened:
            self.go_through(steps)

    def go_through(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.sleep_us(1_000)
            if self.random.random() < 0.04:
                self.power_cut()
            else:
                self.step(self.random.choice("pqr"))
        if self.random.random() < 0.5:
            self.power_cut()
        check_log(self)
        check_backups(self)

    def tick(self) -> int:
        """Return a number that grows with everything that any process does."""
        self.ticks += 1
        return self.ticks

    def begin(self, process: Process) -> Transaction:
        """Begin a transaction, and with it the next life of an owner."""
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

    @contextmanager
    def committing(self, transaction: Transaction | None) -> Iterator[int]:
        """Give an offset that a group is to commit."""
        commit = Commit(len(self.commits), self.tick(), transaction)
        self.commits.append(commit)
        try:
            yield commit.offset
            commit.known = True
        finally:
            commit.ended = self.tick()

    def erasing(self, topic: str, key: int, erase: Callable[[], object]) -> None:
        """Erase a key: what was readable when it began is gone in the end."""
        rows = self.onlooker.rows
        before = {place: len(rows[place]) for place in PLACES if place[0] == topic}
        erasure = Erasure(topic, key, before)
        self.erasures.append(erasure)
        try:
            erase()
            erasure.known = True
        finally:
            erasure.until = len(self.by_id)
        self.counts["erasures"] += 1

    def may_be_erased(self, topic: str, key: int, number: int) -> bool:
        """Return whether the row with this key and id may have gone with an erasure."""
        return any(
            (each.topic, each.key) == (topic, key) and (each.until is None or number < each.until)
            for each in self.erasures
        )

    def back_up(self, back_up: Callable[[], int]) -> None:
        """Make a backup: what is known before is in it."""
        rows = {each for each in self.sent if each.known}
        transactions = {each for each in self.transactions if each.state == "committed"}
        cuts = self.counts["power cuts"]
        self.is_backing_up = True
        try:
            self.backups.append(Backup(back_up(), rows, transactions, cuts))
        finally:
            self.is_backing_up = False
        self.counts["backups"] += 1

    def power_cut(self) -> None:
        self.onlooker.look()
        self.counts["power cuts"] += 1
        self.disk.power_cut()
        for name in self.processes:
            self.processes[name] = None
        # In durability `os` what was seen may be taken back.
        self.histories = [each for each in self.histories if each.place[0] != "os"]
        for sent in self.sent:
            if sent.place[0] == "os":
                sent.known = False
        self.onlooker.restart()

    def step(self, name: str) -> None:
        """Let a process do something; it may die in it, and others act in between."""
        process = self.processes[name]
        self.busy.append(name)
        try:
            if process is None or not process.storage.alive:
                self.lives += 1
                process = self.processes[name] = Process(self, name, self.lives)
                self.tempt(process)
            process.act()
        except SimulatedCrash:
            self.counts["deaths"] += 1
            self.processes[name] = None
        except (LogError, OSError) as error:
            if isinstance(error, CorruptSegmentError | OffsetOutOfRangeError):
                raise
            self.counts["waits" if isinstance(error, LockTimeoutError) else "refused"] += 1
            assert process is not None
            process.forget()
        finally:
            self.busy.remove(name)
        self.onlooker.look()

    def tempt(self, process: Process) -> None:
        """Decide how this life will end, and what will go wrong in it."""
        storage = process.storage
        if self.random.random() < 0.7:
            storage.crash_after(int(self.random.paretovariate(0.5)))
        if self.random.random() < 0.25:
            operation = self.random.choice(REFUSABLE)
            storage.fail(operation, OSError(28, "No space left"), self.random.randrange(0, 6))
        storage.interrupt = self.meanwhile

    def meanwhile(self) -> None:
        """Look before each effect of any process, and now and then let another one act."""
        self.onlooker.look()
        if len(self.busy) <= DEPTH_MAX and self.random.random() < 0.06:
            self.counts["interrupts"] += 1
            self.step(self.random.choice([each for each in "pqr" if each not in self.busy]))
