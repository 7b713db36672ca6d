"""Rows are cut into frames of a size, cast to dictionaries, and refused by row and column."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import (
    InvalidTopicError,
    OversizedRowError,
    SchemaMismatchError,
    UnknownColumnError,
)
from millstream.log import Log
from millstream.log.dictionaries import compacted
from millstream.log.fitting import FRAME_ROWS_MAX, RowFitter
from millstream.log.topic_config import TopicConfig
from tests.log.log_kit import another, memory_log, read, rows

COLOUR = pa.field("colour", pa.dictionary(pa.int8(), pa.string()))
TEXT = pa.schema([("text", pa.string())])


def config_of(schema: pa.Schema, bytes_max: int) -> TopicConfig:
    return TopicConfig(
        "1", "x", schema, 1, (), None, False, "fsync", 0, config={"max.message.bytes": bytes_max}
    )


def frame_sizes(log: Log, topic: str) -> list[int]:
    partition = log.topic(topic).partition(0)
    partition.sync()
    cursor = partition.frames(0)
    return [frame.header.row_count for frame in iter(cursor.next, None)]


class TestSizes:
    @given(st.lists(st.integers(0, 200), min_size=1, max_size=40), st.integers(230, 1000))
    def test_frames_are_small_enough_and_hold_all_rows(
        self, lengths: list[int], bytes_max: int
    ) -> None:
        batch = pa.record_batch([pa.array(["x" * each for each in lengths])], schema=TEXT)
        frames = RowFitter(config_of(TEXT, bytes_max)).frames_of(batch)
        assert pa.Table.from_batches(frames) == pa.Table.from_batches([batch])
        assert all(0 < frame.nbytes <= bytes_max for frame in frames)
        # Halved while too large: in each of at most six rounds no more pieces than fill a frame.
        assert len(frames) <= 1 + 6 * (batch.nbytes + 4 * len(lengths)) / bytes_max

    def test_an_oversized_row_is_refused_before_anything_is_written(self) -> None:
        log = memory_log()
        log.create_topic("x", TEXT, config={"max.message.bytes": 100})
        producer = log.producer("x")
        message = r"row 2 of those given to topic 'x' has \d+ bytes; .*max.message.bytes allows 100"
        with pytest.raises(OversizedRowError, match=message):
            producer.append(pa.table({"text": ["a", "b" * 50, "c" * 200]}))
        assert log.topic("x").partition(0).written_end == 0
        producer.append(pa.table({"text": ["a", "b" * 50, "c" * 60]}))
        assert frame_sizes(log, "x") == [1, 1, 1]

    def test_an_altered_setting_holds_for_the_next_producer(self) -> None:
        log = memory_log()
        log.create_topic("x", TEXT, config={"max.message.bytes": 10})
        log.alter_topic("x", config={"max.message.bytes": 1000})
        log.producer("x").append(pa.table({"text": ["c" * 200]}))

    def test_many_rows_become_several_frames(self) -> None:
        log = memory_log()
        log.create_topic("x", pa.schema([("n", pa.int8())]))
        n = pa.array([1] * (FRAME_ROWS_MAX + 3), pa.int8())
        log.producer("x").append(pa.table({"n": pa.chunked_array([n[:7], n[7:]])}))
        assert frame_sizes(log, "x") == [FRAME_ROWS_MAX, 3]


class TestDictionaries:
    @pytest.fixture
    def log(self) -> Log:
        log = memory_log()
        log.create_topic("x", pa.schema([COLOUR]), key=["colour"], partitions=2)
        return log

    @pytest.mark.parametrize(
        "column",
        [
            pa.array(["red", None, "green"]),
            pa.array(["red", None, "green"]).dictionary_encode(),
            pa.array(["red", None, "green"], pa.dictionary(pa.uint64(), pa.large_string())),
        ],
    )
    def test_what_has_the_same_values_fits(self, log: Log, column: pa.Array) -> None:
        with log.producer("x") as producer:
            producer.append(pa.table({"colour": column}))
        found = log.topic("x").to_arrow()
        assert found.schema.field("colour") == COLOUR
        assert sorted(found["colour"].to_pylist(), key=str) == [None, "green", "red"]

    def test_more_values_than_there_are_indices_do_not(self, log: Log) -> None:
        many = pa.table({"colour": [f"{index}" for index in range(129)]})
        with pytest.raises(SchemaMismatchError, match=r"column 'colour'.*got string.*not fit"):
            log.producer("x").append(many)
        with pytest.raises(SchemaMismatchError, match=r"'colour'.*dictionary.*got list<"):
            log.producer("x").append(pa.table({"colour": [[1]]}))

    def test_frames_of_many_values_are_read_one_after_another(self, log: Log) -> None:
        expected = []
        with log.producer("x") as producer:
            for start in range(0, 400, 100):
                names = [f"{index}" for index in range(start, start + 100)]
                producer.append(pa.table({"colour": names}), partition=0)
                expected += names
        assert log.topic("x").to_arrow()["colour"].to_pylist() == expected

    def test_keys_are_hashed_by_value_and_grouped_by_it(self) -> None:
        log = memory_log()
        schema = pa.schema([COLOUR, ("n", pa.int64())])
        log.create_topic("t", schema, key=["colour"], partitions=3, table=True)
        with log.producer("t") as producer:
            for n, names in enumerate((["red", "green"], ["blue", "red"], ["green", None])):
                producer.append(pa.table({"colour": names, "n": [n, n]}))
            producer.delete(pa.table({"colour": ["blue"]}))
        found = log.topic("t").latest().to_pylist()
        assert {row["colour"]: row["n"] for row in found} == {"red": 1, "green": 2, None: 2}

    @given(st.lists(st.sampled_from(["b", "a", "d", None]), min_size=1, max_size=5))
    def test_unused_values_are_dropped_where_there_are_many(self, names: list[str | None]) -> None:
        dictionary = pa.array(["z", "a", "b", "c", "d", "e", None])
        indices = pa.array([None if each is None else "zabcde".index(each) for each in names])
        column = pa.DictionaryArray.from_arrays(indices.cast(pa.int8()), dictionary, ordered=True)
        batch = pa.record_batch({"colour": column})
        found = compacted(batch)
        assert found["colour"].to_pylist() == names
        assert found.schema == batch.schema
        values = found["colour"].dictionary.to_pylist()
        assert values == sorted({each for each in names if each is not None})

    def test_a_large_dictionary_does_not_keep_rows_from_being_split(self) -> None:
        schema = pa.schema([("colour", pa.dictionary(pa.int32(), pa.string()))])
        column = pa.array([f"{index:0100}" for index in range(50)]).dictionary_encode()
        batch = pa.record_batch([column], schema=schema)
        frames = RowFitter(config_of(schema, 1000)).frames_of(batch)
        assert [value for each in frames for value in each["colour"].to_pylist()] == [
            f"{index:0100}" for index in range(50)
        ]
        assert max(frame.nbytes for frame in frames) <= 1000


class TestAddedColumns:
    MORE = pa.field("more", pa.float64())

    def test_producers_and_readers_elsewhere_find_out(self) -> None:
        log = memory_log()
        log.create_topic("x", rows(0).schema)
        other = another(log)
        producer, reader = other.producer("x"), other.topic("x").reader(0)
        with log.producer("x") as here:
            here.append(rows(0))
        assert log.alter_topic("x", add_columns=[self.MORE]).schema.names == ["id", "text", "more"]
        producer.append(rows(1))  # knows nothing of it
        producer.append(pa.table({"id": [2], "more": [0.5]}))
        producer.append(rows(3))
        producer.flush()
        with log.producer("x") as here:
            here.append(pa.table({"more": [1.5], "id": [4]}))
            here.append(rows(5))
        found = []
        while (batch := reader.read()) is not None:
            assert batch.schema.names == ["id", "text"]
            found += batch["id"].to_pylist()
        assert found == list(range(6))
        for each in (log, other, another(log)):
            more = each.topic("x").to_arrow(["more"])["more"].to_pylist()
            assert more == [None, None, 0.5, None, 1.5, None]
        assert other.topic("x").schema == log.topic("x").schema
        assert len(log.topic("x").partition(0).segments()) == 2

    def test_a_column_that_nobody_added_stays_unknown(self) -> None:
        log = memory_log()
        log.create_topic("x", TEXT)
        with pytest.raises(UnknownColumnError, match="'txt'; did you mean 'text'"):
            log.producer("x").append(pa.table({"txt": ["a"]}))
        with pytest.raises(UnknownColumnError, match="no column 'more'"):
            log.topic("x").reader(0, columns=["more"])

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            (pa.field("text", pa.string()), "'text' already"),
            (pa.field("more", pa.int8(), nullable=False), "make it nullable"),
            (pa.field("_more", pa.int8()), "the system's"),
            (pa.field("more", pa.string_view()), "cast it to"),
        ],
    )
    def test_what_cannot_be_added_is_refused(self, field: pa.Field, message: str) -> None:
        log = memory_log()
        log.create_topic("x", TEXT)
        with pytest.raises(InvalidTopicError, match=message):
            log.alter_topic("x", add_columns=[field], config={"retention.ms": 1})
        assert another(log).topic("x").schema == TEXT
        assert another(log).topic("x").config.config == {}

    def test_a_deleted_row_has_them_null(self) -> None:
        log = memory_log()
        log.create_topic("t", rows(0).schema, key=["id"], table=True)
        with log.producer("t") as producer:
            producer.append(rows(1, 2))
            log.alter_topic("t", add_columns=[self.MORE])
            producer.append(pa.table({"id": [1], "more": [2.0]}))
            producer.delete(pa.table({"id": [2]}))
        assert log.topic("t").latest().to_pylist() == [{"id": 1, "text": None, "more": 2.0}]
        assert read(log.topic("t")) == [1, 2, 1]
