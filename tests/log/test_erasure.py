"""Erased keys are gone from every file, whoever reads, writes, or dies meanwhile."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest

from millstream.clock import ManualClock
from millstream.errors import InvalidTopicError, OptionError, SchemaMismatchError, UnknownTopicError
from millstream.log import Log, Topic
from millstream.log.erasure import EraseJournal
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import PATH, memory

ROWS = pa.schema([("who", pa.string()), ("n", pa.int64()), ("text", pa.string())])
SMALL: dict[str, object] = {"segment.bytes": 2_000}


def log_at(clock: ManualClock, disk: MemoryDisk | None = None, process: str = "a") -> Log:
    disk = disk or MemoryDisk(random.Random(0))
    return Log(PATH, storage=disk.storage(process), clock=clock)


def batch(who: list[str | None], first: int) -> pa.RecordBatch:
    numbers = list(range(first, first + len(who)))
    texts = [f"secret of {each}" for each in who]
    return pa.record_batch([pa.array(who, pa.string()), numbers, texts], schema=ROWS)


def put(log: Log, topic: str, who: list[str | None], first: int) -> None:
    with log.producer(topic) as producer:
        producer.append(batch(who, first))


def keys(*who: str | None) -> pa.Table:
    return pa.table({"who": pa.array(who, pa.string())})


def stored(topic: Topic, isolation: Any = "read_committed") -> list[tuple[int, str | None]]:
    """(offset, key) of all rows, in order; one partition after the other."""
    found = []
    for index in range(topic.partitions):
        reader = topic.reader(index, columns=["_offset", "who"], isolation=isolation)
        while (rows := reader.read_table(rows_max=5)) is not None:
            found += [(row["_offset"], row["who"]) for row in rows.to_pylist()]
    return found


def bytes_of(log: Log, topic: Topic) -> bytes:
    """All bytes of all files of a topic."""
    storage, content = log.storage, b""
    for index in range(topic.partitions):
        directory = topic.partition(index).directory
        for name in storage.list_directory(directory):
            content += storage.read_file(f"{directory}/{name}")
    return content + b"".join(
        storage.read_file(f"{topic.directory}/{name}")
        for name in storage.list_directory(topic.directory)
        if name.endswith(".json")
    )


@pytest.mark.parametrize("table", [False, True])
def test_nothing_is_left_of_a_key_and_all_else_stays(table: bool) -> None:
    log = log_at(ManualClock())
    topic = log.create_topic(
        "t",
        ROWS,
        partitions=2,
        key=["who"],
        table=table,
        config={**SMALL, "cleanup.policy": "delete"},
    )
    chance = random.Random(0)
    for start in range(0, 150, 5):
        put(log, "t", [chance.choice(["ann", "bob", "cyd", "", None]) for _ in range(5)], start)
    before = stored(topic)
    assert b"secret of bob" in bytes_of(log, topic)
    done = log.erase("t", keys("bob", None))
    left = [row for row in before if row[1] not in {"bob", None}]
    assert stored(topic) == left
    assert (done.keys, done.rows) == (2, len(before) - len(left))
    assert b"secret of bob" not in bytes_of(log, topic)
    assert b"secret of ann" in bytes_of(log, topic)
    # The next offset is the same; and a second time there is nothing to do.
    put(log, "t", ["bob"], 1_000)
    again = log.erase("t", keys("none of them"))
    assert (again.rows, again.segments) == (0, 0)
    assert len(stored(topic)) == len(left) + 1
    assert log.erase("t", None).keys == 0


def test_rows_of_transactions_go_whatever_becomes_of_them() -> None:
    log = log_at(ManualClock())
    topic = log.create_topic("t", ROWS, key=["who"], config=SMALL)
    with log.transaction("lost") as transaction:
        transaction.append("t", batch(["bob", "ann"], 0))
        transaction.abort()
    with log.transaction("kept") as transaction:
        transaction.append("t", batch(["bob", "cyd"], 2))
    with log.transaction("open") as transaction:
        transaction.append("t", batch(["bob", "dan"], 4))
        topic.partition(0).sync()
        assert log.erase("t", keys("bob")).rows == 3
        assert b"secret of bob" not in bytes_of(log, topic)
        assert stored(topic) == [(3, "cyd")]
        assert topic.stable_ends() == [4]
    assert stored(topic) == [(3, "cyd"), (5, "dan")]
    assert stored(topic, "read_uncommitted") == [(1, "ann"), (3, "cyd"), (5, "dan")]


def test_compacted_segments_are_erased_too() -> None:
    log = log_at(ManualClock())
    topic = log.create_topic("t", ROWS, key=["who"], table=True, config=SMALL)
    for start in range(0, 100, 4):
        put(log, "t", ["ann", "bob", "cyd", f"{start}"], start)
    with log.producer("t") as producer:
        producer.delete(keys("ann"))
    log.clean()
    before = stored(topic)
    log.erase("t", keys("bob", "0", "ann"))
    assert stored(topic) == [row for row in before if row[1] not in {"bob", "0", "ann"}]
    log.clean()
    assert {row["who"] for row in topic.latest().to_pylist()} == (
        {"cyd", *(f"{start}" for start in range(4, 100, 4))}
    )


def test_keys_of_several_columns_match_as_a_whole() -> None:
    log = log_at(ManualClock())
    schema = pa.schema([("a", pa.float64()), ("b", pa.string()), ("n", pa.int64())])
    topic = log.create_topic("t", schema, key=["a", "b"])
    rows = {
        "a": [0.0, -0.0, float("nan"), 1.0, None, 1.0],
        "b": ["x", "y", "x", "y", "x", None],
        "n": list(range(6)),
    }
    with log.producer("t") as producer:
        producer.append(pa.table(rows, schema=schema))
    wanted = pa.table({"b": ["x", "x", "y", None], "a": [-0.0, float("nan"), None, 1.0]})
    assert log.erase("t", wanted).rows == 3
    assert topic.to_arrow(["n"]).column("n").to_pylist() == [1, 3, 4]


def test_mistakes_erase_nothing() -> None:
    log = log_at(ManualClock())
    topic = log.create_topic("t", ROWS, key=["who"])
    log.create_topic("plain", ROWS)
    put(log, "t", ["ann"], 0)
    with pytest.raises(UnknownTopicError):
        log.erase("u", keys("ann"))
    with pytest.raises(OptionError, match="no key columns"):
        log.erase("plain", keys("ann"))
    with pytest.raises(SchemaMismatchError, match=r"are \['who'\]; got \['n'\]"):
        log.erase("t", pa.table({"n": [1]}))
    with pytest.raises(SchemaMismatchError, match="do not fit"):
        log.erase("t", pa.table({"who": [[1]]}))
    assert stored(topic) == [(0, "ann")]
    log.storage.write_file(f"{topic.directory}/erasing.json", b"{}")
    with pytest.raises(InvalidTopicError, match="is damaged"):
        log.erase("t", keys("ann"))


def test_what_is_appended_after_an_erasure_began_stays_whoever_ends_it_and_when() -> None:
    clock = ManualClock()
    for effects in range(200):
        log = log_at(clock)
        topic = log.create_topic("t", ROWS, key=["who"], config=SMALL)
        for start in range(0, 12, 3):
            put(log, "t", ["ann", "bob", "cyd"], start)
        memory(log).crash_after(effects)
        with suppress(SimulatedCrash):
            log.erase("t", keys("bob"))
            pytest.fail("it never died with the erasure begun")
        again = log_at(clock, memory(log).disk, "b")
        topic = again.topic("t")
        if again.storage.exists(f"{topic.directory}/erasing.json"):
            break
    put(again, "t", ["bob", "ann"], 12)
    # Another begins and dies as well; each goes up to where it began.
    memory(again).crash_after(effects)
    with suppress(SimulatedCrash):
        again.erase("t", keys("ann"))
        pytest.fail("it came through")
    again = log_at(clock, memory(log).disk, "c")
    topic = again.topic("t")
    assert len(EraseJournal(again.storage, topic.directory).read()) == 2
    put(again, "t", ["ann", "bob"], 14)
    topic.cleaning.clean_if_due(0, topic.config.generation)  # it may join segments
    assert again.erase("t", None).keys == 2
    left = [each for each in stored(topic) if each[1] != "cyd"]
    assert left == [(12, "bob"), (14, "ann"), (15, "bob")]


def test_readers_go_on_beside_it() -> None:
    log = log_at(ManualClock())
    topic = log.create_topic("t", ROWS, key=["who"], config=SMALL)
    for start in range(0, 100, 4):
        put(log, "t", ["ann", "bob", "cyd", "dan"], start)
    readers = [topic.reader(0, offset=each, columns=["_offset", "who"]) for each in range(0, 90, 7)]
    found = [
        [] if (rows := each.read(rows_max=3)) is None else rows.to_pylist() for each in readers
    ]
    log_at(ManualClock(), memory(log).disk, "b").erase("t", keys("bob", "dan"))
    for number, reader in enumerate(readers):
        while (more := reader.read()) is not None:
            found[number].extend(more.to_pylist())
        offsets = [row["_offset"] for row in found[number]]
        assert offsets == sorted(set(offsets))
        assert {each for each in range(7 * number, 100) if each % 2 == 0} <= set(offsets)


def test_a_crash_at_any_step_is_made_good_by_the_next() -> None:
    for effects in range(0, 400, 3):
        clock = ManualClock()
        disk = MemoryDisk(random.Random(effects))
        log = log_at(clock, disk)
        log.create_topic("t", ROWS, key=["who"], config=SMALL)
        for start in range(0, 60, 6):
            put(log, "t", ["ann", "bob", "cyd"] * 2, start)
        before = stored(log.topic("t"))
        memory(log).crash_after(effects)
        done = False
        with suppress(SimulatedCrash):
            done = log.erase("t", keys("bob")).rows == 20
        if effects % 2:
            disk.power_cut()
        again = log_at(clock, disk, "b")
        topic = again.topic("t")
        left = [row for row in before if row[1] != "bob"]
        assert set(left) <= set(stored(topic)) <= set(before)
        was_begun = again.storage.exists(f"{topic.directory}/erasing.json")
        put(again, "t", ["dan"], 60)
        if was_begun:
            if effects % 3:
                again.clean()
            else:
                again.erase("t", None)
        if was_begun or done:
            assert stored(topic) == [*left, (60, "dan")]
            assert b"secret of bob" not in bytes_of(again, topic)
        else:  # nothing was begun, or all of it was done
            assert stored(topic) in ([*before, (60, "dan")], [*left, (60, "dan")])
        if done:
            assert effects > 40
            return
    pytest.fail("it never came through")
