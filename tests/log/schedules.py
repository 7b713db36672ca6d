"""Seeded schedules of named producers; the suite runs some of them, `nightly` many more."""

from __future__ import annotations

import errno
import os
import random
from contextlib import suppress

from millstream.errors import LogError
from millstream.log import Log
from millstream.log.appender import VERIFY_AFTER_US
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import (
    SCHEMA,
    ids_of,
    log_on,
    memory,
    read,
    rows,
    syncs_begun_at,
    zeros_laid_in,
)

CALLS = ("append", "sync", "begin_sync", "truncate", "write_file", "create")


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def all_ids(log: Log) -> list[int]:
    return ids_of(log.topic("a").to_arrow())


def producers_that_die(seed: int) -> None:
    """Producers of one name die at any effect, or the power does; the next one goes on."""
    with zeros_laid_in(0 if seed % 3 else 10**6), syncs_begun_at(1 if seed % 2 else 10**6):
        _let_producers_die(random.Random(seed))


def _let_producers_die(chance: random.Random) -> None:
    disk = MemoryDisk(chance)
    log = log_on(disk.storage("first"))
    config = {"segment.bytes": chance.choice([1_200, 3_000, 10**6])}
    log.create_topic("a", SCHEMA, partitions=2, key=["id"], config=config)
    count = 40
    flushed = 0
    lives = 0
    while flushed < count:
        lives += 1
        storage = disk.storage(f"life {lives}")
        if chance.random() < 0.9:
            storage.crash_after(chance.randrange(1, 250))
        try:
            producer = log_on(storage).producer("a", name="p")
            # After a power cut what was not flushed may be gone; all of it is sent again.
            for number in range(flushed + 1, count + 1):
                producer.append(rows(3 * number, 3 * number + 1, 3 * number + 2), sequence=number)
                if chance.random() < 0.2:
                    producer.flush()
                    flushed = number
            producer.flush()
            flushed = count
        except SimulatedCrash:
            if chance.random() < 0.4:
                disk.power_cut()
    end = log_on(disk.storage("end"))
    end.producer("a").flush()
    for index in range(2):
        end.topic("a").partition(index).sync()
    found = [read(end.topic("a"), index) for index in range(2)]
    assert all(each == sorted(each) for each in found)
    assert sorted(found[0] + found[1]) == list(range(3, 3 * count + 3))


def disk_that_fails(seed: int) -> None:
    """A disk refuses now and then, then the power goes; what was flushed is there, in order."""
    with zeros_laid_in(0 if seed % 3 else 10**6), syncs_begun_at(1 if seed % 2 else 10**6):
        _let_disk_fail(random.Random(seed))


def _let_disk_fail(chance: random.Random) -> None:
    disk = MemoryDisk(chance)
    log = log_on(disk.storage("a"))
    log.create_topic("a", SCHEMA, config={"segment.bytes": 2_500})
    storage = memory(log)
    producer = log.producer("a", name="p")
    number = flushed = 0
    while flushed < 30:
        if chance.random() < 0.3:
            operation = chance.choice(CALLS)
            kind = chance.choice([errno.ENOSPC, errno.EIO])
            storage.fail(operation, error_of(kind), after=chance.randrange(0, 3))
        try:
            number += 1
            producer.append(rows(number), sequence=number)
            if chance.random() < 0.5:
                producer.flush()
                flushed = number
        except (LogError, OSError):
            number = flushed
            log.clock.sleep_us(VERIFY_AFTER_US)
    for cut in range(chance.randrange(0, 3)):
        disk.power_cut()
        last = disk.storage(f"after {cut}")
        last.fail("sync", error_of(errno.EIO), after=chance.randrange(0, 3))
        for _ in range(2):  # who comes first finds the disk sick
            with suppress(LogError, OSError):
                all_ids(log_on(last))
    found = all_ids(log_on(disk.storage("end")))
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= flushed
