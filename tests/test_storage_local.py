from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from millstream import reality
from millstream.clock import ManualClock, SystemClock
from millstream.errors import LockTimeoutError
from millstream.storage_local import (
    LocalStorage,
    files,
    futex,
    locks,
    read_boot_id,
    write_back,
)
from millstream.storage_local.scratch import LocalScratch


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
    def test_a_sync_is_begun_where_the_machine_can(
        self, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = str(tmp_path / "a")
        file = storage.open_append(path)
        file.append([b"x" * 10_000])
        file.begin_sync(0, 8_192)
        file.sync()
        assert storage.read_file(path) == b"x" * 10_000
        file.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            file.begin_sync(0, 8_192)
        monkeypatch.setattr(write_back, "_sync_file_range", None)
        file.begin_sync(0, 8_192)

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

    def test_who_waits_for_another_process_is_woken_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "LOOK_AGAIN_S", 30.0)  # else it would only look again
        one, other = LocalStorage(), LocalStorage()
        tried = threading.Event()

        def wait() -> None:
            with other.lock(f"{tmp_path}/lock", 30_000_000, unless=tried.set):  # type: ignore[arg-type]
                pass

        with one.lock(f"{tmp_path}/lock"):
            thread = threading.Thread(target=wait)
            thread.start()
            assert tried.wait(10)
        thread.join(10)
        assert not thread.is_alive()

    def test_of_those_who_share_work_the_served_are_woken_and_one_of_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "LOOK_AGAIN_S", 30.0)  # one lost call, and the test hangs
        monkeypatch.setattr(locks, "LOOK_AGAIN_MAX_S", 30.0)
        path = f"{tmp_path}/lock"
        holder, shared = LocalStorage(), LocalStorage()
        done = 0  # how much of the work is done, as the durable end says it
        holders: list[int] = []
        tries = 0
        try_take = locks.LockFile._try_take

        def counted(lock: locks.LockFile, *, is_shared: bool) -> bool:
            nonlocal tries
            tries += 1
            return try_take(lock, is_shared=is_shared)

        asleep: list[threading.Event] = [threading.Event() for _ in range(6)]

        def work(number: int, storage: LocalStorage) -> None:
            nonlocal done
            needed = 1 if number < 3 else 2

            def is_done() -> bool:
                asleep[number].set()
                return done >= needed

            is_served = (lambda: True) if needed == 1 else (lambda: False)
            with storage.lock(path, 30_000_000, unless=is_done, is_served=is_served) as is_held:
                if is_held and not is_done():
                    holders.append(number)
                    time.sleep(0.02)  # the others wait for this one now
                    done = 2

        # Some are threads of one process, some would be in processes of their own.
        threads = [
            threading.Thread(target=work, args=(each, shared if each % 2 else LocalStorage()))
            for each in range(6)
        ]
        with holder.lock(path, unless=lambda: False):
            for thread in threads:
                thread.start()
            for event in asleep:
                assert event.wait(10)
            time.sleep(0.02)
            monkeypatch.setattr(locks.LockFile, "_try_take", counted)
            done = 1
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
        assert len(holders) == 1, holders
        assert holders[0] >= 3, holders
        assert tries == 1, "who is served, now or by the next holder, tries no more"

    def test_no_call_is_lost_among_many_who_share_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "LOOK_AGAIN_S", 1.0)
        storages = [LocalStorage() for _ in range(3)]
        written = done = under_way = 0
        counting = threading.Lock()

        def produce(storage: LocalStorage) -> None:
            for _ in range(40):
                produce_one(storage)

        def produce_one(storage: LocalStorage) -> None:
            nonlocal written, done, under_way
            with counting:
                written += 1
                mine = written
            with storage.lock(
                f"{tmp_path}/lock",
                unless=lambda: done >= mine,
                is_served=lambda: under_way >= mine,
            ) as is_held:
                if is_held and done < mine:
                    under_way = written
                    time.sleep(0.0005)
                    done = under_way
            assert done >= mine

        threads = [threading.Thread(target=produce, args=(storages[i % 3],)) for i in range(9)]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert done == written == 360
        # Every lost call would take a second; a busy machine takes some time, too.
        assert time.monotonic() - start < 20

    def test_a_forked_child_does_not_hold_what_its_parent_does(
        self, storage: LocalStorage, tmp_path: Path
    ) -> None:
        with storage.lock(f"{tmp_path}/lock"):
            pass
        child = os.fork()
        if child == 0:  # pragma: no cover
            with storage.lock(f"{tmp_path}/lock"):
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with storage.lock(f"{tmp_path}/lock"):
            child = os.fork()
            if child == 0:  # pragma: no cover
                try:
                    with storage.lock(f"{tmp_path}/lock", timeout_us=1_000):
                        os._exit(1)
                except LockTimeoutError:
                    os._exit(0)
            assert os.waitpid(child, 0)[1] == 0

    def test_a_copy_has_locks_of_its_own(self, storage: LocalStorage, tmp_path: Path) -> None:
        with storage.lock(f"{tmp_path}/lock"):
            copy = pickle.loads(pickle.dumps(storage))
            with pytest.raises(LockTimeoutError), copy.lock(f"{tmp_path}/lock", timeout_us=0):
                pass

    def test_no_more_files_stay_open_than_are_good(
        self, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "LOCKS_OPEN_MAX", 3)
        before = len(os.listdir("/proc/self/fd"))
        with storage.lock(f"{tmp_path}/0"):
            for index in range(1, 20):
                with storage.lock(f"{tmp_path}/{index}"):
                    pass
            assert len(os.listdir("/proc/self/fd")) <= before + 4
            with pytest.raises(LockTimeoutError), storage.lock(f"{tmp_path}/0", timeout_us=0):
                pass


