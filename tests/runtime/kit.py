"""What tests of the runtime share: a log in memory, rows with times, a job played by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pytest

import millstream as ms
from millstream.clock import ManualClock
from millstream.dsl.job import memory_sink
from millstream.log import Log
from millstream.plan.compile import compile_job
from millstream.runtime.attempt import Compiler
from millstream.runtime.channels import Inlet, Outlet
from millstream.runtime.checkpoint import persist
from millstream.runtime.coordinator import Coordinator, Phase
from millstream.runtime.hosts.memory_channel import MemoryChannel
from millstream.runtime.messages import CheckpointTaken
from millstream.runtime.options import RunOptions
from millstream.runtime.worker import Worker
from millstream.storage_memory import MemoryDisk, SimulatedCrash

PATH = "/log"
TIME = pa.timestamp("us", tz="UTC")
SECOND_US = 1_000_000
EVENTS = pa.schema([("time", TIME), ("key", pa.string()), ("value", pa.int64())])
NAMES = pa.schema([("key", pa.string()), ("name", pa.string())])
STEPS_MAX = 100_000
"""A job that has not come to rest by then never will."""


class Bench:
    """A disk and a clock, and the logs of processes on them."""

    def __init__(self, seed: int = 0) -> None:
        self.disk = MemoryDisk(random.Random(seed))
        self.clock = ManualClock()
        self._to_die: str | None = None
        self._dies_in = 0

    def log(self, process: str = "test") -> Log:
        """The log as a new process opens it."""
        storage = self.disk.storage(process)
        if process == self._to_die:
            storage.crash_after(self._dies_in)
        return Log(PATH, storage=storage, clock=self.clock)

    def content(self) -> dict[str, bytes]:
        """Every file on the disk."""
        storage, found = self.disk.storage("looker"), {}
        waiting = [PATH]
        while waiting:
            path = waiting.pop()
            try:
                waiting += [f"{path}/{name}" for name in storage.list_directory(path)]
            except NotADirectoryError:
                found[path] = storage.read_file(path)
        return found

    def dies_in(self, process: str, effect: int, action: Callable[[], object]) -> bool:
        """Let a process that `action` starts die in an effect; return whether it did."""
        self._to_die, self._dies_in = process, effect
        try:
            action()
        except SimulatedCrash:
            return True
        finally:
            self._to_die = None
        return False


def events(*seconds: float, key: str | None = "a", first: int = 0) -> pa.RecordBatch:
    """Rows at these seconds since 1970, numbered in `value` from `first` on."""
    times = pa.array([int(each * SECOND_US) for each in seconds], pa.int64()).cast(TIME)
    values = pa.array(range(first, first + len(seconds)), pa.int64())
    return pa.record_batch([times, pa.array([key] * len(seconds)), values], schema=EVENTS)


def put(
    log: Log, topic: str, rows: pa.RecordBatch | pa.Table, partition: int | None = None
) -> None:
    """Append rows as one frame, durably."""
    with log.producer(topic) as producer:
        producer.append(rows, partition=partition)


def event_log(bench: Bench, *, partitions: int = 1, **options: Any) -> Log:
    """A log with the topic "events"."""
    log = bench.log()
    log.create_topic("events", EVENTS, partitions=partitions, time="time", **options)
    return log


def put_names(log: Log, topic: str, **names: str | None) -> None:
    """Append rows of a table of names; `None` deletes."""
    if topic not in log.topic_names():
        log.create_topic(topic, NAMES, key=("key",), table=True)
    with log.producer(topic) as producer:
        for key, name in names.items():
            if name is None:
                producer.delete(pa.table({"key": [key]}))
            else:
                producer.append(pa.table({"key": [key], "name": [name]}, schema=NAMES))


def compiler(sinks: Sequence[ms.Sink], name: str = "job") -> Compiler:
    """The job, to be compiled for a parallelism."""
    roots = [each.node for each in sinks]
    return lambda parallelism, partitions: compile_job(roots, name, parallelism, partitions)


def collecting(stream: ms.Stream) -> Compiler:
    """The job that `stream.collect()` runs."""
    return lambda parallelism, partitions: compile_job(
        [memory_sink(stream.node)], "collect", parallelism, partitions
    )


def rows_of(log: Log, topic: str, *columns: str) -> list[tuple[Any, ...]]:
    """The rows of a topic, sorted; times as seconds since 1970."""
    table = log.topic(topic).to_arrow()
    lists = [_plain(table.column(name)) for name in columns or table.schema.names]
    return sorted(zip(*lists, strict=True), key=repr)


def _plain(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        integers = column.cast(TIME).cast(pa.int64()).to_pylist()
        return [None if each is None else each / SECOND_US for each in integers]
    values: list[Any] = column.to_pylist()
    return values


class Channels:
    """All channels of an attempt; each worker sees its own through `of`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.between: dict[tuple[str, int, int], MemoryChannel] = {}

    def between_workers(self, exchange: str, sender: int, receiver: int) -> MemoryChannel:
        key = exchange, sender, receiver
        return self.between.setdefault(key, MemoryChannel(self.limit_bytes))

    def of(self, worker: int) -> OwnChannels:
        return OwnChannels(self, worker)


