"""Copies of a log know how far its groups are; a mirror has no members of its own."""

from __future__ import annotations

import pytest

from millstream.errors import MirrorError
from millstream.log import Log
from millstream.log.backup import back_up, restore
from millstream.log.backup.mirror import Mirror
from tests.log.groups.group_kit import World, ids, settle

COPY = "/copy"


def copy_of(world: World) -> Log:
    return Log(COPY, storage=world.log.storage, clock=world.clock)


def test_a_restored_log_goes_on_where_the_groups_were() -> None:
    world = World(partitions=1)
    world.put(1, 2, 3)
    a = world.member()
    settle(a)
    with a._find_topic.__self__.transaction("copy") as transaction:  # type: ignore[attr-defined]
        transaction.commit_offsets(a, {0: 2})
    back_up(world.log, "/spare")
    a.commit({0: 3})
    restore("/spare", COPY, world.log.storage)
    copy = copy_of(world)
    assert copy.group("g").committed() == {("x", 0): 2}
    # The members of the original are none of the copy's.
    with copy.consumer("x", group="g") as consumer:
        assert ids(consumer.poll()) == [3]


def test_a_mirror_follows_groups_and_lets_nobody_join() -> None:
    world = World(partitions=1)
    for name in ("g", "h"):
        world.log.group(name).commit({("x", 0): 0})
    with Mirror(world.log, COPY, world.log.storage) as mirror:
        mirror.step()
        assert copy_of(world).group("g").committed() == {("x", 0): 0}
        world.put(1, 2)
        world.log.group("g").commit({("x", 0): 1})
        world.log.group("h").delete()
        mirror.step()
    copy = copy_of(world)
    assert copy.groups() == ["g"]
    assert copy.group("g").lag() == {("x", 0): 1}
    for change in (
        lambda: copy.consumer("x", group="g").poll(),
        lambda: copy.group("g").commit({("x", 0): 2}),
        lambda: copy.group("g").reset(to="end"),
        lambda: copy.group("g").delete(),
    ):
        with pytest.raises(MirrorError, match="millstream log promote"):
            change()
    assert copy.group("g").reset(to="end", dry_run=True)[0].after == 2
