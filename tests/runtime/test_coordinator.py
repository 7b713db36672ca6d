"""The coordinator: when it commands what, what it commits, and that it leaves nothing undecided."""

from __future__ import annotations

import pytest

import millstream as ms
from millstream.errors import FencedError
from millstream.log import Log
from millstream.log.fitting import FRAME_ROWS_MAX
from millstream.runtime.attempt import read_manifest
from millstream.runtime.coordinator import MANIFESTS_KEPT, Coordinator, Phase
from millstream.runtime.manifest import Manifest, PartitionState
from millstream.runtime.messages import (
    CheckpointDone,
    EndSources,
    Finish,
    Finished,
    SourcesDone,
    StartCheckpoint,
)
from millstream.runtime.options import RunOptions
from tests.runtime.kit import (
    Bench,
    Played,
    collecting,
    compiler,
    event_log,
    events,
    put,
    rows_of,
)

INTERVAL_US = 1_000


def coordinator(
    log: Log, *, parallelism: int = 2, until_end: bool = True, fresh: bool = False
) -> Coordinator:
    """Of a job that counts events in windows, started."""
    options = RunOptions(
        parallelism=parallelism,
        until="end" if until_end else None,
        fresh=fresh,
        checkpoint_interval_us=INTERVAL_US,
    )
    counted = ms.stream("events", log=log).key_by("key").window(ms.tumbling("10s"))
    made = Coordinator(compiler([counted.agg(n=ms.count()).to("out")]), log, options)
    made.start()
    return made


def newest(log: Log) -> Manifest:
    found = read_manifest(log, "job")
    assert found is not None
    return found


def acknowledge(made: Coordinator, checkpoint: int, offset: int = 0) -> None:
    """Report the parts of both workers."""
    for worker in range(2):
        positions = {"source-events": {0: PartitionState(offset, 0)}} if worker == 0 else {}
        made.on_report(CheckpointDone(worker, checkpoint, positions, {}))


class TestPhases:
    def test_a_bounded_run_goes_from_reading_to_flushing_to_a_last_checkpoint(self) -> None:
        made = coordinator(event_log(Bench()))
        number = (made.checkpoint or 0) + 1
        assert made.tick(0) == []
        made.on_report(SourcesDone(0))
        assert (made.tick(1), made.phase) == ([], Phase.RUNNING)
        made.on_report(SourcesDone(1))
        assert (made.tick(2), made.phase) == ([Finish()], Phase.FLUSHING)
        made.on_report(Finished(1))
        assert made.tick(3) == []
        made.on_report(Finished(0))
        assert made.tick(4) == [StartCheckpoint(number)]
        assert made.phase is Phase.LAST_CHECKPOINT
        assert made.tick(5 * INTERVAL_US) == []
        acknowledge(made, number)
        assert (made.phase, made.finished, made.checkpoints) == (Phase.DONE, True, 1)
        assert made.tick(9 * INTERVAL_US) == []

    def test_a_checkpoint_is_due_an_interval_after_the_one_before_it_was_complete(self) -> None:
        made = coordinator(event_log(Bench()), until_end=False)
        number = (made.checkpoint or 0) + 1
        assert made.tick(100) == []
        assert made.due_us() == 100 + INTERVAL_US
        assert made.tick(99 + INTERVAL_US) == []
        assert made.tick(100 + INTERVAL_US) == [StartCheckpoint(number)]
        assert made.tick(100 + 5 * INTERVAL_US) == []
        acknowledge(made, number)
        assert made.tick(100 + 7 * INTERVAL_US) == []
        assert made.due_us() == 100 + 8 * INTERVAL_US
        assert made.tick(100 + 8 * INTERVAL_US) == [StartCheckpoint(number + 1)]

    def test_a_run_that_is_to_end_waits_for_the_checkpoint_under_way(self) -> None:
        made = coordinator(event_log(Bench()), until_end=False)
        number = (made.checkpoint or 0) + 1
        made.tick(0)
        assert made.tick(INTERVAL_US) == [StartCheckpoint(number)]
        made.request_stop()
        assert made.tick(2 * INTERVAL_US) == []
        acknowledge(made, number)
        assert made.tick(2 * INTERVAL_US) == [StartCheckpoint(number + 1)]
        acknowledge(made, number + 1)
        assert (made.phase, made.finished) == (Phase.DONE, False)

    def test_a_drained_run_is_told_once_and_flushes(self) -> None:
        made = coordinator(event_log(Bench()), until_end=False)
        made.request_drain()
        assert made.tick(0) == [EndSources()]
        assert made.tick(1) == []
        for worker in range(2):
            made.on_report(SourcesDone(worker))
        assert made.tick(2) == [Finish()]

    def test_a_stop_while_the_end_is_given_out_does_not_make_the_run_unfinished(self) -> None:
        log = event_log(Bench())
        made = coordinator(log)
        for report in (SourcesDone(0), SourcesDone(1)):
            made.on_report(report)
        assert made.tick(0) == [Finish()]
        made.request_stop()
        for worker in range(2):
            made.on_report(Finished(worker))
        (command,) = made.tick(1)
        assert isinstance(command, StartCheckpoint)
        acknowledge(made, command.checkpoint)
        assert made.finished
        assert newest(log).finished


