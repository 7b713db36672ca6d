"""What the tests of groups share: a log of one topic, and members that poll until they rest."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa

from millstream.clock import ManualClock
from millstream.log import Log
from millstream.log.groups.consumer import GroupConsumer
from millstream.storage_memory import MemoryDisk, MemoryStorage

SCHEMA = pa.schema([("id", pa.int64())])


class World:
    """A log in memory, and processes that use it; topic `x` has four partitions."""

    def __init__(self, partitions: int = 4, seed: int = 0) -> None:
        self.disk = MemoryDisk(random.Random(seed))
        self.clock = ManualClock()
        self.processes = 0
        self.log = self.process()
        self.log.create_topic("x", SCHEMA, partitions=partitions)

    def process(self) -> Log:
        """The log as a new process opens it."""
        self.processes += 1
        storage = self.disk.storage(f"process {self.processes}")
        return Log("/log", storage=storage, clock=self.clock)

    def member(self, *topics: str, group: str = "g", **options: Any) -> GroupConsumer:
        """A member of a group in a process of its own."""
        options.setdefault("auto_commit", False)
        return self.process().consumer(list(topics) or ["x"], group=group, **options)

    def put(self, *ids: int, partition: int = 0, topic: str = "x") -> None:
        with self.log.producer(topic) as producer:
            producer.append(pa.table({"id": pa.array(ids, pa.int64())}), partition=partition)


def settle(*consumers: GroupConsumer) -> None:
    """Let members do what a poll does before it reads, until partitions are shared out."""
    for _ in range(2 * len(consumers) + 1):
        for each in consumers:
            each._follow()


def shares(*consumers: GroupConsumer) -> list[list[int]]:
    """The partitions of each member, by number."""
    return [[place.partition for place in each.partitions] for each in consumers]


def kill(consumer: GroupConsumer) -> None:
    """End a member's process."""
    storage = consumer._member._folder._storage
    assert isinstance(storage, MemoryStorage)
    storage.kill()


def ids(batch: pa.RecordBatch | pa.Table | None) -> list[int]:
    found: list[int] = [] if batch is None else batch.column("id").to_pylist()
    return found
