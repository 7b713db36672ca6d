from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from millstream import reality
from millstream.errors import LockTimeoutError
from millstream.storage_local import LocalStorage, files, read_boot_id


@pytest.fixture
def storage() -> LocalStorage:
    return LocalStorage()


def test_the_boot_id_is_the_kernels(storage: LocalStorage, tmp_path: Path) -> None:
    assert storage.boot_id() == LocalStorage().boot_id() != ""
    (tmp_path / "boot_id").write_text("abc\n")
    assert read_boot_id(str(tmp_path / "boot_id")) == "abc"
    fallback = read_boot_id(str(tmp_path / "missing"))
    assert fallback.startswith("boot-")


def test_it_cannot_be_made_in_a_simulated_run() -> None:
    with reality.simulation(), pytest.raises(AssertionError, match="LocalStorage"):
        LocalStorage()


class TestFiles:
    def test_folders_and_files(self, storage: LocalStorage, tmp_path: Path) -> None:
        folder = f"{tmp_path}/a/b/c"
        assert storage.list_directory(folder) == []
        storage.make_directory(folder)
        storage.make_directory(folder)
        storage.write_file(f"{folder}/two", b"2")
        storage.write_file(f"{folder}/one", memoryview(b"1"))
        assert storage.list_directory(folder) == ["one", "two"]
        assert storage.read_file(f"{folder}/two") == b"2"
        storage.write_file(f"{folder}/two", b"")
        assert storage.read_file(f"{folder}/two") == b""
        assert storage.exists(f"{folder}/two")
        storage.remove(f"{folder}/two")
        storage.remove(f"{folder}/two")
        assert not storage.exists(f"{folder}/two")
        storage.remove(f"{tmp_path}/a")
        assert storage.list_directory(str(tmp_path)) == []
        with pytest.raises(FileNotFoundError):
            storage.read_file(f"{folder}/one")

    def test_a_file_is_replaced_whole_or_not_at_all(
        self, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = f"{tmp_path}/file"
        storage.write_file(path, b"before")

        def fail(_: int) -> None:
            message = "Input/output error"
            raise OSError(5, message)

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            storage.write_file(path, b"after")
        assert storage.read_file(path) == b"before"
        assert storage.list_directory(str(tmp_path)) == ["file"]

    def test_appends_come_one_after_another(self, storage: LocalStorage, tmp_path: Path) -> None:
        path = f"{tmp_path}/file"
        one, other = storage.open_append(path), storage.open_append(path)
        one.append([b"a", b"", bytearray(b"bc")])
        other.append([memoryview(b"d")])
        one.append([])
        assert (one.size_bytes, storage.read_file(path)) == (4, b"abcd")
        one.truncate(1)
        other.append([b"x"] * 3_000)  # more than one call takes
        assert storage.read_file(path) == b"a" + b"x" * 3_000
        one.sync()
        one.close()
        one.close()
        other.close()

    def test_what_the_kernel_did_not_take_is_written_again(
        self, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = os.writev

        def a_part(descriptor: int, chunks: list[memoryview]) -> int:
            return whole(descriptor, [b"".join(chunks)[:3]])

        monkeypatch.setattr(os, "writev", a_part)
        file = storage.open_append(f"{tmp_path}/file")
        file.append([b"ab", b"cdefg", b"h", b"ij"])
        assert storage.read_file(f"{tmp_path}/file") == b"abcdefghij"
        monkeypatch.setattr(os, "writev", lambda *_: 0)
        with pytest.raises(OSError, match="wrote nothing"):
            file.append([b"ab"])


class TestMaps:
    def test_a_map_shows_the_file_and_no_more_than_asked(
        self, storage: LocalStorage, tmp_path: Path
    ) -> None:
        file = storage.open_append(f"{tmp_path}/file")
        file.append([b"0123456789"])
        mapped = storage.map(f"{tmp_path}/file", 4)
        assert (mapped.size, mapped.to_pybytes(), mapped.is_mutable) == (4, b"0123", False)
        file.truncate(4)
        file.append([b"xyz"])
        assert mapped.to_pybytes() == b"0123"
        assert storage.map(f"{tmp_path}/file", 0).size == 0

    def test_a_shorter_file_is_refused(self, storage: LocalStorage, tmp_path: Path) -> None:
        storage.write_file(f"{tmp_path}/file", b"0123")
        with pytest.raises(OSError, match="cannot map 5 bytes"):
            storage.map(f"{tmp_path}/file", 5)

    def test_maps_keep_no_file_descriptors(self, storage: LocalStorage, tmp_path: Path) -> None:
        storage.write_file(f"{tmp_path}/file", b"0123")
        before = len(os.listdir("/proc/self/fd"))
        maps = [storage.map(f"{tmp_path}/file", 4) for _ in range(50)]
        assert len(os.listdir("/proc/self/fd")) <= before + 1
        assert {each.to_pybytes() for each in maps} == {b"0123"}

    @pytest.mark.parametrize("size_bytes", [64, 4096, 20])
    def test_cells_are_shared(self, storage: LocalStorage, tmp_path: Path, size_bytes: int) -> None:
        one = storage.shared_cells(f"{tmp_path}/cells", size_bytes)
        other = storage.shared_cells(f"{tmp_path}/cells", size_bytes)
        assert one.read(0, size_bytes) == bytes(size_bytes)
        one.write_word(8, -(2**63))
        assert other.read_word(8) == -(2**63)
        other.write(3, b"abc")
        assert one.read(2, 5) == b"\0abc\0"


class TestLocks:
    def test_a_lock_excludes_threads(self, storage: LocalStorage, tmp_path: Path) -> None:
        inside = 0
        most = 0

        def enter() -> None:
            nonlocal inside, most
            for _ in range(20):
                with storage.lock(f"{tmp_path}/lock"):
                    inside += 1
                    most = max(most, inside)
                    inside -= 1

        threads = [threading.Thread(target=enter) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1

    def test_who_holds_it_is_named(self, storage: LocalStorage, tmp_path: Path) -> None:
        with (
            storage.lock(f"{tmp_path}/lock"),
            pytest.raises(LockTimeoutError, match=f"process {os.getpid()} holds it"),
            storage.lock(f"{tmp_path}/lock", timeout_us=0),
        ):
            pass
        with storage.lock(f"{tmp_path}/lock", timeout_us=0):
            pass

    def test_an_error_inside_frees_it(self, storage: LocalStorage, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), storage.lock(f"{tmp_path}/lock"):
            _ = 1 / 0
        with storage.lock(f"{tmp_path}/lock", timeout_us=0):
            pass


def test_an_empty_folder_that_is_there_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever made it may have died before it synced the folder above.
    synced: list[str] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    (tmp_path / "log").mkdir()
    LocalStorage().make_directory(str(tmp_path / "log"))
    assert synced == [str(tmp_path)]
    (tmp_path / "log" / "file").touch()
    LocalStorage().make_directory(str(tmp_path / "log"))
    assert synced == [str(tmp_path)]
