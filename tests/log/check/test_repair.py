"""A repaired partition has every row that is whole, at its own offset, and goes on."""

from __future__ import annotations

import random
from collections.abc import Callable

import pyarrow as pa
import pytest

from millstream.errors import CorruptSegmentError, LockTimeoutError, UnknownTopicError
from millstream.log import Log
from millstream.log.backup import back_up
from millstream.log.check.repair import Repair, repair
from millstream.log.check.verify import verify
from millstream.storage_memory import SimulatedCrash
from tests.log.check.test_verify import FIRST, PATH, ROWS, STEP, damage, filled
from tests.log.log_kit import SCHEMA, another, log_on, memory, memory_log, put, read, rows

SEEDS = range(40)


def files(log: Log) -> list[str]:
    names = memory(log).list_directory(PATH)
    return [f"{PATH}/{name}" for name in names if name.endswith(".arrows")]


def hurt(log: Log, chooser: random.Random) -> None:
    """Flip bits of segments, cut them, remove them: what disks and other programs do."""
    storage = memory(log)
    for _ in range(chooser.randrange(1, 4)):
        path = chooser.choice(files(log))
        size = storage.file_size(path)
        match chooser.choice(["flip", "flip", "flip", "cut", "remove", "zero"]):
            case "flip":
                damage(log, path, chooser.randrange(size), 1 << chooser.randrange(8))
            case "cut":
                storage.write_file(path, storage.read_file(path)[: chooser.randrange(size)])
            case "remove" if len(files(log)) > 1 and path != files(log)[0]:
                storage.remove(path)
            case _:
                start = chooser.randrange(size)
                content = bytearray(storage.read_file(path))
                content[start : start + 300] = bytes(len(content[start : start + 300]))
                storage.write_file(path, content)


def offsets_and_ids(log: Log) -> list[tuple[int, int]]:
    reader = log.topic("a").reader(0, columns=["id", "_offset"])
    found: list[tuple[int, int]] = []
    while (batch := reader.read()) is not None:
        columns = (batch.column(name).to_pylist() for name in ("_offset", "id"))
        found += zip(*columns, strict=True)
    return found


def check(log: Log, done: list[Repair]) -> None:
    """What is left is all but what is said to be lost; it is whole, and rows can be appended."""
    lost = {offset for each in done for start, stop in each.lost for offset in range(start, stop)}
    log = another(log)
    assert not any(each.is_damaged for each in verify(log, "a"))
    kept = [offset for offset in range(ROWS) if offset not in lost]
    first = log.topic("a").partition(0).first_offset
    assert offsets_and_ids(log) == [(each, each) for each in kept if each >= first]
    put(log, "a", [ROWS], partition=0)
    assert offsets_and_ids(another(log))[-1] == (ROWS, ROWS)
    assert repair(another(log), "a") == []


@pytest.mark.parametrize("seed", SEEDS)
def test_all_that_is_whole_is_saved(seed: int) -> None:
    chooser = random.Random(seed)
    log = filled(chooser.choice([2_048, 1_000_000]))
    hurt(log, chooser)
    log = another(log)
    found = [each for each in verify(log, "a") if each.is_damaged]
    planned = repair(log, "a", dry_run=True)
    assert [(each.topic, each.partition) for each in planned[:1]] == [
        (each.topic, each.partition) for each in found
    ]
    done = repair(another(log), "a")
    assert [(each.path, each.lost) for each in planned] == [(each.path, each.lost) for each in done]
    for each in done:
        assert not each.saved_as or memory(log).exists(each.saved_as)
    check(log, done)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_backup_has_is_not_lost(seed: int) -> None:
    chooser = random.Random(seed)
    log = filled(chooser.choice([2_048, 1_000_000]))
    back_up(log, "/spare")
    hurt(log, chooser)
    planned = repair(another(log), "a", place="/spare", dry_run=True)
    done = repair(another(log), "a", place="/spare")
    assert [each.path for each in planned] == [each.path for each in done]
    assert all(each.lost == [] for each in [*planned, *done])
    check(log, done)


@pytest.mark.parametrize("gone", [slice(1, 2), slice(1, 4), slice(-1, None), slice(0, None)])
@pytest.mark.parametrize("cut", [False, True])
def test_segments_that_are_gone_come_from_a_backup(gone: slice, cut: bool) -> None:
    log = filled(2_048)
    back_up(log, "/spare")
    for path in files(log)[gone]:
        memory(log).remove(path)
    if cut:
        control = memory(log).read_file(f"{PATH}/control")
        memory(log).disk.power_cut()
        log = log_on(memory(log).disk.storage("after"))
        memory(log).write_file(f"{PATH}/control", control)
    done = repair(log, "a", 0, place="/spare")
    assert done
    assert all(each.lost == [] for each in done)
    check(log, done)


