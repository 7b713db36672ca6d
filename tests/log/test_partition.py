from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from millstream.clock import ManualClock
from millstream.errors import (
    CorruptSegmentError,
    FencedError,
    InvalidTopicError,
    OffsetOutOfRangeError,
    OptionError,
    SchemaMismatchError,
    UnknownColumnError,
)
from millstream.log.control_file import ControlFile, LogEnd
from millstream.log.frame_header import FLAG_CONTROL
from millstream.storage_local import LocalStorage
from tests.log.partition_kit import (
    CrashingStorage,
    Plan,
    RebootedStorage,
    open_partition,
    read_all,
    read_ids,
    rows,
)

TIMED = pa.schema([("at", pa.timestamp("ms", tz="UTC")), ("id", pa.int64())])


def timed(times_ms: list[int | None]) -> pa.RecordBatch:
    columns = [pa.array(times_ms, TIMED[0].type), pa.array(range(len(times_ms)), pa.int64())]
    return pa.record_batch(columns, schema=TIMED)


class TestAppending:
    def test_offsets_follow_one_another(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        assert partition.append(rows(0, 3))[:2] == (0, 3)
        assert partition.append(rows(3, 2))[:2] == (3, 5)
        assert (partition.first_offset, partition.written_end) == (0, 5)

    def test_rows_are_seen_when_they_are_durable(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        cursor = partition.frames(0)
        partition.append(rows(0, 3))
        assert (partition.durable_end, cursor.next()) == (0, None)
        partition.sync()
        assert partition.durable_end == 3
        assert cursor.next() is not None
        assert cursor.next() is None

    def test_durability_os_shows_what_is_written_and_never_syncs(self, tmp_path: Path) -> None:
        plan = Plan()
        partition = open_partition(
            tmp_path / "0", durability="os", storage=CrashingStorage(plan), segment_bytes=10**9
        )
        partition.append(rows(0, 1))
        plan.errors["sync"] = OSError("not to be called")
        partition.append(rows(1, 3))
        partition.sync()
        assert partition.durable_end == 4
        assert read_ids(partition) == [0, 1, 2, 3]

    def test_an_empty_batch_is_no_frame(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        partition.append(rows(0, 2))
        size = (tmp_path / "0" / "00000000000000000000.arrows").stat().st_size
        assert partition.append(rows(2, 0))[:2] == (2, 2)
        assert (tmp_path / "0" / "00000000000000000000.arrows").stat().st_size == size

    def test_a_control_marker_uses_no_offset(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        partition.append(rows(0, 2), transaction=9)
        assert partition.append(rows(0, 0), transaction=9, flags=FLAG_CONTROL)[:2] == (2, 2)
        partition.append(rows(2, 2))
        partition.sync()
        assert read_ids(partition) == [0, 1, 2, 3]
        cursor = partition.frames(0)
        frames = [cursor.next() for _ in range(3)]
        assert [frame.is_control for frame in frames if frame] == [False, True, False]
        frame = partition.frames(2).next()
        assert frame is not None
        assert (frame.header.base_offset, frame.header.row_count) == (2, 2)

    def test_the_header_says_who_wrote(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", clock=ManualClock(77))
        partition.append(rows(0, 2), owner_id=-5, epoch=3, sequence=2**40, transaction=8, flags=4)
        partition.sync()
        frame = partition.frames(0).next()
        assert frame is not None
        header = frame.header
        assert (header.owner_id, header.epoch, header.sequence) == (-5, 3, 2**40)
        assert (header.transaction, header.flags, header.appended_us) == (8, 4, 77)
        assert header.max_timestamp_us == 77
        assert frame.location == (f"{tmp_path}/0/00000000000000000000.arrows", 256)

    def test_the_fence_is_asked_before_anything_is_written(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        partition.append(rows(0, 2))

        def refuse() -> None:
            message = "epoch 3 was superseded"
            raise FencedError(message)

        with pytest.raises(FencedError):
            partition.append(rows(2, 2), fence=refuse)
        assert partition.written_end == 2
        assert partition.append(rows(2, 1), fence=lambda: None)[:2] == (2, 3)

    @pytest.mark.parametrize(
        ("schema", "message"),
        [
            (pa.schema([("text", pa.string())]), "has a column 'id'"),
            (pa.schema([("id", pa.int32()), ("text", pa.string())]), "column 'id'.*int32"),
            (pa.schema([("text", pa.string()), ("id", pa.int64())]), "in this order"),
            (
                pa.schema([("id", pa.int64()), ("text", pa.string()), ("x", pa.int8())]),
                "no column 'x'",
            ),
        ],
    )
    def test_other_columns_are_refused_by_name(
        self, tmp_path: Path, schema: pa.Schema, message: str
    ) -> None:
        partition = open_partition(tmp_path / "0")
        with pytest.raises(SchemaMismatchError, match=message):
            partition.append(_empty(schema))

    @pytest.mark.parametrize(
        ("data_type", "remedy"),
        [
            (pa.dictionary(pa.int32(), pa.list_(pa.string())), "value type list<"),
            (pa.dictionary(pa.int32(), pa.string_view()), "string"),
            (pa.string_view(), "string"),
            (pa.binary_view(), "binary"),
            (pa.list_view(pa.int8()), "list<"),
            (pa.run_end_encoded(pa.int32(), pa.int64()), "value type int64"),
            (pa.uuid(), "storage type fixed_size_binary"),
            (pa.dense_union([pa.field("a", pa.int8())]), "without unions"),
            (pa.list_(pa.dictionary(pa.int8(), pa.uuid())), "storage type"),
            (pa.struct([("inner", pa.uuid())]), "storage type"),
            (pa.map_(pa.string(), pa.string_view()), "string"),
        ],
    )
    def test_types_that_not_every_reader_knows_are_refused(
        self, tmp_path: Path, data_type: pa.DataType, remedy: str
    ) -> None:
        with pytest.raises(InvalidTopicError, match=f"'bad'.*cast it to.*{remedy}"):
            open_partition(tmp_path / "0", pa.schema([("bad", data_type)]))

    def test_a_hidden_extension_type_is_refused(self, tmp_path: Path) -> None:
        hidden = pa.field("x", pa.binary(), metadata={"ARROW:extension:name": "evil.pickled"})
        in_map = pa.field("m", pa.map_(pa.string(), hidden))
        in_list, in_struct = pa.field("y", pa.list_(hidden)), pa.field("z", pa.struct([hidden]))
        for field in (hidden, in_list, in_struct, in_map):
            with pytest.raises(InvalidTopicError, match=r"evil\.pickled"):
                open_partition(tmp_path / "0", pa.schema([field]))

    @pytest.mark.parametrize("names", [[], ["a", "a"]])
    def test_a_topic_has_columns_of_different_names(self, tmp_path: Path, names: list[str]) -> None:
        with pytest.raises(InvalidTopicError, match="different names"):
            open_partition(tmp_path / "0", pa.schema([(name, pa.int8()) for name in names]))

    def test_threads_may_share_an_object(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", segment_bytes=5_000)
        failures: list[BaseException] = []

        def append(first: int) -> None:
            try:
                for each in range(25):
                    partition.append(rows(first + each, 1), owner_id=first)
                    if each % 5 == 0:
                        partition.sync()
                        read_all(partition, offset=partition.durable_end // 2)
            except BaseException as error:  # shown by the test
                failures.append(error)

        threads = [threading.Thread(target=append, args=(1_000 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        partition.sync()
        ids = read_ids(partition)
        assert sorted(ids) == sorted(1_000 * i + each for i in range(4) for each in range(25))
        for i in range(4):
            own = [each for each in ids if each // 1_000 == i]
            assert own == sorted(own)


class TestSyncing:
    def test_one_fsync_serves_all_who_waited(self, tmp_path: Path) -> None:
        plan = Plan()
        partition = open_partition(tmp_path / "0", storage=CrashingStorage(plan))
        first = partition.append(rows(0, 2))
        partition.append(rows(2, 2))
        partition.sync(until_offset=first.end_offset)
        assert partition.durable_end == 4
        before = plan.count
        partition.sync()
        partition.sync(until_offset=1)
        assert plan.count == before

    def test_who_waited_for_the_fsync_of_another_does_none(self, tmp_path: Path) -> None:
        other = open_partition(tmp_path / "0")

        class Contended(CrashingStorage):
            def lock(self, path: str, *more: Any, **named: Any) -> AbstractContextManager[bool]:
                if path.endswith("sync.lock"):
                    other.sync()  # while we wait for the lock
                return super().lock(path, *more, **named)

        plan = Plan()
        partition = open_partition(tmp_path / "0", storage=Contended(plan))
        other.append(rows(0, 2))
        partition.append(rows(2, 2))
        before = plan.count
        partition.sync()
        assert plan.count == before
        assert read_ids(partition) == [0, 1, 2, 3]

    def test_a_process_syncs_for_a_dead_one(self, tmp_path: Path) -> None:
        open_partition(tmp_path / "0").append(rows(0, 2))
        other = open_partition(tmp_path / "0")
        other.sync()
        assert read_ids(other) == [0, 1]

    def test_nobody_waits_for_rows_that_were_never_written(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="never appended"):
            open_partition(tmp_path / "0").sync(until_offset=1)


class TestReading:
    def test_a_cursor_tails_across_segments(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", segment_bytes=2_000)
        reader = open_partition(tmp_path / "0", segment_bytes=2_000)
        cursor = reader.frames(0)
        seen: list[int] = []
        for _ in range(30):
            partition.append(rows(partition.written_end, 3))
            partition.sync()
            while (frame := cursor.next()) is not None:
                seen += frame.batch(["id"]).column(0).to_pylist()
            assert seen == list(range(partition.durable_end))
        assert len(reader.segments()) > 5
        assert [base for base, _ in reader.segments()] == sorted(
            int(path.stem) for path in (tmp_path / "0").glob("*.arrows")
        )

    def test_an_end_that_was_overtaken_shows_nothing_more(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", segment_bytes=1_700)
        for _ in range(4):
            partition.append(rows(partition.written_end, 3))
        partition.sync()
        cursor = partition.frames(partition.durable_end)
        partition.append(rows(12, 3))
        control = ControlFile(LocalStorage(), partition.directory)
        control.publish_durable(LogEnd(0, partition.segments()[0][1], 3))
        assert cursor.next() is None

    def test_seeking_finds_the_frame_that_holds_the_offset(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", segment_bytes=3_000)
        for count in (1, 4, 2, 8, 1, 1, 3, 5, 2, 2, 9, 1):
            partition.append(rows(partition.written_end, count))
        partition.sync()
        for each in (partition, open_partition(tmp_path / "0")):
            for offset in range(partition.written_end):
                frame = each.frames(offset).next()
                assert frame is not None
                assert frame.header.base_offset <= offset < frame.end_offset
            assert each.frames(partition.written_end).next() is None

    def test_a_long_segment_is_searched_by_its_index(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        while partition.written_end < 60_000:
            partition.append(rows(partition.written_end, 900))
        partition.sync()
        for offset in (0, 899, 900, 31_234, 59_999):
            frame = partition.frames(offset).next()
            assert frame is not None
            assert frame.header.base_offset == offset // 900 * 900

    @pytest.mark.parametrize("offset", [-1, 3])
    def test_an_offset_out_of_range_is_refused(self, tmp_path: Path, offset: int) -> None:
        partition = open_partition(tmp_path / "0")
        partition.append(rows(0, 2))
        partition.sync()
        with pytest.raises(OffsetOutOfRangeError, match="offsets from 0 to 2"):
            partition.frames(offset)

    def test_columns_come_in_the_order_asked_for(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        partition.append(rows(0, 2))
        partition.sync()
        frame = partition.frames(0).next()
        assert frame is not None
        assert frame.batch(["text", "id"]).schema.names == ["text", "id"]
        assert frame.batch([]).num_columns == 0
        with pytest.raises(UnknownColumnError, match="did you mean 'text'"):
            frame.batch(["txet"])

    def test_rows_outlive_cursor_and_partition(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        partition.append(rows(0, 1_000))
        partition.sync()
        frame = partition.frames(0).next()
        assert frame is not None
        batch = frame.batch()
        del frame, partition
        assert batch.equals(rows(0, 1_000))

    def test_another_schema_is_damage_not_a_crash(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0")
        partition.append(rows(0, 1))
        partition.sync()
        other = open_partition(tmp_path / "0", pa.schema([("id", pa.int8())]))
        with pytest.raises(CorruptSegmentError, match="is not the topic's"):
            other.frames(0).next()

    def test_a_truncated_sealed_segment_is_noticed(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", segment_bytes=2_000)
        for _ in range(6):
            partition.append(rows(partition.written_end, 3))
        partition.sync()
        cursor = partition.frames(0)
        assert cursor.next() is not None
        second = cursor.next()
        assert second is not None
        path, position = second.location
        with open(path, "r+b") as file:
            file.truncate(position)  # exactly at the end of a frame
        with pytest.raises(
            CorruptSegmentError, match=r"from offset 3.*the next starts with offset"
        ):
            read_ids(open_partition(tmp_path / "0"))


class TestTimes:
    def test_the_header_has_the_largest_time_of_the_rows(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", TIMED, time_column="at")
        partition.append(timed([5, 9, None, 7]))
        partition.append(timed([None]))
        partition.sync()
        cursor = partition.frames(0)
        first, second = cursor.next(), cursor.next()
        assert first is not None
        assert second is not None
        assert first.header.max_timestamp_us == 9_000
        assert second.header.max_timestamp_us == -(2**63)

    @pytest.mark.parametrize("segment_bytes", [1_500, 10**6])
    def test_a_time_is_found_among_disordered_rows(
        self, tmp_path: Path, segment_bytes: int
    ) -> None:
        random = np.random.default_rng(3)
        partition = open_partition(
            tmp_path / "0", TIMED, time_column="at", segment_bytes=segment_bytes
        )
        times: list[int | None] = []
        for _ in range(12):
            some = [int(each) + 3 * len(times) for each in random.integers(0, 60, 7)]
            batch: list[int | None] = [None, *some]
            partition.append(timed(batch))
            times += batch
        partition.sync()
        for sought in range(-1, 400, 3):
            oracle = next(
                (i for i, each in enumerate(times) if each is not None and each >= sought),
                len(times),
            )
            assert partition.offset_at_time(sought * 1_000) == oracle

    def test_without_a_time_column_the_append_time_counts(self, tmp_path: Path) -> None:
        clock = ManualClock(100)
        partition = open_partition(tmp_path / "0", clock=clock)
        for _ in range(3):
            partition.append(rows(partition.written_end, 2))
            clock.sleep_us(10)
        partition.sync()
        assert [partition.offset_at_time(at) for at in (0, 100, 101, 110, 120, 121)] == [
            0, 0, 2, 2, 4, 6,
        ]  # fmt: skip


def test_a_reboot_without_any_rows(tmp_path: Path) -> None:
    open_partition(tmp_path / "0")
    partition = open_partition(tmp_path / "0", storage=RebootedStorage())
    assert partition.append(rows(0, 1))[:2] == (0, 1)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([pa.array([], field.type) for field in schema], schema=schema)
