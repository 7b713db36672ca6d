"""Members of a group: partitions shared out and moved, committed offsets, silence and death."""

from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.errors import (
    FencedMemberError,
    InvalidGroupError,
    LogError,
    NoCommittedOffsetError,
    OffsetOutOfRangeError,
    OptionError,
    UnknownTopicError,
)
from millstream.log.consumer import TopicPartition
from millstream.log.groups.membership import MEMBERS_MAX
from millstream.storage_memory import MemoryStorage
from tests.log.groups.group_kit import World, ids, kill, settle, shares

SECOND_US = 1_000_000


@pytest.fixture
def world() -> World:
    return World()


class TestSharing:
    def test_one_member_has_all(self, world: World) -> None:
        a = world.member()
        assert a.partitions == []
        world.put(1, 2, partition=3)
        assert ids(a.poll()) == [1, 2]
        assert shares(a) == [[0, 1, 2, 3]]
        assert a.source == ("x", 3)

    def test_only_partitions_that_move_pause(self, world: World) -> None:
        events: list[tuple[str, list[int]]] = []

        def note(what: str):  # type: ignore[no-untyped-def]
            return lambda places: events.append((what, [each.partition for each in places]))

        a = world.member(on_assigned=note("a+"), on_revoked=note("a-"))
        b = world.member(on_assigned=note("b+"), on_revoked=note("b-"))
        settle(a)
        readers = dict(a._readers)
        world.put(1, partition=0)
        world.put(2, partition=2)
        b.poll()
        # The new one waits for what the old one has not released; the rest goes on.
        assert b.partitions == []
        assert ids(a.poll()) == [1]
        assert shares(a) == [[0, 1]]
        assert ids(b.poll()) == [2]
        assert shares(a, b) == [[0, 1], [2, 3]]
        assert events == [("a+", [0, 1, 2, 3]), ("a-", [2, 3]), ("b+", [2, 3])]
        assert all(a._readers[place] is readers[place] for place in a.partitions)

    def test_who_closes_gives_its_partitions_back_at_once(self, world: World) -> None:
        a, b, c = world.member(), world.member(), world.member()
        settle(a, b, c)
        assert sorted(len(share) for share in shares(a, b, c)) == [1, 1, 2]
        kept = shares(a, c)
        b.close()
        settle(a, c)
        now = shares(a, c)
        assert sorted(now[0] + now[1]) == [0, 1, 2, 3]
        assert all(set(before) <= set(after) for before, after in zip(kept, now, strict=True))
        assert b.partitions == []

    def test_the_dead_are_noticed_by_whoever_is_left(self, world: World) -> None:
        members = [world.member() for _ in range(4)]
        settle(*members)
        for each in members[:3]:
            kill(each)
        settle(members[3])
        assert len(members[3].partitions) == 1
        world.clock.sleep_us(SECOND_US // 10)
        settle(members[3])
        assert shares(members[3]) == [[0, 1, 2, 3]]

    def test_several_topics_and_members_that_read_different_ones(self, world: World) -> None:
        world.log.create_topic("y", pa.schema({"id": pa.int64()}), partitions=2)
        a, b = world.member("x", "y"), world.member("y")
        settle(a, b)
        assert [each.topic for each in a.partitions] == ["x"] * 4
        assert b.partitions == [("y", 0), ("y", 1)]
        b.close()
        settle(a)
        assert len(a.partitions) == 6

    def test_groups_know_nothing_of_each_other(self, world: World) -> None:
        a, b = world.member(), world.member(group="h")
        settle(a, b)
        assert shares(a, b) == [[0, 1, 2, 3]] * 2
        a.commit({0: 0})
        assert world.log.group("h").committed() == {}
        assert world.log.groups() == ["g", "h"]

    def test_topics_that_come_anew_are_shared_out(self, world: World) -> None:
        a = world.member()
        settle(a)
        a.commit({0: 0})
        world.log.delete_topic("x")
        world.log.create_topic("x", pa.schema({"id": pa.int64()}), partitions=2)
        world.put(5, partition=1)
        world.clock.sleep_us(SECOND_US)
        assert ids(a.poll()) == [5]
        assert shares(a) == [[0, 1]]
        assert world.log.group("g").committed() == {}


class TestSilence:
    def test_a_stopped_one_is_fenced_and_joins_again(self, world: World) -> None:
        lost: list[list[TopicPartition]] = []
        a = world.member(session_timeout_ms=1_000, on_lost=lost.append)
        b = world.member()
        settle(a, b)
        for index in range(4):
            world.put(index, index + 10, partition=index)
        assert len(ids(a.poll())) == 2
        before = a.partitions
        world.clock.sleep_us(SECOND_US + 1)
        settle(b)
        assert shares(b) == [[0, 1, 2, 3]]
        b.commit()
        # It wakes: what it worked on belongs to another by now.
        with pytest.raises(FencedMemberError, match="cannot commit: it was expelled"):
            a.commit()
        assert a.poll() is None
        assert lost == [before]
        settle(a, b)
        assert sorted(shares(a)[0] + shares(b)[0]) == [0, 1, 2, 3]
        assert all(offset == 0 for offset in a.positions.values())

    def test_heartbeats_keep_it_in(self, world: World) -> None:
        a, b = world.member(session_timeout_ms=1_000), world.member()
        settle(a, b)
        for _ in range(5):
            world.clock.sleep_us(SECOND_US // 2)
            a.heartbeat()
            settle(b)
        assert len(a.partitions) == len(b.partitions) == 2

    def test_a_partition_that_went_to_another_cannot_be_committed(self, world: World) -> None:
        a, b = world.member(), world.member()
        settle(a)
        b.poll()
        member, partitions = a._member, dict(a._ids)
        settle(a, b)
        gone = next(each for place, each in partitions.items() if place not in a.partitions)
        with pytest.raises(FencedMemberError, match=r"it does not own partition \d of topic 'x'"):
            member.commit({gone: 5})
        assert world.log.group("g").committed() == {}


class TestStaticMembers:
    def test_one_that_comes_back_in_time_moves_nothing(self, world: World) -> None:
        a = world.member(member="one", session_timeout_ms=1_000)
        b = world.member(member="two", session_timeout_ms=1_000)
        settle(a, b)
        before = shares(a, b)
        generation = world.log.group("g").describe()["generation"]
        kill(a)
        world.clock.sleep_us(SECOND_US // 2)
        settle(b)
        again = world.member(member="one", session_timeout_ms=1_000)
        settle(again, b)
        assert shares(again, b) == before
        assert world.log.group("g").describe()["generation"] == generation
        b.close()
        settle(again)
        assert shares(again) == before[:1]
        world.clock.sleep_us(SECOND_US + 1)
        settle(again)
        assert shares(again) == [[0, 1, 2, 3]]

    def test_one_that_stays_away_is_replaced(self, world: World) -> None:
        a = world.member(member="one", session_timeout_ms=1_000)
        b = world.member()
        settle(a, b)
        kill(a)
        world.clock.sleep_us(SECOND_US + 1)
        settle(b)
        assert shares(b) == [[0, 1, 2, 3]]

    def test_a_name_used_twice_ends_the_older_life(self, world: World) -> None:
        a = world.member(member="one")
        settle(a)
        b = world.member(member="one")
        settle(b)
        assert shares(b) == [[0, 1, 2, 3]]
        with pytest.raises(FencedMemberError, match="another life of it began"):
            a.commit({0: 0})
        for _ in range(2):
            with pytest.raises(FencedMemberError, match="another consumer joined under its name"):
                a.poll()
        assert shares(b) == [[0, 1, 2, 3]]


class TestCommits:
    def test_the_next_one_goes_on_where_it_was(self, world: World) -> None:
        a = world.member()
        world.put(1, 2, 3)
        assert ids(a.poll(rows_max=2)) == [1, 2]
        a.commit()
        assert ids(a.poll()) == [3]
        kill(a)
        b = world.member()
        world.clock.sleep_us(SECOND_US)
        assert ids(b.poll()) == [3]
        assert b.committed() == {("x", 0): 2, ("x", 1): 0, ("x", 2): 0, ("x", 3): 0}

    def test_offsets_of_ones_own(self, world: World) -> None:
        a = world.member()
        world.put(1, 2, 3)
        settle(a)
        a.commit({("x", 0): 1})
        assert a.committed()[TopicPartition("x", 0)] == 1
        assert a.committed()[TopicPartition("x", 1)] is None
        with pytest.raises(OptionError, match="0 or more; got -1"):
            a.commit({0: -1})
        with pytest.raises(OptionError, match="does not read"):
            a.commit({7: 1})
        a.rewind()
        assert a.positions[TopicPartition("x", 0)] == 1

    def test_it_commits_by_itself_what_was_polled_before(self, world: World) -> None:
        a = world.member(auto_commit=True, auto_commit_interval_ms=100)
        for index in range(4):
            world.put(index, index + 10, partition=index)
        settle(a)
        for _ in range(2):
            assert a.poll(rows_max=1) is not None
        assert sum(world.log.group("g").committed().values()) == 0
        world.clock.sleep_us(SECOND_US // 10)
        assert a.poll(rows_max=1) is not None
        assert sum(world.log.group("g").committed().values()) == 2
        a.close()
        assert sum(world.log.group("g").committed().values()) == 3

    def test_what_failed_is_not_committed(self, world: World) -> None:
        world.put(1, 2)
        with pytest.raises(ZeroDivisionError), world.member(auto_commit=True) as a:
            assert ids(a.poll()) == [1, 2]
            raise ZeroDivisionError
        assert world.log.group("g").committed().get(TopicPartition("x", 0), 0) == 0
        with world.member(auto_commit=True) as b:
            assert ids(b.poll()) == [1, 2]
        assert world.log.group("g").committed()[TopicPartition("x", 0)] == 2

    def test_a_partition_is_committed_before_it_goes(self, world: World) -> None:
        a, b = world.member(auto_commit=True), world.member(auto_commit=True)
        for index in range(4):
            world.put(index, partition=index)
        found = [ids(a.poll()) for _ in range(4)]
        b.poll()
        a.poll()
        assert b.poll() is None
        assert sorted(found) == [[0], [1], [2], [3]]
        assert set(b.positions.values()) == {1}

    def test_many_commits_take_little_room_and_none_is_lost(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("millstream.log.groups.offsets.SEGMENT_BYTES", 20_000)
        monkeypatch.setattr("millstream.log.groups.offsets.LOOK_EVERY", 8)
        early = world.process().group("g")
        a = world.member()
        settle(a)
        offsets = a._member._committed_offsets()
        early.committed()
        for index in range(300):
            a.commit({index % 4: index})
        assert len(offsets._partition.segments()) <= 4
        assert offsets._partition.first_offset > 100
        expected = {("x", index % 4): index for index in range(296, 300)}
        # One that had it open since before the first segments went, and new ones.
        assert early.committed() == expected
        assert world.log.group("g").committed() == expected
        assert world.process().group("g").committed() == expected

    def test_a_commit_in_the_middle_of_writing_anew_holds(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("millstream.log.groups.offsets.SEGMENTS_MAX", 0)
        a = world.member()
        settle(a)
        a.commit({0: 1})
        other = world.process().group("g")
        assert other.committed() == {("x", 0): 1}
        (partition,) = world.log.group_partitions()
        copier = world.log._groups._offsets["g"]
        append = partition.append

        def late(batch: pa.RecordBatch) -> None:
            a.commit({0: 2})
            append(batch)

        monkeypatch.setattr(partition, "append", late)
        copier.shorten_if_long()
        assert partition.durable_end == 3
        assert other.committed() == world.process().group("g").committed() == {("x", 0): 2}

    def test_a_disk_that_refuses_to_write_anew_takes_no_commit_back(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("millstream.log.groups.offsets.SEGMENT_BYTES", 1_000)
        monkeypatch.setattr("millstream.log.groups.offsets.LOOK_EVERY", 4)
        a = world.member()
        settle(a)
        for index in range(3):
            a.commit({0: index})
        storage = a._member._folder._storage
        assert isinstance(storage, MemoryStorage)
        storage.fail("remove", OSError(5, "refused"))
        a.commit({0: 3})
        assert world.log.group("g").committed() == {("x", 0): 3}
        for index in range(4, 8):
            a.commit({0: index})
        assert world.log.group_partitions()[0].first_offset > 0


class TestStarts:
    def test_from_the_end_nothing_is_left_out_by_a_second_start(self, world: World) -> None:
        world.put(1)
        a = world.member(start="end")
        assert a.poll() is None
        kill(a)
        world.put(2)
        b = world.member(start="end")
        assert ids(b.poll()) == [2]

    def test_an_error_names_what_is_missing(self, world: World) -> None:
        a = world.member(start="error")
        with pytest.raises(NoCommittedOffsetError, match="'g' in partition 0 of 'x' has committed"):
            a.poll()
        world.log.group("h").reset(["x"], to="beginning")
        b = world.member(group="h", start="error")
        assert b.poll() is None
        assert shares(b) == [[0, 1, 2, 3]]

    @pytest.mark.parametrize(("start", "goes_on"), [("beginning", 0), ("end", 2)])
    def test_offsets_out_of_range(self, world: World, start: str, goes_on: int) -> None:
        world.put(1, 2)
        world.log.group("g").commit({("x", 0): 99, ("x", 1): 0})
        a = world.member(start=start)
        settle(a)
        assert a.positions[TopicPartition("x", 0)] == goes_on
        assert a.resets == {("x", 0): (99, goes_on)}
        a.close()
        world.log.group("h").commit({("x", 0): 99})
        with pytest.raises(OffsetOutOfRangeError, match="committed offset 99; there are 0 to 2"):
            world.member(group="h", start="error").poll()


class TestMistakes:
    def test_names(self, world: World) -> None:
        with pytest.raises(InvalidGroupError, match=r"'a/b' cannot be a group's name; use 1 to"):
            world.member(group="a/b")
        with pytest.raises(InvalidGroupError, match=r"'\.\.' cannot be a member's name"):
            world.member(member="..")
        with pytest.raises(UnknownTopicError):
            world.member("none")
        assert world.log.groups() == []

    def test_options(self, world: World) -> None:
        with pytest.raises(OptionError, match="start is 'beginning', 'end' or 'error'"):
            world.member(start="middle")
        with pytest.raises(OptionError, match="session_timeout_ms must be 1 or more; got 0"):
            world.member(session_timeout_ms=0)

    def test_a_full_group(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        assert MEMBERS_MAX == 4_096
        monkeypatch.setattr("millstream.log.groups.membership.MEMBERS_MAX", 1)
        settle(world.member())
        b = world.member()
        with pytest.raises(LogError, match="group 'g' has 1 members; no more"):
            b.poll()
