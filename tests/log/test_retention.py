"""Old segments go: by age, by size, the oldest first, and whoever reads is told so."""

from __future__ import annotations

import random
from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.clock import ManualClock
from millstream.errors import OffsetOutOfRangeError
from millstream.log import Log, Topic
from millstream.log.retention import SegmentAge, count_expired
from millstream.log.row_time import TIME_MIN
from millstream.log.settings import TopicSettings
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import PATH, SCHEMA, ids_of, memory, put, read

HOUR_MS = 3_600_000
HOUR_US = HOUR_MS * 1000
TIMED = pa.schema([("id", pa.int64()), ("at", pa.timestamp("s"))])


def log_at(clock: ManualClock, disk: MemoryDisk | None = None, process: str = "a") -> Log:
    disk = disk or MemoryDisk(random.Random(0))
    return Log(PATH, storage=disk.storage(process), clock=clock)


def fill(log: Log, topic: str, count: int, clock: ManualClock) -> None:
    """`count` appends of ten rows, an hour apart; about three of them make a segment of 2000."""
    first = log.topic(topic).partition(0).written_end
    for start in range(first, first + 10 * count, 10):
        put(log, topic, range(start, start + 10))
        clock.sleep_us(HOUR_US)


def bases(topic: Topic) -> list[int]:
    return [base for base, _ in topic.partition(0).segments()]


class TestWhichGo:
    settings = st.builds(
        TopicSettings,
        retention_ms=st.integers(-1, 12),
        retention_bytes=st.integers(-1, 60),
        cleanup_policy=st.sampled_from(["delete", "compact", "compact,delete"]),
    )
    segments = st.lists(
        st.tuples(st.integers(0, 15), st.integers(TIME_MIN, TIME_MIN) | st.integers(0, 20_000)),
        max_size=6,
    )

    @given(settings, segments, st.integers(0, 7))
    def test_the_rules_one_by_one(
        self, settings: TopicSettings, segments: list[tuple[int, int]], stable: int
    ) -> None:
        ages = [
            SegmentAge(index + 1, size, time, (index + 1) * 2_000)
            for index, (size, time) in enumerate(segments)
        ]
        total = sum(size for size, _ in segments) + 7
        count = count_expired(ages, settings, size_bytes=total, stable_end=stable, now_us=14_000)
        expected = 0
        for index, (size, time) in enumerate(segments):
            sealed = (index + 1) * 2_000
            newest = time if TIME_MIN < time <= sealed else sealed
            old = settings.retention_ms >= 0 and 14_000 - newest > settings.retention_ms * 1000
            total -= size
            much = settings.retention_bytes >= 0 and total >= settings.retention_bytes
            if "delete" not in settings.cleanup_policy or index + 1 > stable:
                break
            if not (old or much):
                break
            expected += 1
        assert count == expected


class TestByTime:
    def test_what_is_older_goes_and_the_first_offset_moves(self) -> None:
        clock = ManualClock()
        log = log_at(clock)
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 2_000})
        fill(log, "x", 12, clock)
        assert [each.segments_removed for each in log.clean()] == [0]
        log.alter_topic("x", config={"retention.ms": 5 * HOUR_MS})
        before = bases(topic)
        (done,) = log.clean("x")
        left = bases(topic)
        assert done.segments_removed == len(before) - len(left) > 0
        assert left == before[-len(left) :]
        first = topic.partition(0).first_offset
        # The newest row of a segment decides: all that is left of the first one is too old but it.
        assert first == left[0] <= 70 < left[1]
        assert read(topic) == ids_of(topic.to_arrow()) == list(range(first, 120))
        names = log.storage.list_directory(topic.partition(0).directory)
        assert not [name for name in names if name[:20].isdigit() and int(name[:20]) < first]

    def test_rows_have_their_own_time(self) -> None:
        clock = ManualClock()
        log = log_at(clock)
        log.create_topic(
            "x", TIMED, time="at", config={"segment.bytes": 1, "retention.ms": HOUR_MS}
        )
        now_s = clock.now_us() // 10**6
        for seconds in (now_s - 7_200, 5, now_s - 60, now_s - 7_200, None, 2**40):
            times = pa.array([seconds], pa.timestamp("s"))
            with log.producer("x") as producer:
                producer.append(pa.table({"id": [0], "at": times}))
        log.clean()
        # The third is young; those before are not, those behind it wait for it.
        assert log.topic("x").partition(0).first_offset == 2
        # A row without a time, and one from the far future, count as written when they were.
        clock.sleep_us(2 * HOUR_US)
        log.clean()
        assert log.topic("x").partition(0).first_offset == 5
        with log.producer("x") as producer:
            producer.append(pa.table({"id": [6], "at": pa.array([now_s], pa.timestamp("s"))}))
        clock.sleep_us(2 * HOUR_US)
        log.clean()
        assert log.topic("x").partition(0).first_offset == 6

    def test_an_idle_topic_is_sealed_when_it_is_cleaned(self) -> None:
        clock = ManualClock()
        log = log_at(clock)
        topic = log.create_topic("x", SCHEMA, config={"segment.ms": HOUR_MS})
        put(log, "x", [0])
        log.clean()
        put(log, "x", [1])
        assert bases(topic) == [0]
        clock.sleep_us(HOUR_US + 1)
        log.clean()
        put(log, "x", [2])
        assert bases(topic) == [0, 2]

    def test_a_segment_of_some_age_is_full(self) -> None:
        clock = ManualClock()
        log, other = log_at(clock), log_at(clock, process="b")
        topic = log.create_topic("x", SCHEMA, config={"segment.ms": 2 * HOUR_MS})
        fill(log, "x", 8, clock)
        assert bases(topic) == [0, 30, 60]
        assert other.topic_names() == []


