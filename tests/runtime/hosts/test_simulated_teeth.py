"""Bugs that are planted one by one: the simulation finds each of them within a few seeds.

A check that cannot fail proves nothing. Every bug here is one that a runtime of this kind has
had somewhere, and most of them do no harm as long as nothing dies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from millstream.errors import MillstreamError
from millstream.log.transactions import Transactions
from millstream.operators.key_index import KeyIndex
from millstream.operators.window_aggregate import WindowAggregate
from millstream.runtime import attempt, checkpoint, coordinator, snapshots, stage
from millstream.runtime import manifest as manifests
from millstream.runtime.alignment import Alignment
from millstream.runtime.checkpoint import CheckpointProgress
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.flow import OperatorInputs, SendInput
from millstream.runtime.graph import KEY_GROUPS, Edge
from millstream.runtime.hosts.simulated import Faults
from millstream.runtime.hosts.simulated_attempt import _Channel
from millstream.runtime.messages import Barrier, Report
from millstream.runtime.sink import LogSink
from millstream.runtime.source import Source
from millstream.runtime.stage import StageRunner
from millstream.runtime.worker import Worker
from millstream.windows.watermark import WATERMARK_MIN
from tests.runtime.hosts.test_simulated import simulate

Plant = pytest.MonkeyPatch
FAULTS = Faults(count_max=8, every_events=100, power_cut=3, disk_error=2)
SEEDS = 40
"""A bug must show within so many."""


def committed_before_all_parts_are_there(plant: Plant) -> None:
    whole = CheckpointProgress.add

    def add(self: Any, part: Any) -> bool:
        return whole(self, part) or len(self._parts) == 1

    on_report = Coordinator.on_report

    def without_late_parts(self: Any, report: Report) -> None:
        progress = self._progress
        known = getattr(report, "checkpoint", None)
        if known is None or (progress is not None and progress.checkpoint == known):
            on_report(self, report)

    plant.setattr(stage, "FULL_SNAPSHOT_EVERY", 1)  # else a change to nothing is noticed at once
    plant.setattr(CheckpointProgress, "add", add)
    plant.setattr(Coordinator, "on_report", without_late_parts)


def positions_noted_while_rows_are_in_process(plant: Plant) -> None:
    try_barrier = StageRunner.try_barrier

    def at_once(self: Any) -> Any:
        active, self._active = self._active, None
        try:
            return try_barrier(self)
        finally:
            self._active = active

    step = Worker.step

    def barriers_first(self: Any) -> bool:
        return any(each.busy and self._try_barrier(each) for each in self._stages) or step(self)

    plant.setattr(StageRunner, "try_barrier", at_once)
    plant.setattr(Worker, "step", barriers_first)


def rows_behind_a_barrier_taken(plant: Plant) -> None:
    plant.setattr(Alignment, "is_held", lambda self, source: False)


def barrier_sent_before_the_rows_in_front_of_it(plant: Plant) -> None:
    request = StageRunner.request_checkpoint
    broadcast = SendInput.broadcast

    def at_once(self: Any, number: int) -> None:
        for each in self._sends.values():
            broadcast(each, Barrier(number))
        request(self, number)

    def without_barriers(self: Any, message: Any) -> None:
        if not isinstance(message, Barrier):
            broadcast(self, message)

    plant.setattr(StageRunner, "request_checkpoint", at_once)
    plant.setattr(SendInput, "broadcast", without_barriers)


def barriers_that_overtake_rows(plant: Plant) -> None:
    def deliver(self: Any) -> None:
        first = next((each for each in self.sent if isinstance(each, Barrier)), self.sent[0])
        self.sent.remove(first)
        self._arrived.append(first)

    plant.setattr(_Channel, "deliver", deliver)


def rows_appended_to_the_transaction_before(plant: Plant) -> None:
    try_barrier = StageRunner.try_barrier

    def late(self: Any) -> Any:
        before = self.transaction
        part = try_barrier(self)
        if part is not None:
            self.transaction = before
        return part

    plant.setattr(StageRunner, "try_barrier", late)


def an_append_that_failed_forgotten(plant: Plant) -> None:
    def flush(self: Any, transaction: int) -> Any:
        self._append(transaction)
        topic, producer = self.node.topic, self._producer
        return self._background.submit(
            lambda: {(topic, index): losses for index, losses in producer.unsynced().items()}
        )

    plant.setattr(LogSink, "flush", flush)


def a_superseded_attempt_commits(plant: Plant) -> None:
    plant.setattr(Transactions, "_check_epoch", lambda self, writer: None)


def transactions_decided_before_their_rows_are_durable(plant: Plant) -> None:
    written: set[Any] = set()
    decide = Transactions.decide

    def sync_later(self: Any, *given: Any) -> None:
        decide(self, *given)
        for each in sorted(written):
            self._sync(each, None)
        written.clear()

    def note(self: Any, participants: Any, losses: Any = None) -> None:
        written.update(participants)

    plant.setattr(Transactions, "sync", note)
    plant.setattr(Transactions, "decide", sync_later)


def state_acknowledged_before_it_is_durable(plant: Plant) -> None:
    write = snapshots.write_snapshot

    class Hasty:
        """A disk that says that a file is written when it is not yet."""

        def __init__(self, storage: Any) -> None:
            self.storage = storage

        def write_file(self, path: str, content: Any) -> None:
            self.storage.open_append(path).append([content])

    def hasty(storage: Any, *rest: Any) -> Any:
        return write(Hasty(storage), *rest)  # type: ignore[arg-type]  # as much of a disk as is used

    plant.setattr(checkpoint, "write_snapshot", hasty)


def a_manifest_without_state(plant: Plant) -> None:
    encode = manifests.encode_manifest

    def without(manifest: Any) -> bytes:
        return encode(msgspec.structs.replace(manifest, operators={}))

    plant.setattr(coordinator, "encode_manifest", without)


def every_worker_restores_all_key_groups(plant: Plant) -> None:
    restore = WindowAggregate.restore

    def all_of_it(self: Any, snapshots: Any, key_groups: range) -> None:
        restore(self, snapshots, range(KEY_GROUPS))

    plant.setattr(WindowAggregate, "restore", all_of_it)


def windows_that_closed_left_in_the_state(plant: Plant) -> None:
    plant.setattr(KeyIndex, "removed_keys", lambda self: [])


def watermarks_not_restored(plant: Plant) -> None:
    opened = Source._open

    def forgetful(self: Any, index: int, start: Any) -> Any:
        partition = opened(self, index, start)
        partition.watermark.greatest_us = WATERMARK_MIN
        return partition

    plant.setattr(Source, "_open", forgetful)


def ends_captured_anew_after_a_crash(plant: Plant) -> None:
    captured = attempt.captured

    def anew(manifest: Any, *rest: Any) -> Any:
        return captured(msgspec.structs.replace(manifest, finished=True), *rest)

    plant.setattr(coordinator, "captured", anew)


def state_files_removed_that_are_needed(plant: Plant) -> None:
    remove = Coordinator._remove_unneeded

    def too_much(self: Any, manifest: Any) -> None:
        newest = {each for each in manifest.paths() if f"-{manifest.checkpoint:08d}-" in each}
        for path in sorted(manifest.paths() - newest):
            self._log.storage.remove(f"{self._log.path}/{path}")
        remove(self, manifest)

    plant.setattr(Coordinator, "_remove_unneeded", too_much)


def rows_held_back_over_a_barrier(plant: Plant) -> None:
    def nothing(self: Any) -> Iterator[None]:
        yield from ()

    plant.setattr(OperatorInputs, "holds", property(lambda self: False))
    plant.setattr(OperatorInputs, "pass_on", nothing)


def watermark_sent_before_its_rows(plant: Plant) -> None:
    def first(self: Any, source: Source, rows: pa.RecordBatch) -> Iterator[None]:
        yield from self._source_watermark(source)
        yield from self._rows(Edge(source.node.name), rows)

    plant.setattr(StageRunner, "_source_rows", first)


def streams_read_before_the_tables(plant: Plant) -> None:
    plant.setattr(Source, "loaded", property(lambda self: True))


@dataclass(frozen=True)
class Bug:
    """A planted bug.

    Parameters
    ----------
    plant
        Changes production code.
    first_seed
        From where to look: seeds before do not show it.
    needs_faults
        Whether it does no harm as long as nothing dies.
    parallelism
        Of the job.
    """

    plant: Callable[[Plant], None]
    first_seed: int = 0
    needs_faults: bool = True
    parallelism: int = 2


BUGS = [
    Bug(committed_before_all_parts_are_there, needs_faults=False),
    Bug(positions_noted_while_rows_are_in_process, first_seed=7),
    Bug(rows_behind_a_barrier_taken, first_seed=11),
    Bug(barrier_sent_before_the_rows_in_front_of_it, first_seed=3),
    Bug(barriers_that_overtake_rows, first_seed=1),
    Bug(rows_appended_to_the_transaction_before, first_seed=1),
    Bug(an_append_that_failed_forgotten, first_seed=56),
    Bug(a_superseded_attempt_commits, first_seed=1),
    Bug(transactions_decided_before_their_rows_are_durable, first_seed=5),
    Bug(state_acknowledged_before_it_is_durable, first_seed=1),
    Bug(a_manifest_without_state),
    Bug(every_worker_restores_all_key_groups),
    Bug(windows_that_closed_left_in_the_state, first_seed=48),
    Bug(watermarks_not_restored, first_seed=5),
    Bug(ends_captured_anew_after_a_crash),
    Bug(state_files_removed_that_are_needed),
    Bug(rows_held_back_over_a_barrier, first_seed=8),
    Bug(watermark_sent_before_its_rows, first_seed=22, needs_faults=False),
    Bug(streams_read_before_the_tables, first_seed=2, needs_faults=False),
]


def is_caught(seed: int, faults: Faults, parallelism: int) -> bool:
    try:
        simulate(seed, faults, parallelism, rows=80, interval_us=300)
    except (AssertionError, MillstreamError):
        return True
    return False


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.plant.__name__)
def test_the_simulation_finds(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    if bug.needs_faults:
        assert not is_caught(0, Faults(count_max=0), bug.parallelism)
    seeds = range(bug.first_seed, bug.first_seed + SEEDS)
    assert any(is_caught(seed, FAULTS, bug.parallelism) for seed in seeds)