class OwnChannels:
    """The channels of one worker."""

    def __init__(self, channels: Channels, worker: int) -> None:
        self._channels = channels
        self._worker = worker

    def outlet(self, exchange: str, receiver: int) -> Outlet:
        return self._channels.between_workers(exchange, self._worker, receiver)

    def inlet(self, exchange: str, sender: int) -> Inlet:
        return self._channels.between_workers(exchange, sender, self._worker)


class Played:
    """An attempt in one thread, driven by hand: what is reported arrives at once."""

    def __init__(
        self, bench: Bench, sinks: Sequence[ms.Sink], *, name: str = "job", **options: Any
    ) -> None:
        given: dict[str, Any] = {"until": "end", "channel_bytes": 1, **options}
        self.bench = bench
        self.coordinator = Coordinator(
            compiler(sinks, name), bench.log("coordinator"), RunOptions(**given)
        )
        plans = self.coordinator.start()
        self.channels = Channels(self.coordinator.options.channel_bytes)
        self.workers = [
            Worker(each, bench.log(f"worker {each.worker}"), self.channels.of(each.worker))
            for each in plans
        ]

    def step(self, worker: int = 0) -> bool:
        """Step one worker; what it reports reaches the coordinator."""
        progressed = self.workers[worker].step()
        for report in self.workers[worker].take_reports():
            if isinstance(report, CheckpointTaken):
                job, epoch = self.coordinator.graph.name, self.coordinator.epoch
                self.coordinator.on_report(
                    persist(report, job, epoch, self.bench.log(f"worker {worker}"))
                )
            else:
                self.coordinator.on_report(report)
        return progressed

    def settle(self, workers: Iterable[int] | None = None) -> None:
        """Step workers in turn until none of them has anything to do."""
        turn = list(range(len(self.workers)) if workers is None else workers)
        for _ in range(STEPS_MAX):
            if not any([self.step(each) for each in turn]):
                return
        pytest.fail("no end in sight")

    def tick(self, after_us: int = 0) -> None:
        """Let time pass, and hand what the coordinator commands to the workers."""
        self.bench.clock.sleep_us(after_us)
        for command in self.coordinator.tick(self.bench.clock.monotonic_us()):
            for worker in self.workers:
                worker.command(command)

    def checkpoint(self) -> None:
        """Take a checkpoint of what was read so far."""
        before = self.coordinator.checkpoints
        while self.coordinator.checkpoints == before:
            self.tick(self.coordinator.options.checkpoint_interval_us + 1)
            self.settle()

    def finish(self) -> None:
        """Run to the end."""
        for _ in range(STEPS_MAX):
            self.settle()
            self.tick()
            if self.coordinator.phase is Phase.DONE:
                self.coordinator.close()
                return
        pytest.fail("no end in sight")


def run(bench: Bench, sinks: Sequence[ms.Sink], **options: Any) -> Played:
    """Run a bounded job from its newest checkpoint to its end."""
    played = Played(bench, sinks, **options)
    played.finish()
    return played
