"""What a log does for its users, whether it is a directory or at an address: one suite for both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from millstream.errors import (
    FencedError,
    GroupActiveError,
    InvalidGroupError,
    InvalidTopicError,
    OffsetOutOfRangeError,
    OptionError,
    SchemaMismatchError,
    SequenceError,
    TopicExistsError,
    TransactionError,
    UnknownColumnError,
    UnknownGroupError,
    UnknownTopicError,
)
from millstream.log import Log, Topic
from tests.log.log_kit import SCHEMA, ids_of, log_on, put, read, rows
from tests.log.remote.remote_kit import memory_disk, remote_log, served

WORD = pa.dictionary(pa.int8(), pa.string())
TABLE = pa.schema([("id", pa.int64()), ("text", pa.string())])


@pytest.fixture(params=["directory", "address"])
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    disk = memory_disk()
    if request.param == "directory":
        yield log_on(disk.storage("a"))
        return
    with served(disk) as server, remote_log(server.address) as log:
        yield log


class TestTopics:
    def test_they_are_created_listed_and_deleted(self, log: Log) -> None:
        assert log.topic_names() == []
        created = log.create_topic("b", SCHEMA, partitions=3, key=["id"])
        log.create_topic("a", SCHEMA)
        assert log.topic_names() == ["a", "b"]
        assert (created.name, created.partitions, created.config.key) == ("b", 3, ("id",))
        assert log.topic("b").schema.equals(SCHEMA)
        log.delete_topic("b")
        assert log.topic_names() == ["a"]

    def test_a_name_is_taken_once(self, log: Log) -> None:
        first = log.create_topic("a", SCHEMA)
        with pytest.raises(TopicExistsError, match="topic 'a' exists already"):
            log.create_topic("a", SCHEMA)
        again = log.create_topic("a", SCHEMA, partitions=2, if_not_exists=True)
        assert again.config == first.config

    def test_an_unknown_topic_is_told_with_the_nearest(self, log: Log) -> None:
        log.create_topic("flights", SCHEMA)
        for ask in (log.topic, log.producer, log.consumer, log.delete_topic):
            with pytest.raises(UnknownTopicError, match=r"no topic 'flihgts'.*mean 'flights'"):
                ask("flihgts")

    @pytest.mark.parametrize("name", ["../etc", "a/b", "", "x" * 250, "ä", ".."])
    def test_a_name_with_a_path_in_it_is_refused(self, log: Log, name: str) -> None:
        with pytest.raises(InvalidTopicError, match="cannot be a topic's name"):
            log.create_topic(name, SCHEMA)
        assert log.topic_names() == []

    def test_bad_options_are_refused(self, log: Log) -> None:
        with pytest.raises(InvalidTopicError, match="1 to 4096 partitions"):
            log.create_topic("a", SCHEMA, partitions=0)
        with pytest.raises(InvalidTopicError, match="no column 'idd'"):
            log.create_topic("a", SCHEMA, key=["idd"])
        with pytest.raises(InvalidTopicError, match=r"no setting 'segment\.byte'"):
            log.create_topic("a", SCHEMA, config={"segment.byte": 1})
        assert log.topic_names() == []

    def test_settings_are_altered(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA, config={"segment.bytes": 4096})
        assert topic.config.config == {"segment.bytes": 4096}
        altered = log.alter_topic("a", config={"retention.ms": 5, "segment.bytes": None})
        assert altered.config.config == {"retention.ms": 5}
        assert log.topic("a").config.config == {"retention.ms": 5}
        with pytest.raises(InvalidTopicError, match="is a whole number"):
            log.alter_topic("a", config={"retention.ms": "never"})
        with pytest.raises(UnknownTopicError):
            log.alter_topic("b", config={})

    def test_columns_are_added(self, log: Log) -> None:
        log.create_topic("a", SCHEMA)
        put(log, "a", range(2))
        producer = log.producer("a")
        more = pa.field("more", pa.list_(pa.int8()))
        topic = log.alter_topic("a", add_columns=[more])
        assert topic.schema == pa.schema([*SCHEMA, more])
        producer.append(pa.table({"id": [2], "more": pa.array([[1]], more.type)}))
        put(log, "a", [3])
        producer.flush()
        found = log.topic("a").to_arrow(["id", "more"]).to_pydict()
        assert found == {"id": [0, 1, 2, 3], "more": [None, None, [1], None]}
        with pytest.raises(InvalidTopicError, match="'more' already"):
            log.alter_topic("a", add_columns=[more])

    def test_rows_have_times_and_headers(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)
        with log.producer("a") as producer:
            producer.append(rows(0, 1), timestamps=[7, None], headers=[{"k": b"v"}, None])
        found = topic.to_arrow(["_timestamp", "_headers", "_offset", "_partition", "_op"])
        assert found["_timestamp"].cast(pa.int64())[0].as_py() == 7
        assert found["_headers"].to_pylist() == [[{"key": "k", "value": b"v"}], None]
        assert found["_offset"].to_pylist() == [0, 1]
        assert found["_partition"].to_pylist() == found["_op"].to_pylist() == [0, 0]

    def test_what_a_topic_is_can_be_described(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA, partitions=2, key=["id"])
        put(log, "a", range(10))
        described = topic.describe()
        assert (described["name"], described["kind"], described["key"]) == ("a", "stream", ["id"])
        partitions = described["partitions"]
        assert isinstance(partitions, list)
        assert sum(each["stable_end"] for each in partitions) == 10

    def test_who_has_a_deleted_topic_open_finds_out(self, log: Log) -> None:
        log.create_topic("a", SCHEMA)
        producer = log.producer("a")
        producer.append(rows(1))
        log.delete_topic("a")
        log.create_topic("a", SCHEMA)
        with pytest.raises(UnknownTopicError, match="deleted"):
            producer.append(rows(2))
        assert read(log.topic("a")) == []


class TestRows:
    def test_they_come_back_in_order_and_by_key(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA, partitions=4, key=["id"])
        put(log, "a", range(100))
        put(log, "a", range(100, 200))
        parts = [read(topic, index) for index in range(4)]
        assert all(part and part == sorted(part) for part in parts)
        assert sorted(chain(*parts)) == list(range(200))
        assert topic.durable_ends() == topic.stable_ends() == [len(part) for part in parts]

    def test_columns_of_every_kind_come_back(self, log: Log) -> None:
        table = pa.table(
            {
                "number": pa.array([1, None, 3], pa.int32()),
                "flag": [True, None, False],
                "amount": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(9, 2)),
                "at": pa.array([1, 2, None], pa.timestamp("ns", "Europe/Vienna")),
                "list": [[1, 2], None, []],
                "nested": [{"a": "x", "b": [b"y"]}, None, {"a": None, "b": None}],
                "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
                "nothing": pa.nulls(3),
                "large": pa.array(["ä", "", None], pa.large_string()),
                "word": pa.array(["x", None, "x"]).dictionary_encode(),
                "words": pa.array(
                    [["x"], None, []], pa.list_(pa.dictionary(pa.int8(), pa.string()))
                ),
            }
        )
        topic = log.create_topic("a", table.schema)
        with log.producer("a") as producer:
            producer.append(table.slice(1))
            producer.append(table)
        assert topic.to_arrow() == pa.concat_tables([table.slice(1), table])
        assert topic.to_arrow(["map", "number"]).schema.names == ["map", "number"]

    def test_unflushed_rows_are_not_seen(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)
        producer = log.producer("a")
        producer.append(rows(1, 2))
        assert (topic.partition(0).written_end, topic.partition(0).durable_end) == (2, 0)
        assert read(topic) == []
        producer.flush()
        assert read(topic) == [1, 2]

    def test_with_durability_os_they_are_seen_at_once(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA, durability="os")
        log.producer("a").append(rows(1, 2))
        assert read(topic) == [1, 2]

    def test_what_does_not_fit_is_refused_and_nothing_written(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)
        producer = log.producer("a")
        with pytest.raises(UnknownColumnError, match="no column 'texd'"):
            producer.append(pa.table({"id": [1], "texd": ["x"]}))
        with pytest.raises(SchemaMismatchError, match="column 'id'"):
            producer.append(pa.table({"id": ["x"]}))
        with pytest.raises(OptionError, match="partitions 0 to 0"):
            producer.append(rows(1), partition=1)
        with pytest.raises(SchemaMismatchError, match="no column 'more'"):
            topic.partition(0).append(pa.record_batch({"id": [1], "text": ["x"], "more": [1]}))
        assert topic.partition(0).written_end == 0

    def test_single_rows_are_gathered(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA, partitions=2, key=["id"])
        with log.producer("a") as producer:
            for each in range(50):
                producer.send({"id": each, "text": None})
        assert sorted(ids_of(topic.to_arrow())) == list(range(50))

    def test_a_named_producer_goes_on_where_it_was(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)
        with log.producer("a", name="me") as first:
            first.append(rows(1))
            first.append(rows(2))
        partition = topic.partition(0)
        writer = log.transactions.writer("me")
        last = partition.last_sequence(writer.owner_id)
        assert last > 0

        def append(row: int, sequence: int) -> None:
            partition.append(
                rows(row),
                owner_id=writer.owner_id,
                epoch=writer.epoch,
                sequence=sequence,
                follows=sequence - 1,
            )

        append(3, last + 1)
        append(3, last + 1)  # it comes again
        with pytest.raises(SequenceError):
            append(9, last + 9)
        with pytest.raises(FencedError):
            first.append(rows(9))
        with log.producer("a", name="me") as again:
            again.append(rows(4))
        assert read(topic) == [1, 2, 3, 4]

    def test_a_condition_leaves_rows_out(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA, config={"segment.bytes": 2048})
        for start in range(0, 60, 10):
            put(log, "a", range(start, start + 10))
        found = topic.to_arrow(["id"], where=pc.field("id") >= 55)
        assert ids_of(found) == [55, 56, 57, 58, 59]

    def test_segments_roll_and_are_read_across(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA, config={"segment.bytes": 2048})
        for start in range(0, 100, 10):
            put(log, "a", range(start, start + 10))
        assert read(topic) == list(range(100))
        segments = topic.partition(0).segments()
        assert len(segments) > 3
        assert [base for base, _ in segments] == sorted(base for base, _ in segments)
        for offset in (0, 5, 55, 99, 100):
            assert read(topic, offset=offset) == list(range(offset, 100))

    def test_an_offset_out_of_range_is_told_with_the_range(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)
        put(log, "a", range(3))
        for offset in (-1, 4):
            with pytest.raises(OffsetOutOfRangeError, match=f"from 0 to 3; got {offset}"):
                topic.reader(0, offset=offset)

    def test_a_range_and_a_time_are_found(self, log: Log) -> None:
        schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us"))])
        topic = log.create_topic("a", schema, time="at")
        with log.producer("a") as producer:
            for each in range(10):
                producer.append(
                    pa.table({"id": [each], "at": pa.array([each * 10], pa.timestamp("us"))})
                )
        assert [topic.offset_at_time(0, time) for time in (0, 35, 90, 91)] == [0, 4, 9, 10]
        assert ids_of(topic.read(0, 3, 6)) == [3, 4, 5]
        reader = topic.reader(0)
        reader.seek_time(75)
        assert ids_of(reader.read()) == [8, 9]

    def test_a_reader_goes_on_as_the_topic_grows(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)
        reader = topic.reader(0)
        assert reader.read() is None
        for each in range(5):
            put(log, "a", [each, each + 100])
            assert ids_of(reader.read()) == [each, each + 100]
            assert reader.at_end()
        assert reader.position == 10

    def test_system_columns_can_be_read(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)
        put(log, "a", [7, 8])
        batch = topic.reader(0, columns=["_offset", "id", "_partition"]).read()
        assert batch is not None
        assert batch.to_pydict() == {"_offset": [0, 1], "id": [7, 8], "_partition": [0, 0]}

    def test_optional_system_columns_are_stored(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)
        stamped = rows(1).append_column(
            pa.field("_timestamp", pa.timestamp("us", "UTC")),
            pa.array([5], pa.timestamp("us", "UTC")),
        )
        partition = topic.partition(0)
        partition.append(stamped)
        partition.append(rows(2))
        partition.sync()
        batch = topic.reader(0, columns=["id", "_timestamp"]).read()
        assert batch is not None
        assert batch.column("id").to_pylist() == [1, 2]
        assert batch.column("_timestamp").cast(pa.int64())[0].as_py() == 5


class TestTables:
    def test_the_latest_row_of_a_key_holds(self, log: Log) -> None:
        topic = log.create_topic("t", TABLE, key=["id"], table=True, partitions=2)
        with log.producer("t") as producer:
            producer.append(pa.table({"id": [1, 2, 3], "text": ["a", "b", "c"]}))
            producer.append(pa.table({"id": [2], "text": ["B"]}))
            producer.delete(pa.table({"id": [3]}))
        assert sorted(topic.latest().to_pydict()["text"]) == ["B", "a"]
        assert sorted(topic.to_arrow().to_pydict()["text"]) == ["B", "a", "b", "c"]

    def test_readers_pass_the_gaps_of_a_compacted_one(self, log: Log) -> None:
        config = {"segment.bytes": 2048, "min.cleanable.dirty.ratio": 0.0}
        topic = log.create_topic("t", TABLE, key=["id"], table=True, config=config)
        early = topic.reader(0)
        for each in range(60):
            put(log, "t", [each % 7, 100 + each % 3])
        put(log, "t", [0])
        assert len(ids_of(early.read(rows_max=4))) == 4
        before = topic.latest().sort_by("id")
        log.clean("t")
        assert topic.latest().sort_by("id") == before
        found = offsets_of(topic, 0)
        assert found == sorted(set(found))
        assert len(found) < 100
        for offset in (1, found[3] + 1, 120, 121):
            assert offsets_of(topic, offset) == [each for each in found if each >= offset]
        while early.read() is not None:
            pass
        assert early.position == 121


def offsets_of(topic: Topic, start: int) -> list[int]:
    """The offsets of all rows from one on; the reader ends at the topic's end."""
    reader = topic.reader(0, offset=start, columns=["_offset"])
    found: list[int] = []
    while (batch := reader.read()) is not None:
        found += batch.column("_offset").to_pylist()
    assert reader.position == topic.stable_ends()[0]
    return found