@pytest.mark.parametrize("policy", ["compact", "delete"])
def test_what_compaction_or_retention_took_is_not_missed(policy: str) -> None:
    log = memory_log()
    log.create_topic("k", SCHEMA, key=["id"], config={"segment.bytes": 2_048})
    for _ in range(8):
        put(log, "k", range(10))
    topic = log.topic("k")
    back_up(log, "/spare")
    before = len(topic.partition(0).segments())
    log.alter_topic("k", config={"cleanup.policy": policy, "retention.bytes": 2_500})
    log.clean("k")
    kept = another(log).topic("k").to_arrow(["_offset", "id"])
    assert len(another(log).topic("k").partition(0).segments()) < before
    assert repair(another(log), "k", place="/spare") == []
    assert another(log).topic("k").to_arrow(["_offset", "id"]) == kept


@pytest.mark.parametrize("seed", range(6))
def test_who_dies_while_repairing_is_followed_by_who_does_it(seed: int) -> None:
    chooser = random.Random(seed)
    log = filled(chooser.choice([2_048, 1_000_000]))
    hurt(log, chooser)
    planned = repair(another(log), "a", dry_run=True)
    disk = memory(log).disk
    for effects in range(1, 200):
        process = disk.storage(f"repair-{effects}")
        process.crash_after(effects)
        try:
            repair(log_on(process), "a")
        except SimulatedCrash:
            if effects % 3 == 0:
                # Mostly the control file outlives a power cut; else nobody knows how far it went.
                control = memory(log).read_file(f"{PATH}/control")
                disk.power_cut()
                log = log_on(disk.storage(f"after-{effects}"))
                memory(log).write_file(f"{PATH}/control", control)
        else:
            break
    assert effects > 3 or not planned
    check(log_on(disk.storage("after")), planned)


def test_readers_stop_before_and_pass_after() -> None:
    log = filled(segment_bytes=1_000_000)
    damage(log, FIRST, memory(log).file_size(FIRST) // 2)
    with pytest.raises(CorruptSegmentError):
        read(another(log).topic("a"))
    (done,) = repair(another(log), "a", 0)
    ((start, stop),) = done.lost
    assert stop - start == STEP
    assert done.rows_kept == ROWS - STEP
    assert read(another(log).topic("a")) == [*range(start), *range(stop, ROWS)]
    assert repair(another(log), "a", 1) == []


def test_transactions_are_what_they_were() -> None:
    log = filled(segment_bytes=1_000_000)
    outcomes: dict[str, Callable[[], object]] = {}
    for number, name in enumerate(("commit", "abort", "undecided")):
        writer = log.transactions.writer(name)
        rows = pa.table({"id": [ROWS + number]})
        log.producer("a", writer=writer).append(rows, partition=0, transaction=1)
        if name != "undecided":
            log.transactions.decide(writer, 1, name)  # type: ignore[arg-type]
        outcomes[name] = lambda writer=writer: log.transactions.decide(writer, 1, "commit")  # type: ignore[misc]
    log.topic("a").partition(0).sync()
    damage(log, FIRST, 1_000)
    (done,) = repair(another(log), "a")
    ((start, stop),) = done.lost
    kept = [*range(start), *range(stop, ROWS)]
    assert read(another(log).topic("a")) == [*kept, ROWS]
    outcomes["undecided"]()
    assert read(another(log).topic("a")) == [*kept, ROWS, ROWS + 2]


@pytest.mark.parametrize("segment_bytes", [2_048, 1_000_000])
def test_a_retried_append_is_stored_once_also_after_a_repair(segment_bytes: int) -> None:
    log = filled(segment_bytes)
    with log.producer("a", name="importer") as producer:
        producer.append(rows(ROWS), partition=0, sequence=7)
    put(log, "a", range(ROWS + 1, ROWS + 50), partition=0)
    damage(log, files(log)[-1], memory(log).file_size(files(log)[-1]) - 70)
    damage(log, FIRST, 1_000)
    repair(another(log), "a")
    ids = [each for _, each in offsets_and_ids(another(log))]
    assert ids.count(ROWS) == 1
    with another(log).producer("a", name="importer") as producer:
        producer.append(rows(ROWS), partition=0, sequence=7)
        producer.append(rows(ROWS + 100), partition=0, sequence=8)
    assert [each for _, each in offsets_and_ids(another(log))] == [*ids, ROWS + 100]


def test_nobody_may_be_at_work_meanwhile() -> None:
    log = filled()
    damage(log, FIRST, 1_000)
    with memory(log).lock(f"{PATH}/append.lock"), pytest.raises(LockTimeoutError):
        repair(another(log), "a")
    with pytest.raises(UnknownTopicError, match="did you mean 'a'"):
        repair(log, "aa")
