"""Sealed segments move to a store and are read from there as if they were here."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.errors import CorruptSegmentError, InvalidTopicError, LogError
from millstream.log import Log
from millstream.log.backup import back_up, restore
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from millstream.storage_objects import FolderObjects, open_objects
from tests.log.log_kit import SCHEMA, another, log_on, memory, memory_log, put, read

STORE = "/store"
LOCAL_BYTES = 4_096
CONFIG: dict[str, object] = {
    "segment.bytes": 2_048,
    "remote.storage.place": STORE,
    "local.retention.bytes": LOCAL_BYTES,
    "local.retention.ms": -1,
}
DIRECTORY = "/log/topics/00000001/0/0"
ROWS = 300


def filled(log: Log, **config: object) -> Log:
    """A log of a topic with many segments, none of them moved yet."""
    log.create_topic("a", SCHEMA, config={**CONFIG, **config})
    for start in range(0, ROWS, 10):
        put(log, "a", range(start, start + 10))
    return log


def files(log: Log, suffix: str) -> list[str]:
    return [name for name in log.storage.list_directory(DIRECTORY) if name.endswith(suffix)]


def test_what_was_moved_is_read_by_everybody() -> None:
    log = filled(memory_log())
    before = len(files(log, ".arrows"))
    (cleaning,) = log.clean()
    assert cleaning.segments_moved == len(files(log, ".moved")) > 3
    assert len(files(log, ".arrows")) == before - cleaning.segments_moved
    size = sum(memory(log).file_size(f"{DIRECTORY}/{name}") for name in files(log, ".arrows")[:-1])
    assert size <= LOCAL_BYTES
    assert len(FolderObjects(log.storage, STORE).names("")) == cleaning.segments_moved
    (again,) = log.clean()
    assert again.segments_moved == 0
    for each in (log, another(log)):
        topic = each.topic("a")
        assert read(topic) == list(range(ROWS))
        assert read(topic, offset=5) == list(range(5, ROWS))
        assert read(topic, offset=ROWS - 1) == [ROWS - 1]
        assert topic.partition(0).first_offset == 0
        assert topic.offset_at_time(0, 0) == 0
    # After a power cut, too.
    memory(log).disk.power_cut()
    log = log_on(memory(log).disk.storage("after"))
    put(log, "a", [ROWS])
    assert read(log.topic("a")) == list(range(ROWS + 1))


def test_listing_and_cleaning_fetch_nothing() -> None:
    log = filled(memory_log())
    log.clean()
    log = another(log)
    topic = log.topic("a")
    description = topic.describe()["partitions"]
    log.clean()
    topic.offset_at_time(0, 2**62)
    assert description
    assert memory(log).list_directory("/log/cache") == []
    read(topic, offset=0)
    assert memory(log).list_directory("/log/cache") != []


def test_the_cache_stays_within_its_bound_and_readers_keep_what_they_read() -> None:
    log = filled(memory_log(), **{"remote.cache.bytes": 5_000})
    log.clean()
    table = log.topic("a").to_arrow()
    sizes = [
        memory(log).file_size(f"/log/cache/{name}")
        for name in memory(log).list_directory("/log/cache")
    ]
    assert 0 < sum(sizes) <= 5_000
    assert table.column("id").to_pylist() == list(range(ROWS))


def test_a_torn_copy_in_the_cache_is_fetched_anew() -> None:
    log = filled(memory_log())
    log.clean()
    read(log.topic("a"))
    for name in memory(log).list_directory("/log/cache"):
        content = memory(log).read_file(f"/log/cache/{name}")
        memory(log).write_file(f"/log/cache/{name}", content[:-64])
    assert read(another(log).topic("a")) == list(range(ROWS))


def test_a_damaged_or_missing_object_is_named_and_never_served() -> None:
    log = filled(memory_log())
    log.clean()
    store = FolderObjects(log.storage, STORE)
    name = store.names("")[1]
    content = bytearray(store.get(name).to_pybytes())
    content[len(content) // 2] ^= 4
    store.put(name, content)
    with pytest.raises(CorruptSegmentError, match=f"{name} of partition a/0.* is damaged there"):
        read(another(log).topic("a"))
    store.remove(name)
    with pytest.raises(CorruptSegmentError, match=f"{name} of partition a/0.* is missing there"):
        read(another(log).topic("a"))
    path = f"{DIRECTORY}/{files(log, '.moved')[0]}"
    memory(log).write_file(path, b'{"place": 1}')
    with pytest.raises(CorruptSegmentError, match=f"{path} is damaged"):
        read(another(log).topic("a"))


def test_retention_and_deletion_remove_the_objects() -> None:
    log = filled(memory_log())
    log.clean()
    store = FolderObjects(log.storage, STORE)
    count = len(store.names(""))
    log.alter_topic("a", config={"retention.bytes": 8_000})
    (cleaning,) = log.clean()
    assert cleaning.segments_removed > 0
    assert len(store.names("")) == count - cleaning.segments_removed
    first = log.topic("a").partition(0).first_offset
    assert read(log.topic("a"), offset=first) == list(range(first, ROWS))
    log.delete_topic("a")
    assert store.names("") == []


def test_rows_that_are_not_decided_stay_here() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, config={**CONFIG, "local.retention.bytes": 0})
    writer = log.transactions.writer("owner")
    log.producer("a", writer=writer).append(pa.table({"id": [0]}), transaction=1)
    for start in range(0, ROWS, 10):
        put(log, "a", range(start, start + 10))
    (cleaning,) = log.clean()
    assert cleaning.segments_moved == 0
    log.transactions.decide(writer, 1, "abort")
    (cleaning,) = log.clean()
    assert cleaning.segments_moved == len(files(log, ".moved")) > 3
    assert read(log.topic("a")) == list(range(ROWS))


@pytest.mark.parametrize("power_cut", [False, True])
def test_who_dies_while_moving_loses_nothing(power_cut: bool) -> None:
    disk = MemoryDisk(random.Random(5))
    log = filled(log_on(disk.storage("first")))
    crashes = 0
    for effects in range(1, 10_000):
        process = disk.storage(f"cleaner-{effects}")
        process.crash_after(1 + effects % 40)
        try:
            (cleaning,) = log_on(process).clean()
        except SimulatedCrash:
            crashes += 1
        else:
            if cleaning.segments_moved == 0:
                break
        if power_cut:
            disk.power_cut()
        log = log_on(disk.storage(f"reader-{effects}"))
        assert read(log.topic("a")) == list(range(ROWS))
    assert crashes > 5
    assert read(log.topic("a")) == list(range(ROWS))
    known = len(files(log, ".moved"))
    assert known > 3
    # Objects of a mover that died are rubbish; the same segment has the same object.
    assert len(FolderObjects(log.storage, STORE).names("")) == known


def test_a_backup_has_what_was_moved() -> None:
    log = filled(memory_log())
    log.clean()
    back_up(log, "/spare")
    for name in FolderObjects(log.storage, STORE).names(""):
        FolderObjects(log.storage, STORE).remove(name)
    restore("/spare", "/restored", log.storage)
    restored = Log("/restored", storage=log.storage, clock=log.clock)
    assert read(restored.topic("a")) == list(range(ROWS))
    assert back_up(another(log), "/spare").bytes_stored < 100  # nothing is fetched again


def test_a_place_is_a_whole_path_or_a_uri(tmp_path: Path) -> None:
    log = memory_log()
    with pytest.raises(InvalidTopicError, match="a folder by its whole path, or a URI"):
        log.create_topic("a", SCHEMA, config={"remote.storage.place": "store"})
    real = Log(tmp_path / "log")
    place = (tmp_path / "store").as_uri()
    config = {**CONFIG, "remote.storage.place": place, "local.retention.bytes": 0}
    real.create_topic("a", SCHEMA, config=config)
    for start in range(0, ROWS, 10):
        put(real, "a", range(start, start + 10))
    real.clean()  # what was not moved yet by whoever sealed a segment
    folder = tmp_path / "log/topics/00000001/0/0"
    names = open_objects(place, real.storage).names("")
    assert len(names) == len(list(folder.glob("*.moved"))) > 3
    assert read(Log(tmp_path / "log").topic("a")) == list(range(ROWS))


def test_a_store_that_refuses_leaves_everything_here() -> None:
    log = filled(memory_log())
    log.alter_topic("a", config={"remote.storage.place": "s3://127.0.0.1:1/no"})
    log.alter_topic("a", config={"remote.storage.place": "nosuch://store/x"})
    before = files(log, ".arrows")
    with pytest.raises(LogError, match=r"cannot move .* to nosuch://store/x: .*; it stays"):
        log.clean()
    assert files(log, ".arrows") == before
    assert read(log.topic("a")) == list(range(ROWS))


def test_a_backup_goes_on_where_moved_segments_are_removed_meanwhile() -> None:
    log = filled(memory_log(), **{"local.retention.bytes": 0})
    log.clean()
    other = another(log)
    erased: list[bool] = []

    def erase() -> None:
        """Remove what was moved, in the middle of the backup."""
        if not erased and len(memory(log).list_directory("/log/cache")) > 1:
            erased.append(True)
            other.alter_topic("a", config={"retention.bytes": 5_000})
            other.clean()

    memory(log).interrupt = erase
    back_up(log, "/spare")
    memory(log).interrupt = None
    assert erased
    restore("/spare", "/restored", log.storage)
    restored = Log("/restored", storage=log.storage, clock=log.clock)
    first = log.topic("a").partition(0).first_offset
    assert first > 0
    assert read(restored.topic("a"), offset=first) == list(range(first, ROWS))


def test_a_store_that_gives_back_something_else_leaves_everything_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = filled(memory_log())
    before = files(log, ".arrows")
    with monkeypatch.context() as patch:
        patch.setattr(FolderObjects, "get", lambda self, name: pa.py_buffer(b"something else"))
        with pytest.raises(LogError, match="gives back something else than"):
            log.clean()
    assert (files(log, ".arrows"), files(log, ".moved")) == (before, [])
    assert read(log.topic("a")) == list(range(ROWS))
