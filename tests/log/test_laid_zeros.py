"""Zeros behind the frames of a segment that is synced often: laid, written over, cut off."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from millstream.errors import LogError
from millstream.log.check.verify import verify
from millstream.log.control_file import ControlFile
from millstream.log.partition import Partition
from millstream.log.segment import segment_file_name
from millstream.storage_local import LocalStorage
from millstream.storage_memory import MemoryDisk
from tests.log.log_kit import SCHEMA, another, ids_of, log_on, memory, zeros_laid_in
from tests.log.log_kit import rows as log_rows
from tests.log.partition_kit import RebootedStorage, open_partition, read_ids, rows
from tests.log.plain_reader import read_segment

SEGMENT = segment_file_name(0)


@pytest.fixture(autouse=True)
def small_segments_have_zeros() -> Iterator[None]:
    with zeros_laid_in(1):
        yield


def filled(folder: Path, appends: int = 6) -> Partition:
    """A partition whose appends were synced one by one."""
    partition = open_partition(folder)
    for start in range(appends):
        partition.append(rows(start, 1))
        partition.sync()
    return partition


def tail_of(partition: Partition) -> bytes:
    """What the first segment's file has behind its frames."""
    return (Path(partition.directory) / SEGMENT).read_bytes()[partition.segments()[0][1] :]


def test_the_next_frames_take_the_place_of_zeros(tmp_path: Path) -> None:
    partition = filled(tmp_path)
    tail = tail_of(partition)
    assert set(tail) == {0}
    size = (tmp_path / SEGMENT).stat().st_size
    partition.append(rows(6, 1))
    assert (tmp_path / SEGMENT).stat().st_size == size
    partition.sync()
    assert read_ids(partition) == list(range(7))
    assert set(tail_of(partition)) == {0}


def test_a_frame_that_is_larger_than_the_zeros_goes_beyond_them(tmp_path: Path) -> None:
    partition = filled(tmp_path)
    partition.append(rows(6, 2_000))
    partition.sync()
    assert read_ids(partition) == list(range(2_006))


def test_what_is_not_synced_often_gets_none(tmp_path: Path) -> None:
    for durability in ("fsync", "os"):
        partition = open_partition(tmp_path / durability, durability=durability)
        for start in range(10):
            partition.append(rows(start, 1))
        partition.sync_all()
        assert tail_of(partition) == b"", durability


def test_small_segments_get_none(tmp_path: Path) -> None:
    with zeros_laid_in(100_000):
        assert tail_of(filled(tmp_path)) == b""


def test_a_sealed_segment_ends_with_its_last_frame(tmp_path: Path) -> None:
    partition = filled(tmp_path)
    size = partition.segments()[0][1]
    assert (tmp_path / SEGMENT).stat().st_size > size
    partition.roll()
    partition.append(rows(6, 1))
    assert (tmp_path / SEGMENT).stat().st_size == partition.segments()[0][1] == size
    partition.sync()
    assert read_ids(partition) == list(range(7))


def test_zeros_never_make_a_segment_larger_than_it_may_be(tmp_path: Path) -> None:
    partition = open_partition(tmp_path, segment_bytes=5_000)
    for start in range(40):
        partition.append(rows(start, 1))
        partition.sync()
        assert all(path.stat().st_size <= 5_000 for path in tmp_path.glob("*.arrows"))
    assert len(partition.segments()) > 2


def test_arrow_readers_take_zeros_for_the_end(tmp_path: Path) -> None:
    partition = filled(tmp_path)
    path = tmp_path / SEGMENT
    assert tail_of(partition)
    assert pa.ipc.open_stream(path.read_bytes()).read_all()["id"].to_pylist() == list(range(6))
    assert pl.read_ipc_stream(path)["id"].to_list() == list(range(6))
    frames, end = read_segment(path, is_last=True)
    assert (len(frames), end) == (6, 6)


def test_after_a_power_cut_rows_end_where_zeros_begin(tmp_path: Path) -> None:
    partition = filled(tmp_path)
    size = partition.segments()[0][1]
    again = open_partition(tmp_path, storage=RebootedStorage())
    assert read_ids(again) == list(range(6))
    assert (tmp_path / SEGMENT).stat().st_size == size
    again.append(rows(6, 1))
    again.sync()
    assert read_ids(again) == list(range(7))


def test_what_a_dead_appender_left_among_the_zeros_is_cut(tmp_path: Path) -> None:
    """Behind the next frame it has one that would go on there."""
    partition = filled(tmp_path / "a", 7)
    other = filled(tmp_path / "b", 7)
    ends = [written_to(other)]
    for start in (7, 8):
        other.append(rows(start, 1))
        ends.append(written_to(other))
    content = (tmp_path / "b" / SEGMENT).read_bytes()
    left = bytes(ends[1] - ends[0]) + content[ends[1] : ends[2]]
    assert written_to(partition) == ends[0]
    control = ControlFile(LocalStorage(), partition.directory)
    file = LocalStorage().open_append(f"{partition.directory}/{SEGMENT}", in_place=True)
    for is_known in (False, True):
        control.append_under_way = is_known
        file.write(ends[0], [left])
        partition.append(rows(7, 1))
        partition.sync()
        found = copied(tmp_path / "a", tmp_path / f"after {is_known}")
        # Without the word that the appender leaves, its bytes would be rows.
        assert found.durable_end == (8 if is_known else 9)
        if not is_known:
            shutil.rmtree(tmp_path / "a")
            partition = filled(tmp_path / "a", 7)
            control = ControlFile(LocalStorage(), partition.directory)
            file = LocalStorage().open_append(f"{partition.directory}/{SEGMENT}", in_place=True)
    assert read_ids(partition) == list(range(8))


def written_to(partition: Partition) -> int:
    """Where the next frame goes."""
    end = ControlFile(LocalStorage(), partition.directory).written()
    assert end is not None
    return end.position


def copied(folder: Path, copy: Path) -> Partition:
    """The partition as it is after a power cut that takes nothing."""
    shutil.copytree(folder, copy)
    return open_partition(copy, storage=RebootedStorage())


def test_a_full_disk_refuses_zeros_and_takes_rows() -> None:
    log = log_on(MemoryDisk(random.Random(1)).storage("a"))
    log.create_topic("a", SCHEMA)
    producer = log.producer("a")
    storage = memory(log)
    producer.append(log_rows(*range(10)))
    producer.flush()
    storage.fail("append", OSError(28, "No space left on device"), after=1)
    producer.append(log_rows(10))  # and then there is no room for zeros
    producer.flush()
    storage.fail("append", OSError(28, "No space left on device"))
    with pytest.raises(LogError, match="No space left"):
        producer.append(log_rows(11))
    assert ids_of(another(log).topic("a").to_arrow()) == list(range(11))


def test_a_check_after_a_power_cut_finds_nothing_wrong_with_zeros() -> None:
    disk = MemoryDisk(random.Random(1))
    log = log_on(disk.storage("a"))
    log.create_topic("a", SCHEMA)
    producer = log.producer("a")
    for each in range(5):
        producer.append(log_rows(each))
        producer.flush()
    ends = log.topic("a").partition(0).segments()
    path = "/log/topics/00000001/0/0/" + SEGMENT
    assert memory(log).file_size(path) > ends[0][1]
    disk.power_cut()
    after = log_on(disk.storage("b"))
    verdicts = list(verify(after))
    assert [each.findings for each in verdicts] == [[] for _ in verdicts]
    assert verdicts[0].rows == 5
