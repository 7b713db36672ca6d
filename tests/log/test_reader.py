"""Readers of a partition: from any offset or time, some columns only, and never a flipped bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import (
    CorruptSegmentError,
    OffsetOutOfRangeError,
    OptionError,
    UnknownColumnError,
)
from millstream.log import Log, Topic
from tests.log.log_kit import SCHEMA, ids_of, memory_log, put, read, rows
from tests.log.processes import WriterProcess

TIMED = pa.schema([("at", pa.timestamp("ms", tz="UTC")), ("id", pa.int64())])


@pytest.fixture
def log() -> Log:
    return memory_log()


@pytest.fixture
def topic(log: Log) -> Topic:
    """Ten rows in frames of 4, 1, 3 and 2, in several segments."""
    topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 1_000})
    for ids in ([0, 1, 2, 3], [4], [5, 6, 7], [8, 9]):
        put(log, "x", ids)
    return topic


class TestReading:
    def test_small_frames_come_as_one_batch(self, topic: Topic) -> None:
        batch = topic.reader(0).read()
        assert batch is not None
        assert batch.equals(rows(*range(10)))

    def test_large_frames_and_cut_ones_are_not_copied_together(
        self, topic: Topic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = {None: [10], 3: [5, 5], 2: [5, 3, 2]}
        for rows_alone, expected in sizes.items():
            monkeypatch.setattr("millstream.log.reader.ROWS_ALONE", rows_alone or 100)
            reader = topic.reader(0)
            assert [len(ids_of(reader.read())) for _ in expected] == expected
        monkeypatch.undo()
        whole = topic.reader(0).read(rows_max=4)
        assert whole is not None
        row_bytes = whole.get_total_buffer_size() // 4
        for room in range(5, 9):
            found = ids_of(topic.reader(0).read(bytes_max=room * row_bytes))
            assert found[-1] in {3, 4, 7, 9}, "a frame was cut to fill the batch"

    def test_one_frame_is_a_view_of_the_file(self, topic: Topic) -> None:
        reader = topic.reader(0)
        batches = [reader.read(rows_max=2) for _ in range(2)]
        assert [ids_of(each) for each in batches] == [[0, 1], [2, 3]]
        first, second = (each.column(0).buffers()[1] for each in batches if each is not None)
        assert first.address == second.address

    @pytest.mark.parametrize("offset", range(11))
    def test_from_any_offset(self, topic: Topic, offset: int) -> None:
        assert read(topic, offset=offset) == list(range(offset, 10))
        reader = topic.reader(0)
        reader.read(rows_max=3)
        reader.seek(offset)
        assert reader.position == offset
        assert ids_of(reader.read()) == list(range(offset, 10))
        assert reader.position == 10

    @pytest.mark.parametrize("offset", [-1, 11, 2**40])
    def test_beyond_the_rows(self, topic: Topic, offset: int) -> None:
        for ask in (lambda: topic.reader(0, offset=offset), lambda: topic.reader(0).seek(offset)):
            with pytest.raises(OffsetOutOfRangeError, match=r"x/0 has the offsets from 0 to 10"):
                ask()

    def test_until_is_not_read(self, topic: Topic) -> None:
        reader = topic.reader(0, offset=1)
        assert ids_of(reader.read(until=3)) == [1, 2]
        assert reader.read(until=3) is None
        assert reader.read(until=1) is None
        assert not reader.at_end()
        assert ids_of(reader.read(until=6)) == [3, 4, 5]
        assert reader.position == 6
        assert ids_of(reader.read()) == [6, 7, 8, 9]

    def test_at_end(self, log: Log, topic: Topic) -> None:
        reader = topic.reader(0)
        assert not reader.at_end()
        assert ids_of(reader.read()) == list(range(10))
        assert reader.at_end()
        put(log, "x", [10])
        assert not reader.at_end()
        assert ids_of(reader.read()) == [10]
        assert (reader.at_end(), reader.position) == (True, 11)

    @settings(max_examples=100)
    @given(
        frames=st.lists(st.integers(1, 6), min_size=1, max_size=8),
        calls=st.lists(
            st.tuples(st.integers(1, 9), st.integers(1, 200), st.none() | st.integers(0, 40)),
            max_size=12,
        ),
        start=st.integers(0, 10),
    )
    def test_rows_come_once_and_in_order_however_they_are_asked_for(
        self,
        frames: list[int],
        calls: list[tuple[int, int, int | None]],
        start: int,
    ) -> None:
        log = memory_log()
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 1_500})
        count = 0
        for size in frames:
            put(log, "x", range(count, count + size))
            count += size
        start = min(start, count)
        reader = topic.reader(0, offset=start)
        found: list[int] = []
        for rows_max, bytes_max, until in calls:
            batch = reader.read(rows_max, bytes_max, until)
            got = ids_of(batch)
            assert len(got) <= rows_max
            assert all(each < (until if until is not None else count) for each in got)
            if batch is None:
                assert reader.position >= min(until if until is not None else count, count)
            found += got
            assert reader.position == start + len(found)
        while (batch := reader.read()) is not None:
            found += ids_of(batch)
        assert found == list(range(start, count))

    def test_bytes_max_cuts_large_frames(self, log: Log) -> None:
        topic = log.create_topic("x", pa.schema([("blob", pa.binary())]))
        with log.producer("x") as producer:
            producer.append(pa.table({"blob": [bytes(1_000)] * 100}))
        reader = topic.reader(0)
        sizes = []
        while (batch := reader.read(bytes_max=10_000)) is not None:
            sizes.append(batch.num_rows)
        assert sum(sizes) == 100
        assert max(sizes) <= 10

    def test_isolations_are_known(self, topic: Topic) -> None:
        with pytest.raises(OptionError, match="got 'serializable'"):
            topic.reader(0, isolation="serializable")  # type: ignore[arg-type]

    def test_partitions_are_known(self, topic: Topic) -> None:
        with pytest.raises(OptionError, match="partitions 0 to 0; got 1"):
            topic.reader(1)


class TestTimes:
    @pytest.fixture
    def timed(self, log: Log) -> Topic:
        topic = log.create_topic("t", TIMED, time="at", config={"segment.bytes": 1_000})
        for times in ([5, 1, None], [2, 9], [3, None], [12, 11]):
            at = pa.array(times, TIMED[0].type)
            with log.producer("t") as producer:
                producer.append(pa.table({"at": at, "id": range(len(times))}))
        return topic

    def test_the_first_row_that_reaches_a_time(self, timed: Topic) -> None:
        reader = timed.reader(0)
        found = []
        for time_ms in range(14):
            reader.seek_time(time_ms * 1_000)
            found.append(reader.position)
        assert found == [0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 7, 7, 7, 9]
        assert timed.offset_at_time(0, 5_001) == 4
        reader.seek_time(12_001)
        assert reader.read() is None

    def test_without_a_time_column_it_is_that_of_the_append(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA)
        for each in range(4):
            put(log, "x", [each])
            log.clock.sleep_us(1_000)
        found = [topic.offset_at_time(0, 1_000_000 + each) for each in (0, 1, 1_000, 3_000, 3_001)]
        assert found == [0, 1, 1, 3, 4]


class TestColumns:
    def test_they_come_as_asked_for(self, topic: Topic) -> None:
        reader = topic.reader(0, columns=["text", "id"])
        assert reader.schema.names == ["text", "id"]
        batch = reader.read()
        assert batch is not None
        assert batch.schema == reader.schema
        assert ids_of(topic.reader(0, columns=["id"]).read()) == list(range(10))

    def test_unknown_ones_are_refused(self, topic: Topic) -> None:
        with pytest.raises(UnknownColumnError, match="'x' has no column 'idd'; did you mean 'id'"):
            topic.reader(0, columns=["idd"])
        with pytest.raises(UnknownColumnError, match="'_row'"):
            topic.reader(0, columns=["_row"])


class TestFlippedBits:
    """Damage in a column that is not read does not matter; else it is an error, always."""

    COLUMNS = ("id", "text")

    @pytest.fixture
    def damage(self, tmp_path: Path) -> Callable[[str, int], Topic]:
        """Flip a bit of a column's value in the frame that holds rows 3 to 5 of 9."""

        def damage(column: str, bit: int) -> Topic:
            log = Log(tmp_path)
            topic = log.create_topic("flights", SCHEMA, partitions=2)
            for ids in ([100, 101, 102], [203, 204, 205], [306, 307, 308]):
                put(log, "flights", ids, partition=1)
            path = Path(topic.partition(1).directory) / "00000000000000000000.arrows"
            content = bytearray(path.read_bytes())
            wanted = (205).to_bytes(8, "little") if column == "id" else b"row 203"
            content[content.index(wanted) + 1] ^= 1 << bit
            path.write_bytes(content)
            return Log(tmp_path).topic("flights")

        return damage

    @pytest.mark.parametrize("bit", [0, 7])
    @pytest.mark.parametrize("column", COLUMNS)
    def test_only_columns_that_are_read_matter(
        self, damage: Callable[[str, int], Topic], column: str, bit: int
    ) -> None:
        topic = damage(column, bit)
        other = "text" if column == "id" else "id"
        whole = topic.reader(1, columns=[other])
        batch = whole.read()
        assert batch is not None
        assert batch.num_rows == 9
        for columns in ([column], [other, column], None):
            reader = topic.reader(1, columns=columns)
            first = reader.read(rows_max=3)
            assert first is not None
            assert first.num_rows == 3
            for _ in range(2):  # it stays damaged
                with pytest.raises(CorruptSegmentError) as caught:
                    reader.read()
                for part in ("flights/1", "from offset 3", ".arrows", f"column {column!r}"):
                    assert part in str(caught.value)
            reader.seek(6)  # what lies behind can be read
            after = reader.read()
            assert after is not None
            assert after.num_rows == 3

    def test_what_lies_before_comes_first(self, damage: Callable[[str, int], Topic]) -> None:
        reader = damage("id", 1).reader(1)
        assert ids_of(reader.read()) == [100, 101, 102]
        assert reader.position == 3
        for _ in range(2):
            with pytest.raises(CorruptSegmentError):
                reader.read()
            with pytest.raises(CorruptSegmentError):
                reader.at_end()
            assert reader.position == 3

    def test_unverified_it_is_served_on_request_only(
        self, damage: Callable[[str, int], Topic]
    ) -> None:
        topic = damage("id", 3)
        batch = topic.reader(1, verify=False).read()
        assert ids_of(batch)[5] == 205 ^ (1 << 11)

    def test_damage_before_the_start_does_not_matter(
        self, damage: Callable[[str, int], Topic]
    ) -> None:
        topic = damage("text", 0)
        assert read(topic, 1, offset=6) == [306, 307, 308]
        assert ids_of(topic.to_arrow(columns=["id"]))[3:6] == [203, 204, 205]
        with pytest.raises(CorruptSegmentError):
            topic.to_arrow()


class TestTailing:
    def test_a_reader_goes_on_as_the_partition_grows(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 1_200})
        reader = topic.reader(0)
        for each in range(40):
            assert reader.read() is None
            put(log, "x", [each])
            assert ids_of(reader.read()) == [each]
        assert len(topic.partition(0).segments()) > 5

    def test_while_another_process_appends(self, tmp_path: Path) -> None:
        log = Log(tmp_path)
        topic = log.create_topic("a", SCHEMA, config={"segment.bytes": 10_000})
        reader = topic.reader(0)
        found: list[int] = []
        with WriterProcess(tmp_path, "append:0", 200) as process:
            process.go()
            while len(found) < 200:
                alive = process.running()
                durable = topic.durable_ends()[0]
                batch = reader.read(rows_max=7)
                found += ids_of(batch)
                assert found == list(range(len(found)))
                assert alive or batch is not None or len(found) == 200
                assert reader.position <= max(durable, topic.durable_ends()[0])
        assert reader.read() is None
