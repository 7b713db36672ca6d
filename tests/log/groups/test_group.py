"""A group from outside: what it has committed, its lag, resets and their limits, its end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from millstream.errors import (
    GroupActiveError,
    LogError,
    NoCommittedOffsetError,
    OptionError,
    UnknownGroupError,
    UnknownTopicError,
)
from millstream.log.checked_json import checked_json
from tests.log.groups.group_kit import World, kill, settle

SECOND_US = 1_000_000


@pytest.fixture
def world() -> World:
    world = World(partitions=2)
    world.put(1, 2, 3, 4, partition=0)
    world.clock.sleep_us(SECOND_US)
    world.put(5, 6, partition=1)
    world.put(7, partition=0)
    return world


def offsets(world: World) -> dict[tuple[str, int], int]:
    committed = world.process().group("g").committed()
    return {(place.topic, place.partition): offset for place, offset in committed.items()}


class TestDescriptions:
    def test_members_and_partitions(self, world: World) -> None:
        a = world.member(member="one")
        b = world.member()
        settle(a, b)
        a.commit({a.partitions[0]: 2})
        world.clock.sleep_us(5)
        described = world.log.group("g").describe()
        assert described["state"] == "stable"
        assert [each["name"] for each in described["members"]] == [b.member, "one"]
        one = described["members"][1]
        assert one["static"]
        assert one["alive"]
        assert one["silent_us"] == 5
        assert one["owned"] == one["target"] == [("x", 0)]
        assert described["partitions"] == [
            {
                "topic": "x", "generation": 0, "partition": 0,
                "committed": 2, "end": 5, "lag": 3,
                "member": "one", "committed_us": world.clock.now_us() - 5,
            },
            {
                "topic": "x", "generation": 0, "partition": 1,
                "committed": None, "end": 2, "lag": None, "member": b.member, "committed_us": None,
            },
        ]  # fmt: skip
        assert world.log.group("g").lag() == {("x", 0): 3}
        kill(a)
        assert [each["alive"] for each in world.log.group("g").describe()["members"]] == [
            True,
            False,
        ]

    def test_states(self, world: World) -> None:
        a, b = world.member(), world.member()
        settle(a)
        b.poll()
        assert world.log.group("g").describe()["state"] == "rebalancing"
        settle(a, b)
        assert world.log.group("g").describe()["state"] == "stable"
        a.close()
        b.close()
        assert world.log.group("g").describe()["state"] == "empty"

    def test_there_is_none(self, world: World) -> None:
        for what in ("describe", "committed", "lag", "delete"):
            with pytest.raises(UnknownGroupError, match="no group 'g' in the log"):
                getattr(world.log.group("g"), what)()
        with pytest.raises(UnknownGroupError):
            world.log.group("g").reset(to="end")
        assert world.log.groups() == []


class TestResets:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"to": "beginning"}, {("x", 0): 0, ("x", 1): 0}),
            ({"to": "end"}, {("x", 0): 5, ("x", 1): 2}),
            ({"to_offset": 3}, {("x", 0): 3, ("x", 1): 2}),
            ({"shift": -1}, {("x", 0): 1, ("x", 1): 0}),
            ({"shift": 100}, {("x", 0): 5, ("x", 1): 2}),
            ({"shift": -100}, {("x", 0): 0, ("x", 1): 0}),
        ],
    )
    def test_ways(
        self, world: World, options: dict[str, object], expected: dict[tuple[str, int], int]
    ) -> None:
        group = world.log.group("g")
        before = {("x", 0): 2, ("x", 1): 1}
        group.commit(before)
        planned = group.reset(dry_run=True, **options)  # type: ignore[arg-type]
        assert [(each.partition, each.before, each.after) for each in planned] == [
            (place, before[place], after) for place, after in expected.items()
        ]
        assert offsets(world) == before
        assert group.reset(**options) == planned  # type: ignore[arg-type]
        assert offsets(world) == expected

    def test_times(self, world: World) -> None:
        group = world.log.group("g")
        now_us = world.clock.now_us()
        moment = datetime.fromtimestamp(now_us / 1e6, UTC)
        group.reset(["x"], to_time=now_us)
        assert offsets(world) == {("x", 0): 4, ("x", 1): 0}
        group.reset(to_time=moment)
        assert offsets(world) == {("x", 0): 4, ("x", 1): 0}
        group.reset(to_time=now_us + 1)
        assert offsets(world) == {("x", 0): 5, ("x", 1): 2}
        with pytest.raises(OptionError, match="has no time zone"):
            group.reset(to_time=moment.replace(tzinfo=None))

    def test_some_partitions_of_a_group_that_is_new(self, world: World) -> None:
        group = world.log.group("g")
        assert group.reset(partitions=[("x", 1)], to="end", dry_run=True)[0].after == 2
        assert world.log.groups() == []
        group.reset(partitions=[("x", 1)], to="end")
        assert offsets(world) == {("x", 1): 2}
        assert world.log.groups() == ["g"]

    def test_members_begin_there(self, world: World) -> None:
        a = world.member()
        settle(a)
        a.commit({0: 5, 1: 2})
        a.close()
        world.log.group("g").reset(shift=-1)
        b = world.member()
        settle(b)
        assert b.positions == {("x", 0): 4, ("x", 1): 1}

    def test_not_while_members_live(self, world: World) -> None:
        a = world.member(member="one", session_timeout_ms=1_000)
        settle(a)
        group = world.log.group("g")
        with pytest.raises(GroupActiveError, match=r"living members, e\.g\. 'one' of process"):
            group.reset(to="end")
        assert len(group.reset(to="end", dry_run=True)) == 2
        with pytest.raises(GroupActiveError):
            group.delete()
        # One that was silent for too long is put out of the group first.
        world.clock.sleep_us(SECOND_US + 1)
        group.reset(to="end")
        assert group.describe()["members"] == []
        assert a._member.state() is None

    def test_a_dead_static_member_comes_back_to_it(self, world: World) -> None:
        a = world.member(member="one")
        settle(a)
        kill(a)
        world.log.group("g").reset(to_offset=1)
        again = world.member(member="one")
        settle(again)
        assert again.positions == {("x", 0): 1, ("x", 1): 1}

    def test_mistakes(self, world: World) -> None:
        group = world.log.group("g")
        group.commit({("x", 0): 1})
        with pytest.raises(OptionError, match="give one of beginning, end, an offset, a time"):
            group.reset()
        with pytest.raises(OptionError, match="give one of"):
            group.reset(to="end", shift=1)
        with pytest.raises(OptionError, match="'beginning' or 'end'; got 'middle'"):
            group.reset(to="middle")  # type: ignore[arg-type]
        with pytest.raises(NoCommittedOffsetError, match=r"partition 1 of 'x'.*nothing to shift"):
            group.reset(shift=1)
        with pytest.raises(UnknownTopicError):
            group.reset(["none"], to="end")
        with pytest.raises(OptionError, match="partitions 0 to 1; got 2"):
            group.reset(partitions=[("x", 2)], to="end")
        world.log.group("h").commit({})
        with pytest.raises(OptionError, match="'h' has committed nothing; name the topics"):
            world.log.group("h").reset(to="end")
        assert offsets(world) == {("x", 0): 1}


class TestDeletion:
    def test_a_group_of_the_same_name_knows_nothing_of_it(self, world: World) -> None:
        group = world.log.group("g")
        group.commit({("x", 0): 1})
        open_before = world.process().group("g")
        assert open_before.committed() == {("x", 0): 1}
        group.delete()
        assert world.log.groups() == []
        with pytest.raises(UnknownGroupError):
            open_before.committed()
        a = world.member()
        settle(a)
        a.commit({1: 1})
        assert open_before.committed() == {("x", 1): 1}

    def test_a_member_that_was_expelled_before_joins_the_new_one(self, world: World) -> None:
        a = world.member(session_timeout_ms=1_000)
        settle(a)
        world.clock.sleep_us(SECOND_US + 1)
        world.log.group("g").delete()
        with pytest.raises(LogError, match="cannot commit"):
            a.commit({0: 1})
        settle(a)
        a.commit({0: 1})
        assert offsets(world) == {("x", 0): 1}


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"version":1}', b'{"version":1,"offsets":1,"x":2}']
)
def test_a_damaged_state_is_named(world: World, content: bytes) -> None:
    settle(world.member())
    if content.endswith(b"}"):
        content = checked_json(content)
    world.log.storage.write_file("/log/groups/g/state.json", content)
    with pytest.raises(LogError, match=r"groups/g/state.json is damaged or of a newer version"):
        world.log.group("g").describe()


def test_a_newer_format_is_refused(world: World) -> None:
    settle(world.member())
    content = checked_json(b'{"version":1,"offsets":1,"format":2}')
    world.log.storage.write_file("/log/groups/g/state.json", content)
    with pytest.raises(LogError, match=r"state.json is of format 2; update Millstream"):
        world.log.group("g").describe()
