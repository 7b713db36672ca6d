"""What a process learns of a topic that another one is just changing holds, whatever happens.

The one that changes it dies before the new `topic.json` is durable; the other one relies on it,
and then the power is cut.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa
import pytest

from millstream.errors import UnknownTopicError
from millstream.log import Log
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import SCHEMA, ids_of, log_on, put, rows

SEEDS = range(4)
EFFECTS_MAX = 25
MORE = pa.field("more", pa.int64())


def create(log: Log) -> None:
    log.create_topic("a", SCHEMA, key=["id"])


def add_column(log: Log) -> None:
    log.alter_topic("a", add_columns=[MORE])


def repartition(log: Log) -> None:
    log.repartition("a", 2)


@pytest.mark.parametrize("change", [create, add_column, repartition])
def test_what_was_learnt_is_durable_before_rows_rely_on_it(change: Callable[[Log], None]) -> None:
    for seed in SEEDS:
        for fatal in range(1, EFFECTS_MAX):
            disk = MemoryDisk(random.Random(seed * EFFECTS_MAX + fatal))
            if change is not create:
                setup = log_on(disk.storage("setup"))
                create(setup)
                put(setup, "a", [0])
            dying = disk.storage("dying")
            dying.crash_after(fatal)
            with suppress(SimulatedCrash):
                change(log_on(dying))
                break  # it lived to the end
            other = log_on(disk.storage("other"))
            try:
                topic = other.topic("a")
            except UnknownTopicError:
                continue
            batch = rows(1, 2, 3)
            if MORE.name in topic.schema.names:
                batch = batch.append_column(MORE, pa.array([7, 8, 9]))
            with other.producer("a") as producer:
                producer.append(batch)
            disk.power_cut()
            found = log_on(disk.storage("after")).topic("a").to_arrow()
            assert sorted(ids_of(found))[-3:] == [1, 2, 3]
            if MORE.name in topic.schema.names:
                assert found.schema.field(MORE.name) == MORE
