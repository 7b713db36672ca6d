"""Another number of partitions: producers, readers, tables and cleaning around the seam."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest

from millstream.errors import (
    InvalidTopicError,
    LockTimeoutError,
    LogError,
    OffsetOutOfRangeError,
    OptionError,
    PartitionClosedError,
    UnknownTopicError,
)
from millstream.log import Log
from millstream.storage_memory import SimulatedCrash
from tests.log.log_kit import another, ids_of, log_on, memory, memory_log, read

SCHEMA = pa.schema([("key", pa.int64()), ("id", pa.int64())])


def rows(first: int, count: int = 40, keys: int = 8) -> pa.Table:
    ids = range(first, first + count)
    return pa.table({"key": [each % keys for each in ids], "id": list(ids)}, schema=SCHEMA)


def keyed(partitions: int = 2, **options: Any) -> Log:
    log = memory_log()
    log.create_topic("t", SCHEMA, partitions=partitions, key=["key"], **options)
    return log


def put(log: Log, table: pa.Table) -> None:
    with log.producer("t") as producer:
        producer.append(table)


def by_key(batches: Any) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for batch in batches:
        for row in batch.to_pylist():
            found[row["key"]].append(row["id"])
    return found


def expected(count: int, keys: int = 8) -> dict[int, list[int]]:
    return {key: list(range(key, count, keys)) for key in range(keys)}


@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 2), (1, 4), (4, 1), (3, 40)])
def test_rows_of_a_key_stay_in_order(before: int, after: int) -> None:
    log = keyed(before)
    put(log, rows(0))
    topic = log.repartition("t", after)
    assert (topic.partitions, topic.config.generation) == (after, 1)
    put(log, rows(40))
    assert by_key(log.consumer("t")) == expected(80)
    assert sorted(topic.to_arrow().column("id").to_pylist()) == list(range(80))
    lying = by_key(topic.reader(index).read() or rows(0, 0) for index in range(min(after, 40)))
    assert all(each >= 40 for ids in lying.values() for each in ids)


def test_a_producer_that_is_open_follows() -> None:
    log = keyed()
    producer = log.producer("t")
    producer.append(rows(0))
    consumer = another(log).consumer("t")
    found = [consumer.poll()]
    another(log).repartition("t", 3)
    producer.append(rows(40))
    assert producer.touched() == [0, 1, 2]
    producer.flush()
    found += list(consumer)
    assert by_key([each for each in found if each is not None]) == expected(80)
    assert consumer.generations == {"t": 1}
    assert [tuple(each) for each in consumer.partitions] == [("t", 0), ("t", 1), ("t", 2)]


def test_what_a_producer_did_not_flush_is_durable_at_the_seam() -> None:
    log = keyed()
    log.producer("t").append(rows(0))
    other = another(log)
    other.repartition("t", 1)
    memory(log).disk.power_cut()
    assert by_key(log_on(memory(log).disk.storage("later")).consumer("t")) == expected(40)


def test_a_repartition_that_died_is_taken_back_by_the_next_append() -> None:
    log = keyed()
    put(log, rows(0))
    producer = log.producer("t")
    outcomes = set()
    for effect in range(1, 400):
        other = another(log)
        memory(other).crash_after(effect)
        before = log.topic("t").partitions
        try:
            other.repartition("t", 5 - before)
            break
        except SimulatedCrash:
            memory(other).kill()
        first = 40 * effect
        producer.append(rows(first))
        producer.flush()
        topic = log.topic("t")
        outcomes.add(topic.partitions != before)
        assert not topic.partition(0).is_closed
        assert sum(map(len, by_key(log.consumer("t")).values())) == first + 40
    assert by_key(log.consumer("t")) == expected(40 * effect)
    assert outcomes == {True, False}


def test_a_repartition_that_the_disk_refuses_changes_nothing() -> None:
    refused = 0
    for operation in ("write_file", "sync", "append"):
        for after in range(6):
            log = keyed()
            put(log, rows(0))
            log.producer("t").append(rows(40))
            memory(log).fail(operation, OSError(28, "No space left"), after)
            try:
                log.repartition("t", 3)
            except LogError as error:
                refused += 1
                assert "could not be given 3 partitions: " in str(error)
                assert "No space" in str(error)
                assert log.topic("t").partitions == 2
            later = another(log)
            for index in range(later.topic("t").partitions):
                later.topic("t").partition(index).verify()  # a failed sync
            put(later, rows(80))
            assert by_key(later.consumer("t")) == expected(120)
    assert refused > 1


def test_a_closed_partition_takes_no_rows() -> None:
    log = keyed()
    partition = log.topic("t").partition(0)
    log.repartition("t", 3)
    with pytest.raises(PartitionClosedError, match="t/0 is closed"):
        partition.append(rows(0).to_batches()[0])
    assert partition.written_end == 0


def test_mistakes() -> None:
    log = keyed()
    with pytest.raises(InvalidTopicError, match="1 to 4096 partitions; got 0"):
        log.repartition("t", 0)
    with pytest.raises(UnknownTopicError):
        log.repartition("u", 3)
    assert log.repartition("t", 2).config.generation == 0
    topic = log.repartition("t", 3)
    with pytest.raises(OffsetOutOfRangeError, match="generations"):
        topic.partition(0, 7)
    with pytest.raises(OptionError, match="partitions 0 to 1; got 2"):
        topic.partition(2, 0)
    producer = log.producer("t")
    log.repartition("t", 1)
    with pytest.raises(OptionError, match="partitions 0 to 0; got 2"):
        producer.append(rows(0), partition=2)


def test_a_position_can_be_in_any_generation() -> None:
    log = keyed()
    put(log, rows(0))
    log.repartition("t", 3)
    put(log, rows(40))
    consumer = log.consumer("t", start="end")
    assert (consumer.generations, consumer.poll()) == ({"t": 1}, None)
    consumer.seek(0, 4, generation=0)
    reader = log.topic("t").reader(0, generation=0)
    rest = ids_of(reader.read())[4:]
    found = [each for batch in consumer for each in batch.column("id").to_pylist()]
    assert set(rest) < set(found)
    assert len(found) == 76
    consumer.seek_beginning()
    assert by_key(consumer) == expected(80)
    with pytest.raises(OptionError, match="partitions 0 to 1; got 2"):
        consumer.seek(2, 0, generation=0)


def test_times_are_found_in_the_generation_that_has_them() -> None:
    schema = pa.schema([("time", pa.timestamp("us", tz="UTC")), ("id", pa.int64())])
    log = memory_log()
    log.create_topic("t", schema, partitions=2, time="time")
    for first, partitions in ((0, 3), (10, 1), (20, 1)):
        with log.producer("t") as producer:
            times = pa.array(range(first, first + 10)).cast(schema.field("time").type)
            producer.append(pa.table({"time": times, "id": list(range(first, first + 10))}))
        log.repartition("t", partitions)
    consumer = log.consumer("t")
    for time, ids in ((15, range(15, 30)), (25, range(25, 30)), (0, range(30)), (90, ())):
        consumer.seek_time(time)
        assert [each for batch in consumer for each in batch.column("id").to_pylist()] == list(ids)


def test_a_transaction_that_is_open_at_the_seam_holds_consumers_there() -> None:
    log = keyed()
    other = another(log)
    writer = other.transactions.writer("x")
    producer = other.producer("t", writer=writer)
    producer.append(rows(0), transaction=1)
    log.repartition("t", 3)
    put(log, rows(80))
    consumer = log.consumer("t")
    assert consumer.poll() is None
    producer.append(rows(40), transaction=1)
    places = [("t", index) for index in producer.touched()]
    other.transactions.prepare(writer, 1, places)
    other.transactions.decide(writer, 1, "commit")
    # Rows of the transaction that were appended later lie behind rows of others.
    found = by_key(consumer)
    assert {key: sorted(ids) for key, ids in found.items()} == expected(120)
    assert all(ids[:5] == expected(40)[key] for key, ids in found.items())


def test_participants_of_older_generations_are_durable_already() -> None:
    log = keyed(4)
    with log.transaction("x") as transaction:
        transaction.append("t", rows(0))
        another(log).repartition("t", 2)
    assert by_key(log.consumer("t")) == expected(40)
    log.transactions.sync([("t", 3), ("t", 1)])


def test_a_table_has_the_latest_rows_over_all_generations() -> None:
    log = keyed(3, table=True)
    put(log, rows(0))
    log.repartition("t", 2)
    with log.producer("t") as producer:
        producer.delete(pa.table({"key": [3, 4]}))
        producer.append(pa.table({"key": [4, 5], "id": [100, 200]}, schema=SCHEMA))
    latest = {row["key"]: row["id"] for row in log.topic("t").latest().to_pylist()}
    assert latest == {0: 32, 1: 33, 2: 34, 4: 100, 5: 200, 6: 38, 7: 39}


def test_a_tombstone_stays_while_an_older_generation_has_its_row() -> None:
    config = {"cleanup.policy": "compact", "delete.retention.ms": 0, "segment.bytes": 1_000}
    log = keyed(2, table=True, config=config)
    put(log, rows(0))
    log.repartition("t", 1)
    with log.producer("t") as producer:
        producer.delete(pa.table({"key": [3]}))
        for each in range(30):
            producer.append(pa.table({"key": [1], "id": [each]}, schema=SCHEMA))
    for _ in range(3):
        log.clock.sleep_us(10_000_000)
        log.clean("t")
    assert 3 not in log.topic("t").latest().column("key").to_pylist()


def test_an_old_generation_goes_when_all_its_rows_are_too_old() -> None:
    log = keyed(config={"retention.ms": 60_000})
    put(log, rows(0))
    topic = log.repartition("t", 3)
    put(log, rows(40))
    stale = another(log).topic("t")
    consumer = another(log).consumer("t")
    log.clean("t")
    assert topic.config.generations == [0, 1]
    log.clock.sleep_us(61_000_000)
    put(log, rows(80))
    log.clean("t")
    assert topic.config.generations == [1]
    assert log.storage.list_directory(topic.directory) == ["1", "topic.json"]
    later = another(log)
    assert by_key(later.consumer("t"))
    assert later.topic("t").describe()["older"] == []
    assert later.repartition("t", 2).config.generations == [1, 2]
    with pytest.raises(OffsetOutOfRangeError, match="rows of older ones were removed"):
        later.topic("t").reader(0, generation=0)
    stale.refresh()
    assert stale.config.generations == [1, 2]
    with pytest.raises((OffsetOutOfRangeError, UnknownTopicError)):
        consumer.poll()


def test_a_description_shows_all_generations() -> None:
    log = keyed()
    put(log, rows(0))
    log.repartition("t", 3)
    described: dict[str, Any] = log.topic("t").describe()
    assert (described["generation"], len(described["partitions"])) == (1, 3)
    (older,) = described["older"]
    assert older["generation"] == 0
    assert sum(each["durable_end"] for each in older["partitions"]) == 40


def test_a_topic_without_keys_is_read_to_the_seam_first() -> None:
    log = memory_log()
    log.create_topic("t", SCHEMA, partitions=2)
    for first in (0, 40):
        put(log, rows(first))
    log.repartition("t", 1)
    put(log, rows(80))
    found = [each for batch in log.consumer("t") for each in batch.column("id").to_pylist()]
    assert sorted(found) == list(range(120))
    assert found[-40:] == list(range(80, 120))
    assert read(log.topic("t")) == list(range(80, 120))


@pytest.mark.parametrize("key", [["key"], []])
def test_an_append_that_is_made_again_is_stored_once_over_the_seam(key: list[str]) -> None:
    """Whoever dies where: the same number again, in another life, is the same append."""
    kinds = set()
    for seam in range(1, 60):
        log = memory_log()
        log.create_topic("t", SCHEMA, partitions=3, key=key)
        batches = [rows(40 * each) for each in range(4)]
        whole = pa.concat_tables(batches[1:3])
        log.producer("t", name="p").append(batches[0], sequence=1)
        storage = memory(another(log))
        writer = log_on(storage).producer("t", name="p")
        effects = iter(range(10_000))

        def repartition(effects: Any = effects, seam: int = seam, log: Log = log) -> None:
            if next(effects) == seam:
                with suppress(LockTimeoutError):  # inside an append; it is taken back
                    another(log).repartition("t", 2)

        storage.interrupt = repartition
        storage.crash_after(seam + 1 + seam % 7)
        try:
            writer.append(whole, sequence=2)
            writer.flush()
        except SimulatedCrash:
            storage.kill()
        for partitions in (2, 4):
            again = another(log).producer("t", name="p")
            again.append(whole, sequence=2)
            again.flush()
            kinds.add((log.topic("t").config.generation, again.sequence))
            log.repartition("t", partitions)
        again.append(batches[3], sequence=3)
        again.flush()
        found = [each for batch in log.consumer("t") for each in batch.column("id").to_pylist()]
        assert sorted(found) == list(range(160)), f"seam at effect {seam}"
        if key:
            assert by_key(log.consumer("t")) == expected(160)
    assert len(kinds) > 1
