"""A checkpoint's parts: made durable first, counted, put together as one manifest."""

from __future__ import annotations

import errno
from typing import Any

import pyarrow as pa
import pytest

from millstream.errors import LogError, LostRowsError
from millstream.log import Log
from millstream.log.producer import Producer
from millstream.log.transactions import Unsynced
from millstream.operators.operator import StateSnapshot
from millstream.runtime.background import Done
from millstream.runtime.checkpoint import CheckpointProgress, persist
from millstream.runtime.manifest import Manifest, PartitionState, SourceState, StateFile
from millstream.runtime.messages import CheckpointDone, CheckpointTaken
from millstream.runtime.snapshots import verify_file
from millstream.storage_memory import MemoryStorage
from tests.log.log_kit import lose_unsynced_rows, memory
from tests.runtime.kit import Bench, event_log, events

ROWS = pa.table({"_key_group": pa.array([1], pa.int32())})


def taken(log: Log, **changes: Any) -> CheckpointTaken:
    """Worker 1's part: state of one operator, and a row that is written but not durable."""
    writer = log.transactions.writer("job job")
    producer = log.producer("events", writer=writer)
    producer.append(events(1), transaction=5)
    content: dict[str, Any] = {
        "worker": 1,
        "checkpoint": 5,
        "positions": {"source": {0: PartitionState(3, 4)}},
        "snapshots": {"hours": StateSnapshot(True, ROWS, {"closed": 7})},
        "participants": (Done(_places(producer)), Done({})),
        **changes,
    }
    return CheckpointTaken(**content)


def _places(producer: Producer) -> Unsynced:
    return {("events", index): losses for index, losses in producer.unsynced().items()}


class TestPersist:
    def test_state_and_rows_are_durable_before_it_is_done(self) -> None:
        bench = Bench()
        log = event_log(bench)
        part = taken(log)
        assert log.topic("events").durable_ends() == [0]
        done = persist(part, "job", 2, bench.log())
        assert (done.worker, done.checkpoint, done.positions) == (1, 5, part.positions)
        bench.disk.power_cut()
        after = bench.log()
        assert after.topic("events").durable_ends() == [1]
        verify_file(after.storage, after.path, "hours", done.files["hours"])

    def test_rows_that_the_disk_lost_meanwhile_are_missed(self) -> None:
        bench = Bench()
        log = event_log(bench)
        part = taken(log)
        other = bench.log()
        lose_unsynced_rows(other.topic("events").partition(0), memory(other))
        with pytest.raises(LostRowsError, match="append them again"):
            persist(part, "job", 2, bench.log())

    def test_without_state_and_rows_nothing_is_written(self) -> None:
        bench = Bench()
        log = bench.log()
        part = CheckpointTaken(0, 5, {}, {}, ())
        assert persist(part, "job", 2, log) == CheckpointDone(0, 5, {}, {})
        assert not log.storage.exists(log.path)

    @pytest.mark.parametrize("operation", ["write_file", "sync"])
    def test_a_disk_that_refuses_ends_it(self, operation: str) -> None:
        bench = Bench()
        part = taken(event_log(bench))
        log = bench.log()
        assert isinstance(log.storage, MemoryStorage)
        log.storage.fail(operation, OSError(errno.EIO, "Input/output error"))
        with pytest.raises((OSError, LogError), match="Input/output error"):
            persist(part, "job", 2, log)


def manifest(**operators: tuple[StateFile, ...]) -> Manifest:
    source = SourceState("events", "1", None, None, {"0": PartitionState(1, 1)})
    return Manifest("job", "job-1", 1, 4, 1, False, {"source": source}, operators)


def file(
    worker: int, checkpoint: int, *, full: bool = False, path: str | None = "", closed: int = 0
) -> StateFile:
    named = f"{worker}-{checkpoint}" if path == "" else path
    return StateFile(worker, checkpoint, named, 1, 1, full, 1, {"closed": closed})


def done(worker: int, **files: StateFile) -> CheckpointDone:
    position = PartitionState(10 + worker, 5)
    return CheckpointDone(worker, 5, {"source": {worker: position}}, files)


class TestProgress:
    def test_the_last_part_completes_it(self) -> None:
        progress = CheckpointProgress(5, 3)
        assert [progress.add(done(worker)) for worker in (2, 0, 1)] == [False, False, True]

    @pytest.mark.parametrize("part", [done(0), CheckpointDone(1, 6, {}, {})])
    def test_a_part_that_is_not_awaited_is_noticed(self, part: CheckpointDone) -> None:
        progress = CheckpointProgress(5, 3)
        progress.add(done(0))
        with pytest.raises(AssertionError):
            progress.add(part)

    def test_positions_of_all_workers_move_and_the_rest_stays(self) -> None:
        progress = CheckpointProgress(5, 2)
        progress.add(done(0))
        progress.add(done(1))
        made = progress.manifest(manifest(), 3, first=True, finished=True)
        assert made.sources["source"].partitions == {
            "0": PartitionState(10, 5),
            "1": PartitionState(11, 5),
        }
        assert (made.epoch, made.checkpoint, made.parallelism, made.finished) == (3, 5, 2, True)
        assert (made.job, made.run) == ("job", "job-1")


def chain(before: tuple[StateFile, ...], *added: StateFile, first: bool = False) -> list[StateFile]:
    """The files of the operator "hours" after a checkpoint that adds one a worker."""
    progress = CheckpointProgress(5, len(added))
    for each in added:
        progress.add(done(each.worker, hours=each))
    made = progress.manifest(manifest(hours=before), 1, first=first, finished=False)
    return list(made.operators["hours"])


class TestChainOfFiles:
    def test_a_change_follows_what_it_changes(self) -> None:
        whole, change = file(0, 3, full=True), file(0, 5)
        assert chain((whole,), change) == [whole, change]

    def test_a_whole_file_makes_the_workers_own_earlier_ones_needless(self) -> None:
        before = file(0, 2, full=True), file(1, 3, full=True), file(0, 4)
        whole, change = file(0, 5, full=True), file(1, 5)
        assert chain(before, whole, change) == [before[1], whole, change]

    def test_an_attempts_first_checkpoint_needs_nothing_older(self) -> None:
        before = file(0, 2, full=True), file(7, 3, full=True)
        whole = file(0, 5, full=True)
        assert chain(before, whole, first=True) == [whole]

    def test_no_change_adds_nothing_but_changed_values_do(self) -> None:
        whole = file(0, 3, full=True, closed=1)
        assert chain((whole,), file(0, 5, path=None, closed=1)) == [whole]
        moved = file(0, 5, path=None, closed=2)
        assert chain((whole,), moved) == [whole, moved]

    def test_a_change_to_nothing_is_noticed(self) -> None:
        with pytest.raises(AssertionError, match="a change to nothing"):
            chain((file(1, 3, full=True),), file(0, 5))
