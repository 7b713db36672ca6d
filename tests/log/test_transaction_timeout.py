"""An open transaction that is too old is aborted by whom it holds back; a prepared one never."""

from __future__ import annotations

import pytest

from millstream.errors import TransactionError
from millstream.log import Log
from tests.log.log_kit import SCHEMA, another, memory_log, put, read, rows

TIMEOUT_MS = 60_000


@pytest.fixture
def log() -> Log:
    log = memory_log()
    log.create_topic("a", SCHEMA, config={"transaction.timeout.ms": TIMEOUT_MS})
    return log


def test_an_open_one_is_aborted_when_it_is_too_old(log: Log) -> None:
    writer = log.transactions.writer("job")
    producer = log.producer("a", writer=writer)
    producer.append(rows(1), transaction=5)
    producer.append(rows(2), transaction=5)
    producer.flush()
    put(log, "a", [3])
    log.clock.sleep_us(TIMEOUT_MS * 1_000)
    assert read(log.topic("a")) == []  # not yet
    log.clock.sleep_us(1)
    assert read(log.topic("a")) == [3]
    other = another(log)
    assert read(other.topic("a")) == [3]
    # The silent process wakes up: what it adds is of an aborted transaction, and it is told.
    producer.append(rows(4), transaction=5)
    with pytest.raises(TransactionError, match="was aborted: it was open for longer"):
        log.transactions.prepare(writer, 5, [("a", 0)])
    with pytest.raises(TransactionError, match="is aborted already"):
        log.transactions.decide(writer, 5, "commit")
    assert log.transactions.prepared() == []
    assert read(log.topic("a")) == [3]
    # Its next transaction is as good as any.
    producer.append(rows(6), transaction=6)
    log.transactions.prepare(writer, 6, [("a", 0)])
    log.transactions.decide(writer, 6, "commit")
    assert read(log.topic("a")) == [3, 6]


def test_a_prepared_one_waits_however_long(log: Log) -> None:
    writer = log.transactions.writer("job")
    log.producer("a", writer=writer).append(rows(1), transaction=5)
    log.transactions.prepare(writer, 5, [("a", 0)])
    log.clock.sleep_us(10**15)
    assert read(another(log).topic("a")) == []
    log.transactions.decide(writer, 5, "commit")
    assert read(another(log).topic("a")) == [1]


def test_the_last_stable_offset_moves_too(log: Log) -> None:
    writer = log.transactions.writer("job")
    producer = log.producer("a", writer=writer)
    producer.append(rows(1), transaction=5)
    producer.flush()
    assert log.topic("a").stable_ends() == [0]
    log.clock.sleep_us(TIMEOUT_MS * 1_000 + 1)
    assert log.topic("a").stable_ends() == [1]
