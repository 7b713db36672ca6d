"""Every single-bit flip of a small segment: detected or harmless, and never a wrong row served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.errors import CorruptSegmentError
from millstream.log.condition import bind
from millstream.log.index import SegmentIndex, index_file_name
from millstream.log.segment import segment_file_name
from tests.log.partition_kit import RebootedStorage, open_partition, read_all, read_ids, rows

FRAMES = [2, 1, 3]
ALL_IDS = list(range(sum(FRAMES)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    partition = open_partition(tmp_path / "0")
    for count in FRAMES:
        partition.append(rows(partition.written_end, count))
    partition.sync()
    return tmp_path / "0"


def flips(path: Path) -> Iterator[tuple[int, int]]:
    """Flip each bit of the file in turn, and back."""
    content = bytearray(path.read_bytes())
    with path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(content):
            for bit in range(8):
                file.seek(position)
                file.write(bytes([byte ^ (1 << bit)]))
                yield position, bit
            file.seek(position)
            file.write(bytes([byte]))


def test_a_reader_detects_every_flip(folder: Path) -> None:
    partition = open_partition(folder)
    detected = 0
    for place in flips(folder / segment_file_name(0)):
        served = []
        try:
            cursor = partition.frames(0)
            while (frame := cursor.next()) is not None:
                served += frame.batch().column("id").to_pylist()
        except CorruptSegmentError as error:
            detected += 1
            assert "flights/2" in str(error)
        else:
            pytest.fail(f"not detected: {place}")
        assert served == ALL_IDS[: len(served)], place
    assert detected == 8 * (folder / segment_file_name(0)).stat().st_size


def test_a_flip_in_a_column_that_is_not_read_harms_nobody(folder: Path) -> None:
    partition = open_partition(folder)
    harmless = 0
    for place in flips(folder / segment_file_name(0)):
        try:
            served = read_all(partition, columns=["id"]).column("id").to_pylist()
        except CorruptSegmentError:
            continue
        harmless += 1
        assert served == ALL_IDS, place
    assert harmless > 100


def test_a_power_cut_does_not_turn_a_flip_into_a_cut(folder: Path) -> None:
    path = folder / segment_file_name(0)
    control = (folder / "control").read_bytes()
    size = path.stat().st_size
    for place in flips(path):
        if place[0] % 5:  # recovery syncs, so this is slower: every fifth byte
            continue
        with pytest.raises(CorruptSegmentError):
            open_partition(folder, storage=RebootedStorage())
        assert path.stat().st_size == size
        assert (folder / "control").read_bytes() == control


def test_without_a_durable_end_a_flip_may_cut_but_never_serves_a_wrong_row(folder: Path) -> None:
    path = folder / segment_file_name(0)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        content = bytearray(whole)
        content[position] ^= 1 << (position % 8)
        path.write_bytes(content)
        (folder / "control").unlink()
        try:
            served = read_ids(open_partition(folder))
        except CorruptSegmentError:
            continue
        assert served == ALL_IDS[: len(served)], position


def test_a_flip_in_an_index_file_is_repaired(tmp_path: Path) -> None:
    partition = open_partition(tmp_path / "0", segment_bytes=1_200)
    for count in (3, 3, 3):
        partition.append(rows(partition.written_end, count))
    partition.sync()
    assert len(partition.segments()) > 1
    path = tmp_path / "0" / index_file_name(0)
    golden = path.read_bytes()
    statistics_start = 80
    for position in [*range(statistics_start), *range(statistics_start, len(golden), 17)]:
        content = bytearray(golden)
        content[position] ^= 1 << (position % 8)
        path.write_bytes(content)
        again = open_partition(tmp_path / "0")
        frame = again.frames(1).next()
        assert frame is not None
        assert frame.header.base_offset == 0
        assert SegmentIndex.try_decode(path.read_bytes()) == SegmentIndex.try_decode(golden)
        # Nobody missed the statistics; who has a condition makes them anew.
        condition = bind(("id", ">", 5), again.schema, "flights")
        cursor = again.frames(0)
        skipping = again.skipping(condition)
        assert skipping is not None
        cursor.skip(skipping, None)
        assert cursor.offset == 6
        assert path.read_bytes() == golden
    other = SegmentIndex.try_decode(golden)
    assert isinstance(other, SegmentIndex)
    other.positions[0] += 64  # whole, but of another file
    other.size_bytes += 64
    path.write_bytes(other.encode())
    assert open_partition(tmp_path / "0").frames(1).next() is not None
    assert SegmentIndex.try_decode(path.read_bytes()) == SegmentIndex.try_decode(golden)
    path.unlink()
    assert open_partition(tmp_path / "0").frames(2).next() is not None
    assert SegmentIndex.try_decode(path.read_bytes()) == SegmentIndex.try_decode(golden)


@pytest.mark.parametrize(("start", "end"), [(64, 192), (192, 320)])
def test_a_control_file_that_lost_an_end_is_recovered(folder: Path, start: int, end: int) -> None:
    path = folder / "control"
    content = bytearray(path.read_bytes())
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    assert read_ids(open_partition(folder)) == ALL_IDS
