"""Attempts in processes that die, hang, get cut off, and are called over a bad line."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from millstream.errors import (
    CheckpointError,
    FencedError,
    JobCancelledError,
    JobError,
    OptionError,
    ResourcesError,
)
from millstream.log import Log
from millstream.runtime.attempt import owner_of, read_manifest
from millstream.runtime.control import JobControl, JobRecord, JobState
from millstream.runtime.hosts.attempts import Attempts, Outcome, WorkerPool, portable
from millstream.runtime.hosts.remote_fleet import Patience, RemoteWorker
from millstream.runtime.journal import Journal
from millstream.runtime.options import RunOptions
from millstream.runtime.restart import RestartStrategy
from millstream.runtime.worker import WorkerPlan
from tests.runtime.hosts.unreliable import UnreliablePool
from tests.runtime.late_flights import OUTPUTS, compiler, expected, load, outcome

JOB = "late_flights"
ROWS = 5_000
LATENESS_US = 600_000_000
SMALL = 6
"""So few rows at a time that a run can be hit in the middle, again and again."""


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "log")
    load(made, random.Random(3), count=ROWS, partitions=2)
    return made


def attempts(
    log: Log,
    pool: WorkerPool,
    *,
    strategy: RestartStrategy | None = None,
    patience: Patience | None = None,
    batch_rows: int = 100,
) -> Attempts:
    options = RunOptions(
        parallelism=2,
        until="end",
        run="mine",
        checkpoint_interval_us=20_000,
        batch_rows=batch_rows,
        gather_rows=1,
        channel_bytes=2_000,
    )
    return Attempts(
        compiler(log, "10m"),
        log,
        options,
        host="test",
        pool=pool,
        patience=patience or Patience(),
        strategy=strategy or RestartStrategy(first_delay_us=1_000),
    )


def record(log: Log) -> JobRecord:
    found = JobControl(log, JOB).record()
    assert found is not None
    return found


def check(log: Log) -> None:
    """The output is the model's, and nothing is left open."""
    reader = Log(log.path)
    assert outcome(reader) == expected(reader, LATENESS_US)
    nothing_open(reader)


def nothing_open(log: Log) -> None:
    for name in OUTPUTS:
        topic = log.topic(name)
        assert topic.stable_ends() == topic.durable_ends(), "a transaction was left open"