class TestCommits:
    def test_nothing_is_committed_before_the_last_part(self) -> None:
        log = event_log(Bench())
        put(log, "events", events(1, 2, 3))
        made = coordinator(log)
        before = newest(log)
        number = before.checkpoint + 1
        made.tick(0)
        made.tick(INTERVAL_US)
        made.on_report(CheckpointDone(1, number, {}, {}))
        assert newest(log) == before
        made.on_report(CheckpointDone(0, number, {"source-events": {0: PartitionState(3, 7)}}, {}))
        assert newest(log).checkpoint == number
        assert made.positions() == {("source-events", 0): 3}
        assert made.checkpoint == number

    def test_what_was_captured_is_recorded_before_a_worker_starts(self) -> None:
        log = event_log(Bench())
        put(log, "events", events(1, 2, 3))
        coordinator(log)
        assert newest(log).sources["source-events"].ends == (3,)
        put(log, "events", events(4))
        later = coordinator(log)
        assert newest(log).sources["source-events"].ends == (3,)
        assert later.restored == newest(log).checkpoint

    def test_numbers_go_on_in_a_fresh_run(self) -> None:
        log = event_log(Bench())
        first = coordinator(log, until_end=False)
        fresh = coordinator(log, until_end=False, fresh=True)
        assert (first.checkpoint, fresh.checkpoint, fresh.restored) == (1, 2, None)
        assert newest(log).run == f"job-{fresh.epoch}"

    def test_an_attempt_fences_the_one_before_it(self) -> None:
        log = event_log(Bench())
        old = coordinator(log, until_end=False)
        old.tick(0)
        (command,) = old.tick(INTERVAL_US)
        assert isinstance(command, StartCheckpoint)
        new = coordinator(log, until_end=False)
        assert new.epoch == old.epoch + 1
        with pytest.raises(FencedError, match="another run of it started"):
            acknowledge(old, command.checkpoint)
        old.close()
        new.close()

    def test_state_files_of_the_newest_checkpoints_are_kept_and_older_ones_removed(self) -> None:
        bench = Bench()
        log = event_log(bench)
        counted = ms.stream("events", log=log).key_by("key").window(ms.tumbling("1h"))
        running = Played(bench, [counted.agg(n=ms.count()).to("out")], until=None)
        needed = []
        for second in range(25):
            put(log, "events", events(second, key="abcde"[second % 5]))
            running.settle()
            running.checkpoint()
            needed.append(newest(log).paths())
        found = {
            f"jobs/job/state/{name}"
            for name in log.storage.list_directory(f"{log.path}/jobs/job/state")
        }
        assert found == set[str]().union(*needed[-MANIFESTS_KEPT:])
        assert len(set[str]().union(*needed)) > len(found)


