"""Every flipped bit, and every cut, of the files that processes have mapped.

They are written by no sync and checked by hardly a sum: what stands in them must not matter, but
for the two ends, which have a checksum.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import pytest

from millstream.clock import ManualClock
from millstream.errors import LogError, MillstreamError
from millstream.log import Log
from millstream.log.bells import Bells
from millstream.storage_memory import MemoryDisk, MemoryStorage
from millstream.storage_memory.contents import FileContent, Folder
from tests.log.log_kit import PATH, SCHEMA, ids_of, log_on, put, rows

CONTROL = f"{PATH}/topics/00000001/0/0/control"
CONTROL_USED = 392
LATER = range(5, 12)
"""Ids behind a transaction that is not decided, which holds them back."""
STABLE = 4
FLAGS = range(320, CONTROL_USED)
EPOCHS = range(64, 64 + 8 * 3)
BOOT = range(0, 64, 4)
"""Of a boot id; any difference has the same effect."""

CELLS_USED = 128 + 8


class World:
    """A disk that is damaged and put right again, as often as is asked for."""

    def __init__(self) -> None:
        self.disk = MemoryDisk(random.Random(1))
        log = log_on(self.disk.storage("setup"))
        log.create_topic("a", SCHEMA)
        with log.producer("a", name="n") as producer:
            producer.append(rows(0, 1), sequence=1)
            producer.append(rows(2), sequence=2)
        self.stale = log.transactions.writer("owner")
        self.writer = log.transactions.writer("owner")
        log.producer("a", writer=self.writer).append(rows(3), transaction=1)
        log.producer("a", writer=self.writer).append(rows(4), transaction=2)
        log.topic("a").partition(0).sync()
        log.transactions.decide(self.writer, 1, "commit")
        put(log, "a", LATER)
        log.group("g").commit({("a", 0): 2})
        self.root = self.disk.root
        self.reader: MemoryStorage | None = None

    def node(self, path: str) -> FileContent:
        node: Folder | FileContent = self.disk.root
        for name in path.split("/")[1:]:
            assert isinstance(node, Folder)
            node = node.entries[name]
        assert isinstance(node, FileContent)
        return node

    def log(self) -> Log:
        """The log as a new process sees it, once the one before has ended."""
        if self.reader is not None:
            self.reader.kill()
        self.reader = self.disk.storage("reader")
        return log_on(self.reader)

    def damaged(
        self, path: str, positions: range, *, cuts: bool = True, afresh: bool = False
    ) -> Iterator[str]:
        """Damage a file in one way after another, and tell how; `afresh`: on a disk of its own."""
        self.disk.root = self.root
        content = self.node(path).read()
        for position in positions:
            ways = [(bit, f"bit {bit} of {position}") for bit in range(8)]
            for bit, what in [*ways, (None, f"cut to {position}")] if cuts else ways:
                found = bytearray(content)
                if bit is None:
                    del found[position:]
                else:
                    found[position] ^= 1 << bit
                if afresh:
                    self.disk.root = copy.deepcopy(self.root)
                node = self.node(path)
                node.content, node.size = found, len(found)
                yield what
                if not afresh:
                    node.content, node.size = bytearray(content), len(content)


@pytest.fixture
def world() -> World:
    return World()


def test_a_control_file_shows_no_row_that_does_not_count(world: World) -> None:
    """Where a slot is lost the end before it holds; and nothing durable is ever cut."""
    segment = world.node(CONTROL.replace("control", f"{0:020d}.arrows"))
    whole = segment.read()
    seen = set()
    for what in world.damaged(CONTROL, range(CONTROL_USED)):
        found: list[int] = []
        with suppress(MillstreamError):
            topic = world.log().topic("a")
            assert topic.stable_end(0) <= STABLE, f"{what}: compaction would go further"
            found = ids_of(topic.to_arrow(["id"]))
        assert found == [0, 1, 2, 3][: len(found)], what
        assert segment.read() == whole, what
        seen.add(len(found))
    assert 4 in seen


def test_what_follows_on_a_damaged_flag_is_as_ever(world: World) -> None:
    """An append that is made again is stored once, also behind the next roll."""
    for what in world.damaged(CONTROL, FLAGS, cuts=False, afresh=True):
        log = world.log()
        with suppress(LogError):
            log.topic("a").partition(0).roll()
        for _ in range(2):  # what may be said once is that rows were lost
            try:
                with log.producer("a", name="n") as producer:
                    producer.append(rows(2), sequence=2)
                break
            except LogError:
                log = world.log()
        else:
            pytest.fail(f"{what}: refused for good")
        log.transactions.writer("owner")
        assert ids_of(world.log().topic("a").to_arrow(["id"])) == [0, 1, 2, 3, *LATER], what


def test_epochs_decide_nothing(world: World) -> None:
    """They fence stragglers early; what is committed stands in the control topic."""
    path = f"{PATH}/control/epochs"
    flips = (world.damaged(path, positions, afresh=True) for positions in (EPOCHS, BOOT))
    for what in chain.from_iterable(flips):
        log = world.log()
        with suppress(LogError):
            log.producer("a", writer=world.stale).append(rows(30), transaction=7)
        with suppress(LogError):
            log.transactions.decide(world.stale, 7, "commit")
        log.transactions.writer("owner")
        with log.transaction("owner") as transaction:
            transaction.append("a", rows(20))
        assert ids_of(world.log().topic("a").to_arrow(["id"])) == [0, 1, 2, 3, *LATER, 20], what


def test_cells_of_a_group_decide_nothing(world: World) -> None:
    for what in world.damaged(f"{PATH}/groups/g/cells", range(CELLS_USED)):
        group = world.log().group("g")
        assert group.committed() == {("a", 0): 2}, what


def test_bells_that_ring_wrongly_are_looked_after(world: World) -> None:
    storage = world.disk.storage("listener")
    clock = ManualClock()
    for what in world.damaged(f"{PATH}/bells", range(4_096)):
        bells = Bells(PATH, storage, clock)
        bells.ring(3)
        rung = bells.listen([3])
        bells.wait(rung, 1_000)  # comes back
        bells.ring(3)
        started_us = clock.monotonic_us()
        bells.wait(rung, 1_000)
        assert clock.monotonic_us() == started_us, what
