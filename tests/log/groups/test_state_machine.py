"""Hypothesis drives members of a group and a model of it in plain dicts: they always agree."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from millstream.errors import FencedMemberError, GroupActiveError
from millstream.log.consumer import TopicPartition
from millstream.log.groups.consumer import GroupConsumer
from tests.log.groups.group_kit import SCHEMA, World, ids, kill, settle

TOPICS = {"x": 4, "y": 2}
SESSION_MS = 1_000
places = st.sampled_from([TopicPartition(name, i) for name, n in TOPICS.items() for i in range(n)])


@dataclass(eq=False)
class Member:
    consumer: GroupConsumer
    topics: set[str]


class GroupMachine(RuleBasedStateMachine):
    members = Bundle("members")

    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        self.world = World(TOPICS["x"], seed)
        self.world.log.create_topic("y", SCHEMA, partitions=TOPICS["y"])
        self.living: list[Member] = []
        self.rows: dict[TopicPartition, list[int]] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.next_id = 0

    @rule(place=places, count=st.integers(1, 3))
    def append(self, place: TopicPartition, count: int) -> None:
        added = list(range(self.next_id, self.next_id + count))
        self.next_id += count
        self.world.put(*added, partition=place.partition, topic=place.topic)
        self.rows.setdefault(place, []).extend(added)

    @rule(target=members, topics=st.sets(st.sampled_from("xy"), min_size=1))
    def join(self, topics: set[str]) -> Member:
        consumer = self.world.member(*sorted(topics), session_timeout_ms=SESSION_MS)
        member = Member(consumer, topics)
        consumer._follow()
        self.living.append(member)
        return member

    @rule(member=consumes(members))
    def close(self, member: Member) -> None:
        member.consumer.close()
        self.living.remove(member)

    @rule(member=consumes(members))
    def die(self, member: Member) -> None:
        kill(member.consumer)
        self.living.remove(member)
        self.world.clock.sleep_us(100_000)
        for each in self.living:
            each.consumer.heartbeat()

    @rule(member=members)
    def be_stopped(self, member: Member) -> None:
        """Others go on for longer than its time, and it wakes."""
        others = [each for each in self.living if each is not member]
        for _ in range(3):
            self.world.clock.sleep_us(SESSION_MS * 1_000 // 2)
            for each in others:
                each.consumer._follow()
        if others:  # else nobody was there to miss it
            with pytest.raises(FencedMemberError):
                member.consumer._member.commit(dict.fromkeys(member.consumer._ids.values(), 0))
        member.consumer._follow()

    @rule(member=members, rows_max=st.integers(1, 4))
    def poll(self, member: Member, rows_max: int) -> None:
        consumer = member.consumer
        batch = consumer.poll(rows_max=rows_max)
        if batch is not None:
            assert consumer.source is not None
            end = consumer.positions[consumer.source]
            expected = self.rows[consumer.source][end - batch.num_rows : end]
            assert ids(batch) == expected

    @rule(member=members)
    def commit(self, member: Member) -> None:
        consumer = member.consumer
        positions = consumer.positions
        try:
            consumer.commit()
        except FencedMemberError:
            return
        self.committed.update(positions)

    @rule(to=st.sampled_from(["beginning", "end"]), dry_run=st.booleans())
    def reset(self, to: str, dry_run: bool) -> None:
        group = self.world.log.group("g")
        if self.living and not dry_run:
            if "g" in self.world.log.groups():
                with pytest.raises(GroupActiveError):
                    group.reset(to="end")
            return
        changes = group.reset(["x", "y"], to=to, dry_run=dry_run)  # type: ignore[arg-type]
        ends = {place: len(self.rows.get(place, [])) for place in self.every()}
        after = ends if to == "end" else dict.fromkeys(ends, 0)
        assert {each.partition: each.after for each in changes} == after
        assert all(each.before == self.committed.get(each.partition) for each in changes)
        if not dry_run:
            self.committed = after

    @rule()
    def rest(self) -> None:
        """Everybody polls until nothing moves: then partitions are shared out as they should."""
        consumers = [each.consumer for each in self.living]
        settle(*consumers)
        owned = [place for each in consumers for place in each.partitions]
        assert len(owned) == len(set(owned))
        wanted = set().union(*(each.topics for each in self.living))
        assert set(owned) == {place for place in self.every() if place.topic in wanted}
        for each in self.living:
            assert {place.topic for place in each.consumer.partitions} <= each.topics
        if all(each.topics == {"x", "y"} for each in self.living) and consumers:
            sizes = [len(each.partitions) for each in consumers]
            assert max(sizes) - min(sizes) <= 1

    @invariant()
    def committed_offsets_are_the_models(self) -> None:
        if "g" in self.world.log.groups():
            group = self.world.log.group("g")
            assert group.committed() == self.committed
            expected = {
                place: len(self.rows.get(place, [])) - offset
                for place, offset in self.committed.items()
            }
            assert group.lag() == expected

    @staticmethod
    def every() -> list[TopicPartition]:
        return [TopicPartition(name, i) for name, n in TOPICS.items() for i in range(n)]


def test_a_group_does_as_its_model() -> None:
    run_state_machine_as_test(
        GroupMachine, settings=settings(max_examples=20, stateful_step_count=30, deadline=None)
    )
