"""Transactions: rows of several topics are seen all at once, or never; whoever dies, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from millstream.errors import FencedError, LogError, TransactionError, UnknownTopicError
from millstream.log import Log, epoch_cells
from millstream.log.control_topic import ControlTopic
from millstream.log.cursor import FrameCursor
from millstream.log.partition import Partition
from millstream.log.transaction import Transaction
from millstream.log.transactions import Writer
from tests.log.log_kit import (
    PATH,
    SCHEMA,
    another,
    ids_of,
    log_on,
    memory,
    memory_log,
    put,
    read,
    rows,
)


@pytest.fixture
def log() -> Log:
    log = memory_log()
    for name in "ab":
        log.create_topic(name, SCHEMA)
    return log


def seen(log: Log) -> tuple[list[int], list[int]]:
    """What a read-committed reader in another process sees of both topics."""
    other = another(log)
    return read(other.topic("a")), read(other.topic("b"))


class TestUsersTransactions:
    def test_rows_of_all_topics_are_seen_at_once(self, log: Log) -> None:
        with log.transaction("billing") as transaction:
            transaction.append("a", rows(1, 2))
            transaction.append("b", rows(3))
            log.topic("a").partition(0).sync()
            assert seen(log) == ([], [])
        assert seen(log) == ([1, 2], [3])

    def test_an_error_inside_takes_all_back(self, log: Log) -> None:
        with pytest.raises(ZeroDivisionError), log.transaction("billing") as transaction:
            transaction.append("a", rows(1))
            transaction.append("b", pa.table({"id": [1 // 0]}))
        with log.transaction("billing") as transaction:
            transaction.append("a", rows(2))
        assert seen(log) == ([2], [])

    def test_one_that_was_decided_takes_no_more(self, log: Log) -> None:
        with log.transaction("billing") as transaction:
            transaction.append("a", rows(1))
        calls: list[Callable[[], object]] = [
            lambda: transaction.append("a", rows(1)),
            lambda: transaction.delete("a", rows(1)),
            transaction.commit,
        ]
        for call in calls:
            with pytest.raises(TransactionError, match="'billing' is decided; begin another"):
                call()
        transaction.abort()
        assert seen(log) == ([1], [])

    def test_it_may_be_decided_inside_the_block(self, log: Log) -> None:
        with log.transaction("billing") as transaction:
            transaction.append("a", rows(1))
            transaction.abort()
        with log.transaction("billing") as transaction:
            transaction.append("a", rows(2))
            transaction.commit()
        assert seen(log) == ([2], [])

    def test_a_mistake_is_the_users_and_the_rest_is_taken_back(self, log: Log) -> None:
        with pytest.raises(UnknownTopicError), log.transaction("billing") as transaction:
            transaction.append("a", rows(1))
            transaction.append("c", rows(1))
        assert seen(log) == ([], [])
        assert read(log.topic("a")) == []

    def test_partitions_and_tables(self, log: Log) -> None:
        log.create_topic("table", SCHEMA, key=["id"], table=True, partitions=3)
        with log.transaction("billing") as transaction:
            transaction.append("table", rows(*range(20)))
            transaction.delete("table", pa.table({"id": [3]}))
        with pytest.raises(ZeroDivisionError), log.transaction("billing") as transaction:
            transaction.delete("table", pa.table({"id": [4]}))
            transaction.append("table", pa.table({"id": [1 // 0]}))
        assert sorted(ids_of(another(log).topic("table").latest())) == sorted({*range(20)} - {3})

    def test_the_next_of_its_owner_aborts_what_was_left_open(self, log: Log) -> None:
        left = Transaction(log, log.transactions.writer("billing"))
        left.append("a", rows(1))
        log.topic("a").partition(0).sync()
        put(log, "a", [2])
        assert seen(log) == ([], [])
        with another(log).transaction("billing") as transaction:
            transaction.append("b", rows(3))
        assert seen(log) == ([2], [3])
        with pytest.raises(FencedError, match="'billing' writes with epoch 1, but epoch 2"):
            left.append("a", rows(4))
        with pytest.raises(FencedError, match="Let one of them run"):
            left.commit()
        left.abort()
        assert seen(log) == ([2], [3])

    def test_others_are_left_in_peace(self, log: Log) -> None:
        with log.transaction("billing") as one:
            one.append("a", rows(1))
            with another(log).transaction("stock") as other:
                other.append("a", rows(2))
            assert seen(log) == ([], [])
        assert seen(log) == ([1, 2], [])

    @pytest.mark.parametrize("after", range(3))
    def test_a_commit_that_the_disk_refuses_is_aborted_or_left_to_the_next(
        self, log: Log, after: int
    ) -> None:
        error = OSError(28, "No space left on device")
        with pytest.raises(LogError, match="No space left"), log.transaction("x") as transaction:
            transaction.append("a", rows(1))
            memory(log).fail("sync", error, after=after)
        other = another(log)  # opening verifies what the refused sync left behind
        with other.transaction("x") as transaction:
            transaction.append("b", rows(2))
        assert seen(log) in [([], [2]), ([1], [2])]


class TestWriters:
    def test_an_owner_keeps_its_number_and_every_life_has_its_epoch(self, log: Log) -> None:
        one = log.transactions.writer("one")
        assert one == Writer("one", 1, 1)
        assert another(log).transactions.writer("two") == Writer("two", 2, 1)
        assert log.transactions.writer("one") == Writer("one", 1, 2)
        assert another(log).transactions.owners() == ["one", "two"]
        assert log.transactions.owner(2) == "two"
        assert log.transactions.owner(3) == "owner 3"

    def test_a_superseded_one_is_fenced_everywhere(self, log: Log) -> None:
        old = log.transactions.writer("job")
        producer = log.producer("a", writer=old)
        producer.append(rows(1), transaction=1)
        producer.flush()
        another(log).transactions.writer("job")
        calls: list[Callable[[], object]] = [
            lambda: producer.append(rows(2), transaction=1),
            lambda: producer.append(rows(2)),
            lambda: log.transactions.check(old),
            lambda: log.transactions.prepare(old, 1, [("a", 0)]),
            lambda: log.transactions.decide(old, 1, "commit"),
            lambda: log.transactions.decide(old, 1, "abort"),
        ]
        for call in calls:
            with pytest.raises(FencedError, match="another run of it started"):
                call()
        assert log.topic("a").durable_ends() == [1]
        assert seen(log) == ([], [])

    def test_frames_of_a_straggler_are_aborted_though_it_was_not_fenced(self, log: Log) -> None:
        old = log.transactions.writer("job")
        new = log.transactions.writer("job")
        # As if it had passed the check before the new epoch was taken.
        straggler = log.producer("a", writer=old)
        straggler._fence = None
        straggler.append(rows(1), transaction=2)
        with log.producer("a", writer=new) as producer:
            producer.append(rows(2), transaction=2)
        log.transactions.decide(new, 2, "commit")
        assert seen(log) == ([2], [])

    def test_there_are_only_so_many_owners(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(epoch_cells, "OWNERS_MAX", 2)
        for owner in ("one", "two", "one"):
            log.transactions.writer(owner)
        with pytest.raises(TransactionError, match="at most 2 owners"):
            log.transactions.writer("three")
        log.transactions.writer("two")
        assert another(log).transactions.owners() == ["one", "two"]

    @pytest.mark.parametrize("seed", range(40))
    def test_epochs_outlive_power_cuts(self, seed: int) -> None:
        log = memory_log(seed)
        log.create_topic("a", SCHEMA)
        old = log.transactions.writer("one")
        for _ in range(3):
            log.transactions.writer("two")
            log.transactions.writer("one")
        memory(log).disk.power_cut()
        log = another(log)
        with pytest.raises(FencedError, match="epoch 4 was taken"):
            log.producer("a", writer=old).append(rows(1))
        assert log.transactions.writer("one").epoch == 5
        assert log.transactions.writer("two").epoch == 4
        with log.producer("a", writer=Writer("one", 1, 5)) as producer:
            producer.append(rows(2))


class TestDecisions:
    def test_several_transactions_of_one_writer(self, log: Log) -> None:
        writer = log.transactions.writer("job")
        producer = log.producer("a", writer=writer)
        for number in (1, 2, 3):
            producer.append(rows(number), transaction=number)
        producer.append(rows(4))
        producer.flush()
        log.transactions.decide(writer, 2, "commit")
        assert seen(log) == ([], [])
        log.transactions.decide(writer, 1, "abort")
        assert seen(log) == ([2], [])
        log.transactions.decide(writer, 3, "commit")
        assert seen(log) == ([2, 3, 4], [])
        uncommitted = log.topic("a").reader(0, isolation="read_uncommitted")
        assert ids_of(uncommitted.read()) == [1, 2, 3, 4]

    def test_a_decision_is_final(self, log: Log) -> None:
        writer = log.transactions.writer("job")
        log.transactions.decide(writer, 1, "commit")
        log.transactions.decide(writer, 2, "abort")
        log.transactions.decide(writer, 1, "commit")
        log.transactions.decide(writer, 2, "abort")
        with pytest.raises(TransactionError, match="transaction 1 of 'job', epoch 1, is committed"):
            log.transactions.decide(writer, 1, "abort")
        with pytest.raises(TransactionError, match="it cannot be committed"):
            another(log).transactions.decide(writer, 2, "commit")
        log.transactions.writer("job")
        assert log.transactions.decision(1, 1, 1) == "committed"
        assert log.transactions.decision(1, 1, 3) == "aborted"
        assert log.transactions.decision(1, 2, 3) == "undecided"

    def test_a_prepared_one_outlives_its_process(self, log: Log) -> None:
        disk = memory(log).disk
        writer = log.transactions.writer("job")
        for number, topic in ((7, "a"), (8, "b")):
            log.producer(topic, writer=writer).append(rows(number), transaction=number)
            log.transactions.prepare(writer, number, [(topic, 0)])
        disk.power_cut()
        log = log_on(disk.storage("operator"))
        one, other = log.transactions.prepared()
        assert (one.writer, one.number, one.participants) == (writer, 7, (("a", 0),))
        assert one.since_us == 1_000_000
        log.transactions.decide(one.writer, one.number, "commit")
        assert log.transactions.prepared() == [other]
        assert another(log).transactions.prepared() == [other]
        assert seen(log) == ([7], [])
        log.transactions.writer("job")
        assert log.transactions.prepared() == []
        assert seen(log) == ([7], [])

    def test_prepare_makes_every_participant_durable(self, log: Log) -> None:
        writer = log.transactions.writer("job")
        for topic in "ab":
            log.producer(topic, writer=writer).append(rows(1), transaction=1)
        assert log.topic("a").durable_ends() == [0]
        log.transactions.prepare(writer, 1, [("a", 0), ("b", 0)])
        assert log.topic("a").durable_ends() == log.topic("b").durable_ends() == [1]

    def test_a_manifest_goes_with_the_decision(self, log: Log) -> None:
        transactions = log.transactions
        writer = transactions.writer("job")
        assert transactions.newest_manifest("job") is None
        assert transactions.newest_manifest("nobody") is None
        transactions.decide(writer, 1, "commit", b'{"checkpoint": 1, "text": "\\u00e9"}')
        transactions.decide(writer, 2, "commit")
        transactions.decide(writer, 3, "abort", b'{"checkpoint": 3}')
        transactions.decide(transactions.writer("other"), 1, "commit", b"[1]")
        for each in (transactions, another(log).transactions):
            assert each.newest_manifest("job") == b'{"checkpoint": 1, "text": "\\u00e9"}'
            assert each.newest_manifest("other") == b"[1]"

    @pytest.mark.parametrize("manifest", [b"", b"{", b"\xff", b"{} {}"])
    def test_a_manifest_that_nobody_could_read_is_refused(self, log: Log, manifest: bytes) -> None:
        writer = log.transactions.writer("job")
        with pytest.raises(TransactionError, match="is no JSON"):
            log.transactions.decide(writer, 1, "commit", manifest)
        log.transactions.decide(writer, 1, "commit", b"{}")
        assert another(log).transactions.newest_manifest("job") == b"{}"

    def test_a_record_of_a_newer_version_is_not_passed_over(self, log: Log) -> None:
        log.transactions.writer("job")
        control = ControlTopic(PATH, log.storage, log.clock)
        record = pa.record_batch([pa.array([b'{"type": "future"}'], pa.binary())], ["record"])
        partition = control.partition
        partition.append(record.cast(partition.schema))
        partition.sync()
        with pytest.raises(LogError, match="does not know, at offset 2"):
            another(log).transactions.refresh()


class TestLastStableOffset:
    def test_describe_says_who_holds_it(self, log: Log) -> None:
        put(log, "a", [1, 2])
        writer = log.transactions.writer("job late")
        with log.producer("a", writer=writer) as producer:
            producer.append(rows(3), transaction=9)
        put(log, "a", [4])

        def described() -> dict[str, object]:
            partition = another(log).topic("a").describe()["partitions"]
            assert isinstance(partition, list)
            return dict(partition[0])

        before = described()
        assert (before["stable_end"], before["durable_end"]) == (2, 4)
        assert before["open_transaction"] == {
            "owner": "job late", "epoch": 1, "number": 9, "since_us": 1_000_000,
        }  # fmt: skip
        log.transactions.decide(writer, 9, "abort")
        after = described()
        assert (after["stable_end"], after["open_transaction"]) == (4, None)

    def test_readers_stop_there_wherever_they_start(self, log: Log) -> None:
        put(log, "a", [0, 1])
        writer = log.transactions.writer("job")
        producer = log.producer("a", writer=writer)
        producer.append(rows(2, 3), transaction=1)
        producer.flush()
        put(log, "a", [4, 5])
        topic = another(log).topic("a")
        assert topic.stable_ends() == [2]
        readers = [topic.reader(0, offset=offset) for offset in range(7)]
        beyond = topic.reader(0)
        beyond.seek(5)
        assert beyond.at_end()
        timed = topic.reader(0)
        timed.seek_time(2**60)
        found = [ids_of(each.read()) for each in [*readers, beyond, timed]]
        assert found == [[0, 1], [1], [], [], [], [], [], [], []]
        assert [each.position for each in readers] == [2, 2, 2, 3, 4, 5, 6]
        log.transactions.decide(writer, 1, "commit")
        found = [ids_of(each.read()) for each in [*readers, beyond]]
        assert found == [*([2, 3, 4, 5][max(offset - 2, 0) :] for offset in range(7)), [5]]
        uncommitted = topic.reader(0, offset=4, isolation="read_uncommitted")
        assert ids_of(uncommitted.read()) == [4, 5]

    @pytest.mark.parametrize("until", [1, 2, 3, 4])
    def test_a_bounded_reader_gets_to_its_end_over_aborted_rows(self, log: Log, until: int) -> None:
        put(log, "a", [0])
        with log.transaction("x") as transaction:
            transaction.append("a", rows(1, 2))
            transaction.abort()
        put(log, "a", [3, 4])
        reader = log.topic("a").reader(0)
        assert ids_of(reader.read(until=until)) == [0, 3][: 1 + (until == 4)]
        reader.read(until=until)
        assert reader.position == until
        assert ids_of(reader.read()) == [3, 4][until == 4 :]

    def test_what_one_reader_found_decided_spares_others_the_way(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for each in range(20):
            put(log, "a", [each])
        writer = log.transactions.writer("job")
        with log.producer("a", writer=writer) as producer:
            producer.append(rows(20), transaction=1)
        put(log, "a", [21])
        partition = log.topic("a").partition(0)
        assert partition.settled_end == 0
        assert len(read(another(log).topic("a"))) == 20
        assert partition.settled_end == 20
        uncommitted = log.topic("a").reader(0, isolation="read_uncommitted")
        assert len(ids_of(uncommitted.read())) == 22
        assert uncommitted.read() is None
        assert partition.settled_end == 20
        late = another(log)
        opened: list[int] = []
        frames = Partition.frames

        def noted(self: Partition, offset: int, columns: Any = None) -> FrameCursor:
            opened.append(offset)
            return frames(self, offset, columns)

        monkeypatch.setattr(Partition, "frames", noted)
        assert read(late.topic("a"), offset=21) == []
        assert late.topic("a").stable_ends() == [20]
        assert sorted(opened)[-2:] == [20, 21]
        assert 0 not in opened[1:]  # the first is the control topic's
        memory(log).disk.power_cut()
        assert another(log).topic("a").partition(0).settled_end == 0

    def test_aborted_rows_are_passed_over(self, log: Log) -> None:
        put(log, "a", [0])
        for ids in ([1, 2], [3]):
            writer = log.transactions.writer("job")
            with log.producer("a", writer=writer) as producer:
                producer.append(rows(*ids), transaction=1)
        log.transactions.decide(writer, 1, "abort")
        topic = log.topic("a")
        reader = topic.reader(0)
        assert ids_of(reader.read()) == [0]
        assert reader.read() is None
        assert reader.position == 4 == topic.stable_ends()[0]
        put(log, "a", [4])
        assert ids_of(reader.read()) == [4]
        assert read(topic, offset=2) == [4]
