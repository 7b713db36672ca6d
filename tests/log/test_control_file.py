from __future__ import annotations

from pathlib import Path

import pytest

from millstream.errors import CorruptSegmentError
from millstream.log.control_file import SIZE, ControlFile, LogEnd
from millstream.storage_local import LocalStorage
from tests.log.partition_kit import RebootedStorage, open_partition, read_ids, rows


def control_file(folder: Path) -> ControlFile:
    return ControlFile(LocalStorage(), str(folder))


def test_a_new_file_says_nothing(tmp_path: Path) -> None:
    control = control_file(tmp_path)
    assert (control.written(), control.durable(), control.sync_failed) == (None, None, False)
    assert not control.is_of_this_boot()
    control.stamp_boot()
    assert control.is_of_this_boot()
    assert not ControlFile(RebootedStorage(), str(tmp_path)).is_of_this_boot()


def test_every_process_sees_the_ends_that_one_publishes(tmp_path: Path) -> None:
    one, other = control_file(tmp_path), control_file(tmp_path)
    for offset in range(5):
        one.publish_written(LogEnd(0, 64 * offset, offset))
        assert other.written() == LogEnd(0, 64 * offset, offset)
        assert other.durable() == (LogEnd(0, 0, offset - 1) if offset else None)
        other.publish_durable(LogEnd(0, 0, offset))
        assert one.durable() == LogEnd(0, 0, offset)


def test_a_slot_that_is_torn_at_any_byte_leaves_the_end_before(tmp_path: Path) -> None:
    control = control_file(tmp_path)
    control.publish_written(LogEnd(0, 128, 10))
    before = (tmp_path / "control").read_bytes()
    control.publish_written(LogEnd(0, 256, 20))
    after = (tmp_path / "control").read_bytes()
    changed = [index for index in range(SIZE) if before[index] != after[index]]
    for cut in range(changed[0], changed[-1] + 1):
        (tmp_path / "control").write_bytes(after[:cut] + before[cut:])
        assert control_file(tmp_path).written() == LogEnd(0, 128, 10), cut
    (tmp_path / "control").write_bytes(after)
    assert control_file(tmp_path).written() == LogEnd(0, 256, 20)


def test_the_failure_mark_is_shared(tmp_path: Path) -> None:
    one, other = control_file(tmp_path), control_file(tmp_path)
    one.sync_failed = True
    assert other.sync_failed
    other.sync_failed = False
    assert not one.sync_failed


def test_a_flipped_bit_never_serves_a_wrong_row(tmp_path: Path) -> None:
    partition = open_partition(tmp_path / "0")
    for count in (2, 3):
        partition.append(rows(partition.written_end, count))
        partition.sync()
    partition.append(rows(5, 1))
    path = tmp_path / "0" / "control"
    content = path.read_bytes()
    segment = (tmp_path / "0" / "00000000000000000000.arrows").read_bytes()
    used = [*range(60), *(64 * slot + each for slot in range(1, 5) for each in range(36))]
    used += range(320, 344)
    for index, position in enumerate(used):
        flipped = bytearray(content)
        flipped[position] ^= 1 << index % 8
        path.write_bytes(flipped)
        try:
            ids = read_ids(open_partition(tmp_path / "0"))
        except CorruptSegmentError:
            continue
        assert ids == list(range(len(ids)))
        assert len(ids) >= 2
        (tmp_path / "0" / "00000000000000000000.arrows").write_bytes(segment)


@pytest.mark.parametrize("boot", ["", "x" * 200, "ünïcode"])
def test_any_boot_id_fits(tmp_path: Path, boot: str) -> None:
    control = ControlFile(RebootedStorage(boot), str(tmp_path))
    control.stamp_boot()
    assert control.is_of_this_boot()
    control.publish_written(LogEnd(1, 2, 3))
    assert control.is_of_this_boot()
