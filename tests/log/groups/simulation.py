"""A seeded run of the members of a group, which join, leave, die, stop, and commit; and its oracle.

process p ─ poll, commit, transact, close ─┐      every row below a committed offset was handed out
process q ─ between two effects of p, too ─┼▶ log ▶ offsets never go back: whoever lost a partition
stops, deaths, power cuts, time ───────────┘      commits nothing; with transactions, once each
"""

from __future__ import annotations

import errno
import random
from collections import Counter, defaultdict
from typing import Literal
from unittest import mock

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.errors import FencedError, LockTimeoutError, LogError, TransactionError
from millstream.log import Log
from millstream.log.consumer import TopicPartition
from millstream.log.groups import offsets
from millstream.log.groups.consumer import GroupConsumer
from millstream.log.groups.folder import GroupFolder
from millstream.storage_memory import MemoryDisk, MemoryStorage, SimulatedCrash

Mode = Literal["auto", "manual", "transactional"]
MODES: tuple[Mode, ...] = ("auto", "manual", "transactional")
SCHEMA = pa.schema([("id", pa.int64())])
PARTITIONS = {"a": 4, "b": 3}
SESSION_MS = 2_000
REFUSED = ("append", "sync", "write_file", "create", "make_directory", "remove", "sync_directory")


class Process:
    """One life of a process, with a consumer in the group."""

    def __init__(self, simulation: Simulation, name: str, life: int, static: bool) -> None:
        self.name = name
        self.storage: MemoryStorage = simulation.disk.storage(f"{name}{life}")
        self.log = Log("/log", storage=self.storage, clock=simulation.clock)
        self.stopped_until_us = 0
        self.closed = False
        self.consumer: GroupConsumer = self.log.consumer(
            simulation.topics_of(name),
            group="g",
            member=name if static else None,
            auto_commit=simulation.mode == "auto",
            auto_commit_interval_ms=100,
            session_timeout_ms=SESSION_MS,
            on_revoked=lambda places: simulation.revoked(self, places),
            on_lost=lambda _: simulation.count("lost"),
        )


