"""What the world is told of a run, and what the run does when the world asks."""

from __future__ import annotations

import pytest

import millstream as ms
from millstream.errors import JobCancelledError
from millstream.log import Log
from millstream.runtime.activity import WorkerStatus
from millstream.runtime.control import JobControl, JobState
from millstream.runtime.coordinator import Coordinator
from millstream.runtime.hosts.publisher import (
    CHECKPOINT_INTERVAL_US,
    PUBLISH_INTERVAL_US,
    STATUS_INTERVAL_US,
    OnStatus,
    RunPublisher,
)
from millstream.runtime.options import RunOptions
from tests.runtime.kit import Bench, compiler, event_log


def started(log: Log) -> Coordinator:
    sinks = [ms.stream("events", log=log).to("copy")]
    coordinator = Coordinator(compiler(sinks), log, RunOptions())
    coordinator.start()
    return coordinator


def publisher(log: Log, on_status: OnStatus | None = None, *, visible: bool = True) -> RunPublisher:
    return RunPublisher(
        log, "job", "mine", host="local", parallelism=1, on_status=on_status, visible=visible
    )


def statuses() -> list[WorkerStatus]:
    return [WorkerStatus(0, rows_read=7)]


def test_a_run_is_seen_from_elsewhere() -> None:
    bench = Bench()
    log = event_log(bench)
    told = publisher(log)
    coordinator = started(log)
    told.attempt(coordinator, statuses)
    told.on_turn(0)
    record = JobControl(bench.log(), "job").record()
    assert record is not None
    assert (record.run, record.state, record.attempt) == ("mine", JobState.RUNNING, 1)
    assert (record.epoch, record.checkpoint) == (coordinator.epoch, coordinator.checkpoint)
    assert record.workers == (WorkerStatus(0, rows_read=7),)
    told.over(JobState.FAILED, ValueError("no"))
    record = JobControl(bench.log(), "job").record()
    assert record is not None
    assert (record.state, record.reason) == (JobState.FAILED, "no")


def test_a_checkpoint_is_told_of_soon_but_not_each_of_many() -> None:
    bench = Bench()
    log = event_log(bench)
    told = publisher(log)
    coordinator = started(log)
    told.attempt(coordinator, statuses)
    seen = []
    for turn_us in (0, CHECKPOINT_INTERVAL_US // 2, CHECKPOINT_INTERVAL_US, PUBLISH_INTERVAL_US):
        told.on_turn(turn_us)
        record = JobControl(bench.log(), "job").record()
        assert record is not None
        seen.append(record.checkpoints)
        coordinator.checkpoints += 1
    assert seen == [0, 0, 2, 3]


def test_what_is_asked_is_obeyed_by_later_attempts_too() -> None:
    bench = Bench()
    log = event_log(bench)
    told = publisher(log)
    first, second, third = started(log), started(log), started(log)
    waiting = started(log)
    told.attempt(first, statuses)
    told.on_turn(0)
    assert not first.stopping
    JobControl(bench.log(), "job").ask("stop", run="mine")
    told.on_turn(STATUS_INTERVAL_US - 1)
    assert not first.stopping
    told.on_turn(STATUS_INTERVAL_US)
    assert first.stopping
    told.over(JobState.RESTARTING, ValueError("a worker died"))
    told.starts(waiting)
    told.on_turn(2 * STATUS_INTERVAL_US)
    assert waiting.stopping, "also while it waits for processes"
    told.attempt(second, statuses)
    told.on_turn(3 * STATUS_INTERVAL_US)
    assert second.stopping
    JobControl(bench.log(), "job").ask("drain", run="mine")
    told.attempt(third, statuses)
    told.on_turn(5 * STATUS_INTERVAL_US)
    assert (third.draining, third.stopping) == (True, False)


def test_a_cancelled_run_ends_at_once() -> None:
    bench = Bench()
    log = event_log(bench)
    told = publisher(log)
    told.attempt(started(log), statuses)
    JobControl(bench.log(), "job").ask("cancel", run="mine")
    with pytest.raises(JobCancelledError, match="job 'job' was cancelled"):
        told.on_turn(STATUS_INTERVAL_US)


def test_a_run_that_only_collects_tells_its_caller_and_leaves_nothing_in_the_log() -> None:
    bench = Bench()
    log = event_log(bench)
    coordinator = started(log)
    before = bench.content()
    heard: list[int] = []
    told = publisher(log, lambda given: heard.append(given.workers[0].rows_read), visible=False)
    told.attempt(coordinator, statuses)
    for turn in range(4):
        told.on_turn(turn * PUBLISH_INTERVAL_US)
    told.over(JobState.FINISHED)
    assert heard == [7] * 5
    assert bench.content() == before