class TestClose:
    def undecided(self, log: Log, topic: str = "copy") -> bool:
        found = log.topic(topic)
        return found.stable_ends() != [
            found.partition(index).written_end for index in range(found.partitions)
        ]

    def copying(self, bench: Bench) -> tuple[Log, Played]:
        """A job that copies events, with rows written in a transaction that is not decided."""
        log = event_log(bench)
        put(log, "events", events(1, 2, 3))
        sinks = [ms.stream("events", log=log).to("copy")]
        return log, Played(bench, sinks, until=None)

    def test_what_was_written_since_the_last_checkpoint_is_aborted(self) -> None:
        bench = Bench()
        log, running = self.copying(bench)
        running.settle()
        running.checkpoint()
        put(log, "events", events(4))
        running.settle()
        running.tick(running.coordinator.options.checkpoint_interval_us)
        running.coordinator.close()
        assert not self.undecided(log)
        assert rows_of(log, "copy", "value") == [(0,), (1,), (2,)]

    def test_a_checkpoint_under_way_and_what_was_written_behind_it_are_aborted(self) -> None:
        bench = Bench()
        log, running = self.copying(bench)
        running.settle()
        running.tick()
        running.tick(running.coordinator.options.checkpoint_interval_us)
        (worker,) = running.workers
        worker.step()
        put(log, "events", events(*[4] * FRAME_ROWS_MAX))
        while worker.step():
            pass
        log.topic("copy").partition(0).sync()
        assert self.undecided(log)
        running.coordinator.close()
        assert not self.undecided(bench.log())
        assert rows_of(bench.log(), "copy") == []

    def test_a_finished_run_has_nothing_to_abort(self) -> None:
        bench = Bench()
        log, running = self.copying(bench)
        running.coordinator.request_drain()
        running.tick()
        running.finish()
        assert running.coordinator.finished
        written = log.transactions.newest_manifest("job job")
        running.coordinator.close()
        assert bench.log().transactions.newest_manifest("job job") == written

    def test_one_that_never_started_has_nothing_to_decide(self) -> None:
        log = event_log(Bench())
        sinks = [ms.stream("events", log=log).to("copy")]
        Coordinator(compiler(sinks), log, RunOptions()).close()
        assert log.transactions.owners() == []


class TestMemoryOnly:
    def test_it_neither_fences_nor_writes_nor_checkpoints(self) -> None:
        bench = Bench()
        log = event_log(bench)
        put(log, "events", events(1, 2))
        running = coordinator(log)
        before = bench.content()
        made = Coordinator(collecting(ms.stream("events", log=log)), log, RunOptions(until="end"))
        (plan,) = made.start()
        assert not made.durable
        assert plan.sources["source-events"].ends == (2,)
        assert made.tick(10**9) == []
        assert made.due_us() is None
        made.on_report(SourcesDone(0))
        assert made.tick(10**9) == [Finish()]
        made.on_report(Finished(0))
        assert (made.tick(10**9), made.phase, made.finished) == ([], Phase.DONE, True)
        made.close()
        assert bench.content() == before
        acknowledge_a_checkpoint(running)

    def test_it_can_be_stopped(self) -> None:
        log = event_log(Bench())
        made = Coordinator(collecting(ms.stream("events", log=log)), log, RunOptions())
        made.start()
        made.request_stop()
        assert (made.tick(0), made.phase, made.finished) == ([], Phase.DONE, False)


def acknowledge_a_checkpoint(running: Coordinator) -> None:
    """A run that is not fenced can still commit."""
    running.tick(0)
    (command,) = running.tick(INTERVAL_US)
    assert isinstance(command, StartCheckpoint)
    acknowledge(running, command.checkpoint)
