"""What every `Storage` does: the machine's disk and the one in memory are held to the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from millstream.clock import ManualClock
from millstream.errors import LockTimeoutError
from millstream.storage import Storage
from millstream.storage_local import LocalStorage
from millstream.storage_memory import MemoryDisk


class TestBothDisks:
    @pytest.fixture(params=["local", "memory"])
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
        if request.param == "local":
            return LocalStorage(), str(tmp_path)
        storage = MemoryDisk(random.Random(0)).storage("a")
        storage.make_directory("/disk")
        return storage, "/disk"

    def test_folders_and_files(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        folder = f"{root}/a/b/c"
        assert storage.list_directory(folder) == []
        assert not storage.exists(folder)
        storage.make_directory(folder)
        storage.make_directory(folder)
        storage.write_file(f"{folder}/two", b"2")
        storage.write_file(f"{folder}/one", memoryview(b"1"))
        assert storage.list_directory(folder) == ["one", "two"]
        assert storage.list_directory(f"{root}/a") == ["b"]
        storage.write_file(f"{folder}/two", pa.py_buffer(b"22"))
        assert storage.read_file(f"{folder}/two") == b"22"
        storage.write_file(f"{folder}/two", b"")
        assert (storage.exists(f"{folder}/two"), storage.read_file(f"{folder}/two")) == (True, b"")
        storage.remove(f"{folder}/two")
        storage.remove(f"{folder}/two")
        assert storage.list_directory(folder) == ["one"]
        storage.remove(f"{root}/a")
        assert storage.list_directory(root) == []

    def test_what_is_missing_is_refused(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        path = f"{root}/none/file"
        storage.remove(path)
        calls: list[Callable[[], object]] = [
            lambda: storage.read_file(path),
            lambda: storage.read_file(f"{root}/none"),
            lambda: storage.write_file(path, b"x"),
            lambda: storage.open_append(path),
            lambda: storage.map(path, 1),
            lambda: storage.map(path),
            lambda: storage.file_size(path),
            lambda: storage.rename(path, f"{root}/none/other"),
            lambda: storage.shared_cells(path, 64),
            lambda: storage.lock(path).__enter__(),
        ]
        for call in calls:
            with pytest.raises(FileNotFoundError):
                call()
        with pytest.raises(OSError, match="directory"):
            storage.read_file(root)
        assert storage.list_directory(root) == []

    def test_appends_come_one_after_another(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        one, other = (storage.open_append(f"{root}/file") for _ in range(2))
        one.append([b"a", b"", bytearray(b"bc")])
        other.append([memoryview(b"d"), pa.py_buffer(b"e")])
        one.append([])
        assert (one.size_bytes, storage.read_file(f"{root}/file")) == (5, b"abcde")
        one.truncate(1)
        assert other.size_bytes == 1
        other.append([b"x"] * 3_000)
        one.truncate(3_003)
        assert storage.read_file(f"{root}/file") == b"a" + b"x" * 3_000 + b"\0\0"
        one.sync()
        one.close()
        one.close()
        other.close()

    def test_maps_show_the_file_and_no_more_than_asked(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        file = storage.open_append(f"{root}/file")
        file.append([b"0123456789"])
        mapped = storage.map(f"{root}/file", 4)
        assert (mapped.size, mapped.to_pybytes(), mapped.is_mutable) == (4, b"0123", False)
        file.truncate(4)
        file.append([b"xyz" * 10_000])
        assert mapped.to_pybytes() == b"0123"
        assert storage.map(f"{root}/file", 7).to_pybytes() == b"0123xyz"
        assert storage.map(f"{root}/file", 0).size == 0
        assert storage.map(f"{root}/file").size == storage.file_size(f"{root}/file") == 30_004
        storage.open_append(f"{root}/empty").close()
        assert storage.map(f"{root}/empty").size == storage.file_size(f"{root}/empty") == 0
        with pytest.raises(OSError, match="cannot map 40000 bytes"):
            storage.map(f"{root}/file", 40_000)

    def test_a_renamed_file_replaces_another(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        storage.write_file(f"{root}/new", b"new")
        storage.write_file(f"{root}/file", b"old")
        file, mapped = storage.open_append(f"{root}/file"), storage.map(f"{root}/file")
        storage.rename(f"{root}/new", f"{root}/file")
        assert storage.list_directory(root) == ["file"]
        assert storage.read_file(f"{root}/file") == b"new"
        assert (mapped.to_pybytes(), file.size_bytes) == (b"old", 3)
        storage.rename(f"{root}/file", f"{root}/other")
        assert storage.list_directory(root) == ["other"]
        file.close()

    @pytest.mark.parametrize("size_bytes", [64, 4096, 20])
    def test_cells_are_shared(self, place: tuple[Storage, str], size_bytes: int) -> None:
        storage, root = place
        one = storage.shared_cells(f"{root}/cells", size_bytes)
        other = storage.shared_cells(f"{root}/cells", size_bytes)
        assert one.read(0, size_bytes) == bytes(size_bytes)
        one.write_word(8, -(2**63))
        assert other.read_word(8) == -(2**63)
        other.write(3, b"abc")
        assert one.read(2, 5) == b"\0abc\0"
        assert storage.read_file(f"{root}/cells") == one.read(0, size_bytes)

    def test_locks(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        with (
            storage.lock(f"{root}/lock"),
            pytest.raises(LockTimeoutError, match=r"process \w+ holds it"),
            storage.lock(f"{root}/lock", timeout_us=0),
        ):
            pass
        with pytest.raises(ZeroDivisionError), storage.lock(f"{root}/lock", timeout_us=0):
            _ = 1 / 0
        with storage.lock(f"{root}/lock", timeout_us=0), storage.lock(f"{root}/other"):
            pass
        assert storage.list_directory(root) == ["lock", "other"]

    def test_a_lock_belongs_to_the_file_not_to_its_name(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        with storage.lock(f"{root}/lock"):
            storage.remove(f"{root}/lock")
            with storage.lock(f"{root}/lock", timeout_us=0):
                pass

    def test_a_lock_is_not_waited_for_once_there_is_no_need(
        self, place: tuple[Storage, str]
    ) -> None:
        storage, root = place
        with storage.lock(f"{root}/lock", unless=lambda: True) as is_held:
            assert is_held  # it was free: nobody had to wait
        if isinstance(storage, LocalStorage):
            storage = LocalStorage()  # another holder
        with LocalStorage().lock(f"{root}/lock") if root != "/disk" else storage.lock("/disk/lock"):
            with storage.lock(f"{root}/lock", unless=lambda: True) as is_held:
                assert not is_held
            with (
                pytest.raises(LockTimeoutError),
                storage.lock(f"{root}/lock", timeout_us=0, unless=lambda: False),
            ):
                pass

    def test_a_file_is_read_where_it_is_appended_to(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        file = storage.open_append(f"{root}/file")
        file.append([b"0123456789"])
        assert [file.read(0, 2), file.read(3, 4), file.read(8, 9), file.read(10, 1)] == [
            b"01", b"3456", b"89", b"",
        ]  # fmt: skip

    def test_waiting_ends_with_the_time_or_a_change(self, place: tuple[Storage, str]) -> None:
        storage, root = place
        cells = storage.shared_cells(f"{root}/cells", 64)
        clock = ManualClock()
        assert not cells.wait([(8, 0)], 2_000, clock)
        assert not cells.wait([(8, 0), (16, 0)], 2_000, clock)
        assert not cells.wait([(8, 0)], 0, clock)
        cells.write_word(16, 7)
        assert cells.wait([(8, 0), (16, 0)], 60_000_000, clock)
        assert cells.wait([(16, 0)], 60_000_000, clock)
        cells.wake(16)
        assert not cells.wait([(16, 7 + (1 << 32))], 2_000, clock)  # the low half counts