class TestWaiting:
    def test_a_waiter_is_woken_by_another_mapping(
        self, storage: LocalStorage, tmp_path: Path
    ) -> None:
        one = storage.shared_cells(f"{tmp_path}/cells", 64)
        other = storage.shared_cells(f"{tmp_path}/cells", 64)
        for words in ([(8, 0)], [(16, 0), (8, 0)]):
            one.write_word(8, 0)
            woken: list[bool] = []

            def wait(words: list[tuple[int, int]] = words, woken: list[bool] = woken) -> None:
                woken.append(one.wait(words, 30_000_000, SystemClock()))

            thread = threading.Thread(target=wait)
            thread.start()
            while thread.is_alive():
                other.write_word(8, 1)
                other.wake(8)
                thread.join(0.001)
            assert woken == [True]

    def test_a_machine_without_futexes_pauses(
        self, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(futex, "_NUMBER", 0)
        cells = storage.shared_cells(f"{tmp_path}/cells", 64)
        clock = ManualClock()
        assert not cells.wait([(8, 0)], 20_000, clock)
        assert clock.monotonic_us() == 20_000
        cells.write_word(8, 1)
        assert cells.wait([(8, 0)], 20_000, clock)
        cells.wake(8)
        with (
            storage.lock(f"{tmp_path}/lock"),
            pytest.raises(LockTimeoutError),
            LocalStorage().lock(f"{tmp_path}/lock", timeout_us=3_000),
        ):
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


class TestScratch:
    def test_files_are_the_users_alone_and_go_with_the_process(self, tmp_path: Path) -> None:
        scratch = LocalScratch(f"{tmp_path}/new/scratch")
        with scratch.create("a") as file:
            file.write(b"content")
        assert stat.S_IMODE(os.stat(scratch.path).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(f"{scratch.path}/a").st_mode) == 0o600
        mapped = scratch.map("a")
        scratch.remove("a")
        scratch.remove("a")
        assert mapped.to_pybytes() == b"content"
        with pytest.raises(FileNotFoundError):
            scratch.map("a")
        scratch.close()
        scratch.close()
        assert os.listdir(f"{tmp_path}/new/scratch") == []

    def test_what_a_dead_process_left_is_removed(self, tmp_path: Path) -> None:
        made = f"scratch = LocalScratch({str(tmp_path)!r}); scratch.create('a').close()"
        text = f"import os; from {LocalScratch.__module__} import LocalScratch; {made}; os._exit(1)"
        subprocess.run([sys.executable, "-c", text], check=False)
        (left,) = os.listdir(tmp_path)
        assert sorted(os.listdir(tmp_path / left)) == ["a", "lock"]
        living = LocalScratch(str(tmp_path))
        assert os.listdir(tmp_path) == [os.path.basename(living.path)]
        other = LocalScratch(str(tmp_path))
        assert len(os.listdir(tmp_path)) == 2, "what a living process has stays"
        living.close()
        other.close()
