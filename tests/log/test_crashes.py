"""A process that dies at any effect on the disk, inside or before it; and a power cut then."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from millstream.errors import CorruptSegmentError, LogError, LostRowsError
from millstream.log.control_file import ControlFile
from millstream.log.partition import Partition
from millstream.storage_local import LocalStorage
from millstream.storage_memory import MemoryDisk, SimulatedCrash
from tests.log.log_kit import lose_unsynced_rows
from tests.log.partition_kit import (
    CrashingStorage,
    Plan,
    RebootedStorage,
    crashing,
    open_partition,
    read_ids,
    rows,
)

COUNTS = [3, 2, 1, 40, 1, 1, 45, 1, 2]
SEGMENT_BYTES = 2_200
"""A frame of one row is not synced, and the big ones start segments: so the last frame of a
segment is not synced before the roll, and small frames would still fit in behind it."""


class Writer:
    """Appends and syncs until the plan ends it; remembers what it was told."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.written = 0
        self.durable = 0
        with crashing():
            partition = open_partition(
                folder, storage=CrashingStorage(plan), segment_bytes=SEGMENT_BYTES
            )
            for count in COUNTS:
                self.written = partition.append(rows(self.written, count)).end_offset
                if count > 1:
                    partition.sync()
                    self.durable = self.written


def effects(tmp_path: Path) -> int:
    plan = Plan()
    writer = Writer(tmp_path / "counted", plan)
    assert writer.durable == writer.written == sum(COUNTS)
    assert plan.count > 45
    return plan.count


def go_on(partition: Partition, least: int, most: int) -> None:
    """What is there is a prefix of what was appended; and the partition works on."""
    end = partition.written_end
    assert least <= end <= most
    for _ in range(5):
        end = partition.append(rows(end, 2)).end_offset
    partition.sync()
    for each in (LocalStorage(), RebootedStorage()):
        assert read_ids(open_partition(partition.directory, storage=each)) == list(range(end))


@pytest.mark.parametrize("halves", [False, True])
def test_another_process_goes_on_after_a_death_at_any_effect(tmp_path: Path, halves: bool) -> None:
    for fatal in range(1, effects(tmp_path) + 1):
        folder = tmp_path / str(fatal)
        writer = Writer(folder, Plan(fatal, halves))
        partition = open_partition(folder, segment_bytes=SEGMENT_BYTES)
        # What was under way may have been written: at most one frame more.
        go_on(partition, writer.written, writer.written + max(COUNTS))


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("control", ["kept", "lost"])
def test_a_power_cut_at_any_effect_takes_back_only_what_was_not_synced(
    tmp_path: Path, halves: bool, control: str
) -> None:
    for fatal in range(1, effects(tmp_path) + 1):
        folder = tmp_path / str(fatal)
        plan = Plan(fatal, halves)
        writer = Writer(folder, plan)
        # What a reader in another process may have seen just before the power went.
        seen = ControlFile(LocalStorage(), str(folder)).durable()
        for path, synced in plan.synced.items():
            content = Path(path).read_bytes()
            half = synced + (len(content) - synced) // 2  # some of it came through
            Path(path).write_bytes(content[:half])
        if control == "lost":
            (folder / "control").unlink(missing_ok=True)
        partition = open_partition(folder, storage=RebootedStorage(), segment_bytes=SEGMENT_BYTES)
        assert partition.durable_end >= max(writer.durable, seen.offset if seen else 0)
        end = partition.written_end
        assert read_ids(partition) == list(range(end))
        partition.append(rows(end, 1))


def test_a_second_crash_inside_the_recovery_changes_nothing(tmp_path: Path) -> None:
    for fatal in range(1, 12):
        folder = tmp_path / str(fatal)
        Writer(folder, Plan(33))
        with crashing():
            storage = CrashingStorage(Plan(fatal, halves=True))
            storage.boot_id = lambda: "another boot"  # type: ignore[method-assign]
            open_partition(folder, storage=storage)
        partition = open_partition(folder, storage=RebootedStorage(), segment_bytes=SEGMENT_BYTES)
        assert read_ids(partition) == list(range(partition.written_end))
        assert partition.written_end >= 5


def test_a_refused_append_is_taken_back_and_refuses_writes_until_verified(tmp_path: Path) -> None:
    plan = Plan()
    partition = open_partition(tmp_path / "0", storage=CrashingStorage(plan))
    partition.append(rows(0, 3))
    partition.sync()
    plan.errors["append"] = OSError(28, "No space left on device")
    with pytest.raises(LogError, match="No space left"):
        partition.append(rows(3, 3))
    plan.errors.clear()
    with pytest.raises(LogError, match="refuses to write"):
        partition.append(rows(3, 3))
    assert read_ids(partition) == [0, 1, 2]
    partition.verify()
    assert partition.append(rows(3, 3))[:2] == (3, 6)
    partition.sync()
    assert read_ids(partition) == list(range(6))