class Simulation:
    """A run of `steps` steps from `seed`; `run` raises `AssertionError` where a promise broke."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.mode: Mode = MODES[seed % 3]
        self.disk = MemoryDisk(self.random)
        self.clock = ManualClock()
        self.counts: Counter[str] = Counter()
        self.appended: dict[TopicPartition, list[int]] = defaultdict(list)
        self.handed_out: dict[TopicPartition, set[int]] = defaultdict(set)
        """Offsets that some poll returned."""
        self.processes: dict[str, Process | None] = dict.fromkeys("pqrs")
        self.lives = 0
        self.next_id = 0
        self.inside = False
        self.writer = self.open("writer")
        self.checker = self.open("checker")
        for name, count in PARTITIONS.items():
            self.writer.create_topic(name, SCHEMA, partitions=count)
        self.writer.create_topic("out", SCHEMA)

    def open(self, name: str) -> Log:
        return Log("/log", storage=self.disk.storage(name), clock=self.clock)

    def topics_of(self, name: str) -> list[str]:
        return ["a"] if name == "s" else ["a", "b"]

    def count(self, event: str) -> None:
        self.counts[event] += 1

    def run(self, steps: int) -> None:
        # So small that what is committed is written anew again and again.
        with (
            mock.patch.object(offsets, "SEGMENT_BYTES", 3_000),
            mock.patch.object(offsets, "LOOK_EVERY", 2),
        ):
            self.go_through(steps)

    def go_through(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.sleep_us(self.random.choice((1_000, 30_000, 150_000)))
            chance = self.random.random()
            if chance < 0.02:
                self.count("power cuts")
                self.disk.power_cut()
                self.processes = dict.fromkeys(self.processes)
                self.writer = self.open("writer")
                self.checker = self.open("checker")
            elif chance < 0.2:
                self.append()
            else:
                self.step(self.random.choice(list(self.processes)))
            self.check()
        self.drain()

    def append(self) -> None:
        topic = self.random.choice("ab")
        place = TopicPartition(topic, self.random.randrange(PARTITIONS[topic]))
        ids = list(range(self.next_id, self.next_id + self.random.randrange(1, 4)))
        self.next_id += len(ids)
        with self.writer.producer(topic) as producer:
            producer.append(pa.table({"id": ids}), partition=place.partition)
        self.appended[place] += ids

    def step(self, name: str) -> None:
        """Let a process do something; it may die in it, and others act in between."""
        process = self.processes[name]
        try:
            if process is None or not process.storage.alive or process.closed:
                if self.random.random() < 0.3:
                    return
                self.lives += 1
                self.count("lives")
                process = Process(self, name, self.lives, static=name in "pq")
                self.processes[name] = process
            if self.clock.monotonic_us() < process.stopped_until_us:
                return
            self.tempt(process)
            self.act(process)
        except SimulatedCrash:
            self.count("deaths")
        except FencedError:
            self.count("fenced")
        except LockTimeoutError:
            self.count("waits")
        except (LogError, OSError):
            # The disk refused: whoever is told so opens the log anew.
            assert process is not None
            self.count("refusals")
            process.storage.kill()
        finally:
            if process is not None:
                process.storage.interrupt = None
                process.storage.crash_at = None

    def tempt(self, process: Process) -> None:
        """Let a process die in one of its next effects, or others act between them."""
        if self.inside:
            return
        chance = self.random.random()
        if chance < 0.06:
            process.storage.crash_after(self.random.randrange(1, 40))
        elif chance < 0.08:
            process.storage.kill()
        elif chance < 0.1:
            operation = self.random.choice(REFUSED)
            after = self.random.randrange(4)
            process.storage.fail(operation, OSError(errno.EIO, "refused"), after)
        elif chance < 0.3:
            process.storage.interrupt = lambda: self.interrupt(process.name)

    def interrupt(self, name: str) -> None:
        if self.random.random() < 0.04:
            self.count("interrupts")
            self.inside = True
            try:
                if self.random.random() < 0.3:
                    self.clock.sleep_us(1_000 * SESSION_MS // 2)
                self.step(self.random.choice([each for each in self.processes if each != name]))
            finally:
                self.inside = False

    def act(self, process: Process) -> None:
        chance = self.random.random()
        if chance < 0.04:
            self.count("closed")
            process.closed = True
            process.consumer.close()
        elif chance < 0.1:
            self.count("stopped")
            pause_us = self.random.randrange(2_000 * SESSION_MS)
            process.stopped_until_us = self.clock.monotonic_us() + pause_us
        elif self.mode == "transactional":
            self.transact(process)
        else:
            self.poll(process)
            if self.mode == "manual" and self.random.random() < 0.5:
                self.stop_here(process)
                process.consumer.commit()
                self.count("commits")

    def poll(self, process: Process) -> pa.RecordBatch | None:
        consumer = process.consumer
        batch = consumer.poll(rows_max=self.random.randrange(1, 5))
        if batch is not None:
            assert consumer.source is not None
            end = consumer.positions[consumer.source]
            self.handed_out[consumer.source].update(range(end - batch.num_rows, end))
            self.count("polls")
        return batch

    def transact(self, process: Process) -> None:
        """Copy what is polled to `out`, exactly once."""
        if self.poll(process) is None:
            return
        process.consumer.rewind()  # what was polled before and not committed is polled anew
        try:
            with process.log.transaction(process.name) as transaction:
                for _ in range(self.random.randrange(1, 4)):
                    batch = self.poll(process)
                    if batch is not None:
                        transaction.append("out", batch)
                self.stop_here(process)
                transaction.commit_offsets(process.consumer)
                self.stop_here(process)
                if self.random.random() < 0.2:
                    # Partitions may be given up in it; what it returns is not worked on.
                    process.consumer.poll()
                    self.let_others_run(process)
            self.count("commits")
        except TransactionError:
            self.count("aborted")  # for it was stopped for too long
        finally:
            if process.storage.alive:
                process.consumer.rewind()

    def stop_here(self, process: Process) -> None:
        """Perhaps let a process be stopped in the middle of something, for as long as kills it."""
        if self.random.random() < 0.1:
            self.count("stopped in between")
            self.clock.sleep_us(1_100 * SESSION_MS)
            self.let_others_run(process)

    def let_others_run(self, process: Process) -> None:
        """Let others act while a process is stopped in the middle of something."""
        if self.inside:
            return
        self.inside = True
        try:
            for _ in range(12):
                self.clock.sleep_us(100_000)
                self.step(
                    self.random.choice([each for each in self.processes if each != process.name])
                )
        finally:
            self.inside = False

    def revoked(self, process: Process, places: list[TopicPartition]) -> None:
        """Only partitions that move are given up, and while they are still owned."""
        self.count("revoked")
        state = GroupFolder("/log", "g", process.storage, self.clock).read()
        assert state is not None
        me = state.members.get(process.consumer.member)
        ids = {config.name: config.id for config in process.log._names().values()}
        target = [] if me is None else [(each.topic_id, each.partition) for each in me.target]
        assert all((ids[each.topic], each.partition) not in target for each in places)

    def check(self) -> None:
        """No partition has two owners; offsets went on, and what they passed was handed out."""
        log = self.checker
        folder = GroupFolder("/log", "g", log.storage, self.clock)
        state = folder.read()
        if state is None:
            return
        owned = [each for member in state.members.values() for each in member.owned]
        assert len(owned) == len(set(owned)), state
        for process in self.processes.values():
            if process is None or not process.storage.alive or process.closed:
                continue
            me = state.members.get(process.consumer.member)
            if me is not None and me.epoch == process.consumer._member.epoch:
                assert set(process.consumer._ids.values()) <= set(me.owned), "reads what it lacks"
        for place, offset in log.group("g").committed().items():
            assert set(range(offset)) <= self.handed_out[place], f"{place} to {offset}"

    def drain(self) -> None:
        """Let who is left go, and read to the end; then look at everything that was promised."""
        for process in self.processes.values():
            if process is not None:
                process.storage.kill()
        self.clock.sleep_us(2_000 * SESSION_MS)
        self.writer, self.checker = self.open("writer"), self.open("checker")
        self.processes = dict.fromkeys("ps")
        if self.mode == "transactional":
            for owner in "pqrs":
                self.writer.transactions.writer(owner)  # as its next life does
        for name in self.processes:
            self.processes[name] = Process(self, name, 1_000, static=False)
        ends = {place: len(ids) for place, ids in self.appended.items()}
        for _ in range(300):
            for process in self.processes.values():
                assert process is not None
                self.clock.sleep_us(60_000)
                self.settle(process)
            committed = self.checker.group("g").committed()
            if {place: committed.get(place) for place in ends} == ends:
                break
        self.check()
        for place, ids in self.appended.items():
            assert self.handed_out[place] == set(range(len(ids))), place
            assert committed[place] == len(ids), place
        if self.mode == "transactional":
            out = self.checker.topic("out").to_arrow().column("id").to_pylist()
            assert sorted(out) == list(range(self.next_id)), "not exactly once"
        self.check_order()

    def settle(self, process: Process) -> None:
        if self.mode == "transactional":
            with process.log.transaction(process.name) as transaction:
                batch = self.poll(process)
                if batch is not None:
                    transaction.append("out", batch)
                    transaction.commit_offsets(process.consumer)
        else:
            self.poll(process)
            if self.mode == "manual":
                process.consumer.commit()

    def check_order(self) -> None:
        """In the order of commits no offset goes back: each owner went on where the last was."""
        log = self.checker
        folder = GroupFolder("/log", "g", log.storage, self.clock)
        state = folder.read()
        assert state is not None
        committed = offsets.CommittedOffsets(
            f"{folder.directory}/offsets/{state.offsets}", log.storage, self.clock, "o",
            log.transactions,
        )  # fmt: skip
        last: dict[tuple[str, int], int] = defaultdict(int)
        frames = committed.partition.frames(committed.partition.first_offset)
        log.transactions.refresh()
        while (frame := frames.next()) is not None:
            header = frame.header
            if (
                header.transaction
                and log.transactions.decision(header.owner_id, header.epoch, header.transaction)
                != "committed"
            ):
                continue
            for row in frame.batch().to_pylist():
                if row["at"] >= 0:
                    self.count("copies")  # of an earlier one
                    continue
                key = row["topic_id"], row["partition"]
                assert row["offset"] >= last[key], (row, last[key])
                last[key] = row["offset"]
