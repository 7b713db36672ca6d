"""Rows sent one by one: gathered, appended in order, never lost without a word."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.errors import LogError, OptionError, SchemaMismatchError, UnknownColumnError
from millstream.log import Log
from millstream.log.sender import GRACE_US
from tests.log.log_kit import SCHEMA, ids_of, memory, memory_log, rows


@pytest.fixture
def log() -> Log:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    return log


def all_ids(log: Log) -> list[int]:
    return ids_of(log.topic("a").to_arrow())


def test_rows_come_with_the_flush_and_in_order(log: Log) -> None:
    with log.producer("a", batch_rows=4) as producer:
        futures = [producer.send({"id": each, "text": f"row {each}"}) for each in range(6)]
        assert futures[0] is futures[3] is not futures[4]
        assert not futures[5].done()
        producer.append(rows(6))  # behind what was sent
        producer.send(id=7)
        producer.flush()
        assert [each.result(0) for each in futures] == [None] * 6
        assert all_ids(log) == list(range(8))
        producer.send(text="x", id=8)
    table = log.topic("a").to_arrow()
    assert table["id"].to_pylist() == list(range(9))
    assert table["text"].to_pylist()[5:] == ["row 5", "row 6", None, "x"]
    assert len([*log.consumer("a")]) >= 1


def test_they_are_gathered_for_a_while(log: Log) -> None:
    producer = log.producer("a", linger_ms=20)
    sent = producer.send(id=1)
    log.clock.sleep_us(20_000)
    assert not sent.done()  # who sends on would append it
    log.clock.sleep_us(GRACE_US + 1)
    assert sent.done()
    assert all_ids(log) == [1]
    producer.send(id=2)
    log.clock.sleep_us(20_000)
    producer.send(id=3)
    log.clock.sleep_us(1)
    assert all_ids(log) == [1, 2, 3]


def test_headers_and_times_are_each_rows_own(log: Log) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    with log.producer("a") as producer:
        producer.send(id=1)
        producer.send({"id": 2}, headers={"trace": b"x"}, timestamp=at)
        producer.send({"id": 3}, headers=[("a", b"1"), ("a", b"2")])
    reader = log.topic("a").reader(0, columns=["id", "_headers", "_timestamp"])
    batch = reader.read()
    assert batch is not None
    found = batch.to_pylist()
    assert [each["_headers"] for each in found] == [
        None,
        [{"key": "trace", "value": b"x"}],
        [{"key": "a", "value": b"1"}, {"key": "a", "value": b"2"}],
    ]
    assert found[1]["_timestamp"] == at


def test_a_row_that_does_not_fit_is_named_and_its_batch_is_not_appended(log: Log) -> None:
    producer = log.producer("a")
    with pytest.raises(UnknownColumnError, match=r"no column 'idd'.*was not sent"):
        producer.send(idd=1)
    first = producer.send(id=1)
    producer.send(id="two")
    producer.send(id=3)
    with pytest.raises(SchemaMismatchError, match=r"'id'.*row 1 of the 3.*'two'; none of them"):
        producer.flush()
    assert isinstance(first.exception(0), SchemaMismatchError)
    producer.send(id=4)
    producer.flush()
    assert all_ids(log) == [4]
    with pytest.raises(OptionError, match="batch_rows"):
        log.producer("a", batch_rows=0)


def test_an_error_that_nobody_heard_is_told_with_the_next_call(log: Log) -> None:
    producer = log.producer("a", linger_ms=1)
    sent = producer.send(id=1)
    memory(log).fail("append", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    log.clock.sleep_us(1_000 + GRACE_US + 1)
    assert isinstance(sent.exception(0), LogError)
    with pytest.raises(LogError, match="No space left"):
        producer.send(id=2)
    log.clock.sleep_us(2_000_000)
    producer.send(id=3)
    producer.flush()
    assert all_ids(log) == [3]


def test_a_column_that_somebody_added_is_taken(log: Log) -> None:
    producer = log.producer("a")
    producer.send(id=1)
    log.alter_topic("a", add_columns=[pa.field("more", pa.int64())])
    producer.send(id=2, more=5)
    producer.flush()
    assert Log("/log", storage=log.storage, clock=log.clock).topic("a").to_arrow()[
        "more"
    ].to_pylist() == [None, 5]


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_thread_appends_what_waits(tmp_path: Path, durability: str) -> None:
    log = Log(tmp_path)
    log.create_topic("a", SCHEMA, partitions=2, key=["id"], durability=durability)  # type: ignore[arg-type]
    before = threading.active_count()
    with log.producer("a", linger_ms=1, batch_rows=100) as producer:
        futures = [producer.send(id=each) for each in range(1_050)]
        for each in futures:
            each.result(30)  # nobody flushes
        assert sorted(all_ids(log)) == list(range(1_050))
    assert threading.active_count() == before


class TestAsync:
    def test_rows_and_batches_come_through(self, tmp_path: Path) -> None:
        log = Log(tmp_path)
        log.create_topic("a", SCHEMA)

        async def produce() -> None:
            async with log.async_producer("a", linger_ms=1, batch_rows=50) as producer:
                futures = [await producer.send(id=each) for each in range(120)]
                await asyncio.gather(*futures)  # nobody flushes
                await producer.append(rows(120))
                await producer.send({"id": 121})
                await producer.flush()
                assert len(all_ids(Log(tmp_path))) == 122
                await producer.send(id=122)

        async def consume() -> list[int]:
            found: list[int] = []
            async for batch in Log(tmp_path).consumer("a"):
                found += ids_of(batch)
                if len(found) == 123:
                    break
            return found

        async def both() -> list[int]:
            reading = asyncio.create_task(consume())
            await produce()
            return await asyncio.wait_for(reading, 30)

        assert asyncio.run(both()) == list(range(123))

    def test_errors_are_told(self, tmp_path: Path) -> None:
        log = Log(tmp_path)
        log.create_topic("a", SCHEMA)

        async def produce() -> None:
            producer = log.async_producer("a", linger_ms=1)
            sent = await producer.send(id="one")
            with pytest.raises(SchemaMismatchError, match="'one'"):
                await sent
            with pytest.raises(SchemaMismatchError, match="'one'"):
                await producer.flush()
            with pytest.raises(UnknownColumnError):
                await producer.send(idd=1)
            await producer.send(id=2)
            await producer.close()

        asyncio.run(produce())
        assert all_ids(log) == [2]
