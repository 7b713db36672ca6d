"""Offsets in transactions: committed with the rows, or not at all, whoever dies or goes."""

from __future__ import annotations

import pytest

from millstream.errors import (
    FencedMemberError,
    GroupActiveError,
    OptionError,
    TransactionError,
)
from millstream.log import Log
from millstream.log.consumer import TopicPartition
from millstream.log.groups.consumer import GroupConsumer
from millstream.storage_memory import SimulatedCrash
from tests.log.groups.group_kit import SCHEMA, World, ids, kill, settle, shares
from tests.log.log_kit import memory

SECOND_US = 1_000_000
PLACE = TopicPartition("x", 0)


def world_of(seed: int, partitions: int = 1) -> World:
    world = World(partitions, seed)
    world.log.create_topic("out", SCHEMA)
    world.put(1, 2, 3)
    return world


@pytest.fixture
def world() -> World:
    return world_of(0)


def out(world: World) -> list[int]:
    return ids(world.process().topic("out").to_arrow())


def committed(world: World) -> int | None:
    return world.process().group("g").committed().get(PLACE)


def log_of(consumer: GroupConsumer) -> Log:
    """The log as the consumer's process has it open."""
    log = consumer._find_topic.__self__  # type: ignore[attr-defined]
    assert isinstance(log, Log)
    return log


def test_rows_and_offsets_are_seen_together(world: World) -> None:
    a = world.member()
    batch = a.poll(rows_max=2)
    with log_of(a).transaction("copy") as transaction:
        transaction.append("out", batch)
        transaction.commit_offsets(a)
        assert (out(world), committed(world)) == ([], None)
    assert (out(world), committed(world)) == ([1, 2], 2)


def test_neither_is_seen_where_it_is_aborted(world: World) -> None:
    a = world.member()
    with pytest.raises(ZeroDivisionError), log_of(a).transaction("copy") as transaction:
        transaction.append("out", a.poll())
        transaction.commit_offsets(a)
        raise ZeroDivisionError
    assert (out(world), committed(world)) == ([], None)
    assert a.poll() is None
    a.rewind()
    assert ids(a.poll()) == [1, 2, 3]


def copy(world: World, fatal: int | None = None) -> int:
    """Copy all rows in a transaction, in a process that dies in its effect `fatal`, if any."""
    a = world.member()
    settle(a)
    storage = memory(log_of(a))
    before = storage.effects
    if fatal is not None:
        storage.crash_after(fatal)
    with log_of(a).transaction("copy") as transaction:
        transaction.append("out", a.poll())
        transaction.commit_offsets(a)
    return storage.effects - before


@pytest.mark.parametrize("power", [False, True])
def test_all_or_nothing_wherever_it_dies(power: bool) -> None:
    effects = copy(world_of(0))
    assert effects > 30
    left_to_the_next = []
    for fatal in range(1, effects + 1):
        world = world_of(fatal)
        with pytest.raises(SimulatedCrash):
            copy(world, fatal)
        if power:
            world.disk.power_cut()
            world.log = world.process()
        assert (out(world), committed(world)) in [([], None), ([1, 2, 3], 3)]
        # The next one goes on from there, and the end is the same.
        a = world.member()
        world.clock.sleep_us(SECOND_US)
        with log_of(a).transaction("copy") as transaction:
            batch = a.poll()
            left_to_the_next.append(batch is not None)
            if batch is not None:
                transaction.append("out", batch)
                transaction.commit_offsets(a)
        assert (out(world), committed(world)) == ([1, 2, 3], 3)
    assert left_to_the_next[0]
    assert not left_to_the_next[-1]


