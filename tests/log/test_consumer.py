"""Consumers: all partitions in turn, positions of their own, and time that is the clock's."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
import pytest

from millstream.clock import ManualClock
from millstream.errors import OffsetOutOfRangeError, OptionError, UnknownColumnError
from millstream.log import Log
from millstream.log.bells import LOOK_AGAIN_US
from millstream.log.consumer import Consumer, TopicPartition
from tests.log.log_kit import PATH, SCHEMA, another, ids_of, memory, memory_log, put, rows


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
        log.consumer("x", start="middle")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match="'beginning' or 'end'; got 'error'"):
        log.consumer("x", start="error")
    with pytest.raises(OptionError, match="'member' is an option of a group's consumer"):
        log.consumer("x", member="m")  # type: ignore[call-overload]
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
    assert clock.sleeps == [50_000]
    assert consumer.poll() is None
    clock.sleeps.clear()
    assert consumer.poll(timeout_us=2 * LOOK_AGAIN_US + 5) is None
    assert clock.sleeps == [LOOK_AGAIN_US, LOOK_AGAIN_US, 5]
    consumer.pause()
    assert consumer.poll(timeout_us=7) is None
    assert clock.sleeps[3:] == [7]


def test_who_is_not_woken_looks_again_after_a_while(log: Log) -> None:
    clock = ArrivalClock(log, at_us=3_000)
    consumer = Log(PATH, storage=log.storage, clock=clock).consumer("x", start="end")
    assert ids_of(consumer.poll(timeout_us=1_000_000)) == [42]
    assert clock.sleeps == [LOOK_AGAIN_US]


@pytest.mark.parametrize("durability", ["fsync", "os"])
@pytest.mark.parametrize("effect", range(1, 5))
def test_a_row_that_comes_at_any_time_ends_the_wait(
    effect: int, durability: Literal["fsync", "os"]
) -> None:
    log = memory_log()
    log.create_topic("x", SCHEMA, partitions=3, durability=durability)
    consumer = log.consumer("x")
    other = another(log)
    effects = 0

    def interrupt() -> None:
        nonlocal effects
        effects += 1
        if effects == effect:  # before one of the words is set, or while they are waited for
            put(other, "x", [42], partition=2)

    before_us = log.clock.monotonic_us()
    memory(log).interrupt = interrupt
    assert ids_of(consumer.poll(timeout_us=1_000_000)) == [42]
    assert log.clock.monotonic_us() == before_us
    assert effects >= effect


@pytest.mark.parametrize("outcome", ["commit", "abort"])
def test_a_decision_ends_the_wait(outcome: Literal["commit", "abort"]) -> None:
    log = memory_log()
    log.create_topic("x", SCHEMA)
    writer = log.transactions.writer("job")
    with log.producer("x", writer=writer) as producer:
        producer.append(rows(1), transaction=1)
    with log.producer("x") as producer:
        producer.append(rows(2))
    consumer = log.consumer("x")
    assert consumer.poll() is None
    other = another(log)
    effects = 0

    def interrupt() -> None:
        nonlocal effects
        effects += 1
        if effects == 3:
            other.transactions.decide(writer, 1, outcome)

    memory(log).interrupt = interrupt
    assert ids_of(consumer.poll(timeout_us=50_000)) == ([1, 2] if outcome == "commit" else [2])
    assert log.clock.monotonic_us() == 0


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
