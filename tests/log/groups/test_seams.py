"""Groups whose topics get other partition counts: first the old partitions, then the new ones."""

from __future__ import annotations

import pytest

from tests.log.groups.group_kit import World, ids, settle, shares

SECOND_US = 1_000_000


@pytest.fixture
def world() -> World:
    return World(partitions=2)


def test_nobody_reads_a_new_partition_before_all_old_ones_are_done(world: World) -> None:
    a, b = world.member(), world.member()
    settle(a, b)
    world.put(1, 2, partition=0)
    world.put(3, partition=1)
    world.log.repartition("x", 4)
    world.put(4, partition=3)
    assert ids(a.poll()) == [1, 2]
    a.commit()
    for _ in range(5):
        world.clock.sleep_us(SECOND_US)
        assert a.poll() is None
    assert world.log.group("g").generations() == {"x": 0}
    assert ids(b.poll()) == [3]
    b.commit()
    found = []
    for _ in range(5):
        world.clock.sleep_us(SECOND_US)
        found += ids(a.poll()) + ids(b.poll())
    assert found == [4]
    assert sorted(len(each) for each in shares(a, b)) == [2, 2]
    assert a.generations == b.generations == {"x": 1}
    a.commit()
    b.commit()
    assert sum(world.log.group("g").lag().values()) == 0


def test_what_was_polled_and_not_committed_keeps_a_group_at_the_seam(world: World) -> None:
    a = world.member()
    settle(a)
    world.put(1, 2, partition=0)
    world.log.repartition("x", 1)
    world.put(3)
    assert ids(a.poll()) == [1, 2]
    for _ in range(5):
        world.clock.sleep_us(SECOND_US)
        assert a.poll() is None
    a.rewind()
    assert ids(a.poll()) == [1, 2]
    a.commit()
    found = []
    for _ in range(5):
        world.clock.sleep_us(SECOND_US)
        found += ids(a.poll())
    assert found == [3]


def test_rows_that_were_taken_back_before_a_seam_hold_nobody_there(world: World) -> None:
    a = world.member()
    world.put(1)
    with world.log.transaction("x") as transaction:
        transaction.append("x", world.log.topic("x").to_arrow(), partition=0)
        transaction.abort()
    world.log.repartition("x", 1)
    world.put(2)
    found = []
    for _ in range(8):
        world.clock.sleep_us(SECOND_US)
        found += ids(a.poll())
        if found == [1]:
            a.commit()
    assert found == [1, 2]


@pytest.mark.parametrize("start", ["beginning", "end"])
def test_a_new_group_begins_with_the_oldest_rows_or_behind_the_newest(
    world: World, start: str
) -> None:
    world.put(1)
    world.log.repartition("x", 1)
    world.put(2)
    a = world.member(start=start, auto_commit=True)
    found = []
    for _ in range(6):
        world.clock.sleep_us(SECOND_US)
        found += ids(a.poll())
    world.put(3)
    world.log.repartition("x", 2)
    world.put(4)
    for _ in range(6):
        world.clock.sleep_us(SECOND_US)
        found += ids(a.poll())
    assert found == ([1, 2, 3, 4] if start == "beginning" else [3, 4])


def test_a_reset_goes_to_any_generation(world: World) -> None:
    world.put(1)
    world.log.repartition("x", 1)
    world.put(2)
    group = world.log.group("g")
    group.commit({("x", 0): 1, ("x", 1): 0}, generations={"x": 0})
    assert group.generations() == {"x": 1}
    assert group.lag() == {("x", 0): 1}
    group.reset(["x"], to="beginning")
    assert group.generations() == {"x": 0}
    assert sum(group.lag().values()) == 2
    changes = group.reset(to="end")
    assert [(each.generation, each.partition.partition, each.after) for each in changes] == [
        (0, 0, 1), (0, 1, 0), (1, 0, 1),
    ]  # fmt: skip
    assert (group.generations(), group.lag()) == ({"x": 1}, {("x", 0): 0})