class TestConsumers:
    def test_they_read_topics_and_seek(self, log: Log) -> None:
        log.create_topic("a", SCHEMA, partitions=2)
        log.create_topic("b", SCHEMA)
        put(log, "a", range(5), partition=0)
        put(log, "a", range(5, 10), partition=1)
        put(log, "b", range(10, 15))
        consumer = log.consumer(["a", "b"])
        found = sorted(chain(*(ids_of(batch) for batch in consumer)))
        assert found == list(range(15))
        assert list(consumer.positions.values()) == [5, 5, 5]
        assert consumer.poll() is None
        consumer.seek(("a", 1), 3)
        assert ids_of(consumer.poll()) == [8, 9]
        assert log.consumer("a", start="end").poll() is None

    def test_a_poll_waits_for_rows(self, log: Log) -> None:
        log.create_topic("a", SCHEMA)
        consumer = log.consumer("a")
        assert consumer.poll(timeout_us=2_000) is None
        put(log, "a", [1])
        assert ids_of(consumer.poll(timeout_us=1_000_000)) == [1]


class TestGroups:
    @pytest.fixture
    def topics(self, log: Log) -> Log:
        log.create_topic("a", SCHEMA, partitions=2)
        put(log, "a", range(5), partition=0)
        put(log, "a", range(5, 10), partition=1)
        return log

    def test_members_share_and_commit(self, topics: Log) -> None:
        with topics.consumer("a", group="g") as one:
            found = sorted(chain(*(ids_of(batch) for batch in one)))
            assert found == list(range(10))
            described = topics.group("g").describe()
            assert (described["name"], described["state"]) == ("g", "stable")
            assert described["members"][0]["owned"] == [("a", 0), ("a", 1)]
            assert described["members"][0]["owned"][0].topic == "a"
        assert topics.groups() == ["g"]
        group = topics.group("g")
        assert group.committed() == {("a", 0): 5, ("a", 1): 5}
        put(topics, "a", [11], partition=1)
        assert group.lag() == {("a", 0): 0, ("a", 1): 1}
        with topics.consumer("a", group="g") as other:
            assert list(chain(*(ids_of(batch) for batch in other))) == [11]

    def test_a_group_is_reset_and_deleted(self, topics: Log) -> None:
        group = topics.group("g")
        with pytest.raises(UnknownGroupError, match="no group 'g'"):
            group.committed()
        changes = group.reset(["a"], to_offset=3, dry_run=True)
        assert [(*each.partition, each.before, each.after) for each in changes] == [
            ("a", 0, None, 3),
            ("a", 1, None, 3),
        ]
        assert topics.groups() == []
        group.reset(partitions=[("a", 1)], to="end")
        group.reset(["a"], to_time=datetime(2100, 1, 1, tzinfo=UTC))
        group.commit({("a", 0): 4})
        assert group.committed() == {("a", 0): 4, ("a", 1): 5}
        with pytest.raises(OptionError, match="give one of beginning"):
            group.reset(["a"])
        with pytest.raises(OptionError, match="partitions 0 to 1"):
            group.commit({("a", 2): 0})
        with topics.consumer("a", group="g") as member:
            member.poll()
            with pytest.raises(GroupActiveError, match="living members"):
                group.delete()
        group.delete()
        assert topics.groups() == []

    @pytest.mark.parametrize("name", ["../etc", "", "a/b"])
    def test_a_group_whose_name_is_a_path_is_refused(self, topics: Log, name: str) -> None:
        for ask in (topics.group, lambda name: topics.consumer("a", group=name)):
            with pytest.raises(InvalidGroupError, match="cannot be a group's name"):
                ask(name)


