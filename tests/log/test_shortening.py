"""The control topic is shortened: what it said is still said, and little of it is left."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

import msgspec
import pyarrow as pa
import pytest

from millstream.log import Log, control_topic
from millstream.log.backup import back_up, restore
from millstream.log.backup.mirror import Mirror, promote
from millstream.log.check.verify import verify
from millstream.log.control_topic import SCHEMA as CONTROL_SCHEMA
from millstream.log.control_topic import DecisionRecord
from millstream.log.transactions import Transactions
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import PATH, SCHEMA, another, log_on, memory, memory_log, read, rows
from tests.log.remote.remote_kit import remote_log, served

SMALL_BYTES = 4_000
RECORDS = 40
MANY = 100_000


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_topic, "SHORTEN_BYTES", SMALL_BYTES)


def control_bytes(log: Log) -> int:
    storage, folder = memory(log), f"{PATH}/control"
    names = [each for each in storage.list_directory(folder) if each.endswith(".arrows")]
    return sum(storage.file_size(f"{folder}/{each}") for each in names)


def first_offset(log: Log) -> int:
    partition = log.transactions.partition()
    assert partition is not None
    return partition.first_offset


def work(log: Log, topic: str = "a") -> Iterator[tuple[str, int, int]]:
    """Commit and abort transactions of several owners; give (owner, epoch, number) of each."""
    for count in range(RECORDS):
        writer = log.transactions.writer(f"script {count % 2}")
        log.producer(topic, writer=writer).append(rows(count), transaction=1)
        log.topic(topic).partition(0).sync()
        outcome: Literal["commit", "abort"] = "abort" if count % 5 == 4 else "commit"
        log.transactions.decide(writer, 1, outcome, b'{"count": %d}' % count)
        yield writer.owner, writer.epoch, 1


def expected_ids() -> list[int]:
    return [count for count in range(RECORDS) if count % 5 != 4]


@pytest.mark.usefixtures("often")
def test_what_was_decided_is_still_known() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    waiting = log.transactions.writer("waiting")
    log.producer("a", writer=waiting).append(rows(1_000), transaction=3)
    log.transactions.prepare(waiting, 3, [("a", 0)])
    beside = another(log)  # has read what is removed later
    behind = another(log)
    assert behind.transactions.owners() == ["waiting"]
    done = list(work(log))
    assert first_offset(log) > 0
    assert control_bytes(log) < 4 * SMALL_BYTES
    for each in (log, beside, behind, another(log)):
        transactions = each.transactions
        assert transactions.owners() == ["waiting", "script 0", "script 1"]
        for count, (_, epoch, number) in enumerate(done):
            found = transactions.decision(2 + count % 2, epoch, number)
            assert found == ("aborted" if count % 5 == 4 else "committed")
        assert transactions.newest_manifest("script 0") == b'{"count": 38}'
        assert [each.number for each in transactions.prepared()] == [3]
        assert read(each.topic("a")) == []  # held back
    another(log).transactions.decide(waiting, 3, "commit")
    for each in (log, beside, another(log)):
        assert read(each.topic("a")) == [1_000, *expected_ids()]
    assert not any(each.findings for each in verify(another(log)))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("cut", [False, True])
def test_who_dies_while_shortening_is_followed_by_who_goes_on(cut: bool) -> None:
    before = MemoryDisk(random.Random(0))
    log = log_on(before.storage("setup"))
    log.create_topic("a", SCHEMA)
    done = [each for each, _ in zip(work(log), range(1), strict=False)]
    writer = log.transactions.writer("owner")
    while control_bytes(log) < SMALL_BYTES - 500:  # one of the next decisions shortens it
        log.transactions.decide(writer, len(done), "commit")
        done.append((writer.owner, writer.epoch, len(done)))
    assert first_offset(log) == 0
    fatal = decided = 0
    while decided < 3:
        fatal += 1
        disk = before.copy(random.Random(fatal))
        dying = disk.storage("dying")
        dying.crash_after(fatal)
        decided = 0
        with suppress(SimulatedCrash):
            log = log_on(dying)
            for number in range(101, 104):
                log.transactions.decide(writer, number, "commit")
                decided += 1
        if cut:
            disk.power_cut()
        check_decided(log_on(disk.storage("next")), done, decided)
        after = log_on(disk.storage("one more"))
        for number in range(104, 110):  # and it is shortened in the end
            after.transactions.decide(writer, number, "commit")
        assert first_offset(after) > 0
        assert control_bytes(after) < 2 * SMALL_BYTES
        check_decided(log_on(disk.storage("last")), done, decided)
    assert fatal > 50


def check_decided(log: Log, done: list[tuple[str, int, int]], decided: int) -> None:
    """What was decided before, and by the process that died, is as it was."""
    transactions = log.transactions
    ids = {owner: index + 1 for index, owner in enumerate(transactions.owners())}
    for owner, epoch, number in done:
        assert transactions.decision(ids[owner], epoch, number) == "committed"
    for number in range(101, 101 + decided):
        assert transactions.decision(ids["owner"], 1, number) == "committed"


@pytest.mark.usefixtures("often")
def test_a_refusing_disk_is_no_reason_to_fail_a_decision() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    writer = log.transactions.writer("owner")
    number = 0
    for operation in ("remove", "create", "sync_directory"):
        memory(log).fail(operation, OSError(5, "I/O error"))
        for _ in range(12):
            number += 1
            log.transactions.decide(writer, number, "commit")
    again = another(log).transactions
    assert {again.decision(1, 1, each) for each in range(1, number + 1)} == {"committed"}


@pytest.mark.usefixtures("often")
def test_copies_begin_with_a_snapshot() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    done = list(work(log))
    back_up(log, "/spare")
    restore("/spare", "/restored", memory(log))
    restored = Log("/restored", storage=memory(log), clock=log.clock)
    assert read(restored.topic("a")) == expected_ids()
    assert restored.transactions.writer(done[-1][0]).epoch == done[-1][1] + 1


@pytest.mark.usefixtures("often")
def test_copies_that_follow_are_shortened_too() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    offsets = set()
    with Mirror(log, "/mirror", memory(log)) as mirror:
        for _ in work(log):
            mirror.step()
            back_up(log, "/spare")
            offsets.add(first_offset(log))
    assert len(offsets) > 2, "between the copies it was shortened, more than once"
    promote("/mirror", memory(log))
    restore("/spare", "/restored", memory(log))
    for path in ("/mirror", "/restored"):
        copy = Log(path, storage=memory(log), clock=log.clock)
        assert read(copy.topic("a")) == expected_ids()
        assert copy.transactions.newest_manifest("script 0") == b'{"count": 38}'
        assert first_offset(copy) == first_offset(log)


@pytest.mark.usefixtures("often")
def test_clients_of_a_served_log_follow() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    log.transactions.writer("owner")
    with served(memory(log).disk) as server, remote_log(server.address) as before:
        assert before.transactions.owners() == ["owner"]
        for _ in work(log):
            pass
        assert first_offset(log) > 0
        with remote_log(server.address) as after:
            for each in (before, after):
                assert each.transactions.owners() == ["owner", "script 0", "script 1"]
                assert each.transactions.newest_manifest("script 0") == b'{"count": 38}'
                assert read(each.topic("a")) == expected_ids()


def test_opening_after_a_hundred_thousand_decisions_is_fast() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    writer = log.transactions.writer("job")
    partition = log.transactions.partition()
    assert partition is not None
    records = [
        msgspec.json.encode(DecisionRecord(1, 1, number, "commit", 1)) for number in range(1, MANY)
    ]
    partition.append(pa.record_batch([pa.array(records, pa.binary())], schema=CONTROL_SCHEMA))
    log.transactions.decide(writer, MANY, "commit", b"{}")
    assert control_bytes(log) < 3_000
    started_s = time.process_time()
    opened = another(log).transactions
    # A fraction of a second at most where all of it is read.
    assert time.process_time() - started_s < 0.05
    assert opened.decision(1, 1, 1) == opened.decision(1, 1, MANY) == "committed"
    assert opened.decision(1, 1, MANY + 1) == "undecided"
    assert isinstance(opened, Transactions)
