"""A disk that is full, or fails, and gets well again while the processes live on."""

from __future__ import annotations

import errno
import os
import random
from contextlib import suppress

import pytest

from millstream.errors import LogError
from millstream.log import Log
from millstream.log.appender import VERIFY_AFTER_US
from millstream.storage_memory import MemoryDisk
from tests.log.log_kit import SCHEMA, another, ids_of, log_on, memory, memory_log, rows


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def all_ids(log: Log) -> list[int]:
    return ids_of(log.topic("a").to_arrow())


def test_it_goes_on_once_there_is_room() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    producer = log.producer("a")
    producer.append(rows(1))
    producer.flush()
    memory(log).fail("append", error_of(errno.ENOSPC))
    with pytest.raises(LogError, match=r"No space left on device.*make room"):
        producer.append(rows(2))
    with pytest.raises(LogError, match="refuses to write"):
        producer.append(rows(3))  # not yet
    assert all_ids(log) == [1]
    # Still full: it is verified, tried and refused again.
    log.clock.sleep_us(VERIFY_AFTER_US)
    memory(log).fail("append", error_of(errno.ENOSPC))
    with pytest.raises(LogError, match="No space left"):
        producer.append(rows(4))
    log.clock.sleep_us(VERIFY_AFTER_US)
    producer.append(rows(5))
    producer.flush()
    assert all_ids(log) == [1, 5]


def test_after_a_failed_sync_every_process_waits_and_one_verifies() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    producer = log.producer("a")
    producer.append(rows(1))
    producer.flush()
    other = another(log).producer("a")
    other.append(rows(2))
    producer.append(rows(3))
    memory(log).fail("sync", error_of(errno.EIO))
    with pytest.raises(LogError, match="a sync failed"):
        producer.flush()
    for each in (producer, other):
        with pytest.raises(LogError, match="refuses to write; a sync failed"):
            each.append(rows(4))
        with pytest.raises(LogError, match="refuses to write; a sync failed"):
            each.flush()
    log.clock.sleep_us(VERIFY_AFTER_US)
    producer.append(rows(5))
    producer.flush()
    found = all_ids(log)
    assert found[0] == 1
    assert found[-1] == 5
    # What the disk lost of the other's rows, that one is told, if it did not get through.
    try:
        other.flush()
    except LogError as error:
        assert "append them again" in str(error)
    else:
        assert 2 in found


def test_where_the_disk_stays_sick_it_stays_refused() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    producer = log.producer("a")
    producer.append(rows(1))
    memory(log).fail("sync", error_of(errno.EIO))
    with pytest.raises(LogError):
        producer.flush()
    with pytest.raises(LogError, match="refuses to write"):
        producer.append(rows(2))
    for _ in range(3):
        log.clock.sleep_us(VERIFY_AFTER_US)
        memory(log).fail("sync", error_of(errno.EIO))
        with pytest.raises(LogError, match="cannot be recovered"):
            producer.append(rows(2))
        with pytest.raises(LogError, match="refuses to write"):
            producer.append(rows(2))
    log.clock.sleep_us(VERIFY_AFTER_US)
    producer.append(rows(2))
    producer.flush()
    assert all_ids(log)[-1] == 2


@pytest.mark.parametrize("seed", range(40))
def test_nothing_acknowledged_is_lost_on_a_disk_that_fails_now_and_then(seed: int) -> None:
    chance = random.Random(seed)
    disk = MemoryDisk(chance)
    log = log_on(disk.storage("a"))
    log.create_topic("a", SCHEMA, config={"segment.bytes": 2_500})
    storage = memory(log)
    producer = log.producer("a", name="p")
    number = flushed = 0
    while flushed < 30:
        if chance.random() < 0.3:
            operation = chance.choice(["append", "sync", "truncate", "write_file", "create"])
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
