"""Whatever producers do while a copy is made, it is the log of one moment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
import pytest

from millstream.errors import LockTimeoutError, MirrorError, OptionError
from millstream.log import Log
from millstream.log.backup import Mirror, back_up, picture, promote, restore
from millstream.log.backup.picture import PartitionPicture
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import SCHEMA, ids_of, log_on, memory_log, put, read

TOPICS = ("left", "right")
COPY = "/copy"


class Busy:
    """A producer that goes on, a piece at a time, between any two effects of who copies."""

    def __init__(self, log: Log, chooser: random.Random) -> None:
        self._log = log
        self._chooser = chooser
        self.transactions = 0
        self._work = self._go_on()

    def __call__(self) -> None:
        if self._chooser.random() < 0.2:
            next(self._work)

    def _go_on(self) -> Iterator[None]:
        while True:
            with self._log.transaction("busy") as transaction:
                for topic in TOPICS:
                    rows = pa.table({"id": [self.transactions]})
                    transaction.append(topic, rows, partition=0)
                    yield
            self.transactions += 1
            yield


def busy_log(seed: int) -> tuple[Log, Log, Busy]:
    """A log with a busy producer; who copies interrupts himself for it."""
    chooser = random.Random(seed)
    disk = MemoryDisk(chooser)
    log, copying = log_on(disk.storage("busy")), log_on(disk.storage("copying"))
    for topic in TOPICS:
        log.create_topic(topic, SCHEMA, config={"segment.bytes": 2_048})
    busy = Busy(log, chooser)
    for _ in range(50):
        busy()
    copying.storage.interrupt = busy  # type: ignore[attr-defined]
    look = copying.storage.map

    def look_between(path: str, size_bytes: int | None = None) -> pa.Buffer:
        busy()  # reading has no effect that could be interrupted, and takes its time all the same
        return look(path, size_bytes)

    copying.storage.map = look_between  # type: ignore[method-assign]
    return log, copying, busy


def both(log: Log) -> list[int]:
    """The ids of the transactions in a log, which must be the same in both topics."""
    left, right = (ids_of(log.topic(topic).to_arrow()) for topic in TOPICS)
    assert left == right == list(range(len(left)))
    return left


@pytest.mark.parametrize("seed", range(8))
def test_a_backup_has_all_of_a_transaction_or_nothing(seed: int) -> None:
    log, copying, busy = busy_log(seed)
    least = busy.transactions
    for number in range(1, 4):
        back_up(copying, "/spare")
        storage = log.storage
        restore("/spare", f"{COPY}{number}", storage)
        found = both(Log(f"{COPY}{number}", storage=storage, clock=log.clock))
        assert least <= len(found) <= busy.transactions
        least = len(found)


@pytest.mark.parametrize("seed", range(8))
def test_a_mirror_has_all_of_a_transaction_or_nothing_at_any_step(seed: int) -> None:
    log, copying, busy = busy_log(seed)
    seen = [0]

    def look() -> None:
        busy()
        mirror = Log(COPY, storage=log.storage, clock=log.clock)
        if set(TOPICS) <= set(mirror.topic_names()):
            # One after the other: between the two the mirror may get on, never back.
            left = ids_of(mirror.topic("left").to_arrow())
            assert len(left) >= seen[-1]
            seen.append(len(left))

    with Mirror(copying, COPY, copying.storage) as mirror:
        mirror.step()
        copying.storage.interrupt = look  # type: ignore[attr-defined]
        for _ in range(3):
            mirror.step()
    copying.storage.interrupt = None  # type: ignore[attr-defined]
    assert len(both(Log(COPY, storage=log.storage, clock=log.clock))) >= seen[-1] > 0


def test_a_mirror_that_dies_anywhere_goes_on() -> None:
    disk = MemoryDisk(random.Random(3))
    log = log_on(disk.storage("source"))
    log.create_topic("a", SCHEMA, partitions=2, config={"segment.bytes": 2_048})
    whole = 0
    for effects in range(1, 400, 3):
        put(log, "a", [effects], partition=effects % 2)
        process = disk.storage(f"mirror-{effects}")
        process.crash_after(effects % 30 + 1)
        with suppress(SimulatedCrash), Mirror(log_on(process), COPY, process) as mirror:
            mirror.step()
            whole += 1
        if effects % 7 == 0:
            disk.power_cut()
            log = log_on(disk.storage(f"source-{effects}"))
    assert 0 < whole < 100, "none, or nearly all, of 134 rounds died"
    process = disk.storage("last")
    with Mirror(log_on(process), COPY, process) as mirror:
        mirror.step()
    copy = Log(COPY, storage=process, clock=log.clock)
    for index in range(2):
        assert read(copy.topic("a"), index) == read(log.topic("a"), index)


def test_a_mirror_takes_no_writers_until_it_is_promoted() -> None:
    disk = MemoryDisk(random.Random(1))
    log = log_on(disk.storage("a"))
    log.create_topic("a", SCHEMA)
    log.create_topic("b", SCHEMA)
    put(log, "a", range(3))
    with Mirror(log, COPY, log.storage) as mirror:
        mirror.step()
        other = disk.storage("other")
        with pytest.raises(LockTimeoutError, match="mirror"):
            promote(COPY, other)
    copy = Log(COPY, storage=log.storage, clock=log.clock)
    for write in (
        lambda: copy.producer("a"),
        lambda: copy.create_topic("c", SCHEMA),
        lambda: copy.delete_topic("a"),
        lambda: copy.transactions.writer("x"),
    ):
        with pytest.raises(MirrorError, match="millstream log promote"):
            write()
    log.delete_topic("b")
    with Mirror(log, COPY, log.storage) as mirror:
        mirror.step()
    assert Log(COPY, storage=log.storage, clock=log.clock).topic_names() == ["a"]
    with pytest.raises(OptionError, match="is a mirror of /log, not of /other"):
        Mirror(Log("/other", storage=log.storage, clock=log.clock), COPY, log.storage)
    assert promote(COPY, log.storage) == "/log"
    copy = Log(COPY, storage=log.storage, clock=log.clock)
    put(copy, "a", [3])
    assert read(copy.topic("a")) == [0, 1, 2, 3]
    with pytest.raises(OptionError, match="no mirror"):
        promote(COPY, log.storage)
    with pytest.raises(OptionError, match="is not empty and no mirror"):
        Mirror(log, COPY, log.storage)


def test_a_compaction_while_a_picture_is_taken_does_not_tear_a_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = memory_log()
    config = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": 0}
    for topic in TOPICS:
        log.create_topic(topic, SCHEMA, key=["id"], config=config)
        put(log, topic, [7])
        put(log, topic, [7])  # so that there is something to compact
    writer = log.transactions.writer("owner")
    for topic in TOPICS:
        rows = pa.table({"id": [0]})
        log.producer(topic, writer=writer).append(rows, transaction=1)
    moments: list[PartitionPicture | None] = []

    def decided_behind(log: Log) -> PartitionPicture | None:
        moment = control_picture(log)
        moments.append(moment)
        if len(moments) == 1:
            log.transactions.prepare(writer, 1, [(topic, 0) for topic in TOPICS])
            log.transactions.decide(writer, 1, "commit")
            log.topic("left").partition(0).roll()
            log.clean("left")
        return moment

    control_picture = picture._control_picture
    monkeypatch.setattr(picture, "_control_picture", decided_behind)
    back_up(log, "/spare")
    assert len(moments) == 2
    restore("/spare", COPY, log.storage)
    copy = Log(COPY, storage=log.storage, clock=log.clock)
    left, right = (ids_of(copy.topic(topic).to_arrow()) for topic in TOPICS)
    assert (left, right) == ([7, 0], [7, 7, 0])
