"""Producers: rows are made to fit their topic or refused by name, and go where their key says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import (
    LogError,
    LostRowsError,
    OptionError,
    SchemaMismatchError,
    UnknownColumnError,
)
from millstream.log import Log
from millstream.log.fitting import FRAME_ROWS_MAX
from millstream.storage_memory import MemoryStorage
from tests.log.log_kit import (
    SCHEMA,
    another,
    ids_of,
    log_on,
    lose_unsynced_rows,
    memory,
    memory_log,
    read,
    rows,
)
from tests.log.processes import WriterProcess

STRICT = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("tags", pa.list_(pa.string())),
    ]
)


@pytest.fixture
def log() -> Log:
    return memory_log()


class TestFitting:
    @pytest.fixture
    def append(self, log: Log) -> Callable[[pa.Table], list[dict[str, object]]]:
        topic = log.create_topic("x", STRICT)

        def append(rows: pa.Table) -> list[dict[str, object]]:
            with log.producer("x") as producer:
                producer.append(rows)
            found: list[dict[str, object]] = topic.to_arrow().to_pylist()
            return found

        return append

    def test_columns_are_matched_by_name_and_cast(
        self, append: Callable[[pa.Table], list[dict[str, object]]]
    ) -> None:
        at = pa.array([1_500, None], pa.timestamp("ms", tz="UTC"))
        tags = pa.array([["a"], None], pa.large_list(pa.string()))
        ids = pa.array(["1", "1"]).dictionary_encode().cast(pa.string()).cast(pa.int8())
        found = append(pa.table({"tags": tags, "at": at, "id": ids}))
        assert [row["id"] for row in found] == [1, 1]
        assert [row["tags"] for row in found] == [["a"], None]
        assert str(found[0]["at"]) == "1970-01-01 00:00:01.500000+00:00"

    def test_a_missing_column_is_null(
        self, append: Callable[[pa.Table], list[dict[str, object]]]
    ) -> None:
        assert append(pa.table({"id": [1]})) == [{"id": 1, "at": None, "tags": None}]

    def test_dictionaries_are_stored_as_their_values(self, log: Log) -> None:
        topic = log.create_topic("words", pa.schema([("word", pa.string())]))
        with log.producer("words") as producer:
            producer.append(pa.table({"word": pa.array(["a", None, "a"]).dictionary_encode()}))
        assert topic.to_arrow()["word"].to_pylist() == ["a", None, "a"]

    @pytest.mark.parametrize(
        ("columns", "error", "message"),
        [
            ({"id": [1], "tag": ["x"]}, UnknownColumnError, "no column 'tag'; did you mean 'tags'"),
            ({"tags": [["x"]]}, SchemaMismatchError, "column 'id' of topic 'x' is missing"),
            ({"id": [1, None]}, SchemaMismatchError, "'id' of topic 'x' may not be null; got 1"),
            ({"id": [1.5]}, SchemaMismatchError, "column 'id' of topic 'x' is int64; got double"),
            ({"id": [2**64 - 1]}, SchemaMismatchError, "'id'.*got uint64, which does not fit"),
            ({"id": ["one"]}, SchemaMismatchError, "'id'.*got string"),
            ({"id": [1], "tags": ["a"]}, SchemaMismatchError, "'tags'.*list<.*got string"),
            ({"id": [1], "at": [1.0]}, SchemaMismatchError, "'at'.*timestamp.*got double"),
        ],
    )
    def test_what_does_not_fit_is_refused_by_name(
        self,
        append: Callable[[pa.Table], list[dict[str, object]]],
        columns: dict[str, list[object]],
        error: type[Exception],
        message: str,
    ) -> None:
        arrays = {
            name: pa.array(values, pa.uint64()) if values == [2**64 - 1] else pa.array(values)
            for name, values in columns.items()
        }
        with pytest.raises(error, match=message):
            append(pa.table(arrays))
        assert len(append(pa.table({"id": [1]}))) == 1

    def test_nothing_is_appended_where_a_later_batch_does_not_fit(self, log: Log) -> None:
        topic = log.create_topic("x", pa.schema([("id", pa.int8())]))
        with pytest.raises(SchemaMismatchError), log.producer("x") as producer:
            producer.append(pa.table({"id": [*[1] * FRAME_ROWS_MAX, 1_000]}))
        assert topic.partition(0).written_end == 0

    def test_system_columns_cannot_be_given(self, log: Log) -> None:
        log.create_topic("t", SCHEMA, key=["id"], table=True)
        with pytest.raises(UnknownColumnError, match="_op"):
            log.producer("t").append(pa.table({"id": [1], "_op": [1]}))


class TestFrames:
    def test_long_tables_are_cut(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA)
        count = 2 * FRAME_ROWS_MAX + 5
        table = pa.table({"id": range(count), "text": pa.nulls(count, pa.string())})
        with log.producer("x") as producer:
            producer.append(table)
            producer.append(table.to_batches()[0].slice(1))
            assert producer.rows_appended == 2 * count - 1
        cursor = topic.partition(0).frames(0)
        sizes = [frame.header.row_count for frame in iter(cursor.next, None)]
        assert sizes == [FRAME_ROWS_MAX, FRAME_ROWS_MAX, 5, FRAME_ROWS_MAX, FRAME_ROWS_MAX, 4]
        assert ids_of(topic.to_arrow()) == [*range(count), *range(1, count)]

    def test_no_rows_are_no_frame(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA, partitions=2)
        with log.producer("x") as producer:
            producer.append(rows())
            producer.append(SCHEMA.empty_table())
        assert producer.rows_appended == 0
        assert [topic.partition(index).written_end for index in range(2)] == [0, 0]

    def test_headers_say_who_wrote_in_which_order(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA)
        writer = log.transactions.writer("job")
        with log.producer("x", writer=writer) as producer:
            producer.append(rows(1), transaction=7)
            producer.append(rows(2))
        headers = [frame.header for frame in iter(topic.partition(0).frames(0).next, None)]
        assert [(h.owner_id, h.epoch, h.sequence, h.transaction) for h in headers] == [
            (1, 1, 1, 7),
            (1, 1, 2, 0),
        ]


class TestPlaces:
    def test_batches_take_turns_without_a_key(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA, partitions=3)
        with log.producer("x") as producer:
            for each in range(7):
                producer.append(rows(each))
        assert [read(topic, index) for index in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]

    def test_a_partition_can_be_named(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA, partitions=3, key=["id"])
        with log.producer("x") as producer:
            producer.append(rows(1, 2, 3), partition=2)
            for partition in (-1, 3):
                with pytest.raises(OptionError, match=f"partitions 0 to 2; got {partition}"):
                    producer.append(rows(4), partition=partition)
        assert [read(topic, index) for index in range(3)] == [[], [], [1, 2, 3]]

    @settings(max_examples=60)
    @given(
        st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=40),
        st.sampled_from([2, 3, 64]),
        st.integers(1, 4),
    )
    def test_rows_go_where_their_key_says(
        self, keys: list[str | None], partitions: int, batches: int
    ) -> None:
        log = memory_log()
        topic = log.create_topic("x", SCHEMA, partitions=partitions, key=["text"])
        table = pa.table({"id": range(len(keys)), "text": pa.array(keys, pa.string())})
        with log.producer("x") as producer:
            for index in range(batches):
                first, end = (len(keys) * each // batches for each in (index, index + 1))
                producer.append(table.slice(first, end - first))
        expected: list[list[int]] = [[] for _ in range(partitions)]
        for row, key in enumerate(keys):
            group = xxhash.xxh64_intdigest(b"" if key is None else key.encode()) % 4096
            expected[group * partitions // 4096].append(row)
        assert [read(topic, index) for index in range(partitions)] == expected


class TestDeleting:
    def test_tombstones(self, log: Log) -> None:
        topic = log.create_topic("t", SCHEMA, key=["id"], table=True, partitions=2)
        with log.producer("t") as producer:
            producer.append(rows(*range(6)))
            producer.delete(pa.table({"id": [1, 4], "text": ["not", "looked at"]}))
            producer.append(rows(4))
            assert producer.rows_appended == 9
        assert sorted(ids_of(topic.latest())) == [0, 2, 3, 4, 5]
        assert len(ids_of(topic.to_arrow())) == 7

    def test_a_stream_has_none(self, log: Log) -> None:
        log.create_topic("x", SCHEMA, key=["id"])
        with pytest.raises(OptionError, match="only a table's rows can be deleted"):
            log.producer("x").delete(rows(1))

    def test_the_whole_key_is_needed(self, log: Log) -> None:
        log.create_topic("t", SCHEMA, key=["id", "text"], table=True)
        with pytest.raises(SchemaMismatchError, match="needs key column 'text'"):
            log.producer("t").delete(pa.table({"id": [1]}))

    def test_other_columns_must_take_null(self, log: Log) -> None:
        schema = pa.schema([pa.field("id", pa.int64()), pa.field("n", pa.int8(), nullable=False)])
        log.create_topic("t", schema, key=["id"], table=True)
        with pytest.raises(SchemaMismatchError, match="'n' of 't' may not be null"):
            log.producer("t").delete(pa.table({"id": [1]}))


class TestDurability:
    def test_rows_are_durable_after_flush(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA, partitions=2)
        producer = log.producer("x")
        for each in range(3):
            producer.append(rows(each))
        assert producer.touched() == [0, 1]
        assert topic.durable_ends() == [0, 0]
        producer.flush()
        assert producer.touched() == []
        assert topic.durable_ends() == [2, 1]

    def test_leaving_the_block_flushes_unless_it_failed(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA)
        with pytest.raises(ZeroDivisionError), log.producer("x") as producer:
            producer.append(rows(1))
            producer.append(rows(1 // 0))
        assert topic.durable_ends() == [0]
        with log.producer("x") as producer:
            producer.append(rows(2))
        assert topic.durable_ends() == [2]

    def test_os_shows_what_was_written_and_a_power_cut_may_take_it(self) -> None:
        kept = set()
        for seed in range(30):
            log = memory_log(seed)
            topic = log.create_topic("x", SCHEMA, durability="os")
            log.producer("x").append(rows(1))
            assert read(topic) == [1]
            assert isinstance(log.storage, MemoryStorage)
            disk = log.storage.disk
            log.storage.kill()
            assert read(log_on(disk.storage("b")).topic("x")) == [1]
            disk.power_cut()
            kept.add(tuple(read(log_on(disk.storage("c")).topic("x"))))
        assert kept == {(), (1,)}

    @pytest.mark.parametrize("operation", ["append", "create"])
    def test_what_the_disk_refuses_is_told(self, log: Log, operation: str) -> None:
        topic = log.create_topic("x", SCHEMA)
        producer = log.producer("x")
        topic.partition(0)
        assert isinstance(log.storage, MemoryStorage)
        log.storage.fail(operation, OSError(28, "No space left on device"), after=0)
        with pytest.raises(LogError, match="No space left"):
            producer.append(rows(1))
        if operation == "append":
            with pytest.raises(LogError, match="refuses to write"):
                producer.append(rows(1))
            topic.partition(0).verify()
        producer.append(rows(1))
        producer.flush()
        assert read(topic) == [1]

    def test_an_index_is_done_without_where_the_disk_refuses_it(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA, config={"segment.bytes": 1_500})
        assert isinstance(log.storage, MemoryStorage)
        for _ in range(3):  # for the index, what is beside it, and the index with statistics
            log.storage.fail("write_file", OSError(28, "No space left on device"))
        with log.producer("x") as producer:
            for each in range(12):
                producer.append(rows(each))
        assert len(topic.partition(0).segments()) > 2
        names = log.storage.list_directory(topic.partition(0).directory)
        assert "00000000000000000000.index" not in names
        other = log_on(log.storage.disk.storage("b")).topic("x")
        assert read(other, offset=1) == list(range(1, 12))
        assert "00000000000000000000.index" in log.storage.list_directory(
            topic.partition(0).directory
        )


def test_each_producer_is_told_once_that_rows_were_lost() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, partitions=2)
    first, second = log.producer("a"), log.producer("a")
    for index in range(2):
        first.append(rows(index), partition=index)
    second.append(rows(2), partition=1)
    other = another(log)
    for index in range(2):
        lose_unsynced_rows(other.topic("a").partition(index), memory(other))
    with pytest.raises(LostRowsError, match=r"partition a/0: .*; partition a/1: "):
        first.flush()
    first.flush()
    with pytest.raises(LostRowsError, match="partition a/1: "):
        second.flush()
    for producer in (first, second):
        producer.append(rows(3), partition=1)
        producer.flush()
    assert ids_of(log.topic("a").to_arrow()) == [3, 3]


def test_a_transaction_whose_rows_were_lost_is_not_committed() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    transaction = log.transaction("x")
    other = another(log)
    with pytest.raises(LostRowsError, match="append them again"), transaction as open_one:
        open_one.append("a", rows(1))
        lose_unsynced_rows(other.topic("a").partition(0), memory(other))
        log.producer("a").flush()
        log.topic("a").partition(0).sync()  # who has no rows there is told nothing
    assert ids_of(log.topic("a").to_arrow()) == []


def test_processes_append_to_one_partition_while_it_is_read(tmp_path: Path) -> None:
    log = Log(tmp_path)
    topic = log.create_topic("a", SCHEMA, config={"segment.bytes": 20_000})
    count = 120
    processes = [WriterProcess(tmp_path, f"append:{1_000 * i}", count) for i in range(3)]
    with processes[0], processes[1], processes[2]:
        for process in processes:
            process.go()
        reader = topic.reader(0)
        found: list[int] = []
        while len(found) < 3 * count:
            found += ids_of(reader.read(rows_max=50))
            assert any(each.running() for each in processes) or topic.durable_ends()[0] == 360
        for index, process in enumerate(processes):
            own = [each for each in found if each // 1_000 == index]
            assert own == list(range(1_000 * index, 1_000 * index + count))
            assert set(process.acked()) <= set(own)
    assert found == ids_of(Log(tmp_path).topic("a").to_arrow())
