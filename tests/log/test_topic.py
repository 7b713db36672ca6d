"""Topics as tables: all rows, the latest of each key, and what there is to know of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import OptionError, UnknownColumnError
from millstream.log import Log
from tests.log.log_kit import SCHEMA, ids_of, memory_log, put, rows


@pytest.fixture
def log() -> Log:
    return memory_log()


class TestAllRows:
    def test_partition_after_partition(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA, partitions=3)
        for index in (2, 0, 2):
            put(log, "x", [index, index + 10], partition=index)
        assert ids_of(topic.to_arrow()) == [0, 10, 2, 12, 2, 12]
        assert topic.to_arrow().schema == SCHEMA
        assert topic.to_arrow(columns=["text"]).schema.names == ["text"]
        with pytest.raises(UnknownColumnError):
            topic.to_arrow(columns=["none"])

    def test_of_an_empty_topic_they_have_its_columns(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA, partitions=2)
        assert topic.to_arrow().equals(SCHEMA.empty_table())
        assert topic.to_arrow(columns=["text"]).schema.names == ["text"]
        assert (topic.stable_ends(), topic.durable_ends()) == ([0, 0], [0, 0])

    def test_in_either_isolation(self, log: Log) -> None:
        topic = log.create_topic("x", SCHEMA)
        writer = log.transactions.writer("job")
        with log.producer("x", writer=writer) as producer:
            producer.append(rows(1), transaction=1)
        assert ids_of(topic.to_arrow()) == []
        assert ids_of(topic.to_arrow(isolation="read_uncommitted")) == [1]


class TestLatest:
    def test_a_stream_has_none(self, log: Log) -> None:
        with pytest.raises(OptionError, match="only a table has latest rows"):
            log.create_topic("x", SCHEMA).latest()

    def test_of_an_empty_table_it_has_its_columns(self, log: Log) -> None:
        topic = log.create_topic("t", SCHEMA, key=["id"], table=True)
        assert topic.latest().equals(SCHEMA.empty_table())

    @settings(max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.lists(
                    st.tuples(st.none() | st.sampled_from("abc"), st.integers(0, 2)),
                    min_size=1,
                    max_size=4,
                ),
            ),
            max_size=12,
        ),
        st.sampled_from([1, 3]),
    )
    def test_against_a_dictionary(
        self, changes: list[tuple[bool, list[tuple[str | None, int]]]], partitions: int
    ) -> None:
        log = memory_log()
        schema = pa.schema([("k", pa.string()), ("v", pa.int64()), ("n", pa.int8())])
        topic = log.create_topic("t", schema, key=["k", "n"], table=True, partitions=partitions)
        expected: dict[tuple[str | None, int], int] = {}
        value = 0
        with log.producer("t") as producer:
            for is_delete, keys in changes:
                columns: dict[str, list[Any]] = {
                    "k": [k for k, _ in keys],
                    "n": [n for _, n in keys],
                }
                if is_delete:
                    producer.delete(_table(columns, schema))
                    for key in keys:
                        expected.pop(key, None)
                    continue
                columns["v"] = []
                for key in keys:
                    value += 1
                    columns["v"].append(value)
                    expected[key] = value
                producer.append(_table(columns, schema))
        found = topic.latest().to_pylist()
        assert topic.latest().schema == schema
        assert len(found) == len(expected)
        assert {(row["k"], row["n"]): row["v"] for row in found} == expected
        if partitions == 1:
            assert [row["v"] for row in found] == sorted(expected.values())

    def test_keys_are_equal_as_the_key_hash_has_them(self, log: Log) -> None:
        topic = log.create_topic(
            "t", pa.schema([("k", pa.float32()), ("v", pa.int8())]), key=["k"], table=True
        )
        with log.producer("t") as producer:
            producer.append(pa.table({"k": [0.0, 1.0, float("nan")], "v": [1, 2, 3]}))
            producer.append(pa.table({"k": [-0.0, float("nan"), None], "v": [4, 5, 6]}))
            producer.append(pa.table({"k": pa.array([None], pa.float64()), "v": [7]}))
        assert topic.latest()["v"].to_pylist() == [2, 4, 5, 7]


def _table(columns: dict[str, list[Any]], schema: pa.Schema) -> pa.Table:
    return pa.table(
        {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    )


def test_describe_says_what_there_is_to_know(log: Log) -> None:
    topic = log.create_topic(
        "t",
        SCHEMA,
        key=["id"],
        table=True,
        partitions=2,
        durability="fsync",
        config={"segment.bytes": 1_000},
    )
    for _ in range(5):
        put(log, "t", [1, 2, 3], partition=1)
    log.producer("t").append(rows(4), partition=1)
    described = topic.describe()
    partitions = described.pop("partitions")
    assert described == {
        "name": "t",
        "id": "00000001",
        "kind": "table",
        "schema": {"id": "int64", "text": "string"},
        "key": ["id"],
        "time": None,
        "durability": "fsync",
        "config": {"segment.bytes": 1_000},
        "settings": topic.settings.known.by_name(),
        "directory": "/log/topics/00000001",
        "generation": 0,
        "older": [],
    }
    assert isinstance(partitions, list)
    empty, full = partitions
    assert (empty["partition"], empty["stable_end"], empty["segments"], empty["bytes"]) == (
        0, 0, 0, 0,
    )  # fmt: skip
    assert (full["first_offset"], full["stable_end"], full["durable_end"]) == (0, 15, 15)
    assert (full["written_end"], full["open_transaction"]) == (16, None)
    segments = topic.partition(1).segments()
    assert (full["segments"], full["bytes"]) == (len(segments), sum(size for _, size in segments))
    assert log.create_topic("s", SCHEMA).describe()["kind"] == "stream"
