"""The disk in memory: behaves as the machine's disk, and as badly as one may."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.errors import LockTimeoutError
from millstream.storage_memory import MemoryDisk, MemoryStorage, SimulatedCrash

SEEDS = range(200)


def disk_of(seed: int = 0) -> MemoryDisk:
    return MemoryDisk(random.Random(seed))


def test_maps_of_a_growing_file_share_its_memory() -> None:
    storage = disk_of().storage("a")
    file = storage.open_append("/file")
    file.append([b"x" * 60_000])
    file.append([b"x" * 40_000])  # makes more room than it needs
    first = storage.map("/file", 100_000)
    file.append([b"y" * 10])
    assert storage.map("/file", 100_010).address == first.address


class TestCrashes:
    def work(self, storage: MemoryStorage) -> None:
        storage.make_directory("/a/b")
        file = storage.open_append("/a/b/file")
        with storage.lock("/a/lock"):
            file.append([b"0123", b"4567"])
            file.sync()
            cells = storage.shared_cells("/a/cells", 64)
            cells.write(8, b"abcdefghijklmnop")
            cells.write_word(32, -1)
        file.truncate(2)
        storage.write_file("/a/one", b"1")
        storage.write_file("/a/one", b"2")
        storage.remove("/a/b")

    def test_a_process_dies_in_any_effect_and_does_nothing_more(self) -> None:
        whole = disk_of().storage("whole")
        self.work(whole)
        assert whole.effects > 25
        for fatal in range(1, whole.effects + 1):
            disk = disk_of(fatal)
            storage = disk.storage("a")
            storage.crash_after(fatal)
            with pytest.raises(SimulatedCrash):
                self.work(storage)
            assert (storage.alive, storage.effects) == (False, fatal)
            for call in (storage.boot_id, lambda s=storage: s.exists("/a")):
                with pytest.raises(SimulatedCrash):
                    call()
            other = disk.storage("b")  # goes on with what is there; no lock is left
            self.work(other)
            assert other.read_file("/a/one") == b"2"

    def test_others_may_act_between_any_two_effects(self) -> None:
        disk = disk_of()
        storage, other = disk.storage("a"), disk.storage("b")
        sizes = []

        def look() -> None:
            storage.list_directory("/")  # of its own: no endless loop
            sizes.append(len(other.read_file("/file")) if other.exists("/file") else -1)
            if len(sizes) == 6:
                disk.power_cut()

        storage.interrupt = look
        file = storage.open_append("/file")
        for _ in range(3):
            file.append([b"x"])
        with pytest.raises(SimulatedCrash):
            file.append([b"x"])
        assert sizes == [-1, 0, 0, 1, 2, 3]

    def test_who_creates_a_name_second_finds_what_the_first_created(self) -> None:
        for kind in ("folder", "file", "cells"):
            disk = disk_of()
            storage, other = disk.storage("a"), disk.storage("b")

            def create(of: MemoryStorage, word: int, kind: str = kind) -> None:
                if kind == "folder":
                    of.make_directory("/x")
                    of.write_file(f"/x/{word}", b"")
                elif kind == "file":
                    of.open_append("/x").append([bytes([word])])
                else:
                    of.shared_cells("/x", 64).write_word(8 * word, word)

            def interrupt(of: MemoryStorage = storage, by: MemoryStorage = other) -> None:
                of.interrupt = None
                create(by, 1)

            storage.interrupt = interrupt
            create(storage, 2)
            if kind == "folder":
                assert storage.list_directory("/x") == ["1", "2"]
            elif kind == "file":
                assert storage.read_file("/x") == b"\1\2"
            else:
                cells = storage.shared_cells("/x", 64)
                assert [cells.read_word(8), cells.read_word(16)] == [1, 2]

    def test_handles_of_a_dead_process_are_dead(self) -> None:
        storage = disk_of().storage("a")
        file, cells = storage.open_append("/file"), storage.shared_cells("/cells", 64)
        storage.kill()
        calls: list[Callable[[], object]] = [
            lambda: file.append([b"x"]),
            file.sync,
            lambda: file.truncate(0),
            lambda: file.size_bytes,
            lambda: cells.read(0, 8),
            lambda: cells.read_word(0),
            lambda: cells.write_word(0, 1),
            lambda: storage.lock("/lock").__enter__(),
        ]
        for call in calls:
            with pytest.raises(SimulatedCrash):
                call()
        file.close()

    def test_half_an_append_is_any_prefix(self) -> None:
        found = set()
        for seed in SEEDS:
            disk = disk_of(seed)
            storage = disk.storage("a")
            file = storage.open_append("/file")
            file.append([b"-"])
            storage.crash_after(1)
            with pytest.raises(SimulatedCrash):
                file.append([b"01", b"23"])
            found.add(disk.storage("b").read_file("/file"))
        assert found == {b"-" + b"0123"[:size] for size in range(5)}

    def test_words_are_written_whole_and_longer_cells_in_part(self) -> None:
        words, longer = set(), set()
        for seed in SEEDS:
            disk = disk_of(seed)
            one, other = disk.storage("a"), disk.storage("b")
            for storage in (one, other):
                storage.shared_cells("/cells", 64)
                storage.crash_after(1)
            with pytest.raises(SimulatedCrash):
                one.shared_cells("/cells", 64).write_word(8, -1)
            with pytest.raises(SimulatedCrash):
                other.shared_cells("/cells", 64).write(16, b"0123456789")
            content = disk.storage("c").read_file("/cells")
            words.add(content[8:16])
            longer.add(content[16:26].rstrip(b"\0"))
        assert words == {bytes(8), b"\xff" * 8}
        assert longer == {b"0123456789"[:size] for size in range(11)}

    def test_a_file_is_replaced_whole_or_not_at_all(self) -> None:
        found = set()
        for seed in SEEDS:
            disk = disk_of(seed)
            storage = disk.storage("a")
            storage.write_file("/file", b"before")
            storage.crash_after(1 + seed % 5)
            with pytest.raises(SimulatedCrash):
                storage.write_file("/file", b"after")
            if seed % 2:
                disk.power_cut()
            found.add(disk.storage("b").read_file("/file"))
        assert found == {b"before", b"after"}


class TestPowerCuts:
    def test_all_processes_die_and_the_boot_id_changes(self) -> None:
        disk = disk_of()
        one, other = disk.storage("a"), disk.storage("b")
        assert one.boot_id() == other.boot_id()
        before = one.boot_id()
        lock = one.lock("/lock")
        lock.__enter__()
        disk.power_cut()
        assert not one.alive
        assert not other.alive
        again = disk.storage("a")
        assert again.boot_id() != before
        with again.lock("/lock"):
            lock.__exit__(None, None, None)  # a dead process frees nothing
            with pytest.raises(LockTimeoutError, match="process a holds it"), again.lock("/lock"):
                pass

    def test_what_was_synced_survives_and_the_rest_in_any_part(self) -> None:
        synced, rest = b"s" * 700, b"r" * 2_000
        sizes, holes, garbled = set(), 0, 0
        for seed in SEEDS:
            disk = disk_of(seed)
            file = disk.storage("a").open_append("/file")
            file.append([synced])
            file.sync()
            file.append([rest[:900]])
            file.append([rest[900:]])
            disk.power_cut()
            content = disk.storage("b").read_file("/file")
            assert content[:700] == synced
            assert len(content) <= 2_700
            sizes.add(len(content))
            holes += b"\0" * 64 in content and content[700:].strip(b"\0") != b""
            garbled += bool(set(content) - set(b"sr\0"))
        assert min(sizes) == 700
        assert max(sizes) == 2_700
        assert len(sizes) > 50
        assert holes > 20
        assert garbled > 20

    def test_an_unsynced_cut_may_be_taken_back(self) -> None:
        found = set()
        for seed in SEEDS:
            disk = disk_of(seed)
            file = disk.storage("a").open_append("/file")
            file.append([b"0123456789"])
            file.sync()
            file.truncate(4)
            disk.power_cut()
            content = disk.storage("b").read_file("/file")
            assert content[:4] == b"0123"
            found.add(len(content))
        assert found == {4, 10}

    def test_names_that_were_not_synced_may_be_lost(self) -> None:
        found = set()
        for seed in SEEDS:
            disk = disk_of(seed)
            storage = disk.storage("a")
            storage.make_directory("/durable")
            storage.crash_after(1 + seed % 2)
            with pytest.raises(SimulatedCrash):
                storage.open_append("/durable/file")
            disk.power_cut()
            found.add(tuple(disk.storage("b").list_directory("/durable")))
        assert found == {(), ("file",)}

    def test_who_finds_an_unsynced_folder_makes_it_durable(self) -> None:
        for seed in SEEDS:
            disk = disk_of(seed)
            storage = disk.storage("a")
            storage.crash_after(2)
            with pytest.raises(SimulatedCrash):
                storage.make_directory("/a/b/c")
            other = disk.storage("b")
            other.make_directory("/a/b")
            other.write_file("/a/b/file", b"x")
            disk.power_cut()
            assert disk.storage("c").read_file("/a/b/file") == b"x"

    def test_cells_hold_something_earlier_or_are_gone(self) -> None:
        found = set()
        for seed in SEEDS:
            disk = disk_of(seed)
            storage = disk.storage("a")
            cells = storage.shared_cells("/cells", 1_024)
            for value in range(1, 4):
                cells.write_word(0, value)
                cells.write_word(512, value)
            disk.power_cut()
            again = disk.storage("b")
            existed = again.exists("/cells")
            cells = again.shared_cells("/cells", 1_024)
            found.add((existed, cells.read_word(0), cells.read_word(512)))
        assert (False, 0, 0) in found
        kept = {(one, other) for existed, one, other in found if existed}
        assert {each for pair in kept for each in pair} == {0, 1, 2, 3}
        assert any(one < other for one, other in kept)  # each sector on its own
        assert any(one > other for one, other in kept)

    def test_cells_of_many_writes_are_remembered_in_part(self) -> None:
        disk = disk_of(3)
        cells = disk.storage("a").shared_cells("/cells", 64)
        for value in range(10_000):
            cells.write_word(0, value)
        disk.power_cut()
        storage = disk.storage("b")
        assert storage.shared_cells("/cells", 64).read_word(0) in {0, *range(4_000, 10_000)}


class TestRefusals:
    def test_a_refused_append_may_leave_a_part(self) -> None:
        found = set()
        for seed in SEEDS:
            storage = disk_of(seed).storage("a")
            file = storage.open_append("/file")
            storage.fail("append", OSError(28, "No space left on device"), after=1)
            file.append([b"-"])
            with pytest.raises(OSError, match="No space left"):
                file.append([b"0123"])
            found.add(storage.read_file("/file"))
            file.append([b"."])
        assert len(found) == 5

    def test_a_refused_sync_loses_what_was_dirty_until_it_is_written_anew(self) -> None:
        for seed in SEEDS:
            disk = disk_of(seed)
            storage = disk.storage("a")
            file = storage.open_append("/file")
            file.append([b"durable"])
            file.sync()
            file.append([b"dropped"])
            storage.fail("sync", OSError(5, "Input/output error"))
            with pytest.raises(OSError, match="Input/output"):
                file.sync()
            assert storage.read_file("/file") == b"durabledropped"  # the cache still has it
            file.sync()  # and means nothing
            if seed % 2:
                file.truncate(7)
                file.append([b"dropped"])
                file.sync()
            disk.power_cut()
            expected = b"durable" + (b"dropped" if seed % 2 else bytes(7))
            assert disk.storage("b").read_file("/file") == expected

    def test_a_refused_sync_is_told_to_each_who_had_the_file_open(self) -> None:
        disk = disk_of()
        one, other = disk.storage("a"), disk.storage("b")
        files = [one.open_append("/file"), other.open_append("/file")]
        files[0].append([b"lost"])
        one.fail("sync", OSError(5, "Input/output error"))
        for file in files:
            with pytest.raises(OSError, match="Input/output"):
                file.sync()
            file.sync()
        other.open_append("/file").sync()
        disk.power_cut()
        assert disk.storage("c").read_file("/file") == bytes(4)

    @pytest.mark.parametrize(
        "operation", ["write_file", "rename", "create", "make_directory", "truncate", "remove"]
    )
    def test_any_call_may_be_refused_and_leaves_things_as_they_were(self, operation: str) -> None:
        storage = disk_of().storage("a")
        file = storage.open_append("/file")
        file.append([b"before"])
        storage.fail(operation, OSError(5, "Input/output error"))
        calls: dict[str, Callable[[], object]] = {
            "write_file": lambda: storage.write_file("/file", b"after"),
            "rename": lambda: storage.write_file("/file", b"after"),
            "create": lambda: storage.open_append("/new"),
            "make_directory": lambda: storage.make_directory("/folder"),
            "truncate": lambda: file.truncate(0),
            "remove": lambda: storage.remove("/file"),
        }
        with pytest.raises(OSError, match="Input/output"):
            calls[operation]()
        assert storage.list_directory("/") == ["file"]
        assert storage.read_file("/file") == b"before"
        calls[operation]()


CALLS = st.sampled_from(["append", "append", "append", "sync", "cut", "write", "remove", "power"])


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32),
    calls=st.lists(st.tuples(CALLS, st.sampled_from("ab"), st.integers(1, 1_500)), max_size=25),
)
def test_against_a_model_of_what_must_be_there(
    seed: int, calls: list[tuple[str, str, int]]
) -> None:
    """Two files; of each what processes see, and how many first bytes of it are durable."""
    disk = disk_of(seed)
    storage = disk.storage("a")
    seen: dict[str, bytes] = {}
    durable: dict[str, int] = {}
    for number, (call, name, size) in enumerate(calls):
        content = bytes([number % 251 + 1]) * size
        path = f"/{name}"
        if call == "append":
            storage.open_append(path).append([content])
            seen[name] = seen.get(name, b"") + content
            durable.setdefault(name, 0)
        elif call == "sync" and name in seen:
            storage.open_append(path).sync()
            durable[name] = len(seen[name])
        elif call == "cut" and name in seen:
            kept = min(size, len(seen[name]))
            storage.open_append(path).truncate(kept)
            seen[name] = seen[name][:kept]
            durable[name] = min(durable[name], kept)
        elif call == "write":
            storage.write_file(path, content)
            seen[name], durable[name] = content, size
        elif call == "remove":
            storage.remove(path)
            seen.pop(name, None)
            durable.pop(name, None)
        elif call == "power":
            disk.power_cut()
            storage = disk.storage("a")
            for each, before in seen.items():
                after = storage.read_file(f"/{each}")
                assert after[: durable[each]] == before[: durable[each]]
                seen[each], durable[each] = after, len(after)
        assert storage.list_directory("/") == sorted(seen)
        for each, expected in seen.items():
            assert storage.read_file(f"/{each}") == expected
