"""Times of their own and headers: given, stored where they are needed, read by whoever asks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from millstream.errors import OptionError, SchemaMismatchError, UnknownColumnError
from millstream.log import Log
from millstream.log.columns import HEADERS_FIELD, TIMESTAMP_FIELD
from millstream.log.row_extras import with_extras
from tests.log.log_kit import SCHEMA, memory_log, rows

NOW_US = 1_000_000
AT = datetime(2013, 1, 1, tzinfo=UTC)
AT_US = 1_356_998_400_000_000
PAIR = {"key": "k", "value": b"v"}


@pytest.fixture
def log() -> Log:
    log = memory_log()
    log.create_topic("x", SCHEMA)
    return log


def microseconds(column: pa.ChunkedArray) -> list[int | None]:
    found: list[int | None] = column.cast(pa.int64()).to_pylist()
    return found


@pytest.mark.parametrize(
    "timestamps",
    [
        [AT, None],
        [AT_US, None],
        pa.array([AT_US // 1_000, None], pa.timestamp("ms")),
        pa.array([AT_US * 1_000 + 999, None], pa.timestamp("ns", "Europe/Berlin")),
        pa.chunked_array([[AT_US], [None]]),
        np.array(["2013-01-01", "NaT"], dtype="datetime64[us]"),
    ],
)
@pytest.mark.parametrize("table", [False, True])
def test_times_come_in_many_forms(log: Log, timestamps: Any, table: bool) -> None:
    given = pa.Table.from_batches([rows(0, 1)]) if table else rows(0, 1)
    with log.producer("x") as producer:
        producer.append(given, timestamps=timestamps)
        producer.append(rows(2))
    found = log.topic("x").to_arrow(["_timestamp"])
    assert found.schema.field(0) == TIMESTAMP_FIELD
    assert microseconds(found["_timestamp"]) == [AT_US, NOW_US, NOW_US]


@pytest.mark.parametrize(
    "headers",
    [
        [{"k": b"v"}, None],
        [[("k", b"v")], None],
        pa.array([[PAIR], None], HEADERS_FIELD.type),
        pa.chunked_array([[[PAIR]], [None]], HEADERS_FIELD.type),
    ],
)
def test_headers_come_in_many_forms(log: Log, headers: Any) -> None:
    with log.producer("x") as producer:
        producer.append(rows(0, 1), headers=headers)
        producer.append(rows(2, 3), headers=[[("k", b"1"), ("k", None)], []])
    found = log.topic("x").to_arrow(["_headers"])["_headers"].to_pylist()
    twice = [{"key": "k", "value": b"1"}, {"key": "k", "value": None}]
    assert found == [[PAIR], None, twice, []]


def test_they_may_be_columns_of_the_rows(log: Log) -> None:
    batch = with_extras(rows(0), "x", [5], [{"k": b"v"}])
    with log.producer("x") as producer:
        producer.append(batch.select(["_headers", "text", "_timestamp", "id"]))
    found = log.topic("x").to_arrow(["id", "_timestamp", "_headers"])
    assert microseconds(found["_timestamp"]) == [5]
    assert found["_headers"].to_pylist() == [[PAIR]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestamps": [1]}, "1 timestamps for 2 rows"),
        ({"headers": [None] * 3}, "3 headers for 2 rows"),
        ({"timestamps": ["soon", "later"]}, "takes as timestamps"),
        ({"timestamps": [1.5, 2.0]}, "takes as timestamps"),
        ({"headers": [{"k": 1}, None]}, "takes as headers"),
        ({"headers": [{1: b""}, None]}, "takes as headers"),
        ({"headers": ["k=v", None]}, "takes as headers"),
        ({"headers": pa.array([1, 2])}, "takes as headers"),
    ],
)
def test_what_cannot_be_read_is_refused(log: Log, options: dict[str, Any], message: str) -> None:
    producer = log.producer("x")
    with pytest.raises(SchemaMismatchError, match=message):
        producer.append(rows(0, 1), **options)
    assert log.topic("x").partition(0).written_end == 0


def test_both_forms_at_once_are_refused(log: Log) -> None:
    with pytest.raises(SchemaMismatchError, match="timestamps twice"):
        log.producer("x").append(with_extras(rows(0), "x", [5], None), timestamps=[6])


def test_a_topic_with_a_time_column_takes_no_other_times(log: Log) -> None:
    schema = pa.schema([("at", pa.timestamp("ms", "Europe/Berlin"))])
    log.create_topic("timed", schema, time="at")
    batch = pa.record_batch([pa.array([1, None], schema[0].type)], schema=schema)
    with log.producer("timed") as producer:
        producer.append(batch)
        with pytest.raises(SchemaMismatchError, match="in column 'at'"):
            producer.append(batch, timestamps=[1, 2])
    assert microseconds(log.topic("timed").to_arrow(["_timestamp"])["_timestamp"]) == [1_000, None]


def test_other_system_columns_are_not_taken(log: Log) -> None:
    read_again = pa.table({"id": [1], "_offset": pa.array([0])})
    with pytest.raises(UnknownColumnError, match=r"'_offset' is the system's"):
        log.producer("x").append(read_again)


def test_the_largest_time_of_a_frame_is_that_of_its_rows(log: Log) -> None:
    with log.producer("x") as producer:
        for timestamps in ([5, 7], [5, None], [NOW_US + 9, None], None):
            producer.append(rows(0, 1), timestamps=timestamps)
    cursor = log.topic("x").partition(0).frames(0)
    found = [frame.header.max_timestamp_us for frame in iter(cursor.next, None)]
    assert found == [7, NOW_US, NOW_US + 9, NOW_US]


def test_rows_are_found_by_their_times(log: Log) -> None:
    with log.producer("x") as producer:
        producer.append(rows(0, 1, 2), timestamps=[5, None, 9])
        producer.append(rows(3, 4), timestamps=[NOW_US + 1, NOW_US + 9])
    topic = log.topic("x")
    found = {at: topic.offset_at_time(0, at) for at in (0, 5, 6, NOW_US, NOW_US + 2, NOW_US + 10)}
    assert found == {0: 0, 5: 0, 6: 1, NOW_US: 1, NOW_US + 2: 4, NOW_US + 10: 5}


def test_a_table_has_them_too(log: Log) -> None:
    log.create_topic("t", SCHEMA, key=["id"], table=True)
    with log.producer("t") as producer:
        producer.append(rows(1, 2), headers=[{"k": b"v"}, None])
        producer.delete(with_extras(rows(1), "t", None, [{"why": b"gone"}]))
        producer.delete(rows(2).select(["id"]))
    topic = log.topic("t")
    reader = topic.reader(0, columns=["id", "_headers"])
    found = []
    while (batch := reader.read_table()) is not None:
        found += batch.to_pylist()
    assert [(row["id"], row["_op"]) for row in found] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    why = [{"key": "why", "value": b"gone"}]
    assert [row["_headers"] for row in found] == [[PAIR], None, why, None]
    assert topic.latest().num_rows == 0
    assert topic.to_arrow(["_op", "id"]).to_pydict() == {"_op": [0, 0], "id": [1, 2]}


def test_rows_are_numbered_from_any_offset_on(log: Log) -> None:
    log.create_topic("parts", SCHEMA, partitions=3)
    with log.producer("parts") as producer:
        producer.append(rows(*range(10)), partition=2)
        producer.append(rows(*range(10, 15)), partition=2)
    reader = log.topic("parts").reader(2, offset=7, columns=["_partition", "_offset", "id"])
    assert reader.schema.names == ["_partition", "_offset", "id"]
    batch = reader.read()
    assert batch is not None
    assert batch["_offset"].to_pylist() == batch["id"].to_pylist() == list(range(7, 15))
    assert set(batch["_partition"].to_pylist()) == {2}
    with pytest.raises(OptionError):
        log.topic("parts").reader(3, columns=["_offset"])


def test_a_transaction_takes_them(log: Log) -> None:
    with log.transaction("me") as transaction:
        transaction.append("x", rows(0), timestamps=[3], headers=[{"k": b"v"}])
    assert microseconds(log.topic("x").to_arrow(["_timestamp"])["_timestamp"]) == [3]
