"""A torn last frame, at every byte: cut, and nothing before it lost; durable rows never cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from millstream.errors import CorruptSegmentError
from millstream.log.control_file import ControlFile
from millstream.log.segment import segment_file_name
from millstream.storage_local import LocalStorage
from tests.log.partition_kit import RebootedStorage, open_partition, read_ids, rows

ROWS_DURABLE = 5
ROWS_TORN = 3
SEGMENT = segment_file_name(0)


class Torn:
    """A partition with a durable frame and a last one, as files to be put back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        partition = open_partition(folder)
        partition.append(rows(0, ROWS_DURABLE))
        partition.sync()
        self.segment = folder / SEGMENT
        self.control = folder / "control"
        self.before = self.segment.read_bytes()
        # As it is while the appender is inside its write: not published yet.
        control = ControlFile(LocalStorage(), str(folder))
        control.append_under_way = True
        self.control_before = self.control.read_bytes()
        control.append_under_way = False
        partition.append(rows(ROWS_DURABLE, ROWS_TORN))
        self.whole = self.segment.read_bytes()
        self.control_after = self.control.read_bytes()
        # What a reader in another process saw at any time before the tear.
        self.seen = read_ids(open_partition(folder))
        assert self.seen == list(range(ROWS_DURABLE))

    def put(self, segment: bytes, control: bytes) -> None:
        self.segment.write_bytes(segment)
        self.control.write_bytes(control)


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Torn:
    return Torn(tmp_path_factory.mktemp("torn") / "0")


def tears(torn: Torn, how: str) -> list[tuple[int, bytes]]:
    """The segment torn at every byte of the last frame: the rest missing, zero or garbage."""
    found = []
    for cut in range(len(torn.before), len(torn.whole)):
        rest = len(torn.whole) - cut
        tail = {"missing": b"", "zero": bytes(rest), "garbage": b"\xff" * rest}[how]
        content = torn.whole[:cut] + tail
        if content != torn.whole:  # a tail of zeros may be what was written
            found.append((cut, content))
    assert len(found) >= len(torn.whole) - len(torn.before) - 64
    return found


@pytest.mark.parametrize("how", ["missing", "zero", "garbage"])
def test_the_next_holder_cuts_a_dead_appenders_frame(torn: Torn, how: str) -> None:
    for cut, content in tears(torn, how):
        torn.put(content, torn.control_before)
        partition = open_partition(torn.folder)
        assert read_ids(partition) == torn.seen, cut
        cursor = partition.frames(ROWS_DURABLE)
        assert cursor.next() is None, cut
        assert partition.append(rows(ROWS_DURABLE, 1)).base_offset == ROWS_DURABLE, cut
        partition.sync()
        assert read_ids(partition) == list(range(ROWS_DURABLE + 1)), cut


@pytest.mark.parametrize("how", ["missing", "zero", "garbage"])
def test_after_a_power_cut_the_torn_frame_is_gone(torn: Torn, how: str) -> None:
    for cut, content in tears(torn, how):
        torn.put(content, torn.control_after)
        partition = open_partition(torn.folder, storage=RebootedStorage())
        assert (partition.written_end, partition.durable_end) == (ROWS_DURABLE, ROWS_DURABLE), cut
        assert read_ids(partition) == torn.seen, cut
        assert torn.segment.read_bytes() == torn.before, cut
        assert partition.append(rows(ROWS_DURABLE, 1)).base_offset == ROWS_DURABLE, cut
        partition.sync()
        assert read_ids(partition) == list(range(ROWS_DURABLE + 1)), cut


def test_after_a_power_cut_a_whole_frame_stays_and_becomes_durable(torn: Torn) -> None:
    torn.put(torn.whole, torn.control_after)
    partition = open_partition(torn.folder, storage=RebootedStorage())
    assert partition.durable_end == ROWS_DURABLE + ROWS_TORN
    assert read_ids(partition) == list(range(ROWS_DURABLE + ROWS_TORN))


@pytest.mark.parametrize("boot", ["same", "another"])
def test_a_cut_before_the_durable_end_is_damage_and_stays_as_it_is(torn: Torn, boot: str) -> None:
    for cut in range(len(torn.before)):
        torn.put(torn.before[:cut], torn.control_after)
        storage = LocalStorage() if boot == "same" else RebootedStorage()
        with pytest.raises(CorruptSegmentError, match="flights/2") as caught:
            open_partition(torn.folder, storage=storage).append(rows(0, 1))
        assert SEGMENT in str(caught.value)
        assert torn.segment.read_bytes() == torn.before[:cut]


def test_a_power_cut_may_take_the_control_file_too(torn: Torn) -> None:
    damaged = torn.control_after[:64] + bytes(len(torn.control_after) - 64)
    for control in (bytes(len(damaged)), damaged, b"\xff" * len(damaged)):
        for _, content in tears(torn, "missing")[::16]:
            torn.put(content, control)
            partition = open_partition(torn.folder, storage=RebootedStorage())
            assert read_ids(partition) == list(range(ROWS_DURABLE))


def test_a_torn_head_is_written_anew(tmp_path: Path) -> None:
    partition = open_partition(tmp_path / "0")
    partition.append(rows(0, 1))
    whole = (tmp_path / "0" / SEGMENT).read_bytes()
    assert partition.segments() == []  # a head alone is not there for readers
    head_size = 8 + int.from_bytes(whole[4:8], "little")
    for cut in range(0, head_size + 1, 16):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / SEGMENT).write_bytes(whole[:cut])
        again = open_partition(folder)
        assert again.durable_end == 0
        again.append(rows(0, 2))
        again.sync()
        assert read_ids(again) == [0, 1]


def test_rot_before_a_frame_that_knew_it_durable_is_not_taken_for_a_torn_tail(
    tmp_path: Path,
) -> None:
    partition = open_partition(tmp_path / "0")
    first = partition.append(rows(0, 5))
    partition.sync()
    size = partition.segments()[0][1]
    partition.append(rows(first.end_offset, 5))
    partition.sync()
    path = tmp_path / "0" / SEGMENT
    content = bytearray(path.read_bytes())
    content[size - 100] ^= 1
    path.write_bytes(content)
    (tmp_path / "0" / "control").write_bytes(b"")  # nobody remembers the durable end
    with pytest.raises(CorruptSegmentError, match="from offset 0"):
        open_partition(tmp_path / "0", storage=RebootedStorage())
    assert path.read_bytes() == content


def test_a_missing_segment_is_damage(torn: Torn, tmp_path: Path) -> None:
    torn.put(torn.whole, torn.control_after)
    shutil.copytree(torn.folder, tmp_path / "0")
    (tmp_path / "0" / SEGMENT).unlink()
    with pytest.raises(CorruptSegmentError, match=r"0 bytes, of which \d+ were durable"):
        open_partition(tmp_path / "0", storage=RebootedStorage())
