"""Groups over a server: members behave as in a directory, and survive the server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millstream.errors import FencedMemberError
from millstream.log import Log
from millstream.log.consumer import TopicPartition
from millstream.log.remote import remote_groups
from millstream.log.remote.remote_log import RemoteLog
from millstream.log.remote.server import LogServer
from tests.log.groups import test_consumer as members
from tests.log.groups.group_kit import World, ids, settle, shares
from tests.log.log_kit import ids_of

SECOND_US = 1_000_000

OF_DIRECTORIES = {
    # A client's death is noticed by its silence, and not at once; the others look inside.
    "test_the_dead_are_noticed_by_whoever_is_left",
    "test_one_that_comes_back_in_time_moves_nothing",
    "test_one_that_stays_away_is_replaced",
    "test_the_next_one_goes_on_where_it_was",
    "test_from_the_end_nothing_is_left_out_by_a_second_start",
}


class RemoteWorld(World):
    """A log on a disk in memory, at an address; each process is a client."""

    def __init__(self) -> None:
        self.logs: list[RemoteLog] = []
        self.server: LogServer | None = None
        super().__init__()

    def process(self) -> Log:
        if self.server is None:
            self.serve(0)
        assert self.server is not None
        log = Log(self.server.address, clock=self.clock, timeout_s=10)
        assert isinstance(log, RemoteLog)
        self.logs.append(log)
        return log

    def serve(self, port: int) -> None:
        self.processes += 1
        storage = self.disk.storage(f"server {self.processes}")
        self.server = LogServer(lambda: Log("/log", storage=storage, clock=self.clock), port=port)

    def restart(self) -> None:
        """Let another server come in place of this one."""
        assert self.server is not None
        port = int(self.server.address.rpartition(":")[2])
        for log in self.logs:
            log.close()
        self.server.close()
        self.serve(port)

    def close(self) -> None:
        for log in self.logs:
            log.close()
        assert self.server is not None
        self.server.close()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteWorld]:
    monkeypatch.setattr(remote_groups, "BEAT_INTERVAL_US", -1)  # the clock stands still
    world = RemoteWorld()
    yield world
    world.close()


def shared_tests() -> list[Any]:
    """The tests of members in a directory that say nothing of directories."""
    kinds = [kind for name, kind in vars(members).items() if name.startswith("Test")]
    found = [
        pytest.param(getattr(kind(), name), id=name)
        for kind in kinds
        for name, test in vars(kind).items()
        if name.startswith("test_")
        and name not in OF_DIRECTORIES
        and list(inspect.signature(test).parameters) == ["self", "world"]
    ]
    assert len(found) > 15
    return found


@pytest.mark.parametrize("test", shared_tests())
def test_members_are_as_in_a_directory(world: RemoteWorld, test: Callable[[World], None]) -> None:
    test(world)


def test_members_begin_anew_at_another_server(world: RemoteWorld) -> None:
    lost: list[Any] = []
    a, b = world.member(on_lost=lost.append), world.member()
    settle(a, b)
    world.put(1, 2, partition=0)
    owner = a if 0 in shares(a)[0] else b
    assert ids(owner.poll()) == [1, 2]
    owner.commit()
    world.restart()
    with pytest.raises(FencedMemberError, match="the server was started anew"):
        a.commit({a.partitions[0].partition: 0})
    settle(a, b)
    assert len(lost) == 1
    assert sorted(shares(a)[0] + shares(b)[0]) == [0, 1, 2, 3]
    world.put(3, partition=0)
    found = [ids(each.poll()) for each in (a, b)]
    assert sorted(found) == [[], [3]]


def test_a_static_member_is_replaced_also_across_servers(world: RemoteWorld) -> None:
    a = world.member(member="one")
    settle(a)
    world.restart()
    b = world.member(member="one")
    settle(b)
    with pytest.raises(FencedMemberError, match="another consumer joined under its name"):
        a.poll()
    assert shares(b) == [[0, 1, 2, 3]]


def test_a_client_that_is_silent_is_buried(world: RemoteWorld) -> None:
    a = world.member(session_timeout_ms=1_000)
    settle(a)
    assert world.server is not None
    lives = world.server._service._groups._lives
    assert len(lives) == 1
    world.clock.sleep_us(SECOND_US + 1)
    b = world.member()
    settle(b)
    assert len(lives) == 1
    assert shares(b) == [[0, 1, 2, 3]]


def test_who_closes_when_the_server_is_gone_is_not_held_up(world: RemoteWorld) -> None:
    a = world.member()
    settle(a)
    world.restart()
    a.close()
    assert a.partitions == []


def test_offsets_are_committed_with_rows(world: RemoteWorld) -> None:
    world.log.create_topic("out", world.log.topic("x").schema)
    world.put(1, 2, partition=0)
    log = world.process()
    a = log.consumer("x", group="g", auto_commit=False)
    batch = a.poll()
    with log.transaction("me") as transaction:
        transaction.append("out", batch)
        transaction.commit_offsets(a)
        assert log.group("g").committed() == {}
    assert log.group("g").committed()[TopicPartition("x", 0)] == 2
    assert ids_of(log.topic("out").to_arrow()) == [1, 2]
    with pytest.raises(ZeroDivisionError), log.transaction("me") as transaction:
        transaction.commit_offsets(a, {0: 0})
        raise ZeroDivisionError
    assert log.group("g").committed()[TopicPartition("x", 0)] == 2
    a.close()
