"""Consumers: all partitions in turn, positions of their own, and time that is the clock's."""

from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.clock import ManualClock
from millstream.errors import OffsetOutOfRangeError, OptionError, UnknownColumnError
from millstream.log import Log
from millstream.log.consumer import PAUSE_FIRST_US, Consumer, TopicPartition
from tests.log.log_kit import PATH, SCHEMA, ids_of, memory_log, put


@pytest.fixture
def log() -> Log:
    log = memory_log()
    log.create_topic("x", SCHEMA, partitions=3)
    for index in range(6):
        put(log, "x", [index, index + 10], partition=index % 3)
    return log


def positions(consumer: Consumer) -> list[int]:
    return list(consumer.positions.values())


def test_partitions_take_turns_and_keep_their_order(log: Log) -> None:
    consumer = log.consumer("x")
    found = [ids_of(consumer.poll(rows_max=2)) for _ in range(6)]
    assert found == [[0, 10], [1, 11], [2, 12], [3, 13], [4, 14], [5, 15]]
    assert consumer.poll() is None
    assert positions(consumer) == [4, 4, 4]
    put(log, "x", [7], partition=1)
    assert ids_of(consumer.poll()) == [7]


def test_iterating_ends_with_what_is_there(log: Log) -> None:
    consumer = log.consumer("x", columns=["id"])
    batches = list(consumer)
    assert [batch.schema.names for batch in batches] == [["id"]] * 3
    assert sorted(each for batch in batches for each in ids_of(batch)) == [
        *range(6),
        *range(10, 16),
    ]
    assert list(consumer) == []


def test_it_starts_where_it_is_told(log: Log) -> None:
    consumer = log.consumer("x", start="end")
    assert positions(consumer) == [4, 4, 4]
    assert consumer.poll() is None
    consumer.seek(1, 3)
    assert ids_of(consumer.poll()) == [14]
    consumer.seek_beginning()
    assert positions(consumer) == [0, 0, 0]
    consumer.seek_end()
    assert consumer.poll() is None
    with pytest.raises(OptionError, match="'beginning' or 'end'; got 'middle'"):
        log.consumer("x", start="middle")  # type: ignore[arg-type]
    with pytest.raises(UnknownColumnError):
        log.consumer("x", columns=["none"])
    with pytest.raises(OffsetOutOfRangeError):
        consumer.seek(0, 5)


def test_the_end_is_the_last_stable_offset(log: Log) -> None:
    writer = log.transactions.writer("job")
    with log.producer("x", writer=writer) as producer:
        producer.append(pa.table({"id": [99]}), partition=2, transaction=1)
    put(log, "x", [100], partition=2)
    consumer = log.consumer("x", start="end")
    assert positions(consumer) == [4, 4, 4]
    assert consumer.poll() is None
    uncommitted = log.consumer("x", start="end", isolation="read_uncommitted")
    assert ids_of(uncommitted.poll()) == [99, 100]
    log.transactions.decide(writer, 1, "commit")
    assert ids_of(consumer.poll()) == [99, 100]


def test_seeking_a_time_moves_every_partition(log: Log) -> None:
    log.clock.sleep_us(5_000)
    put(log, "x", [50], partition=0)
    consumer = log.consumer("x")
    consumer.seek_time(1_000_001)
    assert positions(consumer) == [4, 4, 4]
    assert ids_of(consumer.poll()) == [50]
    consumer.seek_time(0)
    assert positions(consumer) == [0, 0, 0]


class ArrivalClock(ManualClock):
    """Rows arrive while somebody sleeps."""

    def __init__(self, log: Log, at_us: int) -> None:
        super().__init__()
        self.sleeps: list[int] = []
        self._log = log
        self._at_us = at_us

    def sleep_us(self, duration_us: int) -> None:
        super().sleep_us(duration_us)
        self.sleeps.append(duration_us)
        if self.monotonic_us() >= self._at_us > 0:
            put(self._log, "x", [42], partition=1)
            self._at_us = 0


def test_polling_waits_as_long_as_it_may(log: Log) -> None:
    clock = ArrivalClock(log, at_us=0)
    consumer = Log(PATH, storage=log.storage, clock=clock).consumer("x", start="end")
    assert consumer.poll(timeout_us=50_000) is None
    assert clock.monotonic_us() == 50_000
    assert clock.sleeps[0] == PAUSE_FIRST_US
    assert len(clock.sleeps) < 30
    assert consumer.poll() is None
    assert clock.monotonic_us() == 50_000


def test_polling_returns_with_the_first_rows(log: Log) -> None:
    clock = ArrivalClock(log, at_us=3_000)
    consumer = Log(PATH, storage=log.storage, clock=clock).consumer("x", start="end")
    assert ids_of(consumer.poll(timeout_us=1_000_000)) == [42]
    assert clock.monotonic_us() < 10_000


def test_tombstones_are_passed_over() -> None:
    log = memory_log()
    log.create_topic("t", SCHEMA, key=["id"], table=True)
    with log.producer("t") as producer:
        producer.append(pa.table({"id": [1]}))
        producer.delete(pa.table({"id": [1, 2]}))
    consumer = log.consumer("t")
    assert ids_of(consumer.poll()) == [1]
    assert consumer.poll() is None
    assert positions(consumer) == [3]


def test_several_topics_take_turns_and_the_source_is_told(log: Log) -> None:
    log.create_topic("y", pa.schema({"id": pa.int64()}))
    with log.producer("y") as producer:
        producer.append(pa.table({"id": [70]}))
    consumer = log.consumer(["x", "y"], columns={"x": ["id"]})
    found = {}
    while (batch := consumer.poll()) is not None:
        found[consumer.source] = batch.to_pydict()
    assert found == {
        ("x", 0): {"id": [0, 10, 3, 13]},
        ("x", 1): {"id": [1, 11, 4, 14]},
        ("x", 2): {"id": [2, 12, 5, 15]},
        ("y", 0): {"id": [70]},
    }
    with pytest.raises(OptionError, match=r"name a partition as \(topic, number\); got 1"):
        consumer.seek(1, 0)
    with pytest.raises(OptionError, match=r"does not read \('y', 1\); it reads \[\('x', 0\)"):
        consumer.seek(("y", 1), 0)
    consumer.seek(("y", 0), 0)
    assert consumer.positions[TopicPartition("y", 0)] == 0
    assert ids_of(consumer.poll()) == [70]


def test_paused_partitions_are_passed_over(log: Log) -> None:
    consumer = log.consumer("x")
    consumer.pause(0, 2)
    assert consumer.paused == [("x", 0), ("x", 2)]
    assert [ids_of(batch) for batch in consumer] == [[1, 11, 4, 14]]
    consumer.resume(2)
    assert [ids_of(batch) for batch in consumer] == [[2, 12, 5, 15]]
    consumer.resume()
    assert consumer.paused == []
    assert [ids_of(batch) for batch in consumer] == [[0, 10, 3, 13]]
    consumer.pause()
    consumer.seek_beginning(1)
    assert consumer.poll() is None
    assert positions(consumer) == [4, 0, 4]


def test_a_range_is_read_and_no_more(log: Log) -> None:
    topic = log.topic("x")
    assert ids_of(topic.read(1, 1, 3)) == [11, 4]
    assert topic.read(1, 0, 99, columns=["id"]).to_pydict() == {"id": [1, 11, 4, 14]}
    assert topic.read(1, 4, 9).num_rows == 0
    assert topic.read(1, 2, 2).schema == SCHEMA
    with pytest.raises(OffsetOutOfRangeError):
        topic.read(1, 5, 9)