class TestHandover:
    def test_who_was_expelled_cannot_commit_them(self, world: World) -> None:
        a, b = world.member(session_timeout_ms=1_000), world.member()
        batch = a.poll()
        world.clock.sleep_us(SECOND_US + 1)
        settle(b)
        with (
            pytest.raises(FencedMemberError, match="cannot commit: it was expelled"),
            log_of(a).transaction("copy a") as transaction,
        ):
            transaction.append("out", batch)
            transaction.commit_offsets(a)
        assert ids(b.poll()) == [1, 2, 3]
        assert out(world) == []

    def test_an_open_transaction_of_one_that_was_expelled_is_aborted(self, world: World) -> None:
        a, b = world.member(session_timeout_ms=1_000), world.member()
        with (
            pytest.raises(TransactionError, match="was aborted: it was open"),
            log_of(a).transaction("copy a") as transaction,
        ):
            transaction.append("out", a.poll())
            transaction.commit_offsets(a)
            world.clock.sleep_us(SECOND_US + 1)
            settle(b)
            assert ids(b.poll()) == [1, 2, 3]
        assert (out(world), committed(world)) == ([], None)

    def test_one_that_has_left_cannot_commit_either(self, world: World) -> None:
        a, b = world.member(), world.member()
        with (
            pytest.raises(TransactionError, match="was aborted: it was open"),
            log_of(a).transaction("copy a") as transaction,
        ):
            transaction.append("out", a.poll())
            transaction.commit_offsets(a)
            a.close()
            assert ids(b.poll()) == [1, 2, 3]

    def test_partitions_given_up_in_a_transaction_wait_for_its_end(self) -> None:
        world = world_of(0, partitions=2)
        world.put(4, 5, partition=1)
        a, b = world.member(), world.member()
        with log_of(a).transaction("copy a") as transaction:
            for _ in range(2):
                transaction.append("out", a.poll())
            transaction.commit_offsets(a)
            settle(b)
            settle(a, b)
            assert shares(a) == [[0]]
            assert shares(b) == [[]], "it owns the partition, but does not know where to begin"
            assert world.log.group("g").describe()["state"] == "stable"
        settle(b)
        assert b.positions == {("x", 1): 2}
        assert sorted(out(world)) == [1, 2, 3, 4, 5]

    def test_a_prepared_one_waits_for_who_decides_it(self, world: World) -> None:
        a, b = world.member(), world.member()
        writer = log_of(a).transactions.writer("copy a")
        settle(a)
        a.commit_in(writer, 7, {0: 2})
        log_of(a).transactions.prepare(writer, 7, [("group:g", 0)])
        kill(a)
        world.clock.sleep_us(SECOND_US)
        settle(b)
        world.clock.sleep_us(SECOND_US)
        settle(b)
        assert shares(b) == [[]]
        world.log.transactions.decide(writer, 7, "commit")
        assert ids(b.poll()) == [3]

    def test_rows_of_a_partition_that_was_given_up_in_between_are_not_committed(self) -> None:
        world = world_of(0, partitions=2)
        world.put(4, partition=1)
        a, b = world.member(), world.member()
        with (
            pytest.raises(FencedMemberError, match=r"rows of \[\('x', 1\)\] were polled, and the"),
            log_of(a).transaction("copy a") as transaction,
        ):
            for _ in range(2):
                transaction.append("out", a.poll())
            settle(b, a)
            transaction.commit_offsets(a)
        a.rewind()
        with log_of(a).transaction("copy a") as transaction:
            transaction.append("out", a.poll())
            transaction.commit_offsets(a)
        assert out(world) == [1, 2, 3]
        assert ids(b.poll()) == [4]


class TestWithoutMembers:
    def test_a_group_that_shares_out_by_itself(self, world: World) -> None:
        with world.log.transaction("job") as transaction:
            transaction.append("out", world.log.topic("x").read(0, 0, 2))
            transaction.commit_offsets("g", {("x", 0): 2})
            assert committed(world) is None
        assert (out(world), committed(world)) == ([1, 2], 2)

    def test_it_may_not_have_members(self, world: World) -> None:
        settle(world.member())
        with (
            pytest.raises(GroupActiveError, match="has members, who commit themselves"),
            world.log.transaction("job") as transaction,
        ):
            transaction.commit_offsets("g", {("x", 0): 2})
        with pytest.raises(GroupActiveError):
            world.log.group("g").commit({("x", 0): 2})


class TestMistakes:
    def test_positions_are_by_topic(self, world: World) -> None:
        for positions in (None, {0: 2}):
            with (
                pytest.raises(OptionError, match=r"'g' by \(topic, partition\)"),
                world.log.transaction("job") as transaction,
            ):
                transaction.commit_offsets("g", positions)
        with (
            pytest.raises(OptionError, match="partitions 0 to 0; got 5"),
            world.log.transaction("job") as transaction,
        ):
            transaction.commit_offsets("g", {("x", 5): 2})
        assert world.log.groups() == []

    def test_who_commits_by_itself_does_not_in_transactions(self, world: World) -> None:
        a = world.member(auto_commit=True)
        settle(a)
        with (
            pytest.raises(OptionError, match="make it with auto_commit=False"),
            world.log.transaction("job") as transaction,
        ):
            transaction.commit_offsets(a)

    def test_a_decided_transaction_takes_none(self, world: World) -> None:
        a = world.member()
        settle(a)
        with world.log.transaction("job") as transaction:
            transaction.commit()
            with pytest.raises(TransactionError, match="is decided"):
                transaction.commit_offsets(a)
