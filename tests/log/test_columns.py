"""Segments of different columns in one partition: what rolls, what is filled in, what is damage."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from millstream.errors import CorruptSegmentError, InvalidTopicError, SchemaMismatchError
from millstream.log.columns import (
    HEADERS_FIELD,
    OFFSET_FIELD,
    OPERATION_FIELD,
    TIMESTAMP_FIELD,
    can_be_widened,
    joined,
    widened,
)
from millstream.log.partition import Partition
from millstream.log.segment import encode_head, segment_file_name
from tests.log.log_kit import SCHEMA, another, memory_log, rows
from tests.log.partition_kit import RebootedStorage, open_partition

ID = pa.field("id", pa.int64())
TEXT = pa.field("text", pa.string())
PRICE = pa.field("price", pa.decimal128(10, 2))
SMALL = pa.schema([ID])
LARGE = pa.schema([ID, TEXT])


def batch(*fields: pa.Field, start: int, count: int = 2) -> pa.RecordBatch:
    """Rows whose ids are their offsets and all of whose other values are null."""
    ids = pa.array(range(start, start + count), pa.int64())
    columns = [ids if each.name == "id" else pa.nulls(count, each.type) for each in fields]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def put(partition: Partition, *fields: pa.Field, count: int = 2) -> None:
    partition.append(batch(*fields, start=partition.written_end, count=count))
    partition.sync()


def stored(partition: Partition) -> list[list[str]]:
    """The columns of each frame; its ids are checked."""
    cursor = partition.frames(0)
    found = []
    while (frame := cursor.next()) is not None:
        ids = frame.batch(["id"]).column("id").to_pylist()
        assert ids == list(range(frame.header.base_offset, frame.end_offset))
        found.append(list(frame.columns))
    return found


def bases(partition: Partition) -> list[int]:
    return [base for base, _ in partition.segments()]


class TestSchemas:
    def test_two_are_joined_in_one_order(self) -> None:
        first = pa.schema([ID, HEADERS_FIELD])
        second = pa.schema([ID, TEXT, OPERATION_FIELD, TIMESTAMP_FIELD])
        whole = pa.schema([ID, TEXT, OPERATION_FIELD, TIMESTAMP_FIELD, HEADERS_FIELD])
        assert joined(first, second) == joined(second, first) == whole

    def test_rows_are_widened_by_what_a_row_may_lack(self) -> None:
        assert can_be_widened(SMALL, pa.schema([ID, TEXT, TIMESTAMP_FIELD, HEADERS_FIELD]))
        assert not can_be_widened(SMALL, pa.schema([ID, OFFSET_FIELD]))
        assert not can_be_widened(SMALL, pa.schema([ID, OPERATION_FIELD]))
        assert not can_be_widened(LARGE, pa.schema([ID, HEADERS_FIELD]))
        wide = widened(batch(ID, start=0), LARGE)
        assert wide.to_pylist() == [{"id": 0, "text": None}, {"id": 1, "text": None}]


class TestAppends:
    def test_a_column_that_the_segment_lacks_starts_the_next_one(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", SMALL)
        put(partition, ID)
        put(partition, ID, HEADERS_FIELD)
        put(partition, ID)  # fits: null
        put(partition, ID, TIMESTAMP_FIELD)
        put(partition, ID, HEADERS_FIELD)
        put(partition, ID)
        both = ["id", "_timestamp", "_headers"]
        assert stored(partition) == [["id"], ["id", "_headers"], ["id", "_headers"], *3 * [both]]
        assert bases(partition) == [0, 2, 6]

    def test_a_full_segment_is_followed_by_one_with_what_is_needed(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", SMALL, segment_bytes=2_500)
        put(partition, ID, HEADERS_FIELD)
        while len(bases(partition)) < 2:
            put(partition, ID)
        assert stored(partition)[-2:] == [["id", "_headers"], ["id"]]

    def test_old_and_new_producers_share_segments(self, tmp_path: Path) -> None:
        old = open_partition(tmp_path / "0", SMALL)
        new = open_partition(tmp_path / "0", LARGE)
        for partition, fields in ((old, [ID]), (new, [ID, TEXT]), (old, [ID]), (new, [ID, TEXT])):
            put(partition, *fields)
        put(old, ID, HEADERS_FIELD)
        columns = [["id"], *3 * [["id", "text"]], ["id", "text", "_headers"]]
        assert stored(old) == stored(new) == columns
        assert bases(new) == [0, 2, 8]
        again = open_partition(tmp_path / "0", SMALL, storage=RebootedStorage())
        assert stored(again) == columns

    def test_a_head_without_rows_does_not_bind_the_next_producer(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", SMALL)
        partition.append(batch(ID, start=0))
        path = tmp_path / "0" / segment_file_name(0)
        content = path.read_bytes()
        head_size = 8 + int.from_bytes(content[4:8], "little")
        path.write_bytes(content[:head_size])
        again = open_partition(tmp_path / "0", LARGE, storage=RebootedStorage())
        put(again, ID, TEXT)
        assert stored(again) == [["id", "text"]]

    def test_other_columns_are_refused(self, tmp_path: Path) -> None:
        partition = open_partition(tmp_path / "0", SMALL)
        for fields in ([TEXT], [ID, TEXT], [ID, OFFSET_FIELD], [ID, OPERATION_FIELD]):
            with pytest.raises(SchemaMismatchError, match="partition flights/2"):
                partition.append(batch(*fields, start=0))
        with pytest.raises(SchemaMismatchError, match="'_headers'"):
            partition.append(batch(ID, pa.field("_headers", pa.string()), start=0))
        with pytest.raises(InvalidTopicError):
            open_partition(tmp_path / "1", pa.schema([ID, ID]))


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("where the topic has", [pa.field("id", pa.int32()), OPERATION_FIELD]),
        ("where the topic has", [pa.field("id", pa.int64(), nullable=False), OPERATION_FIELD]),
        ("where the topic has", [TEXT, OPERATION_FIELD]),
        ("stands before the user's", [OPERATION_FIELD, ID]),
        ("no system column", [ID, OPERATION_FIELD, pa.field("_headers", pa.string())]),
        ("no system column", [ID, OPERATION_FIELD, pa.field("_other", pa.int64())]),
        ("cannot hold", [ID, pa.field("more", pa.dense_union([ID])), OPERATION_FIELD]),
        ("it lacks _op", [ID]),
    ],
)
def test_a_schema_that_contradicts_the_topics_is_damage(
    tmp_path: Path, reason: str, fields: list[pa.Field]
) -> None:
    schema = pa.schema([ID, OPERATION_FIELD])
    partition = open_partition(tmp_path / "0", schema)
    put(partition, *schema)

    class Layout:
        schema = pa.schema(fields)
        column_count = len(fields)

    path = tmp_path / "0" / segment_file_name(0)
    content = path.read_bytes()
    head = encode_head(Layout(), 0, 0)  # type: ignore[arg-type]
    path.write_bytes(head.ljust(len(content), b"\0"))
    with pytest.raises(CorruptSegmentError, match=f"is not the topic's: .*{reason}"):
        open_partition(tmp_path / "0", schema).frames(0).next()


def test_a_producer_gets_a_column_that_its_process_learnt_of_by_the_way() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, config={"segment.bytes": 1_000})
    producer = log.producer("a")
    producer.append(rows(0))
    another(log).alter_topic("a", add_columns=[pa.field("more", pa.int64())])
    producer.append(rows(*range(1, 40)))  # a new segment: the settings are read anew, and with
    producer.append(rows(*range(40, 80)))  # them the columns
    producer.append(rows(80).append_column("more", pa.array([7])))
    producer.flush()
    assert log.topic("a").to_arrow(["id", "more"]).to_pylist()[-1] == {"id": 80, "more": 7}
