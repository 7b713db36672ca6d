"""A backup is the log at one moment, only what is new is stored, and damage is told."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.errors import BackupError, CorruptSegmentError, OptionError
from millstream.log import Log
from millstream.log.backup import back_up, backups, restore
from millstream.storage_memory import SimulatedCrash
from millstream.storage_objects import FolderObjects
from tests.log.log_kit import SCHEMA, another, log_on, memory, memory_log, put, read

PLACE = "/spare"


def restored(log: Log, directory: str = "/restored", number: int | None = None) -> Log:
    restore(PLACE, directory, log.storage, number)
    return Log(directory, storage=log.storage, clock=log.clock)


def test_a_restored_log_has_topics_rows_transactions_and_goes_on() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, partitions=2)
    log.create_topic("table", SCHEMA, key=("id",), table=True)
    put(log, "a", range(10), partition=0)
    put(log, "a", range(10, 20), partition=1)
    with log.transaction("owner") as transaction:
        transaction.append("a", pa.table({"id": [20, 21]}), partition=0)
        transaction.append("table", pa.table({"id": [1]}))
    undecided = log.transactions.writer("other")
    log.producer("a", writer=undecided).append(pa.table({"id": [99]}), partition=1, transaction=1)
    report = back_up(log, PLACE)
    assert (report.number, report.topics) == (1, 2)

    copy = restored(log)
    assert copy.topic_names() == ["a", "table"]
    assert read(copy.topic("a"), 0) == [*range(10), 20, 21]
    assert read(copy.topic("a"), 1) == list(range(10, 20))
    assert copy.topic("table").latest().column("id").to_pylist() == [1]
    # The undecided one is not visible, and aborted by its owner's next life.
    copy.transactions.writer("other")
    put(copy, "a", [30], partition=1)
    assert read(copy.topic("a"), 1) == [*range(10, 20), 30]
    assert copy.transactions.writer("owner").epoch == 2


def test_only_what_is_new_is_stored() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, config={"segment.bytes": 4_096})
    for start in range(0, 200, 10):
        put(log, "a", range(start, start + 10))
    first = back_up(log, PLACE)
    assert first.bytes_stored == pytest.approx(first.bytes_total, rel=0.2)
    again = back_up(log, PLACE)
    assert again.bytes_stored == 0
    put(log, "a", [200])
    third = back_up(log, PLACE)
    assert 0 < third.bytes_stored < 3_000
    assert [each.number for each in backups(PLACE, log.storage)] == [1, 2, 3]
    assert read(restored(log, "/one", 1).topic("a")) == list(range(200))
    assert read(restored(log, "/three").topic("a")) == list(range(201))


def test_a_tail_that_was_taken_back_and_written_anew_is_stored_anew() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    put(log, "a", range(10))
    back_up(log, PLACE)
    ((_, size),) = log.topic("a").partition(0).segments()
    path = f"{log.path}/topics/00000001/0/0/{0:020d}.arrows"
    # As after a power cut in durability `os`: the same head, other rows.
    put(log, "a", range(10, 20))
    other = memory_log(1)
    other.create_topic("a", SCHEMA)
    put(other, "a", range(50, 60))
    put(other, "a", range(60, 70))
    content = memory(other).read_file(path)
    assert len(content) > size
    # The clocks are the same, and so are the heads and all lengths.
    memory(log).write_file(path, content)
    report = back_up(another(log), PLACE)
    assert report.bytes_stored > size
    assert read(restored(log).topic("a")) == list(range(50, 70))


def test_old_backups_are_removed_with_what_only_they_had() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    log.create_topic("b", SCHEMA)
    put(log, "a", range(100))
    put(log, "b", range(5))
    back_up(log, PLACE)
    pieces = FolderObjects(log.storage, PLACE).names("pieces")
    log.delete_topic("a")
    back_up(log, PLACE, keep=1)
    assert [each.number for each in backups(PLACE, log.storage)] == [2]
    with pytest.raises(BackupError, match="no backup 1"):
        restored(log, number=1)
    assert read(restored(log).topic("b")) == list(range(5))
    left = FolderObjects(log.storage, PLACE).names("pieces")
    assert set(left) < set(pieces)
    with pytest.raises(OptionError, match="keep is at least 1"):
        back_up(log, PLACE, keep=0)


def test_a_damaged_log_is_not_backed_up_and_a_damaged_backup_not_restored() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    put(log, "a", range(100))
    back_up(log, PLACE)
    path = f"{log.path}/topics/00000001/0/0/{0:020d}.arrows"
    content = bytearray(memory(log).read_file(path))
    content[-100] ^= 1
    memory(log).write_file(path, content)
    with pytest.raises(CorruptSegmentError, match="partition a/0 is damaged from offset 0"):
        back_up(another(log), PLACE, full=True)
    assert len(backups(PLACE, log.storage)) == 1

    # Every byte of every piece counts.
    storage = memory(log)
    for folder in storage.list_directory(f"{PLACE}/pieces"):
        for name in storage.list_directory(f"{PLACE}/pieces/{folder}"):
            piece = f"{PLACE}/pieces/{folder}/{name}"
            whole = storage.read_file(piece)
            damaged = bytearray(whole)
            damaged[random.Random(1).randrange(len(whole))] ^= 0x10
            storage.write_file(piece, damaged)
            with pytest.raises(BackupError, match=f"{name} is damaged"):
                restored(log, f"/broken-{name}")
            storage.write_file(piece, whole)


def test_a_restore_that_was_ended_can_be_done_again_but_not_into_anything_else() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, partitions=2)
    put(log, "a", range(10), partition=0)
    back_up(log, PLACE)
    effects = 1
    while True:
        process = memory(log).disk.storage(f"restoring-{effects}")
        process.crash_after(effects)
        directory = f"/target-{effects}"
        try:
            restore(PLACE, directory, process)
        except SimulatedCrash:
            effects += 1
        else:
            break
        assert not memory(log).exists(f"{directory}/log.json") or read(
            Log(directory, storage=memory(log), clock=log.clock).topic("a")
        ) == list(range(10))
        if not memory(log).exists(f"{directory}/log.json"):
            assert read(restored(log, directory).topic("a")) == list(range(10))
    assert effects > 10
    with pytest.raises(OptionError, match="is not empty"):
        restored(log, f"/target-{effects}")


def test_a_backup_inside_the_log_and_one_of_nothing_are_refused() -> None:
    log = memory_log()
    with pytest.raises(OptionError, match="there is no log in /log"):
        back_up(log, PLACE)
    log.create_topic("a", SCHEMA)
    with pytest.raises(OptionError, match="lies inside the log"):
        back_up(log, "/log/spare")
    with pytest.raises(BackupError, match="no backup in /spare; there are: none"):
        restored(log)
    with pytest.raises(OptionError, match="cannot use 'nosuch://x'"):
        back_up(log, "nosuch://x")


def test_a_file_system_of_pyarrow_holds_backups_too(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.create_topic("a", SCHEMA)
    put(log, "a", range(10))
    place = (tmp_path / "spare").as_uri()
    assert back_up(log, place).number == 1
    put(log, "a", range(10, 12))
    assert back_up(log, place, keep=1).number == 2
    assert [each.number for each in backups(place, log.storage)] == [2]
    restore(place, str(tmp_path / "copy"), log.storage)
    assert read(Log(tmp_path / "copy").topic("a")) == list(range(12))


def test_a_piece_whose_storer_died_is_stored_anew() -> None:
    """It may be there and yet not be durable."""
    for seed in range(60):
        log = memory_log(seed)
        log.create_topic("a", SCHEMA)
        put(log, "a", range(10))
        first = another(log)
        memory(first).crash_after(20 + seed % 10)
        with suppress(SimulatedCrash):
            back_up(first, PLACE)
        number = back_up(another(log), PLACE).number
        memory(log).disk.power_cut()
        after = log_on(memory(log).disk.storage("after"))
        assert read(restored(after, number=number).topic("a")) == list(range(10))
