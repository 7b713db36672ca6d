"""A disk that is full, or fails, and gets well again while the processes live on."""

from __future__ import annotations

import errno

import pytest

from millstream.errors import LogError
from millstream.log.appender import VERIFY_AFTER_US
from tests.log.log_kit import SCHEMA, another, memory, memory_log, rows
from tests.log.schedules import all_ids, disk_that_fails, error_of


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


@pytest.mark.parametrize("seed", range(14))
def test_nothing_acknowledged_is_lost_on_a_disk_that_fails_now_and_then(seed: int) -> None:
    disk_that_fails(seed)