def test_a_failed_sync_refuses_writes_of_every_process_until_verified(tmp_path: Path) -> None:
    plan = Plan()
    partition = open_partition(tmp_path / "0", storage=CrashingStorage(plan))
    other = open_partition(tmp_path / "0")
    partition.append(rows(0, 3))
    partition.sync()
    partition.append(rows(3, 2))
    plan.errors["sync"] = OSError(5, "Input/output error")
    with pytest.raises(LogError, match="Input/output error"):
        partition.sync()
    plan.errors.clear()
    for each in (partition, other):
        with pytest.raises(LogError, match="refuses to write"):
            each.append(rows(5, 1))
        with pytest.raises(LogError, match="refuses to write"):
            each.sync()
        assert read_ids(each) == [0, 1, 2]
    plan.count = 0
    partition.verify()
    assert plan.count > 5  # truncated, written anew, synced, published
    assert read_ids(other) == [0, 1, 2, 3, 4]
    assert other.append(rows(5, 1))[:2] == (5, 6)


def test_opening_the_partition_anew_verifies_it(tmp_path: Path) -> None:
    plan = Plan()
    partition = open_partition(tmp_path / "0", storage=CrashingStorage(plan))
    partition.append(rows(0, 3))
    plan.errors["sync"] = OSError(5, "Input/output error")
    with pytest.raises(LogError):
        partition.sync()
    with pytest.raises(LogError, match="cannot be recovered"):
        open_partition(tmp_path / "0", storage=CrashingStorage(plan))
    assert read_ids(open_partition(tmp_path / "0")) == [0, 1, 2]


def test_what_readers_of_an_unsynced_partition_saw_is_never_cut_under_them(tmp_path: Path) -> None:
    partition = open_partition(tmp_path / "0", durability="os")
    partition.append(rows(0, 3))
    path = tmp_path / "0" / "00000000000000000000.arrows"
    content = bytearray(path.read_bytes())
    content[-70] ^= 1  # in the body
    path.write_bytes(content)
    with pytest.raises(CorruptSegmentError):
        partition.verify()
    assert path.read_bytes() == content
    open_partition(tmp_path / "0", durability="os", storage=RebootedStorage())
    assert len(path.read_bytes()) < len(content)  # nobody maps it any more


def test_a_frame_that_does_not_continue_the_offsets_is_a_torn_tail(tmp_path: Path) -> None:
    partition = open_partition(tmp_path / "0")
    partition.append(rows(0, 2))
    partition.sync()
    before = (tmp_path / "0" / "00000000000000000000.arrows").read_bytes()
    partition.append(rows(2, 2))
    path = tmp_path / "0" / "00000000000000000000.arrows"
    frame = path.read_bytes()[len(before) :]
    path.write_bytes(before + frame + frame)  # an old block that came back
    assert read_ids(open_partition(tmp_path / "0", storage=RebootedStorage())) == [0, 1, 2, 3]
    assert path.read_bytes() == before + frame


def test_a_last_segment_that_is_missing_is_damage(tmp_path: Path) -> None:
    Writer(tmp_path / "0", Plan())
    last = sorted((tmp_path / "0").glob("*.arrows"))[-1]
    last.unlink()
    with pytest.raises(CorruptSegmentError, match=f"{last.name} is missing"):
        open_partition(tmp_path / "0", storage=RebootedStorage())


