"""The disk begins with large frames at the append, and with several partitions before any sync."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from millstream.errors import LogError
from millstream.log.appender import VERIFY_AFTER_US
from millstream.log.segment import segment_file_name
from millstream.log.write_back import BEGIN_BYTES, PAGE_BYTES
from millstream.storage_local import LocalStorage
from millstream.storage_local.files import LocalAppendFile
from millstream.storage_memory.handles import MemoryAppendFile
from tests.log.log_kit import SCHEMA, another, log_on, memory, memory_log, syncs_begun_at
from tests.log.log_kit import rows as log_rows
from tests.log.partition_kit import open_partition, read_ids, rows
from tests.log.schedules import all_ids, error_of

Call = tuple[str, int, int]


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    """What is begun and synced, in order: position and size."""
    noted: list[Call] = []
    begin, sync = LocalAppendFile.begin_sync, LocalAppendFile.sync

    def noting_begin(self: LocalAppendFile, position: int, size_bytes: int) -> None:
        noted.append(("begin", position, size_bytes))
        begin(self, position, size_bytes)

    def noting_sync(self: LocalAppendFile) -> None:
        noted.append(("sync", 0, 0))
        sync(self)

    with (
        mock.patch.object(LocalAppendFile, "begin_sync", noting_begin),
        mock.patch.object(LocalAppendFile, "sync", noting_sync),
    ):
        yield noted


def test_each_whole_page_is_begun_with_once(tmp_path: Path, calls: list[Call]) -> None:
    partition = open_partition(tmp_path)
    for start in range(0, 120_000, 10_000):
        partition.append(rows(start, 10_000))
    size = (tmp_path / segment_file_name(0)).stat().st_size
    assert size > 8 * BEGIN_BYTES
    begun = 0
    for name, position, size_bytes in calls:
        assert (name, position) == ("begin", begun)
        assert size_bytes % PAGE_BYTES == 0
        begun += size_bytes
    assert size - BEGIN_BYTES < begun <= size
    partition.sync()
    partition.append(rows(120_000, 10_000))
    partition.append(rows(130_000, 10_000))
    # What the sync has done is not begun with again.
    assert calls[-1][1] >= size or calls[-1][0] == "sync"
    assert read_ids(partition) == list(range(120_000))


def test_what_is_synced_anyway_or_never_is_not_begun_with(
    tmp_path: Path, calls: list[Call]
) -> None:
    often = open_partition(tmp_path / "often")
    for start in range(40):
        often.append(rows(start * 1_000, 1_000))
        often.sync()
    never = open_partition(tmp_path / "never", durability="os")
    for start in range(10):
        never.append(rows(start * 10_000, 10_000))
    assert {name for name, _, _ in calls} == {"sync"}


def test_a_flush_begins_with_all_partitions(tmp_path: Path, calls: list[Call]) -> None:
    from millstream.log import Log

    log = Log(tmp_path)
    log.create_topic("a", SCHEMA, partitions=3)
    producer = log.producer("a")
    for number in range(3):
        producer.append(log_rows(number), partition=number)
    calls.clear()
    producer.flush()
    assert [name for name, _, _ in calls] == ["begin"] * 3 + ["sync"] * 3
    producer.append(log_rows(3), partition=1)
    calls.clear()
    producer.flush()  # there is nothing to do meanwhile
    assert [name for name, _, _ in calls] == ["sync"]


def test_nobody_waits_for_who_syncs_right_now(tmp_path: Path, calls: list[Call]) -> None:
    partition = open_partition(tmp_path)
    partition.append(rows(0, 1))
    with LocalStorage().lock(f"{tmp_path}/sync.lock"):
        partition.begin_sync()
    assert not calls
    partition.begin_sync()
    assert [name for name, _, _ in calls] == ["begin"]


@pytest.mark.parametrize("where", ["append", "flush"])
def test_what_the_disk_refuses_then_is_told_by_the_flush(where: str) -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA, partitions=2)
    producer = log.producer("a")
    for number in range(2):
        producer.append(log_rows(number), partition=number)
    producer.flush()
    other = another(log).producer("a")
    other.append(log_rows(10), partition=1)
    other.flush()
    begins = mock.patch.object(
        MemoryAppendFile, "begin_sync", autospec=True, side_effect=MemoryAppendFile.begin_sync
    )
    with syncs_begun_at(1 if where == "append" else 10**6), begins as begin_sync:
        memory(log).fail("begin_sync", error_of(errno.EIO))
        producer.append(log_rows(2), partition=0)
        assert begin_sync.call_count == (where == "append")
        producer.append(log_rows(3), partition=1)
        with pytest.raises(LogError, match="a sync failed"):
            producer.flush()
        assert begin_sync.call_count >= 1
        for each in (producer, other):
            with pytest.raises(LogError, match="refuses to write; a sync failed"):
                each.append(log_rows(4), partition=0)
        log.clock.sleep_us(VERIFY_AFTER_US)
        producer.append(log_rows(5), partition=0)
        producer.append(log_rows(6), partition=1)
        producer.flush()
    # The file had all rows still: whoever verified it has written them anew.
    memory(log).disk.power_cut()
    assert sorted(all_ids(log_on(memory(log).disk.storage("end")))) == [0, 1, 2, 3, 5, 6, 10]


def test_who_syncs_with_a_file_opened_later_does_not_believe_it() -> None:
    log = memory_log()
    log.create_topic("a", SCHEMA)
    producer = log.producer("a")
    with syncs_begun_at(1):
        memory(log).fail("begin_sync", error_of(errno.EIO))
        producer.append(log_rows(1))
    another(log).producer("a").flush()
    other = another(log).topic("a").partition(0)
    other.sync()
    memory(log).disk.power_cut()
    assert all_ids(log_on(memory(log).disk.storage("end"))) == [1]
