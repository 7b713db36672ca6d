"""Compaction keeps of each key the latest row, where it stood, beside readers and writers."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millstream.clock import ManualClock
from millstream.errors import LockTimeoutError
from millstream.log import Log, Topic
from millstream.log.columns import HEADERS_FIELD, OPERATION_FIELD
from millstream.log.compaction import CleaningStoppedError
from millstream.log.reader import PartitionReader
from millstream.storage_local.background import wait_for_background
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import PATH, memory
from tests.log.processes import WriterProcess

ROWS = pa.schema([("key", pa.int64()), ("id", pa.int64()), ("text", pa.string())])
DAY_US = 24 * 3_600_000_000
SMALL: dict[str, object] = {"segment.bytes": 2_000}


def log_at(clock: ManualClock, disk: MemoryDisk | None = None, process: str = "a") -> Log:
    disk = disk or MemoryDisk(random.Random(0))
    return Log(PATH, storage=disk.storage(process), clock=clock)


def table_log(**config: object) -> tuple[Log, Topic, ManualClock]:
    clock = ManualClock()
    log = log_at(clock)
    given = {**SMALL, **{name.replace("_", "."): value for name, value in config.items()}}
    topic = log.create_topic("t", ROWS, key=["key"], table=True, config=given)
    return log, topic, clock


def batch(keys: list[int], first_id: int) -> pa.RecordBatch:
    ids = list(range(first_id, first_id + len(keys)))
    return pa.record_batch([keys, ids, [f"text {each}" for each in ids]], schema=ROWS)


def put(log: Log, keys: list[int], first_id: int) -> None:
    with log.producer("t") as producer:
        producer.append(batch(keys, first_id))


def delete(log: Log, keys: list[int]) -> None:
    with log.producer("t") as producer:
        producer.delete(pa.table({"key": keys}))


def stored(topic: Topic, offset: int | None = None) -> list[tuple[int, int, int | None]]:
    """(offset, key, id or None for a tombstone) of all rows that there are."""
    columns = ["_offset", "key", "id", "_op"]
    reader = topic.reader(0, offset=offset, columns=columns)
    found: list[tuple[int, int, int | None]] = []
    while (rows := reader.read_table(rows_max=7)) is not None:
        found += facts(rows)
    return found


def facts(rows: pa.RecordBatch | None) -> list[tuple[int, int, int | None]]:
    return [
        (row["_offset"], row["key"], None if row["_op"] else row["id"])
        for row in ([] if rows is None else rows.to_pylist())
    ]


def kept_of(rows: list[tuple[int, int, int | None]], end: int) -> list[Any]:
    """What a compaction of the rows before `end` leaves of all rows."""
    last = {key: offset for offset, key, _ in rows if offset < end}
    return [row for row in rows if row[0] >= end or last[row[1]] == row[0]]


def test_the_latest_row_of_each_key_stays_where_it_was() -> None:
    log, topic, _ = table_log()
    chance = random.Random(1)
    for start in range(0, 300, 5):
        put(log, [chance.randrange(20) for _ in range(5)], start)
        if chance.random() < 0.3:
            delete(log, [chance.randrange(20)])
    before, latest = stored(topic), topic.latest()
    files = topic.partition(0).segments()
    (done,) = log.clean()
    sealed_end = files[-1][0]
    assert stored(topic) == kept_of(before, sealed_end)
    assert topic.latest() == latest
    assert done.compacted.rows_dropped == len(before) - len(stored(topic)) > 100
    assert done.compacted.segments_before == len(files) - 1
    assert len(topic.partition(0).segments()) < len(files) // 3
    # There is nothing left to do.
    assert log.clean()[0].compacted.segments_before == 0
    # And on from there.
    end = before[-1][0] + 1
    put(log, [3, 3, 3], 1_000)
    assert stored(topic)[-3:] == [(end + each, 3, 1_000 + each) for each in range(3)]
    # Whoever starts in a gap gets what comes after it.
    whole = stored(topic)
    for offset in range(end + 4):
        assert stored(topic, offset) == [row for row in whole if row[0] >= offset]


def test_what_is_asked_for_up_to_an_offset_ends_there_in_a_gap_too() -> None:
    log, topic, _ = table_log()
    for start in range(0, 300, 5):
        put(log, [start % 3] * 5, start)
    log.clean()
    whole = stored(topic)
    for until in range(0, 300, 7):
        reader = topic.reader(0, columns=["_offset"])
        found: list[int] = []
        while (rows := reader.read_table(rows_max=2, until=until)) is not None:
            found += rows.column(0).to_pylist()
            assert reader.position <= until
        assert found == [row[0] for row in whole if row[0] < until]
        assert reader.position == until
        rest = reader.read_table()
        assert rest is not None
        assert rest.column(0).to_pylist() == [row[0] for row in whole if row[0] >= until]


def test_a_tombstone_stays_as_long_as_a_slow_reader_may_need() -> None:
    log, topic, clock = table_log(delete_retention_ms=DAY_US // 1000)
    put(log, [1, 2], 0)
    delete(log, [1])
    log.alter_topic("t", config={"segment.ms": 1})
    clock.sleep_us(3 * DAY_US)
    log.clean()  # it was never compacted before: the day begins now
    assert stored(topic) == [(1, 2, 1), (2, 1, None)]
    clock.sleep_us(DAY_US // 2)
    put(log, [3], 2)
    delete(log, [2])
    clock.sleep_us(1_001)
    log.clean()
    assert stored(topic) == [(2, 1, None), (3, 3, 2), (4, 2, None)]
    clock.sleep_us(DAY_US // 2)
    log.clean()
    assert stored(topic) == [(3, 3, 2), (4, 2, None)]
    clock.sleep_us(DAY_US // 2 + 1)
    log.clean()
    assert stored(topic) == [(3, 3, 2)]
    assert topic.latest().to_pylist() == [{"key": 3, "id": 2, "text": "text 2"}]
    assert topic.stable_ends() == [5]
    reader = topic.reader(0, offset=4)
    assert (reader.read(), reader.position) == (None, 5)


def test_a_partition_whose_last_file_is_a_compacted_one_goes_on_behind_it() -> None:
    log, _, clock = table_log(segment_ms=1)
    put(log, [1, 1, 1], 0)
    clock.sleep_us(DAY_US)
    log.clean()
    disk = memory(log).disk
    for process in "bc":
        disk.power_cut()
        again = log_at(clock, disk, process)
        assert stored(again.topic("t")) == [(2, 1, 2)]
        assert again.topic("t").partition(0).written_end == 3
    put(again, [1], 3)
    assert stored(again.topic("t")) == [(2, 1, 2), (3, 1, 3)]


def test_rows_without_a_time_of_their_own_keep_that_of_their_append() -> None:
    clock = ManualClock(0)
    log = log_at(clock)
    config = {**SMALL, "cleanup.policy": "compact"}
    topic = log.create_topic("t", ROWS, key=["key"], config=config)
    for start in range(0, 200, 5):
        clock.sleep_us(1_000)
        put(log, [start % 7, 1, 2, 3, 4 + start % 11], start)
    times = topic.to_arrow(["id", "_timestamp"]).to_pylist()
    expected = {row["id"]: row["_timestamp"] for row in times}
    places = [topic.offset_at_time(0, 1_000 * each) for each in range(45)]
    log.clean()
    found = topic.to_arrow(["id", "_timestamp"]).to_pylist()
    assert len(found) < 100
    assert all(row["_timestamp"] == expected[row["id"]] for row in found)
    whole = [offset for offset, *_ in stored(topic)]
    for each, place in enumerate(places):
        # The first row from there on that is left, or an offset before it where there is none.
        left = [offset for offset in whole if offset >= place]
        reached = topic.offset_at_time(0, 1_000 * each)
        assert [offset for offset in whole if offset >= reached] == left


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_columns_of_every_kind_survive(compression: str) -> None:
    word = pa.dictionary(pa.int8(), pa.string())
    schema = pa.schema(
        [("key", word), ("words", pa.list_(pa.string())), ("word", word), ("nothing", pa.null())]
    )
    log = log_at(ManualClock())
    config = {**SMALL, "compression.type": compression}
    topic = log.create_topic("t", schema, key=["key"], table=True, config=config)
    for each in range(60):
        columns = [
            pa.array([f"{each % 7}", None]).cast(word),
            pa.array([["a", None, "b"][: each % 4], None], schema.field("words").type),
            pa.array([f"word {each}", f"{each % 2}"]).cast(word),
            pa.nulls(2),
            pa.array([0, 0], pa.int8()),
            pa.array([[{"key": "n", "value": b"%d" % each}]] * 2, HEADERS_FIELD.type),
        ]
        stored_schema = pa.schema([*schema, OPERATION_FIELD, HEADERS_FIELD])
        topic.partition(0).append(pa.record_batch(columns, schema=stored_schema))
    topic.partition(0).sync()
    names = [*schema.names, "_headers"]
    before = topic.to_arrow(names).to_pylist()
    log.clean()
    after = topic.to_arrow(names).to_pylist()
    assert 8 <= len(after) < 30
    assert [row for row in before if row in after] == after
    assert after[-1]["_headers"] == [{"key": "n", "value": b"59"}]


class TestTransactions:
    def test_decided_rows_become_plain_and_open_ones_stop_it(self) -> None:
        log, topic, _ = table_log()
        put(log, [1, 2], 0)
        with log.transaction("one") as transaction:
            transaction.append("t", batch([1, 3], 2))
        with log.transaction("two") as transaction:
            transaction.append("t", batch([2, 4], 4))
            transaction.abort()
        with log.transaction("three") as transaction:
            for start in range(6, 60, 6):
                put(log, [5] * 6, start)
            transaction.append("t", batch([5], 60))
            for start in range(61, 120, 6):
                put(log, [5] * 6, start)
            latest = topic.latest()
            log.clean()
            assert topic.latest() == latest
            frames = topic.partition(0).frames(0)
            heads = []
            while (frame := frames.next()) is not None:
                heads.append((frame.header.is_compacted, frame.header.transaction))
            assert heads[0] == (True, 0)
            assert (False, 1) in heads
            assert [row[:2] for row in stored(topic)][:3] == [(1, 2), (2, 1), (3, 3)]
        assert topic.latest().num_rows == 4
        log.clean()
        assert topic.latest().num_rows == 4
        assert 60 not in [row[2] for row in stored(topic)]


class TestReaders:
    @pytest.mark.parametrize("seed", range(20))
    def test_each_sees_rows_in_order_and_the_last_state(self, seed: int) -> None:
        """Readers that stand anywhere go on over segments that are replaced under them."""
        chance = random.Random(seed)
        log, topic, clock = table_log(delete_retention_ms=10**9)
        other = log_at(clock, memory(log).disk, "b")
        readers: list[tuple[int, PartitionReader, list[tuple[int, int, int | None]]]] = []
        history: list[tuple[int, int, int | None]] = []
        next_id = 0
        for _ in range(60):
            kind = chance.random()
            if kind < 0.5:
                keys = [chance.randrange(6) for _ in range(chance.randrange(1, 9))]
                put(log, keys, next_id)
                next_id += len(keys)
            elif kind < 0.6:
                delete(log, [chance.randrange(6)])
            elif kind < 0.7:
                first = chance.randrange(topic.partition(0).durable_end + 1)
                reader = topic.reader(0, offset=first, columns=["_offset", "key", "id", "_op"])
                readers.append((first, reader, []))
            elif kind < 0.8:
                other.clean()
            history += stored(topic, history[-1][0] + 1 if history else 0)
            for _, reader, got in readers:
                if chance.random() < 0.5:
                    got.extend(facts(reader.read_table(rows_max=chance.randrange(1, 5))))
        for first, reader, got in readers:
            while (rows := reader.read_table()) is not None:
                got.extend(facts(rows))
            offsets = [row[0] for row in got]
            assert offsets == sorted(set(offsets))
            assert set(got) <= {row for row in history if row[0] >= first}
            assert {row for row in stored(topic) if row[0] >= first} <= set(got)
        last = {key: id_ for _, key, id_ in history}
        assert topic.latest().num_rows == sum(id_ is not None for id_ in last.values())


def test_a_crash_at_any_step_loses_no_latest_row() -> None:
    came_through = 0
    for effects in range(400):
        clock = ManualClock()
        disk = MemoryDisk(random.Random(effects))
        log = log_at(clock, disk)
        log.create_topic("t", ROWS, key=["key"], table=True, config=SMALL)
        for start in range(0, 120, 6):
            put(log, [start % 4, 7, 8, start % 5, 9, start], start)
        delete(log, [8])
        rows, latest = stored(log.topic("t")), log.topic("t").latest()
        memory(log).crash_after(effects)
        with suppress(SimulatedCrash):
            log.clean()
            came_through += 1
        if effects % 2:
            disk.power_cut()
        again = log_at(clock, disk, "b")
        topic = again.topic("t")
        found = stored(topic)
        assert set(found) <= set(rows)
        assert [row[0] for row in found] == sorted({row[0] for row in found})
        assert topic.latest().sort_by("key") == latest.sort_by("key")
        put(again, [1], 1_000)
        again.clean()
        whole = stored(topic)
        assert whole[-1] == (121, 1, 1_000)
        assert topic.latest().num_rows == latest.num_rows
        names = again.storage.list_directory(topic.partition(0).directory)
        bases = [f"{base:020d}" for base, _ in topic.partition(0).segments()]
        assert sorted(name[:20] for name in names if name.endswith(".arrows")) == bases
        assert not [name for name in names if name.endswith(".arrows.tmp")]
        if came_through == 2:
            assert effects > 30
            return
    pytest.fail("it never came through")


class TestByItself:
    def test_who_seals_a_segment_has_it_cleaned_when_that_is_worthwhile(self) -> None:
        log, topic, _ = table_log(min_cleanable_dirty_ratio=0.6)
        rewritten = []
        for start in range(0, 600, 6):
            put(log, [start // 6 % 50, 1, 2, 3, 4, 5], start)
            before = len(topic.partition(0).segments())
            memory(log).run_waiting()
            rewritten.append(len(topic.partition(0).segments()) < before)
        assert 2 < sum(rewritten) < 20
        assert topic.latest().num_rows == 50
        assert len(stored(topic)) < 150

    def test_nothing_is_done_where_there_is_nothing_to_do(self) -> None:
        clock = ManualClock()
        log = log_at(clock)
        topic = log.create_topic("t", ROWS, config={**SMALL, "retention.bytes": 3_000})
        for start in range(0, 120, 6):
            put(log, [0] * 6, start)
            memory(log).run_waiting()
        assert len(topic.partition(0).segments()) in {2, 3}
        log.alter_topic("t", config={"retention.bytes": None})
        for start in range(120, 240, 6):
            put(log, [0] * 6, start)
        memory(log).run_waiting()
        assert len(topic.partition(0).segments()) > 5

    def test_another_cleaner_is_left_alone(self) -> None:
        log, topic, clock = table_log(min_cleanable_dirty_ratio=0)
        other = log_at(clock, memory(log).disk, "b")
        for start in range(0, 120, 6):
            put(log, [0] * 6, start)
        count = len(topic.partition(0).segments())
        with other.topic("t").partition(0).sealed.exclusive(0):
            memory(log).run_waiting()
            with pytest.raises(LockTimeoutError, match="b holds it"):
                topic.clean(timeout_us=0)
        assert len(topic.partition(0).segments()) == count

    def test_it_stops_when_it_is_told_to(self) -> None:
        log, topic, _ = table_log()
        for start in range(0, 120, 6):
            put(log, [0] * 6, start)
        answers = iter([False] * 30)
        with pytest.raises(CleaningStoppedError):
            topic.cleaning.clean_if_due(0, 0, lambda: next(answers, True))
        rows = topic.latest()
        log.clean()
        assert topic.latest() == rows

    def test_in_a_process_it_is_done_on_a_thread(self, tmp_path: Path) -> None:
        log = Log(tmp_path)
        topic = log.create_topic("t", ROWS, key=["key"], table=True, config=SMALL)
        for start in range(0, 300, 6):
            put(log, [1, 2, 3, 4, 5, 6], start)
        wait_for_background()
        assert len(topic.partition(0).segments()) < 20
        assert topic.latest().num_rows == 6


def test_a_process_that_is_killed_in_a_cleaning_loses_nothing(tmp_path: Path) -> None:
    """One process writes and cleans; others that clean die at some moment by kill -9."""
    log = Log(tmp_path)
    config = {"segment.bytes": 10_000, "min.cleanable.dirty.ratio": 0}
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    topic = log.create_topic("a", schema, key=["id"], table=True, config=config)
    with WriterProcess(tmp_path, "append:0", 500) as writer:
        writer.go()
        for turn in range(3):
            with WriterProcess(tmp_path, "clean", 10**6) as cleaner:
                cleaner.go()
                cleaner.wait_for("cleaned")
                writer.wait_for(f"acked {150 * (turn + 1)}")
        acked = writer.acked()
    ids = topic.to_arrow(["id"]).column("id").to_pylist()
    assert ids == list(range(500))
    assert acked[-1] == 499
    log.clean()
    assert topic.to_arrow(["id"]).column("id").to_pylist() == ids