class TestNamedProducers:
    def test_an_append_that_is_made_again_is_stored_once(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA, partitions=3, key=["id"])
        with log.producer("a", name="p") as producer:
            assert (producer.sequence, producer.stored_sequences()) == (0, [0, 0, 0])
            producer.append(rows(*range(10)), sequence=4)
            producer.append(rows(*range(10)), sequence=4)
            producer.append(rows(10))
            producer.send({"id": 11})
        assert producer.sequence == 6
        with pytest.raises(SequenceError, match="sequence 3 comes after 6"):
            producer.append(rows(12), sequence=3)
        assert sorted(ids_of(topic.to_arrow())) == list(range(12))
        assert max(producer.stored_sequences()) == 6

    def test_it_goes_from_an_event_loop(self, log: Log) -> None:
        topic = log.create_topic("a", SCHEMA)

        async def append() -> list[int]:
            async with log.async_producer("a", name="p") as producer:
                await producer.append(rows(1, 2), sequence=7)
                await producer.append(rows(1, 2), sequence=7)
                await producer.send({"id": 3})
                await producer.flush()
                assert producer.sequence == 8
                return await producer.stored_sequences()

        assert asyncio.run(append()) == [8]
        assert read(topic) == [1, 2, 3]


class TestTransactions:
    @pytest.fixture
    def topics(self, log: Log) -> Log:
        log.create_topic("a", SCHEMA)
        log.create_topic("b", SCHEMA)
        return log

    def seen(self, log: Log) -> tuple[list[int], list[int]]:
        return read(log.topic("a")), read(log.topic("b"))

    def test_rows_of_all_topics_are_seen_at_once(self, topics: Log) -> None:
        with topics.transaction("billing") as transaction:
            transaction.append("a", rows(1, 2))
            transaction.append("b", rows(3))
            topics.topic("a").partition(0).sync()
            assert self.seen(topics) == ([], [])
            uncommitted = topics.topic("a").reader(0, isolation="read_uncommitted")
            assert ids_of(uncommitted.read()) == [1, 2]
        assert self.seen(topics) == ([1, 2], [3])
        assert topics.transactions.owners() == ["billing"]

    def test_one_that_fails_is_taken_back(self, topics: Log) -> None:
        with pytest.raises(ZeroDivisionError), topics.transaction("billing") as transaction:
            transaction.append("a", rows(1))
            transaction.append("b", pa.table({"id": [1 // 0]}))
        put(topics, "a", [2])
        assert self.seen(topics) == ([2], [])
        assert topics.topic("a").stable_ends() == [2]

    def test_readers_wait_at_an_open_one(self, topics: Log) -> None:
        transactions = topics.transactions
        writer = transactions.writer("slow")
        producer = topics.producer("a", writer=writer)
        put(topics, "a", [1])
        producer.append(rows(2), transaction=1)
        producer.flush()
        put(topics, "a", [3])
        assert read(topics.topic("a")) == [1]
        assert topics.topic("a").stable_ends() == [1]
        transactions.prepare(writer, 1, [("a", 0)])
        assert [(each.writer, each.number) for each in transactions.prepared()] == [(writer, 1)]
        transactions.decide(writer, 1, "commit", b'{"n": 1}')
        assert read(topics.topic("a")) == [1, 2, 3]
        assert transactions.prepared() == []
        assert transactions.newest_manifest("slow") == b'{"n": 1}'

    def test_a_later_life_fences_the_earlier(self, topics: Log) -> None:
        transactions = topics.transactions
        old = transactions.writer("me")
        producer = topics.producer("a", writer=old)
        producer.append(rows(1), transaction=1)
        new = transactions.writer("me")
        assert (new.owner_id, new.epoch) == (old.owner_id, old.epoch + 1)
        with pytest.raises(FencedError, match="'me' writes with epoch 1, but epoch 2"):
            producer.append(rows(2), transaction=1)
        with pytest.raises(FencedError):
            transactions.check(old)
        with pytest.raises(FencedError):
            transactions.prepare(old, 1, [("a", 0)])
        with pytest.raises(FencedError):
            transactions.decide(old, 1, "commit")
        put(topics, "a", [3])
        assert read(topics.topic("a")) == [3]

    def test_a_decision_is_final(self, topics: Log) -> None:
        transactions = topics.transactions
        writer = transactions.writer("me")
        transactions.decide(writer, 1, "commit")
        transactions.decide(writer, 1, "commit")
        with pytest.raises(TransactionError, match="is committed already"):
            transactions.decide(writer, 1, "abort")
        with pytest.raises(TransactionError, match="no JSON"):
            transactions.decide(writer, 2, "commit", b"{")


class TestRepartitions:
    def test_producers_consumers_and_groups_follow(self, log: Log) -> None:
        log.create_topic("a", SCHEMA, partitions=2, key=["id"])
        producer = log.producer("a")
        consumer = log.consumer("a")
        producer.append(rows(*range(20)))
        producer.flush()
        with log.consumer("a", group="g", auto_commit_interval_ms=1) as member:
            found = [ids_of(each) for each in (consumer.poll(), member.poll(1_000_000))]
            assert log.repartition("a", 3).partitions == 3
            producer.append(rows(*range(20, 40)))
            producer.flush()
            for reader, got in zip((consumer, member), found, strict=True):
                while len(got) < 40:
                    got.extend(ids_of(reader.poll(1_000_000)))
            assert [sorted(ids) for ids in found] == [list(range(40))] * 2
            assert consumer.generations == member.generations == {"a": 1}
            member.commit()
            assert log.group("g").generations() == {"a": 1}
            assert sum(log.group("g").lag().values()) == 0
        topic = log.topic("a")
        assert sorted(ids_of(topic.to_arrow())) == list(range(40))
        described = topic.describe()
        assert (described["generation"], len(described["older"])) == (1, 1)  # type: ignore[arg-type]
        assert topic.reader(0, generation=0).read() is not None
        with pytest.raises(InvalidTopicError, match="1 to 4096 partitions; got 0"):
            log.repartition("a", 0)

    def test_a_transaction_may_cross_the_seam(self, log: Log) -> None:
        log.create_topic("a", SCHEMA, partitions=4, key=["id"])
        with log.transaction("x") as transaction:
            transaction.append("a", rows(*range(20)))
            log.repartition("a", 1)
            transaction.append("a", rows(*range(20, 30)))
        found = [each for batch in log.consumer("a") for each in ids_of(batch)]
        assert sorted(found) == list(range(30))
