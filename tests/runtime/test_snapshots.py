"""State files: names that are never used twice, content that is verified before it is parsed."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import CheckpointError
from millstream.operators.operator import StateSnapshot
from millstream.runtime import snapshots
from millstream.runtime.manifest import StateFile
from millstream.runtime.snapshots import (
    epoch_of,
    read_snapshots,
    state_directory,
    state_path,
    verify_file,
    write_snapshot,
)
from millstream.storage_memory import MemoryStorage
from tests.runtime.kit import Bench

ROOT = "/log"
ROWS = pa.table({"_key_group": pa.array([1, 2], pa.int32()), "key": ["a", None]})
NAMES = st.text(st.sampled_from("ab-1~"), min_size=1, max_size=4)
LONG = "window-" + "-".join(f"a_rather_long_column_{number}" for number in range(20))


def storage() -> MemoryStorage:
    made = Bench().disk.storage("test")
    made.make_directory(f"{ROOT}/{state_directory('job')}")
    return made


def written(storage: MemoryStorage, snapshot: StateSnapshot) -> StateFile:
    path = state_path("job", 3, 5, "hours", 1)
    return write_snapshot(storage, ROOT, path, 1, 5, snapshot)


def test_a_snapshot_is_read_as_it_was_written() -> None:
    disk = storage()
    snapshot = StateSnapshot(False, ROWS, {"closed": 7, "text": None}, 1)
    file = written(disk, snapshot)
    assert (file.worker, file.checkpoint, file.full) == (1, 5, False)
    assert file.path == "jobs/job/state/00000003-00000005-hours-1.arrow"
    verify_file(disk, ROOT, "hours", file)
    (found,) = read_snapshots(disk, ROOT, "hours", [file])
    assert found == snapshot


def test_it_is_durable_when_it_is_written() -> None:
    bench = Bench()
    disk = bench.disk.storage("test")
    disk.make_directory(f"{ROOT}/{state_directory('job')}")
    file = written(disk, StateSnapshot(True, ROWS))
    bench.disk.power_cut()
    verify_file(bench.disk.storage("other"), ROOT, "hours", file)


@pytest.mark.parametrize("rows", [None, ROWS.slice(0, 0)])
def test_without_rows_there_is_no_file(rows: pa.Table | None) -> None:
    disk = storage()
    file = written(disk, StateSnapshot(True, rows, {"closed": 7}))
    assert (file.path, file.size_bytes) == (None, 0)
    assert disk.list_directory(f"{ROOT}/{state_directory('job')}") == []
    verify_file(disk, ROOT, "hours", file)
    (found,) = read_snapshots(disk, ROOT, "hours", [file])
    assert (found.rows, found.values) == (None, {"closed": 7})


def test_a_large_snapshot_and_its_further_changes_are_one_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "_WHOLE_BYTES_MAX", 0)
    disk = storage()
    further = (ROWS.slice(0, 0), ROWS.slice(1))
    file = written(disk, StateSnapshot(True, ROWS, {"closed": 7}, 3, further))
    verify_file(disk, ROOT, "hours", file)
    found = read_snapshots(disk, ROOT, "hours", [file])
    assert [each.full for each in found] == [True, False, False]
    for each, rows in zip(found, (ROWS, *further), strict=True):
        assert each.rows is not None
        assert (each.rows.to_pylist(), each.values, each.version) == (
            rows.to_pylist(), {"closed": 7}, 3,
        )  # fmt: skip


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], r"it has \d+ bytes of \d+"),
        (lambda content: content + b"\0", r"it has \d+ bytes of \d+"),
        (lambda _: b"", r"it has 0 bytes of \d+"),
        (lambda content: flipped(content, 8 * len(content) // 2), "its checksum does not hold"),
    ],
)
def test_damage_is_named(damage: Callable[[bytes], bytes], reason: str) -> None:
    disk = storage()
    file = written(disk, StateSnapshot(True, ROWS))
    path = f"{ROOT}/{file.path}"
    disk.write_file(path, damage(disk.read_file(path)))
    with pytest.raises(CheckpointError, match=reason) as raised:
        verify_file(disk, ROOT, "hours", file)
    assert "operator 'hours' in checkpoint 5" in str(raised.value)
    assert path in str(raised.value)
    with pytest.raises(CheckpointError, match=reason):
        read_snapshots(disk, ROOT, "hours", [file])


def test_every_flipped_bit_is_found() -> None:
    disk = storage()
    file = written(disk, StateSnapshot(True, ROWS))
    path = f"{ROOT}/{file.path}"
    content = disk.read_file(path)
    for bit in range(0, 8 * len(content), 37):
        disk.write_file(path, flipped(content, bit))
        with pytest.raises(CheckpointError):
            verify_file(disk, ROOT, "hours", file)


def test_a_missing_file_is_named() -> None:
    disk = storage()
    file = written(disk, StateSnapshot(True, ROWS))
    disk.remove(f"{ROOT}/{file.path}")
    with pytest.raises(CheckpointError, match=r"hours-1\.arrow: it is missing; restore the file"):
        verify_file(disk, ROOT, "hours", file)


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(1, 12), NAMES, st.integers(0, 12)),
        unique=True,
        max_size=20,
    )
)
def test_no_two_parts_have_one_file(parts: list[tuple[int, int, str, int]]) -> None:
    assert len({state_path("job", *each) for each in parts}) == len(parts)


def test_a_window_by_many_columns_has_a_name_that_file_systems_take() -> None:
    names = {state_path("job", 1, 1, LONG + end, 4095).rpartition("/")[2] for end in ("", "x")}
    assert len(names) == 2
    assert all(len(each) < 200 for each in names)
    assert {epoch_of(each) for each in names} == {1}


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        ("00000012-00000001-hours-0.arrow", 12),
        ("123456789-00000001-hours-0.arrow", 123456789),
        ("notes.txt", None),
        ("12-notes", None),
        ("²²²²²²²²-x", None),
    ],
)
def test_files_of_others_have_no_epoch(name: str, epoch: int | None) -> None:
    assert epoch_of(name) == epoch