class Harm:
    """Does something after some checkpoints of an attempt, in so many attempts of a pool."""

    def __init__(self, log: Log, pool: UnreliablePool, do: Callable[[], None], times: int) -> None:
        self.done: list[int] = []
        self._log = log
        self._do = do
        self._times = times
        self._threads: list[threading.Thread] = []
        pool.on_ready = self.watch

    def watch(self) -> None:
        """Watch the attempt that begins."""
        if len(self._threads) < self._times:
            before = read_manifest(Log(self._log.path), JOB)
            first = 0 if before is None else before.checkpoint
            thread = threading.Thread(target=self._wait, args=(first,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _wait(self, first: int) -> None:
        log = Log(self._log.path)
        number = len(self._threads)
        while number == len(self._threads):
            found = read_manifest(log, JOB)
            if found is not None and found.checkpoint >= first + 2 + (first == 0):
                assert not found.finished, "too late"
                self.done.append(found.checkpoint)
                self._do()
                return
            log.clock.sleep_us(1_000)


@pytest.mark.parametrize("seed", range(2))
def test_over_a_bad_line_the_output_is_the_models(log: Log, seed: int) -> None:
    pool = UnreliablePool(log.path, random.Random(seed), faults=30)
    line = attempts(log, pool, patience=Patience(answer_s=60), batch_rows=20)
    result = line.run().result
    assert result is not None
    assert (result.finished, result.restarts, pool.attempts) == (True, 0, 1)
    assert len(set(pool.faults)) == 4, "every fault happened"
    check(log)
    assert pool.closed


@pytest.mark.parametrize("how", ["kill", "cut_off"])
def test_workers_that_are_gone_are_replaced(log: Log, how: str) -> None:
    # One that is cut off goes on writing: nobody ever sees its rows.
    chooser = random.Random(how)
    pool = UnreliablePool(log.path, chooser, faults=10)
    harm = Harm(log, pool, lambda: getattr(pool, how)(chooser.randrange(2)), times=3)
    done = attempts(log, pool, patience=Patience(answer_s=60), batch_rows=SMALL).run()
    assert done.result is not None, done.error
    told = [(each.event, each.message) for each in Journal(log, JOB).read()]
    assert (len(harm.done), done.result.restarts, pool.attempts) == (3, 3, 4), told
    assert done.result.restored is not None
    assert done.result.restored >= harm.done[-1]
    check(log)
    events = [each.event for each in Journal(log, JOB).read()]
    once = ["restored", "restarting", "waiting"]
    assert events == ["waiting", "started", "restarting", "waiting", *once, *once, "restored",
                      "finished"]  # fmt: skip
    assert record(log).attempt == 4


def test_a_job_fails_with_one_failure_more_than_it_may(log: Log) -> None:
    pool = UnreliablePool(log.path, random.Random(0), faults=0)
    Harm(log, pool, lambda: pool.kill(1), times=9)
    strategy = RestartStrategy(failures_max=2, first_delay_us=1_000)
    done = attempts(log, pool, strategy=strategy, batch_rows=SMALL).run()
    assert done.result is None
    assert isinstance(done.error, JobError)
    assert str(done.error).startswith("worker 1 (process ")
    assert str(done.error).endswith(" died: its process is gone")
    assert (pool.attempts, pool.closed) == (3, True)
    last = record(log)
    assert (last.state, last.reason, last.attempt) == (JobState.FAILED, str(done.error), 3)
    assert [(each.event, each.worker) for each in Journal(log, JOB).read()][-1] == ("failed", 1)
    nothing_open(log)


class Pool:
    """A pool whose beginnings the test plays."""

    def __init__(self, *beginnings: Callable[[Callable[[str], None]], None]) -> None:
        self.beginnings = list(beginnings)
        self.failed: list[int | None] = []
        self.closed = False

    def workers(
        self, plans: Sequence[WorkerPlan], failed: int | None, on_wait: Callable[[str], None]
    ) -> list[RemoteWorker]:
        self.failed.append(failed)
        self.beginnings.pop(0)(on_wait)
        raise AssertionError

    def close(self) -> None:
        self.closed = True


def failing(error: BaseException) -> Callable[[Callable[[str], None]], None]:
    def begin(on_wait: Callable[[str], None]) -> None:
        raise error

    return begin


@pytest.mark.parametrize(
    "error",
    [
        FencedError("another attempt has begun"),
        OptionError("worker 0 does not see the log"),
        ResourcesError("Ray started no process for worker 0 within 60 s"),
        JobCancelledError("cancelled"),
        KeyboardInterrupt(),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_another_attempt_would_not_help_is_not_tried_again(
    log: Log, error: BaseException
) -> None:
    pool = Pool(failing(error))
    done = attempts(log, pool).run()
    assert done.result is None
    assert str(error) in str(done.error)
    assert (pool.failed, pool.closed) == ([None], True)
    nothing_open(log)


def test_a_run_that_was_fenced_does_not_speak_for_the_one_that_fenced_it(log: Log) -> None:
    def fence(on_wait: Callable[[str], None]) -> None:
        log.transactions.writer(owner_of(JOB))
        newer = JobControl(log, JOB)
        newer.publish(JobRecord(JOB, "newer", JobState.RUNNING, "test", 1, "", 1, 0, now_us))
        message = "another attempt has begun"
        raise FencedError(message)

    now_us = log.clock.now_us()
    done = attempts(log, Pool(fence)).run()
    assert isinstance(done.error, FencedError)
    assert (record(log).run, record(log).state) == ("newer", JobState.RUNNING)
    assert [each.event for each in Journal(log, JOB).read()] == ["failed"]


@pytest.mark.parametrize("waiting", [True, False])
def test_a_coordinator_that_was_replaced_does_not_fence_the_one_in_its_place(
    log: Log, waiting: bool
) -> None:
    # It was cut off with its node, and Ray made it anew on another one.
    newer = []

    def begin(on_wait: Callable[[str], None]) -> None:
        newer.append(log.transactions.writer(owner_of(JOB)))
        if waiting:
            on_wait("Ray is to start worker 0")
        message = "worker 1 died"
        raise JobError(message, worker=1)

    pool = Pool(begin)
    done = attempts(log, pool).run()
    assert isinstance(done.error, FencedError)
    assert pool.failed == [None], "no process is asked for"
    log.transactions.check(newer[0])  # raises where it was fenced


def test_the_worker_that_failed_is_told_to_the_pool(log: Log) -> None:
    pool = Pool(
        failing(JobError("worker 1 died", worker=1)),
        failing(JobError("the exchange broke")),
        failing(OSError("no disk")),
        failing(JobCancelledError("enough")),
    )
    attempts(log, pool).run()
    assert pool.failed == [None, 1, None, None]


def test_the_reason_is_told_while_a_run_waits_for_its_processes(log: Log) -> None:
    seen = []

    def wait(on_wait: Callable[[str], None]) -> None:
        on_wait("Ray is to start worker 0")
        seen.append(record(log))
        on_wait("Ray is to start worker 1")
        seen.append(record(log))
        message = "enough"
        raise JobCancelledError(message)

    attempts(log, Pool(wait)).run()
    assert [(each.state, each.reason) for each in seen] == [
        (JobState.STARTING, "Ray is to start worker 0"),
        (JobState.STARTING, "Ray is to start worker 1"),
    ]


@pytest.mark.parametrize(
    ("action", "state"), [("stop", JobState.STOPPED), ("cancel", JobState.CANCELLED)]
)
def test_a_run_that_waits_for_its_processes_ends_when_it_is_told_to(
    log: Log, action: str, state: JobState
) -> None:
    def wait(on_wait: Callable[[str], None]) -> None:
        on_wait("Ray is to start worker 0")
        JobControl(log, JOB).ask("stop" if action == "stop" else "cancel", run="mine")
        while True:
            on_wait("Ray is to start worker 0")
            log.clock.sleep_us(1_000)

    done: Outcome = attempts(log, Pool(wait)).run()
    if action == "stop":
        assert done.result is not None
        assert not done.result.finished
    else:
        assert isinstance(done.error, JobCancelledError)
    assert record(log).state is state
    nothing_open(log)


def test_a_run_can_be_cancelled_between_two_attempts(log: Log) -> None:
    def fail(on_wait: Callable[[str], None]) -> None:
        on_wait("a moment")
        JobControl(log, JOB).ask("cancel", run="mine")
        message = "no disk"
        raise OSError(message)

    # Without a look at what is asked it would take an hour.
    strategy = RestartStrategy(first_delay_us=3_600_000_000, max_delay_us=3_600_000_000)
    done = attempts(log, Pool(fail), strategy=strategy).run()
    assert isinstance(done.error, JobCancelledError)
    assert record(log).state is JobState.CANCELLED


def test_a_coordinator_that_was_made_anew_counts_on(log: Log) -> None:
    first = UnreliablePool(log.path, random.Random(0), faults=0)
    Harm(log, first, lambda: first.kill(0), times=1)
    strategy = RestartStrategy(failures_max=0)
    assert attempts(log, first, strategy=strategy, batch_rows=SMALL).run().result is None
    died = record(log)
    assert died.checkpoints >= 1
    second = UnreliablePool(log.path, random.Random(0), faults=0)
    result = attempts(log, second).run().result
    assert result is not None
    last = record(log)
    assert (last.attempt, last.started_us) == (2, died.started_us)
    assert last.checkpoints > died.checkpoints
    check(log)


@pytest.mark.parametrize(
    ("pool", "damaged"),
    [
        (lambda: Pool(failing(ResourcesError("no process for worker 0 within 60 s"))), False),
        (Pool, True),
    ],
    ids=["for want of room", "over its checkpoint"],
)
def test_a_run_that_cannot_start_again_still_says_how_far_it_was(
    log: Log, pool: Callable[[], Pool], damaged: bool
) -> None:
    first = UnreliablePool(log.path, random.Random(0), faults=0)
    Harm(log, first, lambda: first.kill(0), times=1)
    strategy = RestartStrategy(failures_max=0)
    assert attempts(log, first, strategy=strategy, batch_rows=SMALL).run().result is None
    died = record(log)
    assert died.checkpoint_us is not None
    if damaged:
        manifest = read_manifest(Log(log.path), JOB)
        assert manifest is not None
        for path in manifest.paths():
            log.storage.remove(f"{log.path}/{path}")
    # The coordinator was made anew: it knows what the log and the run's record say.
    done = attempts(log, pool(), strategy=strategy).run()
    assert isinstance(done.error, CheckpointError if damaged else ResourcesError)
    last = record(log)
    assert (last.state, last.reason) == (JobState.FAILED, str(done.error))
    assert last.epoch == died.epoch + 1
    assert last.restored == (None if damaged else died.checkpoint)
    kept = ("attempt", "checkpoints", "checkpoint", "checkpoint_us", "checkpoint_bytes")
    assert [getattr(last, each) for each in kept] == [getattr(died, each) for each in kept]


def test_a_run_whose_end_is_committed_ends_though_its_coordinator_did_not_hear_of_it(
    log: Log,
) -> None:
    pool = UnreliablePool(log.path, random.Random(0), faults=0)
    assert attempts(log, pool).run().result is not None
    again = Pool()
    result = attempts(log, again).run().result
    assert result is not None
    assert result.finished
    assert again.failed == [], "no process is asked for"


def test_an_error_that_only_this_process_knows_becomes_text() -> None:
    class UnknownElsewhereError(Exception):
        pass

    error = portable(UnknownElsewhereError("no"))
    assert type(error) is JobError
    assert str(error) == "UnknownElsewhereError: no"
    known = JobError("no", worker=1)
    assert portable(known) is known