class TestSyncsThatFail:
    """On a disk in memory, which drops what a refused sync could not write."""

    @staticmethod
    def path(partition: Partition) -> str:
        return f"{partition.directory}/00000000000000000000.arrows"

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("durability", ["fsync", "os"])
    def test_a_death_before_the_failure_could_be_told(self, seed: int, durability: str) -> None:
        disk = MemoryDisk(random.Random(seed))
        storage = disk.storage("a")
        partition = open_partition(
            "/0", storage=storage, durability=durability, segment_bytes=1_000
        )
        partition.append(rows(0, 10))
        storage.fail("sync", OSError(5, "Input/output error"))
        storage.crash_after(2)  # the mark that a sync is under way; then that it failed
        with pytest.raises(SimulatedCrash):
            if durability == "fsync":
                partition.sync()
            else:
                partition.append(rows(10, 20))  # seals the segment, and so syncs it
        other = open_partition(
            "/0", storage=disk.storage("b"), durability=durability, segment_bytes=1_000
        )
        other.append(rows(10, 10))
        other.sync()
        assert read_ids(other) == list(range(20))
        other.append(rows(20, 20))
        disk.power_cut()
        again = open_partition("/0", storage=disk.storage("c"), durability=durability)
        kept = read_ids(again)
        assert kept == list(range(len(kept)))
        assert len(kept) in ({20, 40} if durability == "fsync" else {10, 20, 40})

    def test_a_death_while_rows_are_written_anew_takes_none_away(self) -> None:
        for fatal in range(1, 12):
            disk = MemoryDisk(random.Random(fatal))
            one, other = disk.storage("a"), disk.storage("b")
            partition = open_partition("/0", storage=one)
            waiting = open_partition("/0", storage=other)
            partition.append(rows(0, 3))
            waiting.append(rows(3, 3))
            one.fail("sync", OSError(5, "Input/output error"))
            with pytest.raises(LogError):
                partition.sync()
            one.crash_after(fatal)
            with suppress(SimulatedCrash):
                partition.verify()
            open_partition("/0", storage=disk.storage("c"))
            waiting.sync()
            disk.power_cut()
            assert read_ids(open_partition("/0", storage=disk.storage("d"))) == list(range(6))

    def test_who_appended_what_the_disk_lost_is_told(self) -> None:
        disk = MemoryDisk(random.Random(1))
        one, other = disk.storage("a"), disk.storage("b")
        partition = open_partition("/0", storage=one)
        partition.append(rows(0, 3))
        partition.sync()
        waiting = open_partition("/0", storage=other)
        idle = open_partition("/0", storage=disk.storage("c"))
        mine, another = waiting.append(rows(3, 2)), waiting.append(rows(5, 1))
        lose_unsynced_rows(partition, one)
        last = open_partition("/0", storage=disk.storage("d"))
        losses = last.append(rows(3, 5)).losses
        last.sync(losses=losses)
        idle.sync()  # has lost nothing
        for each in (mine, another):  # perhaps of two producers
            with pytest.raises(LostRowsError, match="append them again"):
                waiting.sync(losses=each.losses)
        again = waiting.append(rows(8, 1))
        assert again.base_offset == 8
        waiting.sync(losses=again.losses)
        assert read_ids(waiting) == list(range(9))

    def test_a_power_cut_is_a_loss_to_who_outlives_it(self) -> None:
        disk = MemoryDisk(random.Random(1))
        partition = open_partition("/0", storage=disk.storage("a"))
        partition.append(rows(0, 3))
        partition.sync()
        losses = partition.append(rows(3, 3)).losses  # as a client on another machine knows it
        disk.power_cut()
        partition = open_partition("/0", storage=disk.storage("b"))
        with pytest.raises(LostRowsError, match="append them again"):
            partition.sync(losses=losses)
        partition.sync(losses=partition.append(rows(3, 3)).losses)

    def test_the_cut_of_a_torn_frame_is_durable_before_its_segment_is_sealed(self) -> None:
        for seed in range(20):
            disk = MemoryDisk(random.Random(seed))
            storage = disk.storage("a")
            partition = open_partition("/0", storage=storage, segment_bytes=1_400)
            partition.append(rows(0, 10))
            partition.sync()
            storage.crash_after(1)
            with pytest.raises(SimulatedCrash):
                partition.append(rows(10, 1))
            other = open_partition("/0", storage=disk.storage("b"), segment_bytes=1_400)
            other.append(rows(10, 20))
            other.sync()
            disk.power_cut()
            assert read_ids(open_partition("/0", storage=disk.storage("c"))) == list(range(30))


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_nobody_is_disturbed_by_a_death_in_the_middle_of_a_roll(durability: str) -> None:
    for seed in range(120):
        fatal = 1 + seed % 30
        disk = MemoryDisk(random.Random(seed))
        options = {"durability": durability, "segment_bytes": 1_400}
        storage = disk.storage("a")
        partition = open_partition("/0", storage=storage, **options)
        reader = open_partition("/0", storage=disk.storage("b"), **options)
        partition.append(rows(0, 10))
        partition.sync()
        cursor = reader.frames(0)
        storage.crash_after(fatal)
        with suppress(SimulatedCrash):
            partition.append(rows(10, 20))
            partition.sync()
        reader.sync()
        end = reader.durable_end
        assert end in {10, 30}
        assert all(size > 0 for _, size in reader.segments())
        assert reader.offset_at_time(2**60) == end
        seen = [frame.end_offset for frame in iter(cursor.next, None)]
        assert seen == ([10, 30] if end == 30 else [10])
        for offset in range(end + 1):
            assert (reader.frames(offset).next() is None) == (offset == end)
        if seed % 2:
            disk.power_cut()
        again = open_partition("/0", storage=disk.storage("c"), **options)
        again.verify()
        kept = again.written_end
        assert kept in {10, 30}
        assert kept >= end or (durability == "os" and seed % 2)
        again.append(rows(kept, 2))
        again.sync()
        assert read_ids(again) == list(range(kept + 2))
        if not seed % 2:
            assert reader.durable_end == kept + 2
            assert [frame.end_offset for frame in iter(cursor.next, None)][-1] == kept + 2