class TestBySize:
    def test_as_much_as_asked_for_is_kept(self) -> None:
        clock = ManualClock()
        log = log_at(clock)
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 2_000})
        fill(log, "x", 12, clock)
        sizes = [size for _, size in topic.partition(0).segments()]
        log.alter_topic("x", config={"retention.bytes": sum(sizes[-3:]) - 1})
        log.clean()
        assert len(bases(topic)) == 3
        log.alter_topic("x", config={"retention.bytes": 0})
        log.clean()
        assert len(bases(topic)) == 1

    def test_the_last_file_stays_for_it_knows_the_next_offset(self) -> None:
        clock = ManualClock()
        log = log_at(clock)
        config = {"retention.bytes": 0, "segment.ms": 1}
        topic = log.create_topic("x", SCHEMA, config=config)
        put(log, "x", range(5))
        clock.sleep_us(HOUR_US)
        log.clean()
        log.clean()
        memory(log).disk.power_cut()
        log = log_at(clock, memory(log).disk, "b")
        assert log.topic("x").partition(0).written_end == 5
        put(log, "x", [5])
        topic = log.topic("x")
        assert read(topic) == [0, 1, 2, 3, 4, 5]
        clock.sleep_us(HOUR_US)
        log.clean()
        assert read(topic) == [5]


class TestTransactions:
    def test_nothing_beyond_an_open_one_goes(self) -> None:
        clock = ManualClock()
        log = log_at(clock)
        config = {"segment.bytes": 1, "retention.bytes": 0}
        topic = log.create_topic("x", SCHEMA, config=config)
        put(log, "x", [0])
        with log.transaction("t") as transaction:
            transaction.append("x", pa.table({"id": [1], "text": ["a"]}))
            put(log, "x", [2])
            put(log, "x", [3])
            log.clean()
            assert topic.partition(0).first_offset == 1
        log.clean()
        assert topic.partition(0).first_offset == 3


class TestReaders:
    def test_one_in_a_removed_segment_reads_what_it_has_mapped(self) -> None:
        clock = ManualClock()
        log = log_at(clock)
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 2_000})
        fill(log, "x", 12, clock)
        second = bases(topic)[1]
        reader = topic.reader(0)
        assert ids_of(reader.read(rows_max=3)) == [0, 1, 2]
        other = log_at(clock, memory(log).disk, "b")
        other.alter_topic("x", config={"retention.bytes": 0})
        other.clean()
        first = other.topic("x").partition(0).first_offset
        found: list[int] = []
        with pytest.raises(
            OffsetOutOfRangeError, match=f"offsets from {first} to 120; got {second}"
        ):
            while (batch := reader.read()) is not None:
                found += ids_of(batch)
        assert found == list(range(3, second))
        # Who knew the topic before finds its way, too.
        assert topic.partition(0).first_offset == first
        assert topic.stable_ends() == [120]
        with pytest.raises(OffsetOutOfRangeError):
            topic.reader(0, offset=first - 1)
        assert read(topic, offset=first) == ids_of(topic.to_arrow()) == list(range(first, 120))
        assert topic.offset_at_time(0, 0) == first
        assert [base for base, _ in topic.partition(0).segments()] == [first]

    def test_one_that_never_looked_at_what_went_goes_on(self) -> None:
        """The last stable offset of a topic object lay before what was removed."""
        clock = ManualClock()
        log = log_at(clock)
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 1, "retention.bytes": 0})
        put(log, "x", [0])
        assert topic.stable_ends() == [1]
        other = log_at(clock, memory(log).disk, "b")
        for each in range(1, 6):
            put(other, "x", [each])
        other.clean()
        assert topic.stable_ends() == [6]
        assert topic.partition(0).first_offset == 5


def test_a_crash_at_any_step_leaves_a_partition() -> None:
    for effects in range(200):
        clock = ManualClock()
        log = log_at(clock, MemoryDisk(random.Random(effects)))
        log.create_topic("x", SCHEMA, config={"segment.bytes": 2_000, "segment.ms": HOUR_MS * 100})
        fill(log, "x", 9, clock)
        log.alter_topic("x", config={"retention.ms": 2 * HOUR_MS})
        before = bases(log.topic("x"))
        disk = memory(log).disk
        memory(log).crash_after(effects)
        done = False
        with suppress(SimulatedCrash):
            log.clean()
            done = True
        if effects % 2:
            disk.power_cut()
        again = log_at(clock, disk, "b")
        topic = again.topic("x")
        found = read(topic)
        assert found == list(range(topic.partition(0).first_offset, 90))
        assert bases(topic) == before[-len(bases(topic)) :]
        put(again, "x", [90])
        assert read(topic)[-2:] == [89, 90]
        again.clean()
        names = again.storage.list_directory(topic.partition(0).directory)
        kept = topic.partition(0).first_offset
        assert not [name for name in names if name[:20].isdigit() and int(name[:20]) < kept]
        if done:
            assert effects > 10
            return
    pytest.fail("it never came through")


def test_what_is_sealed_while_leftovers_are_looked_for_is_none() -> None:
    """Another process appends between any two effects of a cleaning."""
    clock = ManualClock()
    log = log_at(clock)
    topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 1})
    other = log_at(clock, memory(log).disk, "b")
    put(other, "x", [0])
    ids = iter(range(1, 10**6))
    sealed = topic.partition(0).sealed
    listing = memory(log).list_directory

    def list_and_append(path: str) -> list[str]:
        found = listing(path)
        put(other, "x", [next(ids)])
        put(other, "x", [next(ids)])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log.storage, "list_directory", list_and_append)
        for _ in range(5):
            sealed.tidy()
    assert read(topic) == list(range(next(ids)))
